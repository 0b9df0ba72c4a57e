//! The data server: accepts peers and hands what they send to the fragments and streams of this node.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use protos::Plane;
use rpc_bus::{
    Acceptor, Beats, BusRuntime, Capabilities, ConnectionOptions, Feature, Handler, Hello,
    IdleTimeout, Ledger, RemoteConnection, Server, ServerOptions, Verdict, auth::Authenticator,
    ledger::Limits, task::Tasks,
};

use crate::{
    dispatch::{ServerHandler, StreamHost},
    drill::Fragments,
    handshake::{judge_hello, welcome},
};

/// Limits of a data server.
#[derive(Clone, Debug)]
pub struct DataServerOptions {
    /// Limits and times of the connections. Default: those of the data plane. Drill leaves batches unanswered while it
    /// waits for their consumer, so that 16,384 requests of a connection may be in flight.
    pub connections: ServerOptions,
    /// Lets peers in. Default `None`: everybody may come in.
    pub authenticator: Option<Arc<Authenticator>>,
    /// Regular PINGs to peers with which streams were agreed on, so that a sender soon knows that its receiver is dead.
    /// `None`: a dead one is found by the idle timeout. Default: one a second, and five may be missed.
    pub beats: Option<Beats>,
}

/// Beats between nodes of our own, unless one says otherwise.
pub(crate) const BEATS: Beats = Beats {
    interval: Duration::from_secs(1),
    missed_max: 5,
};

impl Default for DataServerOptions {
    fn default() -> Self {
        let ours = Capabilities::of_software(env!("CARGO_PKG_VERSION"));
        let connection = ConnectionOptions {
            capabilities: Some(Arc::new(ours)),
            requests_in_flight_max: 16 * 1024,
            ..ConnectionOptions::server(Plane::Data)
        };
        Self {
            connections: ServerOptions::new(connection),
            authenticator: None,
            beats: Some(BEATS),
        }
    }
}

/// Accepts the peers that send to this node. Dropping it closes all connections.
pub struct DataServer {
    bus: Server,
    /// Refuses early batches whose time has passed.
    _sweeping: Tasks,
}

impl DataServer {
    /// Listens on `address`; port 0 takes a free one. All that connections hold is charged to a part of `ledger`.
    /// `fragments` get what is sent as Drill sends it, `streams` serve our own nodes.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or the options contradict each other.
    pub async fn bind(
        address: SocketAddr,
        runtime: BusRuntime,
        options: DataServerOptions,
        ledger: Ledger,
        fragments: Fragments,
        streams: Arc<dyn StreamHost>,
    ) -> io::Result<Self> {
        let ledger = ledger.child("data server", Limits::default());
        let DataServerOptions {
            connections,
            authenticator,
            beats,
        } = options;
        let sweeping = Tasks::default();
        sweeping
            .spawn(runtime.app(), &ledger, fragments.clone().sweep())
            .map_err(io::Error::other)?;
        let host = Host { fragments, streams };
        let acceptor = Arc::new(DataAcceptor {
            authenticator,
            beats,
            host: Arc::new(host),
        });
        let bus =
            Server::bind(address, Plane::Data, runtime, connections, ledger, acceptor).await?;
        Ok(Self {
            bus,
            _sweeping: sweeping,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.bus.local_addr()
    }

    /// Stops accepting, closes all connections, and waits until they have ended, at most `grace`.
    pub async fn shutdown(self, grace: Duration) {
        self.bus.shutdown(grace).await;
    }
}

impl fmt::Debug for DataServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataServer")
            .field("local_addr", &self.local_addr())
            .finish_non_exhaustive()
    }
}

struct DataAcceptor {
    authenticator: Option<Arc<Authenticator>>,
    beats: Option<Beats>,
    host: Arc<Host>,
}

/// Who serves the connections.
struct Host {
    fragments: Fragments,
    streams: Arc<dyn StreamHost>,
}

impl Host {
    fn handler(&self, connection: &RemoteConnection) -> Arc<dyn Handler> {
        let arrivals = self.fragments.arrivals(connection.id());
        let streams = self.streams.accepted(connection);
        Arc::new(ServerHandler::new(arrivals, streams))
    }
}

impl DataAcceptor {
    fn idle_timeout(&self, connection: &RemoteConnection) -> IdleTimeout {
        match self.beats {
            Some(beats) if connection.has(Feature::Streams) => IdleTimeout::Beats(beats),
            _ => IdleTimeout::Keep,
        }
    }
}

impl Acceptor for DataAcceptor {
    // wire: golden/raw/raw_control.data2: a peer that is refused is told nothing
    fn accept(&self, hello: Hello) -> Verdict {
        if let Err(error) = judge_hello(hello.pbody) {
            let reason = error.to_string();
            return Verdict::Refuse {
                reply: None,
                reason,
            };
        }
        let (host, idle_timeout) = (Arc::clone(&self.host), self.idle_timeout(&hello.connection));
        match &self.authenticator {
            None => Verdict::Open {
                reply: welcome(&[]),
                handler: host.handler(&hello.connection),
                idle_timeout,
            },
            Some(authenticator) => Verdict::Authenticate {
                reply: welcome(&authenticator.mechanisms()),
                authenticator: Arc::clone(authenticator),
                admit: Box::new(move |_| host.handler(&hello.connection)),
                idle_timeout,
            },
        }
    }
}
