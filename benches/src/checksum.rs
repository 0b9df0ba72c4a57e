//! One number for a whole result, whoever read it and in whatever order its rows came.
//!
//! Every cell takes part, cells of one row belong together, and rows are added up, because a query without
//! ORDER BY has no order. `Scan.java` of the interop tests computes the same number from JDBC's getters.

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Date64Type, Float64Type, Int32Type, Int64Type};

/// Stands for SQL NULL: no value of the data set's INT column has this bit.
const NULL: u64 = 1 << 40;
const MILLIS_PER_DAY: i64 = 86_400_000;

/// Rows seen so far and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checksum {
    /// Number of rows.
    pub(crate) rows: u64,
    /// Wrapping sum of the rows' hashes.
    pub(crate) sum: u64,
}

impl Checksum {
    /// Adds the cells of one row, from left to right.
    pub(crate) fn add_row(&mut self, cells: impl IntoIterator<Item = u64>) {
        self.add_hash(cells.into_iter().fold(0, mix));
    }

    /// Adds the rows of `batch`, which has the columns of [`crate::data::schema`].
    pub(crate) fn add_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut hashes = vec![0; batch.num_rows()];
        for column in batch.columns() {
            mix_column(&mut hashes, column)?;
        }
        for hash in hashes {
            self.add_hash(hash);
        }
        Ok(())
    }

    /// Folds the hash before it is added: sums of products alone would not see two rows swap their last cells.
    fn add_hash(&mut self, hash: u64) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash ^ (hash >> 32));
    }
}

/// Cell of a BIGINT or INT column.
pub(crate) fn integer(value: impl Into<i64>) -> u64 {
    value.into().cast_unsigned()
}

/// Cell of a nullable INT column.
pub(crate) fn nullable(value: Option<i32>) -> u64 {
    value.map_or(NULL, integer)
}

/// Cell of a DOUBLE column.
pub(crate) fn double(value: f64) -> u64 {
    value.to_bits()
}

/// Cell of a VARCHAR column of ASCII text: the number that Java's `String.hashCode` is specified to be.
pub(crate) fn text(value: &str) -> u64 {
    let hash = value.bytes().fold(0_i32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(i32::from(byte))
    });
    integer(hash)
}

/// A DATE in milliseconds as the number of its day.
fn day(millis: i64) -> u64 {
    integer(millis.div_euclid(MILLIS_PER_DAY))
}

fn mix(hash: u64, cell: u64) -> u64 {
    (hash.rotate_left(5) ^ cell).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn mix_column(hashes: &mut [u64], column: &ArrayRef) -> Result<()> {
    match column.data_type() {
        DataType::Int64 => mix_all(hashes, column.as_primitive::<Int64Type>().values(), |v| {
            integer(*v)
        }),
        DataType::Float64 => mix_all(hashes, column.as_primitive::<Float64Type>().values(), |v| {
            double(*v)
        }),
        DataType::Utf8 => mix_all(hashes, column.as_string::<i32>().iter().flatten(), text),
        DataType::Utf8View => mix_all(hashes, column.as_string_view().iter().flatten(), text),
        DataType::Date32 => mix_all(hashes, column.as_primitive::<Date32Type>().values(), |v| {
            integer(*v)
        }),
        DataType::Date64 => mix_all(hashes, column.as_primitive::<Date64Type>().values(), |v| {
            day(*v)
        }),
        DataType::Int32 => mix_all(hashes, column.as_primitive::<Int32Type>(), nullable),
        other => Err(anyhow::anyhow!(
            "the data set has no column of type {other}"
        )),
    }
    .with_context(|| format!("column of type {}", column.data_type()))
}

/// Mixes one cell into each hash; a missing cell is an error, not a shorter sum.
fn mix_all<T>(
    hashes: &mut [u64],
    cells: impl IntoIterator<Item = T>,
    cell: impl Fn(T) -> u64,
) -> Result<()> {
    let mut mixed = 0;
    for (hash, value) in hashes.iter_mut().zip(cells) {
        *hash = mix(*hash, cell(value));
        mixed += 1;
    }
    ensure!(
        mixed == hashes.len(),
        "{} of {} cells are null",
        hashes.len() - mixed,
        hashes.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of(rows: &[[u64; 2]]) -> Checksum {
        let mut checksum = Checksum::default();
        for row in rows {
            checksum.add_row(*row);
        }
        checksum
    }

    #[test]
    fn the_order_of_rows_does_not_matter_but_who_is_in_which_row_does() {
        assert_eq!(sum_of(&[[1, 2], [3, 4]]), sum_of(&[[3, 4], [1, 2]]));
        assert_ne!(sum_of(&[[1, 2], [3, 4]]), sum_of(&[[1, 4], [3, 2]]));
        assert_ne!(sum_of(&[[1, 2]]), sum_of(&[[2, 1]]));
    }

    #[test]
    fn text_hashes_as_java_does() {
        // From the specification of String.hashCode: s[0]*31^(n-1) + ... + s[n-1].
        assert_eq!(text("ab"), 97 * 31 + 98);
        assert_eq!(text(""), 0);
    }

    #[test]
    fn null_is_no_value_of_an_int_column() {
        assert_ne!(nullable(None), nullable(Some(0)));
        assert!((i32::MIN..=i32::MAX).contains(&0) && nullable(Some(i32::MAX)) < NULL);
    }
}
