//! Aligned columns for people.

use std::mem;

use arrow::{
    array::RecordBatch,
    datatypes::{FieldRef, SchemaRef},
    json::writer::EncoderOptions,
};
use unicode_width::UnicodeWidthStr;

use super::{Render, RenderError, cell};

/// Rows from which the column widths are taken.
const SAMPLE_ROWS_MAX: usize = 1_000;
/// Text held while sampling, in bytes; ends the sample early.
const SAMPLE_BYTES_MAX: usize = 1 << 20;

/// A result as a table. A schema change ends the table and begins another one.
pub(crate) struct Table {
    options: EncoderOptions,
    schema: Option<SchemaRef>,
    stage: Stage,
}

/// Sampling --full, end--> Streaming
enum Stage {
    Sampling {
        rows: Vec<Vec<String>>,
        bytes: usize,
    },
    Streaming(Layout),
}

impl Default for Table {
    fn default() -> Self {
        Self {
            options: cell::json_options(),
            schema: None,
            stage: Stage::empty(),
        }
    }
}

impl Stage {
    fn empty() -> Self {
        Self::Sampling {
            rows: Vec::new(),
            bytes: 0,
        }
    }
}

impl Render for Table {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), RenderError> {
        self.follow_schema(batch.schema_ref(), out);
        let mut columns = cell::columns(batch, &self.options)?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter_mut().map(|column| cell_text(column, row));
            let cells = cells.collect::<Result<Vec<_>, RenderError>>()?;
            self.stage.row(batch.schema_ref(), cells, out);
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), RenderError> {
        self.end_table(out);
        Ok(())
    }
}

impl Table {
    fn follow_schema(&mut self, schema: &SchemaRef, out: &mut Vec<u8>) {
        if self
            .schema
            .as_ref()
            .is_some_and(|known| known.fields() != schema.fields())
        {
            self.end_table(out);
            out.push(b'\n');
        }
        self.schema = Some(schema.clone());
    }

    fn end_table(&mut self, out: &mut Vec<u8>) {
        let Some(schema) = self
            .schema
            .take()
            .filter(|schema| !schema.fields().is_empty())
        else {
            return;
        };
        let layout = match mem::replace(&mut self.stage, Stage::empty()) {
            Stage::Sampling { rows, .. } => Layout::begin(&schema, &rows, out),
            Stage::Streaming(layout) => layout,
        };
        layout.rule(out);
    }
}

impl Stage {
    fn row(&mut self, schema: &SchemaRef, cells: Vec<String>, out: &mut Vec<u8>) {
        match self {
            Self::Streaming(layout) => layout.row(&cells, out),
            Self::Sampling { rows, bytes } => {
                *bytes += cells.iter().map(String::len).sum::<usize>();
                rows.push(cells);
                if rows.len() >= SAMPLE_ROWS_MAX || *bytes >= SAMPLE_BYTES_MAX {
                    *self = Self::Streaming(Layout::begin(schema, rows, out));
                }
            }
        }
    }
}

/// Widths (in terminal cells) and alignments.
struct Layout(Vec<(usize, Align)>);

#[derive(Clone, Copy)]
enum Align {
    Left,
    Right,
}

impl Layout {
    /// Lays out the sampled rows and writes head and rows.
    fn begin(schema: &SchemaRef, rows: &[Vec<String>], out: &mut Vec<u8>) -> Self {
        let names: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| printable(field.name()))
            .collect();
        let columns = schema.fields().iter().enumerate();
        let layout = Self(
            columns
                .map(|(index, field)| measure(index, field, &names, rows))
                .collect(),
        );
        layout.rule(out);
        layout.row(&names, out);
        layout.rule(out);
        for row in rows {
            layout.row(row, out);
        }
        layout
    }

    fn rule(&self, out: &mut Vec<u8>) {
        for (width, _) in &self.0 {
            out.push(b'+');
            out.resize(out.len() + width + 2, b'-');
        }
        out.extend_from_slice(b"+\n");
    }

    fn row(&self, cells: &[String], out: &mut Vec<u8>) {
        for (cell, (width, align)) in cells.iter().zip(&self.0) {
            let padding = width.saturating_sub(cell.width());
            let (before, after) = match align {
                Align::Left => (0, padding),
                Align::Right => (padding, 0),
            };
            out.extend_from_slice(b"| ");
            out.resize(out.len() + before, b' ');
            out.extend_from_slice(cell.as_bytes());
            out.resize(out.len() + after + 1, b' ');
        }
        out.extend_from_slice(b"|\n");
    }
}

fn measure(
    index: usize,
    field: &FieldRef,
    names: &[String],
    rows: &[Vec<String>],
) -> (usize, Align) {
    let cells = rows
        .iter()
        .filter_map(|row| row.get(index))
        .chain(names.get(index));
    let width = cells.map(|cell| cell.width()).max().unwrap_or(0);
    let align = if field.data_type().is_numeric() {
        Align::Right
    } else {
        Align::Left
    };
    (width, align)
}

fn cell_text(column: &mut cell::Column<'_>, row: usize) -> Result<String, RenderError> {
    let mut text = String::new();
    if !column.write(row, &mut text)? {
        return Ok("null".to_owned());
    }
    Ok(printable(&text))
}

/// Data must not steer the terminal: control characters are shown, not obeyed.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
