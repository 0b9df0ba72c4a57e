//! Statements from arguments, a file or standard input, one after the other; or the shell.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, IsTerminal},
    path::PathBuf,
    thread,
};

use clap::Args;
use indicatif::HumanCount;
use rpc_bus::BusRuntime;
use tokio::sync::mpsc;

use super::{Exit, Failure, note, tell};
use crate::{
    connector::Connector,
    output::{Destination, Format},
    progress::{Audience, Progress},
    query::{self, Done, Output, QueryError},
    shell,
    signals::Signals,
    statement::{ScriptError, Statement, Statements},
};

/// What to run and where the results go.
#[derive(Debug, Args)]
pub(super) struct ScriptArguments {
    /// Run these statements, separated by ;
    #[arg(short, long, value_name = "SQL", conflicts_with = "file")]
    command: Option<String>,
    /// Run the statements of a file; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Format of the results
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write the results to a file, which appears only when all of it went well
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Go on after a statement that failed; the exit code still tells, and an output file is kept
    #[arg(long)]
    keep_going: bool,
    /// No row counts and times on standard error
    #[arg(short, long)]
    quiet: bool,
}

/// Where statements come from.
enum Source {
    Shell,
    Script(Box<dyn BufRead + Send>),
}

impl ScriptArguments {
    /// Runs what is wanted, on what `connector` connects to.
    pub(super) fn run(&self, bus: &BusRuntime, connector: Connector) -> Result<(), Failure> {
        self.check()?;
        let source = self.source()?;
        let output = Output::new(self.destination()?, self.format);
        match source {
            Source::Shell => shell::run(bus, connector, output),
            Source::Script(script) => bus
                .app()
                .block_on(self.run_script(&connector, script, output)),
        }
    }

    fn check(&self) -> Result<(), Failure> {
        if self.format.is_binary() && self.output.is_none() && io::stdout().is_terminal() {
            let message =
                "--format arrow is binary: name a file with -o, or pipe it into a program";
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(())
    }

    fn source(&self) -> Result<Source, Failure> {
        if let Some(sql) = &self.command {
            return Ok(Source::Script(Box::new(Cursor::new(sql.clone()))));
        }
        match &self.file {
            Some(path) if path.as_os_str() != "-" => {
                let file = File::open(path).map_err(|error| {
                    Failure::new(
                        Exit::Failed,
                        format_args!("cannot read {}: {error}", path.display()),
                    )
                })?;
                Ok(Source::Script(Box::new(BufReader::new(file))))
            }
            None if io::stdin().is_terminal() => Ok(Source::Shell),
            _ => Ok(Source::Script(Box::new(BufReader::new(io::stdin())))),
        }
    }

    fn destination(&self) -> Result<Destination, Failure> {
        let Some(path) = &self.output else {
            return Ok(Destination::stdout());
        };
        Destination::file(path).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format_args!("cannot write {}: {error}", path.display()),
            )
        })
    }

    async fn run_script(
        &self,
        connector: &Connector,
        script: Box<dyn BufRead + Send>,
        output: Output,
    ) -> Result<(), Failure> {
        let signals = Signals::listen().map_err(|error| Failure::new(Exit::Failed, error))?;
        let client = connector.connect().await?;
        let mut run = Run {
            arguments: self,
            output,
            signals,
            failed: false,
        };
        let outcome = run.all(&client, read_in_background(script)?).await;
        client.close().await;
        outcome?;
        run.output
            .commit()
            .map_err(|error| Failure::write(&error))?;
        if run.failed {
            Err(Failure::silent(Exit::Failed))
        } else {
            Ok(())
        }
    }

    fn audience(&self) -> Audience {
        let shown_on_terminal = self.output.is_none() && io::stdout().is_terminal();
        if self.quiet || shown_on_terminal || !io::stderr().is_terminal() {
            Audience::Absent
        } else {
            Audience::Present
        }
    }
}

type Script = mpsc::Receiver<Result<Statement, ScriptError>>;

/// Reading blocks (standard input may be slow), so it has a thread, which reads one statement
/// ahead.
fn read_in_background(source: Box<dyn BufRead + Send>) -> Result<Script, Failure> {
    let (sender, script) = mpsc::channel(1);
    let read = move || {
        for statement in Statements::new(source) {
            if sender.blocking_send(statement).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("script".to_owned()).spawn(read);
    thread.map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(script)
}

/// A script on its way.
struct Run<'a> {
    arguments: &'a ScriptArguments,
    output: Output,
    signals: Signals,
    failed: bool,
}

impl Run<'_> {
    async fn all(&mut self, client: &client::Client, mut script: Script) -> Result<(), Failure> {
        loop {
            let statement = tokio::select! {
                statement = script.recv() => statement,
                signal = self.signals.next() => return Err(Failure::silent(signal.exit())),
            };
            let Some(statement) = statement else {
                return Ok(());
            };
            let statement = statement.map_err(|error| Failure::new(Exit::Failed, error))?;
            self.one(client, &statement).await?;
        }
    }

    async fn one(&mut self, client: &client::Client, statement: &Statement) -> Result<(), Failure> {
        let progress = Progress::begin(self.arguments.audience());
        let outcome = tokio::select! {
            outcome = query::run(client, &statement.sql, &mut self.output, &progress) => outcome,
            signal = self.signals.next() => return Err(Failure::silent(signal.exit())),
        };
        drop(progress);
        match outcome {
            Ok(_) if self.arguments.quiet => {}
            Ok(done) => note(&summary(&done)),
            Err(error) => self.fail(statement, &error)?,
        }
        Ok(())
    }

    /// Ends the script or, if it shall go on and can, only tells.
    fn fail(&mut self, statement: &Statement, error: &QueryError) -> Result<(), Failure> {
        let message = format!("{}{error}", self.place(statement));
        let failure = match error {
            QueryError::Write(error) => Failure::write(error),
            QueryError::Client(_) if error.is_connection() => {
                Failure::new(Exit::NoConnection, message)
            }
            QueryError::Client(_) | QueryError::Render(_) => Failure::new(Exit::Failed, message),
        };
        if !self.arguments.keep_going || failure.exit != Exit::Failed {
            return Err(failure);
        }
        self.failed = true;
        tell(&failure.message.unwrap_or_default());
        Ok(())
    }

    /// A single statement given as an argument needs no place.
    fn place(&self, statement: &Statement) -> String {
        if self.arguments.command.is_some() && statement.number == 1 {
            return String::new();
        }
        format!("statement {} (line {}): ", statement.number, statement.line)
    }
}

/// Rows and seconds, as shown behind every result.
pub(crate) fn summary(done: &Done) -> String {
    let rows = if done.rows == 1 { "row" } else { "rows" };
    format!(
        "{} {rows} in {:.3} s",
        HumanCount(done.rows),
        done.elapsed.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rows_are_counted_in_words_that_fit() {
        let shown = |rows| {
            summary(&Done {
                rows,
                elapsed: Duration::from_millis(1_234),
            })
        };
        assert_eq!(shown(0), "0 rows in 1.234 s");
        assert_eq!(shown(1), "1 row in 1.234 s");
        assert_eq!(shown(1_000_000), "1,000,000 rows in 1.234 s");
    }
}
