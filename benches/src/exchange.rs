//! Bench `exchange`: many streams of record batches at a time.
//!
//! `stopped-consumer`: 64 streams on one connection, in batches of 64 KiB. All run for a minute (or as long as one says);
//! then one of the 64 consumers stops taking batches for another minute, while the other 63 go on.
//!
//! | unit | what |
//! |---|---|
//! | `GB_s` | of the other 63 before |
//! | `rate_kept` | their rate while the one has stopped, divided by their rate before |
//! | `rss_control_MiB` | how much more memory the process, both ends of it, holds at the end of the minute in which nobody stops than at its beginning |
//! | `rss_growth_MiB` | the same of the minute in which one has stopped |
//! | `held_KiB` | what waits for the one consumer when its minute is over; of the bus only, as what follows |
//! | `granted_KiB` | the most that may: the window of its stream, and one batch that may overrun it |
//! | `charged_KiB` | how much more both ends are charged with, on average, than in the minute before |
//!
//! More than is granted ends the benchmark. Afterwards all streams end, and every receiver has to have seen what its sender
//! has sent. The variants are those of `batch`, started anew for every round. The budget of a receiver is that of the
//! defaults, 16 MiB, which the 64 share.

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
    Target::number(STOPPED_CONSUMER, "rate_kept", "bus", Bound::AtLeast(0.95)),
    Target::number(
        STOPPED_CONSUMER,
        "charged_KiB",
        "bus",
        Bound::AtMost(GRANTED_KIB_MAX),
    ),
];

/// The most that one of 64 receivers may be granted: its part of their budget.
const GRANTED_KIB_MAX: f64 = 256.0;
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

/// Arguments of the benchmark.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    /// How long the one consumer stops, in seconds; as long, nobody does
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
    let before = Phase::watch(link, others, stop)?;
    stopped.stop();
    let meanwhile = Phase::watch(link, others, stop)?;
    stopped.resume();
    streams.end(link)?;
    let mut samples = vec![
        ("GB_s", before.bytes_per_s / 1e9),
        ("rate_kept", meanwhile.bytes_per_s / before.bytes_per_s),
        ("rss_control_MiB", before.growth_mib()),
        ("rss_growth_MiB", meanwhile.growth_mib()),
    ];
    if let Some(stats) = stopped.stopped() {
        // Nobody has taken anything since: it is full.
        let held = stats.buffer_memory_bytes;
        let granted = stats.window_bytes + BATCH_COST_BYTES_MAX;
        ensure!(held <= granted, "{held} bytes wait, {granted} were granted");
        samples.extend([("held_KiB", kib(held)), ("granted_KiB", kib(granted))]);
    }
    if let (Some(before), Some(meanwhile)) = (before.charged_kib(), meanwhile.charged_kib()) {
        samples.push(("charged_KiB", meanwhile - before));
    }
    Ok(samples)
}

/// A time in which nothing changes.
struct Phase {
    /// That were taken, by all who go on.
    bytes_per_s: f64,
    resident_mib: Vec<f64>,
    /// Bytes, where somebody counts them.
    charged: Vec<Option<usize>>,
}

impl Phase {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    fn watch(link: &dyn Link, consumers: &[Consumer], duration: Duration) -> Result<Self> {
        let rows = || consumers.iter().map(Consumer::rows).sum::<u64>();
        let process = Watched(std::process::id());
        let (begun, before) = (Instant::now(), rows());
        let (mut resident_mib, mut charged) = (Vec::new(), Vec::new());
        while begun.elapsed() < duration {
            resident_mib.push(process.resident_mib()?);
            charged.push(link.charged_bytes());
            sleep(TICK);
        }
        let bytes = (rows() - before) * ROW_BYTES as u64;
        Ok(Self {
            bytes_per_s: bytes as f64 / begun.elapsed().as_secs_f64(),
            resident_mib,
            charged,
        })
    }

    fn growth_mib(&self) -> f64 {
        let looks = LOOKS.min(self.resident_mib.len());
        let (_, last) = self.resident_mib.split_at(self.resident_mib.len() - looks);
        mean(last) - mean(&self.resident_mib[..looks])
    }

    fn charged_kib(&self) -> Option<f64> {
        let charged: Option<Vec<_>> = self.charged.iter().copied().collect();
        let kib: Vec<_> = charged?
            .into_iter()
            .map(|bytes| kib(bytes as u64))
            .collect();
        Some(mean(&kib))
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
