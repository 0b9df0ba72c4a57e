//! Variable-width values: an offsets vector, then the data.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryArray, Decimal128Array},
    buffer::{NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::DataType,
};
use protos::common::MinorType;

use super::{
    fixed::scalars,
    text,
    vector::{Decoded, Vector},
};
use crate::{
    checked::{self, Region},
    decimal,
    error::VectorError,
    names,
};

pub(super) fn array(
    vector: &Vector<'_>,
    data_type: &DataType,
    nulls: Option<NullBuffer>,
    mut body: Region<'_>,
) -> Decoded {
    let [offsets] = vector.children()?;
    let offsets = offsets_of(&Vector::parse(offsets)?, vector.value_count, &mut body)?;
    let data = body;
    expect_end(&offsets, data.len())?;
    Ok(match vector.minor {
        MinorType::Varchar => text::utf8(&offsets, data, nulls.as_ref())?,
        MinorType::Var16char => text::utf16(&offsets, data.bytes(), nulls.as_ref())?,
        MinorType::Vardecimal => decimals(&offsets, data.bytes(), nulls, data_type)?,
        _ => Arc::new(BinaryArray::new(offsets, data.share(), nulls)),
    })
}

/// Takes the offsets of `rows` rows: they start at 0 and never run backwards, also in null rows.
pub(super) fn offsets_of(
    vector: &Vector<'_>,
    rows: usize,
    region: &mut Region<'_>,
) -> Result<OffsetBuffer<i32>, VectorError> {
    vector.expect_helper(names::OFFSETS, MinorType::Uint4, rows + 1)?;
    let offsets = scalars::<i32>(rows + 1, region.take(vector.buffer_length)?)?;
    checked::offsets(offsets).map_err(|row| VectorError::OffsetsBackwards { row })
}

/// The last offset must be `expected`.
pub(super) fn expect_end(offsets: &OffsetBuffer<i32>, expected: usize) -> Result<(), VectorError> {
    let actual = end_of(offsets);
    if actual == expected {
        return Ok(());
    }
    Err(VectorError::OffsetsEnd { expected, actual })
}

/// The last offset.
pub(super) fn end_of(offsets: &OffsetBuffer<i32>) -> usize {
    offsets.last().map_or(0, |&end| index(end))
}

/// An offset that [`offsets_of`] found to be in order.
pub(super) fn index(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

fn decimals(
    offsets: &OffsetBuffer<i32>,
    data: &[u8],
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> Result<ArrayRef, VectorError> {
    let longest = longest(offsets);
    if longest > decimal::I128_BYTES {
        expect_widths(offsets, nulls.as_ref())?;
    }
    let values = ScalarBuffer::from(decimal::read(data, offsets, longest));
    if longest >= decimal::I128_BYTES {
        expect_digits(&values, nulls.as_ref())?;
    }
    let array = Decimal128Array::new(values, nulls).with_data_type(data_type.clone());
    Ok(Arc::new(array))
}

/// The length of the longest row, also of a null one.
fn longest(offsets: &OffsetBuffer<i32>) -> usize {
    let ends = offsets.get(1..).unwrap_or_default();
    let lengths = offsets.iter().zip(ends).map(|(start, end)| end - start);
    index(lengths.fold(0, i32::max))
}

/// No present row may have more bytes than a decimal.
fn expect_widths(
    offsets: &OffsetBuffer<i32>,
    nulls: Option<&NullBuffer>,
) -> Result<(), VectorError> {
    let too_long = |&(row, bytes): &(usize, usize)| {
        bytes > decimal::I128_BYTES && nulls.is_none_or(|nulls| nulls.is_valid(row))
    };
    match offsets.lengths().enumerate().find(too_long) {
        Some((row, bytes)) => Err(VectorError::DecimalWidth { row, bytes }),
        None => Ok(()),
    }
}

/// No present value may have more digits than a decimal, which 16 bytes can.
fn expect_digits(values: &[i128], nulls: Option<&NullBuffer>) -> Result<(), VectorError> {
    let too_many = |&(row, value): &(usize, &i128)| {
        value.unsigned_abs() >= decimal::LIMIT && nulls.is_none_or(|nulls| nulls.is_valid(row))
    };
    match values.iter().enumerate().find(too_many) {
        Some((row, _)) => Err(VectorError::DecimalDigits { row }),
        None => Ok(()),
    }
}
