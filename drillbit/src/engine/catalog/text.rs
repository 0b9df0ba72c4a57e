//! Text files without a line of column names: one column, `columns`, a list of the values of a line.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use csv::StringRecord;
use datafusion::catalog::TableProvider;
use datafusion::common::Result;

use super::streamed::{self, BUFFER_BYTES, Batches};

/// What the one column is called.
const COLUMNS: &str = "columns";
/// Lines that begin with it are left out.
// wire: Drill's text format, whose `comment` is `#` unless a storage plugin says otherwise
const COMMENT: u8 = b'#';
/// Most bytes of one line: a quote that is never closed would take the rest of the file.
const LINE_BYTES_MAX: usize = 16 << 20;

/// The table of these files, whose values are separated by commas.
pub(super) fn commas(files: Vec<PathBuf>) -> Result<Arc<dyn TableProvider>> {
    streamed::table(files, &schema(), |file, _, rows| lines(file, b',', rows))
}

/// The table of these files, whose values are separated by tabulators.
pub(super) fn tabs(files: Vec<PathBuf>) -> Result<Arc<dyn TableProvider>> {
    streamed::table(files, &schema(), |file, _, rows| lines(file, b'\t', rows))
}

/// The table of these files, whose values are separated by vertical bars.
pub(super) fn bars(files: Vec<PathBuf>) -> Result<Arc<dyn TableProvider>> {
    streamed::table(files, &schema(), |file, _, rows| lines(file, b'|', rows))
}

fn schema() -> SchemaRef {
    let list = DataType::List(item());
    Arc::new(Schema::new(vec![Field::new(COLUMNS, list, false)]))
}

/// A value may be empty, but never missing.
fn item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Utf8, false))
}

fn lines(file: &Path, delimiter: u8, rows: usize) -> io::Result<Batches> {
    let mut lines = Lines::new(File::open(file)?, delimiter, rows);
    Ok(Box::new(std::iter::from_fn(move || {
        lines.batch().transpose()
    })))
}

struct Lines<R> {
    reader: csv::Reader<Limited<R>>,
    /// What was read since the last line ended, shared with the reader.
    unfinished_bytes: Rc<Cell<usize>>,
    /// Of a batch.
    rows: usize,
}

impl<R: Read> Lines<R> {
    fn new(input: R, delimiter: u8, rows: usize) -> Self {
        let unfinished_bytes = Rc::<Cell<usize>>::default();
        let input = Limited {
            input,
            unfinished_bytes: Rc::clone(&unfinished_bytes),
        };
        let reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .comment(Some(COMMENT))
            .buffer_capacity(BUFFER_BYTES)
            .from_reader(input);
        Self {
            reader,
            unfinished_bytes,
            rows,
        }
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let mut values = ListBuilder::new(StringBuilder::new()).with_field(item());
        let mut line = StringRecord::new();
        let mut count = 0;
        while count < self.rows && self.read(&mut line)? {
            for value in &line {
                values.values().append_value(value);
            }
            values.append(true);
            count += 1;
        }
        let column: ArrayRef = Arc::new(values.finish());
        (count > 0)
            .then(|| RecordBatch::try_new(schema(), vec![column]))
            .transpose()
    }

    fn read(&mut self, line: &mut StringRecord) -> Result<bool, ArrowError> {
        self.unfinished_bytes.set(0);
        let broken = |error: csv::Error| ArrowError::CsvError(error.to_string());
        self.reader.read_record(line).map_err(broken)
    }
}

/// Input that ends with an error where a line does not end.
struct Limited<R> {
    input: R,
    unfinished_bytes: Rc<Cell<usize>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.unfinished_bytes.get() > LINE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "a line of more than {LINE_BYTES_MAX} bytes; is there a quote that is not closed?"
            )));
        }
        let count = self.input.read(out)?;
        self.unfinished_bytes.update(|bytes| bytes + count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(input: impl Read) -> Result<Option<RecordBatch>, ArrowError> {
        Lines::new(input, b',', 10).batch()
    }

    #[test]
    fn a_quote_that_is_not_closed_does_not_take_the_rest_of_the_file() {
        let endless = b"1,\"".chain(io::repeat(b'x'));
        let error = batch(endless).expect_err("endless");
        assert!(error.to_string().contains("quote"), "{error}");
    }

    #[test]
    fn a_long_file_of_short_lines_is_read_in_batches() {
        let text = "1,2\n".repeat(25);
        let mut lines = Lines::new(text.as_bytes(), b',', 10);
        let batches = std::iter::from_fn(|| lines.batch().expect("text"));
        let rows: Vec<_> = batches.map(|batch| batch.num_rows()).collect();
        assert_eq!(rows, [10, 10, 5]);
    }
}
