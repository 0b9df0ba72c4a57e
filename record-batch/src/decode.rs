//! Drill vectors to an Arrow record batch.
//!
//! Decoding goes in two passes: the descriptors give the schema ([`schema`]), then the body is cut
//! along the descriptors and every vector becomes an array ([`vector`]). Nothing in a descriptor is
//! believed before it is compared with the bytes that came, and nothing is allocated by its numbers
//! alone.

mod fixed;
mod legacy;
mod nested;
mod schema;
mod text;
mod variable;
mod vector;

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{Schema, SchemaRef},
};
use bytes::Bytes;
use protos::shared::{RecordBatchDef, SerializedField};

use crate::{
    checked::Region,
    error::{At, DecodeError, VectorError},
};
use vector::Vector;

/// Limits of decoding.
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    /// Most rows of a batch. Default 65,536, which is what Drill's selection vectors can count.
    pub rows_max: usize,
    /// Deepest nesting of vectors, a top-level column counting as 1. Default 32.
    pub depth_max: usize,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            rows_max: 65_536,
            depth_max: 32,
        }
    }
}

impl DecodeOptions {
    /// A vector that takes no bytes for its values may have as many as a batch has rows.
    fn expect_justified(&self, values: usize) -> Result<(), VectorError> {
        if values > self.rows_max {
            return Err(VectorError::Unjustified { values });
        }
        Ok(())
    }
}

/// Decodes one batch: its descriptor and its body, which is empty when the frame had none.
///
/// Values and offsets are slices of `dbody` where they happen to be aligned, and copies where they
/// are not; a slice keeps the whole body alive. A batch without a row count has no rows. Bytes
/// behind the null rows are not looked at: text in them need not be UTF-8.
///
/// # Errors
///
/// Anything in the descriptor that the body contradicts; see [`DecodeError`].
pub fn decode(
    def: &RecordBatchDef,
    dbody: &Bytes,
    options: &DecodeOptions,
) -> Result<RecordBatch, DecodeError> {
    let schema = schema_of(def, options)?;
    decode_as(schema, def, dbody, options)
}

/// Decodes the batches of one stream and remembers the last schema: descriptors of the same shape,
/// the usual case, give the same `SchemaRef` without building it again.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    options: DecodeOptions,
    last: Option<(Vec<SerializedField>, SchemaRef)>,
}

impl Decoder {
    /// A decoder that has seen no batch.
    #[must_use]
    pub const fn new(options: DecodeOptions) -> Self {
        Self {
            options,
            last: None,
        }
    }

    /// As [`decode`].
    ///
    /// # Errors
    ///
    /// As [`decode`].
    pub fn decode(
        &mut self,
        def: &RecordBatchDef,
        dbody: &Bytes,
    ) -> Result<RecordBatch, DecodeError> {
        let schema = match &self.last {
            Some((fields, schema)) if schema::same_shape(fields, &def.field) => schema.clone(),
            _ => {
                let schema = schema_of(def, &self.options)?;
                self.last = Some((def.field.clone(), schema.clone()));
                schema
            }
        };
        decode_as(schema, def, dbody, &self.options)
    }
}

/// The Arrow schema that a descriptor describes, as [`decode`] gives it.
///
/// # Errors
///
/// Types that do not exist or have no vectors; vectors nested too deep.
pub fn schema_of(def: &RecordBatchDef, options: &DecodeOptions) -> Result<SchemaRef, DecodeError> {
    let fields: Vec<_> = def
        .field
        .iter()
        .map(|field| schema::field(field, options.depth_max))
        .collect::<Result<_, _>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

fn decode_as(
    schema: SchemaRef,
    def: &RecordBatchDef,
    dbody: &Bytes,
    options: &DecodeOptions,
) -> Result<RecordBatch, DecodeError> {
    if def.carries_two_byte_selection_vector() {
        return Err(DecodeError::SelectionVector);
    }
    let rows = rows(def, options)?;
    let body = Arc::new(dbody.clone());
    let mut region = Region::new(&body);
    let mut columns = Vec::with_capacity(def.field.len());
    for (descriptor, field) in def.field.iter().zip(schema.fields()) {
        let vector = Vector::parse(descriptor)?;
        let body = region.take(vector.buffer_length).map_err(At::from);
        let column = body
            .and_then(|body| vector::of_rows(&vector, rows, field, body, options))
            .map_err(|at| at.inside(vector.name))?;
        columns.push(column);
    }
    if !region.is_empty() {
        let (actual, left) = (dbody.len(), region.len());
        let described = actual - left;
        return Err(DecodeError::BodyLength { described, actual });
    }
    let counted = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &counted,
    )?)
}

fn rows(def: &RecordBatchDef, options: &DecodeOptions) -> Result<usize, DecodeError> {
    let rows = def.record_count();
    let rows_max = options.rows_max;
    usize::try_from(rows)
        .ok()
        .filter(|&rows| rows <= rows_max)
        .ok_or(DecodeError::RowCount { rows, rows_max })
}

/// A wire number that counts something.
fn count(number: Option<i32>) -> Result<usize, VectorError> {
    let value = number.unwrap_or(0);
    usize::try_from(value).map_err(|_| VectorError::Negative { value })
}
