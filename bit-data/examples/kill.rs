//! Kills the process of a sender in the middle of its streams, again and again, and looks at what the receiver is left
//! with: every stream must end with an error that another try may mend, after batches in order, and all memory must be
//! given back. A stream from a sender that is not killed must go on all the time.
//!
//! `cargo run --release -p bit-data --example kill -- 200`

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch},
    datatypes::Int64Type,
};
use bit_data::{
    DataNode, NodeOptions, Origin, ReceiveOptions, SendOptions, StreamAddress, StreamReceiver,
};
use futures::{SinkExt, StreamExt, future::join_all};
use protos::{error::Retry, id::QueryId};
use rpc_bus::{BusRuntime, Ledger, ledger::Limits};

const STREAMS: i32 = 8;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let rounds = std::env::args().nth(1).unwrap_or_else(|| "20".to_owned());
    if rounds == "sender" {
        return send().await;
    }
    let (node, ledger) = node().await?;
    let (mut bystander, address) = start_sender()?;
    let options = ReceiveOptions::default();
    let unharmed = node.receiver(Origin::Node(address), stream(0), &options);
    let mut unharmed = unharmed.await?;
    let (mut batches, mut others) = (0, 0);
    for round in 0..rounds.parse::<u64>()? {
        batches += receive_and_kill(&node, round, (&mut unharmed, &mut others)).await?;
        // After the kill too.
        next_in_order(&mut unharmed, &mut others).await;
    }
    drop(unharmed);
    assert!(node.reserved().is_zero(), "{:?}", node.reserved());
    bystander.kill()?;
    bystander.wait()?;
    node.shutdown(Duration::from_secs(5)).await;
    while !ledger.is_zero() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!(
        "{rounds} senders killed, {batches} batches in order, {others} of one that was not, all memory given back"
    );
    Ok(())
}

async fn node() -> Outcome<(DataNode, Ledger)> {
    let runtime = BusRuntime::current(Arc::new(rayon::ThreadPoolBuilder::new().build()?));
    let ledger = Ledger::root("process", Limits::default());
    let any = ([127, 0, 0, 1], 0).into();
    let node = DataNode::bind(any, runtime, NodeOptions::default(), ledger.clone()).await?;
    Ok((node, ledger))
}

fn stream(minor: i32) -> StreamAddress {
    StreamAddress::new(QueryId { part1: 1, part2: 1 }, (1, minor), (0, 0))
}

fn batch(number: i64) -> Outcome<RecordBatch> {
    let numbers: ArrayRef = Arc::new(Int64Array::from_value(number, 5_000));
    Ok(RecordBatch::try_from_iter([("number", numbers)])?)
}

/// The process that is killed: says where it listens, and sends until it is.
async fn send() -> Outcome<()> {
    let (node, _) = node().await?;
    println!("{}", node.local_addr());
    std::io::stdout().flush()?;
    let sending = (0..STREAMS).map(async |minor| -> Outcome<()> {
        let schema = batch(0)?.schema();
        let mut sender = node.sender(stream(minor), &schema, SendOptions::default())?;
        for number in 0.. {
            sender.send(batch(number)?).await?;
        }
        Ok(())
    });
    join_all(sending).await.into_iter().collect()
}

/// Takes the next batch of a stream that must have one, and counts it.
async fn next_in_order(receiver: &mut StreamReceiver, next: &mut i64) {
    let batch = receiver.next().await;
    let batch = batch.expect("it never ends").expect("nobody harms it");
    let number = batch.column(0).as_primitive::<Int64Type>().value(0);
    assert_eq!(number, *next, "lost, doubled or reordered");
    *next += 1;
}

/// Returns how many batches came before the end. Meanwhile another stream goes on.
async fn receive_and_kill(
    node: &DataNode,
    round: u64,
    (unharmed, others): (&mut StreamReceiver, &mut i64),
) -> Outcome<i64> {
    let (mut child, address) = start_sender()?;
    let from: Vec<_> = (0..STREAMS)
        .map(|minor| (Origin::Node(address), stream(minor)))
        .collect();
    let receivers = node.receivers(&from, &ReceiveOptions::default()).await?;
    let receiving = receivers
        .per_sender()
        .into_iter()
        .map(async |mut receiver| {
            let mut next = 0;
            loop {
                match receiver.next().await {
                    Some(Ok(batch)) => {
                        let number = batch.column(0).as_primitive::<Int64Type>().value(0);
                        assert_eq!(number, next, "lost, doubled or reordered");
                        next += 1;
                    }
                    Some(Err(error)) => {
                        assert_eq!(error.retry(), Retry::SameNode, "{error}");
                        return next;
                    }
                    None => panic!("an end that the sender never sent"),
                }
            }
        });
    let killing = async {
        tokio::time::sleep(Duration::from_millis(round % 20)).await;
        // On Unix that is signal 9.
        child.kill()
    };
    let all = async { tokio::join!(join_all(receiving), killing) };
    let meanwhile = async {
        loop {
            next_in_order(unharmed, others).await;
        }
    };
    let (counts, killed) = tokio::select! {
        ended = all => ended,
        () = meanwhile => unreachable!("it never ends"),
    };
    killed?;
    child.wait()?;
    Ok(counts.into_iter().sum())
}

fn start_sender() -> Outcome<(Child, SocketAddr)> {
    let this = std::env::current_exe()?;
    let mut child = Command::new(this)
        .arg("sender")
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((child, line.trim().parse()?))
}
