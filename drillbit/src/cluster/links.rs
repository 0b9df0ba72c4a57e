//! The ways to other nodes, of both planes: beats travel on control connections, and what data connections tell counts too.
//!
//! Each node keeps a data connection to each other one that is up, so that what is measured there is known before the
//! first stream needs it.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bit_control::{
    ControlNode,
    heartbeat::{Health, Heartbeats, PeerLinks, Signs},
};
use bit_data::{DataPeers, OpenError};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use membership::{Event, Member, NodeAddress, NodeState, Registry};
use rpc_bus::{CallError, RemoteConnection};

/// How long a node may take for a data connection before it is tried again.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Addresses whose last process is remembered, members or not; beyond that any other one is forgotten.
const PROCESSES_MAX: usize = 4096;

/// The ways to other nodes.
pub(super) struct Links {
    control: ControlNode,
    registry: Registry,
    /// Of this node.
    incarnation: u64,
    data: Option<DataPeers>,
    /// Where data servers listen, as far as they were connected to.
    data_servers: Mutex<HashMap<NodeAddress, DataServer>>,
}

#[derive(Clone, Copy)]
struct DataServer {
    address: SocketAddr,
    /// Of its node: another one may listen there since.
    incarnation: u64,
}

impl Links {
    pub(super) fn new(
        control: ControlNode,
        registry: Registry,
        incarnation: u64,
        data: Option<DataPeers>,
    ) -> Self {
        Self {
            control,
            registry,
            incarnation,
            data,
            data_servers: Mutex::default(),
        }
    }

    /// Sees to it that there is a data connection to every node that is up and has a data server.
    pub(super) async fn connect_data(self: Arc<Self>, heartbeats: Heartbeats, interval: Duration) {
        let Some(data) = &self.data else { return };
        let mut attempts = Attempts::default();
        loop {
            let members = self.registry.members();
            let is_member =
                |node: &NodeAddress| members.iter().any(|member| &member.address == node);
            self.data_servers().retain(|node, _| is_member(node));
            let up = members
                .iter()
                .filter(|member| heartbeats.health(&member.address) == Some(Health::Up));
            let missing = up.filter(|member| self.data_connections(&member.address).is_empty());
            for member in missing {
                attempts.begin(&member.address, || self.connect(data, Arc::clone(member)));
            }
            attempts.run_for(interval).await;
        }
    }

    /// Sees to it that streams with a process that is down end at once: it does not answer, has left, or was started again.
    pub(super) async fn fail_streams(self: Arc<Self>, heartbeats: Heartbeats) {
        let Some(data) = &self.data else { return };
        let (members, mut watch) = self.registry.watch();
        let mut processes = Processes::of(&members);
        let gone = async {
            loop {
                if let Some((incarnation, reason)) = processes.on_event(&watch.next().await) {
                    data.node_down(incarnation, reason);
                }
            }
        };
        let silent = heartbeats.on_down(|node| {
            let nodes = heartbeats.nodes().into_iter();
            let down = nodes.filter(|seen| seen.address == *node && seen.health == Health::Down);
            for seen in down {
                // The one that was found to be down, whichever is there by now.
                if let Some(incarnation) = seen.incarnation {
                    data.node_down(incarnation, &seen.reason.to_string());
                }
            }
        });
        tokio::join!(gone, silent);
    }

    async fn connect(&self, data: &DataPeers, member: Arc<Member>) {
        // Only a node of ours has an incarnation.
        let (Some(port), Some(incarnation)) = (data_port(&member), member.incarnation) else {
            return;
        };
        let (node, host) = (&member.address, member.address.host());
        let connecting = async {
            let mut last: Result<_, DataError> = Ok(());
            for address in tokio::net::lookup_host((host, port)).await? {
                match data.connect(address, host).await {
                    Ok(()) => {
                        let server = DataServer {
                            address,
                            incarnation,
                        };
                        self.data_servers().insert(node.clone(), server);
                        return Ok(());
                    }
                    Err(error) => last = Err(error.into()),
                }
            }
            last
        };
        match tokio::time::timeout(CONNECT_TIME, connecting).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%node, port, %error, "no data connection"),
            Err(_) => tracing::debug!(%node, port, "no data connection in time"),
        }
    }

    fn data_connections(&self, node: &NodeAddress) -> Vec<RemoteConnection> {
        let server = self.data_servers().get(node).copied();
        let Some((data, server)) = self.data.as_ref().zip(server) else {
            return Vec::new();
        };
        let mut connections = data.connections(server.address);
        connections.retain(|connection| {
            let peer = connection.peer_capabilities();
            peer.and_then(|peer| peer.incarnation) == Some(server.incarnation)
        });
        connections
    }

    /// This node itself answers at `node`: it is listed by another name than its own.
    fn leave_out(&self, node: &NodeAddress) {
        let own = self.control.address();
        tracing::warn!(listed = %node, %own, "this node is listed by another name, which is left out");
        self.registry.leave(node);
        self.control.disconnect(node);
    }

    fn data_servers(&self) -> MutexGuard<'_, HashMap<NodeAddress, DataServer>> {
        let servers = self.data_servers.lock();
        servers.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which process was the last at each address.
///
/// That an address is listed no more says nothing of the process there: it may be only its provider that has lost it,
/// and data connections have beats of their own. So it is remembered, and gone once another one is known in its place.
#[derive(Default)]
struct Processes(HashMap<NodeAddress, u64>);

impl Processes {
    fn of(members: &[Arc<Member>]) -> Self {
        let known = members
            .iter()
            .filter_map(|member| Some((member.address.clone(), member.incarnation?)));
        Self(known.collect())
    }

    /// The process that is gone by this, and why.
    fn on_event(&mut self, event: &Event) -> Option<(u64, &'static str)> {
        match event {
            Event::Joined(now) | Event::Changed { after: now, .. } => {
                let incarnation = now.incarnation?;
                let before = self.remember(&now.address, incarnation)?;
                (before != incarnation).then_some((before, "it was started again"))
            }
            // It has said so itself.
            Event::Left(member) if member.state == Some(NodeState::Offline) => {
                Some((self.0.remove(&member.address)?, "it has left"))
            }
            Event::Left(_) => None,
        }
    }

    /// Returns which process was there before.
    fn remember(&mut self, address: &NodeAddress, incarnation: u64) -> Option<u64> {
        if self.0.len() >= PROCESSES_MAX
            && !self.0.contains_key(address)
            && let Some(forgotten) = self.0.keys().next().cloned()
        {
            self.0.remove(&forgotten);
        }
        self.0.insert(address.clone(), incarnation)
    }
}

/// Attempts to connect, at most one to a node at a time; none waits for another.
#[derive(Default)]
struct Attempts<'a> {
    under_way: HashSet<NodeAddress>,
    running: FuturesUnordered<BoxFuture<'a, NodeAddress>>,
}

impl<'a> Attempts<'a> {
    /// Begins one, unless one to that node is under way.
    fn begin<F>(&mut self, node: &NodeAddress, attempt: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'a,
    {
        if self.under_way.insert(node.clone()) {
            let node = node.clone();
            self.running.push(attempt().map(|()| node).boxed());
        }
    }

    /// Goes on with all of them for so long.
    async fn run_for(&mut self, time: Duration) {
        let end = tokio::time::sleep(time);
        tokio::pin!(end);
        loop {
            tokio::select! {
                Some(node) = self.running.next() => {
                    self.under_way.remove(&node);
                }
                () = &mut end => return,
            }
        }
    }
}

fn data_port(member: &Member) -> Option<u16> {
    let port = member.endpoint.message().data_port?;
    u16::try_from(port).ok().filter(|&port| port > 0)
}

#[derive(Debug, thiserror::Error)]
enum DataError {
    #[error(transparent)]
    Name(#[from] std::io::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
}

#[async_trait]
impl PeerLinks for Links {
    async fn connection(&self, to: &NodeAddress) -> Result<RemoteConnection, CallError> {
        let connection = self.control.connection(to).await?;
        let peer = connection.peer_capabilities();
        if peer.and_then(|peer| peer.incarnation) == Some(self.incarnation) {
            self.leave_out(to);
        }
        Ok(connection)
    }

    fn open(&self, to: &NodeAddress) -> Option<RemoteConnection> {
        self.control.open(to)
    }

    /// Data connections are closed with the streams on them: see [`Links::fail_streams`].
    fn disconnect(&self, node: &NodeAddress) {
        self.control.disconnect(node);
    }

    fn signs(&self, node: &NodeAddress) -> Option<Signs> {
        let connections = self.data_connections(node);
        Some(Signs {
            last_received: connections
                .iter()
                .map(RemoteConnection::last_received)
                .max()?,
            round_trips: connections.iter().find_map(|one| one.stats().round_trips),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use membership::{Learned, RegistryOptions, Watch};

    use super::*;

    fn node() -> NodeAddress {
        "node:31011".parse().unwrap()
    }

    /// A registry with the process 1 of a node that is online, and its watcher.
    fn with_process_1() -> (Registry, Processes, Watch) {
        let registry = Registry::of_observer(RegistryOptions::default());
        registry.join(Member::at(node())).unwrap();
        learn(&registry, 1, NodeState::Online);
        let (members, watch) = registry.watch();
        (registry, Processes::of(&members), watch)
    }

    fn learn(registry: &Registry, incarnation: u64, state: NodeState) {
        let mut endpoint = Member::at(node()).endpoint.message().clone();
        endpoint.set_state(state);
        let learned = Learned {
            incarnation,
            endpoint: endpoint.into(),
            software_version: "0.1.0".to_owned(),
            engine_version: String::new(),
            load: None,
        };
        assert!(registry.learn(&node(), &learned));
    }

    fn gone(processes: &mut Processes, watch: &mut Watch) -> Vec<(u64, &'static str)> {
        let events = std::iter::from_fn(|| watch.try_next());
        events
            .filter_map(|event| processes.on_event(&event))
            .collect()
    }

    #[test]
    fn a_process_whose_registration_was_lost_is_not_gone() {
        let (registry, mut processes, mut watch) = with_process_1();
        registry.replace(Vec::new()).unwrap();
        assert_eq!(gone(&mut processes, &mut watch), []);
        registry.replace(vec![Member::at(node())]).unwrap();
        learn(&registry, 1, NodeState::Online);
        assert_eq!(gone(&mut processes, &mut watch), []);
    }

    #[test]
    fn a_process_is_gone_once_another_one_is_known_in_its_place() {
        let expected = [(1, "it was started again")];
        let (registry, mut processes, mut watch) = with_process_1();
        learn(&registry, 2, NodeState::Startup);
        assert_eq!(gone(&mut processes, &mut watch), expected);
        // Its registration ended first.
        let (registry, mut processes, mut watch) = with_process_1();
        registry.leave(&node());
        assert_eq!(gone(&mut processes, &mut watch), []);
        registry.join(Member::at(node())).unwrap();
        assert_eq!(gone(&mut processes, &mut watch), []);
        learn(&registry, 2, NodeState::Startup);
        assert_eq!(gone(&mut processes, &mut watch), expected);
    }

    #[test]
    fn a_process_that_has_said_goodbye_is_gone_when_it_has_left() {
        let (registry, mut processes, mut watch) = with_process_1();
        learn(&registry, 1, NodeState::Offline);
        assert_eq!(gone(&mut processes, &mut watch), []);
        registry.leave(&node());
        let expected = [(1, "it has left")];
        assert_eq!(gone(&mut processes, &mut watch), expected);
    }

    #[test]
    fn processes_are_remembered_within_a_limit() {
        let mut processes = Processes::default();
        for port in 1..=u16::MAX {
            processes.remember(&NodeAddress::new("node", port).unwrap(), 1);
        }
        assert_eq!(processes.0.len(), PROCESSES_MAX);
    }

    const INTERVAL: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_keeps_no_other_one_waiting_and_is_tried_once_at_a_time() {
        let [silent, other] =
            ["silent:31011", "other:31011"].map(|node| node.parse::<NodeAddress>().unwrap());
        let (tried, connected) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut attempts = Attempts::default();
        for round in 1..=3 {
            attempts.begin(&silent, || {
                tried.fetch_add(1, Ordering::Relaxed);
                pending()
            });
            attempts.begin(&other, || {
                connected.fetch_add(1, Ordering::Relaxed);
                ready(())
            });
            attempts.run_for(INTERVAL).await;
            assert_eq!(connected.load(Ordering::Relaxed), round);
            assert_eq!(tried.load(Ordering::Relaxed), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_did_not_answer_in_time_is_tried_again() {
        let silent = "silent:31011".parse().unwrap();
        let tried = AtomicUsize::new(0);
        let mut attempts = Attempts::default();
        for _ in 0..6 {
            attempts.begin(&silent, || {
                tried.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(INTERVAL * 5 / 2)
            });
            attempts.run_for(INTERVAL).await;
        }
        assert_eq!(tried.load(Ordering::Relaxed), 2);
    }
}
