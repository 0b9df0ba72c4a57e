//! Members from a real ZooKeeper: what we write there is found by Drill's own driver, and what a real Drillbit writes
//! is found by us.

use std::sync::Arc;
use std::time::Duration;

use bit_control::heartbeat::{BeatOptions, Health, Heartbeats};
use bit_control::{ControlNode, ControlOptions, Services};
use membership::{
    Event, Member, NodeState, Provider, Registry, RegistryOptions, Watch, ZooKeeperOptions,
    ZooKeeperProvider,
};
use protos::coord::DrillbitEndpoint;
use rpc_bus::ledger::{Ledger, Limits};
use tests::interop::{Memory, RealDrillbit, ZooKeeper, available};
use tests::node::Node;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::nodes::{NODE, bus, eventually_zero, node, within};

/// No step takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

fn zookeeper() -> Option<ZooKeeper> {
    available("a ZooKeeper", block_in_place(ZooKeeper::start))
}

/// A provider that runs.
struct Running {
    registry: Registry,
    watch: Watch,
    provider: Arc<ZooKeeperProvider>,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Running {
    fn observer(cluster: &str) -> Self {
        let registry = Registry::of_observer(RegistryOptions::default());
        Self::start(
            registry,
            ZooKeeperOptions::observer(cluster.parse().unwrap()),
        )
    }

    /// The node that all tests share, as one that is somewhere on the control plane.
    fn registered(cluster: &str, control_port: i32) -> Self {
        let endpoint = DrillbitEndpoint {
            address: Some("127.0.0.1".to_owned()),
            user_port: Some(node().user().port().into()),
            control_port: Some(control_port),
            version: Some("0.1.0".to_owned()),
            state: Some(NodeState::Online.into()),
            ..DrillbitEndpoint::default()
        };
        let local = Member::of(endpoint.into()).unwrap();
        let registry = Registry::of_node(local, RegistryOptions::default());
        Self::start(
            registry,
            ZooKeeperOptions::registered(cluster.parse().unwrap()),
        )
    }

    fn start(registry: Registry, options: ZooKeeperOptions) -> Self {
        let provider = Arc::new(ZooKeeperProvider::new(options));
        let stop = CancellationToken::new();
        let (_, watch) = registry.watch();
        let mut task = JoinSet::new();
        let (runs, in_registry, until) = (Arc::clone(&provider), registry.clone(), stop.clone());
        task.spawn(async move { runs.run(&in_registry, &until).await.unwrap() });
        Self {
            registry,
            watch,
            provider,
            stop,
            task,
        }
    }

    /// The next event; all of them are of the one other member.
    async fn next(&mut self) -> Event {
        timeout(PATIENCE, self.watch.next()).await.unwrap()
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let ended = timeout(PATIENCE, self.task.join_next()).await;
        ended.unwrap().unwrap().unwrap();
        let stats = self.provider.stats();
        assert!(!stats.is_connected && !stats.is_registered, "{stats:?}");
    }
}

/// A node that watches over all members of a registry.
struct Watched {
    beats: Heartbeats,
    control: ControlNode,
    task: JoinSet<()>,
    ledger: Ledger,
}

impl Watched {
    async fn start(registry: &Registry) -> Self {
        let ledger = Ledger::root("test", Limits::default());
        let any = ([127, 0, 0, 1], 0).into();
        let endpoint = DrillbitEndpoint {
            address: Some("127.0.0.1".to_owned()),
            ..DrillbitEndpoint::default()
        };
        let (options, services) = (ControlOptions::default(), Services::default());
        let control = ControlNode::bind(any, endpoint, bus(), options, services, ledger.clone());
        let control = control.await.unwrap();
        let beats = Heartbeats::new(registry.clone(), BeatOptions::default()).unwrap();
        let (run, links) = (beats.clone(), Arc::new(control.clone()));
        let mut task = JoinSet::new();
        task.spawn(async move { run.run(links).await });
        Self {
            beats,
            control,
            task,
            ledger,
        }
    }

    async fn stop(mut self) {
        self.task.shutdown().await;
        self.control.shutdown(PATIENCE).await;
        drop(self.control);
        eventually_zero(&self.ledger).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_registers_is_found_by_drills_driver_and_by_observers_until_it_goes() {
    let Some(zookeeper) = zookeeper() else { return };
    // There is no cluster yet.
    let mut observer = Running::observer(&zookeeper.cluster("ours"));
    let ours = Running::registered(&zookeeper.cluster("ours"), 1);
    let Event::Joined(seen) = observer.next().await else {
        panic!("{:?}", observer.registry.members());
    };
    assert_eq!(seen.endpoint, ours.registry.local().unwrap().endpoint);
    let answer = block_in_place(|| zookeeper.query("ours", "select 1 + 1")).unwrap();
    assert_eq!(answer, "2");
    ours.registry.set_local_state(NodeState::Quiescent);
    let Event::Changed { after, .. } = observer.next().await else {
        panic!("{:?}", observer.registry.members());
    };
    assert_eq!(after.state, Some(NodeState::Quiescent));
    // Drill's driver only takes nodes that are online.
    let refused = block_in_place(|| zookeeper.query("ours", "select 1")).unwrap_err();
    assert!(
        format!("{refused:#}").contains("No active Drillbit endpoint"),
        "{refused:#}"
    );
    ours.stop().await;
    let mut last = observer.next().await;
    // It said that it goes; the observer may have been too slow to read it.
    if let Event::Changed { after, .. } = &last {
        assert_eq!(after.state, Some(NodeState::Offline));
        last = observer.next().await;
    }
    assert!(matches!(last, Event::Left(_)), "{last:?}");
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_registers_where_drills_driver_finds_it() {
    let Some(zookeeper) = zookeeper() else { return };
    let cluster = zookeeper.cluster("program");
    let mut observer = Running::observer(&cluster);
    let arguments = ["--control-port", "0", "--zookeeper", &cluster, "--register"];
    let node = block_in_place(|| Node::start_with(NODE, &arguments)).unwrap();
    let Event::Joined(seen) = observer.next().await else {
        panic!("{:?}", observer.registry.members());
    };
    assert_eq!(seen.user_port(), Some(node.user().port()));
    assert_eq!(seen.state, Some(NodeState::Online));
    let answer = block_in_place(|| zookeeper.query("program", "select 1 + 1")).unwrap();
    assert_eq!(answer, "2");
    // Killed: its session ends by itself.
    drop(node);
    let last = observer.next().await;
    assert!(matches!(last, Event::Left(_)), "{last:?}");
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_drillbit_is_seen_as_it_comes_and_goes() {
    let Some(zookeeper) = zookeeper() else { return };
    let mut observer = Running::observer(&zookeeper.cluster("theirs"));
    let start = || RealDrillbit::start_in(&Memory::default(), &zookeeper, "theirs");
    let started = block_in_place(start);
    let Some(mut drillbit) = available("a real Drillbit", started) else {
        return;
    };
    let Event::Joined(member) = observer.next().await else {
        panic!("{:?}", observer.registry.members());
    };
    assert!(member.is_in(NodeState::Online) && member.state.is_some());
    assert_eq!(member.user_port(), Some(drillbit.user().port()));
    assert_eq!(member.software_version.as_deref(), Some("1.22.0"));
    let watched = Watched::start(&observer.registry).await;
    let is_up = || watched.beats.health(&member.address) == Some(Health::Up);
    within(PATIENCE, "it answers PINGs", &mut || is_up()).await;
    let seen = watched.beats.nodes().pop().unwrap();
    assert!(seen.is_drill && seen.counts.answered > 0, "{seen:?}");
    watched.stop().await;
    block_in_place(|| drillbit.leave()).unwrap();
    let mut states = Vec::new();
    loop {
        match observer.next().await {
            Event::Changed { after, .. } => states.extend(after.state),
            Event::Left(_) => break,
            Event::Joined(_) => panic!("{:?}", observer.registry.members()),
        }
    }
    // Those that it was in long enough to be read.
    assert!(
        states.is_sorted() && !states.contains(&NodeState::Online),
        "{states:?}"
    );
    assert_eq!(observer.registry.members(), []);
    observer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_lost_is_followed_by_another_one() {
    let Some(mut zookeeper) = zookeeper() else {
        return;
    };
    let cluster = zookeeper.cluster("ours");
    let (one, two) = (
        Running::registered(&cluster, 1),
        Running::registered(&cluster, 2),
    );
    let see_each_other = || {
        [&one, &two]
            .iter()
            .all(|node| node.registry.members().len() == 2)
    };
    within(PATIENCE, "both are members", &mut || see_each_other()).await;
    block_in_place(|| zookeeper.replace()).unwrap();
    let both_again = || {
        let again = |node: &Running| {
            let stats = node.provider.stats();
            stats.sessions == 2 && stats.is_registered
        };
        again(&one) && again(&two) && see_each_other()
    };
    within(PATIENCE, "both are registered again", &mut || both_again()).await;
    let mut observer = Running::observer(&cluster);
    for _ in 0..2 {
        assert!(matches!(observer.next().await, Event::Joined(_)));
    }
    one.stop().await;
    two.stop().await;
    observer.stop().await;
}
