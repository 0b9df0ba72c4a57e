//! A merging receiver on the smallest budget there is.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch},
    datatypes::Int64Type,
};
use bit_data::{MergeOptions, OpenError, ReceiveOptions, SendError, SendOptions, SortKey};
use futures::{SinkExt, StreamExt};

use crate::support::{Node, pair, stream};

const SENDERS: i32 = 64;
const BATCHES: i64 = 20;
const ROWS: i64 = 10_000;

/// Every 64th number; sender 0 has the first, and its batches are larger than its window.
fn numbers(sender: i64, batch: i64) -> RecordBatch {
    let first = batch * ROWS;
    let values = (first..first + ROWS).map(|row| row * i64::from(SENDERS) + sender);
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    RecordBatch::try_from_iter([("n", column)]).expect("one column")
}

async fn send(there: &Node, sender: i32, batches: i64) -> Result<(), SendError> {
    let schema = numbers(0, 0).schema();
    let options = SendOptions::default();
    let mut sink = there
        .node
        .sender(stream(sender), &schema, options)
        .expect("the only one");
    for batch in 0..batches {
        sink.feed(numbers(sender.into(), batch)).await?;
    }
    sink.close().await
}

#[tokio::test]
async fn sixty_four_senders_are_merged_under_the_least_budget() {
    let (there, here) = pair().await;
    let from: Vec<_> = (0..SENDERS)
        .map(|minor| (there.origin(), stream(minor)))
        .collect();
    let least = ReceiveOptions::budget_bytes_min(from.len());
    let budget = |budget_bytes| ReceiveOptions {
        budget_bytes,
        ..ReceiveOptions::default()
    };
    let less = here.node.receivers(&from, &budget(least - 1)).await;
    assert!(matches!(
        less,
        Err(OpenError::TooManyStreams { streams: 64, .. })
    ));

    let sending =
        futures::future::join_all((0..SENDERS).map(|sender| send(&there, sender, BATCHES)));
    let receiving = async {
        let receivers = here
            .node
            .receivers(&from, &budget(least))
            .await
            .expect("all are there");
        let key = SortKey::ascending(0);
        let schema = numbers(0, 0).schema();
        let mut merged = receivers
            .merged(schema, &[key], MergeOptions::default())
            .expect("numbers have an order");
        let mut next = 0;
        while let Some(batch) = merged.next().await {
            let batch = batch.expect("no error");
            for &value in batch.column(0).as_primitive::<Int64Type>().values() {
                assert_eq!(value, next);
                next += 1;
            }
        }
        next
    };
    let (sent, rows) = tokio::join!(sending, receiving);
    assert!(sent.iter().all(Result::is_ok));
    assert_eq!(rows, i64::from(SENDERS) * BATCHES * ROWS);
    here.stop().await;
    there.stop().await;
}

/// A LIMIT above a merging receiver.
#[tokio::test]
async fn a_merge_that_has_enough_stops_its_senders_with_success() {
    let (there, here) = pair().await;
    let from = [0, 1, 2].map(|minor| (there.origin(), stream(minor)));
    let sending = futures::future::join_all((0..3).map(|sender| send(&there, sender, i64::MAX)));
    let receiving = async {
        let options = ReceiveOptions::default();
        let receivers = here.node.receivers(&from, &options).await;
        let (schema, key) = (numbers(0, 0).schema(), SortKey::ascending(0));
        let merged =
            receivers
                .expect("all are there")
                .merged(schema, &[key], MergeOptions::default());
        let mut merged = merged.expect("numbers have an order");
        assert!(merged.next().await.is_some_and(|batch| batch.is_ok()));
        merged.finish();
    };
    let (sent, ()) = tokio::join!(sending, receiving);
    for outcome in sent {
        let error = outcome.expect_err("the receiver has enough");
        assert!(error.is_finished(), "{error}");
    }
    here.stop().await;
    there.stop().await;
}
