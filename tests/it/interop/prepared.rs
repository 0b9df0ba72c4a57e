//! A user server whose results are batches that a test has made: statement `7` is the batch with that number.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use protos::error::ErrorType;
use rpc_bus::ledger::{Ledger, Limits};
use user_server::{
    Engine, QueryOutput, QueryRequest, Session, SessionProperties, UserError, UserServer,
    UserServerOptions,
};

use crate::nodes::{bus, eventually_zero};

/// A running server, with a ledger that must read zero in the end.
pub(super) struct PreparedServer {
    server: UserServer,
    ledger: Ledger,
}

impl PreparedServer {
    /// Serves `batches`, on the test's own runtime.
    pub(super) async fn start(batches: Vec<RecordBatch>) -> Self {
        let ledger = Ledger::root("test", Limits::default());
        let engine = Arc::new(Prepared(Arc::new(batches)));
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = UserServerOptions::default();
        let server = UserServer::bind(here, bus(), options, ledger.clone(), engine);
        Self {
            server: server.await.unwrap(),
            ledger,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub(super) async fn stop(self) {
        self.server.shutdown(Duration::from_secs(10)).await;
        eventually_zero(&self.ledger).await;
    }
}

#[derive(Clone)]
struct Prepared(Arc<Vec<RecordBatch>>);

#[async_trait]
impl Engine for Prepared {
    async fn open_session(&self, _: SessionProperties) -> Result<Arc<dyn Session>, UserError> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Session for Prepared {
    async fn run(&self, query: QueryRequest) -> Result<QueryOutput, UserError> {
        let number: Option<usize> = query.sql.parse().ok();
        let batch = number.and_then(|number| self.0.get(number)).cloned();
        let batch = batch
            .ok_or_else(|| UserError::new(ErrorType::Parse, format!("no batch {}", query.sql)))?;
        Ok(QueryOutput {
            schema: batch.schema(),
            batches: stream::iter([Ok(batch)]).boxed(),
            affected_rows: None,
        })
    }
}
