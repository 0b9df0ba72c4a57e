//! Which process is at the other end: receivers that expect one, and processes that are said to be down.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bit_data::{
    NodeDown, NodeOptions, OpenError, Origin, ReceiveError, ReceiveOptions, SendError,
    StreamReceiver,
};
use futures::{StreamExt, future::poll_immediate};
use protos::error::Retry;
use rpc_bus::{Ledger, ledger::Limits};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::support::{Node, batch, expected, receive_all, runtime, send_all, settled, stream};

fn options(incarnation: u64) -> NodeOptions {
    NodeOptions {
        incarnation: Some(incarnation),
        ..NodeOptions::default()
    }
}

async fn node(incarnation: u64) -> Node {
    Node::start(options(incarnation)).await
}

fn at(address: SocketAddr, incarnation: u64) -> Origin {
    Origin::Incarnation {
        address,
        incarnation,
    }
}

async fn receive(node: &Node, from: Origin, minor: i32) -> Result<StreamReceiver, OpenError> {
    let options = ReceiveOptions::default();
    node.node.receiver(from, stream(minor), &options).await
}

fn assert_other(refused: &OpenError, wanted: u64, found: u64) {
    let is_so = matches!(*refused, OpenError::OtherIncarnation { expected, actual, .. }
        if expected == wanted && actual == Some(found));
    assert!(
        is_so && refused.retry() == Retry::OtherNode,
        "{refused}, {:?}",
        refused.retry()
    );
}

#[tokio::test]
async fn a_receiver_gets_no_stream_of_the_process_that_was_started_in_place_of_the_one_it_knows() {
    let (before, here) = (node(1).await, node(9).await);
    let address = before.node.local_addr();
    let sending = tokio::spawn(send_all(before.sender(stream(1)), 1, 3, 100));
    let receiver = receive(&here, at(address, 1), 1)
        .await
        .expect("it is there");
    let (seen, end) = receive_all(receiver).await;
    assert!(end.is_ok() && seen == expected(1, 3));
    sending.await.expect("no panic").expect("a receiver");
    before.stop().await;

    let ledger = Ledger::root("node", Limits::default());
    let again = bit_data::DataNode::bind(address, runtime(), options(2), ledger.clone()).await;
    let again = Node {
        node: again.expect("the same port"),
        ledger,
    };
    // With the same name as one of the process before.
    let _other = again.sender(stream(1));
    let refused = receive(&here, at(address, 1), 1)
        .await
        .expect_err("another");
    assert_other(&refused, 1, 2);
    let told = "its incarnation is 0000000000000002, expected 0000000000000001";
    assert!(refused.to_string().ends_with(told), "{refused}");
    assert!(receive(&here, at(address, 2), 1).await.is_ok());
    here.stop().await;
    again.stop().await;
}

#[tokio::test]
async fn a_receiver_of_the_same_process_may_mean_the_one_before_too() {
    let node = node(2).await;
    let address = node.node.local_addr();
    let _sender = node.sender(stream(1));
    let refused = receive(&node, at(address, 1), 1)
        .await
        .expect_err("another");
    assert_other(&refused, 1, 2);
    assert!(receive(&node, at(address, 2), 1).await.is_ok());
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_does_not_tell_its_incarnation_is_not_the_expected_one() {
    let (there, here) = (Node::start(NodeOptions::default()).await, node(9).await);
    let refused = receive(&here, at(there.node.local_addr(), 1), 1).await;
    let refused = refused.expect_err("it could be any");
    assert!(
        matches!(refused, OpenError::OtherIncarnation { actual: None, .. }),
        "{refused}"
    );
    here.stop().await;
    there.stop().await;
}

/// Passes connections on to whoever is the target when they come.
async fn forward(listener: TcpListener, target: Arc<Mutex<SocketAddr>>) {
    let mut open = JoinSet::new();
    while let Ok((mut from, _)) = listener.accept().await {
        let target = *target.lock().expect("no panic");
        open.spawn(async move {
            let mut to = TcpStream::connect(target).await?;
            copy_bidirectional(&mut from, &mut to).await
        });
    }
}

/// As after a machine has lost its power and is back: nothing has ended the connections to the process before.
#[tokio::test]
async fn what_is_left_of_the_process_before_does_not_stand_in_the_way_of_the_one_after_it() {
    let (before, after, here) = (node(1).await, node(2).await, node(9).await);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it listens");
    let target = Arc::new(Mutex::new(before.node.local_addr()));
    let forwarding = tokio::spawn(forward(listener, Arc::clone(&target)));
    let _idle = before.sender(stream(1));
    let mut old = receive(&here, at(address, 1), 1)
        .await
        .expect("it is there");

    *target.lock().expect("no panic") = after.node.local_addr();
    let sending = tokio::spawn(send_all(after.sender(stream(2)), 2, 3, 100));
    let receiver = receive(&here, at(address, 2), 2)
        .await
        .expect("it is there");
    let (seen, end) = receive_all(receiver).await;
    assert!(end.is_ok() && seen == expected(2, 3));
    sending.await.expect("no panic").expect("a receiver");
    let ended = old.next().await.expect("an error");
    assert!(matches!(ended, Err(ReceiveError::Lost { .. })), "{ended:?}");

    // Who still means the one before harms nobody.
    let _idle = after.sender(stream(3));
    let mut new = receive(&here, at(address, 2), 3)
        .await
        .expect("it is there");
    let refused = receive(&here, at(address, 1), 1)
        .await
        .expect_err("it is gone");
    assert_other(&refused, 1, 2);
    assert!(poll_immediate(new.next()).await.is_none(), "it goes on");
    drop(new);
    forwarding.abort();
    here.stop().await;
    after.stop().await;
    before.stop().await;
}

#[tokio::test]
async fn a_node_that_is_down_ends_its_streams_of_both_ways_at_once_and_no_others() {
    let (there, other, here) = (node(1).await, node(2).await, node(9).await);
    let options = ReceiveOptions::default();
    let (theirs, others_origin) = (
        at(there.node.local_addr(), 1),
        at(other.node.local_addr(), 2),
    );
    let idle = (there.sender(stream(1)), other.sender(stream(2)));
    let mut received = receive(&here, theirs, 1).await.expect("it is there");
    let mut others = receive(&here, others_origin, 2).await.expect("it is there");
    // The other way, without end.
    let ours = at(here.node.local_addr(), 9);
    let sending = tokio::spawn(send_all(here.sender(stream(3)), 3, i64::MAX, 50_000));
    let unread = receive(&there, ours, 3).await.expect("it is there");
    let mut opening = Box::pin(here.node.receiver(theirs, stream(4), &options));
    while there.node.waiting() != (0, 1) {
        assert!(poll_immediate(&mut opening).await.is_none());
        tokio::task::yield_now().await;
    }

    here.node.peers().node_down(1, "no beat for 4 s");
    let is_it = |down: &NodeDown| down.incarnation == 1 && &*down.reason == "no beat for 4 s";
    let ended = poll_immediate(received.next()).await.expect("at once");
    assert!(
        matches!(&ended, Some(Err(ReceiveError::NodeDown(down))) if is_it(down)),
        "{ended:?}"
    );
    let refused = opening.await.expect_err("nobody will come");
    assert!(
        matches!(&refused, OpenError::NodeDown(down) if is_it(down)),
        "{refused}"
    );
    let stopped = sending.await.expect("no panic").expect_err("nobody reads");
    assert!(
        matches!(&stopped, SendError::NodeDown(down) if is_it(down)),
        "{stopped}"
    );
    assert!(poll_immediate(others.next()).await.is_none(), "it goes on");

    // It was only not heard of.
    let sending = tokio::spawn(send_all(there.sender(stream(5)), 5, 3, 100));
    let again = receive(&here, theirs, 5).await.expect("it is back");
    let (seen, end) = receive_all(again).await;
    assert!(end.is_ok() && seen == expected(5, 3));
    sending.await.expect("no panic").expect("a receiver");
    drop((received, others, unread, idle));
    for node in [here, other, there] {
        node.stop().await;
    }
}

#[tokio::test]
async fn nobody_waits_for_a_connection_with_a_node_that_goes_down_meanwhile() {
    let here = node(9).await;
    // Accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("it listens");
    let options = ReceiveOptions::default();
    let mut opening = Box::pin(here.node.receiver(at(address, 1), stream(1), &options));
    let _socket = tokio::select! {
        opened = &mut opening => panic!("{opened:?}"),
        accepted = silent.accept() => accepted.expect("it connects"),
    };
    here.node.peers().node_down(2, "another one");
    assert!(poll_immediate(&mut opening).await.is_none());
    here.node.peers().node_down(1, "no beat");
    let refused = poll_immediate(&mut opening).await.expect("at once");
    assert!(
        matches!(&refused, Err(OpenError::NodeDown(down)) if down.incarnation == 1),
        "{refused:?}"
    );
    drop(opening);
    let Node { node, ledger } = here;
    drop(node);
    settled(&ledger).await;
}

#[tokio::test]
async fn batches_that_have_come_before_a_node_went_down_are_no_reason_to_go_on() {
    let (there, here) = (node(1).await, node(9).await);
    let mut sender = there.sender(stream(1));
    let sending = tokio::spawn(async move {
        use futures::SinkExt;
        let sent = sender.send(batch(1, 0, 100)).await;
        (sent, sender)
    });
    let from = at(there.node.local_addr(), 1);
    let mut receiver = receive(&here, from, 1).await.expect("it is there");
    let (sent, sender) = sending.await.expect("no panic");
    sent.expect("a receiver");
    while receiver.stats().buffer_memory_bytes == 0 {
        tokio::task::yield_now().await;
    }
    here.node.peers().node_down(1, "no beat");
    assert_eq!(
        receiver.stats().buffer_memory_bytes,
        0,
        "given back at once"
    );
    let (seen, end) = receive_all(&mut receiver).await;
    assert!(seen.is_empty() && matches!(end, Err(ReceiveError::NodeDown(_))));
    drop((receiver, sender));
    here.stop().await;
    there.stop().await;
}
