//! An Arrow record batch to Drill vectors.
//!
//! The schema is planned once ([`planning`]): every field gets its Drill type or is refused by
//! name.
//! A batch is then written column by column ([`scalar`], [`nested`]), after the conversions
//! that the plan asks for ([`convert`]).

mod convert;
mod decimals;
mod lists;
mod nested;
mod plan;
mod planning;
mod scalar;
mod variable;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::Bytes;
use protos::shared::{RecordBatchDef, SerializedField};

use crate::{
    body::{Body, saturating},
    error::EncodeError,
};
use plan::Plan;

/// One batch, ready for a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedBatch {
    /// The descriptor.
    pub def: RecordBatchDef,
    /// The body's pieces in wire order: vectors of one batch, chained. Large pieces reference the
    /// Arrow buffers that they came from and keep those alive. Empty for a batch without rows.
    pub dbody: Vec<Bytes>,
}

impl EncodedBatch {
    /// Length of the body.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.dbody.iter().map(Bytes::len).sum()
    }

    /// The body in one piece: a copy unless it is one already.
    #[must_use]
    pub fn joined(&self) -> Bytes {
        match self.dbody.as_slice() {
            [one] => one.clone(),
            pieces => Bytes::from(pieces.concat()),
        }
    }
}

/// Encodes the batches of one schema.
#[derive(Clone, Debug)]
pub struct Encoder {
    plans: Vec<Plan>,
    empty: RecordBatchDef,
}

impl Encoder {
    /// Finds the Drill type of every column.
    ///
    /// # Errors
    ///
    /// A column whose type no Drill vector can hold, by its path and type.
    pub fn try_new(schema: &SchemaRef) -> Result<Self, EncodeError> {
        let fields = schema.fields().iter();
        let plans = fields
            .map(|field| planning::column(field))
            .collect::<Result<Vec<_>, _>>()?;
        let empty = plans.iter().map(Plan::empty).collect::<Result<_, _>>()?;
        Ok(Self {
            plans,
            empty: definition(0, empty),
        })
    }

    /// Encodes one batch. A column is OPTIONAL when its field is nullable or, whatever the field
    /// says, when the batch has nulls in it. Names and metadata come from the encoder's schema.
    ///
    /// # Errors
    ///
    /// Columns of other types than the encoder's; values that the Drill type cannot hold, by column
    /// and row; batches of 2 GiB and more.
    pub fn encode(&self, batch: &RecordBatch) -> Result<EncodedBatch, EncodeError> {
        let (expected, actual) = (self.plans.len(), batch.num_columns());
        if expected != actual {
            return Err(EncodeError::ColumnCount { expected, actual });
        }
        let mut body = Body::default();
        let mut field = Vec::with_capacity(expected);
        for (plan, column) in self.plans.iter().zip(batch.columns()) {
            field.push(plan.write(column, None, &mut body)?);
        }
        let size = body.len().max(batch.num_rows());
        if i32::try_from(size).is_err() {
            return Err(EncodeError::TooLarge { size });
        }
        Ok(EncodedBatch {
            def: definition(batch.num_rows(), field),
            dbody: body.finish(),
        })
    }

    /// The descriptor of a batch without rows, as Drill sends it for an empty result.
    #[must_use]
    pub fn schema_only(&self) -> RecordBatchDef {
        self.empty.clone()
    }
}

// wire: golden/user/employee (with and without rows)
fn definition(rows: usize, field: Vec<SerializedField>) -> RecordBatchDef {
    RecordBatchDef {
        record_count: Some(saturating(rows)),
        field,
        carries_two_byte_selection_vector: Some(false),
        affected_rows_count: None,
    }
}
