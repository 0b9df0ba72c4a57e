//! CSV by RFC 4180, with a header line and `\n` between records.
//!
//! Written here because NULL and the empty string must differ (empty and `""`, as other databases
//! have it) and because lists and structs are allowed (as JSON in a field).

use arrow::{
    array::RecordBatch,
    datatypes::{FieldRef, SchemaRef},
    json::writer::EncoderOptions,
};

use super::{
    Render, RenderError,
    cell::{self, Column},
};

/// A result as CSV. Types may change in the middle, names may not.
pub(crate) struct Csv {
    options: EncoderOptions,
    schema: Option<SchemaRef>,
    text: String,
}

impl Default for Csv {
    fn default() -> Self {
        Self {
            options: cell::json_options(),
            schema: None,
            text: String::new(),
        }
    }
}

impl Render for Csv {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), RenderError> {
        self.header(batch.schema_ref(), out)?;
        let mut columns = cell::columns(batch, &self.options)?;
        for row in 0..batch.num_rows() {
            record(&mut columns, row, &mut self.text, out)?;
        }
        Ok(())
    }

    fn finish(&mut self, _out: &mut Vec<u8>) -> Result<(), RenderError> {
        Ok(())
    }
}

impl Csv {
    fn header(&mut self, schema: &SchemaRef, out: &mut Vec<u8>) -> Result<(), RenderError> {
        match &self.schema {
            Some(known) if names(known).eq(names(schema)) => Ok(()),
            Some(known) => Err(RenderError::SchemaChange {
                format: "CSV",
                before: super::columns(known),
                after: super::columns(schema),
            }),
            None => {
                self.schema = Some(schema.clone());
                write_header(schema.fields(), out);
                Ok(())
            }
        }
    }
}

fn names(schema: &SchemaRef) -> impl Iterator<Item = &String> {
    schema.fields().iter().map(|field| field.name())
}

fn write_header(fields: &[FieldRef], out: &mut Vec<u8>) {
    for (index, field) in fields.iter().enumerate() {
        separate(index, out);
        write_field(field.name(), out);
    }
    // Statements without a result have no columns and get no line.
    if !fields.is_empty() {
        out.push(b'\n');
    }
}

fn record(
    columns: &mut [Column<'_>],
    row: usize,
    text: &mut String,
    out: &mut Vec<u8>,
) -> Result<(), RenderError> {
    for (index, column) in columns.iter_mut().enumerate() {
        separate(index, out);
        text.clear();
        if column.write(row, text)? {
            write_field(text, out);
        }
    }
    out.push(b'\n');
    Ok(())
}

fn separate(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

fn write_field(text: &str, out: &mut Vec<u8>) {
    let special = |c| matches!(c, ',' | '"' | '\n' | '\r');
    if !text.is_empty() && !text.contains(special) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}
