//! Bench `node`: how soon a node is there, and what it holds while nobody asks.
//!
//! Variants: `ours` (`drillbit serve`, this program under another name) and `drill` (a real Drillbit in a JVM with
//! the heap of the interop tests, HTTP off, alone in its cluster). Case `start`: milliseconds from the start of the
//! process until it says that it accepts connections (`ms`), and resident memory a second later (`MiB`).

use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::Result;
use harness::interop::{Memory, RealDrillbit};
use harness::node::Node;

use crate::process::Watched;
use crate::progress::Progress;
use crate::report::{Key, Report};
use crate::settings::Settings;
use crate::target::{Bound, Target};

/// Its cases.
pub(crate) const CASES: &[&str] = &[START];
/// Whom ratios are to, unless another one is named.
pub(crate) const BASE: &str = "drill";
/// What it is expected to show.
pub(crate) const TARGETS: &[Target] = &[ours("ms", 500.0), ours("MiB", 100.0)];

const START: &str = "start";
/// What a process does right after it is ready is part of its start, not of its being idle.
const SETTLE: Duration = Duration::from_secs(1);

const fn ours(unit: &'static str, most: f64) -> Target {
    Target::number(START, unit, "ours", Bound::AtMost(most))
}

/// Runs the benchmark.
pub(crate) fn run(settings: &Settings) -> Result<Report> {
    let progress = Progress::new();
    let mut report = Report::new("node");
    progress.begin("warm-up: both once, so that the file cache is warm");
    start_ours()?;
    let drill = progress
        .left_out_if_missing("drill", start_drill())
        .is_some();
    for round in 1..=settings.rounds {
        progress.begin(&format!("round {round} of {}", settings.rounds));
        add(&mut report, &progress, "ours", &start_ours()?);
        if drill {
            add(&mut report, &progress, "drill", &start_drill()?);
        }
    }
    Ok(report)
}

/// One start.
struct Start {
    ready: Duration,
    resident_mib: f64,
}

fn start_ours() -> Result<Start> {
    let begun = Instant::now();
    let mut node = Node::start(env::current_exe()?)?;
    let ready = begun.elapsed();
    thread::sleep(SETTLE);
    Ok(Start {
        ready,
        resident_mib: Watched(node.process().id()).resident_mib()?,
    })
}

fn start_drill() -> Result<Start> {
    let drillbit = RealDrillbit::start(&Memory::default())?;
    thread::sleep(SETTLE);
    Ok(Start {
        ready: drillbit.started_in(),
        resident_mib: Watched(drillbit.id()).resident_mib()?,
    })
}

fn add(report: &mut Report, progress: &Progress, variant: &'static str, start: &Start) {
    let Start {
        ready,
        resident_mib,
    } = start;
    progress.note(&format!(
        "  {variant:<14} ready in {ready:>10.1?}, {resident_mib:>8.1} MiB"
    ));
    report.add(
        Key {
            case: START,
            unit: "ms",
            variant,
        },
        ready.as_secs_f64() * 1e3,
    );
    report.add(
        Key {
            case: START,
            unit: "MiB",
            variant,
        },
        *resident_mib,
    );
}
