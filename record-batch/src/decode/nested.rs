//! Vectors of vectors. Every one checks the names, counts and lengths of its children before it
//! decodes them.
// wire: golden/user/complex; drill@051b164 exec/vector/src/main/java/.../vector/complex/

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, ListArray, MapArray, StructArray, UnionArray},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, FieldRef, Fields, UnionFields},
    error::ArrowError,
};
use protos::{
    common::{DataMode, MinorType},
    shared::SerializedField,
};

use super::{
    DecodeOptions,
    fixed::scalars,
    variable::{end_of, offsets_of},
    vector::{self, Decoded, Vector, bits_of},
};
use crate::{
    checked::Region,
    error::{At, VectorError},
    names,
};

/// Decodes any vector but a scalar of mode REQUIRED or OPTIONAL.
pub(super) fn array(
    vector: &Vector<'_>,
    field: &Field,
    body: Region<'_>,
    options: &DecodeOptions,
) -> Decoded {
    let mut region = body;
    let decoded = match (vector.minor, vector.mode, field.data_type()) {
        (MinorType::Map, DataMode::Repeated, DataType::List(item)) => {
            repeated_map(vector, item, &mut region, options)
        }
        (MinorType::Map, _, DataType::Struct(fields)) => map(vector, fields, &mut region, options),
        (MinorType::List, DataMode::Optional | DataMode::Required, DataType::List(item)) => {
            list(vector, item, &mut region, options)
        }
        (MinorType::Dict, DataMode::Optional | DataMode::Required, DataType::Map(entries, _)) => {
            dict(vector, entries, &mut region, options)
        }
        (MinorType::Union, _, DataType::Union(fields, _)) => {
            union(vector, fields, &mut region, options)
        }
        (_, DataMode::Repeated, DataType::List(item)) => {
            repeated(vector, item, &mut region, options)
        }
        _ => Err(vector::unsupported(vector).into()),
    }?;
    finish(region, body)?;
    Ok(decoded)
}

/// The children must take all of their parent's bytes.
fn finish(region: Region<'_>, body: Region<'_>) -> Result<(), VectorError> {
    if region.is_empty() {
        return Ok(());
    }
    let actual = body.len();
    Err(VectorError::BufferLength {
        expected: actual - region.len(),
        actual,
    })
}

/// Decodes the next child, of `rows` values.
fn child(
    vector: &Vector<'_>,
    rows: usize,
    field: &Field,
    region: &mut Region<'_>,
    options: &DecodeOptions,
) -> Decoded {
    let body = region.take(vector.buffer_length);
    body.map_err(At::from)
        .and_then(|body| vector::of_rows(vector, rows, field, body, options))
        .map_err(|at| at.inside(vector.name))
}

fn members(
    children: &[SerializedField],
    rows: usize,
    fields: &Fields,
    region: &mut Region<'_>,
    options: &DecodeOptions,
) -> Decoded {
    if children.len() != fields.len() {
        let (expected, actual) = (fields.len(), children.len());
        return Err(VectorError::ChildCount { expected, actual }.into());
    }
    if children.is_empty() {
        options.expect_justified(rows)?;
    }
    let columns = children
        .iter()
        .zip(fields)
        .map(|(descriptor, field)| child(&Vector::parse(descriptor)?, rows, field, region, options))
        .collect::<Result<_, _>>()?;
    let members = StructArray::try_new_with_length(fields.clone(), columns, None, rows);
    Ok(Arc::new(members.map_err(assembly)?))
}

fn map(
    vector: &Vector<'_>,
    fields: &Fields,
    region: &mut Region<'_>,
    options: &DecodeOptions,
) -> Decoded {
    members(vector.children, vector.value_count, fields, region, options)
}

fn repeated_map(
    vector: &Vector<'_>,
    item: &FieldRef,
    region: &mut Region<'_>,
    options: &DecodeOptions,
) -> Decoded {
    let (offsets, children) = offsets(vector, region)?;
    let DataType::Struct(fields) = item.data_type() else {
        return Err(vector::unsupported(vector).into());
    };
    let elements = members(children, end_of(&offsets), fields, region, options)?;
    assembled(ListArray::try_new(item.clone(), offsets, elements, None))
}

/// The offsets of a vector's rows, and the children behind them.
fn offsets<'a>(
    vector: &Vector<'a>,
    region: &mut Region<'_>,
) -> Result<(OffsetBuffer<i32>, &'a [SerializedField]), At<VectorError>> {
    let Some((first, rest)) = vector.children.split_first() else {
        return Err(child_count(vector, 1).into());
    };
    let first = Vector::parse(first)?;
    Ok((offsets_of(&first, vector.value_count, region)?, rest))
}

/// An array per row, of scalars, of arrays or of dictionaries.
fn repeated(
    vector: &Vector<'_>,
    item: &FieldRef,
    region: &mut Region<'_>,
    options: &DecodeOptions,
) -> Decoded {
    let (offsets, children) = offsets(vector, region)?;
    let [data] = children else {
        return Err(child_count(vector, 2).into());
    };
    let data = Vector::parse(data)?;
    let minor = vector.minor;
    expect_inner_name(vector, &data)?;
    let of_scalars = !matches!(minor, MinorType::List | MinorType::Dict);
    if of_scalars && (data.minor != minor || data.mode != DataMode::Required) {
        return Err(data.wrong_child().into());
    }
    let elements = child(&data, end_of(&offsets), item, region, options)?;
    assembled(ListArray::try_new(item.clone(), offsets, elements, None))
}

/// wire: golden/user/complex has the arrays inside a REPEATED LIST under both names
fn expect_inner_name(vector: &Vector<'_>, data: &Vector<'_>) -> Result<(), VectorError> {
    match vector.minor {
        MinorType::Dict => data.expect_name(names::INNER),
        MinorType::List if data.name == vector.name => Ok(()),
        _ => data.expect_name(names::DATA),
    }
}

/// An array per row that may be null, of elements that may be null.
fn list(
    vector: &Vector<'_>,
    item: &FieldRef,
    region: &mut Region<'_>,
    options: &DecodeOptions,
) -> Decoded {
    let (offsets, children) = offsets(vector, region)?;
    let [bits, data] = children else {
        return Err(child_count(vector, 3).into());
    };
    let (bits, data) = (Vector::parse(bits)?, Vector::parse(data)?);
    bits.expect_helper(names::BITS, MinorType::Uint1, vector.value_count)?;
    let nulls = bits_of(&bits, region)?;
    let elements = if data.name == names::UNTYPED {
        data.expect_count(0)?;
        arrow::array::new_empty_array(item.data_type())
    } else {
        if ![names::DATA, names::UNION].contains(&data.name) {
            data.expect_name(names::DATA)?;
        }
        child(&data, end_of(&offsets), item, region, options)?
    };
    super::variable::expect_end(&offsets, elements.len())?;
    assembled(ListArray::try_new(item.clone(), offsets, elements, nulls))
}

fn dict(
    vector: &Vector<'_>,
    entries: &FieldRef,
    region: &mut Region<'_>,
    options: &DecodeOptions,
) -> Decoded {
    let (offsets, children) = offsets(vector, region)?;
    let ([key, value], DataType::Struct(fields)) = (children, entries.data_type()) else {
        return Err(child_count(vector, 3).into());
    };
    let (key, value) = (Vector::parse(key)?, Vector::parse(value)?);
    key.expect_name(names::KEY)?;
    value.expect_name(names::VALUE)?;
    let rows = end_of(&offsets);
    let pairs = vec![
        child(&key, rows, &fields[0], region, options)?,
        child(&value, rows, &fields[1], region, options)?,
    ];
    let pairs = StructArray::try_new(fields.clone(), pairs, None).map_err(assembly)?;
    assembled(MapArray::try_new(
        entries.clone(),
        offsets,
        pairs,
        None,
        false,
    ))
}

/// A map of `types` and one nullable member per type. The types are Java ordinals.
fn union(
    vector: &Vector<'_>,
    fields: &UnionFields,
    region: &mut Region<'_>,
    options: &DecodeOptions,
) -> Decoded {
    let rows = vector.value_count;
    let [internal] = vector.children()?;
    let internal = Vector::parse(internal)?;
    internal.expect_name(names::INTERNAL)?;
    internal.expect_count(rows)?;
    let Some((types, members)) = internal.children.split_first() else {
        return Err(child_count(&internal, 1).into());
    };
    let types = Vector::parse(types)?;
    types.expect_helper(names::TYPES, MinorType::Uint1, rows)?;
    let type_ids = scalars::<i8>(rows, region.take(types.buffer_length)?)?;
    let known = |type_id: &i8| fields.iter().any(|(known, _)| known == *type_id);
    if let Some(row) = type_ids.iter().position(|type_id| !known(type_id)) {
        return Err(VectorError::UnionType { row }.into());
    }
    let mut columns: Vec<ArrayRef> = vec![Arc::new(arrow::array::NullArray::new(rows))];
    for (member, (_, field)) in members.iter().zip(fields.iter().skip(1)) {
        columns.push(child(
            &Vector::parse(member)?,
            rows,
            field,
            region,
            options,
        )?);
    }
    assembled(UnionArray::try_new(fields.clone(), type_ids, None, columns))
}

fn child_count(vector: &Vector<'_>, expected: usize) -> VectorError {
    let actual = vector.children.len();
    VectorError::ChildCount { expected, actual }
}

fn assembled<A: Array + 'static>(array: Result<A, ArrowError>) -> Decoded {
    Ok(Arc::new(array.map_err(assembly)?))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn assembly(error: ArrowError) -> VectorError {
    VectorError::Assembly {
        message: error.to_string(),
    }
}
