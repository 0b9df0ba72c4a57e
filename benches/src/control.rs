//! Bench `control`: the control plane between our own nodes: calls under load, heartbeats, queries that start and end.
//!
//! | case | what |
//! |---|---|
//! | `under-bulk` | one call at a time from a node to another, while 4 data streams between the same two nodes carry as many batches of 1 MiB as go through, whose values are all read |
//! | `beat` | a node that beats 100 others once a second; they are in another process |
//! | `fragments` | queries of 100 fragments that a foreman starts on 5 nodes, itself one of them: until all have started, from plans of 4 KiB |
//! | `cancel-running` | those queries again, once they run: until all fragments have ended everywhere |
//! | `cancel-starting` | queries whose fragments never start |
//! | `cancel-deaf` | queries whose fragments run and do not listen: until they are given up, which is after 500 ms |
//!
//! | variant | what |
//! |---|---|
//! | `bus` | custom messages of 100 bytes there and back, whose handler runs off the I/O thread; beats; fragments |
//! | `ping` | PING and PONG, which connections answer themselves |
//! | `raw` | `under-bulk`: as many bytes echoed by a blocking thread at each end, while the same streams run. `beat`: as many bytes as a beat and its answer have, over bare sockets of the same runtime, in the same rhythm |
//!
//! Units: `p50_us`, `p99_us` and `req_s` of the calls, and `bulk_GB_s` of what the streams carry meanwhile;
//! `sender_us` and `answerer_us`, CPU time, user and system, of a beat at either end, each in a process of its own;
//! `p50_ms` and `p99_ms` of queries. A beat is so rare that its caches are cold and all threads asleep: what it costs is
//! mostly what a socket costs then, so look at the ratio to `raw` too.
//!
//! Each node has threads of its own, one for sockets and one for everything else unless told otherwise; the nodes of
//! `beat` share those of their process.

mod beat;
mod fragments;
mod node;
mod under_bulk;

use anyhow::Result;

use crate::progress::Progress;
use crate::report::Report;
use crate::rpc::threads::ThreadOptions;
use crate::settings::Settings;
use crate::target::{Bound, Target};
pub(crate) use beat::{End, run as run_end};

/// Its cases.
pub(crate) const CASES: &[&str] = &[
    UNDER_BULK,
    BEAT,
    FRAGMENTS,
    CANCEL_RUNNING,
    CANCEL_STARTING,
    CANCEL_DEAF,
];
/// Whom ratios are to, unless another one is named.
pub(crate) const BASE: &str = RAW;
/// What it is expected to show.
pub(crate) const TARGETS: &[Target] = &[
    most(UNDER_BULK, "p99_us", 5000.0),
    most(BEAT, "sender_us", 10.0),
    most(BEAT, "answerer_us", 10.0),
    most(FRAGMENTS, "p99_ms", 10.0),
    most(CANCEL_RUNNING, "p99_ms", 1000.0),
    most(CANCEL_STARTING, "p99_ms", 1000.0),
    most(CANCEL_DEAF, "p99_ms", 1000.0),
];

const UNDER_BULK: &str = "under-bulk";
const BEAT: &str = "beat";
const FRAGMENTS: &str = "fragments";
const CANCEL_RUNNING: &str = "cancel-running";
const CANCEL_STARTING: &str = "cancel-starting";
const CANCEL_DEAF: &str = "cancel-deaf";

const BUS: &str = "bus";
const PING: &str = "ping";
const RAW: &str = "raw";

const fn most(case: &'static str, unit: &'static str, most: f64) -> Target {
    Target::number(case, unit, BUS, Bound::AtMost(most))
}

/// Arguments of the benchmark.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    threads: ThreadOptions,
}

/// One run of all rounds.
struct Run<'a> {
    options: &'a Options,
    progress: Progress,
    report: Report,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let mut run = Run {
        options,
        progress: Progress::new(),
        report: Report::new("control"),
    };
    let wants = |case: &&str| options.settings.wants(case);
    let mut under_bulk = run.start(UNDER_BULK, under_bulk::UnderBulk::start)?;
    let mut beat = run.start(BEAT, beat::Beats::start)?;
    let queries: Vec<_> = fragments::CASES.iter().copied().filter(wants).collect();
    let mut cluster = if queries.is_empty() {
        None
    } else {
        Some(fragments::Cluster::start(options.threads)?)
    };
    for round in 1..=options.settings.rounds {
        let what = format!("round {round} of {}", options.settings.rounds);
        run.progress.begin(&what);
        if let Some(under_bulk) = &mut under_bulk {
            run.add(UNDER_BULK, under_bulk.round()?);
        }
        if let Some(beat) = &mut beat {
            run.add(BEAT, beat.round()?);
        }
        if let Some(cluster) = &mut cluster {
            for case in &queries {
                run.add(case, vec![(BUS, cluster.round(case)?)]);
            }
        }
    }
    Ok(run.report)
}

type Sample = (&'static str, f64);
/// What a round has shown, by variant.
type Samples = Vec<(&'static str, Vec<Sample>)>;

impl Run<'_> {
    fn start<T>(
        &self,
        case: &str,
        start: impl FnOnce(ThreadOptions) -> Result<T>,
    ) -> Result<Option<T>> {
        let wanted = self.options.settings.wants(case);
        wanted.then(|| start(self.options.threads)).transpose()
    }

    fn add(&mut self, case: &'static str, samples: Samples) {
        for (variant, samples) in samples {
            self.progress.note(&line(case, variant, &samples));
            self.report.add_all((case, variant), samples);
        }
    }
}

fn line(case: &str, variant: &str, samples: &[Sample]) -> String {
    let numbers = samples
        .iter()
        .map(|(unit, value)| format!("{unit} {value:>10.2}"))
        .collect::<Vec<_>>();
    format!("  {case:<15} {variant:<5} {}", numbers.join("  "))
}
