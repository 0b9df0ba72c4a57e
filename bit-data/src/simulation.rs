//! Seeded schedules of whole nodes: whatever happens between them, a receiver gets all of its senders, or it ends with an
//! error; no batch is lost, doubled or reordered; every sender ends; and nothing is held in the end.
//!
//! Nodes run as they do in a program, over a network in memory ([`rpc_bus::simulation`]) that delays and cuts up what it
//! carries, holds it up, flips bits and cuts connections, and on which nodes die and come back. Senders come before and
//! after their receivers, fail, or are dropped; consumers are slow, stop, and leave. `plan` draws all of it from a seed,
//! `world` runs it, with real spill files, and `oracle` knows what may come of it. Whoever waits has come to an end within
//! ten minutes, on the clock of the schedule, after the last thing that happened.
//!
//! Everything runs on one thread whose clock is turned, so that a schedule can be run again:
//!
//! ```text
//! BIT_DATA_SEED=17 cargo test -p bit-data --lib simulation
//! BIT_DATA_SCHEDULES=100000 cargo test --release -p bit-data --lib simulation -- --nocapture
//! ```

mod data;
mod oracle;
mod plan;
mod proof;
mod receiving;
mod sending;
mod world;

use std::{
    env, thread,
    time::{Duration, Instant},
};

use world::{Report, run};

const SCHEDULES: u64 = 1000;
/// Of so many schedules it is looked whether they run again as they did.
const REPEATED: u64 = 20;
/// How often a long run says how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

#[test]
fn every_stream_ends_as_it_should_under_any_schedule() {
    let asked = |name| env::var(name).ok()?.parse::<u64>().ok();
    let count = asked("BIT_DATA_SCHEDULES").unwrap_or(SCHEDULES);
    let seeds = asked("BIT_DATA_SEED").map_or(0..count, |seed| seed..seed + 1);
    let (began, mut reported) = (Instant::now(), Instant::now());
    let (all, is_one) = (&mut Report::default(), seeds.end - seeds.start == 1);
    for seed in seeds {
        let report = run_named(seed);
        all.add_report(&report);
        if reported.elapsed() >= REPORT_INTERVAL {
            reported = Instant::now();
            println!("{seed} of {count} schedules");
        }
    }
    println!("{count} schedules in {:?}, {all:?}", began.elapsed());
    // Something of everything, or the schedules are not what they should be.
    let has_all = all.complete > 0 && all.left > 0 && all.failed > 0 && all.spilled_bytes > 0;
    assert!(is_one || has_all, "{all:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..REPEATED {
        assert_eq!(run_named(seed), run_named(seed), "seed {seed}");
    }
}

fn run_named(seed: u64) -> Report {
    let culprit = Culprit(seed);
    let report = run(seed);
    drop(culprit);
    report
}

impl Report {
    fn add_report(&mut self, other: &Self) {
        self.streams += other.streams;
        self.complete += other.complete;
        self.left += other.left;
        self.failed += other.failed;
        self.rows += other.rows;
        self.spilled_bytes += other.spilled_bytes;
    }
}

/// Names the schedule that fails.
struct Culprit(u64);

impl Drop for Culprit {
    fn drop(&mut self) {
        if thread::panicking() {
            let seed = self.0;
            eprintln!(
                "to see it again: BIT_DATA_SEED={seed} cargo test -p bit-data --lib simulation"
            );
        }
    }
}
