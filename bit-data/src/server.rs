//! The data server: accepts peers and hands what they send to the fragments and streams of this node.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use protos::Plane;
use rpc_bus::{
    Acceptor, BusRuntime, Capabilities, ConnectionOptions, Handler, Hello, IdleTimeout, Ledger,
    RemoteConnection, Server, ServerOptions, Verdict, auth::Authenticator, ledger::Limits,
};

use crate::{
    dispatch::{ServerHandler, StreamHost},
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
}

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
        }
    }
}

/// Accepts the peers that send to this node. Dropping it closes all connections.
pub struct DataServer {
    bus: Server,
}

impl DataServer {
    /// Listens on `address`; port 0 takes a free one. All that connections hold is charged to a part of `ledger`;
    /// `streams` serves our own nodes.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or the options contradict each other.
    pub async fn bind(
        address: SocketAddr,
        runtime: BusRuntime,
        options: DataServerOptions,
        ledger: Ledger,
        streams: Arc<dyn StreamHost>,
    ) -> io::Result<Self> {
        let ledger = ledger.child("data server", Limits::default());
        let DataServerOptions {
            connections,
            authenticator,
        } = options;
        let acceptor = Arc::new(DataAcceptor {
            authenticator,
            streams,
        });
        let bus =
            Server::bind(address, Plane::Data, runtime, connections, ledger, acceptor).await?;
        Ok(Self { bus })
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
    streams: Arc<dyn StreamHost>,
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
        let streams = Arc::clone(&self.streams);
        match &self.authenticator {
            None => Verdict::Open {
                reply: welcome(&[]),
                handler: handler(&hello.connection, &*streams),
                idle_timeout: IdleTimeout::Keep,
            },
            Some(authenticator) => Verdict::Authenticate {
                reply: welcome(&authenticator.mechanisms()),
                authenticator: Arc::clone(authenticator),
                admit: Box::new(move |_| handler(&hello.connection, &*streams)),
                idle_timeout: IdleTimeout::Keep,
            },
        }
    }
}

fn handler(connection: &RemoteConnection, streams: &dyn StreamHost) -> Arc<dyn Handler> {
    Arc::new(ServerHandler::new(streams.accepted(connection)))
}
