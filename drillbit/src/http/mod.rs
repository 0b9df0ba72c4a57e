//! The node over HTTP: health, metrics and the API, for people's monitors and scripts.
//!
//! Routes are axum's; the connections are served here, because their limits are not axum's business:
//! how many there are, how long a head may take, how long a peer may read nothing, how large a
//! body may be.

mod api;
mod host;
mod impatient;
mod login;
mod routes;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rpc_bus::{
    BusRuntime, Ledger,
    auth::Authenticator,
    ledger::{Kind, Limits},
    task::Tasks,
};
use tokio::net::{TcpListener, TcpStream};

use crate::metrics::Watched;
use impatient::Impatient;

/// How long to wait before accepting again, when the system refused.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most bytes of the head of a request, and read ahead.
const READ_BUFFER_BYTES_MAX: usize = 16 << 10;

/// Limits of the HTTP server.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where it listens; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Connections at a time; one more is closed at once. Default 64.
    pub connections_max: NonZeroUsize,
    /// How long the head of a request may take; also how long a connection may be idle. Default 10 s.
    pub header_timeout: Duration,
    /// How long a peer may take nothing of its answer before its connection is closed. Default 10 s.
    pub write_timeout: Duration,
    /// Largest body of a request, in bytes. Default 64 KiB.
    pub body_bytes_max: usize,
}

impl HttpOptions {
    /// The defaults, on `addr`.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            connections_max: const { NonZeroUsize::new(64).expect("invariant: not zero") },
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            body_bytes_max: 64 << 10,
        }
    }
}

/// Who may read what is told, and change something.
pub(crate) enum Readers {
    /// These users.
    Users(Arc<Authenticator>),
    /// Everybody who asks for the node by its address, or by this name.
    Everybody {
        /// What it tells others to reach it by.
        advertised_host: Option<Arc<str>>,
    },
}

/// A listener and its connections; they end when it is dropped.
pub(crate) struct HttpServer {
    local: SocketAddr,
    _accepting: Tasks,
}

impl HttpServer {
    /// Listens, and serves on the app runtime. All that it holds is charged to a part of `ledger`.
    pub(crate) async fn bind(
        options: &HttpOptions,
        bus: &BusRuntime,
        ledger: &Ledger,
        watched: Arc<Watched>,
        readers: Readers,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(options.addr).await?;
        let local = listener.local_addr()?;
        // A connection is a file and a task; the listener is a task, too.
        let limits = Limits {
            files: Some(options.connections_max.get()),
            ..Limits::default()
        };
        let ledger = ledger.child("http server", limits);
        let server = Serving {
            routes: routes::routes(watched, readers, options.body_bytes_max),
            header_timeout: options.header_timeout,
            write_timeout: options.write_timeout,
            bus: bus.clone(),
            ledger: ledger.clone(),
            connections: Tasks::default(),
        };
        let accepting = Tasks::default();
        accepting
            .spawn(bus.app(), &ledger, server.accept(listener))
            .map_err(io::Error::other)?;
        Ok(Self {
            local,
            _accepting: accepting,
        })
    }

    /// With the port that the system chose, if it was left to it.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// What the accepting task owns; the connections end with it.
struct Serving {
    routes: Router,
    header_timeout: Duration,
    write_timeout: Duration,
    bus: BusRuntime,
    ledger: Ledger,
    connections: Tasks,
}

impl Serving {
    async fn accept(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => self.admit(socket, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept HTTP connections, trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, socket: TcpStream, peer: SocketAddr) {
        let admitted = self.ledger.charge(Kind::Files, 1).and_then(|file| {
            let connection = self.serve(socket, peer.ip());
            let task = async move {
                connection.await;
                drop(file);
            };
            self.connections.spawn(self.bus.app(), &self.ledger, task)
        });
        if let Err(error) = admitted {
            tracing::debug!(%peer, %error, "HTTP connection refused");
        }
    }

    fn serve(&self, socket: TcpStream, peer: IpAddr) -> impl Future<Output = ()> + use<> {
        let service = TowerToHyperService::new(self.routes.clone().layer(Extension(Peer(peer))));
        let socket = Impatient::new(socket, self.write_timeout);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_buf_size(READ_BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(socket), service);
        async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "HTTP connection ended");
            }
        }
    }
}

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
struct Peer(IpAddr);
