//! VARDECIMAL, as few bytes a row as its value needs.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    buffer::NullBuffer,
    datatypes::{
        DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType,
        UInt64Type, i256,
    },
};
use protos::{common::MinorType, shared::SerializedField};

use super::variable::{Offsets, no_offsets, present};
use crate::{
    body::Body,
    decimal::{self, I64_BYTES, I128_BYTES},
    error::EncodeProblem,
};

/// Writes any of Arrow's decimals, and unsigned integers.
pub(super) fn write(
    array: &ArrayRef,
    nulls: Option<&NullBuffer>,
    body: &mut Body,
) -> Result<SerializedField, EncodeProblem> {
    match *array.data_type() {
        DataType::Decimal32(_, scale) => {
            let values = array.as_primitive::<Decimal32Type>().values();
            scaled(values, nulls, scale, body, |value| Some(value.into()))
        }
        DataType::Decimal64(_, scale) => {
            let values = array.as_primitive::<Decimal64Type>().values();
            scaled(values, nulls, scale, body, |value| Some(value.into()))
        }
        DataType::Decimal256(_, scale) => {
            let values = array.as_primitive::<Decimal256Type>().values();
            scaled(values, nulls, scale, body, i256::to_i128)
        }
        DataType::Decimal128(_, scale) => {
            let values = array.as_primitive::<Decimal128Type>().values();
            scaled(values, nulls, scale, body, Some)
        }
        _ => {
            let values = array.as_primitive::<UInt64Type>().values();
            scaled(values, nulls, 0, body, |value| Some(value.into()))
        }
    }
}

/// A negative scale moves into the value: Drill's scales start at 0.
fn scaled<T: Copy>(
    values: &[T],
    nulls: Option<&NullBuffer>,
    scale: i8,
    body: &mut Body,
    value: impl Fn(T) -> Option<i128>,
) -> Result<SerializedField, EncodeProblem> {
    if values.is_empty() {
        return Ok(no_offsets());
    }
    if scale >= 0 {
        return vardecimals(values, nulls, body, value);
    }
    let factor = 10_i128.pow(scale.unsigned_abs().into());
    vardecimals(values, nulls, body, |stored| {
        value(stored)?.checked_mul(factor)
    })
}

/// Two passes: the lengths, which size the data exactly, then the digits.
fn vardecimals<T: Copy>(
    values: &[T],
    nulls: Option<&NullBuffer>,
    body: &mut Body,
    value: impl Fn(T) -> Option<i128>,
) -> Result<SerializedField, EncodeProblem> {
    let narrow = |stored| value(stored).and_then(|value| i64::try_from(value).ok());
    let (offsets, data) = if are_narrow(values, narrow) {
        let value = |stored| narrow(stored).unwrap_or(0);
        let offsets = narrow_offsets(values, nulls, value);
        let data = narrow_digits(&offsets.0, values, value);
        (offsets, data)
    } else {
        let offsets = wide_offsets(values, nulls, &value)?;
        let data = wide_digits(&offsets.0, values, |stored| value(stored).unwrap_or(0));
        (offsets, data)
    };
    let field = offsets.push(data.len(), body)?;
    body.push_vec(data);
    Ok(field)
}

/// Whether every value, also that of a null row, fits 64 bits: the usual case, which takes no branches.
fn are_narrow<T: Copy>(values: &[T], narrow: impl Fn(T) -> Option<i64>) -> bool {
    let all_fit = || {
        values
            .iter()
            .fold(true, |all, &stored| all & narrow(stored).is_some())
    };
    values.len() <= u32::MAX as usize / I64_BYTES && all_fit()
}

fn narrow_offsets<T: Copy>(
    values: &[T],
    nulls: Option<&NullBuffer>,
    value: impl Fn(T) -> i64,
) -> Offsets {
    let mut offsets = Offsets::with_rows(values.len());
    let mut size = 0;
    let lengths = values.iter().map(|&stored| decimal::len_i64(value(stored)));
    if nulls.is_none() {
        offsets.0.extend(lengths.map(|len| {
            size += len;
            size
        }));
    } else {
        offsets.0.extend(lengths.enumerate().map(|(row, len)| {
            size += len * u32::from(present(nulls, row));
            size
        }));
    }
    offsets
}

/// Every value is written 8 bytes wide, its first byte in its place; the next one writes over the rest. That of a null
/// row is written over altogether.
fn narrow_digits<T: Copy>(offsets: &[u32], values: &[T], value: impl Fn(T) -> i64) -> Vec<u8> {
    let mut data = room(offsets, I64_BYTES);
    for (&[start, end], &stored) in offsets.array_windows().zip(values) {
        let left = value(stored).wrapping_shl(i64::BITS - 8 * (end - start));
        let start = start as usize;
        data[start..start + I64_BYTES].copy_from_slice(&left.to_be_bytes());
    }
    data.truncate(data.len() - I64_BYTES);
    data
}

fn wide_offsets<T: Copy>(
    values: &[T],
    nulls: Option<&NullBuffer>,
    value: impl Fn(T) -> Option<i128>,
) -> Result<Offsets, EncodeProblem> {
    let mut offsets = Offsets::with_rows(values.len());
    let mut size = 0;
    for (row, &stored) in values.iter().enumerate() {
        let fits = value(stored).filter(|value| value.unsigned_abs() < decimal::LIMIT);
        size += match fits {
            _ if !present(nulls, row) => 0,
            Some(value) => decimal::len_i128(value) as usize,
            None => {
                let minor = MinorType::Vardecimal;
                return Err(EncodeProblem::OutOfRange { row, minor });
            }
        };
        offsets.end_row(size);
    }
    Ok(offsets)
}

/// As [`narrow_digits`], 16 bytes wide.
fn wide_digits<T: Copy>(offsets: &[u32], values: &[T], value: impl Fn(T) -> i128) -> Vec<u8> {
    let mut data = room(offsets, I128_BYTES);
    for (&[start, end], &stored) in offsets.array_windows().zip(values) {
        let left = value(stored).wrapping_shl(i128::BITS - 8 * (end - start));
        let start = start as usize;
        data[start..start + I128_BYTES].copy_from_slice(&left.to_be_bytes());
    }
    data.truncate(data.len() - I128_BYTES);
    data
}

/// Room for the data, and for the rest of the last value.
fn room(offsets: &[u32], rest: usize) -> Vec<u8> {
    let size = offsets.last().map_or(0, |&end| end as usize);
    vec![0; size + rest]
}

/// Keeps the widths here and those of Arrow's decimals together.
const _: () = assert!(Decimal128Type::BYTE_LENGTH == I128_BYTES);
