//! One client's connection: which request does what. Nothing here waits.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use protos::{
    Plane,
    calls::{
        unordered,
        user::{CancelQuery, Drain, GetServerMeta, GetStatus, ResumePausedQuery, RunQuery},
    },
    coord::DrillbitEndpoint,
    error::ErrorType,
    id::QueryId,
    rpc::Ack,
    shared::QueryType,
    user::{self, GetServerMetaResp, RequestStatus, RpcType, ServerMeta},
};
use rpc_bus::{CloseReason, Feature, Handler, InboundRequest, RemoteConnection, ledger::Kind};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    admin::NodeAdmin,
    engine::{QueryRequest, SessionProperties},
    error::UserError,
    query::Query,
    server::Shared,
    session::SessionSlot,
};

/// Handles the requests of one client. Its end ends the client's queries.
pub(crate) struct UserConnection {
    shared: Arc<Shared>,
    connection: RemoteConnection,
    session: Arc<SessionSlot>,
    user: Arc<str>,
    node: Arc<DrillbitEndpoint>,
    /// A permit per query that may run.
    slots: Arc<Semaphore>,
    /// Parent of the queries' tokens.
    _alive: DropGuard,
    cancel: CancellationToken,
}

impl Handler for UserConnection {
    // Only CANCEL_QUERY: it sets a flag. So it works while all threads for queries are busy.
    fn runs_inline(&self, rpc_type: i32) -> bool {
        unordered(Plane::User, rpc_type)
    }

    fn handle(&self, request: InboundRequest) {
        match RpcType::try_from(request.rpc_type) {
            Ok(RpcType::RunQuery) => self.run_query(request),
            Ok(RpcType::CancelQuery) => self.cancel_query(request),
            Ok(RpcType::ResumePausedQuery) => resume_query(request),
            Ok(RpcType::GetServerMeta) => self.server_meta(request),
            Ok(RpcType::GetStatus) => self.status(request),
            Ok(RpcType::Drain) => self.drain(request),
            Ok(RpcType::SaslMessage) => {
                let message = "SASL_MESSAGE: this server does not ask for authentication";
                self.refuse(request, UserError::new(ErrorType::Permission, message));
            }
            Ok(known) => self.refuse(request, UserError::unsupported(known.as_str_name())),
            Err(_) => {
                let error = UserError::unsupported(&format!("RPC type {}", request.rpc_type));
                self.refuse(request, error);
            }
        }
    }

    fn closed(&self, reason: &CloseReason) {
        tracing::debug!(connection = self.connection.id(), %reason, "user connection closed");
        self.cancel.cancel();
    }
}

impl UserConnection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        connection: RemoteConnection,
        properties: SessionProperties,
    ) -> Self {
        let id = connection.id();
        tracing::debug!(connection = id, session = ?properties, "user connection opened");
        let cancel = CancellationToken::new();
        Self {
            user: properties.user.as_str().into(),
            node: Arc::new(shared.endpoint(&connection)),
            slots: Arc::new(Semaphore::new(shared.options.queries_per_connection_max)),
            session: Arc::new(SessionSlot::new(Arc::clone(&shared.engine), properties)),
            _alive: cancel.clone().drop_guard(),
            cancel,
            connection,
            shared,
        }
    }

    fn refuse(&self, request: InboundRequest, error: UserError) {
        request.refuse(error.into_failure(&self.node));
    }

    fn run_query(&self, request: InboundRequest) {
        let Some((query, _, reply)) = request.decode::<RunQuery>() else {
            return;
        };
        match self.start_query(query) {
            Ok(id) => reply.send(&id.into()),
            Err(error) => reply.fail(error.into_failure(&self.node)),
        }
    }

    /// Checks the limits, names the query, and gives it a task.
    fn start_query(&self, query: user::RunQuery) -> Result<QueryId, UserError> {
        let max_rows = u64::try_from(query.autolimit_rowcount())
            .ok()
            .filter(|&rows| rows > 0);
        let sql = self.statement(query)?;
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| self.too_many())?;
        let charge = self.shared.ledger.charge(Kind::Bytes, sql.capacity())?;
        let id = QueryId::generate(unix_seconds(), &mut rand::rng());
        let (user, cancel) = (Arc::clone(&self.user), self.cancel.child_token());
        let query = Query {
            shared: Arc::clone(&self.shared),
            connection: self.connection.clone(),
            session: Arc::clone(&self.session),
            node: Arc::clone(&self.node),
            entry: self.shared.queries.enter(id, user, sql.clone(), cancel),
            request: QueryRequest { id, sql, max_rows },
            stream: self.shared.next_stream(),
            _held: (slot, charge),
        };
        self.shared.spawn(query.run())?;
        Ok(id)
    }

    /// The SQL text. An absent type counts as SQL, as Drill takes it.
    // wire: golden/transcripts/raw_user "no type", "no results_mode"
    fn statement(&self, query: user::RunQuery) -> Result<String, UserError> {
        match query.r#type.map(QueryType::try_from) {
            None | Some(Ok(QueryType::Sql)) => {}
            Some(Ok(other)) => {
                return Err(UserError::unsupported(&format!(
                    "query type {}",
                    other.as_str_name()
                )));
            }
            Some(Err(_)) => return Err(UserError::unsupported("this query type")),
        }
        let sql = query.plan.unwrap_or_default();
        let bytes_max = self.shared.options.statement_bytes_max;
        if sql.len() > bytes_max {
            let message = format!(
                "the statement has {} bytes, at most {bytes_max} are accepted",
                sql.len()
            );
            return Err(UserError::new(ErrorType::Resource, message));
        }
        Ok(sql)
    }

    fn too_many(&self) -> UserError {
        let max = self.shared.options.queries_per_connection_max;
        UserError::resource(format!(
            "{max} queries of this connection are running already"
        ))
    }

    /// Acknowledged at once and always; how the query ended comes as its result.
    // wire: golden/transcripts/raw_user "CANCEL of unknown query"
    fn cancel_query(&self, request: InboundRequest) {
        let Some((id, _, reply)) = request.decode::<CancelQuery>() else {
            return;
        };
        if let Ok(id) = QueryId::try_from(id) {
            let _known = self.shared.queries.cancel(id);
        }
        reply.send(&Ack { ok: Some(true) });
    }

    fn server_meta(&self, request: InboundRequest) {
        let Some((_, _, reply)) = request.decode::<GetServerMeta>() else {
            return;
        };
        let meta = ServerMeta {
            current_schema: Some(self.session.current_schema()),
            max_statement_length: u32::try_from(self.shared.options.statement_bytes_max).ok(),
            ..self.shared.engine.server_meta()
        };
        reply.send(&GetServerMetaResp {
            status: Some(RequestStatus::Ok.into()),
            server_meta: Some(meta),
            error: None,
        });
    }
}

/// What only our own tools ask for.
impl UserConnection {
    /// Whoever answers them; `None` towards a peer that has not agreed on it, as if the number were unknown.
    fn admin(&self) -> Option<&dyn NodeAdmin> {
        let admin = self.shared.options.admin.as_deref();
        admin.filter(|_| self.connection.has(Feature::NodeStatus))
    }

    fn status(&self, request: InboundRequest) {
        let Some(admin) = self.admin() else {
            return self.refuse(request, UserError::unsupported("GET_STATUS"));
        };
        if let Some((_, _, reply)) = request.decode::<GetStatus>() {
            reply.send(&admin.status());
        }
    }

    fn drain(&self, request: InboundRequest) {
        let Some(admin) = self.admin() else {
            return self.refuse(request, UserError::unsupported("DRAIN"));
        };
        if let Some((_, _, reply)) = request.decode::<Drain>() {
            tracing::info!(user = &*self.user, "drain asked for");
            admin.drain();
            reply.send(&Ack { ok: Some(true) });
        }
    }
}

/// Nothing is ever paused here, so there is nothing to do.
// wire: golden/transcripts/raw_user "RESUME_PAUSED unknown"
fn resume_query(request: InboundRequest) {
    if let Some((_, _, reply)) = request.decode::<ResumePausedQuery>() {
        reply.send(&Ack { ok: Some(true) });
    }
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
