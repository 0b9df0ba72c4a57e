//! Connections to the nodes that this one receives from: a few for each, over which its streams are spread.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rpc_bus::{
    BusRuntime, CallError, CloseReason, ConnectionOptions, Feature, Ledger, RemoteConnection,
    auth::Login, tls::TlsClient,
};
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

use super::{
    error::{NodeDown, OpenError},
    receiver_side::ReceiverSide,
    sender_side::Sides,
    stats::lock,
};
use crate::connect::{DataTarget, connect};

/// Nodes that go down at a time and are told to each stream that is being opened; others end by their own timeouts.
const DOWNS_MAX: usize = 64;

/// How to connect to any of them.
#[derive(Clone)]
pub(crate) struct Dialing {
    pub(crate) runtime: BusRuntime,
    pub(crate) tls: Option<TlsClient>,
    pub(crate) login: Option<Login>,
    pub(crate) options: ConnectionOptions,
    pub(crate) ledger: Ledger,
    pub(crate) connections_per_peer: usize,
}

impl Dialing {
    /// What this process tells its peers.
    pub(crate) fn incarnation(&self) -> Option<u64> {
        self.options.capabilities.as_ref()?.incarnation
    }
}

/// All of them, by address.
pub(crate) struct Peers {
    dialing: Dialing,
    by_address: Mutex<BTreeMap<SocketAddr, Arc<Peer>>>,
    is_closed: AtomicBool,
    /// For those that are connecting.
    downs: broadcast::Sender<NodeDown>,
    /// What others have opened to this node.
    accepted: Arc<Sides>,
}

/// A node, listed as long as somebody uses it, a connection is open, or its name is known.
struct Peer {
    places: Vec<Place>,
    next: AtomicUsize,
    /// What its certificate is for, if that is known.
    host: Mutex<Option<String>>,
    /// How often it was disconnected. Counted before its connections are looked for, and looked at when one is put in its
    /// place, under the lock of that: so that none is missed that was being made.
    disconnects: AtomicUsize,
}

#[derive(Default)]
struct Place {
    line: Mutex<Option<Line>>,
    /// Held while connecting: others wait for the same connection.
    connecting: tokio::sync::Mutex<()>,
}

/// The connections that a node has opened to others, for whoever watches over nodes. It does not keep the node.
#[derive(Clone)]
pub struct DataPeers(Weak<Peers>);

impl DataPeers {
    pub(crate) fn of(peers: &Arc<Peers>) -> Self {
        Self(Arc::downgrade(peers))
    }

    /// Connects with the node whose data server listens at `address`, if there is no connection: its beats are measured
    /// from then on, and the first stream need not wait for it. With TLS its certificate must be for `host`, a name or an
    /// IP address, from now on until it is disconnected.
    ///
    /// # Errors
    ///
    /// None could be made, the peer is not one of ours, or this node is gone.
    pub async fn connect(&self, address: SocketAddr, host: &str) -> Result<(), OpenError> {
        let peers = self.0.upgrade().ok_or(OpenError::ShuttingDown)?;
        *lock(&peers.peer(address).host) = Some(host.to_owned());
        if peers.open(address).is_empty() {
            peers.line(address).await?;
        }
        Ok(())
    }

    /// The connections that are open with a node. Does not wait: one that is being made is none.
    #[must_use]
    pub fn connections(&self, address: SocketAddr) -> Vec<RemoteConnection> {
        let peers = self.0.upgrade();
        peers.map_or_else(Vec::new, |peers| peers.open(address))
    }

    /// The process that drew `incarnation` is down, because of `reason`: its streams end at once, those that this node
    /// receives, sends, and opens with [`Origin::Incarnation`](super::Origin), with an error that says so. Its connections
    /// are closed. A process that is not down after all, and only was not heard of, may be connected to again.
    pub fn node_down(&self, incarnation: u64, reason: &str) {
        let down = NodeDown {
            incarnation,
            reason: reason.into(),
        };
        if let Some(peers) = self.0.upgrade() {
            peers.node_down(&down);
        }
    }

    /// Ends the connections with the node at an address, those that are being made too, and with them the streams that it
    /// sends: it is not wanted any more.
    pub fn disconnect(&self, address: SocketAddr) {
        if let Some(peers) = self.0.upgrade() {
            peers.disconnect(address);
        }
    }
}

impl fmt::Debug for DataPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPeers").finish_non_exhaustive()
    }
}

/// A connection and the streams on it.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) connection: RemoteConnection,
    pub(crate) side: Arc<ReceiverSide>,
}

impl Peers {
    pub(crate) fn new(dialing: Dialing, accepted: Arc<Sides>) -> Self {
        Self {
            dialing,
            by_address: Mutex::default(),
            is_closed: AtomicBool::new(false),
            downs: broadcast::Sender::new(DOWNS_MAX),
            accepted,
        }
    }

    /// A connection with the process at `address` that drew `incarnation`.
    ///
    /// # Errors
    ///
    /// There is another one, or it goes down.
    pub(crate) async fn line_with(
        &self,
        address: SocketAddr,
        incarnation: u64,
    ) -> Result<Line, OpenError> {
        let mut downs = self.downs.subscribe();
        let line = tokio::select! {
            biased;
            down = down_of(incarnation, &mut downs) => return Err(down.into()),
            line = self.line_in_turn(address, Some(incarnation)) => line?,
        };
        // Said while the connection took its place: who said it may not have found it there.
        if let Some(down) = down_already(incarnation, &mut downs) {
            line.connection.close();
            return Err(down.into());
        }
        Ok(line)
    }

    /// A connection to `address`: each in turn, made where there is none.
    pub(crate) async fn line(&self, address: SocketAddr) -> Result<Line, OpenError> {
        self.line_in_turn(address, None).await
    }

    async fn line_in_turn(
        &self,
        address: SocketAddr,
        expected: Option<u64>,
    ) -> Result<Line, OpenError> {
        let peer = self.peer(address);
        let turn = peer.next.fetch_add(1, Ordering::Relaxed) % peer.places.len();
        let place = &peer.places[turn];
        let _alone = place.connecting.lock().await;
        // What is open may be what is left of the process before. A connection that is made now shows who is there.
        if let Some(line) = place.open()
            && expected.is_none_or(|expected| line.incarnation() == Some(expected))
        {
            return Ok(line);
        }
        let line = self.line_at(address, &peer, place).await?;
        let actual = line.incarnation();
        match expected.filter(|&expected| actual != Some(expected)) {
            None => Ok(line),
            Some(expected) => Err(OpenError::OtherIncarnation {
                address,
                expected,
                actual,
            }),
        }
    }

    /// A new connection takes its place, unless one with the same process is open there.
    async fn line_at(
        &self,
        address: SocketAddr,
        peer: &Peer,
        place: &Place,
    ) -> Result<Line, OpenError> {
        let (disconnects, host) = (peer.disconnects(), lock(&peer.host).clone());
        let line = self.connect(address, host.as_deref()).await?;
        let mut held = lock(&place.line);
        if self.is_closed.load(Ordering::SeqCst) {
            line.connection.close();
            return Err(OpenError::ShuttingDown);
        }
        if peer.disconnects() != disconnects {
            line.connection.close();
            return Err(Line::lost(CloseReason::ClosedHere));
        }
        let before = held.take().filter(|before| !before.connection.is_closed());
        let kept = match before {
            Some(before) if before.incarnation() == line.incarnation() => {
                line.connection.close();
                before
            }
            before => {
                if let Some(before) = before {
                    before.connection.close();
                }
                line
            }
        };
        *held = Some(kept.clone());
        Ok(kept)
    }

    fn node_down(&self, down: &NodeDown) {
        // First: a connection that is not in its place yet is not found there. Nobody may be connecting.
        let _ = self.downs.send(down.clone());
        let peers: Vec<_> = lock(&self.by_address).values().map(Arc::clone).collect();
        for place in peers.iter().flat_map(|peer| &peer.places) {
            let line = place.open();
            let of_node = line.filter(|line| line.incarnation() == Some(down.incarnation));
            if let Some(line) = of_node {
                line.side.node_down(down);
                line.connection.close();
            }
        }
        self.accepted.node_down(down);
    }

    /// The connections with `address` that are open.
    fn open(&self, address: SocketAddr) -> Vec<RemoteConnection> {
        let peer = lock(&self.by_address).get(&address).map(Arc::clone);
        let places = peer.iter().flat_map(|peer| &peer.places);
        let lines = places.filter_map(Place::open);
        lines.map(|line| line.connection).collect()
    }

    /// Streams that are open on the connections of this node.
    #[cfg(test)]
    pub(crate) fn open_streams(&self) -> usize {
        let peers: Vec<_> = lock(&self.by_address).values().map(Arc::clone).collect();
        let places = peers.iter().flat_map(|peer| &peer.places);
        let lines = places.filter_map(Place::open);
        lines.map(|line| line.side.open_streams()).sum()
    }

    fn disconnect(&self, address: SocketAddr) {
        let peer = lock(&self.by_address).get(&address).map(Arc::clone);
        if let Some(peer) = peer {
            peer.disconnects.fetch_add(1, Ordering::SeqCst);
            *lock(&peer.host) = None;
            peer.close();
        }
    }

    fn peer(&self, address: SocketAddr) -> Arc<Peer> {
        let mut peers = lock(&self.by_address);
        if !peers.contains_key(&address) {
            // Who has looked one up, which is done under the same lock, may be about to connect.
            peers.retain(|_, peer| Arc::strong_count(peer) > 1 || peer.is_in_use());
        }
        let places = self.dialing.connections_per_peer.max(1);
        let peer = peers
            .entry(address)
            .or_insert_with(|| Arc::new(Peer::new(places)));
        Arc::clone(peer)
    }

    async fn connect(&self, address: SocketAddr, host: Option<&str>) -> Result<Line, OpenError> {
        let Dialing {
            runtime,
            tls,
            login,
            options,
            ledger,
            ..
        } = &self.dialing;
        let side = ReceiverSide::new(address);
        let named = tls.as_ref().zip(host);
        let named = named.and_then(|(tls, host)| tls.for_host(host).ok());
        let target = DataTarget {
            // A host that no certificate can name is known by its IP address.
            tls: named.or_else(|| tls.clone()),
            login: login.clone(),
            options: options.clone(),
            ..DataTarget::new(address, ledger.clone())
        };
        let connection = connect(target, runtime, Arc::clone(&side) as _).await?;
        if !connection.has(Feature::Streams) {
            connection.close();
            return Err(CallError::NotOffered(Feature::Streams).into());
        }
        Ok(Line { connection, side })
    }

    /// Ends all connections, and with them their streams.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let peers = std::mem::take(&mut *lock(&self.by_address));
        // Who is connecting looks whether all is closed.
        for peer in peers.values() {
            peer.close();
        }
    }
}

impl Peer {
    fn new(places: usize) -> Self {
        Self {
            places: (0..places).map(|_| Place::default()).collect(),
            next: AtomicUsize::new(0),
            host: Mutex::default(),
            disconnects: AtomicUsize::new(0),
        }
    }

    fn disconnects(&self) -> usize {
        self.disconnects.load(Ordering::SeqCst)
    }

    fn is_in_use(&self) -> bool {
        lock(&self.host).is_some() || self.places.iter().any(|place| place.open().is_some())
    }

    fn close(&self) {
        for place in &self.places {
            if let Some(line) = lock(&place.line).take() {
                line.connection.close();
            }
        }
    }
}

impl Place {
    /// The connection, if it has not ended.
    fn open(&self) -> Option<Line> {
        let line = lock(&self.line).clone()?;
        (!line.connection.is_closed()).then_some(line)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.close();
    }
}

impl Line {
    /// Of the process at the other end.
    fn incarnation(&self) -> Option<u64> {
        incarnation_of(&self.connection)
    }

    /// Why the connection has ended, for a stream that found it so.
    pub(crate) fn lost(reason: CloseReason) -> OpenError {
        CallError::Lost(reason).into()
    }
}

/// Of the process at the other end of a connection, if it has told.
pub(crate) fn incarnation_of(connection: &RemoteConnection) -> Option<u64> {
    connection.peer_capabilities()?.incarnation
}

/// Completes when the process that drew `incarnation` is said to be down.
async fn down_of(incarnation: u64, downs: &mut broadcast::Receiver<NodeDown>) -> NodeDown {
    loop {
        match downs.recv().await {
            Ok(down) if down.incarnation == incarnation => return down,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            // The sender lives as long as whoever waits here.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Whether the process that drew `incarnation` has been said to be down. Unlike a future that is polled once, it does
/// not say no because the task has used up what tokio lets it do at a time.
fn down_already(incarnation: u64, downs: &mut broadcast::Receiver<NodeDown>) -> Option<NodeDown> {
    loop {
        match downs.try_recv() {
            Ok(down) if down.incarnation == incarnation => return Some(down),
            Ok(_) | Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::future::poll_immediate;
    use rpc_bus::ledger::Limits;

    use super::*;
    use crate::stream::node::{DataNode, NodeOptions};

    async fn node() -> DataNode {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let runtime = BusRuntime::current(Arc::new(pool.expect("a pool")));
        let ledger = Ledger::root("node", Limits::default());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let node = DataNode::bind(any, runtime, NodeOptions::default(), ledger);
        node.await.expect("a port")
    }

    #[tokio::test]
    async fn that_a_node_is_down_is_seen_however_much_its_task_has_done() {
        let downs = broadcast::Sender::new(DOWNS_MAX);
        let mut told = downs.subscribe();
        for incarnation in [1, 2] {
            let reason = "no beat".into();
            downs
                .send(NodeDown {
                    incarnation,
                    reason,
                })
                .expect("somebody listens");
        }
        // All that tokio lets a task do before others have their turn.
        std::future::poll_fn(|context| {
            while let Poll::Ready(proceed) = tokio::task::coop::poll_proceed(context) {
                proceed.made_progress();
            }
            Poll::Ready(())
        })
        .await;
        let down = down_already(2, &mut told).expect("it was said");
        assert_eq!(down.incarnation, 2);
        assert!(down_already(2, &mut told).is_none());
    }

    #[tokio::test]
    async fn a_peer_that_somebody_is_about_to_connect_to_is_not_forgotten() {
        let here = node().await;
        let peers = here.peers().0.upgrade().expect("the node lives");
        let [one, other] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let looked_up = peers.peer(one);
        peers.peer(other);
        assert!(Arc::ptr_eq(&looked_up, &peers.peer(one)));
        drop(looked_up);
        peers.peer(other);
        peers.peer(SocketAddr::from(([127, 0, 0, 1], 3)));
        assert_eq!(lock(&peers.by_address).len(), 1, "nobody uses the others");
    }

    #[tokio::test]
    async fn a_connection_that_is_being_made_is_disconnected_too() {
        let (there, here) = (node().await, node().await);
        let (peers, address) = (here.peers(), there.local_addr());
        let mut connecting = Box::pin(peers.connect(address, "127.0.0.1"));
        assert!(poll_immediate(&mut connecting).await.is_none());
        peers.disconnect(address);
        let lost = connecting.await.expect_err("the node is said to be down");
        assert!(
            matches!(lost, OpenError::Call(CallError::Lost(_))),
            "{lost}"
        );
        assert!(peers.connections(address).is_empty());
        assert!(peers.connect(address, "127.0.0.1").await.is_ok());
    }
}
