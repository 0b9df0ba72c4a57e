//! An engine that does what the statement says, and what no real engine should.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use arrow::{
    array::{
        ArrayRef, Date32Array, DictionaryArray, Int64Array, RecordBatch, RecordBatchOptions,
        StringViewArray,
    },
    datatypes::{DataType, Field, Int32Type, Schema, SchemaRef},
};
use async_trait::async_trait;
use futures::{Stream, StreamExt, stream};
use protos::error::ErrorType;
use user_server::{Engine, QueryOutput, QueryRequest, Session, SessionProperties, UserError};

/// Rows of every batch but the last.
pub const BATCH_ROWS: i64 = 8192;

/// The engine, and how many results it is computing.
#[derive(Default)]
pub struct FakeEngine {
    pub computing: Arc<AtomicUsize>,
    /// What sessions were opened with.
    pub sessions: Mutex<Vec<SessionProperties>>,
}

#[async_trait]
impl Engine for FakeEngine {
    async fn open_session(
        &self,
        properties: SessionProperties,
    ) -> Result<Arc<dyn Session>, UserError> {
        let opened = properties.clone();
        self.sessions.lock().expect("no panic").push(opened);
        let schema = properties.schema.unwrap_or_default();
        if schema == "nowhere" {
            return Err(UserError::new(
                ErrorType::Validation,
                "Schema [nowhere] is not valid",
            ));
        }
        Ok(Arc::new(FakeSession {
            schema,
            computing: Arc::clone(&self.computing),
        }))
    }
}

struct FakeSession {
    schema: String,
    computing: Arc<AtomicUsize>,
}

#[async_trait]
impl Session for FakeSession {
    async fn run(&self, query: QueryRequest) -> Result<QueryOutput, UserError> {
        let counted = Counted::new(&self.computing);
        let (verb, number) = query.sql.split_once(' ').unwrap_or((&query.sql, "0"));
        let rows: i64 = number.parse().unwrap_or(0);
        let rows = query
            .max_rows
            .map_or(rows, |max| rows.min(i64::try_from(max).unwrap_or(rows)));
        let batches = match verb {
            "rows" => numbers(rows).map(Ok).boxed(),
            "late" => numbers(rows)
                .map(Ok)
                .chain(stream::once(async { Err(broken()) }))
                .boxed(),
            "panics" => numbers(rows)
                .map(Ok)
                .chain(stream::once(async { panic!("as asked") }))
                .boxed(),
            "stalls" => numbers(rows).map(Ok).chain(stream::pending()).boxed(),
            "twins" => return Ok(twins()),
            "types" => return Ok(types()),
            "hang" => std::future::pending().await,
            "panic" => panic!("as asked"),
            _ => {
                return Err(UserError::new(
                    ErrorType::Parse,
                    format!("not understood: {}", query.sql),
                ));
            }
        };
        Ok(QueryOutput {
            schema: schema(),
            batches: CountedStream {
                batches,
                _counted: counted,
            }
            .boxed(),
            affected_rows: None,
        })
    }

    fn current_schema(&self) -> String {
        self.schema.clone()
    }
}

fn broken() -> UserError {
    UserError::new(ErrorType::DataRead, "a broken page")
}

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

/// The numbers below `rows`.
fn numbers(rows: i64) -> impl Stream<Item = RecordBatch> + Send {
    let starts = (0..rows).step_by(usize::try_from(BATCH_ROWS).unwrap_or(1));
    stream::iter(starts.map(move |start| {
        let values = start..rows.min(start + BATCH_ROWS);
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_new(schema(), vec![column]).expect("one column of the schema")
    }))
}

/// Two columns of one name.
fn twins() -> QueryOutput {
    let field = || Field::new("a", DataType::Int64, false);
    let schema = Arc::new(Schema::new(vec![field(), field()]));
    let column = || -> ArrayRef { Arc::new(Int64Array::from(vec![1])) };
    let (columns, options) = (vec![column(), column()], RecordBatchOptions::new());
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options);
    let batches = stream::iter([Ok(batch.expect("two columns"))]).boxed();
    QueryOutput {
        schema,
        batches,
        affected_rows: None,
    }
}

/// Types that Drill's vectors do not have.
pub fn unusual() -> RecordBatch {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(1), None]));
    let words: DictionaryArray<Int32Type> = ["a", "a"].into_iter().collect();
    let views: ArrayRef = Arc::new(StringViewArray::from(vec!["x", "longer than twelve bytes"]));
    let columns = [("d", days), ("w", Arc::new(words) as _), ("v", views)];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .expect("columns of one length")
}

fn types() -> QueryOutput {
    QueryOutput {
        schema: unusual().schema(),
        batches: stream::iter([Ok(unusual()), Ok(unusual())]).boxed(),
        affected_rows: None,
    }
}

/// Counts as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct CountedStream<S> {
    batches: S,
    _counted: Counted,
}

impl<S: Stream + Unpin> Stream for CountedStream<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.batches.poll_next_unpin(cx)
    }
}
