//! Streams within a process: nothing is copied, but what waits is cut and counted as if it were sent.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, StringArray},
    compute::concat_batches,
    datatypes::Int32Type,
};
use bit_data::{NodeOptions, Origin, ReceiveError, ReceiveOptions, SendError, SendOptions};
use futures::{FutureExt, SinkExt, StreamExt, TryStreamExt};
use rpc_bus::ledger::Kind;

use crate::support::{Node, batch, send_all, stream};

const MIB: usize = 1 << 20;

fn numbers(rows: i64) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    RecordBatch::try_from_iter([("number", column)]).expect("one column")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_batch_waits_in_pieces_within_the_budget() {
    let node = Node::start(NodeOptions::default()).await;
    let long = numbers(8 << 20);
    let sender = node
        .node
        .sender(stream(1), &long.schema(), SendOptions::default());
    let mut sender = sender.expect("the only one");
    let receiver = node.receiver(Origin::Here, stream(1)).await;
    let sent = long.clone();
    let sending = tokio::spawn(async move {
        sender.feed(sent).await?;
        sender.close().await
    });
    let pieces: Vec<_> = receiver
        .inspect_ok(|piece| {
            let bytes = piece.num_rows() * 8;
            assert!(bytes <= MIB + MIB / 8, "{bytes} at once");
            let data = piece.column(0).to_data();
            let (piece, whole) = (data.buffers()[0].data_ptr(), long.column(0).to_data());
            assert_eq!(piece, whole.buffers()[0].data_ptr(), "it is not copied");
        })
        .try_collect()
        .await
        .expect("no error");
    assert!(sending.await.expect("no panic").is_ok());
    assert!(concat_batches(&long.schema(), &pieces).expect("one schema") == long);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_of_a_long_batch_cost_what_they_show() {
    let node = Node::start(NodeOptions::default()).await;
    let long = numbers(8 << 20);
    let sender = node
        .node
        .sender(stream(1), &long.schema(), SendOptions::default());
    let mut sender = sender.expect("the only one");
    let receiver = node.receiver(Origin::Here, stream(1)).await;
    // Nobody takes them, and all have credit together.
    for slice in 0..16 {
        sender
            .send(long.slice(slice * 8_192, 8_192))
            .await
            .expect("there is credit");
    }
    let stats = receiver.stats();
    assert_eq!(stats.buffer_memory_bytes, 16 * 8_192 * 8);
    drop((sender, receiver));
    node.stop().await;
}

/// A few rows of a dictionary of 900 KiB.
fn keyed(values: &ArrayRef) -> RecordBatch {
    let keys = vec![0; 64].into();
    let column: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::clone(values)));
    RecordBatch::try_from_iter([("word", column)]).expect("one column")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_counts_its_dictionaries_once_each() {
    const DICTIONARY: usize = 900 << 10;
    let node = Node::start(NodeOptions::default()).await;
    let [one, other]: [ArrayRef; 2] = std::array::from_fn(|_| {
        Arc::new(StringArray::from(vec!["x".repeat(DICTIONARY)])) as ArrayRef
    });
    let schema = keyed(&one).schema();
    let sender = node.node.sender(stream(1), &schema, SendOptions::default());
    let mut sender = sender.expect("the only one");
    let options = ReceiveOptions {
        window_bytes: 2 * MIB,
        ..ReceiveOptions::default()
    };
    let receiver = node.node.receiver(Origin::Here, stream(1), &options).await;
    let receiver = receiver.expect("its sender is there");
    // Nobody takes them.
    for (values, dictionaries) in [(&one, 1), (&one, 1), (&other, 2), (&other, 2)] {
        sender.send(keyed(values)).await.expect("there is credit");
        let queued = receiver.stats().buffer_memory_bytes;
        let least = (dictionaries * DICTIONARY) as u64;
        assert!((least..least + (16 << 10)).contains(&queued), "{queued}");
    }
    sender.send(keyed(&one)).await.expect("there is credit");
    assert!(sender.feed(keyed(&one)).now_or_never().is_some());
    let flushed = sender.flush().now_or_never();
    assert!(flushed.is_none(), "2 MiB wait, mostly dictionaries");
    drop((sender, receiver));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_longer_than_the_budget_is_refused_here_too() {
    let node = Node::start(NodeOptions::default()).await;
    let options = ReceiveOptions {
        budget_bytes: MIB,
        ..ReceiveOptions::default()
    };
    let sending = tokio::spawn(send_all(node.sender(stream(1)), 1, 3, 2 * MIB));
    let receiver = node.node.receiver(Origin::Here, stream(1), &options);
    let mut receiver = receiver.await.expect("a sender");
    let failed = sending.await.expect("no panic");
    assert!(
        matches!(failed, Err(SendError::ReceiverFailed(_))),
        "{failed:?}"
    );
    let error = receiver.next().await;
    assert!(
        matches!(error, Some(Err(ReceiveError::Budget(_)))),
        "{error:?}"
    );
    assert_eq!(node.node.reserved().used(Kind::Bytes), 0);
    drop(receiver);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_passed_through_is_counted_as_what_is_shown() {
    let node = Node::start(NodeOptions::default()).await;
    let mut sender = node.sender(stream(1));
    let mut receiver = node.receiver(Origin::Here, stream(1)).await;
    let long = batch(1, 0, 100_000);
    sender.send(long).await.expect("there is credit");
    assert!(receiver.next().await.is_some_and(|next| next.is_ok()));
    let counted = receiver.stats().bytes_pass_through;
    assert!((100_000..100_200).contains(&counted), "{counted}");
    drop((sender, receiver));
    node.stop().await;
}
