//! Beats over real sockets: between our own nodes, through a bad network, and to what speaks as a Drillbit does.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bit_control::{
    ControlNode,
    heartbeat::{Health, PeerLinks, Rule, Signs},
};
use fault_proxy::{End, Flow, Proxy};
use membership::{Load, NodeAddress, NodeState};
use rpc_bus::{
    CallError, Features, Ledger, RemoteConnection, RoundTrips, ledger::Limits, task::Tasks,
};
use tokio::{net::TcpListener, runtime::Handle};

use support::{Node, PATIENCE, Start, until};

#[tokio::test]
async fn nodes_that_beat_each_other_learn_what_they_are() {
    let (a, b) = (Node::start().await, Node::start().await);
    a.knows(&b);
    b.knows(&a);
    a.until_health(&b, Health::Up).await;
    b.until_health(&a, Health::Up).await;
    let member = a.registry.member(b.address()).unwrap();
    assert_eq!((member.user_port(), member.data_port()), (Some(1), Some(3)));
    assert_eq!(member.incarnation, b.registry.local().unwrap().incarnation);
    assert_eq!(member.software_version.as_deref(), Some("0.1.0"));
    let load = Load {
        fragments: 7,
        ..Load::default()
    };
    b.registry.set_local_load(load);
    b.registry.set_local_state(NodeState::Quiescent);
    let learned = || {
        let member = a.registry.member(b.address()).unwrap();
        member.load == Some(load) && member.is_in(NodeState::Quiescent)
    };
    until("what b says now is known to a", learned).await;
    let seen = a.seen(&b);
    assert!(seen.counts.answered > 0 && seen.version_mismatch.is_none());
    // Both clocks are the same one.
    let skew = seen.skew.unwrap();
    assert!(skew.offset_us.unsigned_abs() <= skew.error_us, "{skew:?}");
    assert!(seen.round_trips.is_some() && !seen.is_drill);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_node_that_leaves_says_so_before_its_next_beat() {
    let (a, b) = (Node::start().await, Node::start().await);
    a.knows(&b);
    b.knows(&a);
    a.until_health(&b, Health::Up).await;
    b.until_health(&a, Health::Up).await;
    // Nothing comes of its own accord any more, neither way.
    a.stop_beating().await;
    b.stop_beating().await;
    b.registry.set_local_state(NodeState::Offline);
    b.beats
        .announce(Arc::new(b.control.clone()), PATIENCE)
        .await;
    let member = a.registry.member(b.address()).unwrap();
    assert_eq!(member.state, Some(NodeState::Offline));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_node_that_the_network_hides_is_suspect_then_down_and_up_again() {
    let (a, b) = (Node::start().await, Node::start().await);
    let proxy = Proxy::start(b.control.local_addr(), 1).await.unwrap();
    let hidden = proxy.addr().to_string().parse().unwrap();
    let mut watch = a.beats.watch();
    a.knows_at(&hidden);
    let mut next = async || watch.next().await.unwrap().unwrap();
    while next().await.to != Health::Up {}
    proxy.set_both(|faults| faults.flow = Flow::Lost);
    // A machine that is busy itself may find out late, and then both at once.
    let mut event = next().await;
    if event.to == Health::Suspect {
        event = next().await;
    }
    assert_eq!(event.to, Health::Down);
    assert!(
        matches!(event.reason.rule, Rule::Silent { .. }),
        "{event:?}"
    );
    assert!(event.reason.unanswered.is_some());
    proxy.set_both(|faults| faults.flow = Flow::Passing);
    assert_eq!(next().await.to, Health::Up);
    assert_eq!(a.beats.nodes()[0].counts.flaps, 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_cut_is_made_again_and_nothing_is_said() {
    let (a, b) = (Node::start().await, Node::start().await);
    let proxy = Proxy::start(b.control.local_addr(), 1).await.unwrap();
    let there = proxy.addr().to_string().parse().unwrap();
    a.knows_at(&there);
    until("it is up", || a.beats.health(&there) == Some(Health::Up)).await;
    let answered = || a.beats.nodes()[0].counts.answered;
    for end in [End::Reset, End::Fin] {
        let before = answered();
        proxy.end_all(end);
        until("beats are answered again", || answered() > before + 2).await;
    }
    let counts = a.beats.nodes()[0].counts;
    assert_eq!((counts.downs, counts.restarts), (0, 0), "{counts:?}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_process_that_ends_is_down_and_another_one_in_its_place_is_new() {
    let (a, b) = (Node::start().await, Node::start().await);
    a.knows(&b);
    a.until_health(&b, Health::Up).await;
    let (address, before) = (b.address().clone(), a.registry.member(b.address()).unwrap());
    let local = b.control.local_addr();
    b.stop().await;
    until("it is down", || {
        a.beats.health(&address) == Some(Health::Down)
    })
    .await;
    let seen = a.beats.nodes().pop().unwrap();
    assert!(matches!(seen.reason.rule, Rule::Refused { .. }), "{seen:?}");
    let again = Start {
        listen: local,
        ..Start::default()
    };
    let b = Node::with(again).await;
    a.until_health(&b, Health::Up).await;
    let now = a.registry.member(&address).unwrap();
    assert_ne!(now.incarnation, before.incarnation);
    assert_eq!(a.seen(&b).counts.restarts, 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn why_a_node_cannot_be_connected_to_is_shown() {
    let a = Node::start().await;
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = stranger.local_addr().unwrap().to_string().parse().unwrap();
    a.knows_at(&address);
    let hang_up = async {
        loop {
            drop(stranger.accept().await);
        }
    };
    let error = || a.beats.nodes().pop()?.reason.error;
    let down = until("it is down, and why is known", || {
        a.beats.health(&address) == Some(Health::Down) && error().is_some()
    });
    tokio::select! {
        () = down => {}
        () = hang_up => {}
    }
    let error = error().unwrap();
    assert!(error.contains("lost in the handshake"), "{error}");
    a.stop().await;
}

#[tokio::test]
async fn a_node_without_beats_is_pinged_as_a_drillbit_is() {
    let a = Node::start().await;
    let plain = Start {
        features: Features::default(),
        ..Start::default()
    };
    let b = Node::with(plain).await;
    a.knows(&b);
    a.until_health(&b, Health::Up).await;
    let seen = a.seen(&b);
    assert!(seen.is_drill && seen.round_trips.is_some(), "{seen:?}");
    assert_eq!(a.registry.member(b.address()).unwrap().incarnation, None);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_member_that_leaves_is_beaten_no_more() {
    let (a, b) = (Node::start().await, Node::start().await);
    a.knows(&b);
    a.until_health(&b, Health::Up).await;
    a.registry.leave(b.address());
    until("it is forgotten", || a.beats.health(b.address()).is_none()).await;
    assert!(a.beats.nodes().is_empty());
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn what_was_forgotten_with_a_member_is_learned_again() {
    let (a, b) = (Node::start().await, Node::start().await);
    let version = || a.registry.member(b.address())?.software_version.clone();
    for _ in 0..3 {
        a.knows(&b);
        until("its version is known", || version().is_some()).await;
        a.registry.leave(b.address());
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn beats_that_are_none_are_refused_and_the_connection_lives_on() {
    use bytes::Bytes;
    use protos::{calls::control as calls, control::Beat};
    use rpc_bus::{CallError, CallOptions};

    let (a, b) = (Node::start().await, Node::start().await);
    let line = a.control.tunnel(b.address()).connection().await.unwrap();
    let long = Beat {
        sender: Some(Bytes::from(vec![0; 9000])),
        ..Beat::default()
    };
    let options = CallOptions {
        deadline: Some(Duration::from_secs(30)),
        ..CallOptions::default()
    };
    let refused = line.call::<calls::Beat>(&long, Vec::new(), options).await;
    let Err(CallError::Remote(failure)) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        failure.to_string().contains("at most 8192 bytes"),
        "{failure}"
    );
    let short = Beat {
        sequence: Some(5),
        ..Beat::default()
    };
    let answer = line.call::<calls::Beat>(&short, Vec::new(), options).await;
    assert_eq!(answer.unwrap().message.sequence(), 5);
    drop(line);
    a.stop().await;
    b.stop().await;
}

/// Control connections as they are, and what a test says of others.
struct Links {
    control: ControlNode,
    signs: Mutex<Option<Signs>>,
}

impl Links {
    fn tell(&self, signs: Option<Signs>) {
        *self.signs.lock().unwrap() = signs;
    }
}

#[async_trait]
impl PeerLinks for Links {
    async fn connection(&self, to: &NodeAddress) -> Result<RemoteConnection, CallError> {
        self.control.connection(to).await
    }

    fn disconnect(&self, node: &NodeAddress) {
        PeerLinks::disconnect(&self.control, node);
    }

    fn signs(&self, _: &NodeAddress) -> Option<Signs> {
        *self.signs.lock().unwrap()
    }
}

#[tokio::test]
async fn round_trips_on_other_connections_are_known_as_long_as_there_is_one() {
    let (a, b) = (Node::start().await, Node::start().await);
    a.stop_beating().await;
    let links = Arc::new(Links {
        control: a.control.clone(),
        signs: Mutex::default(),
    });
    let (tasks, ledger) = (Tasks::default(), Ledger::root("test", Limits::default()));
    let (beats, its_links) = (a.beats.clone(), Arc::clone(&links));
    let run = async move { beats.run(its_links).await };
    tasks.spawn(&Handle::current(), &ledger, run).unwrap();
    a.knows(&b);
    a.until_health(&b, Health::Up).await;
    assert_eq!(a.seen(&b).data_round_trips, None);
    let mut trips = RoundTrips::default();
    trips.record(Duration::from_micros(70));
    links.tell(Some(Signs {
        last_received: Instant::now(),
        round_trips: trips.stats(),
    }));
    let known = || a.seen(&b).data_round_trips;
    until("they are known", || known() == trips.stats()).await;
    links.tell(None);
    until("they are forgotten", || known().is_none()).await;
    tasks.abort();
    tasks.join(PATIENCE).await;
    drop(links);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_node_that_goes_down_is_told_of_and_so_is_one_that_is_no_member_any_more() {
    let (a, b, c) = (
        Node::start().await,
        Node::start().await,
        Node::start().await,
    );
    let told = Arc::new(Mutex::new(Vec::new()));
    let (tasks, ledger) = (Tasks::default(), Ledger::root("test", Limits::default()));
    let watch = || {
        let (beats, told) = (a.beats.clone(), Arc::clone(&told));
        let run = async move {
            let tell = |node: &NodeAddress| told.lock().unwrap().push(node.clone());
            beats.on_down(tell).await;
        };
        tasks.spawn(&Handle::current(), &ledger, run).unwrap();
    };
    watch();
    for node in [&b, &c] {
        a.knows(node);
        a.until_health(node, Health::Up).await;
    }
    a.registry.leave(b.address());
    let is_told = |node: &Node, times: usize| {
        let told = told.lock().unwrap();
        told.iter().filter(|one| *one == node.address()).count() == times
    };
    until("it is told of the first", || is_told(&b, 1)).await;
    c.control.shutdown(PATIENCE).await;
    until("it is told of the second", || is_told(&c, 1)).await;
    assert_eq!(a.beats.health(c.address()), Some(Health::Down));
    // Whoever comes later is told, too.
    watch();
    until("it is told once more", || is_told(&c, 2)).await;
    assert!(is_told(&b, 1));
    tasks.abort();
    tasks.join(PATIENCE).await;
    for node in [a, b, c] {
        node.stop().await;
    }
}
