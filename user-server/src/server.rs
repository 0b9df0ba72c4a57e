//! The server itself: what all its connections share, and its end.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use protos::{
    Plane,
    coord::{DrillbitEndpoint, drillbit_endpoint::State},
};
use rpc_bus::{
    Acceptor, Beats, BusRuntime, Feature, Handler, Hello, IdleTimeout, RemoteConnection, Server,
    StreamKey, Verdict,
    ledger::{Ledger, Limits},
    task::Tasks,
};

use crate::{
    connection::UserConnection,
    engine::Engine,
    error::UserError,
    handshake::{Guest, Judgement, judge, verified_guest},
    options::UserServerOptions,
    registry::{Queries, QuerySnapshot},
};

/// Accepts Drill clients and answers them with an [`Engine`]. Dropping it closes all connections,
/// which ends their queries.
pub struct UserServer {
    bus: Server,
    shared: Arc<Shared>,
}

impl UserServer {
    /// Listens on `address`; port 0 takes a free one. All that the server holds is charged to a
    /// part of `ledger`.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or the options contradict each other.
    pub async fn bind(
        address: SocketAddr,
        runtime: BusRuntime,
        options: UserServerOptions,
        ledger: Ledger,
        engine: Arc<dyn Engine>,
    ) -> io::Result<Self> {
        let ledger = ledger.child("user server", Limits::default());
        let connections = options.offered();
        options
            .beats
            .map_or(Ok(()), Beats::validate)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let shared = Arc::new(Shared::new(
            runtime.clone(),
            options,
            ledger.clone(),
            engine,
        ));
        let acceptor = Arc::new(UserAcceptor(Arc::clone(&shared)));
        let bus =
            Server::bind(address, Plane::User, runtime, connections, ledger, acceptor).await?;
        Ok(Self { bus, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.bus.local_addr()
    }

    /// The queries that are running, in no order.
    #[must_use]
    pub fn queries(&self) -> Vec<QuerySnapshot> {
        self.shared.queries.snapshot()
    }

    /// Running and ended queries, for whoever watches the server.
    #[must_use]
    pub fn query_registry(&self) -> &Queries {
        &self.shared.queries
    }

    /// Refuses new queries, waits up to `grace` for the running ones, then closes all connections,
    /// which are still written to for their `linger_timeout`.
    pub async fn shutdown(self, grace: Duration) {
        let tasks = self.shared.lock_tasks().take();
        if let Some(tasks) = tasks {
            tasks.join(grace).await;
        }
        self.bus.shutdown(Duration::ZERO).await;
    }
}

impl fmt::Debug for UserServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserServer")
            .field("local_addr", &self.local_addr())
            .field("queries", &self.shared.queries)
            .finish_non_exhaustive()
    }
}

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) runtime: BusRuntime,
    pub(crate) options: UserServerOptions,
    pub(crate) ledger: Ledger,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) queries: Queries,
    /// `None` once the server is shutting down.
    tasks: Mutex<Option<Tasks>>,
    next_stream: AtomicU64,
}

impl Shared {
    fn new(
        runtime: BusRuntime,
        options: UserServerOptions,
        ledger: Ledger,
        engine: Arc<dyn Engine>,
    ) -> Self {
        let tasks = Mutex::new(Some(Tasks::default()));
        let next_stream = AtomicU64::new(1);
        Self {
            runtime,
            queries: options.queries.clone(),
            options,
            ledger,
            engine,
            tasks,
            next_stream,
        }
    }

    /// Runs a query's task on the app runtime.
    pub(crate) fn spawn(
        &self,
        query: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), UserError> {
        match &*self.lock_tasks() {
            Some(tasks) => Ok(tasks.spawn(self.runtime.app(), &self.ledger, query)?),
            None => Err(UserError::shutting_down()),
        }
    }

    /// The key under which a query's frames leave in order.
    pub(crate) fn next_stream(&self) -> StreamKey {
        StreamKey(self.next_stream.fetch_add(1, Ordering::Relaxed))
    }

    /// This node, as the client of `connection` knows it.
    pub(crate) fn endpoint(&self, connection: &RemoteConnection) -> DrillbitEndpoint {
        let local = connection.local_addr();
        let advertised = self.options.advertised_host.clone();
        DrillbitEndpoint {
            address: Some(advertised.unwrap_or_else(|| local.ip().to_string())),
            user_port: Some(local.port().into()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            state: Some(State::Online.into()),
            ..DrillbitEndpoint::default()
        }
    }

    fn lock_tasks(&self) -> MutexGuard<'_, Option<Tasks>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct UserAcceptor(Arc<Shared>);

impl Acceptor for UserAcceptor {
    fn accept(&self, hello: Hello) -> Verdict {
        let judgement = judge(hello.pbody, self.0.options.authenticator.as_ref());
        let entry = Entry {
            shared: Arc::clone(&self.0),
            connection: hello.connection,
        };
        entry.verdict(judgement)
    }
}

/// A connection whose handshake is being judged.
struct Entry {
    shared: Arc<Shared>,
    connection: RemoteConnection,
}

impl Entry {
    fn verdict(self, judgement: Judgement) -> Verdict {
        match judgement {
            Judgement::Welcome { reply, guest } => Verdict::Open {
                reply,
                idle_timeout: self.idle_timeout(&guest),
                handler: self.handler(guest),
            },
            Judgement::Authenticate {
                reply,
                guest,
                authenticator,
            } => Verdict::Authenticate {
                reply,
                authenticator,
                idle_timeout: self.idle_timeout(&guest),
                admit: Box::new(move |identity| self.handler(guest.known_as(identity))),
            },
            Judgement::Verify {
                credentials,
                guest,
                authenticator,
            } => Verdict::Verify {
                credentials,
                authenticator,
                then: Box::new(move |verified| self.verdict(verified_guest(guest, verified))),
            },
            Judgement::Refusal { reply, reason } => Verdict::Refuse {
                reply: Some(reply),
                reason,
            },
        }
    }

    fn idle_timeout(&self, guest: &Guest) -> IdleTimeout {
        match self.shared.options.beats {
            Some(beats) if self.connection.has(Feature::Beats) => IdleTimeout::Beats(beats),
            _ => guest.idle_timeout(),
        }
    }

    fn handler(self, guest: Guest) -> Arc<dyn Handler> {
        Arc::new(UserConnection::new(
            self.shared,
            self.connection,
            guest.properties,
        ))
    }
}
