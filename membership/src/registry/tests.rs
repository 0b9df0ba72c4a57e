//! The registry and its watchers, against a model of each watcher fed with nothing but its events.

use std::collections::BTreeMap;

use protos::coord::DrillbitEndpoint;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

fn address(node: u16) -> NodeAddress {
    NodeAddress::new("node", 1000 + node).unwrap()
}

fn peer(node: u16) -> Member {
    Member::at(address(node))
}

fn said(node: u16, incarnation: u64, state: NodeState) -> Learned {
    let endpoint = DrillbitEndpoint {
        address: Some("node".to_owned()),
        control_port: Some(1000 + i32::from(node)),
        user_port: Some(31010),
        data_port: Some(31012),
        state: Some(state.into()),
        ..DrillbitEndpoint::default()
    };
    Learned {
        incarnation,
        endpoint: endpoint.into(),
        software_version: "0.1.0".to_owned(),
        engine_version: String::new(),
        load: None,
    }
}

fn registry() -> Registry {
    Registry::of_node(peer(0), RegistryOptions::default())
}

fn all(watch: &mut Watch) -> Vec<Event> {
    std::iter::from_fn(|| watch.try_next()).collect()
}

#[test]
fn this_node_is_a_member_that_no_provider_changes_or_removes() {
    let registry = registry();
    registry.replace(Vec::new()).unwrap();
    registry.leave(&address(0));
    registry.set_local_state(NodeState::Online);
    let other = Member {
        state: Some(NodeState::Offline),
        ..peer(0)
    };
    registry.join(other).unwrap();
    let local = registry.local().unwrap();
    assert_eq!(local.state, Some(NodeState::Online));
    assert_eq!(local.endpoint.message().state(), NodeState::Online);
    assert_eq!(registry.members(), [local]);
    let observer = Registry::of_observer(RegistryOptions::default());
    assert_eq!(observer.local(), None);
}

#[test]
fn what_a_listed_node_says_fills_in_what_was_not_known() {
    let registry = registry();
    registry.join(peer(1)).unwrap();
    let (_, mut watch) = registry.watch();
    assert!(registry.learn(&address(1), &said(1, 7, NodeState::Online)));
    let events = all(&mut watch);
    let [Event::Changed { before, after }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((before.user_port(), before.incarnation), (None, None));
    let now = (after.user_port(), after.data_port(), after.incarnation);
    assert_eq!(now, (Some(31010), Some(31012), Some(7)));
    assert!(
        after.is_in(NodeState::Online) && after.engine_version.is_none(),
        "{after:?}"
    );
    // The list is read again, and knows no more than it did.
    registry.replace(vec![peer(1)]).unwrap();
    assert_eq!(all(&mut watch), []);
    assert_eq!(registry.member(&address(1)).unwrap(), *after);
}

#[test]
fn an_endpoint_from_a_provider_is_not_replaced_by_what_the_node_says() {
    let registry = registry();
    let mut given = said(1, 0, NodeState::Online).endpoint.message().clone();
    given.http_port = Some(8047);
    registry
        .join(Member::of(given.clone().into()).unwrap())
        .unwrap();
    registry.learn(&address(1), &said(1, 7, NodeState::Quiescent));
    let member = registry.member(&address(1)).unwrap();
    assert_eq!(member.endpoint, given.into());
    assert_eq!(member.state, Some(NodeState::Quiescent));
}

#[test]
fn who_beats_does_not_join_by_that() {
    let registry = registry();
    assert!(!registry.learn(&address(9), &said(9, 1, NodeState::Online)));
    assert_eq!(registry.members().len(), 1);
}

#[test]
fn load_is_known_and_makes_no_event() {
    let registry = registry();
    registry.join(peer(1)).unwrap();
    registry.learn(&address(1), &said(1, 7, NodeState::Online));
    let (_, mut watch) = registry.watch();
    let load = Some(Load {
        queries: 3,
        ..Load::default()
    });
    let busy = Learned {
        load,
        ..said(1, 7, NodeState::Online)
    };
    registry.learn(&address(1), &busy);
    registry.set_local_load(Load::default());
    assert_eq!(registry.member(&address(1)).unwrap().load, load);
    assert_eq!(all(&mut watch), []);
}

#[test]
fn a_node_that_was_started_again_has_left_and_joined() {
    let registry = registry();
    registry.join(peer(1)).unwrap();
    registry.learn(&address(1), &said(1, 7, NodeState::Online));
    let (members, mut watch) = registry.watch();
    registry.learn(&address(1), &said(1, 8, NodeState::Startup));
    let now = registry.member(&address(1)).unwrap();
    let expected = [Event::Left(Arc::clone(&members[1])), Event::Joined(now)];
    assert_eq!(all(&mut watch), expected);
}

/// Its registration ended and another one was made before the watcher looked: what was learned went with the first.
#[test]
fn a_process_that_left_unseen_has_left_and_who_is_there_now_has_joined() {
    let registry = registry();
    registry.join(peer(1)).unwrap();
    registry.learn(&address(1), &said(1, 7, NodeState::Online));
    let (members, mut watch) = registry.watch();
    registry.leave(&address(1));
    registry.join(peer(1)).unwrap();
    let now = registry.member(&address(1)).unwrap();
    let expected = [Event::Left(Arc::clone(&members[1])), Event::Joined(now)];
    assert_eq!(all(&mut watch), expected);
    registry.learn(&address(1), &said(1, 8, NodeState::Startup));
    let events = all(&mut watch);
    assert!(matches!(&events[..], [Event::Changed { .. }]), "{events:?}");
}

#[test]
fn more_members_than_there_may_be_are_refused_and_counted() {
    let registry = Registry::of_node(peer(0), RegistryOptions { members_max: 3 });
    let full = registry.replace((1..=5).map(peer).collect()).unwrap_err();
    assert_eq!(full, RegistryFull { refused: 3, max: 3 });
    let kept: Vec<_> = registry.members();
    assert_eq!(kept.len(), 3);
    // Those that are members already do not count again, and room is made by those that leave.
    registry.replace(vec![peer(2), peer(5)]).unwrap();
    registry.join(peer(2)).unwrap();
    assert!(registry.join(peer(6)).is_err());
}

#[test]
fn a_slow_watcher_is_told_the_newest_once() {
    let registry = registry();
    registry.join(peer(1)).unwrap();
    let (_, mut watch) = registry.watch();
    registry.join(peer(2)).unwrap();
    for state in [NodeState::Startup, NodeState::Online, NodeState::Quiescent] {
        registry.learn(&address(1), &said(1, 7, state));
    }
    registry.join(peer(3)).unwrap();
    registry.leave(&address(3));
    let events = all(&mut watch);
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(matches!(&events[0], Event::Joined(member) if member.address == address(2)));
    let newest = matches!(&events[1], Event::Changed { after, .. } if after.state == Some(NodeState::Quiescent));
    assert!(newest, "{events:?}");
}

#[tokio::test]
async fn a_watcher_that_waits_is_woken() {
    let registry = registry();
    let (_, mut watch) = registry.watch();
    let (event, ()) = tokio::join!(watch.next(), async {
        tokio::task::yield_now().await;
        registry.join(peer(1)).unwrap();
    });
    assert!(matches!(event, Event::Joined(member) if member.address == address(1)));
}

#[test]
fn a_watcher_that_is_gone_holds_nothing() {
    let registry = registry();
    let (_, watch) = registry.watch();
    assert_eq!(registry.lock().watchers.len(), 1);
    drop(watch);
    assert_eq!(registry.lock().watchers.len(), 0);
}

/// What a watcher believes, from its events alone.
struct Follower {
    watch: Watch,
    members: BTreeMap<NodeAddress, Arc<Member>>,
}

impl Follower {
    fn new(registry: &Registry) -> Self {
        let (members, watch) = registry.watch();
        let members = members
            .into_iter()
            .map(|member| (member.address.clone(), member));
        Self {
            watch,
            members: members.collect(),
        }
    }

    /// Takes one event, which must fit what it was told before.
    fn step(&mut self) -> bool {
        let Some(event) = self.watch.try_next() else {
            return false;
        };
        let address = event.address().clone();
        let (expected, now) = match event {
            Event::Joined(member) => (None, Some(member)),
            Event::Left(member) => (Some(member), None),
            Event::Changed { before, after } => {
                assert!(after.differs_from(&before) && !after.is_restart_of(&before));
                (Some(before), Some(after))
            }
        };
        assert_eq!(self.members.remove(&address), expected);
        self.members.extend(now.map(|member| (address, member)));
        true
    }

    fn catch_up(&mut self, registry: &Registry) {
        while self.step() {}
        let members = registry.members();
        assert_eq!(self.members.len(), members.len());
        for member in members {
            assert!(!self.members[&member.address].differs_from(&member));
        }
    }
}

const NODES_MAX: usize = 12;

fn change(registry: &Registry, random: &mut StdRng) {
    let node = random.random_range(1..30);
    let states = [NodeState::Startup, NodeState::Online, NodeState::Quiescent];
    let state = states[random.random_range(0..states.len())];
    match random.random_range(0..10) {
        0..3 => drop(registry.join(peer(node))),
        3..5 => registry.leave(&address(node)),
        5..8 => drop(registry.learn(
            &address(node),
            &said(node, random.random_range(0..3), state),
        )),
        8 => registry.set_local_state(state),
        _ => {
            let nodes = (0..random.random_range(0..20)).map(|_| random.random_range(0..30));
            let _ = registry.replace(nodes.map(peer).collect());
        }
    }
}

#[test]
fn watchers_lose_and_double_nothing_however_slow_they_are() {
    for seed in 0..500 {
        let mut random = StdRng::seed_from_u64(seed);
        let registry = Registry::of_node(
            peer(0),
            RegistryOptions {
                members_max: NODES_MAX,
            },
        );
        let mut followers: Vec<_> = (0..3).map(|_| Follower::new(&registry)).collect();
        for _ in 0..100 {
            change(&registry, &mut random);
            let follower = random.random_range(0..followers.len());
            for _ in 0..random.random_range(0..4) * follower {
                followers[follower].step();
            }
            if random.random_ratio(1, 30) {
                followers[0] = Follower::new(&registry);
            }
            let state = registry.lock();
            let held = state.watchers.values().map(Untold::held);
            assert!(held.max() <= Some(3 * NODES_MAX), "seed {seed}");
        }
        for follower in &mut followers {
            follower.catch_up(&registry);
        }
    }
}
