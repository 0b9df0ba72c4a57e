//! Our node as a child process.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::process::Process;

const START_WITHIN: Duration = Duration::from_secs(30);

/// A `drillbit serve` on a free port; killed when dropped.
#[derive(Debug)]
pub struct Node {
    process: Process,
    user: SocketAddr,
}

impl Node {
    /// Starts `program serve` and waits until it accepts connections. `program` is this package's
    /// `test-node`, which ends with its stdin.
    ///
    /// # Errors
    /// It does not start; with what it wrote to stderr.
    pub fn start(program: impl AsRef<OsStr>) -> Result<Self> {
        Self::start_with(program, &[])
    }

    /// The same with further arguments.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_with(program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--user-port", "0"]).args(arguments);
        let process = Process::spawn("our node", &mut command)?;
        let ready = process.line_after("ready user=", START_WITHIN)?;
        // Its other ports may follow.
        let user = ready.split(' ').next().unwrap_or_default().parse()?;
        Ok(Self { process, user })
    }

    /// Where it accepts user connections.
    #[must_use]
    pub fn user(&self) -> SocketAddr {
        self.user
    }

    /// The process, to signal it and to look at its memory.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }
}
