//! Arrow batches of any schema, made from a seed, and what Drill shows of their values.
//!
//! [`batch`] and [`column()`] make fields of every type that Arrow has, nested in each other, with nulls, unused elements
//! and garbage in null slots. [`shown()`] says what a reader on Drill's side must see of a value, in one text form, whether
//! it reads by a Java driver or out of an Arrow array that has been through Drill's vectors.

mod fields;
mod numbers;
mod shown;
mod values;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::{Field, Schema},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

pub use fields::scalars;
pub use shown::shown;

/// Deepest nesting of the fields of [`batch`].
const DEPTH_MAX: usize = 3;

/// A batch of up to five columns of any types, always the same for a seed.
#[must_use]
pub fn batch(seed: u64, rows: usize) -> RecordBatch {
    let random = &mut StdRng::seed_from_u64(seed);
    let names = ["a", "Column 2", "\u{fc}", "d.e", "f"];
    let width = random.random_range(1..=names.len());
    let fields: Vec<_> = names
        .iter()
        .take(width)
        .map(|name| fields::field(name, DEPTH_MAX, random))
        .collect();
    let columns = fields
        .iter()
        .map(|field| values::array(field, rows, random))
        .collect();
    assembled(fields, columns, rows)
}

/// A batch of one column, always the same for a seed.
#[must_use]
pub fn column(field: Field, seed: u64, rows: usize) -> RecordBatch {
    let array = values::array(&field, rows, &mut StdRng::seed_from_u64(seed));
    assembled(vec![field], vec![array], rows)
}

fn assembled(fields: Vec<Field>, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let counted = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &counted)
        .expect("arrays were made for their fields")
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, mem::discriminant};

    use arrow::datatypes::DataType;

    use super::*;

    /// Variants of Arrow's `DataType`; `record-batch` has a match over all of them that stops compiling where one is added.
    const TYPES: usize = 41;

    #[test]
    fn random_schemas_have_every_type_that_arrow_has() {
        let mut seen = HashSet::new();
        for seed in 0..100 {
            let schema = batch(seed, 0).schema();
            schema
                .fields()
                .iter()
                .for_each(|field| add(field.data_type(), &mut seen));
        }
        assert_eq!(seen.len(), TYPES);
    }

    fn add(data_type: &DataType, seen: &mut HashSet<std::mem::Discriminant<DataType>>) {
        seen.insert(discriminant(data_type));
        match data_type {
            DataType::Dictionary(_, values) => add(values, seen),
            DataType::Struct(fields) => {
                fields.iter().for_each(|field| add(field.data_type(), seen));
            }
            DataType::Union(fields, _) => fields
                .iter()
                .for_each(|(_, field)| add(field.data_type(), seen)),
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _)
            | DataType::RunEndEncoded(_, item)
            | DataType::Map(item, _) => add(item.data_type(), seen),
            _ => (),
        }
    }

    #[test]
    fn a_seed_gives_the_same_batch_again() {
        assert_eq!(batch(7, 20), batch(7, 20));
        assert_ne!(batch(7, 20).schema(), batch(8, 20).schema());
    }

    #[test]
    fn values_are_shown_as_drill_has_them() {
        use arrow::array::{Float32Array, Int8Array, ListArray, StringArray, StructArray};
        use arrow::{buffer::NullBuffer, datatypes::Int32Type};

        let one = |array: ArrayRef, nullable| {
            shown(
                &Field::new("c", array.data_type().clone(), nullable),
                &array,
                0,
            )
        };
        assert_eq!(one(Arc::new(Int8Array::from(vec![-7])), false), "int:-7");
        assert_eq!(
            one(Arc::new(Float32Array::from(vec![1.0])), true),
            "float:3f800000"
        );
        let quoted: ArrayRef = Arc::new(StringArray::from(vec!["a\"b"]));
        assert_eq!(one(Arc::clone(&quoted), true), "text:\"a\\\"b\"");
        let member = Field::new("m", DataType::Utf8, true);
        let nulls = NullBuffer::new_null(1);
        let null = StructArray::new(vec![member].into(), vec![quoted], Some(nulls));
        assert_eq!(one(Arc::new(null), true), "{}");
        let lists = [Some(vec![Some(1), None]), None];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists));
        assert_eq!(one(Arc::clone(&lists), true), "[int:1,null]");
        assert_eq!(one(lists.slice(1, 1), true), "null");
    }
}
