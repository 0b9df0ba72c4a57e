//! How fast sorted inputs are merged, and how fast batches go to spill files and come back. Medians of rounds.
//!
//! `cargo run --release -p bit-data --example merge_and_spill [ROUNDS]`

use std::{convert::Infallible, error::Error, sync::Arc, time::Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use bit_data::{Merge, MergeOptions, SortKey, SpillDir, SpillError, SpillOptions, SpillRecord};
use bytes::Bytes;
use futures::{StreamExt, stream};
use rpc_bus::{Ledger, ledger::Limits};

const ROWS_OF_BATCH: i64 = 8_192;
const ROWS: i64 = 4 << 20;
const RECORD_BYTES: usize = 256 << 10;
const RECORDS: usize = 4096;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    for inputs in [2, 16, 64] {
        for (order, run) in [("row by row", 1), ("runs of 1,000 rows", 1_000)] {
            let mut rates = Vec::new();
            for _ in 0..rounds {
                rates.push(merge(inputs, run).await?);
            }
            println!("merge of {inputs}, {order}: {:.1} M rows/s", median(rates));
        }
    }
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (write, read) = spill().await?;
        writes.push(write);
        reads.push(read);
    }
    println!(
        "spill: {:.2} GB/s to files, {:.2} GB/s back",
        median(writes),
        median(reads)
    );
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Millions of rows a second; each input has `run` of them in turn.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
async fn merge(inputs: i64, run: i64) -> Result<f64, Box<dyn Error>> {
    let batches: Vec<Vec<_>> = (0..inputs)
        .map(|input| sorted(input, inputs, run))
        .collect();
    let schema = batches[0][0].schema();
    let input = |batches: Vec<_>| stream::iter(batches.into_iter().map(Ok::<_, Infallible>));
    let streams: Vec<_> = batches.into_iter().map(input).collect();
    let began = Instant::now();
    let keys = [SortKey::ascending(0)];
    let mut merged = Merge::try_new(schema, &keys, streams, MergeOptions::default())?;
    let mut rows = 0;
    while let Some(batch) = merged.next().await {
        rows += batch?.num_rows();
    }
    Ok(rows as f64 / began.elapsed().as_secs_f64() / 1e6)
}

/// All batches of one input: a key and a value of eight bytes each.
#[expect(clippy::cast_precision_loss, reason = "any number will do")]
fn sorted(input: i64, inputs: i64, run: i64) -> Vec<RecordBatch> {
    let key = |row: i64| (row / run * inputs + input) * run + row % run;
    let batch = |first: i64| {
        let rows = first..first + ROWS_OF_BATCH;
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(key)));
        let values: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.map(|row| row as f64)));
        RecordBatch::try_from_iter([("key", keys), ("value", values)]).expect("two columns")
    };
    let batches = ROWS / inputs / ROWS_OF_BATCH;
    (0..batches).map(|at| batch(at * ROWS_OF_BATCH)).collect()
}

/// GB a second to files and back.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
async fn spill() -> Result<(f64, f64), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let ledger = Ledger::root("process", Limits::default());
    let runtime = tokio::runtime::Handle::current();
    let dir = SpillDir::open(dir.path(), &SpillOptions::default(), &ledger, runtime)?;
    let (writer, mut reader) = dir.queue(|| ());
    let record = SpillRecord {
        header: Bytes::from(vec![1; 64]),
        body: vec![Bytes::from(vec![7; RECORD_BYTES])],
    };
    let gigabytes = (RECORDS * RECORD_BYTES) as f64 / 1e9;
    let began = Instant::now();
    for _ in 0..RECORDS {
        while let Err(error) = writer.push(record.clone()) {
            if !matches!(error, SpillError::NoRoomYet) {
                return Err(error.into());
            }
            tokio::task::yield_now().await;
        }
    }
    while dir.unwritten_bytes() > 0 {
        tokio::task::yield_now().await;
    }
    let written = began.elapsed();
    let began = Instant::now();
    while let Some(record) = reader.pop().await? {
        drop(record);
    }
    let read = began.elapsed();
    Ok((
        gigabytes / written.as_secs_f64(),
        gigabytes / read.as_secs_f64(),
    ))
}
