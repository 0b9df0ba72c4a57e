//! The batch that is being merged: which rows of which batches, in which order.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions},
    compute::interleave,
    datatypes::SchemaRef,
    error::ArrowError,
};
use record_batch::body_bytes;

use super::MergeOptions;

/// Rows that were taken, and the batches that they and the next ones are in.
#[derive(Debug)]
pub(super) struct Output {
    schema: SchemaRef,
    options: MergeOptions,
    /// Batches that rows are taken from, among them the current one of each input that has given a row.
    batches: Vec<RecordBatch>,
    inputs: Vec<Source>,
    /// Batch and row, in the order of the output.
    rows: Vec<(usize, usize)>,
    bytes: usize,
}

/// The current batch of one input.
#[derive(Clone, Debug, Default)]
struct Source {
    batch: Option<RecordBatch>,
    /// Its index in `batches`, once a row was taken.
    index: Option<usize>,
    row_bytes: usize,
}

impl Output {
    pub(super) fn new(schema: SchemaRef, options: MergeOptions, inputs: usize) -> Self {
        Self {
            schema,
            options: MergeOptions {
                batch_rows_max: options.batch_rows_max.max(1),
                batch_bytes_target: options.batch_bytes_target.max(1),
            },
            batches: Vec::new(),
            inputs: vec![Source::default(); inputs],
            rows: Vec::new(),
            bytes: 0,
        }
    }

    /// The next rows of `input` are in `batch`, which is not empty.
    pub(super) fn load(&mut self, input: usize, batch: RecordBatch) {
        self.inputs[input] = Source {
            row_bytes: (body_bytes(&batch) / batch.num_rows()).max(1),
            batch: Some(batch),
            index: None,
        };
    }

    /// Adds `rows` rows of the current batch of `input`, from `row` on.
    pub(super) fn push(&mut self, input: usize, row: usize, rows: usize) {
        let source = &mut self.inputs[input];
        let index = *source.index.get_or_insert_with(|| {
            self.batches.extend(source.batch.clone());
            self.batches.len() - 1
        });
        self.rows.extend((row..row + rows).map(|row| (index, row)));
        self.bytes += rows * source.row_bytes;
    }

    /// The batch of `input` has no more rows.
    pub(super) fn unload(&mut self, input: usize) {
        self.inputs[input] = Source::default();
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= self.options.batch_rows_max
            || self.bytes >= self.options.batch_bytes_target
    }

    /// How many rows of the current batch of `input` have room: at least one, unless it is full.
    pub(super) fn rows_free(&self, input: usize) -> usize {
        let bytes = self.options.batch_bytes_target.saturating_sub(self.bytes);
        let rows = self.options.batch_rows_max.saturating_sub(self.rows.len());
        rows.min(bytes.div_ceil(self.inputs[input].row_bytes.max(1)))
    }

    /// The rows so far as a batch, if there are any.
    ///
    /// # Errors
    ///
    /// They do not fit into one array, or are null where the schema has no nulls.
    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let Some(&(_, first)) = self.rows.first() else {
            return Ok(None);
        };
        let columns = match &self.batches[..] {
            // Rows of one batch are taken in their order, without gaps.
            [batch] => batch.slice(first, self.rows.len()).columns().to_vec(),
            batches => gather(batches, &self.rows)?,
        };
        let counted = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        self.begin();
        let schema = Arc::clone(&self.schema);
        RecordBatch::try_new_with_options(schema, columns, &counted).map(Some)
    }

    fn begin(&mut self) {
        self.batches.clear();
        self.inputs.iter_mut().for_each(|input| input.index = None);
        self.rows.clear();
        self.bytes = 0;
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        self.begin();
        self.inputs.fill(Source::default());
    }
}

fn gather(batches: &[RecordBatch], rows: &[(usize, usize)]) -> Result<Vec<ArrayRef>, ArrowError> {
    let columns = 0..batches.first().map_or(0, RecordBatch::num_columns);
    let column = |at: usize| {
        let arrays: Vec<&dyn Array> = batches.iter().map(|batch| &**batch.column(at)).collect();
        interleave(&arrays, rows)
    };
    columns.map(column).collect()
}
