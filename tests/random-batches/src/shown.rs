//! What Drill shows of an Arrow value, as text: `int:7`, `text:"a"`, `[int:1,null]`, `{text:"a"=bool:true}`.
//!
//! Kinds are those of Drill's readers, not of Arrow: every small integer is an `int`, a dictionary is its value. What
//! Drill has no place for is gone: a null struct is one without members, a null map an empty one, and an array whose
//! vector is REPEATED has no null rows.

use std::fmt::Write;

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray},
    compute::cast,
    datatypes::{
        DataType, Date32Type, Date64Type, Decimal256Type, DurationMicrosecondType,
        DurationMillisecondType, DurationNanosecondType, DurationSecondType, Field, Float32Type,
        Float64Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType,
        IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, RunEndIndexType,
        Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
        TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt64Type,
    },
};

const MILLIS_PER_DAY: i64 = 86_400_000;

/// The value of a row of a top-level column.
///
/// # Panics
///
/// There is no such row, or `array` is not of `field`.
#[must_use]
pub fn shown(field: &Field, array: &ArrayRef, row: usize) -> String {
    or_null(value(field, array, row, Place::default()))
}

fn or_null(value: Option<String>) -> String {
    value.unwrap_or_else(|| "null".to_owned())
}

/// Where a value stands.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Directly in a LIST or a UNION, which hold no REPEATED vectors.
    in_list: bool,
    /// In a null struct.
    absent: bool,
}

/// The value, or nothing where it is null.
fn value(field: &Field, array: &ArrayRef, row: usize, place: Place) -> Option<String> {
    let absent = place.absent || array.is_null(row);
    match array.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let field = field
                .clone()
                .with_data_type(dictionary.values().data_type().clone());
            let row = if absent {
                0
            } else {
                dictionary.normalized_keys()[row]
            };
            value(&field, dictionary.values(), row, Place { absent, ..place })
        }
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => of_runs::<Int16Type>(field, array, row, place),
            DataType::Int32 => of_runs::<Int32Type>(field, array, row, place),
            _ => of_runs::<Int64Type>(field, array, row, place),
        },
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter();
            let inside = Place {
                in_list: false,
                absent,
            };
            let members = fields.iter().zip(columns).filter_map(|(member, column)| {
                let value = value(member, column, row, inside)?;
                Some((quoted("text", member.name()), value))
            });
            Some(braces(members))
        }
        DataType::Map(..) => Some(map(array, row, absent)),
        DataType::Union(..) => union(array, row, absent),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => {
            let repeated = is_repeated(field, item, place);
            if absent {
                return repeated.then(|| "[]".to_owned());
            }
            Some(list(item, &elements(array, row), repeated))
        }
        _ if absent => None,
        _ => scalar(array, row),
    }
}

fn of_runs<R: RunEndIndexType>(
    field: &Field,
    array: &ArrayRef,
    row: usize,
    place: Place,
) -> Option<String> {
    let runs = array.as_run_opt::<R>().expect("runs of this type");
    let field = field
        .clone()
        .with_data_type(runs.values().data_type().clone());
    value(&field, runs.values(), runs.get_physical_index(row), place)
}

/// Whether the array's vector is REPEATED: nothing in it can be null.
fn is_repeated(field: &Field, item: &Field, place: Place) -> bool {
    let never_null = !field.is_nullable() && !item.is_nullable();
    never_null && !place.in_list && !is_always_listed(item.data_type())
}

/// Elements that have no REPEATED vector.
fn is_always_listed(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) | DataType::Null => true,
        DataType::Dictionary(_, values) => is_always_listed(values),
        DataType::RunEndEncoded(_, values) => is_always_listed(values.data_type()),
        _ => false,
    }
}

fn elements(array: &ArrayRef, row: usize) -> ArrayRef {
    match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value(row),
        DataType::LargeList(_) => array.as_list::<i64>().value(row),
        DataType::ListView(_) => array.as_list_view::<i32>().value(row),
        DataType::LargeListView(_) => array.as_list_view::<i64>().value(row),
        _ => array.as_fixed_size_list().value(row),
    }
}

fn list(item: &Field, elements: &ArrayRef, repeated: bool) -> String {
    let inside = Place {
        in_list: !repeated,
        absent: false,
    };
    let texts = (0..elements.len()).map(|row| or_null(value(item, elements, row, inside)));
    format!("[{}]", texts.collect::<Vec<_>>().join(","))
}

fn map(array: &ArrayRef, row: usize, absent: bool) -> String {
    if absent {
        return braces(std::iter::empty());
    }
    let entries = array.as_map().value(row);
    let [key, pair_value] = [0, 1].map(|at| {
        let (field, column) = (entries.fields()[at].clone(), entries.column(at).clone());
        move |row| or_null(value(&field, &column, row, Place::default()))
    });
    braces((0..entries.len()).map(|row| (key(row), pair_value(row))))
}

fn braces(pairs: impl Iterator<Item = (String, String)>) -> String {
    let pairs: Vec<_> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
    format!("{{{}}}", pairs.join(","))
}

/// A row whose own type has no value for it is of no type.
fn union(array: &ArrayRef, row: usize, absent: bool) -> Option<String> {
    let union = array.as_union();
    let DataType::Union(fields, _) = array.data_type() else {
        return None;
    };
    let id = union.type_id(row);
    let (_, member) = fields.iter().find(|(other, _)| *other == id)?;
    let (child, at) = (union.child(id), union.value_offset(row));
    if absent || child.is_null(at) {
        return None;
    }
    value(
        member,
        child,
        at,
        Place {
            in_list: true,
            absent: false,
        },
    )
}

fn scalar(array: &ArrayRef, row: usize) -> Option<String> {
    Some(match array.data_type() {
        DataType::Null => return None,
        DataType::Boolean => format!("bool:{}", array.as_boolean().value(row)),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            format!("int:{}", whole(array, row))
        }
        DataType::Int64 | DataType::UInt32 => format!("long:{}", whole(array, row)),
        DataType::UInt64 => format!("long:{}", array.as_primitive::<UInt64Type>().value(row)),
        DataType::Float16 | DataType::Float32 => {
            let value = one(array, row, &DataType::Float32);
            let value = value.as_primitive::<Float32Type>().value(0);
            // Java keeps no payload of those that are no number.
            let bits = if value.is_nan() {
                f32::NAN.to_bits()
            } else {
                value.to_bits()
            };
            format!("float:{bits:08x}")
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            let bits = if value.is_nan() {
                f64::NAN.to_bits()
            } else {
                value.to_bits()
            };
            format!("double:{bits:016x}")
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => quoted(
            "text",
            one(array, row, &DataType::Utf8).as_string::<i32>().value(0),
        ),
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => hex(one(array, row, &DataType::Binary)
            .as_binary::<i32>()
            .value(0)),
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => decimal(array, row),
        _ => time(array, row)?,
    })
}

fn one(array: &ArrayRef, row: usize, data_type: &DataType) -> ArrayRef {
    cast(&array.slice(row, 1), data_type).expect("a cast that loses nothing")
}

fn whole(array: &ArrayRef, row: usize) -> i64 {
    one(array, row, &DataType::Int64)
        .as_primitive::<Int64Type>()
        .value(0)
}

fn quoted(kind: &str, text: &str) -> String {
    format!(
        "{kind}:\"{}\"",
        text.replace('\\', "\\\\").replace('"', "\\\"")
    )
}

fn hex(bytes: &[u8]) -> String {
    let mut text = "bytes:".to_owned();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Digits and a scale of at least 0.
fn decimal(array: &ArrayRef, row: usize) -> String {
    let (DataType::Decimal32(precision, scale)
    | DataType::Decimal64(precision, scale)
    | DataType::Decimal128(precision, scale)
    | DataType::Decimal256(precision, scale)) = *array.data_type()
    else {
        unreachable!("called for decimals");
    };
    let wide = one(array, row, &DataType::Decimal256(precision, scale));
    let digits = wide.as_primitive::<Decimal256Type>().value(0).to_string();
    let zeros = if digits == "0" {
        0
    } else {
        usize::from(scale.min(0).unsigned_abs())
    };
    format!("decimal:{digits}{}e-{}", "0".repeat(zeros), scale.max(0))
}

/// Days, milliseconds, and months where they are of no fixed length.
fn time(array: &ArrayRef, row: usize) -> Option<String> {
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    Some(match array.data_type() {
        DataType::Date32 => format!("date:{}", native::<Date32Type>(array, row)),
        DataType::Date64 => {
            format!(
                "date:{}",
                native::<Date64Type>(array, row).div_euclid(MILLIS_PER_DAY)
            )
        }
        DataType::Time32(Second) => {
            format!(
                "time:{}",
                i64::from(native::<Time32SecondType>(array, row)) * 1000
            )
        }
        DataType::Time32(_) => format!("time:{}", native::<Time32MillisecondType>(array, row)),
        DataType::Time64(Microsecond) => {
            format!(
                "time:{}",
                native::<Time64MicrosecondType>(array, row).div_euclid(1000)
            )
        }
        DataType::Time64(_) => {
            format!(
                "time:{}",
                native::<Time64NanosecondType>(array, row).div_euclid(1_000_000)
            )
        }
        DataType::Timestamp(unit, _) => format!(
            "timestamp:{}",
            match unit {
                Second => native::<TimestampSecondType>(array, row) * 1000,
                Millisecond => native::<TimestampMillisecondType>(array, row),
                Microsecond => native::<TimestampMicrosecondType>(array, row).div_euclid(1000),
                Nanosecond => native::<TimestampNanosecondType>(array, row).div_euclid(1_000_000),
            }
        ),
        DataType::Duration(unit) => {
            let millis = match unit {
                Second => native::<DurationSecondType>(array, row) * 1000,
                Millisecond => native::<DurationMillisecondType>(array, row),
                Microsecond => native::<DurationMicrosecondType>(array, row) / 1000,
                Nanosecond => native::<DurationNanosecondType>(array, row) / 1_000_000,
            };
            interval(0, millis / MILLIS_PER_DAY, millis % MILLIS_PER_DAY)
        }
        DataType::Interval(unit) => match unit {
            IntervalUnit::YearMonth => {
                interval(native::<IntervalYearMonthType>(array, row).into(), 0, 0)
            }
            IntervalUnit::DayTime => {
                let value = native::<IntervalDayTimeType>(array, row);
                interval(0, value.days.into(), value.milliseconds.into())
            }
            IntervalUnit::MonthDayNano => {
                let value = native::<IntervalMonthDayNanoType>(array, row);
                interval(
                    value.months.into(),
                    value.days.into(),
                    value.nanoseconds / 1_000_000,
                )
            }
        },
        _ => return None,
    })
}

fn native<T: ArrowPrimitiveType>(array: &ArrayRef, row: usize) -> T::Native {
    array.as_primitive::<T>().value(row)
}

fn interval(months: i64, days: i64, millis: i64) -> String {
    format!("interval:{months}m{days}d{millis}ms")
}
