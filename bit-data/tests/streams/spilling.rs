//! What has no room in the budget goes to disk and comes back in order.

use std::net::{IpAddr, SocketAddr};

use bit_data::{
    DataNode, NodeOptions, Origin, ReceiveError, ReceiveOptions, SendError, SpillDir, SpillOptions,
    StreamAddress,
};
use futures::{SinkExt, StreamExt, future::join_all};
use protos::id::QueryId;
use rpc_bus::{BusRuntime, Ledger, ledger::Limits, simulation::SimulatedNetwork};
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::support::{Node, batch, expected, identity, pair, receive_all, send_all, stream};

const PAYLOAD: usize = 50_000;

fn spill(ledger: &Ledger, options: &SpillOptions) -> (TempDir, SpillDir) {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = SpillDir::open(parent.path(), options, ledger, Handle::current());
    (parent, dir.expect("a directory"))
}

fn options(dir: &SpillDir) -> ReceiveOptions {
    ReceiveOptions {
        budget_bytes: 1 << 20,
        spill: Some(dir.clone()),
        ..ReceiveOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_ends_though_its_consumer_has_stopped_and_all_comes_in_order() {
    let (there, here) = pair().await;
    let (_parent, dir) = spill(&here.ledger, &SpillOptions::default());
    let sending = tokio::spawn(send_all(there.sender(stream(1)), 1, 300, PAYLOAD));
    let options = options(&dir);
    let mut receiver = here
        .node
        .receiver(there.origin(), stream(1), &options)
        .await
        .expect("a sender");
    let first = receiver.next().await.expect("a batch").expect("no error");
    assert_eq!(identity(&first), (1, 0));
    drop(first);
    // 15 MB under a budget of 1 MiB, and nobody takes them.
    assert!(sending.await.expect("no panic").is_ok());
    assert!(here.node.reserved().used(rpc_bus::ledger::Kind::Bytes) <= 1 << 20);
    let stats = receiver.stats();
    assert!(stats.bytes_spilled > 10 << 20, "{stats:?}");
    let (seen, end) = receive_all(&mut receiver).await;
    assert!(end.is_ok() && seen == expected(1, 300)[1..]);
    drop(receiver);
    dir.idle().await;
    assert_eq!(dir.disk_bytes(), 0);
    drop(dir);
    here.stop().await;
    there.stop().await;
}

fn small(disk_bytes_max: usize) -> SpillOptions {
    SpillOptions {
        disk_bytes_max,
        ..SpillOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_disk_is_spent_a_sender_waits_and_a_cancel_frees_the_disk() {
    const DISK_BYTES: usize = 4 << 20;
    let (there, here) = pair().await;
    let (_parent, dir) = spill(&here.ledger, &small(DISK_BYTES));
    let options = options(&dir);
    let sending = tokio::spawn(send_all(there.sender(stream(1)), 1, 300, PAYLOAD));
    let mut receiver = here
        .node
        .receiver(there.origin(), stream(1), &options)
        .await
        .expect("a sender");
    // Nobody takes anything: the disk is filled.
    while dir.disk_bytes() < DISK_BYTES - 2 * PAYLOAD {
        tokio::task::yield_now().await;
    }
    let (seen, end) = receive_all(&mut receiver).await;
    assert!(end.is_ok() && seen == expected(1, 300), "{end:?}");
    assert!(sending.await.expect("no panic").is_ok());

    let sending = tokio::spawn(send_all(there.sender(stream(2)), 2, i64::MAX, 1_000));
    let other = here
        .node
        .receiver(there.origin(), stream(2), &options)
        .await
        .expect("a sender");
    while other.stats().bytes_spilled == 0 {
        tokio::task::yield_now().await;
    }
    drop((receiver, other));
    assert!(sending.await.expect("no panic").is_err());
    dir.idle().await;
    assert!(dir.disk_bytes() == 0 && here.node.reserved().is_zero());
    drop((dir, options));
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_fills_the_disk_does_not_end_another() {
    const DISK_BYTES: usize = 4 << 20;
    let (there, here) = pair().await;
    let (_parent, dir) = spill(&here.ledger, &small(DISK_BYTES));
    let options = options(&dir);
    let of = |part1| StreamAddress::new(QueryId { part1, part2: 0 }, (1, 0), (0, 0));
    let open = |stream| here.node.receiver(there.origin(), stream, &options);
    let filling = tokio::spawn(send_all(there.sender(of(1)), 1, 300, PAYLOAD));
    let full = open(of(1)).await.expect("a sender");
    while dir.disk_bytes() < DISK_BYTES - 2 * PAYLOAD {
        tokio::task::yield_now().await;
    }
    let sending = tokio::spawn(send_all(there.sender(of(2)), 2, 300, PAYLOAD));
    let other = open(of(2)).await.expect("a sender");
    let (seen, end) = receive_all(other).await;
    assert!(end.is_ok() && seen == expected(2, 300), "{end:?}");
    assert!(sending.await.expect("no panic").is_ok());

    let (seen, end) = receive_all(full).await;
    assert!(end.is_ok() && seen == expected(1, 300), "{end:?}");
    assert!(filling.await.expect("no panic").is_ok());
    dir.idle().await;
    assert_eq!(dir.disk_bytes(), 0);
    drop((dir, options));
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_share_little_room_before_the_disk_all_end_though_nobody_takes_anything() {
    const STREAMS: i32 = 4;
    let (there, here) = pair().await;
    let limits = SpillOptions {
        // For one or two batches of all streams together.
        unwritten_bytes_max: 100_000,
        ..SpillOptions::default()
    };
    let (_parent, dir) = spill(&here.ledger, &limits);
    let options = options(&dir);
    let (mut sending, mut receivers) = (Vec::new(), Vec::new());
    for minor in 0..STREAMS {
        let sender = there.sender(stream(minor));
        sending.push(tokio::spawn(send_all(sender, minor.into(), 200, PAYLOAD)));
        let receiver = here.node.receiver(there.origin(), stream(minor), &options);
        receivers.push(receiver.await.expect("a sender"));
    }
    for sending in sending {
        let sent = sending.await.expect("no panic");
        assert!(sent.is_ok(), "{sent:?}");
    }
    for (minor, receiver) in (0..).zip(receivers) {
        let (seen, end) = receive_all(receiver).await;
        assert!(end.is_ok() && seen == expected(minor, 200), "{end:?}");
    }
    dir.idle().await;
    assert_eq!((dir.disk_bytes(), dir.unwritten_bytes()), (0, 0));
    drop((dir, options));
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_several_files_is_written_and_read_at_the_same_time() {
    const BATCHES: i64 = 1_200;
    let (there, here) = pair().await;
    let (_parent, dir) = spill(&here.ledger, &SpillOptions::default());
    let options = options(&dir);
    let sending = tokio::spawn(send_all(there.sender(stream(1)), 1, BATCHES, PAYLOAD));
    let mut receiver = here
        .node
        .receiver(there.origin(), stream(1), &options)
        .await
        .expect("a sender");
    let mut seen = Vec::new();
    while let Some(batch) = receiver.next().await {
        seen.push(identity(&batch.expect("no error")));
        // The consumer stays behind, so that the disk holds what is between both.
        let behind = 24 << 20;
        while dir.disk_bytes() < behind && !sending.is_finished() {
            tokio::task::yield_now().await;
        }
    }
    assert!(seen == expected(1, BATCHES) && sending.await.expect("no panic").is_ok());
    assert!(receiver.stats().bytes_spilled > 40 << 20);
    drop(receiver);
    dir.idle().await;
    assert_eq!(dir.disk_bytes(), 0);
    drop((dir, options));
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_a_sender_of_the_same_process_may_be_read_one_after_the_other() {
    const BATCHES: i64 = 300;
    let node = Node::start(NodeOptions::default()).await;
    let (_parent, dir) = spill(&node.ledger, &SpillOptions::default());
    let options = options(&dir);
    let mut senders = [1, 2].map(|minor| node.sender(stream(minor)));
    let sending = tokio::spawn(async move {
        for number in 0..BATCHES {
            for (sender, id) in senders.iter_mut().zip(1..) {
                sender.feed(batch(id, number, PAYLOAD)).await?;
            }
        }
        for sender in &mut senders {
            sender.close().await?;
        }
        Ok::<_, SendError>(())
    });
    let from = [1, 2].map(|minor| (Origin::Here, stream(minor)));
    let receivers = node.node.receivers(&from, &options).await;
    let receivers = receivers.expect("both are there").per_sender();
    for (mut receiver, id) in receivers.into_iter().zip(1..) {
        let (seen, end) = receive_all(&mut receiver).await;
        assert!(end.is_ok() && seen == expected(id, BATCHES), "{end:?}");
        assert!(id == 1 || receiver.stats().bytes_spilled > 10 << 20);
    }
    assert!(sending.await.expect("no panic").is_ok());
    dir.idle().await;
    assert_eq!(dir.disk_bytes(), 0);
    drop((dir, options));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_disk_is_spent_a_sender_of_the_same_process_waits_too() {
    const DISK_BYTES: usize = 4 << 20;
    let node = Node::start(NodeOptions::default()).await;
    let (_parent, dir) = spill(&node.ledger, &small(DISK_BYTES));
    let sending = tokio::spawn(send_all(node.sender(stream(1)), 1, 300, PAYLOAD));
    let options = options(&dir);
    let receiver = node.node.receiver(Origin::Here, stream(1), &options);
    let mut receiver = receiver.await.expect("a sender");
    while dir.disk_bytes() < DISK_BYTES - 2 * PAYLOAD {
        tokio::task::yield_now().await;
    }
    let (seen, end) = receive_all(&mut receiver).await;
    assert!(end.is_ok() && seen == expected(1, 300), "{end:?}");
    assert!(sending.await.expect("no panic").is_ok());
    drop(receiver);
    dir.idle().await;
    assert_eq!(dir.disk_bytes(), 0);
    drop((dir, options));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_for_the_disk_waits_in_memory_or_ends_the_stream_with_a_clear_error() {
    let (there, here) = pair().await;
    let (_parent, dir) = spill(&here.ledger, &small(PAYLOAD));
    let options = options(&dir);
    for (origin, sending) in [(there.origin(), &there), (Origin::Here, &here)] {
        let fits = tokio::spawn(send_all(sending.sender(stream(1)), 1, 300, PAYLOAD));
        let receiver = here.node.receiver(origin, stream(1), &options);
        let (seen, end) = receive_all(receiver.await.expect("a sender")).await;
        assert!(end.is_ok() && seen == expected(1, 300), "{end:?}");
        assert!(fits.await.expect("no panic").is_ok());

        let too_long = tokio::spawn(send_all(sending.sender(stream(2)), 1, 2, 2 << 20));
        let receiver = here.node.receiver(origin, stream(2), &options);
        let mut receiver = receiver.await.expect("a sender");
        let failed = too_long.await.expect("no panic");
        assert!(
            matches!(failed, Err(SendError::ReceiverFailed(_))),
            "{failed:?}"
        );
        let error = receiver.next().await;
        assert!(
            matches!(error, Some(Err(ReceiveError::Spill(_)))),
            "{error:?}"
        );
    }
    drop((dir, options));
    here.stop().await;
    there.stop().await;
}

/// A node on a host of its own.
async fn on_host(network: &SimulatedNetwork, last: u8) -> Node {
    let host = network.host(IpAddr::from([10, 0, 0, last]));
    let ledger = Ledger::root("node", Limits::default());
    let (at, runtime) = (SocketAddr::new(host.ip(), 1), BusRuntime::simulated(&host));
    let node = DataNode::bind(at, runtime, NodeOptions::default(), ledger.clone()).await;
    let node = node.expect("nobody else listens there");
    Node { node, ledger }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_spills_while_others_are_opened_takes_no_room_of_theirs() {
    let network = SimulatedNetwork::new(1);
    let (there, here) = (on_host(&network, 1).await, on_host(&network, 2).await);
    let (_parent, dir) = spill(&here.ledger, &SpillOptions::default());
    let options = ReceiveOptions {
        budget_bytes: ReceiveOptions::budget_bytes_min(2),
        ..options(&dir)
    };
    let all = [
        send_all(here.sender(stream(1)), 1, 50, PAYLOAD),
        send_all(there.sender(stream(2)), 2, 50, PAYLOAD),
    ];
    let from = [(Origin::Here, stream(1)), (there.origin(), stream(2))];
    let receiving = async {
        // By the time that a connection is made, the sender of this process has long begun.
        let receivers = here.node.receivers(&from, &options).await;
        receive_all(receivers.expect("there is room for both").unordered()).await
    };
    let (sent, (seen, end)) = tokio::join!(join_all(all), receiving);
    assert!(sent.iter().all(Result::is_ok) && end.is_ok());
    assert_eq!(seen.len(), 100);
    dir.idle().await;
    drop((dir, options));
    here.stop().await;
    there.stop().await;
}
