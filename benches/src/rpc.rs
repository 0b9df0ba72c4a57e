//! Bench `rpc`: small calls through the bus, its peers, and bare sockets.
//!
//! A call carries 100 bytes there and the same back; whoever called compares them, and an echo of anything else ends the
//! benchmark.
//!
//! | case | callers, each with one call at a time |
//! |---|---|
//! | `latency-1` | 1 |
//! | `inflight-64`, `inflight-1024` | 64 and 1,024, all over one connection |
//! | `conns-8x64` | 64 on each of 8 connections |
//! | `idle-10000` | none: 10,000 connections on which nothing happens, each end in a process of its own |
//! | `under-bulk` | 1, while 4 further connections carry as much bulk as goes through, in messages of 1 MiB |
//! | `beside-work` | 1, while the server computes on all processors for another connection; of the bus only |
//!
//! Units: `p50_us` and `p99_us` of a call, `req_s`, `cpu_us_op` (CPU time, user and system, of both ends together a call),
//! and with bulk `bulk_GB_s` in place of the latter. With more than one call in flight a time is mostly waiting for the
//! others' turns, so that `req_s` and `cpu_us_op` are what to look at there; on a machine whose processors are all busy,
//! one is the inverse of the other. `KiB_conn` is what a connection adds to the resident memory of the end that takes
//! more, on average; what the kernel holds for a socket is not in it.
//!
//! | variant | what |
//! |---|---|
//! | `bus` | the handler runs off the I/O thread |
//! | `bus-inline` | it runs on the I/O thread, as is allowed to messages without order |
//! | `bus-tls` | off the I/O thread, with TLS 1.3; nobody else here has TLS |
//! | `tonic` | unary gRPC as it comes; hyper lets 200 calls of a connection be under way at a time |
//! | `tonic-tuned` | 4,096 calls under way, 4 MiB and 16 MiB windows, 2 MiB frames, a longer queue of requests |
//! | `tarpc` | bincode over TCP without delay, 4,096 calls under way |
//! | `raw` | a blocking thread at each end of each connection; all calls of a connection in one write: a limit, not a peer |
//!
//! Each end of each variant but `raw` has the same number of threads, 2 unless told otherwise, that share everything; but
//! the server of the bus has one for sockets and one for handlers, and its callers share one thread with their
//! connections, which is what `BusRuntime::here` is for (`--callers apart` gives them two). Both ends are in one process,
//! and every variant stays connected while the others are measured.

mod beside_work;
mod bus;
mod certificate;
mod idle;
pub(crate) mod load;
#[cfg(feature = "peers")]
mod peers;
pub(crate) mod raw;
pub(crate) mod stack;
pub(crate) mod threads;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::report::Report;
use crate::rounds::{Chosen, Rounds, Sample};
use crate::target::{Bound, Target};
pub(crate) use idle::{End, run as run_end};
use load::{Load, Measured};
use stack::{AnyStack, Pair};

/// Its cases.
pub(crate) const CASES: &[&str] = &[
    "latency-1",
    "inflight-64",
    "inflight-1024",
    "conns-8x64",
    "under-bulk",
    beside_work::CASE,
    IDLE,
];
/// Whom ratios are to, unless another one is named.
pub(crate) const BASE: &str = "tonic";
/// What it is expected to show.
pub(crate) const TARGETS: &[Target] = &[
    latency("bus", "tonic", 0.6, 0.5),
    latency("bus-inline", "tonic", 0.5, 0.4),
    latency("bus-inline", "raw", 1.5, 1.2),
    rate("inflight-64", "bus", "tonic", 15.0, 25.0),
    rate("inflight-64", "bus-inline", "tonic", 25.0, 40.0),
    rate("inflight-1024", "bus", "tonic", 25.0, 50.0),
    rate("inflight-1024", "bus-inline", "tonic", 40.0, 80.0),
    rate("conns-8x64", "bus", "tonic", 25.0, 50.0),
    rate("conns-8x64", "bus-inline", "tonic", 40.0, 80.0),
    Target::ratio(
        "inflight-1024",
        "req_s",
        "bus",
        "tarpc",
        Bound::AtLeast(8.0),
    ),
    Target::ratio("conns-8x64", "req_s", "bus", "tarpc", Bound::AtLeast(8.0)),
    Target::number("under-bulk", "p99_us", "bus", Bound::AtMost(5000.0))
        .or_ratio("raw", Bound::AtMost(2.0))
        .stretch(Bound::AtMost(2000.0)),
    beside_work("p99_us"),
    beside_work("ping_p99_us"),
    memory("bus", 8.0, 4.0),
    memory("bus-tls", 32.0, 24.0),
];

const IDLE: &str = "idle-10000";

const LOADS: [Load; 5] = [
    Load::calls("latency-1", 1, 1),
    Load::calls("inflight-64", 1, 64),
    Load::calls("inflight-1024", 1, 1024),
    Load::calls("conns-8x64", 8, 64),
    Load {
        bulk: 4,
        // Calls are few there, and the slow ones count.
        measured: Duration::from_secs(3),
        ..Load::calls("under-bulk", 1, 1)
    },
];
/// All of them, those of [`variant`] and [`RAW`].
const VARIANTS: [&str; 7] = [
    "bus",
    "bus-inline",
    "bus-tls",
    "tonic",
    "tonic-tuned",
    "tarpc",
    RAW,
];
const RAW: &str = "raw";

const fn latency(variant: &'static str, base: &'static str, most: f64, stretch: f64) -> Target {
    Target::ratio("latency-1", "p50_us", variant, base, Bound::AtMost(most))
        .stretch(Bound::AtMost(stretch))
}

const fn rate(
    case: &'static str,
    variant: &'static str,
    base: &'static str,
    least: f64,
    stretch: f64,
) -> Target {
    Target::ratio(case, "req_s", variant, base, Bound::AtLeast(least))
        .stretch(Bound::AtLeast(stretch))
}

const fn beside_work(unit: &'static str) -> Target {
    Target::number(beside_work::CASE, unit, "bus", Bound::AtMost(10_000.0))
}

const fn memory(variant: &'static str, most: f64, stretch: f64) -> Target {
    Target::number(IDLE, "KiB_conn", variant, Bound::AtMost(most)).stretch(Bound::AtMost(stretch))
}

/// Runs the benchmark.
pub(crate) fn run(options: &Chosen) -> Result<Report> {
    let (rounds, certificate) = (Rounds::of("rpc"), certificate::make()?);
    let pair = |name: &str| -> Result<Box<dyn Pair>> {
        if name == RAW {
            return Ok(Box::new(raw::Raw::start()?));
        }
        variant(name, certificate.path())?.pair(options.threads)
    };
    let mut started = options.start(&VARIANTS, &rounds.progress, pair)?;
    let wants = |case| options.settings.wants(case);
    rounds.run(&options.settings, |rounds| {
        for load in LOADS.iter().filter(|load| wants(load.case)) {
            rounds.put(load.case, &mut started, |_, pair| {
                samples(load, pair.run(load)?)
            })?;
        }
        if wants(beside_work::CASE) && options.wants("bus") {
            let samples = beside_work::measure(options.threads)?;
            rounds.add(beside_work::CASE, "bus", &samples);
        }
        for (name, _) in started
            .iter()
            .filter(|(name, _)| wants(IDLE) && *name != RAW)
        {
            let memory = idle::measure(name, certificate.path(), options.threads);
            let memory = memory.context(*name)?;
            rounds
                .progress
                .note(&format!("  {IDLE} {name}: {memory:?}"));
            rounds.add(IDLE, name, &[("KiB_conn", memory.of_larger_end())]);
        }
        Ok(())
    })
}

/// The stack of this name; with TLS, of the certificate in this directory.
fn variant(name: &str, certificate: &Path) -> Result<Box<dyn AnyStack>> {
    Ok(match name {
        "bus" => Box::new(bus::Bus::default()),
        "bus-inline" => Box::new(bus::Bus {
            inline: true,
            tls: None,
        }),
        "bus-tls" => Box::new(bus::Bus {
            inline: false,
            tls: Some(certificate.to_owned()),
        }),
        #[cfg(feature = "peers")]
        "tonic" => Box::new(peers::tonic::Tonic::Default),
        #[cfg(feature = "peers")]
        "tonic-tuned" => Box::new(peers::tonic::Tonic::Tuned),
        #[cfg(feature = "peers")]
        "tarpc" => Box::new(peers::tarpc::Tarpc),
        _ => bail!("built without feature `peers`"),
    })
}

fn samples(load: &Load, measured: Measured) -> Result<Vec<Sample>> {
    let Measured {
        mut latencies,
        cpu,
        bulk_bytes,
    } = measured;
    let (calls, seconds) = (latencies.calls(), load.measured.as_secs_f64());
    let last = if load.bulk == 0 {
        ("cpu_us_op", cpu.as_secs_f64() * 1e6 / calls)
    } else {
        ("bulk_GB_s", gigabytes(bulk_bytes) / seconds)
    };
    Ok(vec![
        ("p50_us", latencies.micros(50)?),
        ("p99_us", latencies.micros(99)?),
        ("req_s", calls / seconds),
        last,
    ])
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}
