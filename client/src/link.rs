//! One connection and what runs on it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use protos::{
    Plane,
    calls::{
        Call,
        user::{CancelQuery, RunQuery as RunQueryCall},
    },
    id::QueryId,
    shared::QueryType,
    user::{QueryResultsMode, RunQuery},
};
use rpc_bus::{CallOptions, ConnectError, Endpoint, Feature, RemoteConnection, auth, task::Tasks};
use tokio::sync::oneshot;

use crate::{
    error::ClientError,
    handshake::{ServerInfo, ServerKind, Welcome, hello, judge},
    options::ClientOptions,
    router::{Event, Events, Router},
    stream::QueryStream,
};

/// An open connection. It is closed when the client and all results that come over it are dropped.
#[derive(Debug)]
pub(crate) struct Link {
    connection: RemoteConnection,
    router: Arc<Router>,
    options: Arc<ClientOptions>,
    tasks: Tasks,
    /// Whether a result streams that needs the connection for itself.
    leased: AtomicBool,
}

impl Link {
    /// Connects, shakes hands, and authenticates if the server asks for it.
    pub(crate) async fn connect(
        address: SocketAddr,
        options: &Arc<ClientOptions>,
    ) -> Result<(Arc<Self>, ServerInfo), ClientError> {
        let router = Arc::new(Router::default());
        let (connection, reply) = rpc_bus::connect(
            &Endpoint {
                addr: address,
                plane: Plane::User,
                tls: options.tls.clone(),
            },
            &options.runtime,
            options.connection(),
            options.ledger.clone(),
            hello(options),
            Arc::<Router>::clone(&router),
        )
        .await?;
        let server = match judge(reply, address)? {
            Welcome::Open(server) => server,
            Welcome::Authenticate {
                server,
                mechanisms,
                encrypted,
            } => {
                authenticate(&connection, options, mechanisms, encrypted).await?;
                server
            }
        };
        if let Some(beats) = options.beats
            && connection.has(Feature::Beats)
        {
            connection
                .begin_beats(beats)
                .map_err(ConnectError::Options)?;
        }
        Ok((Self::open(connection, router, options, server.kind), server))
    }

    fn open(
        connection: RemoteConnection,
        router: Arc<Router>,
        options: &Arc<ClientOptions>,
        kind: ServerKind,
    ) -> Arc<Self> {
        let bytes_max = match kind {
            ServerKind::Acknowledged => None,
            ServerKind::Unlimited => Some(options.undelivered_bytes_max),
        };
        router.gate().guard(connection.clone(), bytes_max);
        Arc::new(Self {
            connection,
            router,
            options: Arc::clone(options),
            tasks: Tasks::default(),
            leased: AtomicBool::new(false),
        })
    }

    pub(crate) fn connection(&self) -> &RemoteConnection {
        &self.connection
    }

    /// Sends a query and waits for its name. Goes on by itself when the caller does not wait: a
    /// query that nobody reads is cancelled once its name is known.
    pub(crate) async fn query(
        self: &Arc<Self>,
        sql: &str,
        lease: Option<Lease>,
    ) -> Result<QueryStream, ClientError> {
        let (opened, stream) = oneshot::channel();
        let (link, query) = (Arc::clone(self), self.run_query(sql));
        let task = async move {
            // A stream that comes back is dropped, which cancels it.
            let _ = opened.send(link.open_query(&query, lease).await);
        };
        self.spawn(task)?;
        stream
            .await
            .unwrap_or_else(|_| Err(ClientError::Lost(rpc_bus::CloseReason::Aborted)))
    }

    fn run_query(&self, sql: &str) -> RunQuery {
        let autolimit = self
            .options
            .autolimit_rows
            .map(|rows| i32::try_from(rows).unwrap_or(i32::MAX));
        RunQuery {
            results_mode: Some(QueryResultsMode::StreamFull.into()),
            r#type: Some(QueryType::Sql.into()),
            plan: Some(sql.to_owned()),
            autolimit_rowcount: autolimit,
            ..RunQuery::default()
        }
    }

    async fn open_query(
        self: Arc<Self>,
        query: &RunQuery,
        lease: Option<Lease>,
    ) -> Result<QueryStream, ClientError> {
        let opening = self.router.open();
        let options = CallOptions::without_deadline();
        let answer = self
            .connection
            .call::<RunQueryCall>(query, Vec::new(), options)
            .await?;
        let id = QueryId::try_from(answer.message);
        let id = id.map_err(|_| ClientError::Protocol("a query handle without a query id"))?;
        Ok(QueryStream::new(self, lease, id, opening.named(id)))
    }

    /// A call that only our own nodes know.
    pub(crate) async fn admin<C: Call>(
        &self,
        request: &C::Request,
    ) -> Result<C::Reply, ClientError> {
        if !self.connection.has(Feature::NodeStatus) {
            return Err(ClientError::NotOurs);
        }
        let options = CallOptions::default();
        let answer = self
            .connection
            .call::<C>(request, Vec::new(), options)
            .await?;
        Ok(answer.message)
    }

    /// Asks for the end of a query; how it ended comes as its last event.
    pub(crate) async fn cancel(&self, id: QueryId) -> Result<(), ClientError> {
        let options = CallOptions {
            deadline: Some(self.options.cancel_timeout),
            ..CallOptions::default()
        };
        self.connection
            .call::<CancelQuery>(&id.into(), Vec::new(), options)
            .await?;
        Ok(())
    }

    /// Cancels a query that nobody reads and discards what still comes of it, for a limited time.
    pub(crate) fn abandon(self: &Arc<Self>, id: QueryId, events: Events) {
        let link = Arc::clone(self);
        let task = async move {
            let end = tokio::time::timeout(link.options.cancel_timeout, link.drain(id, events));
            if end.await.is_err() {
                tracing::warn!(query = %id, "a cancelled query did not end");
                link.router.forget(id);
            }
        };
        if let Err(error) = self.spawn(task) {
            // The batches that wait are acknowledged by being dropped; the server ends the query
            // with the connection.
            tracing::warn!(query = %id, %error, "cannot cancel a query");
            self.router.forget(id);
        }
    }

    async fn drain(&self, id: QueryId, mut events: Events) {
        let cancel = async {
            if let Err(error) = self.cancel(id).await {
                tracing::debug!(query = %id, %error, "cancel failed");
            }
        };
        let discard = async { while let Some(Event::Batch(_)) = events.recv().await {} };
        tokio::join!(cancel, discard);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), ClientError> {
        let ClientOptions {
            runtime, ledger, ..
        } = &*self.options;
        Ok(self.tasks.spawn(runtime.app(), ledger, task)?)
    }

    /// Reserves the connection for one result; `None` if it is reserved.
    pub(crate) fn lease(self: &Arc<Self>) -> Option<Lease> {
        let free = !self.leased.swap(true, Ordering::AcqRel);
        free.then(|| Lease(Arc::clone(self)))
    }
}

/// Proves to a server that asked for it who the user is. Encryption by SASL is not to be had.
async fn authenticate(
    connection: &RemoteConnection,
    options: &ClientOptions,
    offered: Vec<String>,
    encrypted: bool,
) -> Result<(), ClientError> {
    match options.login() {
        Some(login) if !encrypted => {
            auth::authenticate(connection, &options.runtime, &login, &offered).await?;
            Ok(())
        }
        _ => Err(ClientError::Authentication { offered, encrypted }),
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close();
    }
}

/// A connection that is reserved, until dropped.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Link>);

impl Lease {
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.leased.store(false, Ordering::Release);
    }
}
