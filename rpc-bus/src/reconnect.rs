//! A client that connects when it is needed, and again when the connection is lost.
//!
//! Whoever needs the connection first begins an attempt, and all who come while it goes on get its outcome. It goes on
//! without those who have stopped waiting, so that whoever comes later finds it made; it ends with the client.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use protos::{Call, Plane};
use tokio::{sync::watch, time::timeout_at};

use crate::{
    auth::{Login, authenticate},
    client::{Endpoint, connect},
    dispatch::Handler,
    error::{CallError, CloseReason, ConnectError},
    ledger::Ledger,
    link,
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
    dial: Arc<Dial>,
    policy: RetryPolicy,
    /// The last one, which may be going on, or have made the connection that there is.
    attempt: Mutex<Option<Attempt>>,
}

/// How it ended; `None` while it goes on.
type Attempt = watch::Receiver<Option<Result<RemoteConnection, ConnectError>>>;

struct Dial {
    target: Target,
    runtime: BusRuntime,
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
        let dial = Dial {
            target,
            runtime,
            next: AtomicUsize::new(0),
        };
        Ok(Self(Arc::new(Inner {
            dial: Arc::new(dial),
            policy,
            attempt: Mutex::default(),
        })))
    }

    /// The connection that there is, or a new one, after as many tries as the policy allows.
    ///
    /// # Errors
    ///
    /// That of the last try.
    ///
    /// # Cancel safety
    ///
    /// A try that was begun goes on, for whoever needs the connection next.
    pub async fn connection(&self) -> Result<RemoteConnection, ConnectError> {
        self.0.policy.run(|| self.0.connection()).await
    }

    /// Makes a call, again and on new connections as far as the policy allows. Only for requests that may be run twice.
    /// The deadline is that of all tries together, the waits for a connection and between tries included; no try begins
    /// after it.
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
        let deadline = options.deadline;
        let until = deadline.and_then(|deadline| link::now().checked_add(deadline));
        let attempt = || async {
            let connection = self.0.connection_until(until).await?;
            let deadline = until.map(rest);
            let options = CallOptions {
                deadline,
                ..options
            };
            connection.call::<C>(request, dbody.clone(), options).await
        };
        let outcome = self.0.policy.run_until(until, attempt).await;
        outcome.map_err(|error| match (error, deadline) {
            // What is reported is the whole time, not what was left of it for the last try.
            (CallError::Timeout(_), Some(deadline)) => CallError::Timeout(deadline),
            (error, _) => error,
        })
    }

    /// Closes the connection that there is. The next call makes a new one.
    pub fn close(&self) {
        let attempt = self.0.lock().take();
        let outcome = attempt.and_then(|attempt| attempt.borrow().clone());
        if let Some(Ok(connection)) = outcome {
            connection.close();
        }
    }
}

/// How long it is to `until`.
fn rest(until: Instant) -> Duration {
    until.saturating_duration_since(link::now())
}

impl Inner {
    /// The connection that there is, or the outcome of one attempt.
    async fn connection(&self) -> Result<RemoteConnection, ConnectError> {
        let mut attempt = self.attempt()?;
        let ended = attempt.wait_for(Option::is_some).await;
        let outcome = ended.ok().and_then(|outcome| outcome.clone());
        // Nobody ends an attempt whose runtime has gone away.
        outcome.unwrap_or(Err(ConnectError::Lost(CloseReason::Aborted)))
    }

    async fn connection_until(
        &self,
        until: Option<Instant>,
    ) -> Result<RemoteConnection, CallError> {
        let Some(until) = until else {
            return Ok(self.connection().await?);
        };
        let patience = rest(until);
        let connection = timeout_at(until.into(), self.connection()).await;
        Ok(connection.map_err(|_| CallError::Timeout(patience))??)
    }

    /// The attempt that goes on or has made the connection that there is, or a new one.
    fn attempt(&self) -> Result<Attempt, ConnectError> {
        let mut last = self.lock();
        if let Some(attempt) = last.as_ref().filter(|attempt| is_of_use(attempt)) {
            return Ok(attempt.clone());
        }
        let (ended, attempt) = watch::channel(None);
        let (dial, runtime) = (Arc::clone(&self.dial), &self.dial.runtime);
        let task = async move {
            tokio::select! {
                biased;
                outcome = dial.connect() => drop(ended.send(Some(outcome))),
                // Nobody waits for it, and the client is gone.
                () = ended.closed() => {}
            }
        };
        let ledger = &self.dial.target.ledger;
        runtime.clients().spawn(runtime.app(), ledger, task)?;
        *last = Some(attempt.clone());
        Ok(attempt)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Attempt>> {
        self.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it goes on, or its connection is open.
fn is_of_use(attempt: &Attempt) -> bool {
    match &*attempt.borrow() {
        Some(Ok(connection)) => !connection.is_closed(),
        Some(Err(_)) => false,
        None => attempt.has_changed().is_ok(),
    }
}

impl Dial {
    async fn connect(&self) -> Result<RemoteConnection, ConnectError> {
        self.connect_to_next().await.inspect_err(|_| {
            self.next.fetch_add(1, Ordering::Relaxed);
        })
    }

    async fn connect_to_next(&self) -> Result<RemoteConnection, ConnectError> {
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
            .field("endpoints", &self.0.dial.target.endpoints)
            .finish_non_exhaustive()
    }
}
