//! The Arrow IPC stream format.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{Field, Schema, SchemaRef},
    ipc::writer::StreamWriter,
};

use super::{Render, RenderError};

/// A result as an IPC stream. All fields are declared nullable, because Drill may find the first
/// NULL late and an IPC stream has one schema.
#[derive(Default)]
pub(crate) struct ArrowIpc {
    stream: Option<(SchemaRef, StreamWriter<Vec<u8>>)>,
}

impl Render for ArrowIpc {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), RenderError> {
        let (schema, writer) = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert(open(batch.schema_ref())?),
        };
        let batch = with_schema(batch, schema)?;
        writer.write(&batch)?;
        out.append(writer.get_mut());
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), RenderError> {
        let Some((_, writer)) = &mut self.stream else {
            return Ok(());
        };
        writer.finish()?;
        out.append(writer.get_mut());
        Ok(())
    }
}

fn open(schema: &SchemaRef) -> Result<(SchemaRef, StreamWriter<Vec<u8>>), RenderError> {
    let fields = schema
        .fields()
        .iter()
        .map(|field| Field::clone(field).with_nullable(true));
    let schema = Arc::new(Schema::new_with_metadata(
        fields.collect::<Vec<_>>(),
        schema.metadata().clone(),
    ));
    let writer = StreamWriter::try_new(Vec::new(), &schema)?;
    Ok((schema, writer))
}

fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, RenderError> {
    let actual = batch.schema_ref();
    let same = |a: &Field, b: &Field| a.name() == b.name() && a.data_type() == b.data_type();
    let mut pairs = schema.fields().iter().zip(actual.fields());
    if schema.fields().len() != actual.fields().len() || !pairs.all(|(a, b)| same(a, b)) {
        return Err(RenderError::SchemaChange {
            format: "an Arrow stream",
            before: super::columns(schema),
            after: super::columns(actual),
        });
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        schema.clone(),
        batch.columns().to_vec(),
        &rows,
    )?)
}
