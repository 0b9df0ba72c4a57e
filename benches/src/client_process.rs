//! The `read` command: our client in a process of its own, so that its CPU time can be told from everybody else's.
//!
//! Each line on stdin is a query; its result is read to the end and answered by one line of JSON with the keys of the
//! interop tests' `Scan.java`, or with `error`. The threads are those of `drillbit sql`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Result;
use client::{Client, ClientOptions};
use drillbit::{ThreadOptions, Threads};
use futures::TryStreamExt;
use rpc_bus::Ledger;
use rpc_bus::ledger::Limits;
use serde_json::{Value, json};

use crate::checksum::Checksum;

/// Reads results from `server` until stdin ends.
pub(crate) fn run(server: SocketAddr) -> Result<()> {
    let threads = Threads::start(&ThreadOptions::default())?;
    let options = ClientOptions::new(
        threads.bus().clone(),
        Ledger::root("client", Limits::default()),
    );
    let client = threads.block_on(Client::connect(&server.to_string(), options))?;
    say("connected")?;
    for query in io::stdin().lines() {
        let reply = threads
            .block_on(read(&client, &query?))
            .unwrap_or_else(|error| json!({"error": format!("{error:#}")}));
        say(&reply.to_string())?;
    }
    threads.block_on(client.close());
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

async fn read(client: &Client, query: &str) -> Result<Value> {
    let begun = Instant::now();
    let mut first_row = None;
    let mut checksum = Checksum::default();
    let mut batches = client.query(query).await?;
    while let Some(batch) = batches.try_next().await? {
        if batch.num_rows() > 0 {
            first_row.get_or_insert_with(|| begun.elapsed());
        }
        checksum.add_batch(&batch)?;
    }
    Ok(json!({
        "rows": checksum.rows,
        "sum": checksum.sum.cast_signed(),
        "first_row_nanos": first_row.unwrap_or_default().as_nanos(),
        "nanos": begun.elapsed().as_nanos(),
    }))
}
