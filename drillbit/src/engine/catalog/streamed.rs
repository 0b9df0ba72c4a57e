//! Tables of files that are read as a stream, one partition per file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::PartitionStream;

use crate::engine::error::EngineError;

/// What is read from a file at once.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;
/// Batches read ahead of the consumer.
const BATCHES_AHEAD: usize = 2;

/// The batches of one file.
pub(super) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

/// Opens a file for batches of the given schema and of at most so many rows. Runs where it may block.
pub(super) type Open = fn(&Path, SchemaRef, usize) -> std::io::Result<Batches>;

/// The table of these files.
pub(super) fn table(
    files: Vec<PathBuf>,
    schema: &SchemaRef,
    open: Open,
) -> Result<Arc<dyn TableProvider>> {
    let partition = |file| {
        Arc::new(StreamedFile {
            file,
            schema: Arc::clone(schema),
            open,
        }) as Arc<dyn PartitionStream>
    };
    let partitions = files.into_iter().map(partition).collect();
    Ok(Arc::new(StreamingTable::try_new(
        Arc::clone(schema),
        partitions,
    )?))
}

/// The error of a file that cannot be read.
pub(super) fn unreadable(file: &Path, reason: &dyn std::fmt::Display) -> EngineError {
    EngineError::FileUnreadable {
        file: file.display().to_string(),
        reason: reason.to_string(),
    }
}

/// One file of the table.
#[derive(Debug)]
struct StreamedFile {
    file: PathBuf,
    schema: SchemaRef,
    open: Open,
}

impl PartitionStream for StreamedFile {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream =
            RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), BATCHES_AHEAD);
        let (sender, file, schema) = (stream.tx(), self.file.clone(), Arc::clone(&self.schema));
        let (rows, open) = (context.session_config().batch_size(), self.open);
        stream.spawn_blocking(move || {
            let batches = open(&file, schema, rows).map_err(|error| unreadable(&file, &error))?;
            for batch in batches {
                let batch = batch.map_err(|error| unreadable(&file, &error).into());
                if sender.blocking_send(batch).is_err() {
                    break;
                }
            }
            Ok(())
        });
        stream.build()
    }
}
