//! Drill's own control plane as a child process: its `ControlServer` and its `ControlTunnel`s, without the rest of a
//! Drillbit.

use std::net::SocketAddr;

use anyhow::Result;

use super::plane::DrillPlane;

/// A JVM with the control plane of Drill 1.22; see `ControlPlaneHarness.java`.
#[derive(Debug)]
pub struct DrillControlPlane(DrillPlane);

impl DrillControlPlane {
    /// Builds the harness if need be, starts it, and waits until it accepts connections.
    ///
    /// # Errors
    /// What is missing, or what the JVM said when it failed.
    pub fn start() -> Result<Self> {
        DrillPlane::start("control", "interop.ControlPlaneHarness").map(Self)
    }

    /// Where its `ControlServer` accepts connections.
    #[must_use]
    pub fn control(&self) -> SocketAddr {
        self.0.address()
    }

    /// Makes every call to the node at that port of this machine; returns what came of each.
    ///
    /// # Errors
    /// It was not done in time, or the JVM has ended.
    pub fn call(&mut self, port: u16) -> Result<Vec<String>> {
        self.0.command(&format!("call {port}"))
    }
}
