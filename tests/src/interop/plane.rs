//! A plane of Drill's own as a child process, without the rest of a Drillbit: it takes commands, a line each.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::drill::{free_ports, text};
use super::java::{Java, Project};
use crate::process::Process;

const START_WITHIN: Duration = Duration::from_secs(90);
/// No step of a test takes longer.
const REPLY_WITHIN: Duration = Duration::from_secs(90);

/// A JVM with one of Drill 1.22's planes.
#[derive(Debug)]
pub(super) struct DrillPlane {
    process: Process,
    address: SocketAddr,
    _home: TempDir,
}

impl DrillPlane {
    /// Builds the harness if need be, starts its class `main`, and waits until the plane `name` accepts connections.
    ///
    /// # Errors
    /// What is missing, or what the JVM said when it failed.
    pub(super) fn start(name: &str, main: &str) -> Result<Self> {
        let java = Java::build(Project::Drillbit)?;
        let home = TempDir::with_prefix(format!("drill-{name}-"))?;
        let mut command = java.command(512, 1024);
        command.env("DRILL_HOST_NAME", "127.0.0.1");
        let (port, _) = free_ports()?;
        for (key, value) in [
            ("interop.home", text(home.path())?),
            ("java.io.tmpdir", text(home.path())?),
            ("interop.port", port.to_string()),
        ] {
            command.arg(format!("-D{key}={value}"));
        }
        let process = Process::spawn(format!("Drill's {name} plane"), command.arg(main))?;
        let ready = process.line_after(&format!("ready {name}="), START_WITHIN)?;
        Ok(Self {
            process,
            address: ready.parse()?,
            _home: home,
        })
    }

    /// Where its server accepts connections.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs a command; returns what was said until it was done.
    ///
    /// # Errors
    /// It was not done in time, or the JVM has ended.
    pub(super) fn command(&mut self, command: &str) -> Result<Vec<String>> {
        let stdin = self.process.stdin().context("stdin is piped")?;
        writeln!(stdin, "{command}")?;
        stdin.flush()?;
        let (done, mut said) = (format!("done {command}"), Vec::new());
        loop {
            let line = self.process.line(REPLY_WITHIN)?;
            if line == done {
                return Ok(said);
            }
            said.push(line);
        }
    }

    /// Skips lines until one starts with `prefix`, and returns what follows it.
    ///
    /// # Errors
    /// None came in time, or the JVM has ended.
    pub(super) fn line_after(&self, prefix: &str) -> Result<String> {
        self.process.line_after(prefix, REPLY_WITHIN)
    }
}
