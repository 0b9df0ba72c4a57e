//! Batches of any Arrow schema, nested and cut anywhere: what Drill shows of them is the same before and after they have
//! been Drill's vectors.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, UnionMode},
};
use proptest::prelude::*;
use random_batches::{batch, column, scalars, shown};
use record_batch::{DecodeOptions, Decoder, Encoder, split};

/// Encodes the pieces of `batch` and compares what arrives, row by row.
fn expect_the_same_shown(batch: &RecordBatch, rows_max: usize) {
    let encoder = Encoder::try_new(&batch.schema()).unwrap_or_else(|e| panic!("{e}"));
    let mut decoder = Decoder::new(DecodeOptions::default());
    for piece in split(batch, rows_max, 1 << 20) {
        let sent = encoder.encode(&piece).unwrap_or_else(|e| panic!("{e}"));
        let received = decoder
            .decode(&sent.def, &sent.joined())
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(received.num_rows(), piece.num_rows());
        assert_eq!(texts(&received), texts(&piece), "{}", batch.schema());
    }
}

fn texts(batch: &RecordBatch) -> Vec<Vec<String>> {
    let schema = batch.schema();
    let columns = || schema.fields().iter().zip(batch.columns());
    (0..batch.num_rows())
        .map(|row| {
            columns()
                .map(|(field, column)| shown(field, column, row))
                .collect()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_batch_of_any_schema_arrives(
        seed: u64,
        rows in 0_usize..40,
        cut in 0_usize..40,
        rows_max in prop_oneof![Just(usize::MAX), 1_usize..9],
    ) {
        let batch = batch(seed, rows);
        let from = cut.min(rows);
        expect_the_same_shown(&batch, rows_max);
        expect_the_same_shown(&batch.slice(from, (rows - from) / 2), rows_max);
    }
}

#[test]
fn every_scalar_type_arrives_in_every_place() {
    for (seed, data_type) in (0..).zip(scalars()) {
        for nullable in [true, false] {
            if data_type == DataType::Null && !nullable {
                continue;
            }
            let field = Field::new("c", data_type.clone(), nullable);
            let item = Arc::new(field.clone());
            let places = [
                field.clone(),
                Field::new("l", DataType::List(item.clone()), false),
                Field::new("l", DataType::LargeListView(item.clone()), true),
                Field::new("l", DataType::FixedSizeList(item.clone(), 2), true),
                Field::new("s", DataType::Struct(vec![field].into()), true),
            ];
            for place in places {
                expect_the_same_shown(&column(place, seed, 70), usize::MAX);
            }
        }
    }
}

#[test]
fn dictionaries_of_nested_values_arrive() {
    let dictionary = |values| DataType::Dictionary(Box::new(DataType::Int32), Box::new(values));
    let member = Field::new("x", DataType::Utf8, true);
    let structs = DataType::Struct(vec![member].into());
    let lists = DataType::List(Arc::new(Field::new_list_field(DataType::Int16, false)));
    let runs = DataType::RunEndEncoded(
        Arc::new(Field::new("run_ends", DataType::Int64, false)),
        Arc::new(Field::new("values", DataType::Boolean, true)),
    );
    let of_runs = DataType::Struct(vec![Field::new("x", runs.clone(), true)].into());
    for values in [structs.clone(), lists, runs, union(structs), union(of_runs)] {
        let item = Arc::new(Field::new_list_field(dictionary(values.clone()), false));
        for seed in 0..20 {
            let plain = Field::new("c", values.clone(), true);
            let encoded = Field::new("c", dictionary(values.clone()), true);
            let listed = Field::new("c", DataType::List(item.clone()), false);
            for field in [plain, encoded] {
                expect_the_same_shown(&column(field, seed, 9), usize::MAX);
            }
            if !matches!(values, DataType::Union(..)) {
                expect_the_same_shown(&column(listed, seed, 9), usize::MAX);
            }
        }
    }
}

/// A dense union of numbers and `other`.
fn union(other: DataType) -> DataType {
    let members = [
        (0, Arc::new(Field::new("n", DataType::Int64, true))),
        (7, Arc::new(Field::new("o", other, true))),
    ];
    DataType::Union(members.into_iter().collect(), UnionMode::Dense)
}
