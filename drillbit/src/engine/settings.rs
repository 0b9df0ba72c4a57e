//! How DataFusion is set up: Drill's types, streaming batches, tables without DataFusion's own.

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;

use super::catalog::{Catalogs, SessionCatalog};
use super::dialect::{DrillDates, DrillTypes};
use super::functions;
use super::sql::rewrite::CATALOG;

/// Rows of a batch, the most that Drill's clients expect in one.
pub(super) const BATCH_ROWS: usize = 32 * 1024;

/// Settings that no session changes.
pub(super) fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_batch_size(BATCH_ROWS)
        .with_default_catalog_and_schema(CATALOG, "none")
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    // Views would be copied into Drill's vectors value by value.
    options.execution.parquet.schema_force_view_types = false;
    options.execution.listing_table_ignore_subdirectory = false;
    config
}

/// The state that a session's statements are planned with.
pub(super) fn session_state(
    runtime: &Arc<RuntimeEnv>,
    catalog: SessionCatalog,
    partitions: Option<NonZeroUsize>,
) -> SessionState {
    let mut config = session_config();
    if let Some(partitions) = partitions {
        config = config.with_target_partitions(partitions.get());
    }
    let mut builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::clone(runtime))
        .with_catalog_list(Arc::new(Catalogs(Arc::new(catalog))))
        .with_type_planner(Arc::new(DrillTypes))
        .with_default_features();
    builder
        .expr_planners()
        .get_or_insert_default()
        .insert(0, Arc::new(DrillDates::new()));
    builder
        .scalar_functions()
        .get_or_insert_default()
        .extend(functions::all());
    builder.build()
}
