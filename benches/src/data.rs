//! The data set: one Parquet file of 1 M rows × 5 columns, the same bytes on every machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use harness::cache;
use parquet::arrow::ArrowWriter;

use crate::checksum::{self, Checksum};

/// Rows of the file.
pub(crate) const ROWS: u64 = 1_000_000;
/// Rows per batch handed to the writer; the file has one row group, as most writers would make it.
const BATCH_ROWS: u64 = 100_000;
/// Changes whenever the rows below do, so that a cached file is never an old one.
const VERSION: u32 = 1;

/// A file in the cache directory, and what a reader of it must find.
#[derive(Debug)]
pub(crate) struct DataSet {
    path: PathBuf,
    /// What the whole file adds up to.
    pub(crate) expected: Checksum,
}

impl DataSet {
    /// Finds the file in the user's cache directory, or makes it.
    pub(crate) fn open() -> Result<Self> {
        let path = cache::entry(&format!("user-1m-v{VERSION}.parquet"), write)?;
        Ok(Self {
            path,
            expected: expected(),
        })
    }

    /// The query of the benchmark: every cell of the file, as Drill users write it.
    pub(crate) fn query(&self) -> String {
        format!(
            "select order_id, price, customer, sold_on, quantity from dfs.`{}`",
            self.path.display()
        )
    }
}

/// Columns of the file.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("order_id", DataType::Int64, false),
        Field::new("price", DataType::Float64, false),
        Field::new("customer", DataType::Utf8, false),
        Field::new("sold_on", DataType::Date32, false),
        Field::new("quantity", DataType::Int32, true),
    ]))
}

/// One row, a function of its number only.
struct Row {
    order_id: i64,
    price: f64,
    customer: String,
    sold_on_days: i32,
    quantity: Option<i32>,
}

impl Row {
    #[expect(
        clippy::cast_possible_wrap,
        reason = "every remainder is far below the type's limit"
    )]
    fn new(number: u64) -> Self {
        let random = scatter(number);
        Self {
            order_id: number as i64 + 1,
            price: f64::from(low(random, 1_000_000)) / 100.0,
            customer: format!("customer-{:06}", low(random >> 20, 5_000)),
            sold_on_days: 18_000 + low(random >> 33, 2_000) as i32,
            quantity: (random >> 60 != 0).then(|| low(random >> 44, 1_000) as i32),
        }
    }

    fn cells(&self) -> [u64; 5] {
        [
            checksum::integer(self.order_id),
            checksum::double(self.price),
            checksum::text(&self.customer),
            checksum::integer(self.sold_on_days),
            checksum::nullable(self.quantity),
        ]
    }
}

/// The output function of `SplitMix64`: a fixed seed whose values no library release changes.
fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn low(random: u64, limit: u32) -> u32 {
    u32::try_from(random % u64::from(limit)).expect("invariant: a remainder is below its divisor")
}

fn expected() -> Checksum {
    let mut expected = Checksum::default();
    for number in 0..ROWS {
        expected.add_row(Row::new(number).cells());
    }
    expected
}

fn write(path: &Path) -> Result<()> {
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema(), None)?;
    for first in (0..ROWS).step_by(usize::try_from(BATCH_ROWS)?) {
        writer.write(&batch(first..first + BATCH_ROWS)?)?;
    }
    writer.close()?;
    Ok(())
}

fn batch(numbers: std::ops::Range<u64>) -> Result<RecordBatch> {
    let rows: Vec<Row> = numbers.map(Row::new).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            rows.iter()
                .map(|row| Some(row.order_id))
                .collect::<Int64Array>(),
        ),
        Arc::new(
            rows.iter()
                .map(|row| Some(row.price))
                .collect::<Float64Array>(),
        ),
        Arc::new(
            rows.iter()
                .map(|row| Some(&row.customer))
                .collect::<StringArray>(),
        ),
        Arc::new(
            rows.iter()
                .map(|row| Some(row.sold_on_days))
                .collect::<Date32Array>(),
        ),
        Arc::new(rows.iter().map(|row| row.quantity).collect::<Int32Array>()),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_and_rows_add_up_to_the_same() {
        let mut of_batch = Checksum::default();
        of_batch.add_batch(&batch(0..1_000).unwrap()).unwrap();
        let mut of_rows = Checksum::default();
        (0..1_000).for_each(|number| of_rows.add_row(Row::new(number).cells()));
        assert_eq!(of_batch, of_rows);
    }

    #[test]
    fn some_quantities_are_null_and_most_are_not() {
        let nulls = (0..1_000)
            .filter(|number| Row::new(*number).quantity.is_none())
            .count();
        assert!((20..200).contains(&nulls), "{nulls}");
    }
}
