//! Batches cut by rows to what a frame should hold, without a copy: by what is sent of the rows, however large the
//! buffers are that they are in.

use arrow::array::RecordBatch;
use record_batch::arrow_body_bytes;

/// Most rows of a piece, and of a batch that a receiver decodes: rows of nulls, of runs, or of no columns at all take no
/// bytes, however many there are.
pub(crate) const ROWS_MAX: usize = 1 << 24;

/// Cuts `batch` into pieces of about `piece_bytes`, of [`ROWS_MAX`] rows at most; a row that is longer is a piece of its own.
/// A batch that fits comes back as it is.
pub(crate) fn pieces(batch: RecordBatch, piece_bytes: usize) -> impl Iterator<Item = RecordBatch> {
    Pieces {
        rest: Some(batch),
        piece_bytes,
        next_rows: None,
        measure: arrow_body_bytes,
    }
}

/// The pieces of one batch. Telling what rows take may mean to look at each, so all of them are measured once, and then
/// only those that are to be the next piece.
struct Pieces<M> {
    rest: Option<RecordBatch>,
    piece_bytes: usize,
    /// As many as probably fit.
    next_rows: Option<usize>,
    measure: M,
}

impl<M: Fn(&RecordBatch) -> usize> Iterator for Pieces<M> {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        let rest = self.rest.take()?;
        let next_rows = self.next_rows.unwrap_or_else(|| self.equal_rows(&rest));
        if self.next_rows.is_none() && next_rows >= rest.num_rows() {
            return Some(rest);
        }
        let piece = self.first_that_fit(&rest, next_rows);
        let rows = piece.num_rows();
        if rows < rest.num_rows() {
            self.rest = Some(rest.slice(rows, rest.num_rows() - rows));
        }
        Some(piece)
    }
}

impl<M: Fn(&RecordBatch) -> usize> Pieces<M> {
    /// Rows of each part, if all parts are alike.
    fn equal_rows(&self, batch: &RecordBatch) -> usize {
        // Counts at least what the rows take, and is quick.
        if batch.get_array_memory_size() <= self.piece_bytes {
            return batch.num_rows().min(ROWS_MAX);
        }
        let parts = (self.measure)(batch).div_ceil(self.piece_bytes.max(1));
        let rows = batch.num_rows().div_ceil(parts.max(1));
        rows.clamp(1, ROWS_MAX)
    }

    /// Halves what was tried until it fits. The next piece is as long, or twice that if this one is less than half full:
    /// so that what is measured in vain is at most what was cut before.
    fn first_that_fit(&mut self, rest: &RecordBatch, next_rows: usize) -> RecordBatch {
        let mut piece = rest.slice(0, next_rows.min(rest.num_rows()));
        let mut bytes = (self.measure)(&piece);
        while bytes > self.piece_bytes && piece.num_rows() > 1 {
            piece = piece.slice(0, piece.num_rows().div_ceil(2));
            bytes = (self.measure)(&piece);
        }
        let is_half_empty = bytes.saturating_mul(2) <= self.piece_bytes;
        let next_rows = piece.num_rows() * if is_half_empty { 2 } else { 1 };
        self.next_rows = Some(next_rows.min(ROWS_MAX));
        piece
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::Arc};

    use arrow::{
        array::{
            ArrayRef, BooleanArray, DictionaryArray, Int64Array, ListArray, NullArray, StringArray,
            StringViewArray,
        },
        buffer::OffsetBuffer,
        compute::{concat_batches, filter_record_batch},
        datatypes::{DataType, Field, Int32Type},
    };
    use bytes::Bytes;
    use record_batch::ArrowEncoder;

    use super::*;

    fn check(batch: &RecordBatch, piece_bytes: usize) -> Vec<RecordBatch> {
        let cut: Vec<_> = pieces(batch.clone(), piece_bytes).collect();
        let joined = concat_batches(&batch.schema(), &cut).expect("one schema");
        assert_eq!(&joined, batch);
        for piece in &cut {
            assert!(piece.num_rows() == 1 || arrow_body_bytes(piece) <= piece_bytes);
        }
        cut
    }

    fn of(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([("c", column, true)]).expect("one column")
    }

    /// The pieces of a batch of long rows are few, and as long as they should be once they are encoded.
    fn check_encoded(batch: &RecordBatch, expected: std::ops::RangeInclusive<usize>) {
        const PIECE: usize = 100_000;
        let cut = check(batch, PIECE);
        assert!(expected.contains(&cut.len()), "{} pieces", cut.len());
        let mut encoder = ArrowEncoder::try_new(&batch.schema()).expect("it can be sent");
        for piece in &cut {
            let body = encoder.encode(piece).expect("it can be sent");
            let bytes: usize = body.iter().map(Bytes::len).sum();
            assert!(
                bytes <= PIECE + 2_000,
                "{bytes} in {} rows",
                piece.num_rows()
            );
        }
    }

    fn texts(rows: usize) -> impl Iterator<Item = String> {
        (0..rows).map(|row| format!("{row:0100}"))
    }

    fn every(nth: usize, batch: &RecordBatch) -> RecordBatch {
        let picked: BooleanArray = (0..batch.num_rows())
            .map(|row| Some(row % nth == 0))
            .collect();
        filter_record_batch(batch, &picked).expect("as many rows")
    }

    #[test]
    fn views_are_cut_by_what_their_rows_show() {
        let views = of(Arc::new(StringViewArray::from_iter_values(texts(10_000))));
        check_encoded(&views, 12..=30);
        // Buffers stay as they are, of which most is shown no more.
        check_encoded(&every(10, &views), 2..=3);
        check_encoded(&views.slice(5_000, 400), 1..=1);
        check_encoded(&every(100, &views), 1..=1);
    }

    #[test]
    fn lists_are_cut_by_their_items() {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts(10_000)));
        for items in [
            texts.clone(),
            arrow::compute::cast(&texts, &DataType::Utf8View).expect("text"),
        ] {
            let offsets = OffsetBuffer::from_lengths(vec![5; 2_000]);
            let item = Arc::new(Field::new_list_field(items.data_type().clone(), true));
            let lists = of(Arc::new(ListArray::new(item, offsets, items, None)));
            check_encoded(&lists, 11..=30);
            check_encoded(&every(10, &lists), 2..=4);
            check_encoded(&lists.slice(700, 50), 1..=1);
        }
    }

    #[test]
    fn dictionaries_are_cut_by_their_rows() {
        let of_values = |values: usize, rows: usize| {
            let keys = (0..rows).map(|row| i32::try_from(row % values).expect("few"));
            let values: ArrayRef = Arc::new(StringArray::from_iter_values(texts(values)));
            of(Arc::new(DictionaryArray::<Int32Type>::new(
                keys.collect(),
                values,
            )))
        };
        // The first body has the values too, which are few.
        check_encoded(&of_values(5, 50_000), 2..=5);
        check_encoded(&of_values(20_000, 100), 1..=1);
        check_encoded(&of_values(20_000, 20_000), 20..=70);
    }

    #[test]
    fn rows_are_measured_a_few_times_each_however_many_pieces_there_are() {
        let alike: Vec<usize> = vec![100; 50_000];
        let skewed = (0..50_000).map(|row| if row % 5_000 < 20 { 4_000 } else { 10 });
        let rising = (0..20_000).map(|row| row / 20);
        for lengths in [alike, skewed.collect(), rising.collect()] {
            let rows = lengths.len();
            let texts = lengths.into_iter().map(|bytes| "x".repeat(bytes));
            let batch = of(Arc::new(StringViewArray::from_iter_values(texts)));
            let (bytes, measured) = (arrow_body_bytes(&batch), Cell::new(0));
            let pieces = Pieces {
                rest: Some(batch),
                piece_bytes: 10_000,
                next_rows: None,
                measure: |rows: &RecordBatch| {
                    measured.set(measured.get() + rows.num_rows());
                    arrow_body_bytes(rows)
                },
            };
            let cut: Vec<_> = pieces.map(|piece| piece.num_rows()).collect();
            assert_eq!(cut.iter().sum::<usize>(), rows);
            assert!((bytes / 10_000..bytes / 3_000).contains(&cut.len()));
            assert!(measured.get() <= 4 * rows, "{} of {rows}", measured.get());
        }
    }

    fn numbers(rows: i64) -> RecordBatch {
        of(Arc::new(Int64Array::from_iter_values(0..rows)))
    }

    #[test]
    fn a_batch_that_fits_is_one_piece() {
        assert_eq!(check(&numbers(1_000), 8_000).len(), 1);
        assert_eq!(check(&numbers(1), 1).len(), 1);
        assert_eq!(pieces(numbers(0), 1).count(), 1);
    }

    #[test]
    fn rows_that_take_no_bytes_are_cut_by_their_number() {
        let nulls = |rows| of(Arc::new(NullArray::new(rows)));
        let rows = |rows| {
            let cut = pieces(nulls(rows), 1_000_000);
            cut.map(|piece| piece.num_rows()).collect::<Vec<_>>()
        };
        assert_eq!(rows(ROWS_MAX), [ROWS_MAX]);
        assert_eq!(rows(2 * ROWS_MAX + 5), [ROWS_MAX, ROWS_MAX, 5]);
    }

    #[test]
    fn equal_rows_make_equal_pieces() {
        let rows: Vec<_> = check(&numbers(4_000), 8_000)
            .iter()
            .map(RecordBatch::num_rows)
            .collect();
        assert_eq!(rows, [1_000; 4]);
    }

    #[test]
    fn long_rows_are_pieces_of_their_own() {
        let texts = (0..200).map(|row| "x".repeat(if row % 50 == 7 { 5_000 } else { 20 }));
        let batch = of(Arc::new(StringArray::from_iter_values(texts)));
        let cut = check(&batch, 1_000);
        assert!(cut.len() < 60, "{}", cut.len());
    }
}
