//! One query, from its statement to its `QUERY_RESULT`: the body of its task.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use protos::{
    calls::user::QueryResult as QueryResultCall,
    coord::DrillbitEndpoint,
    shared::{QueryResult, query_result::QueryState},
};
use rpc_bus::{CallError, CallOptions, Feature, RemoteConnection, StreamKey, ledger::Charge};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    engine::QueryRequest,
    error::UserError,
    registry::{Ending, Entry},
    result::Delivery,
    server::Shared,
    session::SessionSlot,
};

/// A query that was accepted.
pub(crate) struct Query {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: RemoteConnection,
    pub(crate) session: Arc<SessionSlot>,
    pub(crate) node: Arc<DrillbitEndpoint>,
    pub(crate) entry: Entry,
    pub(crate) request: QueryRequest,
    pub(crate) stream: StreamKey,
    /// Its place among the queries of the connection, and the memory of its statement.
    pub(crate) _held: (OwnedSemaphorePermit, Charge),
}

/// Why a query ended before its last row.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told to the client.
    Query(UserError),
    /// There is no client any more.
    Lost(CallError),
}

impl<E: Into<UserError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Query(error.into())
    }
}

impl Query {
    /// Runs it to its end, tells the client, and logs what the client cannot be told.
    pub(crate) async fn run(self) {
        let cancelled = self.entry.cancel_token().cancelled();
        let ended = tokio::select! {
            biased;
            () = cancelled => Ok(QueryState::Canceled),
            outcome = AssertUnwindSafe(self.execute()).catch_unwind() => match outcome {
                Ok(outcome) => outcome.map(|()| QueryState::Completed),
                Err(_) => Err(Failure::Query(UserError::panicked())),
            },
        };
        self.entry.ended(match &ended {
            Ok(QueryState::Canceled) => Ending::Canceled,
            Ok(_) => Ending::Completed,
            Err(Failure::Query(_)) => Ending::Failed,
            Err(Failure::Lost(_)) => Ending::Lost,
        });
        match ended {
            Ok(state) => self.finish(state, None).await,
            Err(Failure::Query(error)) => self.finish(QueryState::Failed, Some(error)).await,
            Err(Failure::Lost(error)) => {
                tracing::debug!(query = %self.request.id, %error, "the client of a query is gone");
            }
        }
    }

    async fn execute(&self) -> Result<(), Failure> {
        let session = self.session.get().await?;
        let output = session.run(self.request.clone()).await?;
        self.entry.running();
        Delivery::new(self, &output)?.send_all(output.batches).await
    }

    /// Sends the one `QUERY_RESULT`, behind all `QUERY_DATA`. Nobody waits for its acknowledgement.
    async fn finish(self, state: QueryState, error: Option<UserError>) {
        let id = self.request.id;
        let error = error.map(|error| self.report(&error));
        let result = QueryResult {
            query_state: Some(state.into()),
            query_id: Some(id.into()),
            error: error.into_iter().collect(),
        };
        let (connection, options) = (self.connection.clone(), self.call_options());
        // Its place is free before the client can know that it has ended.
        drop(self);
        if let Err(error) = connection
            .start::<QueryResultCall>(&result, Vec::new(), options)
            .await
        {
            tracing::debug!(query = %id, %error, "nobody to tell how a query ended");
        }
    }

    /// The error as it is sent; also logged if the server has to be looked at.
    fn report(&self, error: &UserError) -> protos::shared::DrillPbError {
        let wire = error.to_wire(&self.node);
        let (query, error_id) = (self.request.id, wire.error_id());
        if error.is_of_server() {
            tracing::warn!(%query, error_id, %error, "query failed");
        } else {
            tracing::debug!(%query, error_id, %error, "query failed");
        }
        if self.connection.has(Feature::ErrorAdvice) {
            wire
        } else {
            wire.without_advice()
        }
    }

    /// In order with the other frames of this query, and as slow as the client wants.
    pub(crate) fn call_options(&self) -> CallOptions {
        CallOptions {
            stream: self.stream,
            ..CallOptions::without_deadline()
        }
    }
}
