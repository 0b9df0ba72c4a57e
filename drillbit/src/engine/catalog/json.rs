//! JSON files as Drill accepts them: objects one after the other, with or without line ends between
//! them, or lists of objects. One partition per file, read as a stream.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::PartitionStream;
use serde_json::{Map, Value};

use super::json_schema::Columns;
use crate::engine::error::EngineError;

const BUFFER_BYTES: usize = 256 * 1024;
/// Batches read ahead of the consumer.
const BATCHES_AHEAD: usize = 2;

/// The table of these files; reads all of them once for their columns.
pub(super) fn table(files: Vec<PathBuf>) -> Result<Arc<dyn TableProvider>> {
    let mut columns = Columns::default();
    for file in &files {
        add_columns(file, &mut columns)?;
    }
    let schema = Arc::new(Schema::new(columns.fields()));
    let partition = |file| {
        Arc::new(JsonFile {
            file,
            schema: Arc::clone(&schema),
        }) as Arc<dyn PartitionStream>
    };
    let partitions = files.into_iter().map(partition).collect();
    Ok(Arc::new(StreamingTable::try_new(
        Arc::clone(&schema),
        partitions,
    )?))
}

fn add_columns(file: &Path, columns: &mut Columns) -> Result<(), EngineError> {
    let unreadable = |reason: String| EngineError::FileUnreadable {
        file: file.display().to_string(),
        reason,
    };
    let text = open(file).map_err(|error| unreadable(error.to_string()))?;
    for object in serde_json::Deserializer::from_reader(text).into_iter::<Map<String, Value>>() {
        let object = object.map_err(|error| unreadable(error.to_string()))?;
        columns
            .add(&object)
            .map_err(|conflict| unreadable(conflict.to_string()))?;
    }
    Ok(())
}

fn open(file: &Path) -> std::io::Result<BufReader<TopLevelObjects<BufReader<File>>>> {
    let file = BufReader::with_capacity(BUFFER_BYTES, File::open(file)?);
    Ok(BufReader::with_capacity(
        BUFFER_BYTES,
        TopLevelObjects::new(file),
    ))
}

/// One file of the table.
#[derive(Debug)]
struct JsonFile {
    file: PathBuf,
    schema: SchemaRef,
}

impl PartitionStream for JsonFile {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream =
            RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), BATCHES_AHEAD);
        let (sender, file, schema) = (stream.tx(), self.file.clone(), Arc::clone(&self.schema));
        let rows = context.session_config().batch_size();
        stream.spawn_blocking(move || {
            let unreadable = |reason: String| {
                let file = file.display().to_string();
                EngineError::FileUnreadable { file, reason }
            };
            let text = open(&file).map_err(|error| unreadable(error.to_string()))?;
            let batches = ReaderBuilder::new(schema)
                .with_batch_size(rows)
                .build(text)?;
            for batch in batches {
                let batch = batch.map_err(|error| unreadable(error.to_string()).into());
                if sender.blocking_send(batch).is_err() {
                    break;
                }
            }
            Ok(())
        });
        stream.build()
    }
}

/// Turns the brackets and commas of lists around objects into blanks.
struct TopLevelObjects<R> {
    input: R,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl<R> TopLevelObjects<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            depth: 0,
            in_text: false,
            escaped: false,
        }
    }

    fn blank(&mut self, byte: u8) -> u8 {
        if self.in_text {
            self.in_text = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return byte;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' => self.depth += 1,
            b'}' => self.depth = self.depth.saturating_sub(1),
            b'[' | b']' | b',' if self.depth == 0 => return b' ',
            _ => {}
        }
        byte
    }
}

impl<R: BufRead> Read for TopLevelObjects<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(out)?;
        for byte in out.iter_mut().take(count) {
            *byte = self.blank(*byte);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(text: &str) -> String {
        let mut read = String::new();
        TopLevelObjects::new(text.as_bytes())
            .read_to_string(&mut read)
            .expect("text");
        read
    }

    #[test]
    fn lists_around_objects_disappear_and_lists_inside_stay() {
        assert_eq!(
            objects(r#"[{"a":[1,2]},{"b":"],\"["}]"#),
            r#" {"a":[1,2]} {"b":"],\"["} "#
        );
    }

    #[test]
    fn objects_without_a_list_are_left_alone() {
        let text = "{\"a\":1}{\"a\":2}\n{\"a\":\"\\\\\"}";
        assert_eq!(objects(text), text);
    }
}
