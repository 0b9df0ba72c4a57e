//! Random arrays of a given field.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, Decimal128Array,
        ListArray, MapArray, NullArray, PrimitiveArray, StringArray, StructArray,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{
        DataType, Date64Type, Field, Fields, Float32Type, Float64Type, Int8Type, Int16Type,
        Int32Type, Int64Type, IntervalDayTime, IntervalDayTimeType, IntervalMonthDayNano,
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

/// A random field of any type that comes back as it is, nested at most `depth` levels.
pub(crate) fn field(name: &str, depth: usize, random: &mut StdRng) -> Field {
    if depth == 0 || random.random_bool(0.4) {
        return scalar(name, random.random(), random);
    }
    match random.random_range(0..4) {
        0 => {
            let count = random.random_range(0..4);
            let members = (0..count)
                .map(|at| field(&format!("m{at}"), depth - 1, random))
                .collect();
            Field::new(name, DataType::Struct(members), false)
        }
        1 => Field::new(
            name,
            DataType::List(Arc::new(item(depth - 1, random))),
            false,
        ),
        2 => nullable_list(name, depth - 1, random),
        _ => {
            let entries = Fields::from(vec![
                scalar("key", false, random),
                field("value", depth - 1, random),
            ]);
            let entries = Field::new("entries", DataType::Struct(entries), false);
            Field::new(name, DataType::Map(Arc::new(entries), false), false)
        }
    }
}

fn scalar(name: &str, nullable: bool, random: &mut StdRng) -> Field {
    loop {
        let fields = scalars(name, nullable);
        let field = fields[random.random_range(0..fields.len())].clone();
        if nullable || !field.is_nullable() {
            return field;
        }
    }
}

/// An element that cannot be null.
fn item(depth: usize, random: &mut StdRng) -> Field {
    loop {
        let item = field(Field::LIST_FIELD_DEFAULT_NAME, depth, random);
        if !item.is_nullable() {
            return item;
        }
    }
}

/// A LIST: its scalars are always nullable, and arrays inside are LISTs too.
fn nullable_list(name: &str, depth: usize, random: &mut StdRng) -> Field {
    let item_name = Field::LIST_FIELD_DEFAULT_NAME;
    let item = match random.random_range(0..3) {
        0 if depth > 0 => nullable_list(item_name, depth - 1, random),
        1 if depth > 0 => {
            let members = Fields::from(vec![field("m", depth - 1, random)]);
            Field::new(item_name, DataType::Struct(members), false)
        }
        _ => scalar(item_name, true, random),
    };
    Field::new(name, DataType::List(Arc::new(item)), true)
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
        DataType::Struct(ref fields) => {
            let columns = fields
                .iter()
                .map(|field| array(field, rows, random))
                .collect();
            let members = StructArray::try_new_with_length(fields.clone(), columns, nulls, rows);
            Arc::new(members.unwrap())
        }
        DataType::List(ref item) => {
            let offsets = offsets(rows, random);
            let elements = array(item, elements(&offsets), random);
            Arc::new(ListArray::new(item.clone(), offsets, elements, nulls))
        }
        DataType::Map(ref entries, _) => {
            let offsets = offsets(rows, random);
            let pairs = array(entries, elements(&offsets), random);
            let pairs = pairs.as_struct().clone();
            Arc::new(MapArray::new(entries.clone(), offsets, pairs, nulls, false))
        }
        ref other => panic!("no random values of {other}"),
    }
}

fn offsets(rows: usize, random: &mut StdRng) -> OffsetBuffer<i32> {
    OffsetBuffer::from_lengths((0..rows).map(|_| random.random_range(0..4)))
}

fn elements(offsets: &OffsetBuffer<i32>) -> usize {
    usize::try_from(*offsets.last().unwrap()).unwrap()
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
