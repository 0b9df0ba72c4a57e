//! Fixed-width values: slices of the body where they are aligned, and the few types whose Arrow
//! form has another stride.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, ArrowPrimitiveType, BooleanArray, NullArray, PrimitiveArray},
    buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer},
    datatypes::{
        ArrowNativeType, DataType, Date64Type, Float32Type, Float64Type, Int8Type, Int16Type,
        Int32Type, Int64Type, IntervalDayTime, IntervalDayTimeType, IntervalMonthDayNano,
        IntervalMonthDayNanoType, IntervalYearMonthType, Time32MillisecondType,
        TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use protos::common::MinorType;

use super::{
    legacy,
    vector::{Vector, sized},
};
use crate::{checked::Region, error::VectorError, time::NANOS_PER_MILLI};

/// Whether the type's values all take the same room.
pub(super) fn is_fixed(minor: MinorType) -> bool {
    !matches!(
        minor,
        MinorType::Varchar | MinorType::Var16char | MinorType::Varbinary | MinorType::Vardecimal
    )
}

pub(super) fn array(
    vector: &Vector<'_>,
    data_type: &DataType,
    nulls: Option<NullBuffer>,
    body: Region<'_>,
) -> Result<ArrayRef, VectorError> {
    let n = vector.value_count;
    match vector.minor {
        MinorType::Tinyint => primitive::<Int8Type>(n, nulls, body),
        MinorType::Smallint => primitive::<Int16Type>(n, nulls, body),
        MinorType::Int => primitive::<Int32Type>(n, nulls, body),
        MinorType::Bigint => primitive::<Int64Type>(n, nulls, body),
        MinorType::Uint1 => primitive::<UInt8Type>(n, nulls, body),
        MinorType::Uint2 => primitive::<UInt16Type>(n, nulls, body),
        MinorType::Uint4 => primitive::<UInt32Type>(n, nulls, body),
        MinorType::Uint8 => primitive::<UInt64Type>(n, nulls, body),
        MinorType::Float4 => primitive::<Float32Type>(n, nulls, body),
        MinorType::Float8 => primitive::<Float64Type>(n, nulls, body),
        MinorType::Date => primitive::<Date64Type>(n, nulls, body),
        MinorType::Time => primitive::<Time32MillisecondType>(n, nulls, body),
        MinorType::Timestamp => primitive::<TimestampMillisecondType>(n, nulls, body),
        MinorType::Intervalyear => primitive::<IntervalYearMonthType>(n, nulls, body),
        MinorType::Intervalday => interval_day(n, nulls, body),
        MinorType::Interval => interval(n, nulls, body),
        MinorType::Bit => bits(n, nulls, body),
        MinorType::Null => untyped(n, body),
        _ => legacy::decimal(vector, data_type, nulls, body),
    }
}

fn primitive<T: ArrowPrimitiveType>(
    n: usize,
    nulls: Option<NullBuffer>,
    body: Region<'_>,
) -> Result<ArrayRef, VectorError> {
    let values = scalars::<T::Native>(n, body)?;
    Ok(Arc::new(PrimitiveArray::<T>::new(values, nulls)))
}

/// `n` values of `T`, shared with the body where they are aligned.
pub(super) fn scalars<T: ArrowNativeType>(
    n: usize,
    body: Region<'_>,
) -> Result<ScalarBuffer<T>, VectorError> {
    let body = sized(n.saturating_mul(size_of::<T>()), body)?;
    let is_aligned = body.bytes().as_ptr().align_offset(align_of::<T>()) == 0;
    if is_aligned {
        return Ok(ScalarBuffer::from(body.share()));
    }
    Ok(ScalarBuffer::new(aligned(body.bytes()), 0, n))
}

/// A copy, aligned for any value of up to eight bytes. As words: Arrow's own copy asks the allocator for an alignment of
/// 64 bytes, which takes longer than copying a small column.
fn aligned(bytes: &[u8]) -> Buffer {
    const { assert!(align_of::<u64>() == size_of::<u64>()) };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut copied = Vec::with_capacity(bytes.len().div_ceil(8));
    copied.extend(words.iter().map(|&word| u64::from_le_bytes(word)));
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        copied.push(u64::from_le_bytes(word));
    }
    Buffer::from_vec(copied)
}

fn bits(n: usize, nulls: Option<NullBuffer>, body: Region<'_>) -> Result<ArrayRef, VectorError> {
    let body = sized(n.div_ceil(8), body)?;
    let values = BooleanBuffer::new(body.share(), 0, n);
    Ok(Arc::new(BooleanArray::new(values, nulls)))
}

/// wire: no buffers; a count is all there is
fn untyped(n: usize, body: Region<'_>) -> Result<ArrayRef, VectorError> {
    sized(0, body)?;
    Ok(Arc::new(NullArray::new(n)))
}

/// wire: days, milliseconds, four unused bytes
fn interval_day(
    n: usize,
    nulls: Option<NullBuffer>,
    body: Region<'_>,
) -> Result<ArrayRef, VectorError> {
    let body = sized(n.saturating_mul(12), body)?;
    let (slots, _) = body.bytes().as_chunks::<12>();
    let values = slots.iter().map(|slot| {
        let [days, milliseconds, _] = ints(slot);
        IntervalDayTime { days, milliseconds }
    });
    let values = values.collect();
    Ok(Arc::new(PrimitiveArray::<IntervalDayTimeType>::new(
        values, nulls,
    )))
}

/// wire: months, days, milliseconds, four unused bytes
fn interval(
    n: usize,
    nulls: Option<NullBuffer>,
    body: Region<'_>,
) -> Result<ArrayRef, VectorError> {
    let body = sized(n.saturating_mul(16), body)?;
    let (slots, _) = body.bytes().as_chunks::<16>();
    let values = slots.iter().map(|slot| {
        let [months, days, milliseconds, _] = ints(slot);
        let nanoseconds = i64::from(milliseconds) * NANOS_PER_MILLI;
        IntervalMonthDayNano {
            months,
            days,
            nanoseconds,
        }
    });
    let values = values.collect();
    Ok(Arc::new(PrimitiveArray::<IntervalMonthDayNanoType>::new(
        values, nulls,
    )))
}

/// The little-endian words of a slot.
pub(super) fn ints<const BYTES: usize, const WORDS: usize>(slot: &[u8; BYTES]) -> [i32; WORDS] {
    const { assert!(BYTES == WORDS * 4) };
    let (words, _) = slot.as_chunks::<4>();
    std::array::from_fn(|word| i32::from_le_bytes(words[word]))
}
