//! The bus beside its peers on the same data: `cargo run --release -p benches -- NAME`.
//!
//! A benchmark starts what it needs, runs its variants in turn in every round, verifies what each of them received,
//! and prints medians with minimum and maximum. How to read them: trust ratios within one table and CPU time; wall
//! figures belong to the machine. Minimum and maximum far apart mean that something else ran meanwhile. A variant
//! that cannot run here is left out, and stderr says so. The modules of the benchmarks say what each number is.

mod checksum;
mod client_process;
mod data;
mod node;
mod process;
mod progress;
mod reading;
mod replay;
mod report;
mod rpc;
mod settings;
mod target;
mod user;

use std::ffi::OsString;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::process::{ExitCode, exit};
use std::thread;

use anyhow::Result;
use clap::{Parser, Subcommand};

use report::Report;
use settings::Settings;
use target::Target;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BENCHES: &str = "\
Cases (units) and variants:
  user  1M-rows (rows_s, cpu_s of the client process), first-row (ms)
        jdbc-ours, jdbc-drill, jdbc-replay (recorded frames: the driver's ceiling), client-ours, client-drill
  node  start (ms until it accepts, MiB resident when idle)
        ours, drill
  rpc   latency-1, inflight-64, inflight-1024 (p50_us, p99_us, req_s)
        bus, raw (bare sockets)

A variant that cannot run here is left out; stderr says which and why. Variants of a round run in turn; ratios are of
medians. Trust ratios within one table, and CPU time; other work on the machine shows as a wide range.";

/// The bus beside its peers on the same data.
#[derive(Debug, Parser)]
#[command(name = "benches", version, after_help = BENCHES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// 1 M rows x 5 columns from a node to a program
    User(Settings),
    /// Start-up time and idle memory of a node
    Node(Settings),
    /// Small calls over one connection
    Rpc(Settings),
    /// Our node, for the benchmarks.
    #[command(hide = true, disable_help_flag = true)]
    Serve {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Our client, for the benchmarks.
    #[command(hide = true)]
    Read { server: SocketAddr },
}

/// A benchmark: what it is called with, and what it runs.
struct Bench {
    cases: &'static [&'static str],
    base: &'static str,
    targets: &'static [Target],
    run: fn(&Settings) -> Result<Report>,
}

const USER: Bench = Bench {
    cases: user::CASES,
    base: user::BASE,
    targets: user::TARGETS,
    run: user::run,
};
const NODE: Bench = Bench {
    cases: node::CASES,
    base: node::BASE,
    targets: node::TARGETS,
    run: node::run,
};
const RPC: Bench = Bench {
    cases: rpc::CASES,
    base: rpc::BASE,
    targets: rpc::TARGETS,
    run: rpc::run,
};

impl Bench {
    fn run(&self, settings: &Settings) -> Result<()> {
        settings.check(self.cases)?;
        let report = (self.run)(settings)?;
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
        Command::User(settings) => USER.run(&settings),
        Command::Node(settings) => NODE.run(&settings),
        Command::Rpc(settings) => RPC.run(&settings),
        Command::Read { server } => client_process::run(server),
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
fn serve(arguments: Vec<OsString>) -> ExitCode {
    thread::spawn(|| {
        // An error is an end as well.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        exit(0);
    });
    let program = ["drillbit", "serve"].map(OsString::from);
    drillbit::cli::run(program.into_iter().chain(arguments))
}
