//! What the server asks of a query engine.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;
use protos::{id::QueryId, user::ServerMeta};

use crate::error::UserError;

/// Runs queries. One per server.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Opens the session of a connection; called before its first query.
    ///
    /// # Errors
    ///
    /// The query that needed the session fails with it, and the next one tries again.
    async fn open_session(
        &self,
        properties: SessionProperties,
    ) -> Result<Arc<dyn Session>, UserError>;

    /// What database tools are told about the SQL that runs here. The current schema is filled in
    /// by the server.
    fn server_meta(&self) -> ServerMeta {
        crate::meta::server_meta()
    }
}

/// State that the queries of one connection share: options, the default schema.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// Plans a statement and starts it. The future, or the stream that it gave, is dropped when the
    /// query is cancelled; a panic in either fails this query only.
    ///
    /// # Errors
    ///
    /// The statement is refused, or failed before its first batch.
    async fn run(&self, query: QueryRequest) -> Result<QueryOutput, UserError>;

    /// The schema that unqualified names are looked up in; empty if there is none.
    fn current_schema(&self) -> String {
        String::new()
    }
}

/// What a client said of itself in the handshake.
#[derive(Clone, Default)]
pub struct SessionProperties {
    /// The user who has authenticated; without authentication whom the client wants to be. Empty
    /// if it did not say.
    pub user: String,
    /// Schema that the session starts in.
    pub schema: Option<String>,
    /// Name of the client, such as `Apache Drill JDBC Driver`.
    pub client_name: Option<String>,
    /// Version of the client, in its own form.
    pub client_version: Option<String>,
    /// Everything else that the client sent, keys in lower case. Without its passwords.
    pub properties: BTreeMap<String, String>,
}

/// Names the properties without their values: nothing tells which of them are secrets.
impl fmt::Debug for SessionProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionProperties")
            .field("user", &self.user)
            .field("schema", &self.schema)
            .field("client_name", &self.client_name)
            .field("client_version", &self.client_version)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

/// One statement to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryRequest {
    /// Name of the query, made by the server.
    pub id: QueryId,
    /// The statement as the client sent it.
    pub sql: String,
    /// Most rows that the client wants; `None` for all.
    pub max_rows: Option<u64>,
}

/// A result that is being computed.
pub struct QueryOutput {
    /// Columns of every batch. Equal names are told apart by the server, as Drill does.
    pub schema: SchemaRef,
    /// The rows, in batches of any size. It is polled on the app runtime.
    pub batches: BoxStream<'static, Result<RecordBatch, UserError>>,
    /// For a statement that writes: how many rows it wrote.
    pub affected_rows: Option<i32>,
}

impl fmt::Debug for QueryOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryOutput")
            .field("schema", &self.schema)
            .field("affected_rows", &self.affected_rows)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_a_password() {
        let password = ("password".to_owned(), "hunter2".to_owned());
        let properties = SessionProperties {
            properties: BTreeMap::from([password]),
            ..SessionProperties::default()
        };
        assert!(!format!("{properties:?}").contains("hunter2"));
    }
}
