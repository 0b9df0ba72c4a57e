//! What becomes of one Arrow field: its Drill type, found once per schema.

use arrow::{
    array::{Array, ArrayRef, new_empty_array},
    buffer::NullBuffer,
    datatypes::{DataType, Field},
};
use protos::{
    common::{DataMode, MinorType},
    shared::SerializedField,
};

use super::{convert, scalar};
use crate::{
    body::Body,
    drill_type::DrillType,
    error::{EncodeError, EncodeProblem},
    mapping, metadata,
};

/// The way of one field to the wire.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    /// The field's type, as batches must bring it.
    source: DataType,
    pub(super) nullable: bool,
    /// The column's type; its mode is decided batch by batch.
    pub(super) drill: DrillType,
}

impl Plan {
    /// Plans a field.
    pub(super) fn of(field: &Field) -> Result<Self, EncodeError> {
        let drill = scalar_type(field).map_err(|problem| refusal(field, problem))?;
        Ok(Self {
            name: field.name().clone(),
            source: field.data_type().clone(),
            nullable: field.is_nullable(),
            drill,
        })
    }

    /// Appends the column's vectors to `body` and describes them. Rows that are null in `outer`,
    /// the surrounding map, are null here.
    pub(super) fn write(
        &self,
        array: &ArrayRef,
        outer: Option<&NullBuffer>,
        body: &mut Body,
    ) -> Result<SerializedField, EncodeError> {
        self.expect_source(array)
            .and_then(|()| convert::to_wire_form(array, self.drill.minor))
            .and_then(|array| scalar::write(self, &array, outer, body))
            .map_err(|problem| self.refused(problem))
    }

    /// The descriptor of the column without rows.
    pub(super) fn empty(&self) -> Result<SerializedField, EncodeError> {
        self.write(&new_empty_array(&self.source), None, &mut Body::default())
    }

    fn expect_source(&self, array: &ArrayRef) -> Result<(), EncodeProblem> {
        if array.data_type().equals_datatype(&self.source) {
            return Ok(());
        }
        Err(EncodeProblem::Mismatch {
            expected: self.source.clone(),
            actual: array.data_type().clone(),
        })
    }

    fn refused(&self, problem: EncodeProblem) -> EncodeError {
        EncodeError::Column {
            column: self.name.clone(),
            data_type: self.source.clone(),
            problem,
        }
    }
}

fn refusal(field: &Field, problem: EncodeProblem) -> EncodeError {
    EncodeError::Column {
        column: field.name().clone(),
        data_type: field.data_type().clone(),
        problem,
    }
}

fn scalar_type(field: &Field) -> Result<DrillType, EncodeProblem> {
    let data_type = expanded(field.data_type());
    let metadata = field.metadata();
    let minor = mapping::drill_scalar_as(data_type, metadata::minor_type(metadata))?;
    let mode = metadata::mode(metadata).filter(|_| minor == MinorType::Null);
    let (precision, scale) = match minor {
        MinorType::Vardecimal => mapping::vardecimal(data_type)?
            .map(|(precision, scale)| (precision.into(), scale.into()))
            .unzip(),
        _ => (
            metadata::number(metadata, metadata::PRECISION),
            metadata::number(metadata, metadata::SCALE),
        ),
    };
    Ok(DrillType {
        width: metadata::number(metadata, metadata::WIDTH),
        precision,
        scale,
        time_zone: metadata::number(metadata, metadata::TIME_ZONE),
        ..DrillType::new(minor, mode.unwrap_or(DataMode::Optional))
    })
}

/// The type of the values behind dictionaries and runs.
fn expanded(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => expanded(values),
        DataType::RunEndEncoded(_, values) => expanded(values.data_type()),
        plain => plain,
    }
}
