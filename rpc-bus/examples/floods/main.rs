//! A server under floods: what it costs in memory and CPU, and what a good client notices of it.
//!
//! `cargo run --release -p rpc-bus --example floods [-- CASE...]` runs all cases, or those named, each for three minutes
//! at most. Server and flooding peers are processes of their own, since each needs thousands of sockets, and memory and CPU
//! time are the server's alone. What is going on is told on stderr, results on stdout.
//!
//! On a small machine the flooding peers take their CPU time from the good client as well, whatever the server does.
//! So its rate is measured three ways, in turn: alone; beside a process that floods nobody, but computes; beside the flood.

mod cases;
mod good;
mod peers;
mod process;
mod rounds;
mod server;

use std::{env, error::Error, thread};

use rpc_bus::BusRuntime;
use tokio::runtime::{Builder, Runtime};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => server::run(),
        ["flood", kind, server] => peers::run(kind, server.parse()?),
        _ => cases::run(&words),
    }
}

/// One io thread, which runs until the program ends, and one for handlers.
pub(crate) fn threads() -> Outcome<(Runtime, BusRuntime)> {
    let io = Builder::new_current_thread().enable_all().build()?;
    let handle = io.handle().clone();
    thread::spawn(move || io.block_on(std::future::pending::<()>()));
    let app = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let cpu = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let bus = BusRuntime::new(vec![handle], app.handle().clone(), cpu.into());
    Ok((app, bus))
}
