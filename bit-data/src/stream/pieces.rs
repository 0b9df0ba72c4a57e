//! Batches cut by rows to what a frame should hold, without a copy.

use arrow::array::{Array, RecordBatch};

/// Bytes that the rows of a batch take in a body, roughly; only the rows of a slice count.
fn slice_bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    let bytes = |column: &arrow::array::ArrayRef| column.to_data().get_slice_memory_size();
    // A type whose rows cannot be told apart counts whole.
    columns
        .map(|column| bytes(column).unwrap_or_else(|_| column.get_array_memory_size()))
        .sum()
}

/// Cuts `batch` into pieces of about `piece_bytes`; a row that is longer is a piece of its own. A batch that fits comes
/// back as it is.
pub(crate) fn pieces(batch: RecordBatch, piece_bytes: usize) -> Pieces {
    Pieces {
        rest: Some(batch),
        piece_bytes,
    }
}

/// The pieces of one batch.
pub(crate) struct Pieces {
    rest: Option<RecordBatch>,
    piece_bytes: usize,
}

impl Iterator for Pieces {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        let rest = self.rest.take()?;
        let rows = self.first_rows(&rest);
        if rows >= rest.num_rows() {
            return Some(rest);
        }
        let piece = rest.slice(0, rows);
        self.rest = Some(rest.slice(rows, rest.num_rows() - rows));
        Some(piece)
    }
}

impl Pieces {
    /// Equal parts where all rows are alike; else halved until the piece fits.
    fn first_rows(&self, rest: &RecordBatch) -> usize {
        // Counts at least what the rows take, and is quick.
        if rest.get_array_memory_size() <= self.piece_bytes {
            return rest.num_rows();
        }
        let (bytes, rows) = (slice_bytes(rest), rest.num_rows());
        let parts = bytes.div_ceil(self.piece_bytes.max(1)).max(1);
        let mut first = rows.div_ceil(parts).max(1);
        while first < rows && first > 1 && slice_bytes(&rest.slice(0, first)) > self.piece_bytes {
            first = first.div_ceil(2);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        compute::concat_batches,
    };

    use super::*;

    fn check(batch: &RecordBatch, piece_bytes: usize) -> Vec<RecordBatch> {
        let cut: Vec<_> = pieces(batch.clone(), piece_bytes).collect();
        let joined = concat_batches(&batch.schema(), &cut).expect("one schema");
        assert_eq!(&joined, batch);
        for piece in &cut {
            assert!(piece.num_rows() == 1 || slice_bytes(piece) <= piece_bytes);
        }
        cut
    }

    fn numbers(rows: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        RecordBatch::try_from_iter([("n", column)]).expect("one column")
    }

    #[test]
    fn a_batch_that_fits_is_one_piece() {
        assert_eq!(check(&numbers(1_000), 8_000).len(), 1);
        assert_eq!(check(&numbers(1), 1).len(), 1);
        assert_eq!(pieces(numbers(0), 1).count(), 1);
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
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let batch = RecordBatch::try_from_iter([("t", column)]).expect("one column");
        let cut = check(&batch, 1_000);
        assert!(cut.len() < 60, "{}", cut.len());
    }
}
