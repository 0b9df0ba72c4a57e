//! A node of the control plane, with what the cases ask of it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use bit_control::heartbeat::{BeatAnswerer, BeatOptions, Heartbeats};
use bit_control::{ControlNode, ControlOptions, CustomReply, Services};
use bytes::Bytes;
use membership::{Member, NodeAddress, Registry, RegistryOptions};
use protos::coord::DrillbitEndpoint;
use rpc_bus::ledger::Limits;
use rpc_bus::{BusRuntime, Feature, Ledger};
use tokio::task::JoinHandle;

/// Custom messages of this number come back as they are.
pub(super) const ECHO: i32 = 1;

/// A node that answers beats, and echoes.
pub(super) struct Node {
    pub(super) control: ControlNode,
    pub(super) registry: Registry,
    pub(super) beats: Heartbeats,
}

impl Node {
    /// Starts it on these threads.
    pub(super) async fn start(bus: &BusRuntime) -> Result<Self> {
        let answerer = BeatAnswerer::default();
        let services = Services {
            extensions: vec![Arc::new(answerer.clone())],
            ..Services::default()
        };
        services.custom.register(ECHO, echo)?;
        // Any: it is not started a second time.
        let incarnation = Some(u64::from(std::process::id()));
        let mut options = ControlOptions {
            incarnation,
            ..ControlOptions::default()
        };
        options.features = options.features.with(Feature::Beats);
        let (any, ledger) = (SocketAddr::from(([127, 0, 0, 1], 0)), ledger());
        let control =
            ControlNode::bind(any, endpoint(), bus.clone(), options, services, ledger).await?;
        let local = Member {
            incarnation,
            software_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            engine_version: Some("DataFusion 55.2.0".to_owned()),
            ..Member::of(control.endpoint().into())?
        };
        let registry = Registry::of_node(local, RegistryOptions::default());
        let beats = Heartbeats::new(registry.clone(), BeatOptions::default())?;
        answerer.serve(&beats);
        Ok(Self {
            control,
            registry,
            beats,
        })
    }

    /// Beats the nodes of the registry from now on.
    pub(super) fn beat(&self, bus: &BusRuntime) -> JoinHandle<()> {
        let (beats, links) = (self.beats.clone(), Arc::new(self.control.clone()));
        // As in the program: no thread wakes another one for a beat.
        bus.next_io().spawn(async move { beats.run(links).await })
    }
}

fn echo(_: &NodeAddress, message: Bytes, _: Bytes, reply: CustomReply) {
    reply.send(message, Vec::new());
}

/// What a node says of itself, but for its control port.
pub(super) fn endpoint() -> DrillbitEndpoint {
    DrillbitEndpoint {
        address: Some("127.0.0.1".to_owned()),
        user_port: Some(31010),
        data_port: Some(31012),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        ..DrillbitEndpoint::default()
    }
}

/// Without limits.
pub(super) fn ledger() -> Ledger {
    Ledger::root("benches", Limits::default())
}
