//! Accepting: one listener, its limits, and the connections that came of it.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use protos::Plane;
use tokio_util::sync::CancellationToken;

use crate::{
    connection::Connection,
    dispatch::{Acceptor, Service},
    error::CloseReason,
    ledger::Ledger,
    link::{self, Link},
    network::network,
    options::{ConnectionOptions, OptionsError},
    pace::Pace,
    remote::RemoteConnection,
    runtime::BusRuntime,
    socket::{Socket, SocketError, Stream},
    spawn::Parts,
    task::Tasks,
    tls::{Handshake, TlsServer},
    transport::Listener,
};

/// How long to wait before accepting again, when the system refused: file handles come back in their own time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Addresses that are remembered although nobody is connected from them, before those are forgotten whose pace is over.
const GONE_PEERS_MAX: usize = 1024;

/// Limits of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Limits of each connection.
    pub connection: ConnectionOptions,
    /// Connections at a time, handshake or not; one more is closed at once. Default 10,000.
    pub connections_max: usize,
    /// Connections at a time from one peer address, with IPv6 from one /64; one more is closed at once. Default 1,000, so
    /// that one address never takes all places; `None`, no limit of its own, where all users come through one proxy.
    pub connections_per_peer_max: Option<usize>,
    /// How many connections of one such address are served a second, once a second's worth has come at once. Those that
    /// come faster wait for their turn, and hold their place while they do: so a flood of handshakes that fail is slowed
    /// down, and costs little. Default 500; `None`: none waits.
    pub connects_per_peer_second_max: Option<NonZeroU32>,
    /// Connections that the kernel may hold for us before they are accepted. Default 1,024.
    pub backlog: u32,
    /// TLS in front of the frames; a peer without it is closed. Its handshake counts against the same limits and the
    /// same time as the plane's own. Default `None`: the bytes go over the wire as they are.
    pub tls: Option<TlsServer>,
}

impl ServerOptions {
    /// Defaults around the limits of a connection.
    #[must_use]
    pub fn new(connection: ConnectionOptions) -> Self {
        Self {
            connection,
            connections_max: 10_000,
            connections_per_peer_max: Some(1000),
            connects_per_peer_second_max: NonZeroU32::new(500),
            backlog: 1024,
            tls: None,
        }
    }

    /// Checks how the values relate.
    ///
    /// # Errors
    ///
    /// Two values contradict each other, or one can never work.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let per_peer = self.connections_per_peer_max;
        for (name, limit) in [
            ("connections_max", self.connections_max),
            ("connections_per_peer_max", per_peer.unwrap_or(1)),
        ] {
            if limit == 0 {
                return Err(OptionsError::Zero { name });
            }
        }
        self.connection.validate()
    }
}

/// A listener and its connections. Dropping it ends all of them at once; see [`Self::shutdown`].
#[derive(Debug)]
pub struct Server {
    local: SocketAddr,
    accepting: Tasks,
    shared: Arc<Shared>,
}

struct Shared {
    plane: Plane,
    runtime: BusRuntime,
    options: ServerOptions,
    ledger: Ledger,
    acceptor: Arc<dyn Acceptor>,
    tasks: Tasks,
    /// Ends what connections do before they are listed.
    stopping: CancellationToken,
    open: Mutex<OpenConnections>,
}

#[derive(Default)]
struct OpenConnections {
    /// By id, and so in the order in which they came.
    links: BTreeMap<u64, Weak<Link>>,
    count: usize,
    /// By [`network`].
    peers: HashMap<IpAddr, Peer>,
    refused: u64,
}

/// One address.
struct Peer {
    /// Its connections.
    count: usize,
    pace: Pace,
}

impl OpenConnections {
    /// Takes a place for a connection from `ip`; returns how long it has to wait. `None`: there is no place.
    fn admit(&mut self, ip: IpAddr, options: &ServerOptions, now: Instant) -> Option<Duration> {
        if self.peers.len() > GONE_PEERS_MAX + 2 * self.count {
            self.peers
                .retain(|_, peer| peer.count > 0 || !peer.pace.is_over(now));
        }
        let ip = network(ip);
        let of_peer = self.peers.get(&ip).map_or(0, |peer| peer.count);
        let peer_is_full = options
            .connections_per_peer_max
            .is_some_and(|max| of_peer >= max);
        if self.count >= options.connections_max || peer_is_full {
            self.refused += 1;
            return None;
        }
        self.count += 1;
        let pace = Pace::new(now);
        let peer = self.peers.entry(ip).or_insert(Peer { count: 0, pace });
        peer.count += 1;
        let per_second = options.connects_per_peer_second_max;
        Some(per_second.map_or(Duration::ZERO, |rate| peer.pace.arrive(now, rate)))
    }

    fn give_back(&mut self, ip: IpAddr, now: Instant) {
        let ip = network(ip);
        self.count -= 1;
        if let Some(peer) = self.peers.get_mut(&ip) {
            peer.count -= 1;
            if peer.count == 0 && peer.pace.is_over(now) {
                self.peers.remove(&ip);
            }
        }
    }
}

impl Server {
    /// Listens on `addr` and accepts from now on. `acceptor` judges handshakes.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, the options contradict each other, or the ledger has no room.
    // Nothing is awaited today; the signature leaves room for name resolution.
    #[allow(clippy::unused_async)]
    pub async fn bind(
        addr: SocketAddr,
        plane: Plane,
        runtime: BusRuntime,
        options: ServerOptions,
        ledger: Ledger,
        acceptor: Arc<dyn Acceptor>,
    ) -> io::Result<Self> {
        options
            .validate()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let io = runtime.next_io().clone();
        let listener = {
            let _within = io.enter();
            runtime.network().listen(addr, options.backlog)?
        };
        let local = listener.local_addr()?;
        let shared = Arc::new(Shared {
            plane,
            runtime,
            options,
            ledger: ledger.clone(),
            acceptor,
            tasks: Tasks::default(),
            stopping: CancellationToken::new(),
            open: Mutex::default(),
        });
        let accepting = Tasks::default();
        let accept = accept_loop(listener, Arc::clone(&shared));
        accepting
            .spawn(&io, &ledger, accept)
            .map_err(io::Error::other)?;
        Ok(Self {
            local,
            accepting,
            shared,
        })
    }

    /// Where it listens; the port that the system chose, if it was left to it.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Handles on all connections that are open now.
    #[must_use]
    pub fn connections(&self) -> Vec<RemoteConnection> {
        self.shared
            .links()
            .map(RemoteConnection::of_server)
            .collect()
    }

    /// Connections closed at once because there were too many.
    #[must_use]
    pub fn connections_refused(&self) -> u64 {
        self.shared.lock().refused
    }

    /// Stops accepting, closes every connection, and waits until they have ended: at most `grace`, or
    /// [`ConnectionOptions::linger_timeout`] if that is longer, since what is queued is still written.
    pub async fn shutdown(self, grace: Duration) {
        self.accepting.join(Duration::ZERO).await;
        self.shared.stopping.cancel();
        for link in self.shared.links() {
            link.close(CloseReason::ShuttingDown);
        }
        let linger = self.shared.options.connection.linger_timeout;
        self.shared.tasks.join(grace.max(linger)).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.tasks.abort();
    }
}

async fn accept_loop(listener: Listener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => shared.admit(stream, peer),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept, trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

// A peer that gave up before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

impl Shared {
    fn admit(self: &Arc<Self>, stream: Stream, peer: SocketAddr) {
        let Some((admitted, wait)) = self.try_admit(peer.ip()) else {
            tracing::debug!(%peer, "too many connections");
            return;
        };
        let shared = Arc::clone(self);
        let io = self.runtime.next_io();
        let task = async move {
            if !wait.is_zero() {
                shared.pause(wait).await;
            }
            match shared.open(stream, link::now()).await {
                Ok(parts) => shared.run(parts, admitted).await,
                Err(SocketError::Closed(reason)) => {
                    let (plane, kind) = (shared.plane.name(), reason.kind());
                    shared
                        .runtime
                        .metrics()
                        .on_not_accepted(shared.plane, &reason);
                    tracing::info!(plane, %peer, kind, %reason, "connection closed");
                }
                Err(error) => tracing::debug!(%peer, %error, "connection not accepted"),
            }
        };
        if let Err(error) = self.tasks.spawn(io, &self.ledger, task) {
            tracing::debug!(%peer, %error, "connection not accepted");
        }
    }

    /// Lets a connection wait for its turn, unless the server stops.
    async fn pause(&self, wait: Duration) {
        let waiting = tokio::time::sleep(wait);
        // Boxed: few connections wait, and all would hold room for it. A server that stops ends them later.
        let _ = Box::pin(self.stopping.run_until_cancelled(waiting)).await;
    }

    /// Makes a connection of a socket that is served from `since`.
    async fn open(&self, stream: Stream, since: Instant) -> Result<Parts, SocketError> {
        let options = &self.options.connection;
        // Moves the socket to the runtime that drives it.
        let mut socket = Socket::new(stream.moved_here()?, options, &self.ledger)?;
        if let Some(tls) = &self.options.tls {
            let handshake = socket.accept_tls(Handshake::new(options, since), tls);
            // Boxed: TLS is large until it is agreed on, and most connections have none.
            let done = Box::pin(self.stopping.run_until_cancelled(handshake)).await;
            socket = done.unwrap_or(Err(CloseReason::ShuttingDown))?;
        }
        let connection = Connection::server(self.plane, options.clone(), &self.ledger, since);
        let bodies = self.runtime.bodies();
        Ok(Parts::new(
            socket,
            self.plane,
            connection,
            options,
            bodies,
            &self.ledger,
        )?)
    }

    async fn run(self: Arc<Self>, parts: Parts, mut admitted: Admitted) {
        admitted.list(&parts.link);
        if self.stopping.is_cancelled() {
            // Those that were listed by then have been closed.
            parts.link.close(CloseReason::ShuttingDown);
        }
        let drainer = parts.drainer(Service::Acceptor(Arc::clone(&self.acceptor)));
        if let Err(error) = self.tasks.spawn(self.runtime.app(), &self.ledger, drainer) {
            parts.link.close(error.into());
        }
        let driver = parts.driver(self.runtime.metrics());
        // Only the server itself holds on to what the server shares.
        drop(self);
        driver.await;
    }

    /// A place, and how long to wait before it is served.
    fn try_admit(self: &Arc<Self>, ip: IpAddr) -> Option<(Admitted, Duration)> {
        let admitted = self.lock().admit(ip, &self.options, link::now());
        let Some(wait) = admitted else {
            self.runtime.metrics().on_refused(self.plane);
            return None;
        };
        let admitted = Admitted {
            shared: Arc::downgrade(self),
            ip,
            id: None,
        };
        Some((admitted, wait))
    }

    fn links(&self) -> impl Iterator<Item = Arc<Link>> + use<> {
        let links: Vec<_> = self
            .lock()
            .links
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        links.into_iter()
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("plane", &self.plane)
            .finish_non_exhaustive()
    }
}

/// One connection's place among the limits, given back when dropped.
struct Admitted {
    shared: Weak<Shared>,
    ip: IpAddr,
    id: Option<u64>,
}

impl Admitted {
    fn list(&mut self, link: &Arc<Link>) {
        if let Some(shared) = self.shared.upgrade() {
            self.id = Some(link.ends.id);
            shared
                .lock()
                .links
                .insert(link.ends.id, Arc::downgrade(link));
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut open = shared.lock();
        if let Some(id) = self.id {
            open.links.remove(&id);
        }
        open.give_back(self.ip, link::now());
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn options() -> ServerOptions {
        ServerOptions::new(ConnectionOptions::user_server())
    }

    #[test]
    fn a_limit_of_no_connections_is_refused() {
        assert_eq!(options().validate(), Ok(()));
        let none = ServerOptions {
            connections_max: 0,
            ..options()
        };
        let none_of_a_peer = ServerOptions {
            connections_per_peer_max: Some(0),
            ..options()
        };
        for closed in [none, none_of_a_peer] {
            assert!(matches!(closed.validate(), Err(OptionsError::Zero { .. })));
        }
    }

    #[test]
    fn one_address_gets_its_share_of_the_places_and_others_the_rest() {
        let (options, now) = (options(), Instant::now());
        let mut open = OpenConnections::default();
        let admitted = (0..1100).filter_map(|_| open.admit(ONE, &options, now));
        assert_eq!(admitted.count(), 1000);
        let other = IpAddr::from([10, 0, 0, 2]);
        assert_eq!(open.admit(other, &options, now), Some(Duration::ZERO));
        assert_eq!((open.count, open.refused), (1001, 100));
    }

    #[test]
    fn one_ipv6_network_gets_no_more_than_one_address() {
        let (options, now) = (options(), Instant::now());
        let mut open = OpenConnections::default();
        let address = |host: u64| -> IpAddr {
            let network = 0x2001_0db8_0000_0001_u128 << 64;
            Ipv6Addr::from_bits(network | u128::from(host)).into()
        };
        let admitted = (0..1100).filter_map(|host| open.admit(address(host), &options, now));
        assert_eq!(admitted.count(), 1000);
        assert_eq!(open.peers.len(), 1);
        (0..1000).for_each(|host| open.give_back(address(host), now));
        let wait = open.admit(address(2000), &options, now);
        assert!(wait.is_some_and(|wait| !wait.is_zero()), "{wait:?}");
        assert_eq!(open.count, 1);
    }

    #[test]
    fn connections_that_come_and_go_too_fast_wait() {
        let (options, now) = (options(), Instant::now());
        let mut open = OpenConnections::default();
        let waits = (0..1001).map(|_| {
            let wait = open.admit(ONE, &options, now);
            open.give_back(ONE, now);
            wait.unwrap_or_default()
        });
        assert_eq!(waits.max(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn addresses_are_forgotten_once_their_pace_is_over() {
        let (options, now) = (options(), Instant::now());
        let mut open = OpenConnections::default();
        for address in 0..10_000_u32 {
            let ip = IpAddr::from(address.to_be_bytes());
            let later = now + Duration::from_millis(u64::from(address));
            open.admit(ip, &options, later);
            open.give_back(ip, later);
        }
        assert!(
            open.peers.len() <= GONE_PEERS_MAX + 1,
            "{}",
            open.peers.len()
        );
    }
}
