//! A server under floods: what it costs in memory, and what a good client notices of it.
//!
//! `cargo run --release -p rpc-bus --example floods [-- CASE...]` runs all cases, or those named. Server and flooding peers
//! are processes of their own, since each needs thousands of sockets, and memory is the server's alone.

mod cases;
mod good;
mod peers;
mod server;

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, Stdio},
};

use rpc_bus::BusRuntime;
use tokio::runtime::{Builder, Runtime};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => server::run(),
        ["flood", kind, server, count] => peers::run(kind, server.parse()?, count.parse()?),
        _ => cases::run(&words),
    }
}

/// This program again, in another role. Ended when dropped.
pub(crate) struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(arguments: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(env::current_exe()?);
        // It ends with its stdin, however this process ends.
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.args(arguments).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let lines = BufReader::new(stdout);
        Ok(Self { child, lines })
    }

    /// A server, and where it listens.
    pub(crate) fn server() -> Outcome<(Self, SocketAddr)> {
        let mut server = Self::start(&["serve"])?;
        let addr = server.line()?.parse()?;
        Ok((server, addr))
    }

    /// What it says next.
    pub(crate) fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Resident memory of a process, now or at its peak (`VmRSS`, `VmHWM`), in MiB.
pub(crate) fn memory_mib(process: u32, which: &str) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    let kib = line.and_then(|line| line.trim_matches([':', '\t', ' ']).strip_suffix(" kB"));
    Ok(kib.ok_or("no such memory")?.trim().parse::<f64>()? / 1024.0)
}

/// One io thread and one for handlers. Runs as long as the first of the two does.
pub(crate) fn threads() -> Outcome<(Runtime, BusRuntime)> {
    let app = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let cpu = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let io = app.handle().clone();
    let bus = BusRuntime::new(vec![io.clone()], io, cpu.into());
    Ok((app, bus))
}
