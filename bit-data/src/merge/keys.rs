//! Rows by their keys: where an input stands, and which of two rows comes first.
//!
//! Keys are made for a block of rows at a time. That keeps them in cache, and it bounds their memory where a few bytes
//! on the wire stand for many: a dictionary's value, or a view of a text, counts once for every row.

use std::cmp::Ordering;

use arrow::{
    array::{ArrayRef, AsArray, ByteView, OffsetSizeTrait, RecordBatch},
    buffer::OffsetBuffer,
    compute::SortOptions,
    datatypes::{DataType, Schema},
    row::{RowConverter, Rows, SortField},
};
use record_batch::split;

use super::error::{KeyProblem, MergeKeyError};

/// Most rows of a block.
const BLOCK_ROWS_MAX: usize = 1024;
/// A block has about so many bytes of keys at most, or a single row.
const BLOCK_BYTES_TARGET: usize = 1 << 20;

/// One column of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// Which column, from 0 on.
    pub column: usize,
    /// Direction, and where nulls go.
    pub options: SortOptions,
}

impl SortKey {
    /// Smallest value first, nulls before it.
    #[must_use]
    pub fn ascending(column: usize) -> Self {
        let options = SortOptions::default();
        Self { column, options }
    }
}

/// Makes comparable bytes of the key columns.
#[derive(Debug)]
pub(super) struct Keys {
    converter: RowConverter,
    columns: Vec<usize>,
}

impl Keys {
    pub(super) fn try_new(schema: &Schema, keys: &[SortKey]) -> Result<Self, MergeKeyError> {
        if keys.is_empty() {
            return Err(MergeKeyError::NoKey);
        }
        let fields = keys.iter().map(|key| sort_field(schema, *key));
        let converter = RowConverter::new(fields.collect::<Result<_, _>>()?);
        Ok(Self {
            converter: converter.map_err(MergeKeyError::Rows)?,
            columns: keys.iter().map(|key| key.column).collect(),
        })
    }
}

fn sort_field(schema: &Schema, key: SortKey) -> Result<SortField, MergeKeyError> {
    let (column, columns) = (key.column, schema.fields().len());
    let field = schema.fields().get(column);
    let field = field.ok_or(MergeKeyError::Column { column, columns })?;
    let data_type = field.data_type().clone();
    let value = match &data_type {
        DataType::Dictionary(_, value) => value,
        other => other,
    };
    if value.is_nested() || matches!(value, DataType::Dictionary(..)) {
        return Err(MergeKeyError::Type { column, data_type });
    }
    Ok(SortField::new_with_options(data_type, key.options))
}

/// Where an input stands: its next row, unless it has none at the moment or has ended.
#[derive(Debug)]
pub(super) struct Cursor {
    /// Key columns of the batch; `None` without a next row.
    keys: Option<RecordBatch>,
    row: usize,
    /// Most rows of a block of this batch.
    block_rows_max: usize,
    /// Keys of the block that the row is in, whose first row is this one of the batch.
    block: Rows,
    block_row: usize,
    /// The row's key as far as it fits, to be compared without looking elsewhere.
    prefix: u128,
    /// Key of the last row of the block before, also that of another batch.
    last: Vec<u8>,
}

impl Cursor {
    pub(super) fn new(keys: &Keys) -> Self {
        Self {
            keys: None,
            row: 0,
            block_rows_max: 0,
            block: keys.converter.empty_rows(0, 0),
            block_row: 0,
            prefix: 0,
            last: Vec::new(),
        }
    }

    /// Stands at the first row of `batch`, which has at least one.
    pub(super) fn load(&mut self, keys: &Keys, batch: &RecordBatch) -> Result<(), KeyProblem> {
        let columns = batch.project(&keys.columns)?;
        self.block_rows_max = block_rows_max(&columns);
        self.load_unordered(&columns);
        self.next_block(keys)
    }

    /// Stands at the first row of `batch`, and is never to be compared.
    pub(super) fn load_unordered(&mut self, batch: &RecordBatch) {
        self.keys = Some(batch.clone());
        self.row = 0;
    }

    /// Whether there is no next row here.
    pub(super) fn is_ended(&self) -> bool {
        self.keys.is_none()
    }

    /// The next row, within its batch.
    pub(super) fn row(&self) -> usize {
        self.row
    }

    /// Rows from the next one to the end of the batch.
    pub(super) fn rows_left(&self) -> usize {
        let keys = self.keys.as_ref();
        keys.map_or(0, |keys| keys.num_rows() - self.row)
    }

    /// Leaves out `rows` rows; not to be compared afterwards.
    pub(super) fn skip(&mut self, rows: usize) {
        self.row += rows;
        if self.rows_left() == 0 {
            self.keys = None;
        }
    }

    /// Stands `rows` rows further on, which are at most those of its block.
    pub(super) fn advance(&mut self, keys: &Keys, rows: usize) -> Result<(), KeyProblem> {
        self.row += rows;
        if self.row < self.block_row + self.block.num_rows() {
            self.prefix = prefix(self.key(0));
            return Ok(());
        }
        self.remember_last();
        if self.rows_left() == 0 {
            self.keys = None;
            return Ok(());
        }
        self.next_block(keys)
    }

    /// Which of two next rows comes first; one that is not there comes last.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self.is_ended(), other.is_ended()) {
            (false, false) => self
                .prefix
                .cmp(&other.prefix)
                .then_with(|| self.key(0).cmp(other.key(0))),
            (is_ended, other_is_ended) => is_ended.cmp(&other_is_ended),
        }
    }

    /// How many rows of this block, at most `rows_max`, come before the next row of `other`; where `wins_ties`, also
    /// those equal to it. The next row is known to.
    pub(super) fn rows_before(&self, other: &Self, wins_ties: bool, rows_max: usize) -> usize {
        let left = self.block.num_rows() - (self.row - self.block_row);
        let rows_max = rows_max.min(left);
        if other.is_ended() {
            return rows_max;
        }
        let key = other.key(0);
        let comes_before = |ahead| {
            let order = self.key(ahead).cmp(key);
            order.is_lt() || (wins_ties && order.is_eq())
        };
        run_length(rows_max, comes_before)
    }

    #[cfg(test)]
    pub(super) fn key_bytes(&self) -> usize {
        self.block.size()
    }

    /// Key of the row `ahead` of the next one, in the same block.
    fn key(&self, ahead: usize) -> &[u8] {
        self.block.row(self.row - self.block_row + ahead).data()
    }

    /// Makes the keys of the next rows.
    fn next_block(&mut self, keys: &Keys) -> Result<(), KeyProblem> {
        let Some(columns) = &self.keys else {
            return Ok(());
        };
        let rest = columns.slice(self.row, columns.num_rows() - self.row);
        let mut blocks = split(&rest, self.block_rows_max, BLOCK_BYTES_TARGET);
        let rows = blocks.next().unwrap_or_else(|| rest.clone());
        self.block.clear();
        keys.converter.append(&mut self.block, rows.columns())?;
        self.block_row = self.row;
        self.expect_order()?;
        self.prefix = prefix(self.key(0));
        Ok(())
    }

    fn expect_order(&self) -> Result<(), KeyProblem> {
        let mut before = &self.last[..];
        for (at, row) in self.block.iter().enumerate() {
            let key = row.data();
            if key < before {
                let row = self.block_row + at;
                return Err(KeyProblem::NotSorted { row });
            }
            before = key;
        }
        Ok(())
    }

    fn remember_last(&mut self) {
        let last = self.block.num_rows() - 1;
        self.last.clear();
        self.last.extend_from_slice(self.block.row(last).data());
    }
}

/// How many of the first `len` are true, if the first one is, and all that are true come first.
fn run_length(len: usize, is_true: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut step) = (1, 1);
    while low + step <= len && is_true(low + step - 1) {
        low += step;
        step *= 2;
    }
    // The first `low` are true, and one of the next `step` is not, or the end.
    let mut high = (low + step - 1).min(len);
    while low < high {
        let middle = usize::midpoint(low, high);
        if is_true(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low.min(len)
}

/// The first bytes of a key, in the same order as the keys unless they are equal.
fn prefix(key: &[u8]) -> u128 {
    const BYTES: usize = size_of::<u128>();
    if let Some(first) = key.first_chunk::<BYTES>() {
        return u128::from_be_bytes(*first);
    }
    let mut padded = [0; BYTES];
    padded[..key.len()].copy_from_slice(key);
    u128::from_be_bytes(padded)
}

/// So many rows that the values of dictionaries, written out for each row, are no more than a block.
fn block_rows_max(columns: &RecordBatch) -> usize {
    let dictionaries = columns.columns().iter();
    let row_bytes: usize = dictionaries
        .filter_map(|column| column.as_any_dictionary_opt())
        .map(|dictionary| longest(dictionary.values()))
        .sum();
    let rows = BLOCK_BYTES_TARGET / row_bytes.max(1);
    rows.clamp(1, BLOCK_ROWS_MAX)
}

/// Bytes of the longest value, where values have a length.
fn longest(values: &ArrayRef) -> usize {
    match values.data_type() {
        DataType::Utf8 => longest_between(values.as_string::<i32>().offsets()),
        DataType::LargeUtf8 => longest_between(values.as_string::<i64>().offsets()),
        DataType::Binary => longest_between(values.as_binary::<i32>().offsets()),
        DataType::LargeBinary => longest_between(values.as_binary::<i64>().offsets()),
        DataType::Utf8View => longest_view(values.as_string_view().views()),
        DataType::BinaryView => longest_view(values.as_binary_view().views()),
        DataType::FixedSizeBinary(width) => usize::try_from(*width).unwrap_or(0),
        other => other.primitive_width().unwrap_or(0),
    }
}

fn longest_between<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> usize {
    offsets.lengths().max().unwrap_or(0)
}

fn longest_view(views: &[u128]) -> usize {
    let lengths = views.iter().map(|&view| ByteView::from(view).length);
    lengths.max().unwrap_or(0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_run_is_found_from_any_position() {
        for len in 1..40 {
            for run in 1..=len {
                assert_eq!(run_length(len, |at| at < run), run, "{run} of {len}");
            }
        }
    }

    #[test]
    fn a_prefix_never_contradicts_the_order() {
        let keys: [&[u8]; 6] = [b"", b"\0", b"a", b"a\0", b"b", b"bbbbbbbbbbbbbbbbbbbbb"];
        for pair in keys.windows(2) {
            assert!(prefix(pair[0]) <= prefix(pair[1]), "{pair:?}");
        }
    }
}
