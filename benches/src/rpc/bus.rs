//! The bus: a client and a server as two nodes would be, with messages of the control plane.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use protos::calls::control::Custom;
use protos::control::CustomMessage;
use protos::{Call, Plane};
use rpc_bus::ledger::Limits;
use rpc_bus::tls::TlsClient;
use rpc_bus::{
    Acceptor, CallOptions, ConnectionOptions, Endpoint, Handler, Hello, IdleTimeout,
    InboundRequest, Ledger, RemoteConnection, RpcFailure, Server, ServerOptions, Verdict, connect,
};
use tokio::runtime::Handle;

use super::certificate;
use super::stack::{Client, Connection, Serving, Stack};
use super::threads::{ThreadOptions, Threads};

/// More than any case opens.
const CONNECTIONS_MAX: usize = 1 << 20;

/// The bus.
#[derive(Debug, Default)]
pub(super) struct Bus {
    /// Whether the handler runs on the I/O thread.
    pub(super) inline: bool,
    /// With TLS, of the certificate in this directory.
    pub(super) tls: Option<PathBuf>,
}

/// Threads that call, as a node has them.
pub(super) struct Caller {
    threads: Threads,
    tls: Option<TlsClient>,
}

/// Answers every custom message with itself but without its body, and nothing else.
#[derive(Clone, Copy)]
struct Echo {
    inline: bool,
}

impl Acceptor for Echo {
    fn accept(&self, _: Hello) -> Verdict {
        Verdict::Open {
            reply: Bytes::new(),
            handler: Arc::new(*self),
            idle_timeout: IdleTimeout::Keep,
        }
    }
}

impl Handler for Echo {
    fn handle(&self, request: InboundRequest) {
        if request.rpc_type != Custom::REQUEST {
            let unknown = RpcFailure::unknown_type(request.rpc_type);
            return request.refuse(unknown);
        }
        if let Some((message, _, reply)) = request.decode::<Custom>() {
            reply.send(&message);
        }
    }

    fn runs_inline(&self, _: i32) -> bool {
        self.inline
    }
}

impl Stack for Bus {
    type Client = Caller;

    fn serve(&self, threads: ThreadOptions) -> Result<Serving> {
        let threads = Threads::start(threads)?;
        let echo = Arc::new(Echo {
            inline: self.inline,
        });
        let server = threads.app().block_on(self.bind(&threads, echo))?;
        Ok(Serving {
            addr: server.local_addr(),
            _running: Box::new((server, threads)),
        })
    }

    fn client(&self, threads: ThreadOptions) -> Result<Caller> {
        Ok(Caller {
            threads: Threads::start_callers(threads)?,
            tls: self.tls.as_deref().map(certificate::client).transpose()?,
        })
    }
}

impl Bus {
    /// A server that asks `acceptor`.
    pub(super) async fn bind(
        &self,
        threads: &Threads,
        acceptor: Arc<impl Acceptor>,
    ) -> Result<Server> {
        let options = ServerOptions {
            connections_max: CONNECTIONS_MAX,
            // All of them come from here, as fast as they can.
            connections_per_peer_max: None,
            connects_per_peer_second_max: None,
            tls: self.tls.as_deref().map(certificate::server).transpose()?,
            ..ServerOptions::new(ConnectionOptions::bit_server())
        };
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (bus, ledger) = (threads.bus().clone(), ledger("server"));
        Ok(Server::bind(any_port, Plane::Control, bus, options, ledger, acceptor).await?)
    }
}

impl Client for Caller {
    type Connection = RemoteConnection;

    fn runtime(&self) -> &Handle {
        self.threads.app()
    }

    async fn connect(&self, server: SocketAddr) -> Result<RemoteConnection> {
        let to = Endpoint {
            tls: self.tls.clone(),
            ..Endpoint::new(server, Plane::Control)
        };
        let (options, hello) = (ConnectionOptions::bit(), Bytes::new());
        let (bus, ledger) = (self.threads.bus(), ledger("client"));
        // Nobody calls a client.
        let echo = Arc::new(Echo { inline: false });
        let (connection, _) = connect(&to, bus, options, ledger, hello, echo).await?;
        Ok(connection)
    }
}

fn ledger(name: &str) -> Ledger {
    Ledger::root(name, Limits::default())
}

impl Connection for RemoteConnection {
    async fn echo(&self, message: Bytes) -> Result<Bytes> {
        let request = CustomMessage {
            message: Some(message),
            ..Default::default()
        };
        let answer = self
            .call::<Custom>(&request, Vec::new(), CallOptions::default())
            .await?;
        Ok(answer.message.message.unwrap_or_default())
    }

    async fn sink(&self, body: Bytes) -> Result<()> {
        let request = CustomMessage::default();
        self.call::<Custom>(&request, vec![body], CallOptions::default())
            .await?;
        Ok(())
    }
}
