//! Bench `exchange`: many streams of record batches at a time.
//!
//! `stopped-consumer`: 64 streams on one connection, in batches of 64 KiB. Then one of the 64 consumers stops taking
//! batches for a minute (or as long as one says), while the other 63 go on. Before and afterwards all take what comes, for
//! half as long each: that together is what the minute is compared with.
//!
//! | unit | what |
//! |---|---|
//! | `GB_s` | of the other 63 while all go on |
//! | `rate_kept` | their rate while the one has stopped, divided by that |
//! | `cpu_kept` | the same of what they get for a second of CPU time |
//! | `rss_control_MiB` | how much more memory the process, both ends of it, holds at the end of the two halves than at their beginnings |
//! | `rss_growth_MiB` | the same of the minute in which one has stopped |
//! | `held_KiB` | what waits for the one consumer when its minute is over; of the bus only, as what follows |
//! | `granted_KiB` | the most that may: the window of its stream, and one batch that may overrun it |
//! | `reserved_KiB` | how much more memory all receivers have promised to their senders than before |
//!
//! More than is granted ends the benchmark. Afterwards all streams end, and every receiver has to have seen what its sender
//! has sent. The variants are those of `batch`, started anew for every round. The 64 share the budget that one receiver
//! has by default, 16 MiB.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process::Watched;
use crate::report::Report;
use crate::rounds::{Chosen, Rounds, Sample};
use crate::target::{Bound, Target};
use crate::transfer::{self, Batches, Consumer, EndlessStreams, Link, ROW_BYTES};

/// Its cases.
pub(crate) const CASES: &[&str] = &[STOPPED_CONSUMER];
/// Whom ratios are to, unless another one is named.
pub(crate) const BASE: &str = "flight-tuned";
/// What it is expected to show.
pub(crate) const TARGETS: &[Target] = &[
    bus("rate_kept", Bound::AtLeast(0.95)),
    // More than is granted, since the allocator's share of a process's memory comes and goes.
    bus("rss_growth_MiB", Bound::AtMost(1.0)),
    bus("reserved_KiB", Bound::AtMost(0.0)),
];

const STOPPED_CONSUMER: &str = "stopped-consumer";
const VARIANTS: [&str; 2] = ["bus", "flight-tuned"];
const STREAMS: usize = 64;
const BATCH_BYTES: usize = 64 << 10;
/// With validity, header and padding.
const BATCH_COST_BYTES_MAX: u64 = (BATCH_BYTES + BATCH_BYTES / 16) as u64;
const WARM_UP: Duration = Duration::from_secs(2);
/// Between two looks at what is held.
const TICK: Duration = Duration::from_millis(50);
/// Looks whose mean is what is held at one moment.
const LOOKS: usize = 20;

const fn bus(unit: &'static str, bound: Bound) -> Target {
    Target::number(STOPPED_CONSUMER, unit, "bus", bound)
}

/// Arguments of the benchmark.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    /// How long the one consumer stops, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..))]
    stop: u64,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let Options { chosen, stop } = options;
    let link = |name: &str| {
        let consumers: Arc<[_]> = (0..STREAMS).map(|_| Consumer::default()).collect();
        let link = transfer::link(name, chosen.threads, Arc::clone(&consumers))?;
        anyhow::Ok((link, consumers))
    };
    let rounds = Rounds::of("exchange");
    // Whether they can run here.
    let mut variants = chosen.start(&VARIANTS, &rounds.progress, |name| link(name).map(drop))?;
    rounds.run(&chosen.settings, |rounds| {
        rounds.put(STOPPED_CONSUMER, &mut variants, |name, ()| {
            let (link, consumers) = link(name)?;
            stopped_consumer(link.as_ref(), &consumers, Duration::from_secs(*stop))
        })
    })
}

fn stopped_consumer(
    link: &dyn Link,
    consumers: &[Consumer],
    stop: Duration,
) -> Result<Vec<Sample>> {
    let streams = EndlessStreams::start(link, STREAMS, &Batches::of_bytes(BATCH_BYTES));
    let (stopped, others) = consumers.split_first().context("invariant: 64 consumers")?;
    sleep(WARM_UP);
    let before = Phase::watch(others, stop / 2)?;
    let reserved = link.reserved_bytes();
    stopped.stop();
    let meanwhile = Phase::watch(others, stop)?;
    let reserved = link.reserved_bytes().zip(reserved);
    stopped.resume();
    let control = before.and(Phase::watch(others, stop / 2)?);
    streams.end(link)?;
    let kept = |of: fn(&Phase) -> f64| of(&meanwhile) / of(&control);
    let mut samples = vec![
        ("GB_s", control.bytes_per_s() / 1e9),
        ("rate_kept", kept(Phase::bytes_per_s)),
        ("cpu_kept", kept(Phase::bytes_per_cpu_s)),
        ("rss_control_MiB", control.growth_mib),
        ("rss_growth_MiB", meanwhile.growth_mib),
    ];
    if let (Some(stats), Some((after, before))) = (stopped.stopped(), reserved) {
        let held = stats.buffer_memory_bytes;
        let granted = stats.window_bytes + BATCH_COST_BYTES_MAX;
        ensure!(held <= granted, "{held} bytes wait, {granted} were granted");
        samples.extend([
            ("held_KiB", kib(held)),
            ("granted_KiB", kib(granted)),
            ("reserved_KiB", kib(after as u64) - kib(before as u64)),
        ]);
    }
    Ok(samples)
}

/// What came of a time in which nothing changes.
#[derive(Clone, Copy, Debug)]
struct Phase {
    elapsed: Duration,
    /// Of this process.
    cpu: Duration,
    /// That were taken, by all who go on.
    bytes: u64,
    growth_mib: f64,
}

impl Phase {
    fn watch(consumers: &[Consumer], duration: Duration) -> Result<Self> {
        let rows = || consumers.iter().map(Consumer::rows).sum::<u64>();
        let process = Watched(std::process::id());
        let (begun, cpu, before) = (Instant::now(), process.cpu()?, rows());
        let mut resident_mib = Vec::new();
        while begun.elapsed() < duration {
            resident_mib.push(process.resident_mib()?);
            sleep(TICK);
        }
        let looks = LOOKS.min(resident_mib.len());
        let (first, last) = (
            &resident_mib[..looks],
            &resident_mib[resident_mib.len() - looks..],
        );
        Ok(Self {
            elapsed: begun.elapsed(),
            cpu: process.cpu()?.since(&cpu),
            bytes: (rows() - before) * ROW_BYTES as u64,
            growth_mib: mean(last) - mean(first),
        })
    }

    /// Both of them together.
    fn and(self, other: Self) -> Self {
        Self {
            elapsed: self.elapsed + other.elapsed,
            cpu: self.cpu + other.cpu,
            bytes: self.bytes + other.bytes,
            growth_mib: self.growth_mib + other.growth_mib,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    fn bytes_per_s(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64()
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    fn bytes_per_cpu_s(&self) -> f64 {
        self.bytes as f64 / self.cpu.as_secs_f64()
    }
}

#[expect(clippy::cast_precision_loss, reason = "some hundred numbers")]
fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}
