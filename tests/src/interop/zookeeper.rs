//! A ZooKeeper as a child process, and what finds its way through one.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use super::drill::text;
use super::java::{Java, Project};
use crate::process::Process;

const START_WITHIN: Duration = Duration::from_secs(90);

/// Below which all clusters are.
pub(super) const ROOT: &str = "drill";

/// A ZooKeeper of one server, from Drill's own class path.
#[derive(Debug)]
pub struct ZooKeeper {
    process: Process,
    address: SocketAddr,
    _home: TempDir,
}

impl ZooKeeper {
    /// Builds the harness if need be, and starts a server without any data on a free port.
    ///
    /// # Errors
    /// What is missing, or what the JVM said when it failed.
    pub fn start() -> Result<Self> {
        Self::start_on(0)
    }

    fn start_on(port: u16) -> Result<Self> {
        let java = Java::build(Project::Drillbit)?;
        let home = TempDir::with_prefix("zookeeper-")?;
        let mut command = java.command(128, 64);
        command
            .arg(format!("-Dinterop.home={}", text(home.path())?))
            .arg(format!("-Dinterop.port={port}"))
            .arg("interop.ZooKeeperHarness");
        let process = Process::spawn("a ZooKeeper", &mut command)?;
        let address = process
            .line_after("ready zookeeper=", START_WITHIN)?
            .parse()?;
        Ok(Self {
            process,
            address,
            _home: home,
        })
    }

    /// Kills it, and starts one without any data in its place: all sessions are lost.
    ///
    /// # Errors
    /// As [`ZooKeeper::start`].
    pub fn replace(&mut self) -> Result<()> {
        self.process.kill();
        *self = Self::start_on(self.address.port())?;
        Ok(())
    }

    /// A cluster in it, as Drill's clients and our nodes write it.
    #[must_use]
    pub fn cluster(&self, id: &str) -> String {
        format!("{}/{ROOT}/{id}", self.address)
    }

    /// Where it accepts connections.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects to a cluster as the JDBC driver does, with `jdbc:drill:zk=...`, runs one statement on whatever
    /// node the driver chooses, and returns its first value.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn query(&self, id: &str, sql: &str) -> Result<String> {
        let java = Java::build(Project::Drillbit)?;
        let home = TempDir::with_prefix("zookeeper-client-")?;
        let mut command = java.command(256, 256);
        command
            .arg(format!("-Dinterop.home={}", text(home.path())?))
            .arg("interop.ClusterQuery")
            .arg(format!("jdbc:drill:zk={}", self.cluster(id)))
            .arg(sql);
        let process = Process::spawn("the JDBC driver", &mut command)?;
        process.line_after("value ", START_WITHIN)
    }
}
