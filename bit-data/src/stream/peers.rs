//! Connections to the nodes that this one receives from: a few for each, over which its streams are spread.

use std::{
    collections::HashMap,
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

use super::{error::OpenError, receiver_side::ReceiverSide, stats::lock};
use crate::connect::{DataTarget, connect};

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

/// All of them, by address.
pub(crate) struct Peers {
    dialing: Dialing,
    by_address: Mutex<HashMap<SocketAddr, Arc<Peer>>>,
    is_closed: AtomicBool,
}

struct Peer {
    places: Vec<tokio::sync::Mutex<Option<Line>>>,
    next: AtomicUsize,
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
    /// IP address.
    ///
    /// # Errors
    ///
    /// None could be made, the peer is not one of ours, or this node is gone.
    pub async fn connect(&self, address: SocketAddr, host: &str) -> Result<(), OpenError> {
        let peers = self.0.upgrade().ok_or(OpenError::ShuttingDown)?;
        if peers.open(address).is_empty() {
            peers.line_to(address, Some(host)).await?;
        }
        Ok(())
    }

    /// The connections that are open with a node. Does not wait: one that is being made is none.
    #[must_use]
    pub fn connections(&self, address: SocketAddr) -> Vec<RemoteConnection> {
        let peers = self.0.upgrade();
        peers.map_or_else(Vec::new, |peers| peers.open(address))
    }

    /// Ends the connections with a node, and with them the streams that it sends: it is down.
    pub fn disconnect(&self, address: SocketAddr) {
        for connection in self.connections(address) {
            connection.close();
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
    pub(crate) fn new(dialing: Dialing) -> Self {
        Self {
            dialing,
            by_address: Mutex::default(),
            is_closed: AtomicBool::new(false),
        }
    }

    /// A connection to `address`: each in turn, made where there is none.
    pub(crate) async fn line(&self, address: SocketAddr) -> Result<Line, OpenError> {
        self.line_to(address, None).await
    }

    /// The same, to a node whose name is known.
    async fn line_to(&self, address: SocketAddr, host: Option<&str>) -> Result<Line, OpenError> {
        let peer = self.peer(address);
        let turn = peer.next.fetch_add(1, Ordering::Relaxed) % peer.places.len();
        // Held while connecting: others wait for the same connection.
        let mut place = peer.places[turn].lock().await;
        if let Some(line) = &*place
            && !line.connection.is_closed()
        {
            return Ok(line.clone());
        }
        let line = self.connect(address, host).await?;
        *place = Some(line.clone());
        drop(place);
        // Closed while this one was being made.
        if self.is_closed.load(Ordering::SeqCst) {
            line.connection.close();
            return Err(OpenError::ShuttingDown);
        }
        Ok(line)
    }

    /// The connections with `address` that are open.
    fn open(&self, address: SocketAddr) -> Vec<RemoteConnection> {
        let peer = lock(&self.by_address).get(&address).map(Arc::clone);
        let places = peer.iter().flat_map(|peer| &peer.places);
        let lines =
            places.filter_map(|place| Some(place.try_lock().ok()?.as_ref()?.connection.clone()));
        lines.filter(|connection| !connection.is_closed()).collect()
    }

    fn peer(&self, address: SocketAddr) -> Arc<Peer> {
        let mut peers = lock(&self.by_address);
        if !peers.contains_key(&address) {
            peers.retain(|_, peer| peer.is_in_use());
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
        let side = ReceiverSide::new();
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
        for place in peers.values().flat_map(|peer| &peer.places) {
            // Who holds it is connecting, and looks whether all is closed.
            if let Ok(mut place) = place.try_lock()
                && let Some(line) = place.take()
            {
                line.connection.close();
            }
        }
    }
}

impl Peer {
    fn new(places: usize) -> Self {
        Self {
            places: (0..places).map(|_| tokio::sync::Mutex::default()).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Whether a connection is there, or being made.
    fn is_in_use(&self) -> bool {
        let in_use = |place: &tokio::sync::Mutex<Option<Line>>| match place.try_lock() {
            Ok(line) => line
                .as_ref()
                .is_some_and(|line| !line.connection.is_closed()),
            Err(_) => true,
        };
        self.places.iter().any(in_use)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.close();
    }
}

impl Line {
    /// Why the connection has ended, for a stream that found it so.
    pub(crate) fn lost(reason: CloseReason) -> OpenError {
        CallError::Lost(reason).into()
    }
}
