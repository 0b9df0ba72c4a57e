//! After everything, one more stream: whatever has happened, two nodes that live find each other again.

use futures::{SinkExt, TryStreamExt};
use protos::id::QueryId;

use super::{
    data::{Author, BatchPlan, batch, schema},
    oracle::{AnyError, Received},
    world::Node,
};
use crate::stream::{Origin, ReceiveOptions, SendError, SendOptions, StreamAddress};

const AUTHOR: Author = Author {
    sender: 0,
    attempt: 0,
};
const BATCHES: i64 = 3;
const BATCH: BatchPlan = BatchPlan {
    rows: 2,
    row_bytes: 1_000,
};

/// Lets `here` receive from `there`.
pub(super) async fn stream(here: &Node, there: &Node) -> Result<(), AnyError> {
    let query = QueryId {
        part1: i64::MAX,
        part2: 1,
    };
    let address = StreamAddress::new(query, (1, 0), (0, 0));
    let (sent, came) = tokio::join!(send(there, address), receive(here, there, address));
    let all = BATCHES.unsigned_abs() * BATCH.rows as u64;
    assert_eq!(came?, all, "all that was sent");
    Ok(sent?)
}

async fn send(there: &Node, address: StreamAddress) -> Result<(), SendError> {
    let sender = there
        .data
        .sender(address, &schema(), SendOptions::default());
    let mut sender = sender.expect("the only one of its stream");
    for at in 0..BATCHES {
        let first = at * i64::try_from(BATCH.rows).expect("few");
        sender.send(batch(AUTHOR, first, BATCH)).await?;
    }
    sender.close().await
}

/// How many rows have come.
async fn receive(here: &Node, there: &Node, address: StreamAddress) -> Result<u64, AnyError> {
    let (from, options) = (there.data.local_addr(), ReceiveOptions::default());
    let receiver = here.data.receiver(Origin::Node(from), address, &options);
    let (mut receiver, mut seen) = (receiver.await?, Received::default());
    while let Some(batch) = receiver.try_next().await? {
        seen.take(&batch, &[AUTHOR.sender]);
    }
    Ok(seen.rows())
}
