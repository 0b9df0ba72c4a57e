//! This program once more, as another process: it is told what to do by lines, and answers with lines.

use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process::Watched;

/// Runs a program with as many open files as it may ever have.
const WITH_ALL_FILES: &str = r#"ulimit -n "$(ulimit -H -n)" && exec "$0" "$@""#;

/// Another process; killed when dropped.
pub(crate) struct Child {
    process: process::Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Child {
    /// Starts it with `arguments`.
    pub(crate) fn start(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Self> {
        let mut command = Command::new("sh");
        command
            .args(["-c", WITH_ALL_FILES])
            .arg(env::current_exe()?)
            .args(arguments);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = piped.spawn().context("cannot start an end")?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        Ok(Self {
            process,
            stdin: stdin.context("invariant: stdin is piped")?,
            stdout: BufReader::new(stdout.context("invariant: stdout is piped")?),
        })
    }

    /// Its next line.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(
            self.stdout.read_line(&mut line)? > 0,
            "another process of the benchmark has ended; it said why above"
        );
        Ok(line.trim_end().to_owned())
    }

    /// Tells it something, and waits for its answer.
    pub(crate) fn ask(&mut self, what: impl Display) -> Result<String> {
        writeln!(self.stdin, "{what}")?;
        self.line()
    }

    /// Sends it a signal, named as `kill` takes it.
    #[cfg(feature = "data")]
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status()?;
        ensure!(sent.success(), "cannot send {name} to {id}");
        Ok(())
    }

    pub(crate) fn watched(&self) -> Watched {
        Watched(self.process.id())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Says a line to the process that has started this one.
pub(crate) fn say(what: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{what}")?;
    stdout.flush()
}
