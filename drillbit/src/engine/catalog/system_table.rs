//! Small tables that are made when they are asked for: INFORMATION_SCHEMA and sys.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::Result;

use super::folded::DISPLAY_NAME;

/// A column under construction: its shown name and its values.
pub(super) struct Column {
    name: &'static str,
    values: ArrayRef,
}

/// A VARCHAR column.
pub(super) fn text<T: AsRef<str>>(
    name: &'static str,
    values: impl IntoIterator<Item = Option<T>>,
) -> Column {
    Column {
        name,
        values: Arc::new(values.into_iter().collect::<StringArray>()),
    }
}

/// An INT column.
pub(super) fn int(name: &'static str, values: impl IntoIterator<Item = Option<i32>>) -> Column {
    Column {
        name,
        values: Arc::new(values.into_iter().collect::<Int32Array>()),
    }
}

/// The table of these columns.
pub(super) fn table(columns: Vec<Column>) -> Result<Arc<dyn TableProvider>> {
    let field = |column: &Column| {
        let spelling = HashMap::from([(DISPLAY_NAME.to_owned(), column.name.to_owned())]);
        Field::new(
            column.name.to_lowercase(),
            column.values.data_type().clone(),
            true,
        )
        .with_metadata(spelling)
    };
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    let values = columns.into_iter().map(|column| column.values).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), values)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
}
