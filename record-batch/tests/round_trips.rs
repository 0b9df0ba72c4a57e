//! Random batches of every scalar type, with nulls, slices and misaligned bodies: what is encoded
//! comes back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod random;

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, Decimal128Array, Decimal256Array, Float32Array, LargeStringArray,
        NullArray, PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray, StringViewArray,
        UInt64Array, new_null_array,
    },
    compute::cast,
    datatypes::{
        DataType, Field, Int64Type, Schema,
        TimeUnit::{Microsecond, Millisecond, Nanosecond, Second},
        TimestampMillisecondType, TimestampNanosecondType, i256,
    },
};
use bytes::Bytes;
use proptest::prelude::*;
use protos::common::MinorType;
use rand::{Rng, SeedableRng, rngs::StdRng};
use record_batch::{DecodeOptions, EncodeError, EncodeProblem, Encoder, decode, metadata, split};

fn round_trip(batch: &RecordBatch, lead: usize) -> RecordBatch {
    let encoded = Encoder::try_new(&batch.schema())
        .unwrap()
        .encode(batch)
        .unwrap();
    let mut bytes = vec![0xee; lead];
    bytes.extend_from_slice(&encoded.joined());
    let body = Bytes::from(bytes).slice(lead..);
    assert_eq!(body.len(), encoded.body_bytes());
    decode(&encoded.def, &body, &DecodeOptions::default()).unwrap()
}

fn batch_of(columns: Vec<(Field, ArrayRef)>, rows: usize) -> RecordBatch {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 64,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_encoded_comes_back(
        seed: u64,
        rows in prop_oneof![0_usize..20, 50_usize..300],
        lead in 0_usize..9,
    ) {
        let random = &mut StdRng::seed_from_u64(seed);
        let batch = any_batch(rows, random);
        let start = random.random_range(0..=rows);
        let slice = batch.slice(start, random.random_range(0..=rows - start));
        for batch in [batch, slice] {
            prop_assert_eq!(&round_trip(&batch, lead), &batch);
            for piece in split(&batch, 7, 300) {
                prop_assert_eq!(&round_trip(&piece, lead), &piece);
            }
        }
    }
}

fn any_batch(rows: usize, random: &mut StdRng) -> RecordBatch {
    let columns = (0..random.random_range(0..6)).map(|at| {
        let field = random::field(&format!("c{at}"), 3, random);
        let array = random::array(&field, rows, random);
        (field, array)
    });
    batch_of(columns.collect(), rows)
}

#[test]
fn every_scalar_type_comes_back_with_and_without_nulls() {
    let random = &mut StdRng::seed_from_u64(3);
    for field in [random::scalars("c", false), random::scalars("c", true)].concat() {
        for rows in [0, 1, 8, 64, 1000] {
            let batch = batch_of(
                vec![(field.clone(), random::array(&field, rows, random))],
                rows,
            );
            assert_eq!(round_trip(&batch, 1), batch);
        }
    }
}

#[test]
fn text_arrives_from_every_form_that_arrow_has() {
    let random = &mut StdRng::seed_from_u64(7);
    let text = random::array(&Field::new("c", DataType::Utf8, true), 500, random);
    let runs = DataType::RunEndEncoded(
        Arc::new(Field::new("run_ends", DataType::Int32, false)),
        Arc::new(Field::new("values", DataType::Utf8, true)),
    );
    for other in [
        DataType::Utf8View,
        DataType::LargeUtf8,
        dictionary(DataType::Utf8),
        runs,
    ] {
        arrives(&text, &other);
    }
    for other in [DataType::BinaryView, DataType::LargeBinary] {
        arrives(&cast(&text, &DataType::Binary).unwrap(), &other);
    }
}

#[test]
fn numbers_arrive_from_every_form_that_arrow_has() {
    let values = (0..500_i16).map(|row| (row % 5 != 2).then_some(f32::from(row % 100)));
    let floats: ArrayRef = Arc::new(values.collect::<Float32Array>());
    let of = |data_type| cast(&floats, &data_type).unwrap();
    let int = of(DataType::Int32);
    let small = [
        DataType::Int8,
        DataType::Int16,
        DataType::UInt8,
        DataType::UInt16,
    ];
    for other in small.into_iter().chain([dictionary(DataType::Int32)]) {
        arrives(&int, &other);
    }
    for other in [DataType::UInt32, DataType::UInt64] {
        arrives(&of(DataType::Int64), &other);
    }
    let decimals = [
        DataType::Decimal32(9, 2),
        DataType::Decimal64(9, 2),
        DataType::Decimal256(9, 2),
    ];
    for other in decimals {
        arrives(&of(DataType::Decimal128(9, 2)), &other);
    }
    arrives(&of(DataType::Decimal128(5, 0)), &DataType::Decimal128(5, 0));
    arrives(&floats, &DataType::Float16);
    arrives(
        &cast(&cast(&int, &DataType::Date32).unwrap(), &DataType::Date64).unwrap(),
        &DataType::Date32,
    );
}

#[test]
fn times_arrive_from_every_unit() {
    let seconds = Field::new("c", DataType::Int32, true);
    let seconds = random::array(&seconds, 500, &mut StdRng::seed_from_u64(5));
    let seconds = cast(&seconds, &DataType::Int64).unwrap();
    let stamps = cast(&seconds, &DataType::Timestamp(Second, None)).unwrap();
    let stamps = cast(&stamps, &DataType::Timestamp(Millisecond, None)).unwrap();
    for unit in [Second, Microsecond, Nanosecond] {
        arrives(&stamps, &DataType::Timestamp(unit, None));
    }
    let times = cast(&stamps, &DataType::Time32(Millisecond)).unwrap();
    for other in [
        DataType::Time32(Second),
        DataType::Time64(Microsecond),
        DataType::Time64(Nanosecond),
    ] {
        arrives(&times, &other);
    }
}

#[test]
fn durations_arrive_as_days_and_milliseconds() {
    let millis = PrimitiveArray::<Int64Type>::from(vec![86_400_000, -1, 90_000_000, -86_400_001]);
    let millis = cast(&millis, &DataType::Duration(Millisecond)).unwrap();
    let expected: ArrayRef = Arc::new(arrow::array::IntervalDayTimeArray::from(
        [(1, 0), (0, -1), (1, 3_600_000), (-1, -1)]
            .map(|(days, millis)| arrow::datatypes::IntervalDayTime::new(days, millis))
            .to_vec(),
    ));
    for unit in [Millisecond, Microsecond, Nanosecond] {
        let durations = cast(&millis, &DataType::Duration(unit)).unwrap();
        let field = Field::new("c", durations.data_type().clone(), false);
        assert_eq!(
            round_trip(&batch_of(vec![(field, durations)], 4), 0).column(0),
            &expected
        );
    }
}

#[test]
fn a_negative_scale_moves_into_the_value() {
    let hundreds = Decimal128Array::from(vec![Some(12), None, Some(-3)]);
    let hundreds: ArrayRef = Arc::new(hundreds.with_precision_and_scale(5, -2).unwrap());
    let field = Field::new("c", hundreds.data_type().clone(), true);
    let ones = Decimal128Array::from(vec![Some(1200), None, Some(-300)]);
    let ones: ArrayRef = Arc::new(ones.with_precision_and_scale(7, 0).unwrap());
    assert_eq!(
        round_trip(&batch_of(vec![(field, hundreds)], 3), 0).column(0),
        &ones
    );
}

fn dictionary(values: DataType) -> DataType {
    DataType::Dictionary(Box::new(DataType::Int16), Box::new(values))
}

/// `array` sent in its `other` form, whole and sliced, must arrive as `array`.
fn arrives(array: &ArrayRef, other: &DataType) {
    let converted = cast(array, other).unwrap();
    for (start, len) in [(0, array.len()), (13, 200), (3, 0)] {
        let slice = converted.slice(start, len);
        let batch = batch_of(vec![(Field::new("c", other.clone(), true), slice)], len);
        let back = round_trip(&batch, 3);
        assert_eq!(
            back.column(0),
            &array.slice(start, len),
            "{other} {start} {len}"
        );
    }
}

#[test]
fn instants_with_a_zone_arrive_as_the_wall_clock_of_utc() {
    let zoned = PrimitiveArray::<TimestampMillisecondType>::from(vec![Some(-1), None, Some(5)]);
    let plain: ArrayRef = Arc::new(zoned.clone());
    let zoned: ArrayRef = Arc::new(zoned.with_timezone("+02:00"));
    let batch = batch_of(
        vec![(Field::new("c", zoned.data_type().clone(), true), zoned)],
        3,
    );
    assert_eq!(round_trip(&batch, 0).column(0), &plain);
}

#[test]
fn sub_milliseconds_are_rounded_down_also_before_the_epoch() {
    let nanos = PrimitiveArray::<TimestampNanosecondType>::from(vec![-1, 999_999, 1_000_000]);
    let field = Field::new("c", nanos.data_type().clone(), false);
    let back = round_trip(&batch_of(vec![(field, Arc::new(nanos))], 3), 0);
    let millis: ArrayRef = Arc::new(PrimitiveArray::<TimestampMillisecondType>::from(vec![
        -1, 0, 1,
    ]));
    assert_eq!(back.column(0), &millis);
}

#[test]
fn an_untyped_null_arrives_as_a_nullable_int() {
    let nulls: ArrayRef = Arc::new(NullArray::new(9));
    let batch = batch_of(vec![(Field::new("c", DataType::Null, true), nulls)], 9);
    assert_eq!(
        round_trip(&batch, 1).column(0),
        &new_null_array(&DataType::Int32, 9)
    );
}

#[test]
fn a_column_with_nulls_is_optional_whatever_its_field_says() {
    let required = Arc::new(Schema::new(vec![Field::new("c", DataType::Utf8, false)]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let optional = RecordBatch::try_from_iter([("c", texts)]).unwrap();
    let encoded = Encoder::try_new(&required)
        .unwrap()
        .encode(&optional)
        .unwrap();
    let back = decode(&encoded.def, &encoded.joined(), &DecodeOptions::default()).unwrap();
    assert_eq!(back, optional);
}

#[test]
fn values_that_do_not_fit_are_named_by_column_and_row() {
    let numbers: ArrayRef = Arc::new(UInt64Array::from(vec![Some(1), None, Some(u64::MAX)]));
    let field = Field::new("n", DataType::UInt64, true);
    let batch = batch_of(vec![(field.clone(), numbers.clone())], 3);
    let error = Encoder::try_new(&batch.schema())
        .unwrap()
        .encode(&batch)
        .unwrap_err();
    let EncodeError::Column {
        column,
        data_type,
        problem,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((column.as_str(), data_type), ("n", DataType::UInt64));
    assert_eq!(
        problem,
        EncodeProblem::OutOfRange {
            row: 2,
            minor: MinorType::Bigint
        }
    );

    let decimal = [(metadata::MINOR_TYPE.to_owned(), "VARDECIMAL".to_owned())].into();
    let batch = batch_of(vec![(field.with_metadata(decimal), numbers.clone())], 3);
    let back = round_trip(&batch, 0);
    assert_eq!(
        back.column(0),
        &cast(&numbers, &DataType::Decimal128(20, 0)).unwrap()
    );
}

#[test]
fn decimals_of_more_digits_than_38_are_refused_by_row() {
    let most = 10_i128.pow(38) - 1;
    let one_more = i256::from_i128(most).wrapping_add(i256::ONE);
    let field = Field::new("d", DataType::Decimal256(76, 2), true);
    let column = |values: Vec<Option<i256>>| {
        let rows = values.len();
        let array = Decimal256Array::from(values).with_precision_and_scale(76, 2);
        batch_of(vec![(field.clone(), Arc::new(array.unwrap()))], rows)
    };
    let back = round_trip(&column(vec![Some(i256::from_i128(-most)), None]), 0);
    let expected = Decimal128Array::from(vec![Some(-most), None]).with_precision_and_scale(38, 2);
    assert_eq!(back.column(0).as_ref(), &expected.unwrap());

    let batch = column(vec![Some(i256::ONE), None, Some(one_more)]);
    let encoder = Encoder::try_new(&batch.schema()).unwrap();
    assert_eq!(
        encoder.encode(&batch).unwrap_err().to_string(),
        "column d of type Decimal256(76, 2): the value of row 2 does not fit VARDECIMAL"
    );
    // A scale that has no place is refused before any value.
    let wide = Field::new("d", DataType::Decimal256(76, 39), true);
    let error = Encoder::try_new(&Arc::new(Schema::new(vec![wide]))).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("a decimal's scale is 0 to 38 digits"),
        "{error}"
    );
}

#[test]
fn columns_of_another_type_than_the_schemas_are_refused() {
    let schema = Arc::new(Schema::new(vec![Field::new("c", DataType::Int32, false)]));
    let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
    let batch = RecordBatch::try_from_iter([("c", texts)]).unwrap();
    let error = Encoder::try_new(&schema)
        .unwrap()
        .encode(&batch)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "column c of type Int32: the encoder was made for Int32, the batch has Utf8View"
    );
}

#[test]
fn large_columns_are_shared_with_the_frame_and_the_batch() {
    let words: Vec<_> = (0..10_000).map(|row| row.to_string()).collect();
    let texts: ArrayRef = Arc::new(LargeStringArray::from(words));
    let numbers: ArrayRef = Arc::new(PrimitiveArray::<Int64Type>::from_iter_values(0..10_000));
    let batch = RecordBatch::try_from_iter([("n", numbers.clone()), ("t", texts)]).unwrap();
    let encoded = Encoder::try_new(&batch.schema())
        .unwrap()
        .encode(&batch)
        .unwrap();
    assert_eq!(
        encoded.dbody[0].as_ptr(),
        numbers.to_data().buffers()[0].as_ptr()
    );
    let body = encoded.joined();
    let back = decode(&encoded.def, &body, &DecodeOptions::default()).unwrap();
    let data = back.column(1).to_data();
    assert!(body.as_ptr_range().contains(&data.buffers()[1].as_ptr()));
    assert_eq!(back.column(1).get_buffer_memory_size(), body.len() - 80_000);
}
