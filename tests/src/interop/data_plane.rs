//! Drill's own data plane as a child process: its `DataServer` and its `DataTunnel`s, without the rest of a Drillbit.

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

/// A JVM with the data plane of Drill 1.22, and fragments made for tests; see `DataPlaneHarness.java`.
#[derive(Debug)]
pub struct DrillDataPlane {
    process: Process,
    data: SocketAddr,
    _home: TempDir,
}

impl DrillDataPlane {
    /// Builds the harness if need be, starts it, and waits until it accepts connections.
    ///
    /// # Errors
    /// What is missing, or what the JVM said when it failed.
    pub fn start() -> Result<Self> {
        let java = Java::build(Project::Drillbit)?;
        let home = TempDir::with_prefix("drill-data-")?;
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
        let command = command.arg("interop.DataPlaneHarness");
        let process = Process::spawn("Drill's data plane", command)?;
        let data = process.line_after("ready data=", START_WITHIN)?.parse()?;
        Ok(Self {
            process,
            data,
            _home: home,
        })
    }

    /// Where its `DataServer` accepts connections.
    #[must_use]
    pub fn data(&self) -> SocketAddr {
        self.data
    }

    /// Runs a command; returns what was said until it was done.
    ///
    /// # Errors
    /// It was not done in time, or the JVM has ended.
    pub fn command(&mut self, command: &str) -> Result<Vec<String>> {
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
    pub fn line_after(&self, prefix: &str) -> Result<String> {
        self.process.line_after(prefix, REPLY_WITHIN)
    }
}
