//! Bench `exchange`: many streams of record batches at a time.
//!
//! `stopped-consumer`: 64 streams on one connection, in batches of 64 KiB. All run for a while; then one of the 64
//! consumers stops taking batches for a minute (or as long as one says), while the other 63 go on.
//!
//! | unit | what |
//! |---|---|
//! | `GB_s` | of the other 63 before |
//! | `rate_kept` | their rate while the one has stopped, divided by their rate before |
//! | `rss_growth_MiB` | how much more memory the process holds, both ends of it, when the minute is over |
//!
//! Afterwards all streams end, and every receiver has to have seen what its sender has sent. The variants are those of
//! `batch`, started anew for every round.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Watched;
use crate::progress::Progress;
use crate::report::Report;
use crate::rpc::threads::ThreadOptions;
use crate::settings::Settings;
use crate::target::{Bound, Target};
use crate::transfer::{self, Batches, Consumer, EndlessStreams, Link};

/// Its cases.
pub(crate) const CASES: &[&str] = &[STOPPED_CONSUMER];
/// Whom ratios are to, unless another one is named.
pub(crate) const BASE: &str = "flight-tuned";
/// What it is expected to show.
pub(crate) const TARGETS: &[Target] = &[
    Target::number(STOPPED_CONSUMER, "rate_kept", "bus", Bound::AtLeast(0.95)),
    Target::number(
        STOPPED_CONSUMER,
        "rss_growth_MiB",
        "bus",
        Bound::AtMost(BUDGET_MIB),
    ),
];

/// What one receiver of the bus may be granted: its default budget.
const BUDGET_MIB: f64 = 16.0;
const STOPPED_CONSUMER: &str = "stopped-consumer";
const VARIANTS: [&str; 2] = ["bus", "flight-tuned"];
const STREAMS: usize = 64;
const BATCH_BYTES: usize = 64 << 10;
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the rate before is measured, at most.
const BEFORE_MAX: Duration = Duration::from_secs(10);

/// Arguments of the benchmark.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Runs these variants only; several with commas between them.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = VARIANTS)]
    variants: Vec<String>,
    /// How long the one consumer stops, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    stop: u64,
    #[command(flatten)]
    threads: ThreadOptions,
}

impl Options {
    fn wants(&self, variant: &str) -> bool {
        self.variants.is_empty() || self.variants.iter().any(|wanted| wanted == variant)
    }
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let (progress, mut report) = (Progress::new(), Report::new("exchange"));
    let mut wanted: Vec<_> = VARIANTS
        .into_iter()
        .filter(|name| options.wants(name))
        .collect();
    for round in 1..=options.settings.rounds {
        progress.begin(&format!("round {round} of {}", options.settings.rounds));
        for name in &wanted {
            let consumers: Arc<[_]> = (0..STREAMS).map(|_| Consumer::default()).collect();
            let link = transfer::link(name, options.threads, Arc::clone(&consumers));
            let Some(link) = progress.left_out_if_missing(name, link) else {
                continue;
            };
            let stop = Duration::from_secs(options.stop);
            let samples = stopped_consumer(link.as_ref(), &consumers, stop).context(*name)?;
            progress.note(&format!("  {name:<14} {samples:?}"));
            report.add_all((STOPPED_CONSUMER, name), samples);
        }
        wanted.reverse();
    }
    Ok(report)
}

type Samples = [(&'static str, f64); 3];

fn stopped_consumer(link: &dyn Link, consumers: &[Consumer], stop: Duration) -> Result<Samples> {
    let streams = EndlessStreams::start(link, STREAMS, &Batches::of_bytes(BATCH_BYTES));
    let (stopped, others) = consumers.split_first().context("invariant: 64 consumers")?;
    sleep(WARM_UP);
    let before = transfer::rate(others, stop.min(BEFORE_MAX));
    let process = Watched(std::process::id());
    let memory = process.resident_mib()?;
    stopped.stop();
    let meanwhile = transfer::rate(others, stop);
    let growth = process.resident_mib()? - memory;
    stopped.resume();
    streams.end(link)?;
    Ok([
        ("GB_s", before / 1e9),
        ("rate_kept", meanwhile / before),
        ("rss_growth_MiB", growth),
    ])
}
