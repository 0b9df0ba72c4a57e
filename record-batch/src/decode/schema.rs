//! The Arrow field that a descriptor stands for.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, UnionFields, UnionMode};
use protos::{
    common::{DataMode, MajorType, MinorType},
    shared::SerializedField,
};

use super::vector::{Vector, exactly, name, unsupported};
use crate::{
    drill_type::{DrillType, ordinal},
    error::{At, VectorError},
    mapping, metadata, names,
};

type Described = Result<Field, At<VectorError>>;

/// The field of a vector at most `depth_max` levels deep.
pub(super) fn field(descriptor: &SerializedField, depth_max: usize) -> Described {
    let vector = Vector::parse(descriptor)?;
    let Some(depth_max) = depth_max.checked_sub(1) else {
        return Err(At::from(VectorError::TooDeep).inside(vector.name));
    };
    of_layout(&vector, depth_max).map_err(|at| at.inside(vector.name))
}

fn of_layout(vector: &Vector<'_>, depth_max: usize) -> Described {
    match (vector.minor, vector.mode) {
        (MinorType::Map, DataMode::Repeated) => {
            let members = members(behind_offsets(vector.children), depth_max)?;
            Ok(repeated(vector, item(DataType::Struct(members)))?)
        }
        (MinorType::Map, _) => {
            let members = members(vector.children, depth_max)?;
            let members = DataType::Struct(members);
            Ok(always(vector, members, DataMode::Required)?)
        }
        (MinorType::List, DataMode::Repeated) => {
            let mut item = element(vector, depth_max)?;
            if vector.name != names::DATA && inner_name(vector) == Some(vector.name) {
                let key = metadata::INNER_NAME.to_owned();
                item.metadata_mut()
                    .insert(key, metadata::AS_COLUMN.to_owned());
            }
            Ok(repeated(vector, item)?)
        }
        (MinorType::List, _) => {
            let item = element(vector, depth_max)?;
            let nullable = item.is_nullable() || !item.data_type().is_nested();
            let list = DataType::List(Arc::new(item.with_nullable(nullable)));
            Ok(always(vector, list, DataMode::Optional)?.with_nullable(true))
        }
        (MinorType::Dict, DataMode::Repeated) => {
            let [inner] = exactly(behind_offsets(vector.children))?;
            Ok(repeated(vector, field(inner, depth_max)?.with_name(ITEM))?)
        }
        (MinorType::Dict, _) => {
            let map = DataType::Map(Arc::new(entries(vector, depth_max)?), false);
            Ok(always(vector, map, DataMode::Required)?)
        }
        (MinorType::Union, DataMode::Optional | DataMode::Required) => union(vector, depth_max),
        (_, DataMode::Repeated) => Ok(repeated(vector, repeated_item(vector)?)?),
        _ => Ok(scalar(vector.name, &vector.drill()?)?),
    }
}

const ITEM: &str = Field::LIST_FIELD_DEFAULT_NAME;

fn scalar(name: &str, drill: &DrillType) -> Result<Field, VectorError> {
    let data_type = mapping::arrow_scalar(drill)?;
    let nullable = drill.mode == DataMode::Optional || data_type == DataType::Null;
    let mut metadata = facts(drill);
    let kept = mapping::drill_scalar_as(&data_type, Some(drill.minor)) == Ok(drill.minor);
    if kept && mapping::drill_scalar(&data_type) != Ok(drill.minor) {
        let minor = drill.minor.as_str_name();
        metadata.insert(metadata::MINOR_TYPE.into(), minor.into());
    }
    if (drill.minor, drill.mode) == (MinorType::Null, DataMode::Required) {
        metadata.insert(metadata::MODE.into(), drill.mode.as_str_name().into());
    }
    Ok(Field::new(name, data_type, nullable).with_metadata(metadata))
}

/// The numbers that the Arrow type does not say itself.
fn facts(drill: &DrillType) -> HashMap<String, String> {
    let mut metadata = metadata::facts(drill);
    let data_type = mapping::arrow_scalar(drill);
    if matches!(data_type, Ok(DataType::Decimal128(..))) {
        metadata.remove(metadata::PRECISION);
        metadata.remove(metadata::SCALE);
    }
    metadata
}

/// A vector that has no validity of its own; a mode other than `usual` is kept.
fn always(vector: &Vector<'_>, data_type: DataType, usual: DataMode) -> Result<Field, VectorError> {
    let mut metadata = facts(&vector.drill()?);
    if vector.mode != usual {
        metadata.insert(metadata::MODE.into(), vector.mode.as_str_name().into());
    }
    Ok(Field::new(vector.name, data_type, false).with_metadata(metadata))
}

fn repeated(vector: &Vector<'_>, item: Field) -> Result<Field, VectorError> {
    let list = DataType::List(Arc::new(item));
    let metadata = facts(&vector.drill()?);
    Ok(Field::new(vector.name, list, false).with_metadata(metadata))
}

fn item(data_type: DataType) -> Field {
    Field::new(ITEM, data_type, false)
}

/// The item of a repeated scalar. Drill gives the inner vector a precision and a scale of 0 where
/// the outer one has none; only other numbers are kept.
// wire: golden/user/complex
fn repeated_item(vector: &Vector<'_>) -> Described {
    if vector.minor == MinorType::Null {
        return Err(unsupported(vector).into());
    }
    let drill = match behind_offsets(vector.children).first() {
        Some(data) => Vector::parse(data)?.drill()?,
        None => vector.drill()?.with_mode(DataMode::Required),
    };
    let drill = DrillType {
        precision: drill.precision.filter(|&precision| precision != 0),
        scale: drill.scale.filter(|&scale| scale != 0),
        ..drill
    };
    Ok(scalar(ITEM, &drill)?)
}

/// The name of what is behind the offsets.
fn inner_name<'a>(vector: &Vector<'a>) -> Option<&'a str> {
    behind_offsets(vector.children).first().map(name)
}

/// The elements of a LIST; Null where Drill has not found their type yet.
fn element(vector: &Vector<'_>, depth_max: usize) -> Described {
    let helper = |child: &&SerializedField| [names::OFFSETS, names::BITS].contains(&name(child));
    match vector.children.iter().find(|child| !helper(child)) {
        Some(data) if name(data) != names::UNTYPED => Ok(field(data, depth_max)?.with_name(ITEM)),
        _ => Ok(Field::new(ITEM, DataType::Null, true)),
    }
}

fn members(children: &[SerializedField], depth_max: usize) -> Result<Fields, At<VectorError>> {
    children
        .iter()
        .map(|child| field(child, depth_max))
        .collect()
}

/// Key and value of a DICT; a key is a scalar and never null, also where its vector is OPTIONAL.
// wire: Drill's reader of Parquet makes OPTIONAL ones, tests/it/interop/nested_files.rs
fn entries(vector: &Vector<'_>, depth_max: usize) -> Described {
    let [key, value] = exactly(behind_offsets(vector.children))?;
    let (described, mut key) = (Vector::parse(key)?, field(key, depth_max)?);
    if key.data_type().is_nested() {
        return Err(described.wrong_child().into());
    }
    if described.mode == DataMode::Optional {
        let mode = described.mode.as_str_name().to_owned();
        key.metadata_mut().insert(metadata::MODE.to_owned(), mode);
    }
    let key = key.with_nullable(false);
    let entries = Fields::from(vec![key, field(value, depth_max)?]);
    Ok(Field::new("entries", DataType::Struct(entries), false))
}

/// A sparse union whose type ids are Drill's ordinals; 0 is null.
fn union(vector: &Vector<'_>, depth_max: usize) -> Described {
    let null: FieldRef = Arc::new(Field::new("null", DataType::Null, true));
    let mut fields = vec![(0, null)];
    let mut members = Vec::new();
    let [internal] = vector.children()?;
    for member in internal.child.iter().skip(1) {
        let minor = Vector::parse(member)?.minor;
        if minor == MinorType::Late || members.contains(&minor) {
            return Err(At::from(VectorError::UnionMember).inside(name(member)));
        }
        members.push(minor);
        fields.push((ordinal(minor), Arc::new(field(member, depth_max)?)));
    }
    let data_type = DataType::Union(UnionFields::from_iter(fields), UnionMode::Sparse);
    let mut field = always(vector, data_type, DataMode::Optional)?.with_nullable(true);
    let sub_types = vector.drill()?.sub_types;
    if sub_types != members {
        let named = metadata::join(&sub_types);
        field
            .metadata_mut()
            .insert(metadata::SUB_TYPES.to_owned(), named);
    }
    Ok(field)
}

/// The children but a leading offsets vector, which schema-only descriptors leave out.
fn behind_offsets(children: &[SerializedField]) -> &[SerializedField] {
    match children {
        [first, rest @ ..] if name(first) == names::OFFSETS => rest,
        all => all,
    }
}

/// Whether two lists of descriptors differ in nothing but counts and lengths.
pub(super) fn same_shape(left: &[SerializedField], right: &[SerializedField]) -> bool {
    let same = |(left, right): (&SerializedField, &SerializedField)| {
        name(left) == name(right)
            && same_type(left.major_type.as_ref(), right.major_type.as_ref())
            && same_shape(&left.child, &right.child)
    };
    left.len() == right.len() && (left.is_empty() || left.iter().zip(right).all(same))
}

/// Equality that compares no empty vectors with each other: that is a call of the C library for nothing at an address
/// of nothing, which takes some processors longer than all the rest.
fn same_type(left: Option<&MajorType>, right: Option<&MajorType>) -> bool {
    let (Some(left), Some(right)) = (left, right) else {
        return left.is_none() && right.is_none();
    };
    let no_sub_types = left.sub_type.is_empty() && right.sub_type.is_empty();
    left.minor_type == right.minor_type
        && left.mode == right.mode
        && left.precision == right.precision
        && left.scale == right.scale
        && left.width == right.width
        && left.time_zone == right.time_zone
        && (no_sub_types || left.sub_type == right.sub_type)
}
