//! Random arrays of a given field.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, Decimal128Array, NullArray,
        PrimitiveArray, StringArray,
    },
    buffer::NullBuffer,
    datatypes::{
        DataType, Date64Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
        Int64Type, IntervalDayTime, IntervalDayTimeType, IntervalMonthDayNano,
        IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, Time32MillisecondType,
        TimeUnit, TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use protos::common::MinorType;
use rand::{Rng, distr::StandardUniform, prelude::Distribution, rngs::StdRng};
use record_batch::metadata;

/// Fields of every scalar type that comes back as it is.
pub(crate) fn scalars(name: &str, nullable: bool) -> Vec<Field> {
    let field = |data_type| Field::new(name, data_type, nullable);
    let asked = |data_type, minor: MinorType| {
        let minor = minor.as_str_name().to_owned();
        field(data_type).with_metadata([(metadata::MINOR_TYPE.to_owned(), minor)].into())
    };
    let plain = [
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Boolean,
        DataType::Date64,
        DataType::Time32(TimeUnit::Millisecond),
        DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Interval(IntervalUnit::YearMonth),
        DataType::Interval(IntervalUnit::DayTime),
        DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Utf8,
        DataType::Binary,
        DataType::Decimal128(38, 5),
        DataType::Decimal128(9, 2),
    ];
    let mut fields: Vec<_> = plain.into_iter().map(field).collect();
    fields.extend([
        asked(DataType::Int8, MinorType::Tinyint),
        asked(DataType::Int16, MinorType::Smallint),
        asked(DataType::UInt8, MinorType::Uint1),
        asked(DataType::UInt16, MinorType::Uint2),
        asked(DataType::UInt32, MinorType::Uint4),
        asked(DataType::UInt64, MinorType::Uint8),
        asked(DataType::Utf8, MinorType::Var16char),
        asked(DataType::Null, MinorType::Null).with_nullable(true),
    ]);
    fields
}

/// `rows` random values for `field`, three in ten of them null if it is nullable.
pub(crate) fn array(field: &Field, rows: usize, random: &mut StdRng) -> ArrayRef {
    let nulls: Option<NullBuffer> = field
        .is_nullable()
        .then(|| (0..rows).map(|_| random.random_bool(0.7)).collect());
    values(field.data_type(), rows, nulls, random)
}

fn values(
    data_type: &DataType,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    match *data_type {
        DataType::Int8 => primitive::<Int8Type>(rows, nulls, random),
        DataType::Int16 => primitive::<Int16Type>(rows, nulls, random),
        DataType::Int32 => primitive::<Int32Type>(rows, nulls, random),
        DataType::Int64 => primitive::<Int64Type>(rows, nulls, random),
        DataType::UInt8 => primitive::<UInt8Type>(rows, nulls, random),
        DataType::UInt16 => primitive::<UInt16Type>(rows, nulls, random),
        DataType::UInt32 => primitive::<UInt32Type>(rows, nulls, random),
        DataType::UInt64 => primitive::<UInt64Type>(rows, nulls, random),
        DataType::Float32 => primitive::<Float32Type>(rows, nulls, random),
        DataType::Float64 => primitive::<Float64Type>(rows, nulls, random),
        DataType::Date64 => primitive::<Date64Type>(rows, nulls, random),
        DataType::Time32(_) => primitive::<Time32MillisecondType>(rows, nulls, random),
        DataType::Timestamp(..) => primitive::<TimestampMillisecondType>(rows, nulls, random),
        DataType::Interval(unit) => interval(unit, rows, nulls, random),
        DataType::Decimal128(precision, scale) => {
            let values = (0..rows).map(|_| decimal(precision, random)).collect();
            let array = Decimal128Array::new(values, nulls);
            Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
        }
        DataType::Boolean => {
            let values = (0..rows).map(|_| random.random::<bool>()).collect();
            Arc::new(BooleanArray::new(values, nulls))
        }
        DataType::Utf8 => {
            let texts = (0..rows).map(|row| present(nulls.as_ref(), row).then(|| text(random)));
            Arc::new(texts.collect::<StringArray>())
        }
        DataType::Binary => {
            let bytes = (0..rows).map(|row| present(nulls.as_ref(), row).then(|| bytes(random)));
            Arc::new(bytes.collect::<BinaryArray>())
        }
        DataType::Null => Arc::new(NullArray::new(rows)),
        ref other => unimplemented!("{other}"),
    }
}

fn primitive<T: ArrowPrimitiveType>(
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

fn interval(
    unit: IntervalUnit,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    match unit {
        IntervalUnit::YearMonth => primitive::<IntervalYearMonthType>(rows, nulls, random),
        IntervalUnit::DayTime => filled::<IntervalDayTimeType>(rows, nulls, || {
            IntervalDayTime::new(random.random(), random.random())
        }),
        IntervalUnit::MonthDayNano => filled::<IntervalMonthDayNanoType>(rows, nulls, || {
            let millis = i64::from(random.random::<i32>());
            IntervalMonthDayNano::new(random.random(), random.random(), millis * 1_000_000)
        }),
    }
}

/// Decimals of all lengths.
fn decimal(precision: u8, random: &mut StdRng) -> i128 {
    let limit = 10_i128.pow(random.random_range(0..=precision.into()));
    random.random_range(-limit + 1..limit)
}

fn text(random: &mut StdRng) -> String {
    let len = random.random_range(0..20);
    (0..len).map(|_| random.random::<char>()).collect()
}

fn bytes(random: &mut StdRng) -> Vec<u8> {
    let len = random.random_range(0..40);
    (0..len).map(|_| random.random()).collect()
}

fn present(nulls: Option<&NullBuffer>, row: usize) -> bool {
    nulls.is_none_or(|nulls| nulls.is_valid(row))
}
