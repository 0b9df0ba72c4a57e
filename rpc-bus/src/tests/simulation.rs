//! Seeded schedules: whatever happens between two ends, every call ends exactly once, requests start in order, and nothing
//! is left.
//!
//! `net` steps connections by hand, several at a time, over a network that delays, cuts up, stalls and loses. All comes
//! from one seed, the clock included, so that a schedule can be run again:
//!
//! ```text
//! RPC_BUS_SEED=17 cargo test -p rpc-bus --lib simulation
//! RPC_BUS_SCHEDULES=100000 cargo test --release -p rpc-bus --lib simulation -- --nocapture
//! ```

mod net;

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a long run says how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// What a schedule came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Report {
    /// Hash over everything that happened, and when.
    trace: u64,
    /// Calls that were answered.
    answered: u64,
    /// Calls that ended in another way.
    failed: u64,
    /// Connections that were lost or closed while something went on.
    ended: u64,
}

/// Runs `count` schedules, or what the environment asks for.
fn run_all(name: &str, count: u64, run: fn(u64) -> Report) -> Report {
    let asked = |name| {
        let value = std::env::var(name).ok()?;
        value.parse::<u64>().ok()
    };
    let seed = asked("RPC_BUS_SEED");
    let count = asked("RPC_BUS_SCHEDULES").unwrap_or(count);
    let seeds = seed.map_or(0..count, |seed| seed..seed + 1);
    let (started, mut reported) = (Instant::now(), Instant::now());
    let mut all = Report::default();
    for seed in seeds {
        let culprit = Culprit { name, seed };
        let report = run(seed);
        drop(culprit);
        all.answered += report.answered;
        all.failed += report.failed;
        all.ended += report.ended;
        if reported.elapsed() >= REPORT_INTERVAL {
            reported = Instant::now();
            println!("{name}: {seed} of {count} schedules");
        }
    }
    println!(
        "{name}: {count} schedules in {:?}, {all:?}",
        started.elapsed()
    );
    all
}

/// Names the schedule that fails.
struct Culprit<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for Culprit<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { name, seed } = self;
            eprintln!(
                "to see it again: RPC_BUS_SEED={seed} cargo test -p rpc-bus --lib simulation::{name}"
            );
        }
    }
}
