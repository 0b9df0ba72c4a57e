//! Statements as a client sends them, through the whole engine.

mod data;
mod examples;
mod hostile;
mod results;
mod statements;

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;

use super::output::PRECISION;
use super::{DrillEngine, EngineError, EngineOptions, EngineSession};

/// A result, all of it.
struct Answer {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Answer {
    /// Each column as `name TYPE`, `?` for OPTIONAL, and the length of a VARCHAR.
    fn columns(&self) -> Vec<String> {
        let column = |field: &Arc<arrow::datatypes::Field>| {
            let optional = if field.is_nullable() { "?" } else { "" };
            let length = field.metadata().get(PRECISION);
            let length = length
                .map(|length| format!("({length})"))
                .unwrap_or_default();
            format!("{} {}{length}{optional}", field.name(), field.data_type())
        };
        self.schema.fields().iter().map(column).collect()
    }

    /// Each row, its values separated by `|`.
    fn rows(&self) -> Vec<String> {
        self.batches
            .iter()
            .flat_map(|batch| (0..batch.num_rows()).map(|row| shown(batch, row)))
            .collect()
    }

    fn row_count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

fn shown(batch: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let value = |column: &Arc<dyn Array>| {
        ArrayFormatter::try_new(column, &options)
            .expect("shown")
            .value(row)
            .to_string()
    };
    batch
        .columns()
        .iter()
        .map(value)
        .collect::<Vec<_>>()
        .join("|")
}

fn engine() -> DrillEngine {
    DrillEngine::try_new(&EngineOptions::default()).expect("default options")
}

/// Runs a statement in a session of its own.
async fn run(sql: &str) -> Result<Answer, EngineError> {
    run_in(&engine().session(), sql).await
}

async fn run_in(session: &EngineSession, sql: &str) -> Result<Answer, EngineError> {
    run_limited(session, sql, None).await
}

async fn run_limited(
    session: &EngineSession,
    sql: &str,
    max_rows: Option<u64>,
) -> Result<Answer, EngineError> {
    let rows = session.query(sql, max_rows).await?;
    Ok(Answer {
        schema: rows.schema,
        batches: rows.batches.try_collect().await?,
    })
}

/// Runs a statement that has an answer.
async fn answer(sql: &str) -> Answer {
    match run(sql).await {
        Ok(answer) => answer,
        Err(error) => panic!("{sql}: {error}"),
    }
}

/// Runs a statement that has none.
async fn refusal(sql: &str) -> EngineError {
    match run(sql).await {
        Ok(answer) => panic!("{sql}: {:?} {:?}", answer.columns(), answer.rows()),
        Err(error) => error,
    }
}
