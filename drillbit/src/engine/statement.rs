//! One statement from its text to a running plan. Everything here runs on a planning thread.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::Optimizer;
use datafusion::physical_plan::{
    ExecutionPlan, SendableRecordBatchStream, displayable, execute_stream,
};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;
use tokio::runtime::Handle;

use super::catalog::SharedSchemas;
use super::error::EngineError;
use super::options::SessionOptions;
use super::output::Output;
use super::physical;
use super::planning::Stop;
use super::sql::command::{self, Command};
use super::sql::rewrite::{Rewritten, Scope, rewrite};
use super::sql::{limits, parse_query, tokenize};

/// What the statements of one session share.
#[derive(Debug)]
pub(super) struct SessionData {
    pub(super) state: SessionState,
    pub(super) schemas: Arc<SharedSchemas>,
    pub(super) options: Arc<SessionOptions>,
    /// Full name of the schema that unqualified names are looked up in.
    pub(super) default_schema: Mutex<Option<String>>,
}

/// The outcome of planning.
pub(super) enum Planned {
    /// A finished answer.
    Answer(RecordBatch),
    /// Rows that come when they are polled for.
    Rows {
        /// Shape of the rows.
        output: Output,
        /// The engine's own batches.
        stream: SendableRecordBatchStream,
        /// Files that are read, for messages.
        files: Vec<String>,
    },
}

/// Plans `sql` and starts it.
pub(super) fn plan(
    session: &SessionData,
    sql: &str,
    max_rows: Option<u64>,
    stop: &Stop,
    runtime: &Handle,
) -> Result<Planned, EngineError> {
    let tokens = tokenize(sql)?;
    limits::check(&tokens)?;
    let mut state = session.state.clone();
    // What the time is, for this statement.
    state.mark_start_execution();
    let planner = Planner {
        session,
        state,
        stop,
        runtime,
    };
    match command::read(&tokens, sql)? {
        Command::Query { from } => planner.query(after(tokens, from), sql, max_rows),
        Command::Explain { from } => planner.explain(after(tokens, from), sql),
        Command::Shorthand { sql } => planner.query(tokenize(&sql)?, &sql, max_rows),
        Command::Use { schema } => session
            .use_schema(&schema)
            .and_then(|schema| summary(&format!("Default schema changed to [{schema}]"))),
        Command::Set { name, value } => {
            session.options.set(&name, &value)?;
            summary(&format!("{name} updated."))
        }
        Command::Reset { name } => {
            session.options.reset(name.as_deref())?;
            summary(&format!("{} updated.", name.as_deref().unwrap_or("ALL")))
        }
    }
}

impl SessionData {
    /// Makes `name` the default schema and returns its full name.
    pub(super) fn use_schema(&self, name: &str) -> Result<String, EngineError> {
        let below = self
            .default_schema()
            .and_then(|default| self.schemas.find(&format!("{default}.{name}")));
        let found = below.or_else(|| self.schemas.find(name));
        let schema = found.ok_or_else(|| EngineError::SchemaNotFound {
            schema: name.to_owned(),
        })?;
        *self
            .default_schema
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(schema.clone());
        Ok(schema)
    }

    pub(super) fn default_schema(&self) -> Option<String> {
        self.default_schema
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Scope for SessionData {
    fn locate(&self, parts: &[&str]) -> Result<(String, String), EngineError> {
        self.schemas.locate(self.default_schema().as_deref(), parts)
    }

    fn has_function(&self, name: &str) -> bool {
        name == "unnest"
            || name == "grouping"
            || self.state.scalar_functions().contains_key(name)
            || self.state.aggregate_functions().contains_key(name)
            || self.state.window_functions().contains_key(name)
            || self.state.higher_order_functions().contains_key(name)
    }
}

struct Planner<'a> {
    session: &'a SessionData,
    state: SessionState,
    stop: &'a Stop,
    runtime: &'a Handle,
}

impl Planner<'_> {
    fn query(
        &self,
        tokens: Vec<TokenWithSpan>,
        sql: &str,
        max_rows: Option<u64>,
    ) -> Result<Planned, EngineError> {
        let (output, physical) = self.physical(tokens, sql, max_rows)?;
        let files = physical::files(physical.as_ref());
        // Operators that start at once spawn tasks on the runtime.
        let _entered = self.runtime.enter();
        let stream =
            execute_stream(physical, self.state.task_ctx()).map_err(EngineError::planning)?;
        Ok(Planned::Rows {
            output,
            stream,
            files,
        })
    }

    fn explain(&self, tokens: Vec<TokenWithSpan>, sql: &str) -> Result<Planned, EngineError> {
        let (_, physical) = self.physical(tokens, sql, None)?;
        let text = displayable(physical.as_ref()).indent(false).to_string();
        let lines: Vec<&str> = text.lines().collect();
        let json = serde_json::json!({ "head": { "type": "DATAFUSION_PHYSICAL" }, "graph": lines });
        explained(&text, &format!("{json:#}"))
    }

    fn physical(
        &self,
        tokens: Vec<TokenWithSpan>,
        sql: &str,
        max_rows: Option<u64>,
    ) -> Result<(Output, Arc<dyn ExecutionPlan>), EngineError> {
        let query = parse_query(tokens, sql)?;
        let Rewritten {
            query,
            output,
            spellings,
            positions,
        } = rewrite(query, self.session)?;
        self.stop.check()?;
        let statement = DfStatement::Statement(Box::new(Statement::Query(Box::new(query))));
        let placed = |error| place(EngineError::planning(error), &positions);
        let plan = self
            .wait(self.state.statement_to_plan(statement))?
            .map_err(placed)?;
        let plan = limited(plan, max_rows).map_err(EngineError::planning)?;
        let output = Output::of(&plan, output.as_deref(), &spellings);
        let optimized = self.optimized(plan).map_err(placed)?;
        let planner = self.state.query_planner();
        let physical = planner.create_physical_plan(&optimized, &self.state);
        let physical = self.wait(physical)?.map_err(placed)?;
        physical::check_depth(physical.as_ref())?;
        Ok((output, physical))
    }

    fn optimized(&self, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
        let state = &self.state;
        let analyzed =
            state
                .analyzer()
                .execute_and_check(plan, state.config_options(), |_, _| {})?;
        let rules = self.stop.between(&state.optimizer().rules);
        Optimizer::with_rules(rules).optimize(analyzed, state, |_, _| {})
    }

    /// Waits for what the planner reads from files, unless nobody waits for the plan.
    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, EngineError> {
        self.runtime.block_on(async {
            tokio::select! {
                done = work => Ok(done),
                () = self.stop.cancelled() => Err(EngineError::Cancelled),
            }
        })
    }
}

fn after(mut tokens: Vec<TokenWithSpan>, from: usize) -> Vec<TokenWithSpan> {
    tokens.split_off(from)
}

fn limited(plan: LogicalPlan, max_rows: Option<u64>) -> Result<LogicalPlan, DataFusionError> {
    let Some(rows) = max_rows.and_then(|rows| usize::try_from(rows).ok()) else {
        return Ok(plan);
    };
    LogicalPlanBuilder::from(plan).limit(0, Some(rows))?.build()
}

/// Adds the place in the statement to errors about names.
fn place(error: EngineError, positions: &super::sql::position::Positions) -> EngineError {
    match error {
        EngineError::ColumnNotFound {
            column,
            table,
            at: None,
        } => {
            let at = positions.column(&column);
            EngineError::ColumnNotFound { column, table, at }
        }
        EngineError::ObjectNotFound {
            object,
            schema,
            at: None,
        } => {
            let at = positions.table(&object);
            EngineError::ObjectNotFound { object, schema, at }
        }
        other => other,
    }
}

/// The answer of statements that return no rows of their own.
fn summary(text: &str) -> Result<Planned, EngineError> {
    let schema = Schema::new(vec![
        Field::new("ok", DataType::Boolean, false),
        Field::new("summary", DataType::Utf8, true),
    ]);
    let (ok, text) = (
        BooleanArray::from(vec![true]),
        StringArray::from(vec![text]),
    );
    answer(RecordBatch::try_new(
        Arc::new(schema),
        vec![Arc::new(ok), Arc::new(text)],
    ))
}

fn explained(text: &str, json: &str) -> Result<Planned, EngineError> {
    let schema = Schema::new(vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("json", DataType::Utf8, true),
    ]);
    let (text, json) = (StringArray::from(vec![text]), StringArray::from(vec![json]));
    answer(RecordBatch::try_new(
        Arc::new(schema),
        vec![Arc::new(text), Arc::new(json)],
    ))
}

fn answer(batch: Result<RecordBatch, arrow::error::ArrowError>) -> Result<Planned, EngineError> {
    batch
        .map(Planned::Answer)
        .map_err(|error| EngineError::Internal {
            reason: error.to_string(),
        })
}
