//! Arrays of fixed width, with values in the ranges that Drill has for them.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray},
    buffer::NullBuffer,
    compute::cast,
    datatypes::{
        DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type,
        Decimal256Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
        DurationSecondType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        IntervalDayTime, IntervalDayTimeType, IntervalMonthDayNano, IntervalMonthDayNanoType,
        IntervalUnit, IntervalYearMonthType, Time32MillisecondType, Time32SecondType,
        Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
        TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
        UInt16Type, UInt32Type, UInt64Type, i256,
    },
};
use rand::{Rng, distr::StandardUniform, prelude::Distribution, rngs::StdRng};

const MILLIS_PER_DAY: i64 = 86_400_000;
/// From 1700 to 2200, which nanoseconds since 1970 can say too.
const DAYS: std::ops::Range<i32> = -98_000..84_000;

/// Values of a type of fixed width; `None` for any other type.
pub(crate) fn numbers(
    data_type: &DataType,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> Option<ArrayRef> {
    Some(match *data_type {
        DataType::Int8 => any::<Int8Type>(rows, nulls, random),
        DataType::Int16 => any::<Int16Type>(rows, nulls, random),
        DataType::Int32 => any::<Int32Type>(rows, nulls, random),
        DataType::Int64 => any::<Int64Type>(rows, nulls, random),
        DataType::UInt8 => any::<UInt8Type>(rows, nulls, random),
        DataType::UInt16 => any::<UInt16Type>(rows, nulls, random),
        DataType::UInt32 => any::<UInt32Type>(rows, nulls, random),
        // Above that a value is refused.
        DataType::UInt64 => filled::<UInt64Type>(rows, nulls, || random.random::<u64>() >> 1),
        // The least significant bits are rounded away.
        DataType::Float16 => {
            let halves = filled::<Float32Type>(rows, nulls, || random.random_range(-9e4..9e4));
            cast(&halves, data_type).expect("floats are cast")
        }
        DataType::Float32 => filled::<Float32Type>(rows, nulls, || f32::from_bits(random.random())),
        DataType::Float64 => filled::<Float64Type>(rows, nulls, || f64::from_bits(random.random())),
        DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => {
            days_and_times(data_type, rows, nulls, random)
        }
        DataType::Timestamp(..) => timestamps(data_type, rows, nulls, random),
        DataType::Duration(unit) => durations(unit, rows, nulls, random),
        DataType::Interval(unit) => intervals(unit, rows, nulls, random),
        _ => return decimals(data_type, rows, nulls, random),
    })
}

fn any<T: ArrowPrimitiveType>(
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef
where
    StandardUniform: Distribution<T::Native>,
{
    filled::<T>(rows, nulls, || random.random())
}

fn filled<T: ArrowPrimitiveType>(
    rows: usize,
    nulls: Option<NullBuffer>,
    value: impl FnMut() -> T::Native,
) -> ArrayRef {
    let values = std::iter::repeat_with(value).take(rows).collect();
    Arc::new(PrimitiveArray::<T>::new(values, nulls))
}

fn days_and_times(
    data_type: &DataType,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    let mut day = || random.random_range(DAYS);
    match data_type {
        DataType::Date32 => filled::<Date32Type>(rows, nulls, day),
        DataType::Date64 => filled::<Date64Type>(rows, nulls, || i64::from(day()) * MILLIS_PER_DAY),
        DataType::Time32(TimeUnit::Second) => {
            filled::<Time32SecondType>(rows, nulls, || random.random_range(0..86_400))
        }
        DataType::Time32(_) => {
            filled::<Time32MillisecondType>(rows, nulls, || random.random_range(0..86_400_000))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            filled::<Time64MicrosecondType>(rows, nulls, || random.random_range(0..86_400_000_000))
        }
        _ => filled::<Time64NanosecondType>(rows, nulls, || {
            random.random_range(0..86_400_000_000_000)
        }),
    }
}

fn timestamps(
    data_type: &DataType,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    let mut nanos = || {
        i64::from(random.random_range(DAYS)) * MILLIS_PER_DAY * 1_000_000
            + random.random_range(0..MILLIS_PER_DAY * 1_000_000)
    };
    let DataType::Timestamp(unit, zone) = data_type else {
        unreachable!("called for timestamps");
    };
    let zone = zone.clone();
    match unit {
        TimeUnit::Second => {
            zoned::<TimestampSecondType>(rows, nulls, zone, || nanos() / 1_000_000_000)
        }
        TimeUnit::Millisecond => {
            zoned::<TimestampMillisecondType>(rows, nulls, zone, || nanos() / 1_000_000)
        }
        TimeUnit::Microsecond => {
            zoned::<TimestampMicrosecondType>(rows, nulls, zone, || nanos() / 1000)
        }
        TimeUnit::Nanosecond => zoned::<TimestampNanosecondType>(rows, nulls, zone, nanos),
    }
}

fn zoned<T: arrow::datatypes::ArrowTimestampType>(
    rows: usize,
    nulls: Option<NullBuffer>,
    zone: Option<Arc<str>>,
    value: impl FnMut() -> i64,
) -> ArrayRef {
    let values = std::iter::repeat_with(value).take(rows).collect();
    Arc::new(PrimitiveArray::<T>::new(values, nulls).with_timezone_opt(zone))
}

fn durations(
    unit: TimeUnit,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    let mut seconds = || random.random_range(-1_000_000_000_i64..1_000_000_000);
    match unit {
        TimeUnit::Second => filled::<DurationSecondType>(rows, nulls, seconds),
        TimeUnit::Millisecond => {
            filled::<DurationMillisecondType>(rows, nulls, || seconds() * 1000 + seconds() % 1000)
        }
        TimeUnit::Microsecond => filled::<DurationMicrosecondType>(rows, nulls, || {
            seconds() * 1_000_000 + seconds() % 1_000_000
        }),
        TimeUnit::Nanosecond => filled::<DurationNanosecondType>(rows, nulls, || {
            seconds() * 1_000_000_000 + seconds() % 1_000_000_000
        }),
    }
}

fn intervals(
    unit: IntervalUnit,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    match unit {
        IntervalUnit::YearMonth => any::<IntervalYearMonthType>(rows, nulls, random),
        IntervalUnit::DayTime => filled::<IntervalDayTimeType>(rows, nulls, || {
            IntervalDayTime::new(random.random(), random.random())
        }),
        IntervalUnit::MonthDayNano => filled::<IntervalMonthDayNanoType>(rows, nulls, || {
            let nanos = i64::from(random.random::<i32>()) * 1_000_000;
            IntervalMonthDayNano::new(
                random.random(),
                random.random(),
                nanos + random.random_range(0..1_000_000) * nanos.signum(),
            )
        }),
    }
}

fn decimals(
    data_type: &DataType,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> Option<ArrayRef> {
    let mut value = |precision| digits(precision, random);
    Some(match *data_type {
        DataType::Decimal32(precision, scale) => {
            let values = std::iter::repeat_with(|| narrow(value(precision)))
                .take(rows)
                .collect();
            let array = PrimitiveArray::<Decimal32Type>::new(values, nulls);
            typed(array.with_precision_and_scale(precision, scale))
        }
        DataType::Decimal64(precision, scale) => {
            let values = std::iter::repeat_with(|| narrow(value(precision)))
                .take(rows)
                .collect();
            let array = PrimitiveArray::<Decimal64Type>::new(values, nulls);
            typed(array.with_precision_and_scale(precision, scale))
        }
        DataType::Decimal128(precision, scale) => {
            let values = std::iter::repeat_with(|| value(precision))
                .take(rows)
                .collect();
            let array = PrimitiveArray::<Decimal128Type>::new(values, nulls);
            typed(array.with_precision_and_scale(precision, scale))
        }
        DataType::Decimal256(precision, scale) => {
            let wide = || i256::from_i128(value(precision.min(38)));
            let values = std::iter::repeat_with(wide).take(rows).collect();
            let array = PrimitiveArray::<Decimal256Type>::new(values, nulls);
            typed(array.with_precision_and_scale(precision, scale))
        }
        _ => return None,
    })
}

/// A number of any length up to `precision` digits.
fn digits(precision: u8, random: &mut StdRng) -> i128 {
    let limit = 10_i128.pow(random.random_range(0..=precision.into()));
    random.random_range(1 - limit..limit)
}

fn narrow<T: TryFrom<i128>>(value: i128) -> T {
    let narrowed = T::try_from(value).ok();
    narrowed.expect("as many digits as the type has")
}

fn typed<A: Array + 'static>(array: Result<A, arrow::error::ArrowError>) -> ArrayRef {
    Arc::new(array.expect("precision and scale of the field"))
}
