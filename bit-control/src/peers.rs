//! The connections with other nodes, by address and control port: whichever side has opened them, both sides use them.
//!
//! Two nodes that connect to each other at the same time get two connections, and neither is closed: which of them both
//! sides use follows from the addresses, and the other one is idle. With a real Drill there are always two, because it
//! knows a node by more than its address, and so does not find the one that it has.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use membership::NodeAddress;
use protos::coord::DrillbitEndpoint;
use rpc_bus::{
    BudgetExceeded, CallError, Capabilities, CloseReason, ConnectError, Feature, Handler,
    RemoteConnection, ledger::Kind, task::Tasks,
};
use tokio::sync::watch;

use crate::{
    channel::{Around, ChannelSide},
    connect::Dialing,
    dispatch::ConnectionHandler,
    handshake::{Introduction, hello},
    lock,
    server::Host,
    services::Services,
};

/// Which side has opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// This one.
    Outbound,
    /// The peer.
    Inbound,
}

/// A connection with a node.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) connection: RemoteConnection,
    pub(crate) direction: Direction,
    /// Who the peer said it is.
    pub(crate) endpoint: Option<DrillbitEndpoint>,
    pub(crate) channels: Arc<ChannelSide>,
}

impl Line {
    fn incarnation(&self) -> Option<u64> {
        self.connection.peer_capabilities()?.incarnation
    }
}

/// What is known of a node that this one is connected with.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// What it is known by.
    pub address: NodeAddress,
    /// Who it said it is when it was connected, if it said so. A real Drill only does when it connects.
    pub endpoint: Option<DrillbitEndpoint>,
    /// What both sides can do beside Drill's protocol; `None` for a real Drill.
    pub capabilities: Option<Arc<Capabilities>>,
    /// Its connections, the one that is used first.
    pub connections: Vec<(Direction, RemoteConnection)>,
    /// Channels that are open on them.
    pub channels: usize,
}

type Attempt = Result<Line, ConnectError>;

/// All of them.
pub(crate) struct Peers {
    this: Weak<Self>,
    /// This node.
    pub(crate) here: Here,
    pub(crate) services: Arc<Services>,
    pub(crate) around: Arc<Around>,
    dialing: Dialing,
    limits: PeerLimits,
    by_address: Mutex<HashMap<NodeAddress, Peer>>,
    tasks: Tasks,
    is_closed: AtomicBool,
}

/// This node, as others see it.
pub(crate) struct Here {
    pub(crate) endpoint: Mutex<DrillbitEndpoint>,
    /// Set once the server listens.
    pub(crate) address: OnceLock<NodeAddress>,
}

/// How much peers may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerLimits {
    pub(crate) nodes_max: usize,
    pub(crate) connections_per_node_max: usize,
    /// Whether connections that a real Drill has opened are of use: not with authentication, because the side that
    /// connects then answers nothing.
    pub(crate) calls_drill_back: bool,
}

/// One node.
#[derive(Default)]
struct Peer {
    /// Connections that were open when they were last looked at.
    lines: Vec<Line>,
    /// While one is being made: who waits for it learns what came of it, or of one that came from the peer.
    attempt: Option<watch::Sender<Option<Attempt>>>,
}

impl Peer {
    fn is_in_use(&self) -> bool {
        self.attempt.is_some() || !self.lines.is_empty()
    }

    fn forget_closed(&mut self) {
        self.lines.retain(|line| !line.connection.is_closed());
    }

    /// Adds a connection. Those of an earlier start of the peer are of no use any more, even if nobody has told.
    fn add(&mut self, line: Line) -> Vec<Line> {
        self.forget_closed();
        let incarnation = line.incarnation();
        let is_of_the_past = |old: &mut Line| match (old.incarnation(), incarnation) {
            (Some(old), Some(new)) => old != new,
            _ => false,
        };
        let stale = self.lines.extract_if(.., is_of_the_past).collect();
        if let Some(attempt) = &self.attempt {
            attempt.send_replace(Some(Ok(line.clone())));
        }
        self.lines.push(line);
        stale
    }
}

impl Peers {
    pub(crate) fn new(
        here: Here,
        services: Arc<Services>,
        around: Around,
        dialing: Dialing,
        limits: PeerLimits,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            here,
            services,
            around: Arc::new(around),
            dialing,
            limits,
            by_address: Mutex::default(),
            tasks: Tasks::default(),
            is_closed: AtomicBool::new(false),
        })
    }

    /// The address of this node.
    pub(crate) fn address(&self) -> &NodeAddress {
        let address = self.here.address.get();
        address.expect("invariant: peers are there once the server listens")
    }

    /// A connection with `node`: one that is there, or a new one. One is made at a time, and all wait for it.
    pub(crate) async fn line(&self, node: &NodeAddress) -> Result<Line, CallError> {
        let mut attempt = match self.find_or_dial(node)? {
            Found::Line(line) => return Ok(line),
            Found::Attempt(attempt) => attempt,
        };
        match attempt.wait_for(Option::is_some).await {
            Ok(outcome) => {
                let outcome = outcome.clone();
                Ok(outcome.unwrap_or(Err(CloseReason::Aborted.into()))?)
            }
            // The task was stopped.
            Err(_) => Err(CloseReason::ShuttingDown.into()),
        }
    }

    /// The connection that [`Self::line`] would give, if there is one.
    pub(crate) fn open(&self, node: &NodeAddress) -> Option<RemoteConnection> {
        let mut peers = lock(&self.by_address);
        let peer = peers.get_mut(node)?;
        peer.forget_closed();
        let line = self.preferred(node, &peer.lines)?;
        Some(line.connection.clone())
    }

    fn find_or_dial(&self, node: &NodeAddress) -> Result<Found, CallError> {
        let mut peers = lock(&self.by_address);
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(CloseReason::ShuttingDown.into());
        }
        self.make_room(&mut peers, node)?;
        let peer = peers.entry(node.clone()).or_default();
        peer.forget_closed();
        if let Some(line) = self.preferred(node, &peer.lines) {
            return Ok(Found::Line(line.clone()));
        }
        if let Some(attempt) = &peer.attempt {
            return Ok(Found::Attempt(attempt.subscribe()));
        }
        let (sender, receiver) = watch::channel(None);
        peer.attempt = Some(sender);
        drop(peers);
        if let Err(exceeded) = self.dial_later(node) {
            self.end_attempt(node, Err(exceeded.into()));
        }
        Ok(Found::Attempt(receiver))
    }

    /// The connection that both sides use: that of the side with the lower address, if there is one.
    fn preferred<'a>(&self, node: &NodeAddress, lines: &'a [Line]) -> Option<&'a Line> {
        let opened_by = |line: &&Line| match line.direction {
            Direction::Outbound => self.address(),
            Direction::Inbound => node,
        };
        let is_of_use = |line: &&Line| {
            self.limits.calls_drill_back
                || line.direction == Direction::Outbound
                || line.connection.peer_capabilities().is_some()
        };
        let usable = lines.iter().filter(is_of_use);
        usable.min_by(|a, b| opened_by(a).cmp(opened_by(b)))
    }

    /// Room for one more node, if `node` is a new one.
    fn make_room(
        &self,
        peers: &mut HashMap<NodeAddress, Peer>,
        node: &NodeAddress,
    ) -> Result<(), BudgetExceeded> {
        let limit = self.limits.nodes_max;
        if peers.contains_key(node) || peers.len() < limit {
            return Ok(());
        }
        peers.retain(|_, peer| peer.is_in_use());
        if peers.len() < limit {
            return Ok(());
        }
        Err(BudgetExceeded {
            ledger: "nodes of the control plane".into(),
            kind: Kind::Files,
            requested: 1,
            used: peers.len(),
            limit,
        })
    }

    fn dial_later(&self, node: &NodeAddress) -> Result<(), BudgetExceeded> {
        let (this, node) = (self.this.clone(), node.clone());
        let dial = async move {
            let Some(peers) = this.upgrade() else { return };
            let outcome = peers.dial(&node).await;
            peers.end_attempt(&node, outcome);
        };
        let (runtime, ledger) = (&self.dialing.runtime, &self.dialing.ledger);
        self.tasks.spawn(runtime.app(), ledger, dial)
    }

    async fn dial(&self, node: &NodeAddress) -> Attempt {
        let hello = hello(&self.endpoint());
        let (channels, handler) = self.serve(node, Direction::Outbound);
        let (connection, endpoint) = self.dialing.connect(node, hello, handler).await?;
        Ok(Line {
            connection,
            direction: Direction::Outbound,
            endpoint,
            channels,
        })
    }

    /// Tells all who wait what came of it.
    fn end_attempt(&self, node: &NodeAddress, outcome: Attempt) {
        let mut peers = lock(&self.by_address);
        let is_closed = self.is_closed.load(Ordering::SeqCst);
        let peer = peers.entry(node.clone()).or_default();
        let Some(attempt) = peer.attempt.take() else {
            return;
        };
        let stale = match &outcome {
            Ok(line) if is_closed => vec![line.clone()],
            Ok(line) => peer.add(line.clone()),
            Err(_) => Vec::new(),
        };
        // Unless they got another one in the meantime.
        attempt.send_if_modified(|told| {
            let is_news = told.is_none();
            if is_news {
                *told = Some(outcome);
            }
            is_news
        });
        if !peer.is_in_use() {
            peers.remove(node);
        }
        drop(peers);
        close(&stale);
    }

    /// Who serves a connection with `node`, and its channels.
    fn serve(
        &self,
        node: &NodeAddress,
        direction: Direction,
    ) -> (Arc<ChannelSide>, Arc<dyn Handler>) {
        let channels = ChannelSide::new(node, direction, &self.around);
        let handler = ConnectionHandler {
            from: node.clone(),
            services: Arc::clone(&self.services),
            channels: Arc::clone(&channels),
            peers: self.this.clone(),
        };
        (channels, Arc::new(handler))
    }

    /// A connection with `node` has ended.
    pub(crate) fn forget_closed(&self, node: &NodeAddress) {
        let mut peers = lock(&self.by_address);
        if let Some(peer) = peers.get_mut(node) {
            peer.forget_closed();
            if !peer.is_in_use() {
                peers.remove(node);
            }
        }
    }

    /// What is known of `node`; `None` while it is not connected.
    pub(crate) fn info(&self, node: &NodeAddress) -> Option<PeerInfo> {
        let peers = lock(&self.by_address);
        self.describe(node, peers.get(node)?)
    }

    /// All nodes that are connected.
    pub(crate) fn infos(&self) -> Vec<PeerInfo> {
        let peers = lock(&self.by_address);
        let described = peers
            .iter()
            .filter_map(|(node, peer)| self.describe(node, peer));
        let mut infos: Vec<_> = described.collect();
        infos.sort_by(|a, b| a.address.cmp(&b.address));
        infos
    }

    fn describe(&self, node: &NodeAddress, peer: &Peer) -> Option<PeerInfo> {
        let open = |line: &&Line| !line.connection.is_closed();
        let first = self.preferred(node, &peer.lines).filter(open);
        let first = first.or_else(|| peer.lines.iter().find(open))?;
        let others = peer.lines.iter().filter(open);
        let others = others.filter(|line| line.connection.id() != first.connection.id());
        let connections = [first].into_iter().chain(others);
        Some(PeerInfo {
            address: node.clone(),
            channels: connections.clone().map(|line| line.channels.count()).sum(),
            endpoint: connections.clone().find_map(|line| line.endpoint.clone()),
            capabilities: first.connection.peer_capabilities(),
            connections: connections
                .map(|line| (line.direction, line.connection.clone()))
                .collect(),
        })
    }

    /// Closes all connections with `node`.
    pub(crate) fn disconnect(&self, node: &NodeAddress) {
        let lines = lock(&self.by_address)
            .get_mut(node)
            .map(|peer| std::mem::take(&mut peer.lines));
        close(&lines.unwrap_or_default());
    }

    /// Closes all connections; none is made any more.
    pub(crate) fn close(&self) {
        let peers = {
            let mut peers = lock(&self.by_address);
            self.is_closed.store(true, Ordering::SeqCst);
            std::mem::take(&mut *peers)
        };
        self.tasks.abort();
        for peer in peers.values() {
            close(&peer.lines);
        }
    }
}

enum Found {
    Line(Line),
    Attempt(watch::Receiver<Option<Attempt>>),
}

fn close(lines: &[Line]) {
    for line in lines {
        line.connection.close();
    }
}

impl Host for Peers {
    fn endpoint(&self) -> DrillbitEndpoint {
        lock(&self.here.endpoint).clone()
    }

    fn accepted(
        &self,
        peer: &Introduction,
        connection: &RemoteConnection,
    ) -> Result<Arc<dyn Handler>, String> {
        let node = &peer.address;
        let mut peers = lock(&self.by_address);
        let is_ready = self.here.address.get().is_some();
        if !is_ready || self.is_closed.load(Ordering::SeqCst) {
            return Err("this node is starting or shutting down".to_owned());
        }
        self.make_room(&mut peers, node)
            .map_err(|exceeded| exceeded.to_string())?;
        let known = peers.entry(node.clone()).or_default();
        known.forget_closed();
        let max = self.limits.connections_per_node_max;
        if known.lines.len() >= max {
            return Err(format!("{max} connections with {node} are open already"));
        }
        let (channels, handler) = self.serve(node, Direction::Inbound);
        let stale = known.add(Line {
            connection: connection.clone(),
            direction: Direction::Inbound,
            endpoint: Some(peer.endpoint.clone()),
            channels,
        });
        drop(peers);
        close(&stale);
        Ok(handler)
    }
}

impl PeerInfo {
    /// Whether `feature` was agreed on.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        let capabilities = self.capabilities.as_ref();
        capabilities.is_some_and(|agreed| agreed.features.contains(feature))
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers")
            .field("here", &self.here.address)
            .finish_non_exhaustive()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.close();
    }
}
