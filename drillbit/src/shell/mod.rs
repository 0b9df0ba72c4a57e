//! The interactive shell: statements over several lines, history, and queries that Ctrl-C cancels.

mod command;
mod editor;
mod history;

use std::io::{self, IsTerminal};

use client::Client;
use rpc_bus::BusRuntime;
use rustyline::{config::Behavior, error::ReadlineError};

use crate::{
    cli::{Exit, Failure, note, summary, tell},
    connector::Connector,
    progress::{Audience, Progress},
    query::{self, Output, QueryError},
    signals::{Signal, Signals},
    statement::Splitter,
};

use command::Command;
use editor::LineEditor;

pub(crate) use editor::ask_password;

const PROMPT: &str = "drill> ";

/// Runs until the user leaves.
pub(crate) fn run(bus: &BusRuntime, connector: Connector, output: Output) -> Result<(), Failure> {
    let mut editor = LineEditor::open(behavior()).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format_args!("cannot open the terminal: {error}"),
        )
    })?;
    let mut shell = Shell::open(bus, connector, output)?;
    loop {
        let input = match editor.read(PROMPT) {
            Ok(input) => input,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return shell.leave(),
            Err(error) => {
                return Err(Failure::new(
                    Exit::Failed,
                    format_args!("the terminal: {error}"),
                ));
            }
        };
        if shell.run_input(&input)? == Next::Leave {
            return shell.leave();
        }
    }
}

/// When results go into a file or a pipe, the prompt must not.
fn behavior() -> Behavior {
    if io::stdout().is_terminal() {
        Behavior::Stdio
    } else {
        Behavior::PreferTerm
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Prompt,
    Leave,
}

struct Shell<'a> {
    bus: &'a BusRuntime,
    connector: Connector,
    /// `None` after the connection was lost; the next statement connects again.
    client: Option<Client>,
    signals: Signals,
    output: Output,
}

impl<'a> Shell<'a> {
    fn open(bus: &'a BusRuntime, connector: Connector, output: Output) -> Result<Self, Failure> {
        let client = bus.app().block_on(connector.connect())?;
        let signals = {
            let _entered = bus.app().enter();
            Signals::listen().map_err(|error| Failure::new(Exit::Failed, error))?
        };
        note(&command::banner(client.server(), &connector.address));
        Ok(Self {
            bus,
            connector,
            client: Some(client),
            signals,
            output,
        })
    }

    fn leave(self) -> Result<(), Failure> {
        if let Some(client) = self.client {
            self.bus.app().block_on(client.close());
        }
        self.output.commit().map_err(|error| Failure::write(&error))
    }

    /// One complete input: a command, or statements.
    fn run_input(&mut self, input: &str) -> Result<Next, Failure> {
        match Command::parse(input) {
            Some(Ok(command)) => Ok(self.run_command(command)),
            Some(Err(error)) => {
                tell(&error);
                Ok(Next::Prompt)
            }
            None => self.run_statements(input),
        }
    }

    fn run_command(&mut self, command: Command) -> Next {
        match command {
            Command::Quit => return Next::Leave,
            Command::Help => note(command::HELP),
            Command::Format(format) => self.output.set_format(format),
        }
        Next::Prompt
    }

    fn run_statements(&mut self, input: &str) -> Result<Next, Failure> {
        let mut splitter = Splitter::default();
        let mut statements = splitter.push(input);
        match splitter.finish() {
            Ok(last) => statements.extend(last),
            Err(error) => tell(&error.to_string()),
        }
        for statement in statements {
            if self.run_statement(&statement.sql)? == Outcome::Stopped {
                break;
            }
        }
        Ok(Next::Prompt)
    }

    /// Errors of statements are told and end nothing; a terminal that is gone ends the shell.
    fn run_statement(&mut self, sql: &str) -> Result<Outcome, Failure> {
        let bus = self.bus;
        match bus.app().block_on(self.execute(sql)) {
            Ok(outcome) => Ok(outcome),
            Err(Failed::Query(QueryError::Write(error))) => Err(Failure::write(&error)),
            Err(Failed::Query(error)) => {
                tell(&error.to_string());
                self.forget_lost_connection(&error);
                Ok(Outcome::Stopped)
            }
            Err(Failed::Connect(failure)) => {
                tell(&failure.message.unwrap_or_default());
                Ok(Outcome::Stopped)
            }
            Err(Failed::Terminated) => Err(Failure::silent(Exit::Terminated)),
        }
    }

    async fn execute(&mut self, sql: &str) -> Result<Outcome, Failed> {
        let client = match &mut self.client {
            Some(client) => client,
            lost => lost.insert(self.connector.connect().await.map_err(Failed::Connect)?),
        };
        let progress = Progress::begin(Audience::Absent);
        tokio::select! {
            outcome = query::run(client, sql, &mut self.output, &progress) => {
                note(&summary(&outcome.map_err(Failed::Query)?));
                Ok(Outcome::Done)
            }
            signal = self.signals.next() => match signal {
                Signal::Interrupt => {
                    note("\ncancelled");
                    Ok(Outcome::Stopped)
                }
                Signal::Terminate => Err(Failed::Terminated),
            }
        }
    }

    fn forget_lost_connection(&mut self, error: &QueryError) {
        if error.is_connection() {
            note(&format!(
                "the next statement connects to {} again",
                self.connector.address
            ));
            self.client = None;
        }
    }
}

/// Whether statements of the same input go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Stopped,
}

enum Failed {
    Query(QueryError),
    Connect(Failure),
    Terminated,
}
