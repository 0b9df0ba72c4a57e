//! Memory of connections on which nothing happens: both ends in processes of their own.
//!
//! The kernel's memory of a socket is not in it. Some connections are opened before the first look, so that what a
//! process allocates once is not in it either.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::threads::ThreadOptions;
use super::variant;
use crate::process::Watched;

/// Connections that are counted.
const CONNECTIONS: u32 = 10_000;
/// Connections before the first look.
const CONNECTIONS_BEFORE: u32 = 200;
/// Memory is looked at when it has stopped to change by more than this, or after the last of so many looks.
const SETTLED_KIB: f64 = 64.0;
const LOOKS_MAX: u32 = 40;
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Runs a program with as many open files as it may ever have.
const WITH_ALL_FILES: &str = r#"ulimit -n "$(ulimit -H -n)" && exec "$0" "$@""#;

/// Arguments of one end.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct End {
    variant: String,
    /// Calls this one; without it, it is the end that answers.
    #[arg(long)]
    server: Option<SocketAddr>,
    /// Where certificate and key are.
    #[arg(long)]
    certificate: PathBuf,
    #[command(flatten)]
    threads: ThreadOptions,
}

/// Runs one end until stdin ends.
pub(crate) fn run(end: &End) -> Result<()> {
    let stack = variant(&end.variant, &end.certificate)?;
    let Some(server) = end.server else {
        let serving = stack.serve(end.threads)?;
        say(&serving.addr)?;
        io::stdin().lines().try_for_each(|line| line.map(drop))?;
        return Ok(());
    };
    let mut held = stack.hold(end.threads, server)?;
    say(&"ready")?;
    for line in io::stdin().lines() {
        held.open(line?.parse()?)?;
        say(&"open")?;
    }
    Ok(())
}

fn say(what: &impl std::fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{what}")?;
    stdout.flush()
}

/// KiB a connection, of each end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) server: f64,
    pub(super) client: f64,
}

impl Memory {
    /// That of the end that takes more.
    pub(super) fn of_larger_end(self) -> f64 {
        self.server.max(self.client)
    }
}

/// Opens the connections and looks what they cost.
pub(super) fn measure(variant: &str, certificate: &Path, threads: ThreadOptions) -> Result<Memory> {
    let start = |server| Process::start(variant, server, certificate, threads);
    let (server, addr) = start(None)?;
    let (mut client, _) = start(Some(addr.as_str()))?;
    client.open(CONNECTIONS_BEFORE)?;
    let before = (server.settled_kib()?, client.settled_kib()?);
    client.open(CONNECTIONS)?;
    let each = |after: f64, before: f64| (after - before) / f64::from(CONNECTIONS);
    Ok(Memory {
        server: each(server.settled_kib()?, before.0),
        client: each(client.settled_kib()?, before.1),
    })
}

/// One end; killed when dropped.
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it and waits for its first line.
    fn start(
        variant: &str,
        server: Option<&str>,
        certificate: &Path,
        threads: ThreadOptions,
    ) -> Result<(Self, String)> {
        let mut command = Command::new("sh");
        command
            .args(["-c", WITH_ALL_FILES])
            .arg(env::current_exe()?);
        command
            .args(["idle", variant, "--certificate"])
            .arg(certificate);
        command.args(threads.arguments());
        if let Some(server) = server {
            command.args(["--server", server]);
        }
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().context("cannot start an end")?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut process = Self {
            child,
            stdin: stdin.context("invariant: stdin is piped")?,
            stdout: BufReader::new(stdout.context("invariant: stdout is piped")?),
        };
        let line = process.line()?;
        Ok((process, line))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(
            self.stdout.read_line(&mut line)? > 0,
            "an end of the connections has ended; it said why above"
        );
        Ok(line.trim_end().to_owned())
    }

    fn open(&mut self, connections: u32) -> Result<()> {
        writeln!(self.stdin, "{connections}")?;
        self.line().map(drop)
    }

    /// Resident memory when it has stopped changing.
    fn settled_kib(&self) -> Result<f64> {
        let process = Watched(self.child.id());
        let mut last = process.resident_mib()? * 1024.0;
        for _ in 0..LOOKS_MAX {
            sleep(LOOK_AGAIN);
            let now = process.resident_mib()? * 1024.0;
            if (now - last).abs() < SETTLED_KIB {
                return Ok(now);
            }
            last = now;
        }
        Ok(last)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
