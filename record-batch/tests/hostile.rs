//! Descriptors that lie. Each is refused with the column and the reason; none panics.
#![allow(clippy::unwrap_used, reason = "tests")]

mod random;

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Int32Array, Int64Array,
        NullArray, RecordBatch, StringArray, UnionArray,
    },
    datatypes::{DataType, Field, Schema, UnionFields},
};
use bytes::Bytes;
use prost::Message;
use protos::{
    common::{DataMode, MinorType},
    shared::{RecordBatchDef, SerializedField},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use record_batch::{DecodeError, DecodeOptions, Encoder, VectorError, decode};

/// INT required, VARCHAR optional, four rows of each; encoded.
fn sample() -> (RecordBatchDef, Vec<u8>) {
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3, 4]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![
        Some("one"),
        None,
        Some("th\u{fc}r"),
        Some(""),
    ]));
    let batch =
        RecordBatch::try_from_iter_with_nullable([("n", numbers, false), ("t", texts, true)]);
    encoded(&batch.unwrap())
}

fn encoded(batch: &RecordBatch) -> (RecordBatchDef, Vec<u8>) {
    let encoded = Encoder::try_new(&batch.schema())
        .unwrap()
        .encode(batch)
        .unwrap();
    (encoded.def.clone(), encoded.joined().to_vec())
}

fn attempt(def: &RecordBatchDef, body: &[u8]) -> Result<RecordBatch, DecodeError> {
    decode(
        def,
        &Bytes::copy_from_slice(body),
        &DecodeOptions::default(),
    )
}

/// Decodes the sample after `lie` changed it, and expects a refusal of `column`.
fn refused(lie: impl Fn(&mut RecordBatchDef, &mut Vec<u8>), column: &str, problem: &VectorError) {
    let (mut def, mut body) = sample();
    lie(&mut def, &mut body);
    match attempt(&def, &body).unwrap_err() {
        DecodeError::Column {
            column: actual,
            problem: why,
        } => {
            assert_eq!((actual.as_str(), &why), (column, problem));
        }
        other => panic!("{other}"),
    }
}

fn values(def: &mut RecordBatchDef) -> &mut SerializedField {
    &mut def.field[1].child[1]
}

fn offsets(def: &mut RecordBatchDef) -> &mut SerializedField {
    &mut values(def).child[0]
}

/// Where the sample's offsets start: behind the INT column and the text's validity.
const OFFSETS_AT: usize = 16 + 4;

#[test]
fn the_sample_is_fine_as_it_is() {
    let (def, body) = sample();
    assert_eq!(attempt(&def, &body).unwrap().num_rows(), 4);
}

#[test]
fn counts_and_lengths_that_contradict_each_other() {
    let count = VectorError::ValueCount {
        expected: 4,
        actual: 3,
    };
    refused(|def, _| def.field[0].value_count = Some(3), "n", &count);
    refused(|def, _| values(def).value_count = Some(3), "t", &count);
    let count = VectorError::ValueCount {
        expected: 4,
        actual: 0,
    };
    refused(|def, _| def.field[1].value_count = None, "t", &count);
    let entries = VectorError::ValueCount {
        expected: 5,
        actual: 4,
    };
    refused(|def, _| offsets(def).value_count = Some(4), "t", &entries);
    let width = VectorError::BufferLength {
        expected: 16,
        actual: 15,
    };
    refused(|def, _| def.field[0].buffer_length = Some(15), "n", &width);
    let negative = VectorError::Negative { value: -1 };
    refused(|def, _| def.field[0].value_count = Some(-1), "n", &negative);
    refused(
        |def, _| offsets(def).buffer_length = Some(-1),
        "t.$offsets$",
        &negative,
    );
    let beyond = VectorError::Truncated {
        needed: i32::MAX.unsigned_abs() as usize,
        available: 48,
    };
    refused(
        |def, _| def.field[0].buffer_length = Some(i32::MAX),
        "n",
        &beyond,
    );
}

#[test]
fn rows_that_overflow_or_are_too_many() {
    for rows in [-1, i32::MIN, 65_537, i32::MAX] {
        let (mut def, body) = sample();
        def.record_count = Some(rows);
        let error = attempt(&def, &body).unwrap_err();
        assert!(matches!(error, DecodeError::RowCount { rows: actual, .. } if actual == rows));
    }
    refused(
        |def, _| {
            def.record_count = Some(65_536);
            def.field[0].value_count = Some(65_536);
        },
        "n",
        &VectorError::BufferLength {
            expected: 262_144,
            actual: 16,
        },
    );
}

#[test]
fn offsets_that_run_backwards_or_past_the_end() {
    let write = |body: &mut Vec<u8>, entry: usize, offset: u32| {
        let at = OFFSETS_AT + 4 * entry;
        body[at..at + 4].copy_from_slice(&offset.to_le_bytes());
    };
    let backwards = |row| VectorError::OffsetsBackwards { row };
    refused(|_, body| write(body, 0, 1), "t", &backwards(0));
    refused(|_, body| write(body, 2, 2), "t", &backwards(1));
    refused(|_, body| write(body, 2, u32::MAX), "t", &backwards(1));
    refused(|_, body| write(body, 3, 100), "t", &backwards(3));
    refused(
        |_, body| write(body, 4, 100),
        "t",
        &VectorError::OffsetsEnd {
            expected: 8,
            actual: 100,
        },
    );
}

#[test]
fn text_is_checked_in_present_rows_only() {
    let data_at = OFFSETS_AT + 20;
    refused(
        |_, body| body[data_at] = 0xff,
        "t",
        &VectorError::Text { row: 0 },
    );
    // An offset inside a character makes two rows wrong; the first is named.
    refused(
        |_, body| body[OFFSETS_AT + 4 * 2] = 6,
        "t",
        &VectorError::Text { row: 2 },
    );
    // The same garbage behind a null row is nobody's business.
    let (def, mut body) = sample();
    body[16] = 0;
    body[data_at] = 0xff;
    let batch = attempt(&def, &body).unwrap();
    let expected: ArrayRef = Arc::new(StringArray::from(vec![
        None,
        None,
        Some("th\u{fc}r"),
        Some(""),
    ]));
    assert_eq!(batch.column(1), &expected);
}

#[test]
fn vectors_of_the_wrong_name_type_or_number() {
    fn rename(field: &mut SerializedField, name: &str) {
        field.name_part.as_mut().unwrap().name = Some(name.to_owned());
    }
    let wrong = |expected: &str, actual: &str| VectorError::ChildName {
        expected: expected.to_owned(),
        actual: actual.to_owned(),
    };
    refused(
        |def, _| rename(&mut def.field[1].child[0], "bits"),
        "t",
        &wrong("$bits$", "bits"),
    );
    refused(|def, _| rename(values(def), "x"), "t", &wrong("t", "x"));
    refused(
        |def, _| rename(offsets(def), "$bits$"),
        "t",
        &wrong("$offsets$", "$bits$"),
    );
    let none = VectorError::ChildCount {
        expected: 2,
        actual: 0,
    };
    refused(|def, _| def.field[1].child.clear(), "t", &none);
    let extra = VectorError::ChildCount {
        expected: 0,
        actual: 1,
    };
    refused(
        |def, _| def.field[0].child = vec![def.field[1].clone()],
        "n",
        &extra,
    );
    let int = VectorError::ChildType {
        minor: MinorType::Int,
        mode: DataMode::Optional,
    };
    let retype = |def: &mut RecordBatchDef| {
        values(def)
            .major_type
            .as_mut()
            .unwrap()
            .set_minor_type(MinorType::Int);
    };
    refused(|def, _| retype(def), "t", &int);
}

#[test]
fn types_that_have_no_vector() {
    let retype = |def: &mut RecordBatchDef, number| {
        def.field[0].major_type.as_mut().unwrap().minor_type = number;
    };
    refused(
        |def, _| retype(def, Some(99)),
        "n",
        &VectorError::UnknownType { number: 99 },
    );
    refused(|def, _| retype(def, None), "n", &VectorError::MissingType);
    refused(
        |def, _| def.field[0].major_type = None,
        "n",
        &VectorError::MissingType,
    );
    let money = VectorError::Unsupported {
        minor: MinorType::Money,
        mode: DataMode::Required,
    };
    refused(
        |def, _| retype(def, Some(MinorType::Money as i32)),
        "n",
        &money,
    );
    refused(
        |def, _| {
            let major = def.field[0].major_type.as_mut().unwrap();
            major.set_minor_type(MinorType::Vardecimal);
            (major.precision, major.scale) = (Some(9), Some(10));
        },
        "n",
        &VectorError::DecimalType {
            precision: 9,
            scale: 10,
        },
    );
}

#[test]
fn bodies_and_batches_that_do_not_fit() {
    let (mut def, mut body) = sample();
    body.push(0);
    assert!(matches!(
        attempt(&def, &body).unwrap_err(),
        DecodeError::BodyLength {
            described: 48,
            actual: 49
        }
    ));
    def.carries_two_byte_selection_vector = Some(true);
    assert!(matches!(
        attempt(&def, &body).unwrap_err(),
        DecodeError::SelectionVector
    ));
}

#[test]
fn decimals_wider_than_any_are_refused_unless_null() {
    let values = Decimal128Array::from(vec![Some(1), None]).with_precision_and_scale(38, 0);
    let column: ArrayRef = Arc::new(values.unwrap());
    let batch = RecordBatch::try_from_iter([("d", column)]).unwrap();
    let (mut def, mut body) = encoded(&batch);
    // 17 bytes for the null row, then for the other one.
    body[2 + 8] = 18;
    body.extend([9; 17]);
    for field in [2, 1] {
        let d = &mut def.field[0];
        let length = if field == 2 {
            &mut d.buffer_length
        } else {
            &mut d.child[1].buffer_length
        };
        *length = length.map(|bytes| bytes + 17);
    }
    assert_eq!(attempt(&def, &body).unwrap(), batch);
    body[1] = 1;
    let error = attempt(&def, &body).unwrap_err().to_string();
    assert_eq!(error, "column d: row 1 is a decimal of 17 bytes");
}

#[test]
fn decimals_of_more_digits_than_38_are_refused_unless_null() {
    let values = Decimal128Array::from(vec![Some(1), None]).with_precision_and_scale(38, 0);
    let column: ArrayRef = Arc::new(values.unwrap());
    let batch = RecordBatch::try_from_iter([("d", column)]).unwrap();
    let (mut def, mut body) = encoded(&batch);
    // The first row's single byte becomes 16.
    body.truncate(2 + 12);
    body.extend([0x7f; 16]);
    (body[2 + 4], body[2 + 8]) = (16, 16);
    let d = &mut def.field[0];
    for length in [&mut d.child[1].buffer_length, &mut d.buffer_length] {
        *length = length.map(|bytes| bytes + 15);
    }
    let error = attempt(&def, &body).unwrap_err().to_string();
    assert_eq!(error, "column d: row 0 is a decimal of more than 38 digits");
    body[0] = 0;
    assert_eq!(attempt(&def, &body).unwrap().column(0).null_count(), 2);
}

/// Five rows of each kind of layout.
fn seed_columns() -> [(&'static str, ArrayRef); 6] {
    let ints = [Some(1), None, Some(-3), None, Some(9)];
    let bits = [Some(true), None, Some(false), None, None];
    let texts = [Some("a"), None, Some("\u{fc}"), Some(""), None];
    let bytes: [&[u8]; 5] = [&[1], b"xy", b"", b"\xff", b"0"];
    let decimals = [Some(1), None, Some(-3), Some(i128::MAX / 9), None];
    [
        ("i", Arc::new(Int64Array::from(ints.to_vec()))),
        ("b", Arc::new(BooleanArray::from(bits.to_vec()))),
        ("t", Arc::new(StringArray::from(texts.to_vec()))),
        ("y", Arc::new(BinaryArray::from(bytes.to_vec()))),
        ("d", Arc::new(Decimal128Array::from(decimals.to_vec()))),
        ("n", Arc::new(NullArray::new(5))),
    ]
}

/// Batches to start from: all layouts, some empty.
fn seeds() -> Vec<(RecordBatchDef, Vec<u8>)> {
    let columns = seed_columns();
    let fields = columns.iter().map(|(name, array)| {
        let field = Field::new(*name, array.data_type().clone(), true);
        let untyped = *array.data_type() == DataType::Null;
        let asked = untyped.then(|| ("drill.minor_type".to_owned(), "NULL".to_owned()));
        field.with_metadata(asked.into_iter().collect())
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let arrays = columns.iter().map(|(_, array)| array.clone()).collect();
    let batch = RecordBatch::try_new(schema, arrays).unwrap();
    let mut seeds = vec![
        encoded(&batch),
        encoded(&batch.slice(1, 3)),
        encoded(&batch.slice(0, 0)),
        sample(),
    ];
    let random = &mut StdRng::seed_from_u64(11);
    seeds.extend((0..40).map(|_| nested(random)));
    seeds.push(union());
    seeds
}

fn nested(random: &mut StdRng) -> (RecordBatchDef, Vec<u8>) {
    let rows = random.random_range(1..6);
    let fields: Vec<_> = (0..2).map(|_| random::field("c", 3, random)).collect();
    let columns = fields
        .iter()
        .map(|field| random::array(field, rows, random))
        .collect();
    encoded(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap())
}

fn union() -> (RecordBatchDef, Vec<u8>) {
    let fields = [
        (0, Arc::new(Field::new("n", DataType::Int32, true))),
        (1, Arc::new(Field::new("t", DataType::Utf8, true))),
    ];
    let children: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![1, 0, 3])),
        Arc::new(StringArray::from(vec!["", "b", ""])),
    ];
    let fields = UnionFields::from_iter(fields);
    let union = UnionArray::try_new(fields, vec![0, 1, 0].into(), None, children).unwrap();
    let column: ArrayRef = Arc::new(union);
    encoded(&RecordBatch::try_from_iter([("u", column)]).unwrap())
}

/// Mutations of one seed; the seed number makes a finding repeatable.
fn mutate(seed: u64, seeds: &[(RecordBatchDef, Vec<u8>)]) {
    let random = &mut StdRng::seed_from_u64(seed);
    let (def, body) = seeds.choose(random).unwrap();
    let (mut def, mut body) = (def.clone(), body.clone());
    for _ in 0..random.random_range(1..4) {
        match random.random_range(0..3) {
            0 if !def.field.is_empty() => {
                let field = random.random_range(0..def.field.len());
                twist(&mut def.field[field], random);
            }
            1 => {
                body.resize(random.random_range(0..=body.len() + 2), 0);
            }
            _ => scribble(&mut body, random),
        }
    }
    let mut bytes = def.encode_to_vec();
    if random.random_bool(0.2) {
        scribble(&mut bytes, random);
    }
    record_batch::fuzzing::decode(&bytes, &body);
}

fn twist(field: &mut SerializedField, random: &mut StdRng) {
    if !field.child.is_empty() && random.random_bool(0.6) {
        let child = random.random_range(0..field.child.len());
        return twist(&mut field.child[child], random);
    }
    let number = *[0, 1, 3, 4, 5, 6, -1, i32::MAX].choose(random).unwrap();
    match random.random_range(0..5) {
        0 => field.value_count = Some(number),
        1 => field.buffer_length = Some(number),
        2 => field.child.truncate(1),
        3 => field.major_type.as_mut().unwrap().mode = Some(random.random_range(0..3)),
        _ => field.major_type.as_mut().unwrap().minor_type = Some(random.random_range(0..45)),
    }
}

fn scribble(bytes: &mut [u8], random: &mut StdRng) {
    if let Some(last) = bytes.len().checked_sub(1) {
        bytes[random.random_range(0..=last)] = random.random();
    }
}

#[test]
fn mutated_batches_never_panic_and_survive_when_accepted() {
    let seeds = seeds();
    // RECORD_BATCH_MUTATIONS=10000000 cargo test --release -p record-batch --test hostile
    let count = std::env::var("RECORD_BATCH_MUTATIONS").map_or(10_000, |n| n.parse().unwrap());
    for seed in 0..count {
        mutate(seed, &seeds);
    }
}
