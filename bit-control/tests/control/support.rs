//! Nodes, and what a test wants to look at.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bit_control::{ControlNode, ControlOptions, Services};
use membership::NodeAddress;
use protos::{
    calls::control::Handshake,
    control::BitControlHandshake,
    coord::DrillbitEndpoint,
    id::{FragmentId, QueryId},
};
use rpc_bus::{BusRuntime, Features, Ledger, ledger::Limits};

use crate::peer::Peer;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const QUERY: QueryId = QueryId { part1: 1, part2: 2 };

pub(crate) fn runtime() -> BusRuntime {
    let cpu = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    BusRuntime::current(Arc::new(cpu.unwrap()))
}

pub(crate) fn ledger() -> Ledger {
    Ledger::root("test", Limits::default())
}

pub(crate) fn fragment(major: i32, minor: i32) -> FragmentId {
    FragmentId::new(QUERY, major, minor)
}

/// An endpoint on this machine; the control port is left to the system if it is 0.
pub(crate) fn endpoint(control_port: u16) -> DrillbitEndpoint {
    DrillbitEndpoint {
        address: Some("127.0.0.1".to_owned()),
        user_port: Some(1),
        control_port: Some(i32::from(control_port)),
        data_port: Some(3),
        ..DrillbitEndpoint::default()
    }
}

/// A node with a ledger of its own.
pub(crate) struct Node {
    pub(crate) control: ControlNode,
    pub(crate) ledger: Ledger,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(Services::default()).await
    }

    /// One that offers nothing of our own, as a Drillbit.
    pub(crate) async fn plain() -> Self {
        let options = ControlOptions {
            features: Features::default(),
            ..ControlOptions::default()
        };
        Self::with_options(options, Services::default()).await
    }

    pub(crate) async fn with(services: Services) -> Self {
        Self::with_options(ControlOptions::default(), services).await
    }

    pub(crate) async fn with_options(options: ControlOptions, services: Services) -> Self {
        Self::at(0, options, services).await
    }

    /// Known to others by `advertised`, a port in front of it, if that is not 0.
    pub(crate) async fn at(advertised: u16, options: ControlOptions, services: Services) -> Self {
        Self::known_as(endpoint(advertised), options, services).await
    }

    pub(crate) async fn known_as(
        endpoint: DrillbitEndpoint,
        options: ControlOptions,
        services: Services,
    ) -> Self {
        Self::whole(ledger(), endpoint, options, services).await
    }

    /// With a ledger that others charge, too.
    pub(crate) async fn charging(
        ledger: Ledger,
        options: ControlOptions,
        services: Services,
    ) -> Self {
        Self::whole(ledger, endpoint(0), options, services).await
    }

    async fn whole(
        ledger: Ledger,
        endpoint: DrillbitEndpoint,
        options: ControlOptions,
        services: Services,
    ) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let node =
            ControlNode::bind(any, endpoint, runtime(), options, services, ledger.clone()).await;
        Self {
            control: node.unwrap(),
            ledger,
        }
    }

    pub(crate) fn address(&self) -> &NodeAddress {
        self.control.address()
    }

    /// A peer behind its handshake, which says that its control server listens on `port`.
    pub(crate) async fn peer(&self, port: u16) -> Peer {
        let mut peer = Peer::connect(self.control.local_addr()).await;
        let hello = BitControlHandshake {
            rpc_version: Some(3),
            endpoint: Some(endpoint(port)),
            ..BitControlHandshake::default()
        };
        peer.request::<Handshake>(1, &hello).await;
        let reply = peer.frame().await.reply::<Handshake>();
        assert_eq!(reply.rpc_version, Some(3));
        peer
    }

    /// Ends the node; nothing may be left of it.
    pub(crate) async fn stop(self) {
        self.control.shutdown(PATIENCE).await;
        let ledger = self.ledger.clone();
        drop(self);
        settled(&ledger).await;
    }
}

/// Waits until nothing is charged any more.
pub(crate) async fn settled(ledger: &Ledger) {
    until(&format!("{ledger:?} is zero"), || ledger.is_zero()).await;
}

/// Waits for something that other tasks bring about.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"));
}
