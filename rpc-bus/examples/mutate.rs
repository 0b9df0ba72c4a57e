//! Runs seeded mutations of the corpus until so many frames were decoded and so many sessions got beyond their handshake.
//!
//! ```text
//! cargo run --release -p rpc-bus --example mutate -- --frames 20000000 --sessions 1000000 --seed 1
//! ```
//!
//! All cores take part, and the inputs are the same however many there are. What breaks is printed with its input; to see
//! it again, run `cargo run -p rpc-bus --example mutate -- --seed SEED --batch NUMBER`. Where the kernel tells the peak of
//! resident memory, it is held against a limit.

use std::{
    error::Error,
    fs,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rpc_bus::fuzzing::{Corpus, Tally, batch};

const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// What the whole process may take: a few sessions at a time, none of which holds more than a large frame.
const MEMORY_KIB_MAX: u64 = 64 * 1024;

#[derive(Clone, Copy)]
struct Options {
    frames: u64,
    sessions: u64,
    seed: u64,
    /// The only batch to run.
    batch: Option<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::from_args()?;
    let corpus = Corpus::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus"))?;
    if let Some(number) = options.batch {
        println!("{:?}", batch(options.seed, number, &corpus));
        return Ok(());
    }
    let run = Run {
        options,
        corpus,
        started: Instant::now(),
        next: AtomicU64::new(0),
        done: AtomicBool::new(false),
        tally: Mutex::default(),
    };
    let workers = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        (0..workers).for_each(|_| drop(scope.spawn(|| run.work())));
        scope.spawn(|| run.report());
    });
    run.print();
    check_memory()
}

impl Options {
    fn from_args() -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            frames: 1_000_000,
            sessions: 50_000,
            seed: 1,
            batch: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            let value = args.next().ok_or("every option needs a number")?.parse()?;
            match &*name {
                "--frames" => options.frames = value,
                "--sessions" => options.sessions = value,
                "--seed" => options.seed = value,
                "--batch" => options.batch = Some(value),
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        Ok(options)
    }
}

struct Run {
    options: Options,
    corpus: Corpus,
    started: Instant,
    next: AtomicU64,
    done: AtomicBool,
    tally: Mutex<Tally>,
}

impl Run {
    fn work(&self) {
        // Also at a panic: the others stop, and the program ends with it.
        let _done = Done(&self.done);
        while !self.done.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let tally = batch(self.options.seed, number, &self.corpus);
            let mut all = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            *all += tally;
            if all.frames >= self.options.frames && all.sessions >= self.options.sessions {
                return;
            }
        }
    }

    fn report(&self) {
        let mut last = self.started;
        while !self.done.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(100));
            if last.elapsed() >= REPORT_INTERVAL {
                last = Instant::now();
                self.print();
            }
        }
    }

    fn print(&self) {
        let Tally { frames, sessions } = *self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let Options {
            frames: frames_max,
            sessions: sessions_max,
            ..
        } = self.options;
        println!(
            "{:>5} s  {frames} of {frames_max} frames, {sessions} of {sessions_max} sessions",
            self.started.elapsed().as_secs()
        );
    }
}

/// Tells the other workers that there is no more to do.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Holds the peak of resident memory, as the kernel tells it, against the limit.
fn check_memory() -> Result<(), Box<dyn Error>> {
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        println!("peak resident memory: unknown");
        return Ok(());
    };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .ok_or("VmHWM")?;
    println!("peak resident memory: {kib} KiB");
    if kib.parse::<u64>()? > MEMORY_KIB_MAX {
        return Err(format!("expected at most {MEMORY_KIB_MAX} KiB of resident memory").into());
    }
    Ok(())
}
