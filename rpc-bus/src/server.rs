//! Accepting: one listener, its limits, and the connections that came of it.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use protos::Plane;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::Connection,
    dispatch::{Acceptor, Service},
    error::CloseReason,
    ledger::Ledger,
    link::{self, Link},
    options::{ConnectionOptions, OptionsError},
    remote::RemoteConnection,
    runtime::BusRuntime,
    socket::{Socket, SocketError},
    spawn::Parts,
    task::Tasks,
    tls::{Handshake, TlsServer},
};

/// How long to wait before accepting again, when the system refused: file handles come back in their own time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Limits of each connection.
    pub connection: ConnectionOptions,
    /// Connections at a time, handshake or not; one more is closed at once. Default 10,000.
    pub connections_max: usize,
    /// Connections at a time from one peer address; one more is closed at once. Default `None`: no limit of its own,
    /// because behind one address may be a proxy with all its users.
    pub connections_per_peer_max: Option<usize>,
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
            connections_per_peer_max: None,
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
        if let Some(per_peer) = per_peer
            && per_peer > self.connections_max
        {
            let all = self.connections_max;
            return Err(OptionsError::PeerConnections { per_peer, all });
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
    /// Ends TLS handshakes that are going on.
    stopping: CancellationToken,
    open: Mutex<OpenConnections>,
}

#[derive(Default)]
struct OpenConnections {
    links: HashMap<u64, Weak<Link>>,
    count: usize,
    per_peer: HashMap<IpAddr, usize>,
    refused: u64,
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
            listen(addr, options.backlog)?
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

    /// Stops accepting, closes every connection, and waits until they have ended, at most `grace`.
    pub async fn shutdown(self, grace: Duration) {
        self.accepting.join(Duration::ZERO).await;
        self.shared.stopping.cancel();
        for link in self.shared.links() {
            link.close(CloseReason::ShuttingDown);
        }
        self.shared.tasks.join(grace).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.tasks.abort();
    }
}

fn listen(addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(backlog)
}

async fn accept_loop(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => shared.admit(socket, peer),
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
    fn admit(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let Some(admitted) = self.try_admit(peer.ip()) else {
            tracing::debug!(%peer, "too many connections");
            return;
        };
        let shared = Arc::clone(self);
        let (io, since) = (self.runtime.next_io(), link::now());
        let task = async move {
            match shared.open(socket, since).await {
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

    /// Makes a connection of a socket that was accepted at `since`.
    async fn open(&self, socket: TcpStream, since: Instant) -> Result<Parts, SocketError> {
        let options = &self.options.connection;
        // Moves the socket to the runtime that drives it.
        let tcp = socket.into_std().and_then(TcpStream::from_std)?;
        let mut socket = Socket::plain(tcp, options, &self.ledger)?;
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
        let drainer = parts.drainer(Service::Acceptor(Arc::clone(&self.acceptor)));
        if let Err(error) = self.tasks.spawn(self.runtime.app(), &self.ledger, drainer) {
            parts.link.close(error.into());
        }
        let driver = parts.driver(self.runtime.metrics());
        // Only the server itself holds on to what the server shares.
        drop(self);
        driver.await;
    }

    fn try_admit(self: &Arc<Self>, ip: IpAddr) -> Option<Admitted> {
        let mut open = self.lock();
        let of_peer = open.per_peer.get(&ip).copied().unwrap_or(0);
        let peer_is_full = self
            .options
            .connections_per_peer_max
            .is_some_and(|max| of_peer >= max);
        if open.count >= self.options.connections_max || peer_is_full {
            open.refused += 1;
            self.runtime.metrics().on_refused(self.plane);
            return None;
        }
        open.count += 1;
        open.per_peer.insert(ip, of_peer + 1);
        Some(Admitted {
            shared: Arc::downgrade(self),
            ip,
            id: None,
        })
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
        open.count -= 1;
        if let Some(id) = self.id {
            open.links.remove(&id);
        }
        if let Some(count) = open.per_peer.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.per_peer.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_connections_must_fit_each_other() {
        let options = |connections_max, connections_per_peer_max| ServerOptions {
            connections_max,
            connections_per_peer_max,
            ..ServerOptions::new(ConnectionOptions::user_server())
        };
        assert_eq!(options(5, Some(5)).validate(), Ok(()));
        let (per_peer, all) = (6, 5);
        let greedy = options(all, Some(per_peer)).validate();
        assert_eq!(greedy, Err(OptionsError::PeerConnections { per_peer, all }));
        for closed in [options(0, None), options(5, Some(0))] {
            assert!(matches!(closed.validate(), Err(OptionsError::Zero { .. })));
        }
    }
}
