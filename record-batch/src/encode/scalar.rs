//! Scalar vectors: validity as bytes, then the values.
// wire: golden/user/types

use arrow::{
    array::{Array, ArrayRef, AsArray},
    buffer::{Buffer, NullBuffer},
    datatypes::{
        DataType, IntervalDayTimeType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    },
};
use protos::{
    common::{DataMode, MinorType},
    shared::SerializedField,
};

use super::{decimals, plan::Plan, variable};
use crate::{
    body::{Body, descriptor, helper},
    error::EncodeProblem,
    names,
    time::{MILLIS_PER_DAY, NANOS_PER_MILLI},
    validity,
};

/// Writes a column whose array has the wire's form.
pub(super) fn write(
    plan: &Plan,
    array: &ArrayRef,
    outer: Option<&NullBuffer>,
    body: &mut Body,
) -> Result<SerializedField, EncodeProblem> {
    if plan.drill.minor == MinorType::Null {
        return Ok(descriptor(
            &plan.name,
            &plan.drill,
            array.len(),
            0,
            Vec::new(),
        ));
    }
    let nulls = NullBuffer::union(outer, array.logical_nulls().as_ref());
    let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
    if plan.nullable || nulls.is_some() {
        optional(plan, array, nulls.as_ref(), body)
    } else {
        values(plan, DataMode::Required, array, None, body)
    }
}

fn optional(
    plan: &Plan,
    array: &ArrayRef,
    nulls: Option<&NullBuffer>,
    body: &mut Body,
) -> Result<SerializedField, EncodeProblem> {
    let start = body.len();
    let bits = bits(array.len(), nulls, body);
    let mode = DataMode::Optional;
    let values = values(plan, mode, array, nulls, body)?;
    let (name, drill, len) = (&plan.name, plan.drill.with_mode(mode), body.len() - start);
    Ok(descriptor(
        name,
        &drill,
        array.len(),
        len,
        vec![bits, values],
    ))
}

/// Writes a `$bits$` vector.
pub(super) fn bits(rows: usize, nulls: Option<&NullBuffer>, body: &mut Body) -> SerializedField {
    body.push_vec(nulls.map_or_else(|| vec![1; rows], validity::unpack));
    helper(names::BITS, MinorType::Uint1, rows, rows)
}

fn values(
    plan: &Plan,
    mode: DataMode,
    array: &ArrayRef,
    nulls: Option<&NullBuffer>,
    body: &mut Body,
) -> Result<SerializedField, EncodeProblem> {
    let start = body.len();
    let offsets = buffers(plan, array, nulls, body)?;
    let (drill, len) = (plan.drill.with_mode(mode), body.len() - start);
    let children = offsets.into_iter().collect();
    Ok(descriptor(&plan.name, &drill, array.len(), len, children))
}

/// Writes the values; the descriptor of their offsets comes back if they have any.
fn buffers(
    plan: &Plan,
    array: &ArrayRef,
    nulls: Option<&NullBuffer>,
    body: &mut Body,
) -> Result<Option<SerializedField>, EncodeProblem> {
    let minor = plan.drill.minor;
    match minor {
        MinorType::Varchar | MinorType::Varbinary | MinorType::Var16char => {
            return variable::bytes(minor, array, nulls, body).map(Some);
        }
        MinorType::Vardecimal => return decimals::write(array, nulls, body).map(Some),
        _ => (),
    }
    match array.data_type() {
        DataType::Boolean => body.push(&bools(array)),
        // Null slots are nobody's business; the width is what counts.
        DataType::Null => body.push_zeros(array.len() * size_of::<i32>()),
        DataType::Interval(IntervalUnit::DayTime) => interval_day(array, body),
        DataType::Interval(IntervalUnit::MonthDayNano) => interval(array, nulls, body)?,
        data_type => body.push(&fixed(array, data_type)),
    }
    Ok(None)
}

/// The values of a primitive array, as they are in memory.
fn fixed(array: &ArrayRef, data_type: &DataType) -> Buffer {
    let width = data_type.primitive_width().unwrap_or(0);
    let data = array.to_data();
    data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width)
}

fn bools(array: &ArrayRef) -> Buffer {
    let bits = array.as_boolean().values().sliced();
    bits.slice_with_length(0, array.len().div_ceil(8))
}

/// wire: days, milliseconds, four unused bytes
fn interval_day(array: &ArrayRef, body: &mut Body) {
    let values = array.as_primitive::<IntervalDayTimeType>().values();
    let words = values
        .iter()
        .map(|value| [value.days, value.milliseconds, 0]);
    body.push_vec(slots(words, values.len()));
}

/// wire: months, days, milliseconds, four unused bytes
fn interval(
    array: &ArrayRef,
    nulls: Option<&NullBuffer>,
    body: &mut Body,
) -> Result<(), EncodeProblem> {
    let values = array.as_primitive::<IntervalMonthDayNanoType>().values();
    let misfit = |row: &usize| nulls.is_none_or(|nulls| nulls.is_valid(*row));
    let mut misfits = values
        .iter()
        .enumerate()
        .filter(|(_, v)| interval_words(v).is_none());
    if let Some((row, _)) = misfits.find(|(row, _)| misfit(row)) {
        let minor = MinorType::Interval;
        return Err(EncodeProblem::OutOfRange { row, minor });
    }
    let words = values
        .iter()
        .map(|value| interval_words(value).unwrap_or_default());
    body.push_vec(slots(words, values.len()));
    Ok(())
}

/// Milliseconds beyond Drill's 32 bits become days of 24 hours, as Drill counts them.
fn interval_words(value: &IntervalMonthDayNano) -> Option<[i32; 4]> {
    let millis = value.nanoseconds / NANOS_PER_MILLI;
    if let Ok(millis) = i32::try_from(millis) {
        return Some([value.months, value.days, millis, 0]);
    }
    let days = value
        .days
        .checked_add(i32::try_from(millis / MILLIS_PER_DAY).ok()?)?;
    Some([
        value.months,
        days,
        i32::try_from(millis % MILLIS_PER_DAY).ok()?,
        0,
    ])
}

fn slots<const WORDS: usize>(slots: impl Iterator<Item = [i32; WORDS]>, n: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(n * WORDS * 4);
    for words in slots {
        for word in words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    bytes
}
