//! Cutting large batches into pieces of a bounded size, without a copy.

use arrow::{
    array::{
        Array, ArrayRef, AsArray, ByteView, GenericByteViewArray, OffsetSizeTrait, RecordBatch,
    },
    buffer::OffsetBuffer,
    datatypes::{ByteViewType, DataType},
};

/// Cuts `batch` into slices of at most `rows_max` rows that encode to at most about `bytes_target`
/// bytes. A single row above the target is a slice of its own, and so is a batch without rows.
/// The slices share the batch's buffers.
///
/// Both limits count as 1 when they are 0.
pub fn split(
    batch: &RecordBatch,
    rows_max: usize,
    bytes_target: usize,
) -> impl Iterator<Item = RecordBatch> {
    let rows = batch.num_rows();
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let start = next?;
        let len = piece_rows(batch, start, rows_max.max(1), bytes_target.max(1));
        let end = start + len;
        next = (end < rows).then_some(end);
        Some(batch.slice(start, len))
    })
}

/// About how many bytes `batch` takes in a body: what [`split`] cuts by. Buffers that its columns share, or of which they
/// use a part, count for what is used.
#[must_use]
pub fn body_bytes(batch: &RecordBatch) -> usize {
    rows_bytes(batch, 0, batch.num_rows())
}

/// The longest piece from `start` that keeps the limits, but at least one row.
fn piece_rows(batch: &RecordBatch, start: usize, rows_max: usize, bytes_target: usize) -> usize {
    let rows = rows_max.min(batch.num_rows() - start);
    let fits = |rows| rows_bytes(batch, start, rows) <= bytes_target;
    if rows <= 1 || fits(rows) {
        return rows;
    }
    // Bisection between a number of rows that fits (or must do) and one that does not.
    let (mut low, mut high) = (1, rows);
    while low + 1 < high {
        let middle = usize::midpoint(low, high);
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

fn rows_bytes(batch: &RecordBatch, start: usize, len: usize) -> usize {
    let columns = batch.columns().iter();
    columns.map(|column| wire_bytes(column, start, len)).sum()
}

/// Bytes that `len` rows from `start` take in a body. Exact for text and bytes, from above for
/// decimals, an average for dictionaries and runs.
fn wire_bytes(array: &ArrayRef, start: usize, len: usize) -> usize {
    let validity = usize::from(array.is_nullable()) * len;
    validity + value_bytes(array, start, len)
}

fn value_bytes(array: &ArrayRef, start: usize, len: usize) -> usize {
    const OFFSET: usize = size_of::<u32>();
    match array.data_type() {
        DataType::Boolean => len.div_ceil(8),
        DataType::Utf8 => OFFSET * len + span(array.as_string::<i32>().offsets(), start, len).1,
        DataType::LargeUtf8 => {
            OFFSET * len + span(array.as_string::<i64>().offsets(), start, len).1
        }
        DataType::Binary => OFFSET * len + span(array.as_binary::<i32>().offsets(), start, len).1,
        DataType::LargeBinary => {
            OFFSET * len + span(array.as_binary::<i64>().offsets(), start, len).1
        }
        DataType::Utf8View => OFFSET * len + views(array.as_string_view(), start, len),
        DataType::BinaryView => OFFSET * len + views(array.as_binary_view(), start, len),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            OFFSET * len + children(list.values(), list.offsets(), start, len)
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            OFFSET * len + children(list.values(), list.offsets(), start, len)
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let entries: ArrayRef = std::sync::Arc::new(map.entries().clone());
            OFFSET * len + children(&entries, map.offsets(), start, len)
        }
        DataType::FixedSizeList(_, width) => {
            let width = usize::try_from(*width).unwrap_or(0);
            let list = array.as_fixed_size_list();
            OFFSET * len + wire_bytes(list.values(), start * width, len * width)
        }
        DataType::Struct(_) => {
            let columns = array.as_struct().columns().iter();
            columns.map(|column| wire_bytes(column, start, len)).sum()
        }
        DataType::FixedSizeBinary(width) => (OFFSET + usize::try_from(*width).unwrap_or(0)) * len,
        data_type => data_type
            .primitive_width()
            .map_or_else(|| averaged(array, len), |width| (OFFSET + width) * len),
    }
}

/// Where the rows' data starts, and how long it is.
fn span<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, start: usize, len: usize) -> (usize, usize) {
    let (first, end) = (offsets[start].as_usize(), offsets[start + len].as_usize());
    (first, end - first)
}

fn children<O: OffsetSizeTrait>(
    values: &ArrayRef,
    offsets: &OffsetBuffer<O>,
    start: usize,
    len: usize,
) -> usize {
    let (first, len) = span(offsets, start, len);
    wire_bytes(values, first, len)
}

fn views<T: ByteViewType + ?Sized>(
    array: &GenericByteViewArray<T>,
    start: usize,
    len: usize,
) -> usize {
    let lengths = array.views()[start..start + len].iter();
    lengths
        .map(|&view| ByteView::from(view).length as usize)
        .sum()
}

/// The share of `len` rows in what the whole array holds.
fn averaged(array: &ArrayRef, len: usize) -> usize {
    array.get_buffer_memory_size() / array.len().max(1) * len
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{BooleanArray, Int64Array, StringArray, StringViewArray},
        compute::concat_batches,
    };

    use super::*;

    fn batch(texts: Vec<Option<&str>>) -> RecordBatch {
        let numbers: Int64Array = (0..).take(texts.len()).map(Some).collect();
        let flags: BooleanArray = texts.iter().map(|text| Some(text.is_some())).collect();
        let views: StringViewArray = texts.iter().copied().collect();
        RecordBatch::try_from_iter_with_nullable([
            ("number", Arc::new(numbers) as ArrayRef, false),
            ("flag", Arc::new(flags), false),
            ("text", Arc::new(StringArray::from(texts)), true),
            ("view", Arc::new(views), true),
        ])
        .unwrap()
    }

    fn check(batch: &RecordBatch, rows_max: usize, bytes_target: usize) -> Vec<usize> {
        let pieces: Vec<_> = split(batch, rows_max, bytes_target).collect();
        assert_eq!(&concat_batches(&batch.schema(), &pieces).unwrap(), batch);
        pieces.iter().map(RecordBatch::num_rows).collect()
    }

    #[test]
    fn pieces_keep_both_limits_and_every_row() {
        let long = "x".repeat(1000);
        let batch = batch(
            (0..100)
                .map(|row| (row % 3 != 0).then_some(long.as_str()))
                .collect(),
        );
        assert_eq!(check(&batch, 1000, usize::MAX), [100]);
        assert_eq!(check(&batch, 30, usize::MAX), [30, 30, 30, 10]);
        let rows = check(&batch, 30, 10_000);
        assert!(rows.iter().all(|&rows| rows <= 30), "{rows:?}");
        let encoder = crate::Encoder::try_new(&batch.schema()).unwrap();
        let exact = encoder.encode(&batch).unwrap().body_bytes();
        assert!((exact..exact + exact / 50).contains(&body_bytes(&batch)));
        for piece in split(&batch, 30, 10_000) {
            assert!(encoder.encode(&piece).unwrap().body_bytes() <= 10_000);
        }
    }

    #[test]
    fn a_row_above_the_target_travels_alone() {
        let long = "x".repeat(1000);
        let batch = batch(vec![Some("a"), Some(&long), Some("b"), Some("c")]);
        assert_eq!(check(&batch, 10, 200), [1, 1, 2]);
        assert_eq!(check(&batch, 10, 0), [1, 1, 1, 1]);
        assert_eq!(check(&batch, 0, usize::MAX), [1, 1, 1, 1]);
    }

    #[test]
    fn a_batch_without_rows_is_one_piece() {
        assert_eq!(check(&batch(vec![]), 10, 10), [0]);
    }

    #[test]
    fn slices_are_measured_by_their_own_rows() {
        let long = "x".repeat(1000);
        let batch = batch(vec![Some(&long), Some("a"), Some("b"), Some("c")]);
        assert_eq!(check(&batch.slice(1, 3), 10, 200), [3]);
    }
}
