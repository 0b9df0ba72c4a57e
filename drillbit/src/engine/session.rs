//! One client's session: default schema, options, and statements that answer with a stream.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::runtime::Handle;

use super::catalog::{SessionCatalog, SharedSchemas};
use super::error::EngineError;
use super::options::SessionOptions;
use super::planning::{PlanningThreads, panicked};
use super::settings;
use super::statement::{self, Planned, SessionData};

/// A result: its columns at once, its rows as they are polled for.
pub struct Rows {
    /// The columns.
    pub schema: SchemaRef,
    /// Batches of these columns. Dropping the stream cancels the query.
    pub batches: BoxStream<'static, Result<RecordBatch, EngineError>>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// A session; statements of one session may run at the same time.
#[derive(Debug)]
pub struct EngineSession {
    data: Arc<SessionData>,
    planning: Arc<PlanningThreads>,
}

impl EngineSession {
    pub(super) fn new(
        schemas: Arc<SharedSchemas>,
        runtime: &Arc<RuntimeEnv>,
        partitions: Option<NonZeroUsize>,
        planning: Arc<PlanningThreads>,
    ) -> Self {
        let options = Arc::new(SessionOptions::default());
        let catalog = SessionCatalog::new(Arc::clone(&schemas), Arc::clone(&options));
        let state = settings::session_state(runtime, catalog, partitions);
        let data = SessionData {
            state,
            schemas,
            options,
            default_schema: Mutex::default(),
        };
        Self {
            data: Arc::new(data),
            planning,
        }
    }

    /// Makes `schema` the default schema, as USE does.
    ///
    /// # Errors
    ///
    /// [`EngineError::SchemaNotFound`].
    pub fn use_schema(&self, schema: &str) -> Result<(), EngineError> {
        self.data.use_schema(schema).map(drop)
    }

    /// Full name of the default schema.
    #[must_use]
    pub fn default_schema(&self) -> Option<String> {
        self.data.default_schema()
    }

    /// Plans `sql` on a planning thread and starts it. At most `max_rows` rows come, or fewer if the
    /// session's own limit is lower.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the statement and that is known before the first row.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the planner; a plan that comes too late is dropped.
    pub async fn query(&self, sql: &str, max_rows: Option<u64>) -> Result<Rows, EngineError> {
        let (data, sql, runtime) = (Arc::clone(&self.data), sql.to_owned(), Handle::current());
        let own_limit = data.options.max_rows();
        let max_rows = max_rows.into_iter().chain(own_limit).min();
        let job = move |stop: &_| statement::plan(&data, &sql, max_rows, stop, &runtime);
        match self.planning.run(job).await? {
            Planned::Answer(batch) => Ok(answer(batch)),
            Planned::Rows {
                output,
                stream,
                files,
            } => {
                let schema = Arc::clone(output.schema());
                let batches = std::panic::AssertUnwindSafe(stream).catch_unwind().map(
                    move |next| match next {
                        Ok(Ok(batch)) => output
                            .convert(&batch)
                            .map_err(|error| EngineError::running(error.into(), &files)),
                        Ok(Err(error)) => Err(EngineError::running(error, &files)),
                        Err(panic) => Err(panicked(panic.as_ref())),
                    },
                );
                Ok(Rows {
                    schema,
                    batches: batches.boxed(),
                })
            }
        }
    }
}

fn answer(batch: RecordBatch) -> Rows {
    Rows {
        schema: batch.schema(),
        batches: stream::once(async { Ok(batch) }).boxed(),
    }
}
