//! Bench `batch`: one stream of record batches from one end to the other, through the bus, its peers, and bare sockets.
//!
//! Batches have eight columns of eight bytes, half of them with nulls, and 4 KiB to 4 MiB of values. Whoever receives
//! reads all values and all validity, and compares rows, sum and nulls with what was sent; anything else ends the
//! benchmark. Units: `GB_s` of values, and `cpu_s_GB`, CPU time (user and system) of both ends together.
//!
//! | variant | what |
//! |---|---|
//! | `bus` | a stream between two nodes: Arrow bodies with checksums, default windows, nothing gathered |
//! | `bus-checksum-off`, `bus-lz4` | the same without checksums, and with bodies compressed |
//! | `bus-drill` | Drill's way: Drill's vectors, one answer a batch; up to 64 of them unanswered |
//! | `pass-through` | a stream within one node, whose batches are handed over; the receiver looks where the values are, which is where the sender has them, and does not read them |
//! | `flight` | Arrow Flight, `DoPut` in one call, as it comes |
//! | `flight-tuned` | with windows of 4 and 64 MiB, frames of 1 MiB, and messages of up to 64 MiB: all that helps of what tonic has options for |
//! | `flight-send-buffer` | the same over sockets that are made for it, with the send buffer of the bus |
//! | `framed-ipc` | tokio-util's frames with a length, Arrow's IPC stream in them |
//! | `raw` | a blocking thread at each end, no frames: a limit, not a peer |
//!
//! Both ends are in one process. Each end of each variant but `raw` has the same number of threads, 2 unless told
//! otherwise: of the bus one for sockets and one for senders and receivers, of the others two that share everything.
//! The send buffer of sockets is 256 KiB, but for `flight` and `flight-tuned`: theirs and all receive buffers are the
//! kernel's choice. What is sent are four batches in turn, so that large ones do not come from the first levels of cache.

#[cfg(feature = "peers")]
mod framed;
mod raw;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process::Watched;
use crate::report::Report;
use crate::rounds::{Chosen, Rounds, Sample};
use crate::target::{Bound, Target};
use crate::transfer::{self, Batches, Consumer, Link, Look, Seen};

/// Its cases.
pub(crate) const CASES: &[&str] = &["4KiB", "64KiB", "1MiB", "4MiB"];
/// Whom ratios are to, unless another one is named.
pub(crate) const BASE: &str = "flight-tuned";
/// What it is expected to show.
pub(crate) const TARGETS: &[Target] = &[
    rate("1MiB", "bus", BASE, 2.5, 3.0),
    rate("4MiB", "bus", BASE, 3.0, 3.6),
    cpu("1MiB", 0.42),
    cpu("4MiB", 0.42),
    rate("1MiB", "bus", RAW, 0.8, 0.95),
    rate("4MiB", "bus", RAW, 0.65, 0.95),
    rate("64KiB", "bus", BASE, 2.2, 3.0),
    rate("4KiB", "bus", BASE, 1.7, 3.0),
    rate("1MiB", "bus-drill", BASE, 2.0, 2.6),
    rate("1MiB", PASS_THROUGH, "bus", 100.0, 100.0),
    rate("4KiB", PASS_THROUGH, "bus", 4.0, 4.0),
    rate("1MiB", "bus", "bus-checksum-off", 0.92, 0.92),
];

const RAW: &str = "raw";
const PASS_THROUGH: &str = "pass-through";
const VARIANTS: [&str; 10] = [
    "bus",
    "bus-drill",
    "bus-checksum-off",
    "bus-lz4",
    PASS_THROUGH,
    "flight-tuned",
    "flight-send-buffer",
    "flight",
    "framed-ipc",
    RAW,
];
/// Sent before anything counts.
const WARM_UP_BYTES: usize = 32 << 20;

const fn rate(
    case: &'static str,
    variant: &'static str,
    base: &'static str,
    least: f64,
    stretch: f64,
) -> Target {
    Target::ratio(case, "GB_s", variant, base, Bound::AtLeast(least))
        .stretch(Bound::AtLeast(stretch))
}

const fn cpu(case: &'static str, most: f64) -> Target {
    Target::ratio(case, "cpu_s_GB", "bus", BASE, Bound::AtMost(most))
}

/// Batches of one case, and how many of them are sent.
#[derive(Clone, Debug)]
struct Load {
    batches: Batches,
    count: usize,
}

impl Load {
    /// Enough for a fraction of a second with every variant.
    fn of(case: &str) -> Self {
        let (batch_bytes, bytes) = match case {
            "4KiB" => (4 << 10, 128 << 20),
            "64KiB" => (64 << 10, 512 << 20),
            "1MiB" => (1 << 20, 1 << 30),
            _ => (4 << 20, 1 << 30),
        };
        Self {
            batches: Batches::of_bytes(batch_bytes),
            count: bytes / batch_bytes,
        }
    }

    fn warm_up(&self) -> Self {
        let batch_bytes = self.batch_bytes();
        Self {
            count: (WARM_UP_BYTES / batch_bytes).min(self.count),
            batches: self.batches.clone(),
        }
    }

    fn batch_bytes(&self) -> usize {
        self.batches.get(0).num_rows() * transfer::ROW_BYTES
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    fn gigabytes(&self) -> f64 {
        (self.count * self.batch_bytes()) as f64 / 1e9
    }
}

/// Both ends of a variant, connected.
trait Pair {
    /// Sends `load`; what the receiver has seen, when it has seen all of it.
    fn run(&mut self, load: &Load) -> Result<Seen>;
}

/// One stream of a link.
impl Pair for Box<dyn Link> {
    fn run(&mut self, load: &Load) -> Result<Seen> {
        let sending = self.send(0, load.batches.stream(load.count));
        self.runtime().block_on(self.runtime().spawn(sending))?
    }
}

/// Runs the benchmark.
pub(crate) fn run(options: &Chosen) -> Result<Report> {
    let rounds = Rounds::of("batch");
    let mut started = options.start(&VARIANTS, &rounds.progress, |name| pair(name, options))?;
    rounds.run(&options.settings, |rounds| {
        for case in CASES.iter().filter(|case| options.settings.wants(case)) {
            let load = Load::of(case);
            rounds.put(case, &mut started, |name, pair| {
                measure(pair.as_mut(), &load, look(name))
            })?;
        }
        Ok(())
    })
}

fn pair(name: &str, options: &Chosen) -> Result<Box<dyn Pair>> {
    Ok(match name {
        RAW => Box::new(raw::Raw::start()?),
        #[cfg(feature = "peers")]
        "framed-ipc" => Box::new(framed::FramedIpc::start(options.threads.all())?),
        _ => {
            let consumer = Arc::new([Consumer::new(look(name))]);
            Box::new(transfer::link(name, options.threads, consumer)?)
        }
    })
}

fn look(variant: &str) -> Look {
    if variant == PASS_THROUGH {
        Look::Places
    } else {
        Look::Values
    }
}

fn measure(pair: &mut dyn Pair, load: &Load, look: Look) -> Result<[Sample; 2]> {
    let warm_up = load.warm_up();
    pair.run(&warm_up)?
        .verify(warm_up.batches.expected(warm_up.count, look))?;
    let process = Watched(std::process::id());
    let (before, begun) = (process.cpu()?, Instant::now());
    let seen = pair.run(load)?;
    let (elapsed, cpu) = (begun.elapsed(), process.cpu()?.since(&before));
    seen.verify(load.batches.expected(load.count, look))?;
    Ok(samples(load, elapsed, cpu))
}

fn samples(load: &Load, elapsed: Duration, cpu: Duration) -> [Sample; 2] {
    [
        ("GB_s", load.gigabytes() / elapsed.as_secs_f64()),
        ("cpu_s_GB", cpu.as_secs_f64() / load.gigabytes()),
    ]
}
