//! Batches that know who they are: every row tells its sender, that sender's attempt, and its number.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
};
use rand::{RngCore, SeedableRng, rngs::StdRng};

/// Longest row.
pub(super) const ROW_BYTES_MAX: usize = 3 << 20;
/// Rows of one number have one payload, which begins at one of so many places.
const PLACES: u16 = u16::MAX;

/// Half of it shrinks, the other does not.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = vec![7; ROW_BYTES_MAX + usize::from(PLACES)];
    let mut random = StdRng::seed_from_u64(1);
    for random_part in bytes.chunks_mut(512).step_by(2) {
        random.fill_bytes(random_part);
    }
    bytes
});

/// Who has sent a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Author {
    pub(super) sender: i64,
    pub(super) attempt: i64,
}

/// A batch whose rows are of one length, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchPlan {
    pub(super) rows: usize,
    pub(super) row_bytes: usize,
}

impl BatchPlan {
    pub(super) fn bytes(self) -> usize {
        self.rows * (self.row_bytes + 32)
    }
}

fn payload(author: Author, number: i64, row_bytes: usize) -> &'static [u8] {
    let mixed = number.wrapping_mul(0x9e37_79b9) ^ author.sender.wrapping_mul(0x85eb_ca6b);
    let place = usize::try_from(mixed.rem_euclid(PLACES.into())).unwrap_or_default();
    &BYTES[place..place + row_bytes]
}

pub(super) fn schema() -> SchemaRef {
    let nobody = Author {
        sender: 0,
        attempt: 0,
    };
    let empty = BatchPlan {
        rows: 0,
        row_bytes: 0,
    };
    batch(nobody, 0, empty).schema()
}

/// The rows of `author` from number `first` on.
pub(super) fn batch(author: Author, first: i64, plan: BatchPlan) -> RecordBatch {
    let numbers = || (first..).take(plan.rows);
    let column = |value| Arc::new(Int64Array::from(vec![value; plan.rows])) as ArrayRef;
    let payloads = numbers().map(|number| payload(author, number, plan.row_bytes));
    RecordBatch::try_from_iter([
        (
            "number",
            Arc::new(Int64Array::from_iter_values(numbers())) as ArrayRef,
        ),
        ("sender", column(author.sender)),
        ("attempt", column(author.attempt)),
        ("payload", Arc::new(BinaryArray::from_iter_values(payloads))),
    ])
    .expect("four columns")
}

/// Author and number of every row, whose payload must be its own.
pub(super) fn rows(batch: &RecordBatch) -> Vec<(Author, i64)> {
    let column = |at: usize| batch.column(at).as_primitive::<Int64Type>();
    let (numbers, senders, attempts) = (column(0), column(1), column(2));
    let payloads = batch.column(3).as_binary::<i32>();
    (0..batch.num_rows())
        .map(|row| {
            let author = Author {
                sender: senders.value(row),
                attempt: attempts.value(row),
            };
            let (number, bytes) = (numbers.value(row), payloads.value(row));
            assert!(
                payloads.is_valid(row),
                "{author:?}: row {number} has no payload"
            );
            let expected = payload(author, number, bytes.len());
            assert!(bytes == expected, "{author:?}: row {number} is damaged");
            (author, number)
        })
        .collect()
}
