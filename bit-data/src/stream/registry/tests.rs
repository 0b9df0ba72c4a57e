//! Senders and receivers that come and go at the same time, each step made by hand.

use std::net::SocketAddr;

use protos::{data::close_stream, error::Retry, id::QueryId};
use rpc_bus::{BusRuntime, CallError, ledger::Limits};

use super::*;
use crate::stream::{
    checksum::sealed,
    credit::{STARVED_MIN_HERE, WindowSizes},
    frame::Codecs,
    intake::Terms,
    node::{DataNode, NodeOptions, Origin},
    options::{ReceiveOptions, window_sizes},
    receiver_side::close,
};

fn address() -> StreamAddress {
    StreamAddress::new(QueryId { part1: 1, part2: 2 }, (1, 0), (0, 0))
}

fn registry() -> Arc<Registry> {
    let patience = Patience {
        wait: Duration::from_secs(10),
        waiting_max: 2,
        waiting_per_connection_max: 2,
    };
    let ledger = Ledger::root("test", Limits::default());
    Registry::new(patience, Handle::current(), ledger)
}

type Answer = oneshot::Receiver<Result<Arc<Outbound>, Refusal>>;

fn local_opener() -> (Opener, Arc<Inbound>, Answer) {
    let sizes = WindowSizes {
        starved_min: STARVED_MIN_HERE,
        ..window_sizes(64 << 10, 64 << 10)
    };
    let terms = Terms {
        has_checksums: false,
        batch_bytes_max: 1 << 20,
        codecs: Codecs::default(),
    };
    let ledger = Ledger::root("test", Limits::default());
    let reserved = sizes.reserve(&ledger).expect("there is room");
    let inbound = Arc::new(Inbound::new(sizes, terms, reserved));
    let (tell, answer) = oneshot::channel();
    let opener = Opener::Local {
        inbound: Arc::clone(&inbound),
        opened: tell,
    };
    (opener, inbound, answer)
}

impl Registry {
    /// Takes the free sender, as the first half of a step does.
    fn take_sender(&self) {
        let mut slots = lock(&self.slots);
        let listed = slots.senders.get_mut(&address()).expect("it is listed");
        assert!(!std::mem::replace(&mut listed.is_taken, true));
    }

    /// The same of the receiver that waits.
    fn take_receiver(&self) -> Opener {
        let waiting = lock(&self.slots).waiting.remove(&address());
        waiting.expect("it waits").opener
    }

    /// A sender goes.
    fn end(&self, outbound: &Arc<Outbound>) -> Option<Route> {
        let (route, _) = outbound.end();
        self.unregister(address(), outbound);
        route
    }
}

#[tokio::test]
async fn a_receiver_whose_sender_goes_while_they_are_brought_together_is_told_by_one_of_them() {
    let registry = registry();
    for sender_is_first in [true, false] {
        let outbound = registry.register(address()).expect("the only one");
        let (opener, _inbound, mut answer) = local_opener();
        registry.take_sender();
        let found = if sender_is_first {
            let route = registry.end(&outbound);
            registry.connect(address(), opener, &outbound);
            route
        } else {
            registry.connect(address(), opener, &outbound);
            registry.end(&outbound)
        };
        let told = answer.try_recv().expect("an answer");
        assert_eq!(told.is_err(), sender_is_first, "by the registry");
        assert_eq!(found.is_some(), !sender_is_first, "by the sender");
        if let Err(refusal) = told {
            assert_eq!(refusal.into_error(address()).retry(), Retry::SameNode);
        }
        assert_eq!(registry.waiting(), (0, 0));
    }
}

#[tokio::test]
async fn a_sender_whose_receiver_has_gone_is_listed_again_unless_it_has_gone_too() {
    let registry = registry();
    for sender_goes in [true, false] {
        let outbound = registry.register(address()).expect("the only one");
        let (opener, _inbound, answer) = local_opener();
        registry.take_sender();
        drop(answer);
        if sender_goes {
            registry.end(&outbound);
        }
        registry.connect(address(), opener, &outbound);
        let listed = usize::from(!sender_goes);
        assert_eq!(registry.waiting(), (listed, 0));
        registry.end(&outbound);
        assert_eq!(registry.waiting(), (0, 0));
    }
}

#[tokio::test]
async fn a_sender_whose_receiver_has_gone_gets_the_one_that_has_come_meanwhile() {
    let registry = registry();
    let outbound = registry.register(address()).expect("the only one");
    let (first, _, gone) = local_opener();
    let (second, _inbound, mut answer) = local_opener();
    registry.take_sender();
    registry.open(address(), second);
    drop(gone);
    registry.connect(address(), first, &outbound);
    let got = answer.try_recv().expect("an answer").expect("a sender");
    assert!(Arc::ptr_eq(&got, &outbound));
    assert_eq!(registry.waiting(), (0, 0));
}

#[tokio::test]
async fn the_place_of_a_sender_is_taken_until_it_has_stopped() {
    let registry = registry();
    let expect_taken = || {
        let second = registry.register(address());
        assert!(matches!(second, Err(OpenError::Duplicate(_))));
    };
    let (opener, _inbound, mut answer) = local_opener();
    let outbound = registry.register(address()).expect("the first");
    expect_taken();
    registry.take_sender();
    expect_taken();
    registry.connect(address(), opener, &outbound);
    assert!(answer.try_recv().expect("an answer").is_ok());
    expect_taken();
    // It ends, and is dropped some time later.
    outbound.stop(SendError::Ended);
    let next = registry.register(address()).expect("the only one");
    registry.end(&outbound);
    assert_eq!(registry.waiting(), (1, 0), "the next one");
    registry.end(&next);
    assert!(lock(&registry.slots).senders.is_empty());
}

/// What the consumer of a stream that has failed is told.
fn failure_of(inbound: &Inbound) -> Option<ReceiveError> {
    match inbound.poll_take(&mut std::task::Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(Some(Err(error))) => Some(error),
        _ => None,
    }
}

#[tokio::test]
async fn closing_ends_who_streams_who_waits_and_who_is_being_brought_together() {
    for step in 0..5 {
        let registry = registry();
        let (opener, inbound, mut answer) = local_opener();
        let outbound = match step {
            // A sender waits.
            0 => registry.register(address()).expect("the first"),
            // A receiver does.
            1 => {
                registry.open(address(), opener);
                registry.close();
                let refused = answer
                    .try_recv()
                    .expect("an answer")
                    .expect_err("no sender");
                assert!(matches!(refused, Refusal::ShuttingDown));
                continue;
            }
            // Both are here.
            2 => {
                registry.open(address(), opener);
                registry.register(address()).expect("the first")
            }
            // They are being brought together: the rest of it is done before, or behind.
            step => {
                let outbound = registry.register(address()).expect("the first");
                registry.take_sender();
                if step == 3 {
                    registry.connect(address(), opener, &outbound);
                    registry.close();
                } else {
                    registry.close();
                    registry.connect(address(), opener, &outbound);
                }
                outbound
            }
        };
        registry.close();
        let stopped = outbound.stopped().expect("the node goes");
        assert!(matches!(stopped, SendError::ShuttingDown));
        if let 2 | 3 = step {
            let failed = failure_of(&inbound).expect("the node goes");
            assert!(matches!(failed, ReceiveError::ShuttingDown));
        }
        if step == 4 {
            let told = answer.try_recv().expect("an answer");
            assert!(matches!(told, Err(Refusal::SenderGone)));
        }
        registry.end(&outbound);
        assert!(lock(&registry.slots).senders.is_empty());
    }
}

#[tokio::test]
async fn nobody_is_let_in_when_the_node_goes() {
    let registry = registry();
    registry.close();
    let sender = registry.register(address());
    assert!(matches!(sender, Err(OpenError::ShuttingDown)));
    let (opener, _inbound, mut answer) = local_opener();
    registry.open(address(), opener);
    let refused = answer.try_recv().expect("an answer");
    assert!(matches!(refused, Err(Refusal::ShuttingDown)));
    assert_eq!(registry.waiting(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_of_this_node_is_told_how_long_its_sender_was_waited_for() {
    let [node, other] = nodes().await;
    for (open_timeout, expected) in [(15, 10), (3, 3)] {
        let options = ReceiveOptions {
            open_timeout: Duration::from_secs(open_timeout),
            ..ReceiveOptions::default()
        };
        let opened = node.receiver(Origin::Here, address(), &options).await;
        match opened.expect_err("nobody sends") {
            OpenError::NoSender { waited, .. } => {
                assert_eq!(waited, Duration::from_secs(expected));
            }
            error => panic!("{error}"),
        }
    }
    for node in [node, other] {
        node.shutdown(Duration::from_secs(5)).await;
    }
}

/// Two nodes that serve no requests but those of streams.
async fn nodes() -> [DataNode; 2] {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let runtime = BusRuntime::current(Arc::new(pool.expect("a pool")));
    let bind = || {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let ledger = Ledger::root("node", Limits::default());
        DataNode::bind(any, runtime.clone(), NodeOptions::default(), ledger)
    };
    [bind().await.expect("a port"), bind().await.expect("a port")]
}

#[tokio::test]
async fn a_receiver_of_another_node_whose_sender_goes_while_they_are_brought_together_is_refused() {
    let [there, here] = nodes().await;
    let registry = there.registry();
    let (origin, options) = (Origin::Node(there.local_addr()), ReceiveOptions::default());
    let meeting = async {
        while registry.waiting() != (0, 1) {
            tokio::task::yield_now().await;
        }
        let opener = registry.take_receiver();
        let outbound = Arc::<Outbound>::default();
        assert!(registry.end(&outbound).is_none());
        registry.connect(address(), opener, &outbound);
    };
    let (refused, ()) = tokio::join!(here.receiver(origin, address(), &options), meeting);
    let refused = refused.expect_err("the sender has gone");
    assert!(
        matches!(refused, OpenError::Call(CallError::Remote(_))),
        "{refused}"
    );
    assert_eq!(refused.retry(), Retry::SameNode);
    for node in [here, there] {
        node.shutdown(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_closed_before_it_is_opened_is_refused() {
    let [there, here] = nodes().await;
    let (peers, address_there) = (here.peers(), there.local_addr());
    let connected = peers.connect(address_there, "127.0.0.1").await;
    connected.expect("it listens");
    let connection = peers.connections(address_there).remove(0);
    let open = |stream| {
        let request = sealed(data::OpenStream {
            stream: Some(stream),
            limit_bytes: Some(1 << 20),
            ..address().to_wire()
        });
        let connection = connection.clone();
        async move {
            let options = rpc_bus::CallOptions::default();
            connection
                .call::<OpenCall>(&request, Vec::new(), options)
                .await
        }
    };
    close(&connection, 2, close_stream::Kind::Cancelled, None);
    connection.ping().await.expect("it lives");
    let refused = open(2).await.expect_err("it is closed");
    assert!(refused.to_string().contains("closed before"), "{refused}");
    let outbound = there.registry().register(address()).expect("the first");
    open(3).await.expect("another stream");
    close(&connection, 3, close_stream::Kind::Finished, None);
    let stopped = wait_for_stop(&outbound).await;
    assert!(stopped.is_finished(), "{stopped}");
    for node in [here, there] {
        node.shutdown(Duration::from_secs(5)).await;
    }
}

async fn wait_for_stop(outbound: &Outbound) -> SendError {
    loop {
        if let Some(reason) = outbound.stopped() {
            return reason;
        }
        tokio::task::yield_now().await;
    }
}
