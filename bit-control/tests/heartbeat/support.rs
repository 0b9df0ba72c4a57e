//! Nodes that beat each other, fast.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bit_control::{
    ControlNode, ControlOptions, Services,
    heartbeat::{BeatAnswerer, BeatOptions, Health, Heartbeats, NodeHealth},
};
use membership::{Member, NodeAddress, Registry, RegistryOptions};
use protos::coord::DrillbitEndpoint;
use rpc_bus::{BusRuntime, Feature, Features, Ledger, ledger::Limits, task::Tasks};
use tokio::runtime::Handle;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

static INCARNATIONS: AtomicU64 = AtomicU64::new(1);

pub(crate) struct Start {
    pub(crate) listen: SocketAddr,
    pub(crate) features: Features,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 0).into(),
            features: Features::of_any_plane().with(Feature::Beats),
        }
    }
}

pub(crate) struct Node {
    pub(crate) control: ControlNode,
    pub(crate) registry: Registry,
    pub(crate) beats: Heartbeats,
    tasks: Tasks,
    ledger: Ledger,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(Start::default()).await
    }

    pub(crate) async fn with(start: Start) -> Self {
        let ledger = Ledger::root("test", Limits::default());
        let incarnation = INCARNATIONS.fetch_add(1, Ordering::Relaxed);
        let answerer = BeatAnswerer::default();
        let services = Services {
            extensions: vec![Arc::new(answerer.clone())],
            ..Services::default()
        };
        let options = ControlOptions {
            incarnation: Some(incarnation),
            features: start.features,
            ..ControlOptions::default()
        };
        let cpu = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let runtime = BusRuntime::current(Arc::new(cpu.unwrap()));
        let endpoint = DrillbitEndpoint {
            address: Some("127.0.0.1".to_owned()),
            user_port: Some(1),
            data_port: Some(3),
            version: Some("0.1.0".to_owned()),
            ..DrillbitEndpoint::default()
        };
        let control = ControlNode::bind(
            start.listen,
            endpoint,
            runtime,
            options,
            services,
            ledger.clone(),
        );
        let control = control.await.unwrap();
        let local = Member {
            incarnation: Some(incarnation),
            ..Member::of(control.endpoint().into()).unwrap()
        };
        let registry = Registry::of_node(local, RegistryOptions::default());
        let beats = Heartbeats::new(registry.clone(), fast()).unwrap();
        answerer.serve(&beats);
        let tasks = Tasks::default();
        let (run, links) = (beats.clone(), Arc::new(control.clone()));
        let task = async move { run.run(links).await };
        tasks.spawn(&Handle::current(), &ledger, task).unwrap();
        Self {
            control,
            registry,
            beats,
            tasks,
            ledger,
        }
    }

    pub(crate) fn address(&self) -> &NodeAddress {
        self.control.address()
    }

    pub(crate) fn knows(&self, other: &Self) {
        self.knows_at(other.address());
    }

    pub(crate) fn knows_at(&self, address: &NodeAddress) {
        self.registry.join(Member::at(address.clone())).unwrap();
    }

    pub(crate) fn seen(&self, other: &Self) -> NodeHealth {
        let nodes = self.beats.nodes().into_iter();
        let mut of_it = nodes.filter(|node| &node.address == other.address());
        of_it.next().unwrap()
    }

    pub(crate) async fn until_health(&self, other: &Self, health: Health) {
        let what = format!("{} is {}", other.address(), health.name());
        until(&what, || self.beats.health(other.address()) == Some(health)).await;
    }

    /// It answers beats, but sends none.
    pub(crate) async fn stop_beating(&self) {
        self.tasks.abort();
        self.tasks.join(PATIENCE).await;
    }

    /// Ends the node; nothing may be left of it.
    pub(crate) async fn stop(self) {
        self.stop_beating().await;
        self.control.shutdown(PATIENCE).await;
        let ledger = self.ledger.clone();
        drop(self);
        until(&format!("{ledger:?} is zero"), || ledger.is_zero()).await;
    }
}

fn fast() -> BeatOptions {
    BeatOptions {
        interval: Duration::from_millis(50),
        down_grace: Duration::from_millis(200),
        ..BeatOptions::default()
    }
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
