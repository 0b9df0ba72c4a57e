//! Bench `control`: the control plane between our own nodes: calls under load, heartbeats, queries that start and end.
//!
//! | case | what |
//! |---|---|
//! | `under-bulk` | one call at a time from a node to another, while 4 data streams between the same two nodes carry as many batches of 1 MiB as go through, whose values are all read |
//! | `beat` | a node that beats 100 others once a second; they are in another process |
//! | `stopped` | the process of another node stops (SIGSTOP), and goes on again two seconds after it was found to be down |
//! | `busy` | a node that beats 10 others for 20 s, while their process and its own compute on more threads than there are cores |
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
//! `suspect_ms` and `down_ms` since a process has stopped, `up_ms` since it goes on; how many beats were `answered` while
//! all was busy, and how often a node was `suspected` or `downs`; `p50_ms` and `p99_ms` of queries. A beat is so rare that
//! its caches are cold and all threads asleep: what it costs is mostly what a socket costs then, so look at the ratio to
//! `raw` too.
//!
//! Each node has threads of its own, one for sockets and one for everything else unless told otherwise; the nodes of
//! `beat` share those of their process.

mod beat;
mod fragments;
mod node;
mod silence;
mod under_bulk;

use anyhow::Result;

use crate::report::Report;
use crate::rounds::{Rounds, Sample};
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
    STOPPED,
    BUSY,
];
/// Whom ratios are to, unless another one is named.
pub(crate) const BASE: &str = RAW;
/// What it is expected to show.
pub(crate) const TARGETS: &[Target] = &[
    most(UNDER_BULK, "p99_us", 5000.0),
    most(BEAT, "sender_us", 10.0),
    most(BEAT, "answerer_us", 10.0),
    most(STOPPED, "suspect_ms", 3000.0),
    most(STOPPED, "down_ms", 4000.0),
    most(BUSY, "downs", 0.0),
    most(FRAGMENTS, "p99_ms", 10.0),
    most(CANCEL_RUNNING, "p99_ms", 1000.0),
    most(CANCEL_STARTING, "p99_ms", 1000.0),
    most(CANCEL_DEAF, "p99_ms", 1000.0),
];

const UNDER_BULK: &str = "under-bulk";
const BEAT: &str = "beat";
const STOPPED: &str = "stopped";
const BUSY: &str = "busy";
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

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let (settings, threads) = (&options.settings, options.threads);
    let wants = |case: &&str| settings.wants(case);
    let mut under_bulk = if_wanted(wants(&UNDER_BULK), || under_bulk::UnderBulk::start(threads))?;
    let mut beat = if_wanted(wants(&BEAT), || beat::Beats::start(threads))?;
    let queries: Vec<_> = fragments::CASES.iter().copied().filter(wants).collect();
    let mut stopped = if_wanted(wants(&STOPPED), || silence::Stopped::start(threads))?;
    let mut busy = if_wanted(wants(&BUSY), || silence::Busy::start(threads))?;
    let mut cluster = if_wanted(!queries.is_empty(), || fragments::Cluster::start(threads))?;
    Rounds::of("control").run(settings, |rounds| {
        if let Some(under_bulk) = &mut under_bulk {
            add(rounds, UNDER_BULK, under_bulk.round()?);
        }
        if let Some(beat) = &mut beat {
            add(rounds, BEAT, beat.round()?);
        }
        if let Some(stopped) = &mut stopped {
            rounds.add(STOPPED, BUS, &stopped.round()?);
        }
        if let Some(busy) = &mut busy {
            rounds.add(BUSY, BUS, &busy.round()?);
        }
        if let Some(cluster) = &mut cluster {
            for case in &queries {
                rounds.add(case, BUS, &cluster.round(case)?);
            }
        }
        Ok(())
    })
}

fn if_wanted<T>(is_wanted: bool, start: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    is_wanted.then(start).transpose()
}

/// What a round has shown, by variant.
type Samples = Vec<(&'static str, Vec<Sample>)>;

fn add(rounds: &mut Rounds, case: &'static str, samples: Samples) {
    for (variant, samples) in samples {
        rounds.add(case, variant, &samples);
    }
}
