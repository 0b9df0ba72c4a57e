//! Fields of any type.

use std::sync::Arc;

use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit, UnionFields, UnionMode,
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

/// Every type without fields in it, with parameters of each kind.
#[must_use]
pub fn scalars() -> Vec<DataType> {
    use DataType::{
        Binary, BinaryView, Boolean, Date32, Date64, Decimal32, Decimal64, Decimal128, Decimal256,
        Duration, FixedSizeBinary, Float16, Float32, Float64, Int8, Int16, Int32, Int64, Interval,
        LargeBinary, LargeUtf8, Null, Time32, Time64, Timestamp, UInt8, UInt16, UInt32, UInt64,
        Utf8, Utf8View,
    };
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let mut all = vec![
        Null,
        Boolean,
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float16,
        Float32,
        Float64,
        Date32,
        Date64,
        Utf8,
        LargeUtf8,
        Utf8View,
        Binary,
        LargeBinary,
        BinaryView,
    ];
    all.extend([1, 5].map(FixedSizeBinary));
    all.extend([Second, Millisecond].map(Time32));
    all.extend([Microsecond, Nanosecond].map(Time64));
    all.extend(
        [
            IntervalUnit::YearMonth,
            IntervalUnit::DayTime,
            IntervalUnit::MonthDayNano,
        ]
        .map(Interval),
    );
    all.extend([Decimal32(9, 0), Decimal32(5, 2), Decimal64(18, 4)]);
    all.extend([Decimal128(38, 38), Decimal128(38, 10), Decimal128(7, -3)]);
    all.extend([Decimal256(76, 20), Decimal256(38, 0)]);
    for unit in [Second, Millisecond, Microsecond, Nanosecond] {
        all.extend([
            Duration(unit),
            Timestamp(unit, None),
            Timestamp(unit, Some("+02:00".into())),
        ]);
    }
    all
}

/// A field of any type, nested at most `depth` levels.
pub(crate) fn field(name: &str, depth: usize, random: &mut StdRng) -> Field {
    let data_type = data_type(depth, random);
    let nullable = random.random() || is_always_nullable(&data_type);
    Field::new(name, data_type, nullable)
}

/// Nulls, and unions, which may have a member of them.
fn is_always_nullable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null | DataType::Union(..) => true,
        DataType::Dictionary(_, values) => is_always_nullable(values),
        DataType::RunEndEncoded(_, values) => is_always_nullable(values.data_type()),
        _ => false,
    }
}

fn data_type(depth: usize, random: &mut StdRng) -> DataType {
    let Some(depth) = depth.checked_sub(1) else {
        return scalar(random);
    };
    match random.random_range(0..20) {
        0..8 => scalar(random),
        8 => dictionary(scalar(random), random),
        9 => runs(scalar(random), random),
        10 => dictionary(data_type(depth, random), random),
        11 | 12 => DataType::List(item(depth, random)),
        13 => DataType::LargeList(item(depth, random)),
        14 => DataType::ListView(item(depth, random)),
        15 => DataType::LargeListView(item(depth, random)),
        16 => DataType::FixedSizeList(item(depth, random), random.random_range(1..4)),
        17 => map(depth, random),
        18 => union(depth, random),
        _ => structure(depth, random),
    }
}

fn scalar(random: &mut StdRng) -> DataType {
    scalars().choose(random).expect("there are some").clone()
}

fn dictionary(values: DataType, random: &mut StdRng) -> DataType {
    let keys = [
        DataType::Int8,
        DataType::UInt16,
        DataType::Int32,
        DataType::UInt64,
    ];
    let keys = keys.choose(random).expect("there are some").clone();
    // Arrays of nulls have no dictionaries.
    let values = if values == DataType::Null {
        DataType::Utf8
    } else {
        values
    };
    DataType::Dictionary(Box::new(keys), Box::new(values))
}

fn runs(values: DataType, random: &mut StdRng) -> DataType {
    let ends = [DataType::Int16, DataType::Int32, DataType::Int64];
    let ends = ends.choose(random).expect("there are some").clone();
    let ends = Field::new("run_ends", ends, false);
    DataType::RunEndEncoded(Arc::new(ends), Arc::new(Field::new("values", values, true)))
}

fn item(depth: usize, random: &mut StdRng) -> FieldRef {
    Arc::new(field(Field::LIST_FIELD_DEFAULT_NAME, depth, random))
}

fn structure(depth: usize, random: &mut StdRng) -> DataType {
    let names = ["x", "Y", "\u{3b6}"];
    let count = random.random_range(0..=names.len());
    let members = names
        .iter()
        .take(count)
        .map(|name| field(name, depth, random));
    DataType::Struct(members.collect())
}

fn map(depth: usize, random: &mut StdRng) -> DataType {
    let keys = [
        DataType::Utf8,
        DataType::Int64,
        DataType::Int16,
        DataType::Utf8View,
    ];
    let keys = keys.choose(random).expect("there are some").clone();
    let pair = vec![
        Field::new("keys", keys, false),
        field("values", depth, random),
    ];
    let entries = Field::new("entries", DataType::Struct(Fields::from(pair)), false);
    DataType::Map(Arc::new(entries), false)
}

/// Members that become different Drill types.
fn union(depth: usize, random: &mut StdRng) -> DataType {
    let mut types = vec![
        DataType::Int16,
        DataType::Int64,
        DataType::Float64,
        DataType::Boolean,
        DataType::Utf8View,
        DataType::Binary,
        DataType::Date32,
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Time32(TimeUnit::Millisecond),
        DataType::Null,
    ];
    if depth > 0 {
        types.extend([
            DataType::List(item(depth - 1, random)),
            structure(depth - 1, random),
        ]);
    }
    let count = random.random_range(1..4);
    let members = types.choose_multiple(random, count).cloned();
    let ids = (0_i8..).step_by(3).skip(random.random_range(0..3));
    let member = |(id, data_type)| (id, Arc::new(Field::new(format!("m{id}"), data_type, true)));
    let fields: UnionFields = ids.zip(members).map(member).collect();
    let mode = if random.random() {
        UnionMode::Sparse
    } else {
        UnionMode::Dense
    };
    DataType::Union(fields, mode)
}
