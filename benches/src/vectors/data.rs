//! The batches of bench `vectors`, always the same ones.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, Schema};

/// What is measured: direction, type, and whether rows may be null.
pub(super) const CASES: [&str; 36] = [
    "decode/int64/required",
    "decode/int64/nullable",
    "decode/float64/required",
    "decode/float64/nullable",
    "decode/utf8/required",
    "decode/utf8/nullable",
    "decode/utf8-wide/required",
    "decode/utf8-wide/nullable",
    "decode/decimal/required",
    "decode/decimal/nullable",
    "decode/bool/required",
    "decode/bool/nullable",
    "decode/list/required",
    "decode/list/nullable",
    "decode/mixed20x100/same",
    "decode/mixed20x100/first",
    "decode/mixed6x40/same",
    "decode/mixed6x10000/same",
    "encode/int64/required",
    "encode/int64/nullable",
    "encode/float64/required",
    "encode/float64/nullable",
    "encode/utf8/required",
    "encode/utf8/nullable",
    "encode/utf8-wide/required",
    "encode/utf8-wide/nullable",
    "encode/decimal/required",
    "encode/decimal/nullable",
    "encode/bool/required",
    "encode/bool/nullable",
    "encode/list/required",
    "encode/list/nullable",
    "encode/mixed20x100/same",
    "encode/mixed20x100/first",
    "encode/mixed6x40/same",
    "encode/mixed6x10000/same",
];

const ROWS: usize = 64 * 1024;
const TYPES: [&str; 6] = ["int64", "float64", "utf8", "decimal", "bool", "utf8-wide"];

/// The batch of a case.
pub(super) fn batch(case: &str) -> RecordBatch {
    let mut parts = case.split('/').skip(1);
    let (kind, mode) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    if let Some((columns, rows)) = mixed(kind) {
        return of_columns((0..columns).map(|at| {
            let nulls = (at % 2 == 1).then(|| nulls(rows));
            let values = column(TYPES[at % TYPES.len()], rows, nulls);
            (format!("column{at}"), values)
        }));
    }
    let nulls = (mode == "nullable").then(|| nulls(ROWS));
    of_columns([("c".to_owned(), column(kind, ROWS, nulls))])
}

/// Columns and rows of a batch of all types.
fn mixed(kind: &str) -> Option<(usize, usize)> {
    let (columns, rows) = kind.strip_prefix("mixed")?.split_once('x')?;
    Some((columns.parse().ok()?, rows.parse().ok()?))
}

fn of_columns(columns: impl IntoIterator<Item = (String, ArrayRef)>) -> RecordBatch {
    let (fields, columns): (Vec<_>, Vec<_>) = columns
        .into_iter()
        .map(|(name, column)| {
            let nullable = column.is_nullable();
            (
                Field::new(name, column.data_type().clone(), nullable),
                column,
            )
        })
        .unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .expect("invariant: columns of one length")
}

/// One row in eight is null, in no regular order.
fn nulls(rows: usize) -> NullBuffer {
    (0..rows)
        .map(|row| !scattered(row).is_multiple_of(8))
        .collect()
}

/// A number that has little to do with the one of the next row.
fn scattered(row: usize) -> u64 {
    (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

#[expect(clippy::cast_possible_wrap, reason = "any number will do")]
fn number(row: usize) -> i64 {
    scattered(row) as i64
}

#[expect(clippy::cast_precision_loss, reason = "any number will do")]
fn column(kind: &str, rows: usize, nulls: Option<NullBuffer>) -> ArrayRef {
    let all = 0..rows;
    match kind {
        "int64" => Arc::new(Int64Array::new(all.map(number).collect(), nulls)),
        "float64" => {
            let values = all.map(|row| number(row) as f64 / 7.0).collect();
            Arc::new(Float64Array::new(values, nulls))
        }
        "bool" => {
            let values = all.map(|row| scattered(row).is_multiple_of(3)).collect();
            Arc::new(BooleanArray::new(values, nulls))
        }
        "decimal" => {
            let values = all
                .map(|row| i128::from(number(row) % 1_000_000_000))
                .collect();
            let array = Decimal128Array::new(values, nulls).with_precision_and_scale(18, 2);
            Arc::new(array.expect("invariant: 9 digits fit into 18"))
        }
        "list" => list(rows, nulls),
        "utf8-wide" => text(rows, nulls.as_ref(), "stra\u{df}e \u{4e2d}\u{6587} "),
        _ => text(rows, nulls.as_ref(), "a street in some town "),
    }
}

/// Some twenty characters a row.
fn text(rows: usize, nulls: Option<&NullBuffer>, base: &str) -> ArrayRef {
    let row = |row: usize| {
        let present = nulls.is_none_or(|nulls| nulls.is_valid(row));
        present.then(|| format!("{base}{}", scattered(row) % 1000))
    };
    Arc::new((0..rows).map(row).collect::<StringArray>())
}

/// Four numbers a row.
fn list(rows: usize, nulls: Option<NullBuffer>) -> ArrayRef {
    let offsets = OffsetBuffer::from_repeated_length(4, rows);
    let is_nullable = nulls.is_some();
    let values = column("int64", 4 * rows, None);
    let item = Arc::new(Field::new_list_field(
        values.data_type().clone(),
        is_nullable,
    ));
    Arc::new(ListArray::new(item, offsets, values, nulls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_batch() {
        for case in CASES {
            let batch = batch(case);
            let nullable = batch.columns().iter().any(|column| column.null_count() > 0);
            let mixed = case.split('/').nth(1).and_then(mixed);
            let nulls = mixed.is_some() || case.ends_with("nullable");
            assert_eq!(nullable, nulls, "{case}");
            let (columns, rows) = mixed.unwrap_or((1, ROWS));
            assert_eq!(batch.num_columns(), columns, "{case}");
            assert_eq!(batch.num_rows(), rows, "{case}");
        }
    }
}
