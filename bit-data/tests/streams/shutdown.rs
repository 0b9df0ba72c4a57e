//! A node that goes: nobody waits for it, who sends to itself included.

use std::time::Duration;

use bit_data::{NodeOptions, Origin, ReceiveError, SendError};
use futures::{SinkExt, StreamExt};

use crate::support::{Node, batch, receive_all, send_all, settled, stream};

/// How long a node may take.
const GRACE: Duration = Duration::from_secs(10);

fn expect_stopped(sent: Result<(), SendError>) {
    let error = sent.expect_err("the node goes");
    assert!(matches!(error, SendError::ShuttingDown), "{error}");
}

fn expect_lost(received: Result<(), ReceiveError>) {
    let error = received.expect_err("the node goes");
    assert!(matches!(error, ReceiveError::ShuttingDown), "{error}");
}

/// Lets go of a node in which senders and receivers wait for each other.
async fn end_streams_of_one_node(end: impl AsyncFnOnce(Node)) {
    let node = Node::start(NodeOptions::default()).await;
    // One without credit, one without a receiver, and one that says nothing.
    let sending = tokio::spawn(send_all(node.sender(stream(1)), 1, i64::MAX, 50_000));
    let mut stopped = node.receiver(Origin::Here, stream(1)).await;
    let lonely = tokio::spawn(send_all(node.sender(stream(2)), 2, 1, 10));
    let mut silent = node.sender(stream(3));
    let receiving = tokio::spawn(receive_all(node.receiver(Origin::Here, stream(3)).await));
    while stopped.stats().buffer_memory_bytes < stopped.stats().window_bytes {
        tokio::task::yield_now().await;
    }
    let ledger = node.ledger.clone();
    end(node).await;
    expect_stopped(sending.await.expect("no panic"));
    expect_stopped(lonely.await.expect("no panic"));
    expect_stopped(silent.send(batch(3, 0, 10)).await);
    expect_lost(receiving.await.expect("no panic").1);
    expect_lost(stopped.next().await.expect("an error").map(drop));
    assert!(stopped.next().await.is_none());
    settled(&ledger).await;
}

#[tokio::test]
async fn a_node_that_shuts_down_ends_the_streams_within_it() {
    end_streams_of_one_node(async |node| node.node.shutdown(GRACE).await).await;
}

#[tokio::test]
async fn a_node_that_is_dropped_ends_the_streams_within_it() {
    end_streams_of_one_node(async |node| drop(node)).await;
}
