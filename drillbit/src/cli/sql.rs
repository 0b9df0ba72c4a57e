//! `drillbit sql`: statements on a Drillbit, ours or a real one.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Exit, Failure, script::ScriptArguments};
use crate::{
    connector::{self, Connector},
    shell,
    threads::{ThreadOptions, Threads},
};

/// Holds the password, so that it is in no list of processes.
const PASSWORD_VARIABLE: &str = "DRILL_PASSWORD";

const AFTER_HELP: &str = "\
Without -c and -f: a shell if standard input is a terminal, else the statements of standard input.
Statements end with ; and the last one needs none. A script stops at the first statement that fails,
unless --keep-going. Row counts and times go to standard error. If the columns change in the middle
of a result, table begins a new table, json and ndjson go on, csv goes on if the names are the same,
and arrow stops with an error.
The password comes from --password-file, --ask-password or the environment variable DRILL_PASSWORD.

Examples:
  drillbit sql --connect db1:31010 -u ann --ask-password
  drillbit sql -c 'select * from dfs.`/data/t.parquet`' --format arrow -o t.arrows
  drillbit sql -f nightly.sql --format csv -o nightly.csv";

/// Arguments of `sql`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct SqlArguments {
    /// User address of the Drillbit; the port may be left out
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:31010")]
    connect: String,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    user: Option<String>,
    /// Read the password from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "ask_password")]
    password_file: Option<PathBuf>,
    /// Ask for the password
    #[arg(short = 'W', long)]
    ask_password: bool,
    /// Schema in which tables are looked up, such as dfs.tmp
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
    #[command(flatten)]
    script: ScriptArguments,
}

/// Runs the statements.
pub(super) fn run(arguments: &SqlArguments) -> Result<(), Failure> {
    let password = arguments.password()?;
    let threads = Threads::start(&ThreadOptions::default()).map_err(|error| {
        Failure::new(Exit::Failed, format_args!("cannot start threads: {error}"))
    })?;
    let connector = Connector::remote(
        &arguments.connect,
        threads.bus(),
        connector::Login {
            user: arguments.user.clone(),
            password,
            schema: arguments.schema.clone(),
        },
    );
    arguments.script.run(threads.bus(), connector)
}

impl SqlArguments {
    fn password(&self) -> Result<Option<String>, Failure> {
        if self.ask_password {
            return shell::ask_password().map(Some);
        }
        match &self.password_file {
            Some(path) => first_line(path).map(Some),
            None => Ok(env::var(PASSWORD_VARIABLE).ok()),
        }
    }
}

fn first_line(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format_args!("cannot read the password file {}: {error}", path.display()),
        )
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
