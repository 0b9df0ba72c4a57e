//! Drill's own data plane as a child process: its `DataServer` and its `DataTunnel`s, without the rest of a Drillbit.

use std::net::SocketAddr;

use anyhow::Result;

use super::plane::DrillPlane;

/// A JVM with the data plane of Drill 1.22, and fragments made for tests; see `DataPlaneHarness.java`.
#[derive(Debug)]
pub struct DrillDataPlane(DrillPlane);

impl DrillDataPlane {
    /// Builds the harness if need be, starts it, and waits until it accepts connections.
    ///
    /// # Errors
    /// What is missing, or what the JVM said when it failed.
    pub fn start() -> Result<Self> {
        DrillPlane::start("data", "interop.DataPlaneHarness").map(Self)
    }

    /// Where its `DataServer` accepts connections.
    #[must_use]
    pub fn data(&self) -> SocketAddr {
        self.0.address()
    }

    /// Runs a command; returns what was said until it was done.
    ///
    /// # Errors
    /// It was not done in time, or the JVM has ended.
    pub fn command(&mut self, command: &str) -> Result<Vec<String>> {
        self.0.command(command)
    }

    /// Skips lines until one starts with `prefix`, and returns what follows it.
    ///
    /// # Errors
    /// None came in time, or the JVM has ended.
    pub fn line_after(&self, prefix: &str) -> Result<String> {
        self.0.line_after(prefix)
    }
}
