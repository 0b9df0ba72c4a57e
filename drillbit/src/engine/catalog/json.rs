//! JSON files as Drill accepts them: objects one after the other, with or without line ends between
//! them, or lists of objects. One partition per file, read as a stream.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use serde_json::{Map, Value};

use super::json_schema::Columns;
use super::streamed::{self, BUFFER_BYTES, Batches, unreadable};
use crate::engine::error::EngineError;

/// The table of these files; reads all of them once for their columns.
pub(super) fn table(files: Vec<PathBuf>) -> Result<Arc<dyn TableProvider>> {
    let mut columns = Columns::default();
    for file in &files {
        add_columns(file, &mut columns)?;
    }
    let schema = Arc::new(Schema::new(columns.fields()));
    streamed::table(files, &schema, batches)
}

fn add_columns(file: &Path, columns: &mut Columns) -> Result<(), EngineError> {
    let text = open(file).map_err(|error| unreadable(file, &error))?;
    for object in serde_json::Deserializer::from_reader(text).into_iter::<Map<String, Value>>() {
        let object = object.map_err(|error| unreadable(file, &error))?;
        columns
            .add(&object)
            .map_err(|conflict| unreadable(file, &conflict))?;
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

fn batches(file: &Path, schema: SchemaRef, rows: usize) -> std::io::Result<Batches> {
    let text = open(file)?;
    let reader = ReaderBuilder::new(schema)
        .with_batch_size(rows)
        .build(text)
        .map_err(std::io::Error::other)?;
    Ok(Box::new(reader))
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
