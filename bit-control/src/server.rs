//! The control server: accepts the connections of other nodes.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use protos::{Plane, coord::DrillbitEndpoint};
use rpc_bus::{
    Acceptor, BusRuntime, Handler, Hello, IdleTimeout, InboundRequest, Ledger, RemoteConnection,
    RpcFailure, Server, ServerOptions, Verdict,
    auth::{Authenticator, Identity},
    ledger::Limits,
};

use crate::handshake::{Introduction, judge_hello, welcome};

/// Whom the connections of a [`ControlServer`] are for.
pub(crate) trait Host: Send + Sync + 'static {
    /// What peers of our own kind are told about this node.
    fn endpoint(&self) -> DrillbitEndpoint;

    /// A peer is about to be let in: takes note of the connection, and serves it. Must not wait.
    ///
    /// # Errors
    ///
    /// Why there is no place for it.
    fn accepted(
        &self,
        peer: &Introduction,
        connection: &RemoteConnection,
    ) -> Result<Arc<dyn Handler>, String>;
}

/// Accepts the nodes that connect to this one. Dropping it closes all connections.
pub(crate) struct ControlServer {
    bus: Server,
}

impl ControlServer {
    /// Listens on `address`; port 0 takes a free one. All that connections hold is charged to a part of `ledger`.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or the options contradict each other.
    pub(crate) async fn bind(
        address: SocketAddr,
        runtime: BusRuntime,
        options: ServerOptions,
        authenticator: Option<Arc<Authenticator>>,
        ledger: &Ledger,
        host: Arc<dyn Host>,
    ) -> io::Result<Self> {
        let ledger = ledger.child("control server", Limits::default());
        let acceptor = Arc::new(ControlAcceptor {
            authenticator,
            host,
        });
        let bus = Server::bind(address, Plane::Control, runtime, options, ledger, acceptor).await?;
        Ok(Self { bus })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.bus.local_addr()
    }

    /// Stops accepting, closes all connections, and waits until they have ended, at most `grace`.
    pub(crate) async fn shutdown(self, grace: Duration) {
        self.bus.shutdown(grace).await;
    }
}

impl fmt::Debug for ControlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlServer")
            .field("local_addr", &self.local_addr())
            .finish_non_exhaustive()
    }
}

struct ControlAcceptor {
    authenticator: Option<Arc<Authenticator>>,
    host: Arc<dyn Host>,
}

impl Acceptor for ControlAcceptor {
    // wire: golden/raw/raw_control.control2 and control4: a peer that is refused is told nothing
    fn accept(&self, hello: Hello) -> Verdict {
        let peer = match judge_hello(hello.pbody) {
            Ok(peer) => peer,
            Err(error) => return refuse(error.to_string()),
        };
        let connection = hello.connection;
        // Said only to peers of our own kind: the recordings show that Drill does not say it.
        let endpoint = connection.peer_capabilities().map(|_| self.host.endpoint());
        match &self.authenticator {
            None => match self.host.accepted(&peer, &connection) {
                Ok(handler) => Verdict::Open {
                    reply: welcome(&[], endpoint),
                    handler,
                    idle_timeout: IdleTimeout::Keep,
                },
                Err(reason) => refuse(reason),
            },
            Some(authenticator) => Verdict::Authenticate {
                reply: welcome(&authenticator.mechanisms(), endpoint),
                authenticator: Arc::clone(authenticator),
                admit: admit(Arc::clone(&self.host), peer, connection),
                idle_timeout: IdleTimeout::Keep,
            },
        }
    }
}

type Admit = Box<dyn FnOnce(Identity) -> Arc<dyn Handler> + Send>;

/// A peer has proved who it is; where there is no place for it after all, its connection ends.
fn admit(host: Arc<dyn Host>, peer: Introduction, connection: RemoteConnection) -> Admit {
    Box::new(move |_| {
        host.accepted(&peer, &connection).unwrap_or_else(|reason| {
            tracing::warn!(peer = %peer.address, reason, "no place for a connection");
            connection.close();
            Arc::new(Nobody)
        })
    })
}

fn refuse(reason: String) -> Verdict {
    Verdict::Refuse {
        reply: None,
        reason,
    }
}

/// Serves a connection that is closing.
struct Nobody;

impl Handler for Nobody {
    fn handle(&self, request: InboundRequest) {
        let unknown = RpcFailure::unknown_type(request.rpc_type);
        request.refuse(unknown);
    }
}
