//! Arrow arrays in the form that the wire has: dictionaries and runs expanded, integers widened,
//! times in milliseconds. What has that form already comes back as it is.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray},
    compute::{cast, take},
    datatypes::{
        DataType, Date32Type, Date64Type, DurationMicrosecondType, DurationMillisecondType,
        DurationNanosecondType, DurationSecondType, Int64Type, IntervalDayTime,
        IntervalDayTimeType, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
        Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType, TimestampSecondType, UInt64Type,
    },
};
use protos::common::MinorType;

use crate::{
    error::EncodeProblem,
    time::{MICROS_PER_MILLI, MILLIS_PER_DAY, MILLIS_PER_SECOND, NANOS_PER_MILLI},
};

/// The values behind dictionaries and runs, one per row.
pub(super) fn expand(array: &ArrayRef) -> Result<ArrayRef, EncodeProblem> {
    match array.data_type() {
        // Not a cast, which some types of values do not have.
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            Ok(take(
                &expand(dictionary.values())?,
                dictionary.keys(),
                None,
            )?)
        }
        DataType::RunEndEncoded(_, values) => expand(&cast(array, values.data_type())?),
        _ => Ok(array.clone()),
    }
}

/// A plain `array` in a form that the vectors of `minor` are written from.
pub(super) fn to_wire_form(array: &ArrayRef, minor: MinorType) -> Result<ArrayRef, EncodeProblem> {
    match array.data_type() {
        DataType::Date32 | DataType::Time32(_) | DataType::Time64(_) => time_of_day(array),
        DataType::Timestamp(unit, _) => timestamp(array, *unit),
        DataType::Duration(unit) => duration(array, *unit),
        _ => integer(array, minor),
    }
}

/// Every value of the narrower types has a place in the wider one, so the cast cannot lose any.
fn integer(array: &ArrayRef, minor: MinorType) -> Result<ArrayRef, EncodeProblem> {
    let wire = match minor {
        MinorType::Smallint => DataType::Int16,
        MinorType::Int if *array.data_type() != DataType::Null => DataType::Int32,
        MinorType::Float4 => DataType::Float32,
        MinorType::Bigint if *array.data_type() == DataType::UInt64 => {
            return unsigned(array.as_primitive());
        }
        MinorType::Bigint => DataType::Int64,
        _ => return Ok(array.clone()),
    };
    Ok(cast(array, &wire)?)
}

fn unsigned(array: &PrimitiveArray<UInt64Type>) -> Result<ArrayRef, EncodeProblem> {
    checked::<_, Int64Type>(array, MinorType::Bigint, |value| i64::try_from(value).ok())
}

fn time_of_day(array: &ArrayRef) -> Result<ArrayRef, EncodeProblem> {
    let time = MinorType::Time;
    match array.data_type() {
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>();
            Ok(Arc::new(days.unary::<_, Date64Type>(|day| {
                i64::from(day) * MILLIS_PER_DAY
            })))
        }
        DataType::Time32(TimeUnit::Second) => checked::<_, Time32MillisecondType>(
            array.as_primitive::<Time32SecondType>(),
            time,
            |second| i32::try_from(i64::from(second) * MILLIS_PER_SECOND).ok(),
        ),
        DataType::Time64(TimeUnit::Microsecond) => checked::<_, Time32MillisecondType>(
            array.as_primitive::<Time64MicrosecondType>(),
            time,
            |micro| i32::try_from(micro.div_euclid(MICROS_PER_MILLI)).ok(),
        ),
        DataType::Time64(TimeUnit::Nanosecond) => checked::<_, Time32MillisecondType>(
            array.as_primitive::<Time64NanosecondType>(),
            time,
            |nano| i32::try_from(nano.div_euclid(NANOS_PER_MILLI)).ok(),
        ),
        _ => Ok(array.clone()),
    }
}

/// A zone is dropped: the wall clock that the reader sees is UTC's.
fn timestamp(array: &ArrayRef, unit: TimeUnit) -> Result<ArrayRef, EncodeProblem> {
    type Millis = TimestampMillisecondType;
    Ok(match unit {
        TimeUnit::Second => {
            let seconds = array.as_primitive::<TimestampSecondType>();
            return checked::<_, Millis>(seconds, MinorType::Timestamp, |second| {
                second.checked_mul(MILLIS_PER_SECOND)
            });
        }
        TimeUnit::Millisecond => Arc::new(
            array
                .as_primitive::<Millis>()
                .clone()
                .with_timezone_opt(None::<Arc<str>>),
        ),
        TimeUnit::Microsecond => {
            let micros = array.as_primitive::<TimestampMicrosecondType>();
            Arc::new(micros.unary::<_, Millis>(|micro| micro.div_euclid(MICROS_PER_MILLI)))
        }
        TimeUnit::Nanosecond => {
            let nanos = array.as_primitive::<TimestampNanosecondType>();
            Arc::new(nanos.unary::<_, Millis>(|nano| nano.div_euclid(NANOS_PER_MILLI)))
        }
    })
}

fn duration(array: &ArrayRef, unit: TimeUnit) -> Result<ArrayRef, EncodeProblem> {
    match unit {
        TimeUnit::Second => days_and_millis(array.as_primitive::<DurationSecondType>(), |second| {
            second.checked_mul(MILLIS_PER_SECOND)
        }),
        TimeUnit::Millisecond => {
            days_and_millis(array.as_primitive::<DurationMillisecondType>(), Some)
        }
        TimeUnit::Microsecond => {
            days_and_millis(array.as_primitive::<DurationMicrosecondType>(), |micro| {
                Some(micro / MICROS_PER_MILLI)
            })
        }
        TimeUnit::Nanosecond => {
            days_and_millis(array.as_primitive::<DurationNanosecondType>(), |nano| {
                Some(nano / NANOS_PER_MILLI)
            })
        }
    }
}

fn days_and_millis<T: ArrowPrimitiveType<Native = i64>>(
    array: &PrimitiveArray<T>,
    millis: impl Fn(i64) -> Option<i64>,
) -> Result<ArrayRef, EncodeProblem> {
    checked::<_, IntervalDayTimeType>(array, MinorType::Intervalday, |value| {
        let millis = millis(value)?;
        Some(IntervalDayTime {
            days: i32::try_from(millis / MILLIS_PER_DAY).ok()?,
            milliseconds: i32::try_from(millis % MILLIS_PER_DAY).ok()?,
        })
    })
}

/// Converts the present values; the first that does not fit is named by its row.
fn checked<S: ArrowPrimitiveType, T: ArrowPrimitiveType>(
    array: &PrimitiveArray<S>,
    minor: MinorType,
    convert: impl Fn(S::Native) -> Option<T::Native>,
) -> Result<ArrayRef, EncodeProblem> {
    let converted = array.try_unary::<_, T, ()>(|value| convert(value).ok_or(()));
    converted
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(|()| {
            let misfit = array
                .iter()
                .position(|value| value.is_some_and(|v| convert(v).is_none()));
            EncodeProblem::OutOfRange {
                row: misfit.unwrap_or(0),
                minor,
            }
        })
}
