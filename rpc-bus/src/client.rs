//! Connecting: socket, handshake, and the handle that keeps the connection open.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use protos::Plane;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    connection::{Completion, Connection, Outcome},
    dispatch::{Handler, Service},
    error::{CallError, CloseReason, ConnectError},
    ledger::Ledger,
    link,
    options::ConnectionOptions,
    remote::RemoteConnection,
    runtime::BusRuntime,
    socket::{Socket, SocketError},
    spawn::Parts,
    tls::{Handshake, TlsClient},
};

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Address of the peer.
    pub addr: SocketAddr,
    /// Its plane.
    pub plane: Plane,
    /// TLS, if the peer speaks it.
    pub tls: Option<TlsClient>,
}

impl Endpoint {
    /// Without TLS.
    #[must_use]
    pub fn new(addr: SocketAddr, plane: Plane) -> Self {
        Self {
            addr,
            plane,
            tls: None,
        }
    }

    /// The same with TLS.
    #[must_use]
    pub fn with_tls(self, tls: TlsClient) -> Self {
        Self {
            tls: Some(tls),
            ..self
        }
    }
}

/// Connects to `to` and sends `hello`, the body of the plane's handshake; returns the connection and the body of the
/// peer's answer, which the caller must judge. `handler` gets the peer's requests.
///
/// The connection lives until it is closed or its last handle is dropped; a handler that holds a handle keeps it open.
/// Calls are fastest from the thread that serves the connection: with [`BusRuntime::here`] on a single-threaded runtime.
///
/// # Errors
///
/// The socket cannot be connected, TLS cannot be agreed on, or the handshake is not answered, in time; or a limit of
/// this side was met.
///
/// # Cancel safety
///
/// Dropping the future closes what there is.
pub async fn connect(
    to: &Endpoint,
    runtime: &BusRuntime,
    options: ConnectionOptions,
    ledger: Ledger,
    hello: Bytes,
    handler: Arc<dyn Handler>,
) -> Result<(RemoteConnection, Bytes), ConnectError> {
    options.validate()?;
    let (completion, reply) = oneshot::channel();
    let (opened, connection) = oneshot::channel();
    let dial = Dial {
        to: to.clone(),
        options,
        ledger: ledger.clone(),
        runtime: runtime.clone(),
    };
    let bodies = Arc::clone(runtime.bodies());
    let metrics = Arc::clone(runtime.metrics());
    let task = async move {
        let parts = dial.open(hello, completion, &bodies, handler).await;
        let (result, driver) = match parts {
            Ok(parts) => (
                Ok(RemoteConnection::of_client(Arc::clone(&parts.link))),
                Some(parts),
            ),
            Err(error) => (Err(error), None),
        };
        // The runtime owns this task: holding on to it would keep it for ever.
        drop(dial);
        // A caller that has gone away drops the handle, and so closes the connection.
        drop(opened.send(result));
        if let Some(parts) = driver {
            parts.driver(&metrics).await;
        }
    };
    runtime.clients().spawn(runtime.next_io(), &ledger, task)?;
    opened_connection(connection, reply)
        .await
        .inspect_err(|error| runtime.metrics().on_not_connected(to.plane, error))
}

/// Waits for the socket and for the answer to the handshake.
async fn opened_connection(
    connection: oneshot::Receiver<Result<RemoteConnection, ConnectError>>,
    reply: oneshot::Receiver<Outcome>,
) -> Result<(RemoteConnection, Bytes), ConnectError> {
    let aborted = ConnectError::Lost(CloseReason::Aborted);
    let connection = connection.await.unwrap_or(Err(aborted))?;
    match reply.await {
        Ok(Ok(response)) => Ok((connection, response.pbody)),
        Ok(Err(CallError::Lost(reason))) => Err(reason.into()),
        _ => Err(CloseReason::Aborted.into()),
    }
}

/// What is needed to connect.
struct Dial {
    to: Endpoint,
    options: ConnectionOptions,
    ledger: Ledger,
    runtime: BusRuntime,
}

impl Dial {
    async fn open(
        &self,
        hello: Bytes,
        completion: Completion,
        bodies: &Arc<crate::frame::BodyPool>,
        handler: Arc<dyn Handler>,
    ) -> Result<Parts, ConnectError> {
        let patience = self.options.connect_timeout;
        let stream = timeout(patience, self.runtime.network().connect(self.to.addr)).await;
        let stream = stream.map_err(|_| ConnectError::Timeout(patience))??;
        let since = link::now();
        let mut socket = Socket::new(stream, &self.options, &self.ledger)?;
        if let Some(tls) = &self.to.tls {
            let handshake = Handshake::new(&self.options, since);
            // Boxed: TLS is large until it is agreed on, and most connections have none.
            socket = Box::pin(socket.connect_tls(handshake, tls, self.to.addr)).await?;
        }
        let options = self.options.clone();
        let (plane, ledger) = (self.to.plane, &self.ledger);
        let connection = Connection::client(plane, options, hello, completion, ledger, since);
        let parts = Parts::new(
            socket,
            self.to.plane,
            connection,
            &self.options,
            bodies,
            &self.ledger,
        )?;
        let drainer = parts.drainer(Service::Handler(handler));
        self.runtime
            .clients()
            .spawn(self.runtime.app(), &self.ledger, drainer)?;
        Ok(parts)
    }
}

impl From<std::io::Error> for ConnectError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl From<SocketError> for ConnectError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Io(error) => error.into(),
            SocketError::Budget(error) => error.into(),
            SocketError::Closed(reason) => reason.into(),
        }
    }
}
