//! Memory of connections on which nothing happens: both ends in processes of their own.
//!
//! The kernel's memory of a socket is not in it. Some connections are opened before the first look, so that what a
//! process allocates once is not in it either.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::threads::ThreadOptions;
use super::variant;
use crate::child::{Child, say};
use crate::process::Watched;

/// Connections that are counted.
const CONNECTIONS: u32 = 10_000;
/// Connections before the first look.
const CONNECTIONS_BEFORE: u32 = 200;
/// Memory is looked at when it has stopped to change by more than this, or after the last of so many looks.
const SETTLED_KIB: f64 = 64.0;
const LOOKS_MAX: u32 = 40;
const LOOK_AGAIN: Duration = Duration::from_millis(250);
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
        say(serving.addr)?;
        io::stdin().lines().try_for_each(|line| line.map(drop))?;
        return Ok(());
    };
    let mut held = stack.hold(end.threads, server)?;
    say("ready")?;
    for line in io::stdin().lines() {
        held.open(line?.parse()?)?;
        say("open")?;
    }
    Ok(())
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
    let start = |server| start(variant, server, certificate, threads);
    let (server, addr) = start(None)?;
    let (mut client, _) = start(Some(addr))?;
    let look = |client: &Child| -> Result<_> {
        Ok((
            settled_kib(server.watched())?,
            settled_kib(client.watched())?,
        ))
    };
    client.ask(CONNECTIONS_BEFORE)?;
    let before = look(&client)?;
    client.ask(CONNECTIONS)?;
    let after = look(&client)?;
    let each = |after: f64, before: f64| (after - before) / f64::from(CONNECTIONS);
    Ok(Memory {
        server: each(after.0, before.0),
        client: each(after.1, before.1),
    })
}

/// Starts one end and waits for its first line.
fn start(
    variant: &str,
    server: Option<String>,
    certificate: &Path,
    threads: ThreadOptions,
) -> Result<(Child, String)> {
    let mut arguments: Vec<OsString> = ["idle", variant, "--certificate"]
        .map(OsString::from)
        .into();
    arguments.push(certificate.into());
    arguments.extend(threads.arguments().map(OsString::from));
    arguments.extend(server.map(|server| format!("--server={server}").into()));
    let mut end = Child::start(arguments)?;
    let line = end.line()?;
    Ok((end, line))
}

/// Resident memory when it has stopped changing.
fn settled_kib(process: Watched) -> Result<f64> {
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
