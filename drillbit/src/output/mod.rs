//! Results as text or bytes: one renderer per format, and where the bytes go.
//!
//! A renderer turns batches into bytes and never holds more than one batch (the table format: a
//! bounded number of rows, from which it takes its column widths). Only [`Destination`] does I/O.

mod arrow_ipc;
mod cell;
mod csv;
mod destination;
mod json;
mod table;

use arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError};
use clap::ValueEnum;

pub(crate) use destination::Destination;

pub(crate) use cell::json_options;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people. Widths come from the first rows; longer values later stick out
    Table,
    /// RFC 4180 with a header line. NULL is empty, an empty string is ""; lists and structs are
    /// JSON
    Csv,
    /// One array of objects per statement
    Json,
    /// One object a line
    Ndjson,
    /// Arrow IPC stream, one per statement, one after the other
    Arrow,
}

impl Format {
    /// Binary output does not belong on a terminal.
    pub(crate) fn is_binary(self) -> bool {
        self == Self::Arrow
    }

    fn renderer(self) -> Box<dyn Render> {
        match self {
            Self::Table => Box::new(table::Table::default()),
            Self::Csv => Box::new(csv::Csv::default()),
            Self::Json => Box::new(json::Json::array()),
            Self::Ndjson => Box::new(json::Json::lines()),
            Self::Arrow => Box::new(arrow_ipc::ArrowIpc::default()),
        }
    }

    /// Text formats with a header separate two results by an empty line.
    fn separator(self) -> &'static [u8] {
        match self {
            Self::Table | Self::Csv => b"\n",
            Self::Json | Self::Ndjson | Self::Arrow => b"",
        }
    }
}

/// Why a result cannot be written in the chosen format.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// The schema changed in the middle of a result and the format knows only one.
    #[error(
        "the columns change in the middle of the result (from {before} to {after}), \
         which {format} cannot say; --format ndjson can"
    )]
    SchemaChange {
        /// Name of the format.
        format: &'static str,
        /// Columns until then.
        before: String,
        /// Columns from then on.
        after: String,
    },
    /// A value could not be formatted.
    #[error("cannot format a value: {0}")]
    Value(#[from] ArrowError),
}

/// Renders one result. `out` is appended to; whoever calls takes the bytes away after each call.
trait Render: Send {
    /// A batch with rows, or exactly one empty batch when the result has none.
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), RenderError>;
    /// The end of the result, or the point where it broke off.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), RenderError>;
}

/// One result on its way into bytes: a renderer that is spared empty batches.
///
/// Drill sends schema-only batches whose types may still change; only what has rows, or is left at
/// the end, counts.
pub(crate) struct ResultRenderer {
    render: Box<dyn Render>,
    schema: Option<SchemaRef>,
    begun: bool,
}

impl ResultRenderer {
    /// For one result; `first` says that nothing was written in front of it.
    pub(crate) fn new(format: Format, place: Place, out: &mut Vec<u8>) -> Self {
        if place == Place::Following {
            out.extend_from_slice(format.separator());
        }
        Self {
            render: format.renderer(),
            schema: None,
            begun: false,
        }
    }

    /// # Errors
    /// The format cannot express the batch.
    pub(crate) fn batch(
        &mut self,
        batch: &RecordBatch,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        if batch.num_rows() == 0 {
            self.schema(batch.schema());
            return Ok(());
        }
        self.begun = true;
        self.render.batch(batch, out)
    }

    /// Columns that are known before any row.
    pub(crate) fn schema(&mut self, schema: SchemaRef) {
        self.schema = Some(schema);
    }

    /// # Errors
    /// The format cannot express what was left to write.
    pub(crate) fn finish(mut self, out: &mut Vec<u8>) -> Result<(), RenderError> {
        if let Some(schema) = self.schema.filter(|_| !self.begun) {
            self.render.batch(&RecordBatch::new_empty(schema), out)?;
        }
        self.render.finish(out)
    }
}

/// Where a result stands in its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing is in front of it.
    First,
    /// Another result is in front of it.
    Following,
}

/// Names and types, as error texts show them.
fn columns(schema: &SchemaRef) -> String {
    let columns = schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name(), field.data_type()));
    format!("[{}]", columns.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests;
