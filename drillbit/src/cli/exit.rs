//! How the program ends.

use std::{
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
};

/// Exit codes; `--help` documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Success = 0,
    Failed = 1,
    Usage = 2,
    NoConnection = 3,
    /// 128 + SIGINT, as shells count.
    Interrupted = 130,
    /// 128 + SIGTERM.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the program ends before its work is done.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What to tell; `None` when it has been told.
    pub(crate) message: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Display) -> Self {
        Self {
            exit,
            message: Some(message.to_string()),
        }
    }

    /// For what has been told already, or needs no words.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self {
            exit,
            message: None,
        }
    }

    /// Writing failed. Readers that go away (`| head`) are their own business and no failure.
    pub(crate) fn write(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(Exit::Success),
            _ => Self::new(
                Exit::Failed,
                format_args!("cannot write the output: {error}"),
            ),
        }
    }
}

/// Tells what went wrong, once, and makes the exit code.
pub(crate) fn report(outcome: Result<(), Failure>) -> ExitCode {
    let Err(failure) = outcome else {
        return Exit::Success.into();
    };
    if let Some(message) = failure.message {
        tell(&message);
    }
    failure.exit.into()
}

/// Shows an error on standard error.
pub(crate) fn tell(message: &str) {
    note(&format!("error: {}", without_empty_lines(message)));
}

/// Shows a line on standard error. Unlike `eprintln!`, does not mind that nobody reads it.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Drill sets its texts apart by empty lines, which are in the way on a terminal.
fn without_empty_lines(message: &str) -> String {
    let lines = message.lines().filter(|line| !line.trim().is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drills_texts_are_shown_without_gaps() {
        let text = "PARSE ERROR: no\n\nSQL Query: selec 1\n           ^\n\n[Error Id: 7]";
        let shown = "PARSE ERROR: no\nSQL Query: selec 1\n           ^\n[Error Id: 7]";
        assert_eq!(without_empty_lines(text), shown);
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure_worth_a_word() {
        let failure = Failure::write(&io::ErrorKind::BrokenPipe.into());
        assert_eq!((failure.exit, failure.message), (Exit::Success, None));
        let failure = Failure::write(&io::ErrorKind::StorageFull.into());
        assert_eq!(failure.exit, Exit::Failed);
    }
}
