//! Senders and receivers that come and go at the same time, each step made by hand.

use std::net::SocketAddr;

use protos::{data::close_stream, id::QueryId};
use rpc_bus::{BusRuntime, CallError, ledger::Limits};

use super::*;
use crate::stream::{
    checksum::sealed,
    credit::{STARVED_MIN_HERE, WindowSizes},
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

type Answer = oneshot::Receiver<Result<Arc<Outbound>, RpcFailure>>;

fn local_opener() -> (Opener, Arc<Inbound>, Answer) {
    let sizes = WindowSizes {
        starved_min: STARVED_MIN_HERE,
        ..window_sizes(64 << 10, 64 << 10)
    };
    let terms = Terms {
        has_checksums: false,
        batch_bytes_max: 1 << 20,
    };
    let ledger = Ledger::root("test", Limits::default());
    let inbound = Arc::new(Inbound::try_new(sizes, terms, &ledger).expect("there is room"));
    let (tell, answer) = oneshot::channel();
    let opener = Opener::Local {
        inbound: Arc::clone(&inbound),
        opened: tell,
    };
    (opener, inbound, answer)
}

impl Registry {
    /// Takes who is listed off the list, as the first half of a step does.
    fn take(&self) -> Slot {
        let mut slots = lock(&self.slots);
        let slot = slots.by_address.remove(&address()).expect("it is listed");
        slots.waiting -= usize::from(matches!(slot, Slot::Opener { .. }));
        slot
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
        assert!(matches!(registry.take(), Slot::Sender(_)));
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
        if let Err(failure) = told {
            assert_eq!(failure.retry(), Retry::SameNode);
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
        assert!(matches!(registry.take(), Slot::Sender(_)));
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
    assert!(matches!(registry.take(), Slot::Sender(_)));
    registry.open(address(), second);
    drop(gone);
    registry.connect(address(), first, &outbound);
    let got = answer.try_recv().expect("an answer").expect("a sender");
    assert!(Arc::ptr_eq(&got, &outbound));
    assert_eq!(registry.waiting(), (0, 0));
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
        let Slot::Opener { opener, .. } = registry.take() else {
            panic!("a receiver waits");
        };
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
