//! What is not SQL: `\q` and its like.

use clap::ValueEnum;
use client::ServerInfo;

use crate::output::Format;

pub(super) const HELP: &str = "\
Type SQL and end it with ; (Enter begins a new line until then).

  \\q, quit, exit, Ctrl-D   leave
  \\?, help                 this text
  \\format NAME             table, csv, json or ndjson for the results to come
  Ctrl-C                   cancels the running query, or empties the line
  Up, Down, Ctrl-R         history

For example:
  select full_name, salary from cp.`employee.json` order by salary desc limit 5;
  select count(*) from dfs.`/path/to/file.parquet`;";

/// An input that the shell obeys itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Quit,
    Help,
    Format(Format),
}

impl Command {
    /// `None` if it is SQL (or nothing).
    pub(super) fn parse(input: &str) -> Option<Result<Self, String>> {
        let input = input.trim();
        // Words that cannot begin a statement, with the `;` that fingers add.
        match input.trim_end_matches(';').trim_end() {
            "quit" | "exit" | "!quit" => return Some(Ok(Self::Quit)),
            "help" | "!help" => return Some(Ok(Self::Help)),
            _ => {}
        }
        let mut words = input
            .strip_prefix('\\')?
            .trim_end_matches(';')
            .split_whitespace();
        Some(match (words.next(), words.next()) {
            (Some("q"), None) => Ok(Self::Quit),
            (Some("?" | "h" | "help"), None) => Ok(Self::Help),
            (Some("format"), Some(name)) => text_format(name).map(Self::Format),
            _ => Err(format!("unknown command {input}; \\? lists the commands")),
        })
    }
}

fn text_format(name: &str) -> Result<Format, String> {
    match Format::from_str(name, true) {
        Ok(format) if !format.is_binary() => Ok(format),
        _ => Err(format!(
            "unknown format {name}; the shell has table, csv, json and ndjson"
        )),
    }
}

/// The first line that a user sees.
pub(super) fn banner(server: &ServerInfo, address: &str) -> String {
    let name = if server.name.is_empty() {
        "A Drillbit without a name"
    } else {
        &server.name
    };
    format!(
        "{name} {} at {address}. End statements with ; \\? helps, \\q leaves.",
        server.version
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_sql() {
        assert_eq!(Command::parse(" \\q "), Some(Ok(Command::Quit)));
        assert_eq!(Command::parse("exit;"), Some(Ok(Command::Quit)));
        assert_eq!(Command::parse("\\?"), Some(Ok(Command::Help)));
        assert_eq!(
            Command::parse("\\format NDJSON"),
            Some(Ok(Command::Format(Format::Ndjson)))
        );
        assert_eq!(Command::parse("select 'quit';"), None);
        assert_eq!(Command::parse(""), None);
    }

    #[test]
    fn what_is_no_command_says_where_to_look() {
        for wrong in ["\\x", "\\format", "\\q now"] {
            let error = Command::parse(wrong).unwrap().unwrap_err();
            assert!(error.contains("\\?"), "{error}");
        }
        assert!(
            Command::parse("\\format arrow")
                .unwrap()
                .unwrap_err()
                .contains("table, csv")
        );
    }
}
