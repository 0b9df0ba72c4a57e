//! The engine as the user plane sees it: its traits and its errors.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use protos::error::{ErrorType, Retry};
use user_server::{Engine, QueryOutput, QueryRequest, Session, SessionProperties, UserError};

use super::error::{EngineError, ErrorClass};
use super::{DrillEngine, EngineSession};

#[async_trait]
impl Engine for DrillEngine {
    async fn open_session(
        &self,
        properties: SessionProperties,
    ) -> Result<Arc<dyn Session>, UserError> {
        let session = self.session();
        if let Some(schema) = properties.schema.filter(|schema| !schema.is_empty()) {
            session.use_schema(&schema)?;
        }
        Ok(Arc::new(session))
    }
}

#[async_trait]
impl Session for EngineSession {
    async fn run(&self, query: QueryRequest) -> Result<QueryOutput, UserError> {
        let rows = self.query(&query.sql, query.max_rows).await?;
        let batches = rows.batches.map_err(UserError::from).boxed();
        Ok(QueryOutput {
            schema: rows.schema,
            batches,
            affected_rows: None,
        })
    }

    fn current_schema(&self) -> String {
        self.default_schema().unwrap_or_default()
    }
}

impl From<EngineError> for UserError {
    fn from(error: EngineError) -> Self {
        let kind = match error.class() {
            ErrorClass::Parse => ErrorType::Parse,
            ErrorClass::Validation => ErrorType::Validation,
            ErrorClass::Unsupported => ErrorType::UnsupportedOperation,
            ErrorClass::DataRead => ErrorType::DataRead,
            ErrorClass::Resource => ErrorType::Resource,
            ErrorClass::System => ErrorType::System,
        };
        let retry = if error.is_retryable() {
            Retry::SameNode
        } else {
            Retry::Never
        };
        Self::new(kind, error.to_string()).with_retry(retry)
    }
}
