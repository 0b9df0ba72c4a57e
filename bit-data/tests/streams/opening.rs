//! Receivers that give up while they open their stream, and what is left of them: nothing.

use std::pin::Pin;

use bit_data::{
    NodeOptions, OpenError, Origin, ReceiveOptions, SendError, StreamAddress, StreamReceiver,
};
use futures::future::poll_immediate;
use protos::{error::Retry, id::QueryId};
use rpc_bus::CallError;

use crate::support::{Node, expected, pair, receive_all, send_all, stream};

type Opened = Result<StreamReceiver, OpenError>;

/// Polls a receiver that opens its stream until something is so.
async fn open_until(
    mut opening: Pin<&mut impl Future<Output = Opened>>,
    mut is_so: impl FnMut() -> bool,
) {
    while !is_so() {
        let opened = poll_immediate(opening.as_mut()).await;
        assert!(opened.is_none(), "{opened:?}");
        tokio::task::yield_now().await;
    }
}

async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

/// The node whose receiver it is, and where the sender is for it.
fn receiving<'a>(there: &'a Node, here: &'a Node, is_local: bool) -> (&'a Node, Origin) {
    if is_local {
        (there, Origin::Here)
    } else {
        (here, there.origin())
    }
}

#[tokio::test]
async fn a_receiver_that_gives_up_when_batches_have_come_already_cancels_its_sender() {
    for is_local in [true, false] {
        let (there, here) = pair().await;
        let (node, from) = receiving(&there, &here, is_local);
        let options = ReceiveOptions::default();
        {
            let mut opening = Box::pin(node.node.receiver(from, stream(1), &options));
            open_until(opening.as_mut(), || there.node.waiting() == (0, 1)).await;
            // It is opened, and the sender uses all of its credit, but nobody looks after the receiver any more.
            let mut sending = Box::pin(send_all(there.sender(stream(1)), 1, i64::MAX, 50_000));
            let line = here.node.peers().connections(there.node.local_addr());
            loop {
                assert!(poll_immediate(&mut sending).await.is_none());
                if line
                    .iter()
                    .all(|line| line.stats().bytes_received > 1 << 20)
                {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(opening);
            let error = sending.await.expect_err("nobody wants it");
            assert!(matches!(error, SendError::ReceiverCancelled), "{error}");
        }
        assert!(node.node.reserved().is_zero());
        here.stop().await;
        there.stop().await;
    }
}

#[tokio::test]
async fn a_receiver_that_gives_up_waiting_leaves_its_place_to_the_next() {
    let (there, here) = pair().await;
    for is_local in [true, false] {
        let (node, from) = receiving(&there, &here, is_local);
        let options = ReceiveOptions::default();
        for _ in 0..3 {
            let mut opening = Box::pin(node.node.receiver(from, stream(1), &options));
            open_until(opening.as_mut(), || there.node.waiting() == (0, 1)).await;
            drop(opening);
            until(|| there.node.waiting() == (0, 0)).await;
        }
        let sender = there.sender(stream(1));
        let (receiver, sent) = tokio::join!(
            node.receiver(from, stream(1)),
            tokio::spawn(send_all(sender, 1, 3, 10))
        );
        let (seen, end) = receive_all(receiver).await;
        assert!(end.is_ok() && sent.expect("no panic").is_ok());
        assert_eq!(seen, expected(1, 3));
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_receiver_does_not_wait_longer_than_its_connection_lives() {
    let (there, here) = pair().await;
    let options = ReceiveOptions::default();
    {
        let from = there.origin();
        let mut opening = Box::pin(here.node.receiver(from, stream(1), &options));
        open_until(opening.as_mut(), || there.node.waiting() == (0, 1)).await;
        here.node.peers().disconnect(there.node.local_addr());
        let lost = opening.await.expect_err("the connection is lost");
        assert!(
            matches!(lost, OpenError::Call(CallError::Lost(_))),
            "{lost}"
        );
        until(|| there.node.waiting() == (0, 0)).await;
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn receivers_of_one_connection_do_not_take_all_places_to_wait() {
    let there = Node::start(NodeOptions {
        waiting_receivers_per_connection_max: 2,
        ..NodeOptions::default()
    })
    .await;
    let greedy = Node::start(NodeOptions::default()).await;
    let modest = Node::start(NodeOptions::default()).await;
    let from = there.origin();
    let open = async |node: &Node, minor| {
        let options = ReceiveOptions::default();
        node.node.receiver(from, stream(minor), &options).await
    };
    {
        let mut waiting = [Box::pin(open(&greedy, 1)), Box::pin(open(&greedy, 2))];
        for (opening, already) in waiting.iter_mut().zip(1..) {
            open_until(opening.as_mut(), || there.node.waiting() == (0, already)).await;
        }
        let refused = open(&greedy, 3).await.expect_err("two wait already");
        assert_eq!(refused.retry(), Retry::SameNode);
        assert!(refused.to_string().contains("2 receivers"), "{refused}");
        let mut other = Box::pin(open(&modest, 3));
        open_until(other.as_mut(), || there.node.waiting() == (0, 3)).await;
    }
    until(|| there.node.waiting() == (0, 0)).await;
    for node in [greedy, modest, there] {
        node.stop().await;
    }
}

#[tokio::test]
async fn streams_of_two_queries_are_no_receiver() {
    let node = Node::start(NodeOptions::default()).await;
    let ours = stream(1);
    let foreign = StreamAddress {
        query: QueryId { part1: 7, part2: 7 },
        ..stream(2)
    };
    let senders = [ours, foreign].map(|stream| (Origin::Here, stream));
    let options = ReceiveOptions::default();
    let refused = node.node.receivers(&senders, &options).await;
    match refused.expect_err("one is foreign") {
        error @ OpenError::OtherQuery { address, expected } => {
            assert_eq!((address, expected), (foreign, ours.query));
            assert_eq!(error.retry(), Retry::Never);
        }
        error => panic!("{error}"),
    }
    assert!(node.node.receivers(&[], &options).await.is_ok());
    node.stop().await;
}

#[tokio::test]
async fn all_receivers_of_a_wide_query_may_come_before_their_senders() {
    const FRAGMENTS: i32 = 40;
    let (there, here) = pair().await;
    let options = ReceiveOptions {
        budget_bytes: ReceiveOptions::budget_bytes_min(40),
        ..ReceiveOptions::default()
    };
    let streams: Vec<Vec<_>> = (0..FRAGMENTS)
        .map(|to| {
            (0..FRAGMENTS)
                .map(|from| stream(from).with_driver(to))
                .collect()
        })
        .collect();
    let opening = streams.iter().map(|of_one| {
        let from = of_one.iter().map(|&stream| (there.origin(), stream));
        let from: Vec<_> = from.collect();
        let (here, options) = (&here, &options);
        async move { here.node.receivers(&from, options).await }
    });
    let coming = async {
        let all = streams.iter().flatten();
        until(|| there.node.waiting() == (0, all.clone().count())).await;
        all.map(|&stream| there.sender(stream)).collect::<Vec<_>>()
    };
    let (opened, senders) = tokio::join!(futures::future::join_all(opening), coming);
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    drop((opened, senders));
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn receivers_of_many_threads_open_their_streams_at_the_same_time() {
    const STREAMS: i32 = 200;
    for _ in 0..10 {
        let (there, here) = pair().await;
        let here = std::sync::Arc::new(here);
        let senders: Vec<_> = (0..STREAMS)
            .map(|minor| there.sender(stream(minor)))
            .collect();
        let opening = (0..STREAMS).map(|minor| {
            let (here, from) = (std::sync::Arc::clone(&here), there.origin());
            tokio::spawn(async move {
                let options = ReceiveOptions {
                    window_bytes: 64 << 10,
                    ..ReceiveOptions::default()
                };
                here.node.receiver(from, stream(minor), &options).await
            })
        });
        for opened in futures::future::join_all(opening).await {
            let opened = opened.expect("no panic");
            assert!(opened.is_ok(), "{opened:?}");
        }
        drop(senders);
        let here = std::sync::Arc::into_inner(here).expect("nobody else has it");
        here.stop().await;
        there.stop().await;
    }
}
