//! A client that connects when it is needed, and again when the connection is lost.
//!
//! Whoever needs the connection first makes it, while the others wait; a waiter that goes away stops nobody.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use protos::{Call, Plane};
use tokio::sync::Mutex;

use crate::{
    auth::{Login, authenticate},
    client::{Endpoint, connect},
    dispatch::Handler,
    error::{CallError, CloseReason, ConnectError},
    ledger::Ledger,
    options::ConnectionOptions,
    remote::{Answer, CallOptions, RemoteConnection},
    retry::RetryPolicy,
    runtime::BusRuntime,
    tls::TlsClient,
};

/// The plane's part in connecting.
pub trait Greeter: Send + Sync + 'static {
    /// Body of the handshake.
    fn hello(&self) -> Bytes;

    /// Judges the peer's answer; returns the mechanisms that it offers, if this side has to prove who it is, else none.
    ///
    /// # Errors
    ///
    /// Why the connection is of no use; it is closed, and not tried again.
    fn judge(&self, reply: Bytes) -> Result<Vec<String>, String>;

    /// Serves the requests of a new connection.
    fn handler(&self) -> Arc<dyn Handler>;
}

/// Where and how to connect.
#[derive(Clone)]
pub struct Target {
    /// Addresses of the peer, tried in turn, beginning with the one that worked last.
    pub endpoints: Vec<SocketAddr>,
    /// Its plane.
    pub plane: Plane,
    /// TLS, if the peer speaks it.
    pub tls: Option<TlsClient>,
    /// Who to be, where the peer asks.
    pub login: Option<Login>,
    /// Limits of each connection.
    pub options: ConnectionOptions,
    /// Where connections are charged.
    pub ledger: Ledger,
    /// The plane's part.
    pub greeter: Arc<dyn Greeter>,
}

/// A peer with which there is at most one connection at a time. Clones are the same.
#[derive(Clone)]
pub struct ReconnectingClient(Arc<Inner>);

struct Inner {
    target: Target,
    runtime: BusRuntime,
    policy: RetryPolicy,
    /// Held while connecting.
    current: Mutex<Option<RemoteConnection>>,
    /// Index of the endpoint to try next.
    next: AtomicUsize,
}

impl ReconnectingClient {
    /// Nothing is connected before it is needed.
    ///
    /// # Errors
    ///
    /// There is no endpoint, or the options contradict each other.
    pub fn try_new(
        target: Target,
        runtime: BusRuntime,
        policy: RetryPolicy,
    ) -> Result<Self, ConnectError> {
        target.options.validate()?;
        if target.endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        let (current, next) = (Mutex::new(None), AtomicUsize::new(0));
        Ok(Self(Arc::new(Inner {
            target,
            runtime,
            policy,
            current,
            next,
        })))
    }

    /// The connection that there is, or a new one, after as many tries as the policy allows.
    ///
    /// # Errors
    ///
    /// That of the last try.
    pub async fn connection(&self) -> Result<RemoteConnection, ConnectError> {
        self.0.policy.run(|| self.0.connection()).await
    }

    /// Makes a call, again and on new connections as far as the policy allows. Only for requests that may be run twice.
    ///
    /// # Errors
    ///
    /// That of the last try; a peer that cannot be reached is a [`CallError::Connect`].
    pub async fn call<C: Call>(
        &self,
        request: &C::Request,
        dbody: Vec<Bytes>,
        options: CallOptions,
    ) -> Result<Answer<C::Reply>, CallError> {
        let attempt = || async {
            let connection = self.0.connection().await?;
            connection.call::<C>(request, dbody.clone(), options).await
        };
        self.0.policy.run(attempt).await
    }

    /// Closes the connection that there is. The next call makes a new one.
    pub async fn close(&self) {
        if let Some(connection) = self.0.current.lock().await.take() {
            connection.close();
        }
    }
}

impl Inner {
    /// One try.
    async fn connection(&self) -> Result<RemoteConnection, ConnectError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current
            .as_ref()
            .filter(|connection| !connection.is_closed())
        {
            return Ok(connection.clone());
        }
        *current = None;
        let connection = self.connect().await.inspect_err(|_| {
            self.next.fetch_add(1, Ordering::Relaxed);
        })?;
        Ok(current.insert(connection).clone())
    }

    async fn connect(&self) -> Result<RemoteConnection, ConnectError> {
        let Target {
            endpoints,
            plane,
            tls,
            login,
            options,
            ledger,
            greeter,
        } = &self.target;
        let endpoint = Endpoint {
            addr: endpoints[self.next.load(Ordering::Relaxed) % endpoints.len()],
            plane: *plane,
            tls: tls.clone(),
        };
        let (options, ledger) = (options.clone(), ledger.clone());
        let (hello, handler) = (greeter.hello(), greeter.handler());
        let (connection, reply) =
            connect(&endpoint, &self.runtime, options, ledger, hello, handler).await?;
        let offered = greeter.judge(reply);
        let offered = offered.map_err(|reason| CloseReason::HandshakeRefused { reason })?;
        if !offered.is_empty() {
            let login = login.as_ref().ok_or(ConnectError::NoLogin)?;
            authenticate(&connection, &self.runtime, login, &offered).await?;
        }
        Ok(connection)
    }
}

impl fmt::Debug for ReconnectingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReconnectingClient")
            .field("endpoints", &self.0.target.endpoints)
            .finish_non_exhaustive()
    }
}
