//! An engine that does what the statement says: good results, late errors, endless waits, panics left out.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use protos::error::ErrorType;
use user_server::{Engine, QueryOutput, QueryRequest, Session, SessionProperties, UserError};

/// Most rows of a result.
const ROWS_MAX: i64 = 5000;
/// Rows of a batch.
const BATCH_ROWS: i64 = 700;

/// See the module's description.
pub(crate) struct Scripted;

#[async_trait]
impl Engine for Scripted {
    async fn open_session(
        &self,
        properties: SessionProperties,
    ) -> Result<Arc<dyn Session>, UserError> {
        match properties.schema.as_deref() {
            Some("nowhere") => Err(UserError::new(ErrorType::Validation, "no such schema")),
            _ => Ok(Arc::new(Self)),
        }
    }
}

#[async_trait]
impl Session for Scripted {
    async fn run(&self, query: QueryRequest) -> Result<QueryOutput, UserError> {
        let (verb, number) = query.sql.split_once(' ').unwrap_or((&query.sql, "3"));
        let rows = number.parse().unwrap_or(3).clamp(0, ROWS_MAX);
        let rows = match query.max_rows {
            Some(max) => rows.min(i64::try_from(max).unwrap_or(rows)),
            None => rows,
        };
        let batches = stream::iter(batches(rows).map(Ok));
        let batches = match verb {
            "late" => batches
                .chain(stream::once(async { Err(refusal("late")) }))
                .boxed(),
            "stalls" => batches.chain(stream::pending()).boxed(),
            "hang" => std::future::pending().await,
            "fail" => return Err(refusal("early")),
            _ => batches.boxed(),
        };
        Ok(QueryOutput {
            schema: schema(),
            batches,
            affected_rows: None,
        })
    }
}

fn refusal(when: &str) -> UserError {
    UserError::new(ErrorType::DataRead, format!("as asked, {when}"))
}

fn schema() -> SchemaRef {
    batch(0..0).schema()
}

fn batches(rows: i64) -> impl Iterator<Item = RecordBatch> + Send {
    let starts = (0..rows).step_by(usize::try_from(BATCH_ROWS).unwrap_or(1));
    starts.map(move |start| batch(start..rows.min(start + BATCH_ROWS)))
}

/// Numbers, and some of them as text.
pub(crate) fn batch(values: std::ops::Range<i64>) -> RecordBatch {
    let texts = values.clone().map(|n| (n % 3 > 0).then(|| n.to_string()));
    let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    let columns = [("n", numbers, false), ("t", texts, true)];
    RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length")
}
