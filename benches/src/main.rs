//! The bus beside its peers on the same data: `cargo run --release -p benches -- NAME`.
//!
//! A benchmark starts what it needs, runs its variants in turn in every round, verifies what each of them received,
//! and prints medians with minimum and maximum. How to read them: trust ratios within one table and CPU time; wall
//! figures belong to the machine. Minimum and maximum far apart mean that something else ran meanwhile. A variant
//! that cannot run here is left out, and stderr says so. The modules of the benchmarks say what each number is.

#[cfg(feature = "data")]
mod batch;
#[cfg(feature = "node")]
mod checksum;
mod child;
#[cfg(feature = "node")]
mod client_process;
#[cfg(feature = "data")]
mod compression;
#[cfg(feature = "data")]
mod control;
#[cfg(feature = "node")]
mod data;
#[cfg(feature = "data")]
mod exchange;
#[cfg(feature = "node")]
mod node;
mod process;
mod progress;
#[cfg(feature = "node")]
mod reading;
#[cfg(feature = "node")]
mod replay;
mod report;
mod rounds;
mod rpc;
mod settings;
mod target;
#[cfg(feature = "data")]
mod transfer;
#[cfg(feature = "node")]
mod user;
#[cfg(feature = "vectors")]
mod vectors;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use report::Report;
use rounds::Chosen;
use settings::Settings;
use target::Target;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HAS_NODE: bool = cfg!(feature = "node");
const HAS_VECTORS: bool = cfg!(feature = "vectors");
const HAS_DATA: bool = cfg!(feature = "data");

const HELP: &str = "\
Cases (units) and variants:
  user  1M-rows (rows_s, cpu_s of the client process), first-row (ms)
        jdbc-ours, jdbc-drill, jdbc-replay (recorded frames: the driver's ceiling), client-ours, client-drill
  node  start (ms until it accepts, MiB resident when idle)
        ours, drill
  rpc   latency-1, inflight-64, inflight-1024, conns-8x64 (p50_us, p99_us, req_s, cpu_us_op of both ends),
        under-bulk (p50_us, p99_us, req_s, bulk_GB_s), idle-10000 (KiB_conn of one end)
        bus, bus-inline (handlers on the I/O thread), bus-tls, raw (bare sockets);
        with feature `peers` tonic, tonic-tuned, tarpc
  vectors  decode/TYPE/required, .../nullable, encode/TYPE/..., of int64, float64, utf8, utf8-wide, decimal, bool, list;
        mixed20x100/same, .../first, mixed6x40/same, mixed6x10000/same (GB_s, Mvalues_s, us_batch)
        record-batch, arrow-body, arrow-ipc, memcpy
  batch  4KiB, 64KiB, 1MiB, 4MiB (GB_s, cpu_s_GB of both ends)
        bus, bus-checksum-off, bus-lz4, bus-drill (Drill's vectors and acknowledgements), pass-through (one process),
        raw (bare sockets); with feature `peers` flight, flight-tuned, framed-ipc
  compression  loopback/compressible, .../random, 100MBs/compressible, .../random (GB_s, cpu_s_GB, wire_share)
        none, lz4, zstd, snappy, adaptive
  exchange  stopped-consumer (GB_s, rate_kept and cpu_kept, rss_growth_MiB and rss_control_MiB, held_KiB and granted_KiB,
        reserved_KiB)
        bus; with feature `peers` flight-tuned
  control  under-bulk (p50_us, p99_us, req_s, bulk_GB_s): bus, ping, raw (a blocking echo under the same load)
        beat (sender_us, answerer_us of CPU): bus, raw (as many bytes over bare sockets)
        stopped (suspect_ms, down_ms, up_ms), busy (answered, suspected, downs): bus
        fragments, cancel-running, cancel-starting, cancel-deaf (p50_ms, p99_ms): bus

A variant that cannot run here is left out; stderr says which and why. Variants of a round run in turn; ratios are of
medians. Trust ratios within one table, and CPU time; other work on the machine shows as a wide range.";

/// The bus beside its peers on the same data.
#[derive(Debug, Parser)]
#[command(name = "benches", version, after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(about = with("node", HAS_NODE, "1 M rows x 5 columns from a node to a program"))]
    User(Settings),
    #[command(about = with("node", HAS_NODE, "Start-up time and idle memory of a node"))]
    Node(Settings),
    /// Small calls, beside other stacks
    Rpc(Chosen),
    #[command(about = with("vectors", HAS_VECTORS, "Record batches to bodies and back"))]
    Vectors(Settings),
    #[command(about = with("data", HAS_DATA, "One stream of record batches, beside other stacks"))]
    Batch(DataOptions),
    #[command(about = with("data", HAS_DATA, "One stream with each codec, and with the adaptive choice"))]
    Compression(DataOptions),
    /// A link of 100 MB/s, for the benchmarks.
    #[cfg(feature = "data")]
    #[command(hide = true)]
    Pace { to: std::net::SocketAddr },
    #[command(about = with("data", HAS_DATA, "Many streams of record batches, beside other stacks"))]
    Exchange(ExchangeOptions),
    #[command(about = with("data", HAS_DATA, "Calls between nodes under load, beats, and queries that start and end"))]
    Control(ControlOptions),
    /// One end of beats, for the benchmarks.
    #[cfg(feature = "data")]
    #[command(hide = true)]
    BeatEnd(control::End),
    /// One end of idle connections, for the benchmarks.
    #[command(hide = true)]
    Idle(rpc::End),
    /// Our node, for the benchmarks.
    #[cfg(feature = "node")]
    #[command(hide = true, disable_help_flag = true)]
    Serve {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Our client, for the benchmarks.
    #[cfg(feature = "node")]
    #[command(hide = true)]
    Read { server: std::net::SocketAddr },
}

/// What `--help` says of a benchmark that needs `feature`.
fn with(feature: &str, is_built: bool, about: &str) -> String {
    if is_built {
        about.to_owned()
    } else {
        format!("{about}; {}", without(feature))
    }
}

fn without(feature: &str) -> String {
    format!("built without feature `{feature}`")
}

/// What a benchmark can be asked for, and what its numbers are judged by.
struct Bench {
    cases: &'static [&'static str],
    base: &'static str,
    targets: &'static [Target],
}

#[cfg(feature = "data")]
type DataOptions = Chosen;
#[cfg(feature = "data")]
type ExchangeOptions = exchange::Options;
#[cfg(feature = "data")]
type ControlOptions = control::Options;
#[cfg(not(feature = "data"))]
type DataOptions = Settings;
#[cfg(not(feature = "data"))]
type ExchangeOptions = Settings;
#[cfg(not(feature = "data"))]
type ControlOptions = Settings;

#[cfg(feature = "node")]
const USER: Bench = Bench {
    cases: user::CASES,
    base: user::BASE,
    targets: user::TARGETS,
};
#[cfg(feature = "node")]
const NODE: Bench = Bench {
    cases: node::CASES,
    base: node::BASE,
    targets: node::TARGETS,
};
#[cfg(feature = "vectors")]
const VECTORS: Bench = Bench {
    cases: vectors::CASES,
    base: vectors::BASE,
    targets: vectors::TARGETS,
};
#[cfg(feature = "data")]
const BATCH: Bench = Bench {
    cases: batch::CASES,
    base: batch::BASE,
    targets: batch::TARGETS,
};
#[cfg(feature = "data")]
const COMPRESSION: Bench = Bench {
    cases: compression::CASES,
    base: compression::BASE,
    targets: compression::TARGETS,
};
#[cfg(feature = "data")]
const EXCHANGE: Bench = Bench {
    cases: exchange::CASES,
    base: exchange::BASE,
    targets: exchange::TARGETS,
};
#[cfg(feature = "data")]
const CONTROL: Bench = Bench {
    cases: control::CASES,
    base: control::BASE,
    targets: control::TARGETS,
};
const RPC: Bench = Bench {
    cases: rpc::CASES,
    base: rpc::BASE,
    targets: rpc::TARGETS,
};

impl Bench {
    fn run(&self, settings: &Settings, measure: impl FnOnce() -> Result<Report>) -> Result<()> {
        settings.check(self.cases)?;
        let report = measure()?;
        if settings.json {
            report.print_json();
        } else {
            report.print_table(settings.base.as_deref().unwrap_or(self.base));
            report.print_verdicts(self.targets);
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        #[cfg(feature = "node")]
        Command::User(settings) => USER.run(&settings, || user::run(&settings)),
        #[cfg(feature = "node")]
        Command::Node(settings) => NODE.run(&settings, || node::run(&settings)),
        #[cfg(not(feature = "node"))]
        Command::User(_) | Command::Node(_) => Err(anyhow::anyhow!(without("node"))),
        #[cfg(feature = "vectors")]
        Command::Vectors(settings) => VECTORS.run(&settings, || vectors::run(&settings)),
        #[cfg(not(feature = "vectors"))]
        Command::Vectors(_) => Err(anyhow::anyhow!(without("vectors"))),
        #[cfg(feature = "data")]
        Command::Batch(options) => BATCH.run(&options.settings, || batch::run(&options)),
        #[cfg(feature = "data")]
        Command::Compression(options) => {
            COMPRESSION.run(&options.settings, || compression::run(&options))
        }
        #[cfg(feature = "data")]
        Command::Pace { to } => compression::pace(to),
        #[cfg(feature = "data")]
        Command::Exchange(options) => {
            EXCHANGE.run(&options.chosen.settings, || exchange::run(&options))
        }
        #[cfg(feature = "data")]
        Command::Control(options) => CONTROL.run(&options.settings, || control::run(&options)),
        #[cfg(feature = "data")]
        Command::BeatEnd(end) => control::run_end(&end),
        #[cfg(not(feature = "data"))]
        Command::Batch(_)
        | Command::Compression(_)
        | Command::Exchange(_)
        | Command::Control(_) => Err(anyhow::anyhow!(without("data"))),
        Command::Rpc(options) => RPC.run(&options.settings, || rpc::run(&options)),
        Command::Idle(end) => rpc::run_end(&end),
        #[cfg(feature = "node")]
        Command::Read { server } => client_process::run(server),
        #[cfg(feature = "node")]
        Command::Serve { arguments } => return serve(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a node that ends with its stdin, so that none outlives the benchmark however that ends.
#[cfg(feature = "node")]
fn serve(arguments: Vec<std::ffi::OsString>) -> ExitCode {
    std::thread::spawn(|| {
        // An error is an end as well.
        let _ = std::io::Read::read_to_end(&mut std::io::stdin(), &mut Vec::new());
        std::process::exit(0);
    });
    let program = ["drillbit", "serve"].map(std::ffi::OsString::from);
    drillbit::cli::run(program.into_iter().chain(arguments))
}
