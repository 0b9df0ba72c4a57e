//! A merging receiver: sorted inputs become one sorted stream.
//!
//! A tree of losers compares the next rows of all inputs, so that a row costs one comparison per level. Rows are
//! compared as bytes, which Arrow's row format makes of the key columns, for a block of rows at a time. Rows that
//! follow each other in one input are found together, and an input that has no others beside it is passed on in slices.
//!
//! While it waits it holds one batch of each input and nothing else: what was merged before goes out first. So the
//! credit that an input gets for a batch never depends on what the others send later.

mod error;
mod keys;
mod output;
#[cfg(test)]
mod tests;
mod tree;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::{Stream, stream::FusedStream};

pub use error::{MergeError, MergeKeyError};
pub use keys::SortKey;

use crate::stream::StreamReceiver;
use keys::{Cursor, Keys};
use output::Output;
use tree::LoserTree;

/// After so many rows in a row from one input, the end of its run is searched for.
const STREAK_ROWS: usize = 8;
/// After so many empty batches in a row from one input, others get their turn.
const EMPTY_BATCHES_MAX: usize = 64;

/// Sizes of the batches that come out. Counts as 1 what is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeOptions {
    /// Most rows of a batch. Default 8,192.
    pub batch_rows_max: usize,
    /// A batch ends with the row that brings it to this many bytes, by the average row of each input's batch; so it may
    /// be above this by one batch of each input at most. Default 1 MiB.
    pub batch_bytes_target: usize,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            batch_rows_max: 8192,
            batch_bytes_target: 1 << 20,
        }
    }
}

/// Merges sorted inputs into one sorted stream; rows with equal keys come in the order of their inputs, and in the order
/// that they have within one.
///
/// An input is polled only when its next row is needed. The first error of an input, one with other columns, or one whose
/// rows are seen not to be sorted ends the stream with that error, and drops all inputs. Otherwise it ends when all inputs
/// have. Rows are seen where they are compared: those of the last input that is left pass without a look.
///
/// A call computes for as long as a batch takes, which is well below a millisecond with the default sizes.
#[must_use = "a stream does nothing unless it is polled"]
pub struct Merge<S> {
    schema: SchemaRef,
    keys: Keys,
    /// `None`: has ended.
    inputs: Vec<Option<S>>,
    /// The next row of each input.
    cursors: Vec<Cursor>,
    /// Inputs whose next row is not here; nothing can be compared before. All of them at first, then one at most.
    missing: Vec<usize>,
    tree: LoserTree,
    /// How many rows in a row the winner has given.
    streak: usize,
    output: Output,
    is_done: bool,
}

impl<S, E> Merge<S>
where
    S: Stream<Item = Result<RecordBatch, E>> + Unpin,
{
    /// Merges `inputs`, all with the columns of `schema` and each sorted by `keys`, the first of which counts most.
    /// Names of columns and metadata of the inputs do not matter.
    ///
    /// # Errors
    ///
    /// No keys, a key that names no column, or one whose type has no order here.
    pub fn try_new(
        schema: SchemaRef,
        keys: &[SortKey],
        inputs: impl IntoIterator<Item = S>,
        options: MergeOptions,
    ) -> Result<Self, MergeKeyError> {
        let keys = Keys::try_new(&schema, keys)?;
        let inputs: Vec<_> = inputs.into_iter().map(Some).collect();
        Ok(Self {
            cursors: inputs.iter().map(|_| Cursor::new(&keys)).collect(),
            missing: (0..inputs.len()).collect(),
            tree: LoserTree::default(),
            streak: 0,
            output: Output::new(Arc::clone(&schema), options, inputs.len()),
            is_done: false,
            schema,
            keys,
            inputs,
        })
    }

    /// Columns of what comes out.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next batch; `None` when all inputs have ended.
    fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<RecordBatch>, MergeError<E>>> {
        loop {
            if self.poll_missing(cx)?.is_pending() {
                // It does not wait with finished batches in its hands.
                let merged = self.output.take()?;
                return merged.map_or(Poll::Pending, |batch| Poll::Ready(Ok(Some(batch))));
            }
            let Some(winner) = self
                .tree
                .winner()
                .filter(|&at| !self.cursors[at].is_ended())
            else {
                return Poll::Ready(self.output.take().map_err(Into::into));
            };
            let is_alone = self.is_alone();
            if is_alone {
                self.take_rest(winner);
            } else {
                self.take_rows(winner)?;
            }
            if is_alone || self.output.is_full() {
                return Poll::Ready(self.output.take().map_err(Into::into));
            }
        }
    }

    /// Gets the rows that are missing, and then the order of all.
    fn poll_missing(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), MergeError<E>>> {
        if self.missing.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut still = Vec::new();
        for input in std::mem::take(&mut self.missing) {
            if self.poll_input(input, cx)?.is_pending() {
                still.push(input);
            }
        }
        self.missing = still;
        if !self.missing.is_empty() {
            return Poll::Pending;
        }
        let cursors = &self.cursors;
        self.tree.order(cursors.len(), |a, b| beats(cursors, a, b));
        Poll::Ready(Ok(()))
    }

    /// Gets the next row of `input`, or its end.
    fn poll_input(
        &mut self,
        input: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), MergeError<E>>> {
        for _ in 0..EMPTY_BATCHES_MAX {
            let Some(stream) = &mut self.inputs[input] else {
                return Poll::Ready(Ok(()));
            };
            let Some(batch) = ready!(Pin::new(stream).poll_next(cx)) else {
                self.inputs[input] = None;
                continue;
            };
            let batch = batch.map_err(|source| MergeError::Input { input, source })?;
            self.expect_schema(input, &batch)?;
            if batch.num_rows() > 0 {
                return Poll::Ready(self.load(input, batch));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn load(&mut self, input: usize, batch: RecordBatch) -> Result<(), MergeError<E>> {
        if self.is_alone() {
            // Nobody will ever be compared with it.
            self.cursors[input].load_unordered(&batch);
        } else {
            let loaded = self.cursors[input].load(&self.keys, &batch);
            loaded.map_err(|problem| problem.of_input(input))?;
        }
        self.output.load(input, batch);
        Ok(())
    }

    fn expect_schema(&self, input: usize, batch: &RecordBatch) -> Result<(), MergeError<E>> {
        let (expected, actual) = (&self.schema, batch.schema_ref());
        let types_differ = || {
            let pairs = expected.fields().iter().zip(actual.fields());
            pairs
                .into_iter()
                .any(|(expected, actual)| expected.data_type() != actual.data_type())
        };
        if Arc::ptr_eq(expected, actual)
            || (expected.fields().len() == actual.fields().len() && !types_differ())
        {
            return Ok(());
        }
        Err(MergeError::Schema {
            input,
            expected: Arc::clone(expected),
            actual: batch.schema(),
        })
    }

    /// Whether only one input is left.
    fn is_alone(&self) -> bool {
        let left = self.inputs.iter().zip(&self.cursors);
        left.filter(|(input, cursor)| input.is_some() || !cursor.is_ended())
            .take(2)
            .count()
            == 1
    }

    /// Takes what is left of the batch of an input without others, as far as the output has room.
    fn take_rest(&mut self, winner: usize) {
        let cursor = &mut self.cursors[winner];
        let rows = cursor.rows_left().min(self.output.rows_free(winner));
        self.output.push(winner, cursor.row(), rows);
        cursor.skip(rows);
        self.expect_next(winner);
    }

    /// Whether the next row of `input` is here; if not, its batch is let go of, and the next one is awaited.
    fn expect_next(&mut self, input: usize) -> bool {
        let is_here = !self.cursors[input].is_ended();
        if !is_here {
            self.output.unload(input);
            self.missing.push(input);
        }
        is_here
    }

    /// Takes rows from the first one on until the output is full, or the next row of an input is missing.
    fn take_rows(&mut self, mut winner: usize) -> Result<(), MergeError<E>> {
        while !self.output.is_full() {
            let rows = self.run(winner);
            let cursor = &mut self.cursors[winner];
            self.output.push(winner, cursor.row(), rows);
            let advanced = cursor.advance(&self.keys, rows);
            advanced.map_err(|problem| problem.of_input(winner))?;
            if !self.expect_next(winner) {
                return Ok(());
            }
            let (before, cursors) = (winner, &self.cursors);
            winner = self.tree.replay(|a, b| beats(cursors, a, b));
            self.streak = if winner == before {
                self.streak + rows
            } else {
                0
            };
        }
        Ok(())
    }

    /// How many rows of the winner come before the rows of all others: one, unless it has won often in a row.
    fn run(&mut self, winner: usize) -> usize {
        if self.streak < STREAK_ROWS {
            return 1;
        }
        self.streak = 0;
        let cursors = &self.cursors;
        let second = self.tree.second(|a, b| beats(cursors, a, b));
        let rows_max = self.output.rows_free(winner);
        second.map_or(rows_max, |second| {
            cursors[winner].rows_before(&cursors[second], winner < second, rows_max)
        })
    }
}

impl Merge<StreamReceiver> {
    /// Wants no more of any input: for their senders that is success, where dropping the merge cancels them.
    pub fn finish(self) {
        let open = self.inputs.into_iter().flatten();
        open.for_each(StreamReceiver::finish);
    }
}

/// Whether the next row of input `a` comes before that of input `b`; of equal rows, that of the lower input.
fn beats(cursors: &[Cursor], a: usize, b: usize) -> bool {
    cursors[a].order(&cursors[b]).then(a.cmp(&b)).is_lt()
}

impl<S, E> Stream for Merge<S>
where
    S: Stream<Item = Result<RecordBatch, E>> + Unpin,
{
    type Item = Result<RecordBatch, MergeError<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_batch(cx)).transpose();
        if !matches!(next, Some(Ok(_))) {
            self.is_done = true;
            self.inputs.clear();
            self.cursors.clear();
            self.output.clear();
        }
        Poll::Ready(next)
    }
}

impl<S, E> FusedStream for Merge<S>
where
    S: Stream<Item = Result<RecordBatch, E>> + Unpin,
{
    fn is_terminated(&self) -> bool {
        self.is_done
    }
}

impl<S> fmt::Debug for Merge<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merge")
            .field("inputs", &self.inputs.len())
            .field("missing", &self.missing)
            .field("is_done", &self.is_done)
            .finish_non_exhaustive()
    }
}
