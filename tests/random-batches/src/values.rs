//! Arrays of any field.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, DictionaryArray, FixedSizeBinaryArray,
        FixedSizeListArray, GenericListArray, GenericListViewArray, Int64Array, MapArray,
        NullArray, OffsetSizeTrait, PrimitiveArray, RunArray, StringArray, StructArray, UnionArray,
    },
    buffer::{NullBuffer, OffsetBuffer, ScalarBuffer},
    compute::cast,
    datatypes::{
        ArrowDictionaryKeyType, ArrowNativeType, DataType, Field, FieldRef, Fields, Int8Type,
        Int16Type, Int32Type, Int64Type, RunEndIndexType, UInt16Type, UInt64Type, UnionFields,
        UnionMode,
    },
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use crate::numbers::numbers;

/// `rows` values of `field`, about a third of them null if it is nullable.
pub(crate) fn array(field: &Field, rows: usize, random: &mut StdRng) -> ArrayRef {
    let nulls = field
        .is_nullable()
        .then(|| valid_in_two_of_three(rows, random));
    match field.data_type() {
        DataType::Dictionary(keys, _) => match **keys {
            DataType::Int8 => dictionary::<Int8Type>(field, rows, nulls, random),
            DataType::UInt16 => dictionary::<UInt16Type>(field, rows, nulls, random),
            DataType::Int32 => dictionary::<Int32Type>(field, rows, nulls, random),
            _ => dictionary::<UInt64Type>(field, rows, nulls, random),
        },
        DataType::RunEndEncoded(ends, values) => {
            let values = Field::clone(values).with_nullable(field.is_nullable());
            match ends.data_type() {
                DataType::Int16 => runs::<Int16Type>(field, &values, rows, random),
                DataType::Int32 => runs::<Int32Type>(field, &values, rows, random),
                _ => runs::<Int64Type>(field, &values, rows, random),
            }
        }
        DataType::Union(fields, mode) => union(field, fields, *mode, rows, random),
        data_type => plain(data_type, rows, nulls, random),
    }
}

fn valid_in_two_of_three(rows: usize, random: &mut StdRng) -> NullBuffer {
    (0..rows).map(|_| random.random_ratio(2, 3)).collect()
}

fn plain(
    data_type: &DataType,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    match data_type {
        DataType::Null => Arc::new(NullArray::new(rows)),
        DataType::Boolean => {
            let values = (0..rows).map(|_| random.random::<bool>()).collect();
            Arc::new(BooleanArray::new(values, nulls))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts: StringArray = (0..rows).map(|_| Some(text(random))).collect();
            cast(&with_nulls(&texts, nulls), data_type).expect("text of any kind")
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes: BinaryArray = (0..rows).map(|_| Some(bytes(random))).collect();
            cast(&with_nulls(&bytes, nulls), data_type).expect("bytes of any kind")
        }
        DataType::FixedSizeBinary(width) => fixed_size_binary(*width, rows, nulls, random),
        DataType::Struct(fields) => structure(fields, rows, nulls, random),
        DataType::List(item) => list::<i32>(item, rows, nulls, random),
        DataType::LargeList(item) => list::<i64>(item, rows, nulls, random),
        DataType::ListView(item) => views::<i32>(item, rows, nulls, random),
        DataType::LargeListView(item) => views::<i64>(item, rows, nulls, random),
        DataType::FixedSizeList(item, width) => fixed_size_list(item, *width, rows, nulls, random),
        DataType::Map(entries, _) => map(entries, rows, nulls, random),
        other => {
            numbers(other, rows, nulls, random).unwrap_or_else(|| panic!("no values of {other}"))
        }
    }
}

/// The array with these nulls; what is behind them stays.
fn with_nulls(array: &dyn Array, nulls: Option<NullBuffer>) -> ArrayRef {
    let data = array.to_data().into_builder().nulls(nulls);
    arrow::array::make_array(data.build().expect("nulls of the same length"))
}

fn text(random: &mut StdRng) -> String {
    let len = random.random_range(0..16);
    if random.random() {
        return (0..len).map(|_| random.random_range(' '..='~')).collect();
    }
    (0..len).map(|_| random.random::<char>()).collect()
}

fn bytes(random: &mut StdRng) -> Vec<u8> {
    let len = random.random_range(0..20);
    (0..len).map(|_| random.random()).collect()
}

fn fixed_size_binary(
    width: i32,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    let size = rows * usize::try_from(width).unwrap_or(0);
    let values: Vec<u8> = (0..size).map(|_| random.random()).collect();
    let array = FixedSizeBinaryArray::try_new_with_len(width, values.into(), nulls, rows);
    Arc::new(array.expect("bytes for every row"))
}

fn structure(
    fields: &Fields,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    let columns = fields
        .iter()
        .map(|field| array(field, rows, random))
        .collect();
    let array = StructArray::try_new_with_length(fields.clone(), columns, nulls, rows);
    Arc::new(array.expect("members of the same length"))
}

fn lengths(rows: usize, random: &mut StdRng) -> OffsetBuffer<i32> {
    OffsetBuffer::from_lengths((0..rows).map(|_| random.random_range(0..4)))
}

fn elements<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> usize {
    offsets.last().map_or(0, |end| end.as_usize())
}

/// Null rows have elements too, and there are elements behind the last row.
fn list<O: OffsetSizeTrait>(
    item: &FieldRef,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    let lengths = (0..rows).map(|_| random.random_range(0..4));
    let offsets = OffsetBuffer::<O>::from_lengths(lengths);
    let values = array(item, elements(&offsets) + 2, random);
    Arc::new(GenericListArray::new(item.clone(), offsets, values, nulls))
}

/// Rows in any order, which share elements.
fn views<O: OffsetSizeTrait>(
    item: &FieldRef,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    const ELEMENTS: usize = 12;
    let index = |at| O::usize_as(at);
    let starts: Vec<_> = (0..rows)
        .map(|_| random.random_range(0..ELEMENTS))
        .collect();
    let sizes = starts
        .iter()
        .map(|start| random.random_range(0..=(ELEMENTS - start).min(4)));
    let sizes: ScalarBuffer<O> = sizes.map(index).collect();
    let starts = starts.into_iter().map(index).collect();
    let values = array(item, ELEMENTS, random);
    Arc::new(GenericListViewArray::new(
        item.clone(),
        starts,
        sizes,
        values,
        nulls,
    ))
}

fn fixed_size_list(
    item: &FieldRef,
    width: i32,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    let values = array(item, rows * usize::try_from(width).unwrap_or(0), random);
    Arc::new(FixedSizeListArray::new(item.clone(), width, values, nulls))
}

/// No key is twice in a map.
fn map(
    entries: &FieldRef,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    let offsets = lengths(rows, random);
    let DataType::Struct(pair) = entries.data_type() else {
        unreachable!("entries are structs");
    };
    let count = elements(&offsets);
    let first = random.random_range(0..1000);
    let keys = Int64Array::from_iter_values((first..).take(count));
    let columns = vec![
        cast(&keys, pair[0].data_type()).expect("numbers become any key"),
        array(&pair[1], count, random),
    ];
    let pairs = StructArray::new(pair.clone(), columns, None);
    Arc::new(MapArray::new(entries.clone(), offsets, pairs, nulls, false))
}

/// Some values are never used, and some may be null.
fn dictionary<K: ArrowDictionaryKeyType>(
    field: &Field,
    rows: usize,
    nulls: Option<NullBuffer>,
    random: &mut StdRng,
) -> ArrayRef {
    const VALUES: usize = 6;
    let DataType::Dictionary(_, values) = field.data_type() else {
        unreachable!("called for dictionaries");
    };
    let values = Field::new("values", DataType::clone(values), field.is_nullable());
    let values = array(&values, VALUES, random);
    let key = |_| K::Native::usize_as(random.random_range(0..VALUES));
    let keys = PrimitiveArray::<K>::new((0..rows).map(key).collect(), nulls);
    Arc::new(DictionaryArray::new(keys, values))
}

fn runs<R: RunEndIndexType>(
    field: &Field,
    values: &Field,
    rows: usize,
    random: &mut StdRng,
) -> ArrayRef {
    let mut ends = Vec::new();
    let mut end = 0;
    while end < rows {
        end = rows.min(end + random.random_range(1..5));
        ends.push(R::Native::usize_as(end));
    }
    let values = array(values, ends.len(), random);
    let ends = PrimitiveArray::<R>::new(ends.into(), None);
    let runs = RunArray::try_new(&ends, &values).expect("a value for every run");
    // Names and nullability as the field has them.
    let data = runs
        .to_data()
        .into_builder()
        .data_type(field.data_type().clone());
    arrow::array::make_array(data.build().expect("the same layout"))
}

fn union(
    field: &Field,
    fields: &UnionFields,
    mode: UnionMode,
    rows: usize,
    random: &mut StdRng,
) -> ArrayRef {
    let ids: Vec<i8> = fields.iter().map(|(id, _)| id).collect();
    let type_ids: Vec<i8> = (0..rows)
        .map(|_| *ids.choose(random).expect("a member"))
        .collect();
    let count = |id| type_ids.iter().filter(|&&other| other == id).count();
    let dense = mode == UnionMode::Dense;
    let children = fields.iter().map(|(id, member)| {
        let member = Field::clone(member).with_nullable(field.is_nullable());
        array(&member, if dense { count(id) } else { rows }, random)
    });
    let children = children.collect();
    let offsets = dense.then(|| places(&type_ids));
    let array = UnionArray::try_new(fields.clone(), type_ids.into(), offsets, children);
    Arc::new(array.expect("a value for every row"))
}

/// Where each row's value is among those of its type.
fn places(type_ids: &[i8]) -> ScalarBuffer<i32> {
    let before = |row: usize| {
        type_ids[..row]
            .iter()
            .filter(|&&id| id == type_ids[row])
            .count()
    };
    (0..type_ids.len())
        .map(|row| i32::usize_as(before(row)))
        .collect()
}
