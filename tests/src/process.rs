//! Child processes of the tests: read line by line, killed and reaped when dropped.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How much of a child's stderr is kept for error messages.
const STDERR_LINES_KEPT: usize = 40;

/// A child process with piped stdin, stdout and stderr.
///
/// Two threads read its output, so that a talkative child never blocks on a full pipe. The children
/// that the tests share live in statics, which are never dropped: those end by the end of their
/// stdin, which comes however this process ends.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Mutex<Receiver<String>>,
    stderr: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts `command`; `name` is for messages.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(name: impl Into<String>, command: &mut Command) -> Result<Self> {
        let name = name.into();
        let piped = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = piped
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let (send, lines) = mpsc::channel();
        // A send fails when nobody listens any more; reading goes on for the sake of the child.
        read_lines(child.stdout.take(), move |line| drop(send.send(line)));
        let stderr = Arc::new(Mutex::new(VecDeque::new()));
        let tail = Arc::clone(&stderr);
        read_lines(child.stderr.take(), move |line| keep_tail(&tail, line));
        let stdin = child.stdin.take();
        Ok(Self {
            name,
            child,
            stdin,
            lines: Mutex::new(lines),
            stderr,
        })
    }

    /// The next line of stdout.
    ///
    /// # Errors
    /// None came in time, or stdout ended; says what the child wrote to stderr.
    pub fn line(&self, within: Duration) -> Result<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.recv_timeout(within).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                anyhow::anyhow!("{} said nothing for {within:?}", self.name)
            }
            RecvTimeoutError::Disconnected => {
                anyhow::anyhow!("{} ended; stderr:\n{}", self.name, self.stderr())
            }
        })
    }

    /// Skips lines until one starts with `prefix`, and returns what follows it.
    ///
    /// # Errors
    /// As [`Process::line`].
    pub fn line_after(&self, prefix: &str, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        loop {
            let line = self.line(deadline.saturating_duration_since(Instant::now()))?;
            if let Some(rest) = line.strip_prefix(prefix) {
                return Ok(rest.to_owned());
            }
        }
    }

    /// What the child wrote to stderr last.
    #[must_use]
    pub fn stderr(&self) -> String {
        let tail = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        tail.iter().flat_map(|line| [line, "\n"]).collect()
    }

    /// The child's stdin; `None` after [`Process::end_input`].
    pub fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.stdin.as_mut()
    }

    /// Takes stdin away, for a thread of its own.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Closes the child's stdin.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits until the child is gone.
    pub fn kill(&mut self) {
        // Fails only where the child has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn terminate(&self) -> Result<()> {
        let status = Command::new("kill")
            .args(["-TERM", &self.id().to_string()])
            .status()?;
        anyhow::ensure!(status.success(), "kill -TERM {} failed", self.id());
        Ok(())
    }

    /// Waits for the child to end by itself.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} did not end within {within:?}; stderr:\n{}",
                    self.name,
                    self.stderr()
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// The child has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmRSS")?.trim().parse::<u64>()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_lines(
    source: Option<impl Read + Send + 'static>,
    mut take: impl FnMut(String) + Send + 'static,
) {
    let Some(source) = source else { return };
    thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(io::Result::ok) {
            take(line);
        }
    });
}

fn keep_tail(tail: &Mutex<VecDeque<String>>, line: String) {
    let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    if tail.len() == STDERR_LINES_KEPT {
        tail.pop_front();
    }
    tail.push_back(line);
}
