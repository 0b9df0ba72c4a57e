//! Columns of a record batch: what its definition says, and the first values of each.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    datatypes::{DataType, FieldRef},
    json::writer::make_encoder,
};
use bytes::Bytes;
use prost::{Message, Name};
use protos::{
    calls::MessageName,
    common::{DataMode, MinorType},
    data::FragmentRecordBatch,
    shared::{NamePart, QueryData, RecordBatchDef, SerializedField},
};
use record_batch::DecodeOptions;
use serde_json::{Map, Value, json};

use crate::output::json_options;

/// The definition inside a message that carries a batch.
pub(super) fn definition(message: MessageName, pbody: &[u8]) -> Option<RecordBatchDef> {
    let is = |name: &str, package: &str| message.name == name && message.package == package;
    if is(QueryData::NAME, QueryData::PACKAGE) {
        QueryData::decode(pbody).ok()?.def
    } else if is(FragmentRecordBatch::NAME, FragmentRecordBatch::PACKAGE) {
        FragmentRecordBatch::decode(pbody).ok()?.def
    } else {
        None
    }
}

/// One object a column, with `rows` values each if wanted, and why there are none.
pub(super) fn show(
    def: &RecordBatchDef,
    dbody: &Bytes,
    rows: Option<usize>,
) -> (Value, Option<String>) {
    let mut columns: Vec<_> = def.field.iter().map(describe).collect();
    let error = rows.and_then(|rows| add_values(def, dbody, rows, &mut columns).err());
    (columns.into_iter().map(Value::Object).collect(), error)
}

fn describe(field: &SerializedField) -> Map<String, Value> {
    let name = field.name_part.as_ref().map(NamePart::name);
    let major = field.major_type.as_ref();
    let minor = major.and_then(|major| MinorType::try_from(major.minor_type?).ok());
    let mode = major.and_then(|major| DataMode::try_from(major.mode?).ok());
    let mut column = Map::new();
    column.insert("name".to_owned(), json!(name));
    column.insert(
        "type".to_owned(),
        json!(minor.map(|minor| minor.as_str_name())),
    );
    column.insert(
        "mode".to_owned(),
        json!(mode.map(|mode| mode.as_str_name())),
    );
    column.insert("value_count".to_owned(), json!(field.value_count));
    column.insert("buffer_length".to_owned(), json!(field.buffer_length));
    column
}

fn add_values(
    def: &RecordBatchDef,
    dbody: &Bytes,
    rows: usize,
    columns: &mut [Map<String, Value>],
) -> Result<(), String> {
    let batch = record_batch::decode(def, dbody, &DecodeOptions::default())
        .map_err(|error| error.to_string())?;
    let rows = rows.min(batch.num_rows());
    for (column, (field, array)) in columns.iter_mut().zip(fields(&batch)) {
        column.insert("values".to_owned(), values(field, &array.slice(0, rows))?);
    }
    Ok(())
}

fn fields(batch: &RecordBatch) -> impl Iterator<Item = (&FieldRef, &ArrayRef)> {
    batch.schema_ref().fields().iter().zip(batch.columns())
}

fn values(field: &FieldRef, array: &ArrayRef) -> Result<Value, String> {
    let field = Arc::clone(field);
    let options = json_options();
    let mut encoder = make_encoder(&field, array, &options).map_err(|error| error.to_string())?;
    let mut values = Vec::with_capacity(array.len());
    let mut text = Vec::new();
    for row in 0..array.len() {
        text.clear();
        if encoder.is_null(row) {
            values.push(Value::Null);
        } else {
            encoder.encode(row, &mut text);
            values.push(parse(array.data_type(), &text)?);
        }
    }
    Ok(Value::Array(values))
}

/// A decimal stays text, because a JSON number of ours would lose digits.
fn parse(data_type: &DataType, text: &[u8]) -> Result<Value, String> {
    if matches!(
        data_type,
        DataType::Decimal128(..) | DataType::Decimal256(..)
    ) {
        return Ok(Value::from(String::from_utf8_lossy(text)));
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}
