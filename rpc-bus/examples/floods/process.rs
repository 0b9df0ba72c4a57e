//! This program again, in another role: told what to do by lines on its stdin, it answers by lines on its stdout.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::Outcome;

/// Parts of a second in which the kernel counts CPU time, whatever the machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// Ended when dropped.
pub(crate) struct Process {
    child: Child,
    orders: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(arguments: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(env::current_exe()?);
        // It ends with its stdin, however this process ends.
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.args(arguments).spawn()?;
        let orders = child.stdin.take().ok_or("no stdin")?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let lines = BufReader::new(stdout);
        Ok(Self {
            child,
            orders,
            lines,
        })
    }

    /// A server, and where it listens.
    pub(crate) fn server() -> Outcome<(Self, SocketAddr)> {
        let mut server = Self::start(&["serve"])?;
        let addr = server.line()?.parse()?;
        Ok((server, addr))
    }

    /// Tells it what to do, and returns what it says when it has done it.
    pub(crate) fn order(&mut self, order: &str) -> Outcome<String> {
        writeln!(self.orders, "{order}")?;
        self.line()
    }

    /// What it says next.
    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line)? {
            0 => Err("a process of this program ended early".into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// Its number.
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

/// CPU time that a process has taken, in its own code and in the kernel's, in seconds.
pub(crate) fn cpu_seconds(process: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Behind its name, which ends with the last bracket, these are the 12th and the 13th.
    let (_, rest) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: Result<Vec<f64>, _> = ticks.map(str::parse::<f64>).collect();
    Ok(ticks?.iter().sum::<f64>() / TICKS_PER_SECOND)
}
