//! The command line: arguments, exit codes, logging, and one module per command.

mod config;
mod connect;
mod drain;
mod embedded;
mod exit;
mod logging;
mod password;
mod script;
mod serve;
mod sql;
mod status;
mod tls;
mod top;
mod wire;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

pub(crate) use exit::{Exit, Failure, note, tell};
pub(crate) use password::first_line;
pub(crate) use script::summary;

const EXAMPLES: &str = "\
Examples:
  drillbit                                   shell on an embedded node
  drillbit < report.sql                      run a script on an embedded node
  drillbit -c 'select * from cp.`employee.json` limit 5'
  drillbit serve --user-port 31010           node for JDBC drivers and other clients
  drillbit sql --connect db1:31010 -c 'select 1' --format csv
  drillbit status --connect db1:31010        nodes, health, running queries
  drillbit drain --connect db1:31010         takes a node out without losing a query
  drillbit password ann >> users             a user for drillbit serve --users users
  drillbit config show > drillbit.toml       a configuration file with every key explained
  drillbit wire decode --plane user capture.bin | jq .rpc_name

Exit codes:
  0    all went well (also when a reader of the output went away)
  1    a statement failed, the input is damaged, a file cannot be read or written
  2    wrong usage, or a configuration that a node does not start with
  3    no connection: cannot listen, cannot connect, refused, or lost on the way
  130  ended by Ctrl-C
  143  ended by SIGTERM (except serve, which then ends well)";

/// A Drillbit in Rust: node, SQL shell and wire inspector.
///
/// Without a command: a SQL shell on an embedded node, which listens on a free port of the loopback
/// interface and ends with the shell. When standard input is not a terminal, runs the statements
/// that it holds and exits.
#[derive(Debug, Parser)]
#[command(name = "drillbit", version, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    script: script::ScriptArguments,
    #[command(flatten)]
    config: config::ConfigArguments,
    #[command(flatten)]
    logging: logging::LoggingArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until SIGTERM or Ctrl-C
    Serve(serve::ServeArguments),
    /// Run SQL on a Drillbit, ours or a real one
    Sql(sql::SqlArguments),
    /// Show the nodes of a cluster, their health, their queries
    Status(status::StatusArguments),
    /// Follow the nodes of a cluster on a screen
    Top(top::TopArguments),
    /// Have a node take no new work, end what runs, and leave
    Drain(drain::DrainArguments),
    /// Make a line for the file of users
    Password(password::PasswordArguments),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Look at recorded Drill RPC
    #[command(subcommand)]
    Wire(wire::WireCommand),
}

/// Runs the program with `arguments`, the first of which is its name. Blocks until it ends.
pub fn run<A: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = A>) -> ExitCode {
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => exit::report(dispatch(arguments)),
        Err(error) => {
            // Help goes to stdout, errors to stderr; if that is closed there is nobody to tell.
            let _ = error.print();
            if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Success.into()
            }
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    let default = match &arguments.command {
        Some(Command::Serve(_)) => logging::SERVER_FILTER,
        _ => logging::TOOL_FILTER,
    };
    arguments.logging.install(default)?;
    let config = &arguments.config;
    match arguments.command {
        None => embedded::run(&arguments.script, config),
        Some(Command::Serve(serve)) => serve::run(&serve, config),
        Some(Command::Sql(sql)) => sql::run(&sql, config),
        Some(Command::Status(arguments)) => status::run(&arguments, config),
        Some(Command::Top(arguments)) => top::run(&arguments, config),
        Some(Command::Drain(arguments)) => drain::run(&arguments, config),
        Some(Command::Password(arguments)) => password::run(&arguments),
        Some(Command::Config(command)) => config::run(&command, config),
        Some(Command::Wire(wire)) => wire::run(&wire),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_option_has_a_help_text() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        let mut command = Arguments::command();
        command.build();
        check(&command);
    }

    #[test]
    fn the_shell_needs_no_arguments() {
        assert!(parse("drillbit").unwrap().command.is_none());
    }

    #[test]
    fn wrong_flags_are_refused() {
        let wrong = [
            "drillbit srve",
            "drillbit serve --user-port 70000",
            "drillbit serve --bind nowhere.example",
            "drillbit sql --format xml",
            "drillbit sql -c x -f y",
            "drillbit sql --connect",
            "drillbit status --interval 0",
            "drillbit drain --timeout -1",
            "drillbit config",
            "drillbit password",
            "drillbit password ann --scheme md5",
            "drillbit wire decode file",
            "drillbit wire decode --plane moon file",
            "drillbit -c x serve",
        ];
        for line in wrong {
            let error = parse(line)
                .err()
                .unwrap_or_else(|| panic!("{line} was accepted"));
            assert!(error.use_stderr(), "{line}: {error}");
        }
    }
}
