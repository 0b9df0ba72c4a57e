//! Arrow batches of any schema, made from a seed, and what Drill shows of their values.
//!
//! [`batch`] and [`column`] make fields of every type that Arrow has, nested in each other, with nulls, unused elements
//! and garbage in null slots. [`shown`] says what a reader on Drill's side must see of a value, in one text form, whether
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
