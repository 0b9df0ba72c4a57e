//! Senders, and nodes, that go: who waits for them is told, and nobody else is harmed.

use std::{net::SocketAddr, time::Duration};

use bit_data::{DataNode, NodeOptions, Origin, ReceiveError, SendError};
use futures::{SinkExt, StreamExt};
use rpc_bus::{
    Ledger,
    ledger::{Kind, Limits},
};

use crate::support::{Node, batch, expected, receive_all, runtime, send_all, settled, stream};

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

#[tokio::test]
async fn a_node_that_shuts_down_says_so_to_its_senders_wherever_their_receivers_are() {
    let here = Node::start(NodeOptions::default()).await;
    let there = Node::start(NodeOptions::default()).await;
    let mut sender = there.sender(stream(1));
    let mut elsewhere = here.receiver(there.origin(), stream(1)).await;
    let (origin, mut foreign) = (here.origin(), here.sender(stream(2)));
    let mut receiver = there.receiver(origin, stream(2)).await;
    sender.send(batch(1, 0, 10)).await.expect("a receiver");
    let ledger = there.ledger.clone();
    there.node.shutdown(GRACE).await;
    expect_stopped(sender.send(batch(1, 1, 10)).await);
    let error = receiver.next().await.expect("an error");
    assert!(matches!(error, Err(ReceiveError::Lost { .. })), "{error:?}");
    let lost = foreign.send(batch(2, 0, 10)).await;
    assert!(matches!(lost, Err(SendError::Lost { .. })), "{lost:?}");
    let (_, end) = receive_all(&mut elsewhere).await;
    assert!(matches!(end, Err(ReceiveError::Lost { .. })), "{end:?}");
    drop((sender, receiver, foreign, elsewhere));
    settled(&ledger).await;
    here.stop().await;
}

/// A node that may have 20 tasks.
async fn with_few_tasks() -> Node {
    let ledger = Ledger::root(
        "node",
        Limits {
            tasks: Some(20),
            ..Limits::default()
        },
    );
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let node = DataNode::bind(any, runtime(), NodeOptions::default(), ledger.clone());
    let node = node.await.expect("a port");
    Node { node, ledger }
}

#[tokio::test]
async fn a_sender_that_goes_where_no_task_is_left_harms_no_other_stream() {
    let here = Node::start(NodeOptions::default()).await;
    let there = with_few_tasks().await;
    let (goes, mut stays) = (there.sender(stream(1)), there.sender(stream(2)));
    let mut cancelled = here.receiver(there.origin(), stream(1)).await;
    let receiver = here.receiver(there.origin(), stream(2)).await;
    let left = 20 - there.ledger.used(Kind::Tasks);
    let all = there.ledger.charge(Kind::Tasks, left);
    drop(goes);
    let error = cancelled
        .next()
        .await
        .expect("an end")
        .expect_err("it went");
    assert!(matches!(error, ReceiveError::SenderCancelled), "{error}");
    stays.send(batch(2, 0, 10)).await.expect("it is unharmed");
    stays.close().await.expect("it is unharmed");
    let (seen, end) = receive_all(receiver).await;
    assert!(end.is_ok() && seen == expected(2, 1));
    drop((all, stays, cancelled));
    here.stop().await;
    there.stop().await;
}
