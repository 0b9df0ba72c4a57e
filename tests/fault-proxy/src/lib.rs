//! A TCP proxy for tests: it sits between a client and a server and does what networks do to connections.
//!
//! Each way of a connection has its [`Faults`], which may change at any time; [`Proxy::end_all`] ends what is connected.
//! Nothing is reordered: TCP is not either. Times come from tokio's clock, so that a test may turn it, and whatever is
//! random follows from the seed, the number of the connection and the offset of a byte in it.

mod connection;
mod faults;
mod pipe;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

pub use faults::{Cut, End, Faults, Flow, Way};

use connection::Wires;

/// A running proxy. Dropping it drops its connections.
#[derive(Debug)]
pub struct Proxy {
    local: SocketAddr,
    shared: Arc<Shared>,
    /// The accepting task.
    _accepting: JoinSet<()>,
}

/// What the handle and the connections share. Two of a kind are by [`Way::index`].
#[derive(Debug)]
struct Shared {
    seed: u64,
    faults: [watch::Sender<Faults>; 2],
    /// How many times all connections were ended, and how the last time.
    ended: watch::Sender<(u64, End)>,
    passed: [AtomicU64; 2],
    accepted: AtomicU64,
}

impl Proxy {
    /// Listens on a port of its own, and connects to `target` for each connection that comes.
    ///
    /// # Errors
    ///
    /// There is no port to listen on.
    pub async fn start(target: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let local = listener.local_addr()?;
        let shared = Arc::new(Shared {
            seed,
            faults: Way::BOTH.map(|_| watch::Sender::new(Faults::default())),
            ended: watch::Sender::new((0, End::Fin)),
            passed: [AtomicU64::new(0), AtomicU64::new(0)],
            accepted: AtomicU64::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, target, Arc::clone(&shared)));
        Ok(Self {
            local,
            shared,
            _accepting: accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.local
    }

    /// Changes what happens to one way of all connections, those that are open included.
    pub fn set(&self, way: Way, change: impl FnOnce(&mut Faults)) {
        self.shared.faults[way.index()].send_modify(change);
    }

    /// As [`Self::set`], for both ways.
    pub fn set_both(&self, change: impl Fn(&mut Faults)) {
        for way in Way::BOTH {
            self.set(way, &change);
        }
    }

    /// Ends every connection that is open; later ones are served.
    pub fn end_all(&self, end: End) {
        self.shared
            .ended
            .send_modify(|(times, how)| (*times, *how) = (*times + 1, end));
    }

    /// Bytes delivered one way, over all connections.
    #[must_use]
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.passed[way.index()].load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A client that gave up before it was accepted is none.
                let Ok((client, _)) = accepted else { continue };
                let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
                let wires = Wires::new(Arc::clone(&shared), number);
                connections.spawn(serve(client, target, wires));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(client: TcpStream, target: SocketAddr, wires: Wires) {
    match TcpStream::connect(target).await {
        Ok(server) => connection::run(client, server, wires).await,
        // As if nobody listened, but later: the client is connected already.
        Err(_) => connection::reset(&client),
    }
}
