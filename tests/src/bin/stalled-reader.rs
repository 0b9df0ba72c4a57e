//! A client in a process of its own, so that its memory can be measured and it can be killed:
//! `stalled-reader HOST:PORT SQL` reads one batch, prints `stalled`, waits for a line on stdin,
//! reads the rest, and prints how many rows there were and the sum of their first column.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use client::{Client, ClientOptions};
use futures::TryStreamExt;
use rpc_bus::BusRuntime;
use rpc_bus::ledger::{Ledger, Limits};

/// Small, so that a client that buffers without limit stands out.
const UNDELIVERED_BYTES_MAX: usize = 16 * 1024 * 1024;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (node, sql) = (
        arguments.next().context("no address")?,
        arguments.next().context("no SQL")?,
    );
    let cpu = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build()?);
    let ledger = Ledger::root("stalled reader", Limits::default());
    let options = ClientOptions {
        undelivered_bytes_max: UNDELIVERED_BYTES_MAX,
        ..ClientOptions::new(BusRuntime::current(cpu), ledger)
    };
    let client = Client::connect(&node, options).await?;
    let mut batches = client.query(&sql).await?;
    let (mut rows, mut sum) = add(&batches.try_next().await?.context("no batch")?);
    println!("stalled");
    tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new())).await??;
    while let Some(batch) = batches.try_next().await? {
        let (more, ids) = add(&batch);
        rows += more;
        sum += ids;
    }
    println!("done rows={rows} sum={sum}");
    client.close().await;
    Ok(())
}

fn add(batch: &RecordBatch) -> (usize, i64) {
    let ids = batch.column(0).as_primitive::<Int64Type>();
    (batch.num_rows(), ids.values().iter().sum())
}
