//! The Arrow field that a descriptor stands for.

use arrow::datatypes::{DataType, Field};
use protos::{
    common::{DataMode, MinorType},
    shared::SerializedField,
};

use super::vector::{Vector, name, unsupported};
use crate::{
    error::{At, VectorError},
    mapping, metadata,
};

/// The field of a vector at most `depth_max` levels deep.
pub(super) fn field(
    descriptor: &SerializedField,
    depth_max: usize,
) -> Result<Field, At<VectorError>> {
    let vector = Vector::parse(descriptor)?;
    if depth_max == 0 {
        return Err(At::from(VectorError::TooDeep).inside(vector.name));
    }
    scalar(&vector).map_err(|problem| At::from(problem).inside(vector.name))
}

fn scalar(vector: &Vector<'_>) -> Result<Field, VectorError> {
    let drill = &vector.drill;
    if drill.mode == DataMode::Repeated {
        return Err(unsupported(vector));
    }
    let data_type = mapping::arrow_scalar(drill)?;
    let nullable = drill.mode == DataMode::Optional || data_type == DataType::Null;
    let mut metadata = metadata::facts(drill);
    if matches!(
        data_type,
        DataType::Decimal128(..) | DataType::Decimal256(..)
    ) {
        // The Arrow type says both.
        metadata.remove(metadata::PRECISION);
        metadata.remove(metadata::SCALE);
    }
    let kept = mapping::drill_scalar_as(&data_type, Some(drill.minor)) == Ok(drill.minor);
    if kept && mapping::drill_scalar(&data_type) != Ok(drill.minor) {
        metadata.insert(
            metadata::MINOR_TYPE.into(),
            drill.minor.as_str_name().into(),
        );
    }
    if (drill.minor, drill.mode) == (MinorType::Null, DataMode::Required) {
        metadata.insert(metadata::MODE.into(), drill.mode.as_str_name().into());
    }
    Ok(Field::new(vector.name, data_type, nullable).with_metadata(metadata))
}

/// Whether two lists of descriptors differ in nothing but counts and lengths.
pub(super) fn same_shape(left: &[SerializedField], right: &[SerializedField]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| {
            left.major_type == right.major_type
                && name(left) == name(right)
                && same_shape(&left.child, &right.child)
        })
}
