//! A real Drillbit as a child process.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::java::{Java, Project};
use super::zookeeper::{ROOT, ZooKeeper};
use crate::process::Process;

/// Generous: it takes 3 to 6 s where nothing else runs.
const START_WITHIN: Duration = Duration::from_secs(90);

/// How large a Drillbit is.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Java heap, in MiB. Default 1024.
    pub heap_mib: u32,
    /// Direct memory, where Drill keeps vectors, in MiB. Default 2048.
    pub direct_mib: u32,
}

/// How a Drillbit lets users in: over TLS, with a password.
#[derive(Debug, Clone)]
pub struct Security {
    /// Its key and certificate, a PKCS12 file.
    pub key_store: PathBuf,
    /// Password of that file and of the key in it.
    pub key_store_password: String,
    /// Users, as `htpasswd` writes them.
    pub users: PathBuf,
}

/// A running Drill 1.22, alone in its cluster.
#[derive(Debug)]
pub struct RealDrillbit {
    process: Process,
    control: SocketAddr,
    user: SocketAddr,
    started_in: Duration,
    // Deleted by the harness when its stdin ends, and here when it is killed.
    _home: TempDir,
}

impl RealDrillbit {
    /// Builds the harness if need be, starts it, and waits until it accepts connections.
    ///
    /// # Errors
    /// What is missing, or what the Drillbit said when it failed.
    pub fn start(memory: &Memory) -> Result<Self> {
        Self::start_with(*memory, Vec::new())
    }

    /// As [`RealDrillbit::start`], with users that have to prove who they are.
    ///
    /// # Errors
    /// As [`RealDrillbit::start`].
    pub fn start_secured(memory: &Memory, security: &Security) -> Result<Self> {
        Self::start_with(*memory, security.settings()?)
    }

    /// As [`RealDrillbit::start`], as a member of the cluster `id` in a ZooKeeper.
    ///
    /// # Errors
    /// As [`RealDrillbit::start`].
    pub fn start_in(memory: &Memory, zookeeper: &ZooKeeper, id: &str) -> Result<Self> {
        let settings = vec![
            ("drill.exec.zk.connect", zookeeper.address().to_string()),
            ("drill.exec.zk.root", ROOT.to_owned()),
            ("drill.exec.cluster-id", id.to_owned()),
        ];
        Self::start_with(*memory, settings)
    }

    fn start_with(memory: Memory, more: Vec<(&'static str, String)>) -> Result<Self> {
        let java = Java::build(Project::Drillbit)?;
        let home = TempDir::with_prefix("drillbit-")?;
        let mut command = java.command(memory.heap_mib, memory.direct_mib);
        command.env("DRILL_HOST_NAME", "127.0.0.1");
        // System properties go before the main class, and java takes them in any order before it.
        for (key, value) in settings(home.path())?.into_iter().chain(more) {
            command.arg(format!("-D{key}={value}"));
        }
        let begun = Instant::now();
        let process = Process::spawn("the real Drillbit", command.arg("interop.DrillbitHarness"))?;
        let control = process
            .line_after("ready control=", START_WITHIN)?
            .parse()?;
        let user = process.line_after("ready user=", START_WITHIN)?.parse()?;
        Ok(Self {
            process,
            control,
            user,
            started_in: begun.elapsed(),
            _home: home,
        })
    }

    /// From the start of the JVM until it accepted connections.
    #[must_use]
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Process id of the JVM.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where it accepts the control connections of other Drillbits.
    #[must_use]
    pub fn control(&self) -> SocketAddr {
        self.control
    }

    /// Where it accepts user connections.
    #[must_use]
    pub fn user(&self) -> SocketAddr {
        self.user
    }

    /// Has it shut down in order, and waits until it is gone.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn leave(&mut self) -> Result<()> {
        self.process.end_input();
        self.process.wait(START_WITHIN)?;
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            heap_mib: 1024,
            direct_mib: 2048,
        }
    }
}

fn settings(home: &Path) -> Result<Vec<(&'static str, String)>> {
    let (user, bit) = free_ports()?;
    let temporary: PathBuf = home.join("jvm");
    fs::create_dir(&temporary)?;
    Ok(vec![
        ("interop.home", text(home)?),
        ("java.io.tmpdir", text(&temporary)?),
        ("drill.exec.rpc.user.server.port", user.to_string()),
        ("drill.exec.rpc.bit.server.port", bit.to_string()),
    ])
}

impl Security {
    fn settings(&self) -> Result<Vec<(&'static str, String)>> {
        let yes = || "true".to_owned();
        Ok(vec![
            ("drill.exec.security.user.auth.enabled", yes()),
            ("drill.exec.security.user.auth.impl", "htpasswd".to_owned()),
            (
                "drill.exec.security.user.auth.htpasswd.path",
                text(&self.users)?,
            ),
            ("drill.exec.security.auth.mechanisms.0", "PLAIN".to_owned()),
            ("drill.exec.security.user.encryption.ssl.enabled", yes()),
            ("drill.exec.ssl.keyStoreType", "PKCS12".to_owned()),
            ("drill.exec.ssl.keyStorePath", text(&self.key_store)?),
            (
                "drill.exec.ssl.keyStorePassword",
                self.key_store_password.clone(),
            ),
        ])
    }
}

pub(super) fn text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .context("a path that is not UTF-8")
}

/// Two ports that were free a moment ago. Drill takes the next ones where they are taken meanwhile,
/// and says which.
pub(super) fn free_ports() -> Result<(u16, u16)> {
    let user = TcpListener::bind("127.0.0.1:0")?;
    let bit = TcpListener::bind("127.0.0.1:0")?;
    Ok((user.local_addr()?.port(), bit.local_addr()?.port()))
}
