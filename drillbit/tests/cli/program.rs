//! Spawns the program and waits for it, never longer than a deadline.

use std::{
    env,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Nothing here takes long; this only keeps a hanging test from hanging forever.
const DEADLINE: Duration = Duration::from_mins(1);

/// The program with arguments; its environment says nothing about Drill.
pub(crate) fn drillbit(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drillbit"));
    command.args(arguments).env_remove("RUST_LOG");
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("DRILLBIT_") {
            command.env_remove(name);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a finished program left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Fails unless it ended well; the standard output.
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Fails unless it ended with this exit code; the standard error.
    pub(crate) fn with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.stderr
    }
}

/// Runs to the end.
pub(crate) fn run(arguments: &[&str]) -> Finished {
    finish(drillbit(arguments).spawn().unwrap())
}

/// Runs to the end with `input` on standard input.
pub(crate) fn run_with(arguments: &[&str], input: &str) -> Finished {
    let mut child = drillbit(arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that refuses its arguments reads nothing.
    if let Err(error) = stdin.write_all(input.as_bytes()) {
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
    drop(stdin);
    finish(child)
}

/// Waits for the end.
pub(crate) fn finish(mut child: Child) -> Finished {
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let code = wait(&mut child).code();
    let text = |collected: Option<mpsc::Receiver<String>>| {
        collected
            .map(|text| text.recv_timeout(DEADLINE).unwrap())
            .unwrap_or_default()
    };
    Finished {
        code,
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

fn collect(mut source: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).unwrap();
        sender.send(String::from_utf8_lossy(&bytes).into_owned())
    });
    receiver
}

/// The lines of `source` as they come.
fn lines(source: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Read to its end, so that the writer never waits.
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

/// Kills what outlives the deadline, so that waiting ends.
fn wait(child: &mut Child) -> ExitStatus {
    let (ended, watch) = mpsc::channel::<()>();
    let pid = child.id();
    let watcher = thread::spawn(move || {
        if watch.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
            signal(pid, "KILL");
        }
    });
    let status = child.wait().unwrap();
    drop(ended);
    watcher.join().unwrap();
    status
}

/// Sends a signal by its name.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Arguments of a node with all of its servers, on free ports.
pub(crate) const ALL_PORTS: [&str; 6] = [
    "--control-port",
    "0",
    "--data-port",
    "0",
    "--http-port",
    "0",
];

/// A running node.
pub(crate) struct Served {
    child: Option<Child>,
    /// What clients reach it at.
    pub(crate) address: String,
    /// What other nodes find it by, if it has a control server.
    pub(crate) control: Option<String>,
    /// What other nodes send batches to, if it has a data server.
    pub(crate) data: Option<String>,
    /// What monitors reach it at, if it has an HTTP server.
    pub(crate) http: Option<String>,
    /// Lines of its log, as they come.
    log: mpsc::Receiver<String>,
}

impl Served {
    /// Starts one on a free port and waits until it is ready.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let arguments = [&["serve", "--user-port", "0"], arguments].concat();
        let mut child = drillbit(&arguments).spawn().unwrap();
        let log = lines(child.stderr.take().unwrap());
        let mut line = String::new();
        // Only the one line is there to be read.
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let mut words = line.split_whitespace();
        assert_eq!(
            words.next(),
            Some("ready"),
            "{line}: {:?}",
            log.try_iter().collect::<Vec<_>>()
        );
        let address = words.next().and_then(|word| word.strip_prefix("user="));
        let address = address.unwrap().to_owned();
        let more: Vec<_> = words.collect();
        let of = |name: &str| {
            let mut more = more.iter();
            more.find_map(|word| word.strip_prefix(name).map(str::to_owned))
        };
        let (control, data, http) = (of("control="), of("data="), of("http="));
        child.stdout = Some(stdout.into_inner());
        Self {
            child: Some(child),
            address,
            control,
            data,
            http,
            log,
        }
    }

    /// Waits for a line of the log that has all of these words.
    pub(crate) fn wait_for_log(&self, words: &[&str]) -> String {
        self.log_until(words).pop().unwrap()
    }

    /// The same, with all lines before it.
    pub(crate) fn log_until(&self, words: &[&str]) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.log.recv_timeout(DEADLINE).unwrap();
            let is_it = words.iter().all(|word| line.contains(word));
            lines.push(line);
            if is_it {
                return lines;
            }
        }
    }

    /// What it has logged and nobody has read yet.
    pub(crate) fn log_so_far(&self) -> Vec<String> {
        self.log.try_iter().collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal and waits for the end; standard output is what followed the ready line.
    pub(crate) fn end(mut self, name: &str) -> Finished {
        signal(self.pid(), name);
        finish(self.child.take().unwrap())
    }

    /// Waits for the end, which somebody else has asked for.
    pub(crate) fn ended(mut self) -> Finished {
        finish(self.child.take().unwrap())
    }

    /// What `status --json` says of it.
    pub(crate) fn status(&self) -> Value {
        let finished = run(&["status", "--json", "--connect", &self.address]);
        serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"))
    }

    /// Looks at the status until it is as wanted.
    pub(crate) fn wait_for_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(what, || Some(self.status()).filter(&is_so))
    }

    /// Looks until there is what is wanted.
    pub(crate) fn wait_for<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                Instant::now() < end,
                "{what} on {}: {:#}",
                self.address,
                self.status()
            );
        }
    }

    /// Runs `sql` on it.
    pub(crate) fn sql(&self, arguments: &[&str]) -> Finished {
        run(&[&["sql", "--connect", &self.address], arguments].concat())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// Writes a line of a conversation with a running program.
pub(crate) fn say(stdin: &mut ChildStdin, line: &str) {
    writeln!(stdin, "{line}").unwrap();
    stdin.flush().unwrap();
}
