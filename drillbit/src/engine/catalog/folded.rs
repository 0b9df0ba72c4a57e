//! A table whose columns are offered in lower case, so that names match without regard to case.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::{Column, Result};
use datafusion::datasource::provider_as_source;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast, lit};

use crate::engine::sql::names::UniqueNames;

/// Key of the field metadata with the column's own spelling.
pub(in crate::engine) const DISPLAY_NAME: &str = "drillbit.name";

/// How missing values of a column are given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// As NULL.
    Null,
    /// Text columns never have NULL: as in Drill's text files, a missing value is empty.
    EmptyText,
}

/// `table` with lower-case column names; the table itself if it has them already.
pub(super) fn folded(
    table: Arc<dyn TableProvider>,
    missing: Missing,
) -> Result<Arc<dyn TableProvider>> {
    let schema = table.schema();
    let lower = lower_names(&schema);
    let same = schema
        .fields()
        .iter()
        .zip(&lower)
        .all(|(field, lower)| field.name() == lower && *field.data_type() != DataType::UInt64);
    if same && missing == Missing::Null {
        return Ok(table);
    }
    let columns = schema
        .fields()
        .iter()
        .zip(lower)
        .map(|(field, lower)| column(field, lower, missing));
    let columns: Vec<Expr> = columns.collect();
    let plan = LogicalPlanBuilder::scan("file", provider_as_source(table), None)?
        .project(columns)?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

fn lower_names(schema: &Schema) -> Vec<String> {
    let mut unique = UniqueNames::default();
    schema
        .fields()
        .iter()
        .map(|field| unique.claim(&field.name().to_lowercase()))
        .collect()
}

fn column(field: &Field, lower: String, missing: Missing) -> Expr {
    let column = Expr::Column(Column::new_unqualified(field.name()));
    let value = match (missing, field.data_type()) {
        (Missing::EmptyText, DataType::Utf8) => coalesce(vec![column, lit("")]),
        // Drill has no unsigned BIGINT that its clients read; as a decimal no value is lost.
        (_, DataType::UInt64) => cast(column, DataType::Decimal128(20, 0)),
        _ => column,
    };
    let spelling = HashMap::from([(DISPLAY_NAME.to_owned(), field.name().clone())]);
    value.alias_with_metadata(lower, Some(FieldMetadata::from(spelling)))
}
