//! Cuts and gathers an engine's batches into pieces of the size that is sent.

use arrow::{
    array::{Array, RecordBatch},
    compute::concat_batches,
    error::ArrowError,
};

use crate::error::UserError;

/// Most of an engine's batches that are gathered into one piece. Only what is there at once is
/// gathered: no row ever waits for the next one.
pub(crate) const GATHERED_BATCHES_MAX: usize = 4;

/// Size of a piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PieceLimits {
    pub(crate) rows_max: usize,
    pub(crate) bytes_target: usize,
}

/// Consecutive rows that are encoded as one batch.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    parts: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Piece {
    /// About how many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All rows in one batch: a copy if there are several parts.
    pub(crate) fn into_batch(mut self) -> Result<RecordBatch, ArrowError> {
        match self.parts.len() {
            1 => Ok(self.parts.remove(0)),
            _ => concat_batches(&self.parts[0].schema(), &self.parts),
        }
    }

    fn fits(&self, rows: usize, bytes: usize, limits: PieceLimits) -> bool {
        self.rows + rows <= limits.rows_max && self.bytes + bytes <= limits.bytes_target
    }

    fn push(&mut self, part: RecordBatch, bytes: usize) {
        self.rows += part.num_rows();
        self.bytes += bytes;
        self.parts.push(part);
    }
}

/// The pieces of what the engine had ready, in order. Batches without rows vanish; an error ends
/// the piece before it.
pub(crate) fn pieces(
    ready: Vec<Result<RecordBatch, UserError>>,
    limits: PieceLimits,
) -> Vec<Result<Piece, UserError>> {
    let mut shaper = Shaper {
        limits,
        open: Piece::default(),
        done: Vec::new(),
    };
    for batch in ready {
        match batch {
            Ok(batch) => shaper.add(&batch),
            Err(error) => shaper.fail(error),
        }
    }
    shaper.close_piece();
    shaper.done
}

struct Shaper {
    limits: PieceLimits,
    open: Piece,
    done: Vec<Result<Piece, UserError>>,
}

impl Shaper {
    fn add(&mut self, batch: &RecordBatch) {
        let PieceLimits {
            rows_max,
            bytes_target,
        } = self.limits;
        for part in record_batch::split(batch, rows_max, bytes_target) {
            let (rows, bytes) = (part.num_rows(), slice_bytes(&part));
            if rows == 0 {
                continue;
            }
            if !self.open.fits(rows, bytes, self.limits) {
                self.close_piece();
            }
            self.open.push(part, bytes);
        }
    }

    fn fail(&mut self, error: UserError) {
        self.close_piece();
        self.done.push(Err(error));
    }

    fn close_piece(&mut self) {
        if self.open.rows > 0 {
            self.done.push(Ok(std::mem::take(&mut self.open)));
        }
    }
}

/// Bytes of the rows themselves, however large the buffers behind them are.
fn slice_bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns
        .map(|column| column.to_data().get_slice_memory_size().unwrap_or_default())
        .sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{ops::Range, sync::Arc};

    use arrow::{array::Int64Array, datatypes::Int64Type};
    use protos::error::ErrorType;

    use super::*;

    const LIMITS: PieceLimits = PieceLimits {
        rows_max: 100,
        bytes_target: 1 << 20,
    };

    fn batch(values: Range<i64>) -> RecordBatch {
        let column = Arc::new(Int64Array::from_iter_values(values)) as _;
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    }

    fn values(piece: Piece) -> Vec<i64> {
        use arrow::array::AsArray;
        let batch = piece.into_batch().unwrap();
        batch
            .column(0)
            .as_primitive::<Int64Type>()
            .values()
            .to_vec()
    }

    #[test]
    fn small_batches_are_gathered_and_large_ones_cut_in_order() {
        let ready = vec![
            Ok(batch(0..30)),
            Ok(batch(30..30)),
            Ok(batch(30..60)),
            Ok(batch(60..300)),
        ];
        let pieces: Vec<_> = pieces(ready, LIMITS)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert!(pieces.iter().all(|piece| piece.rows <= 100));
        assert!(pieces.len() <= 4, "{pieces:?}");
        assert_eq!(pieces[0].rows, 60);
        let all: Vec<i64> = pieces.into_iter().flat_map(values).collect();
        assert_eq!(all, (0..300).collect::<Vec<_>>());
    }

    #[test]
    fn bytes_limit_a_piece() {
        let limits = PieceLimits {
            rows_max: 1000,
            bytes_target: 400,
        };
        let ready = vec![Ok(batch(0..30)), Ok(batch(30..60))];
        let rows: Vec<_> = pieces(ready, limits)
            .into_iter()
            .map(|p| p.unwrap().rows)
            .collect();
        assert_eq!(rows, [30, 30]);
    }

    #[test]
    fn rows_before_an_error_come_before_it() {
        let error = UserError::new(ErrorType::DataRead, "a broken page");
        let ready = vec![Ok(batch(0..3)), Err(error.clone())];
        let mut pieces = pieces(ready, LIMITS).into_iter();
        assert_eq!(pieces.next().unwrap().unwrap().rows, 3);
        assert_eq!(pieces.next().unwrap().unwrap_err(), error);
    }
}
