//! Drill's own control plane as a child process: its `ControlServer` and its `ControlTunnel`s, without the rest of a
//! Drillbit.

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

/// A JVM with the control plane of Drill 1.22; see `ControlPlaneHarness.java`.
#[derive(Debug)]
pub struct DrillControlPlane {
    process: Process,
    control: SocketAddr,
    _home: TempDir,
}

impl DrillControlPlane {
    /// Builds the harness if need be, starts it, and waits until it accepts connections.
    ///
    /// # Errors
    /// What is missing, or what the JVM said when it failed.
    pub fn start() -> Result<Self> {
        let java = Java::build(Project::Drillbit)?;
        let home = TempDir::with_prefix("drill-control-")?;
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
        let command = command.arg("interop.ControlPlaneHarness");
        let process = Process::spawn("Drill's control plane", command)?;
        let control = process
            .line_after("ready control=", START_WITHIN)?
            .parse()?;
        Ok(Self {
            process,
            control,
            _home: home,
        })
    }

    /// Where its `ControlServer` accepts connections.
    #[must_use]
    pub fn control(&self) -> SocketAddr {
        self.control
    }

    /// Makes every call to the node at that port of this machine; returns what came of each.
    ///
    /// # Errors
    /// It was not done in time, or the JVM has ended.
    pub fn call(&mut self, port: u16) -> Result<Vec<String>> {
        let command = format!("call {port}");
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
}
