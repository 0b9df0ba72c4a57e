//! Arrow bodies: every type there and back, Arrow's own reader and writer as judges, and bodies that lie.
#![allow(clippy::unwrap_used, reason = "tests")]

mod random;

use std::{io::Cursor, sync::Arc};

use arrow::{
    array::{
        Array, ArrayData, ArrayRef, AsArray, BooleanArray, DictionaryArray, Int8Array, Int32Array,
        Int64Array, ListArray, ListViewArray, NullArray, RecordBatch, RunArray, StringArray,
        StringViewArray, StructArray, UnionArray, make_array, new_empty_array, new_null_array,
    },
    buffer::OffsetBuffer,
    compute::{cast, filter, take},
    datatypes::{
        DataType, Field, Fields, Int8Type, Int32Type, IntervalUnit, Schema, SchemaRef, TimeUnit,
        UnionFields, UnionMode,
    },
    ipc::{
        MetadataVersion,
        reader::StreamReader,
        writer::{IpcWriteOptions, StreamWriter},
    },
};
use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use record_batch::{
    ArrowBodyError, ArrowDecodeOptions, ArrowDecoder, ArrowEncoder, arrow_body_bytes,
};

fn joined(pieces: &[Bytes]) -> Bytes {
    Bytes::from(pieces.concat())
}

fn decoder() -> ArrowDecoder {
    ArrowDecoder::new(ArrowDecodeOptions::default())
}

/// The bodies of a stream of `batches`.
fn bodies(batches: &[RecordBatch]) -> Vec<Bytes> {
    let mut encoder = ArrowEncoder::try_new(&batches[0].schema()).unwrap();
    let pieces = batches.iter().map(|batch| encoder.encode(batch).unwrap());
    pieces.map(|pieces| joined(&pieces)).collect()
}

fn expect_round_trip(batches: &[RecordBatch]) {
    expect_decoded(batches);
    // One after the other, they are an Arrow stream.
    let stream = bodies(batches).concat();
    let stream = StreamReader::try_new(Cursor::new(stream), None).unwrap();
    let read: Vec<_> = stream.map(Result::unwrap).collect();
    assert_eq!(read, batches);
}

/// As [`expect_round_trip`], of what Arrow's own reader does not take: runs without values.
fn expect_decoded(batches: &[RecordBatch]) {
    let mut decoder = decoder();
    for (body, batch) in bodies(batches).iter().zip(batches) {
        let received = decoder.decode(body).unwrap().unwrap();
        assert_eq!(&received, batch);
        for column in received.columns() {
            column.to_data().validate_full().unwrap();
        }
    }
}

fn list(item: DataType) -> Arc<Field> {
    Arc::new(Field::new_list_field(item, true))
}

/// All of Arrow's types that stand by themselves.
fn scalar_types() -> Vec<DataType> {
    use DataType::{
        Binary, BinaryView, Boolean, Date32, Date64, Decimal32, Decimal64, Decimal128, Decimal256,
        Duration, FixedSizeBinary, Float16, Float32, Float64, Int8, Int16, Int32, Int64, Interval,
        LargeBinary, LargeUtf8, Null, Time32, Time64, Timestamp, UInt8, UInt16, UInt32, UInt64,
        Utf8, Utf8View,
    };
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let mut types = vec![
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
        Utf8,
        LargeUtf8,
        Utf8View,
        Binary,
        LargeBinary,
        BinaryView,
        Date32,
        Date64,
        FixedSizeBinary(3),
        FixedSizeBinary(0),
        Decimal32(7, 2),
        Decimal64(18, -3),
        Decimal128(38, 10),
        Decimal256(76, 76),
        Time32(Second),
        Time32(Millisecond),
        Time64(Microsecond),
        Time64(Nanosecond),
        Interval(IntervalUnit::YearMonth),
        Interval(IntervalUnit::DayTime),
        Interval(IntervalUnit::MonthDayNano),
    ];
    for unit in [Second, Millisecond, Microsecond, Nanosecond] {
        types.extend([
            Duration(unit),
            Timestamp(unit, None),
            Timestamp(unit, Some("+02:00".into())),
        ]);
    }
    types
}

fn nested_types() -> Vec<DataType> {
    let members: Fields = vec![
        Field::new("n", DataType::Int32, true),
        Field::new("t", DataType::Utf8View, true),
    ]
    .into();
    let entries: Fields = vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Int64, true),
    ]
    .into();
    let entries = Arc::new(Field::new("entries", DataType::Struct(entries), false));
    let ends = Arc::new(Field::new("run_ends", DataType::Int32, false));
    let union: UnionFields = [
        (3, Arc::new(Field::new("n", DataType::Int32, true))),
        (5, Arc::new(Field::new("t", DataType::Utf8, true))),
    ]
    .into_iter()
    .collect();
    let dictionary = |keys| DataType::Dictionary(Box::new(keys), Box::new(DataType::Utf8));
    vec![
        DataType::List(list(DataType::Utf8)),
        DataType::LargeList(list(DataType::Struct(members.clone()))),
        DataType::ListView(list(DataType::Int64)),
        DataType::LargeListView(list(DataType::Boolean)),
        DataType::FixedSizeList(list(DataType::Int16), 3),
        DataType::FixedSizeList(list(DataType::Null), 0),
        DataType::Struct(members),
        DataType::Struct(Fields::empty()),
        DataType::Map(entries, true),
        DataType::RunEndEncoded(ends, Arc::new(Field::new("values", DataType::Utf8, true))),
        DataType::Union(union.clone(), UnionMode::Sparse),
        DataType::Union(union, UnionMode::Dense),
        dictionary(DataType::Int8),
        dictionary(DataType::UInt64),
    ]
}

fn one_column(column: ArrayRef) -> RecordBatch {
    let field = Field::new("c", column.data_type().clone(), true);
    RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).unwrap()
}

#[test]
fn every_type_comes_back_empty_and_all_null() {
    for data_type in scalar_types().into_iter().chain(nested_types()) {
        let nulls = one_column(new_null_array(&data_type, 11));
        let empty = one_column(new_empty_array(&data_type));
        expect_round_trip(&[empty, nulls.clone(), nulls.slice(3, 5)]);
    }
}

#[test]
fn random_values_of_nested_schemas_come_back_also_cut() {
    for seed in 0..150 {
        let random = &mut StdRng::seed_from_u64(seed);
        let rows = random.random_range(1..200);
        let names = ["a", "b", "c"];
        let fields: Vec<_> = names
            .iter()
            .map(|name| random::field(name, 3, random))
            .collect();
        let columns = fields
            .iter()
            .map(|field| random::array(field, rows, random))
            .collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let from = random.random_range(0..rows);
        let cut = batch.slice(from, random.random_range(0..=rows - from));
        expect_round_trip(&[batch, cut]);
    }
}

#[test]
fn any_schema_comes_back_also_cut() {
    for seed in 0..300 {
        let batch = random_batches::batch(seed, 30);
        if let Err(error) = ArrowEncoder::try_new(&batch.schema()) {
            let error = error.to_string();
            assert!(error.contains("dictionary-of-dictionary"), "{error}");
            continue;
        }
        let cut = [batch.clone(), batch.slice(7, 11), batch.slice(30, 0)];
        let mut decoder = decoder();
        for (body, batch) in bodies(&cut).iter().zip(&cut) {
            let received = decoder.decode(body).unwrap().unwrap();
            assert_eq!(received.schema(), batch.schema());
            for column in 0..batch.num_columns() {
                assert_eq!(
                    texts(&received, column),
                    texts(batch, column),
                    "seed {seed}"
                );
            }
        }
    }
}

#[test]
fn cut_runs_of_unions_keep_their_values() {
    let members = [
        (2, Arc::new(Field::new("n", DataType::Int32, true))),
        (5, Arc::new(Field::new("t", DataType::Utf8, true))),
    ];
    for mode in [UnionMode::Sparse, UnionMode::Dense] {
        let union = DataType::Union(members.clone().into_iter().collect(), mode);
        let ends = Arc::new(Field::new("run_ends", DataType::Int16, false));
        let values = Arc::new(Field::new("values", union, true));
        let field = Field::new("c", DataType::RunEndEncoded(ends, values), true);
        let batch = random_batches::column(field, 4, 50);
        let cut = [batch.slice(13, 20), batch.slice(50, 0), batch.clone()];
        let mut decoder = decoder();
        for (body, batch) in bodies(&cut).iter().zip(&cut) {
            let received = decoder.decode(body).unwrap().unwrap();
            assert_eq!(texts(&received, 0), texts(batch, 0));
        }
    }
}

/// Not compared by Arrow, which takes no dictionaries of unions as equal.
fn texts(batch: &RecordBatch, column: usize) -> Vec<String> {
    let (schema, array) = (batch.schema(), batch.column(column));
    let rows = 0..batch.num_rows();
    rows.map(|row| random_batches::shown(schema.field(column), array, row))
        .collect()
}

#[test]
fn numbers_text_and_lists_keep_their_values_in_every_width() {
    let numbers: Int64Array = (0..100).map(|n| (n % 7 != 0).then_some(n)).collect();
    let numbers: ArrayRef = Arc::new(numbers);
    for data_type in scalar_types() {
        if let Ok(column) = cast(&numbers, &data_type) {
            let batch = one_column(column);
            expect_round_trip(&[batch.clone(), batch.slice(9, 77), batch.slice(99, 1)]);
        }
    }
    let texts: StringArray = (0..50)
        .map(|n| (n % 5 != 1).then(|| "\u{fc}-".repeat(n)))
        .collect();
    let texts: ArrayRef = Arc::new(texts);
    for data_type in [
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::BinaryView,
    ] {
        let batch = one_column(cast(&texts, &data_type).unwrap());
        expect_round_trip(&[batch.slice(20, 30), batch]);
    }
}

#[test]
fn unions_and_runs_keep_their_values() {
    let children: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![1, 2, 3])),
        Arc::new(StringArray::from(vec![Some("a"), None, Some("c")])),
    ];
    let fields = |offset: i8| -> UnionFields {
        [
            (offset, Arc::new(Field::new("n", DataType::Int32, true))),
            (offset + 2, Arc::new(Field::new("t", DataType::Utf8, true))),
        ]
        .into_iter()
        .collect()
    };
    let sparse = UnionArray::try_new(fields(0), vec![0, 2, 0].into(), None, children.clone());
    let (ids, offsets) = (vec![4, 6, 6, 4, 4, 6], vec![0, 0, 1, 1, 2, 2]);
    let dense = UnionArray::try_new(fields(4), ids.into(), Some(offsets.into()), children);
    expect_round_trip(&[one_column(Arc::new(sparse.unwrap()))]);
    expect_round_trip(&[one_column(Arc::new(dense.unwrap()))]);
    let runs: RunArray<Int32Type> = ["a", "a", "b", "c", "c", "c"].into_iter().collect();
    let runs = one_column(Arc::new(runs));
    expect_round_trip(&[runs.clone(), runs.slice(3, 2)]);
    expect_decoded(&[runs.slice(3, 0)]);
    let item = list(runs.column(0).data_type().clone());
    let none = OffsetBuffer::new(vec![2, 2, 2].into());
    let lists = ListArray::new(item, none, runs.column(0).clone(), None);
    expect_decoded(&[one_column(Arc::new(lists))]);
}

fn dictionary(values: &[&str], keys: &[Option<i8>]) -> RecordBatch {
    let values = Arc::new(StringArray::from(values.to_vec()));
    let keys = Int8Array::from(keys.to_vec());
    one_column(Arc::new(DictionaryArray::<Int8Type>::new(keys, values)))
}

#[test]
fn dictionaries_travel_once_grow_and_are_replaced() {
    let batches = [
        dictionary(&["a", "b"], &[Some(0), None, Some(1)]),
        dictionary(&["a", "b"], &[Some(1)]),
        dictionary(&["a", "b", "c"], &[Some(2), Some(0)]),
        dictionary(&["x"], &[Some(0)]),
    ];
    expect_round_trip(&batches);
    let sizes: Vec<_> = bodies(&batches).iter().map(Bytes::len).collect();
    assert!(sizes[1] < sizes[2] && sizes[1] < sizes[3], "{sizes:?}");
}

#[test]
fn dictionaries_inside_of_dictionaries_of_structs() {
    let inner = dictionary(&["p", "q"], &[Some(0), Some(1)])
        .column(0)
        .clone();
    let member = Field::new("m", inner.data_type().clone(), true);
    let values = StructArray::new(vec![member].into(), vec![inner], None);
    let keys = Int8Array::from(vec![1, 0, 1]);
    let outer = DictionaryArray::<Int8Type>::new(keys, Arc::new(values));
    let beside = dictionary(&["z"], &[Some(0), None, Some(0)])
        .column(0)
        .clone();
    let columns: [(_, ArrayRef); 2] = [("o", Arc::new(outer)), ("b", beside)];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let decoded = decoder()
        .decode(&bodies(std::slice::from_ref(&batch))[0])
        .unwrap()
        .unwrap();
    assert_eq!(decoded.columns(), batch.columns());
}

#[test]
fn what_arrow_writes_is_read() {
    let columns: [(_, ArrayRef); 3] = [
        (
            "n",
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])),
        ),
        (
            "t",
            Arc::new(StringViewArray::from(vec![
                "a",
                "much longer than twelve",
                "",
            ])),
        ),
        ("u", Arc::new(NullArray::new(3))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    // Java and C++ align to 8 bytes.
    for alignment in [8, 64] {
        let options = IpcWriteOptions::try_new(alignment, false, MetadataVersion::V5).unwrap();
        let stream = Vec::new();
        let writer = StreamWriter::try_new_with_options(stream, &batch.schema(), options);
        let mut writer = writer.unwrap();
        writer.write(&batch).unwrap();
        let stream = writer.into_inner().unwrap();
        assert_eq!(
            decoder().decode(&stream.into()).unwrap().as_ref(),
            Some(&batch)
        );
    }
}

#[test]
fn a_stream_without_batches_has_a_schema() {
    let metadata = [("origin".to_owned(), "test".to_owned())].into();
    let field = Field::new("c", DataType::Int32, false).with_metadata(metadata);
    let schema: SchemaRef = Arc::new(Schema::new(vec![field]));
    let mut decoder = decoder();
    let body = joined(&ArrowEncoder::schema_only(&schema).unwrap());
    assert_eq!(decoder.decode(&body).unwrap(), None);
    assert_eq!(decoder.schema(), Some(&schema));
}

#[test]
fn large_buffers_are_referenced_and_every_buffer_counts_only_itself() {
    let column = || -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..100_000)) };
    let batch = RecordBatch::try_from_iter([("a", column()), ("b", column())]).unwrap();
    let mut encoder = ArrowEncoder::try_new(&batch.schema()).unwrap();
    let pieces = encoder.encode(&batch).unwrap();
    let values = batch.column(0).to_data().buffers()[0].as_ptr();
    assert!(pieces.iter().any(|piece| piece.as_ptr() == values));
    let decoded = decoder().decode(&joined(&pieces)).unwrap().unwrap();
    let memory = decoded.get_array_memory_size();
    assert!((1_600_000..1_700_000).contains(&memory), "{memory}");
}

// ---- what rows need, and no more ----

/// Bytes of the second body of a stream, which has no schema and no dictionary that the first had.
fn later_bytes(batch: &RecordBatch) -> usize {
    bodies(&[batch.clone(), batch.clone()])[1].len()
}

/// Heads, padding and what is rounded.
fn expect_size(batch: &RecordBatch) {
    let (expected, actual) = (arrow_body_bytes(batch), later_bytes(batch));
    let overhead = 2_000 + expected / 10;
    let types = batch.schema();
    assert!(
        actual <= expected + overhead && expected <= actual + overhead,
        "{actual} bytes, {expected} expected of {} rows: {types}",
        batch.num_rows()
    );
}

#[test]
fn bodies_are_about_as_long_as_expected_of_every_type_also_cut() {
    for data_type in scalar_types().into_iter().chain(nested_types()) {
        let data_type = match data_type {
            DataType::Dictionary(..) => continue,
            // Random maps are in no order.
            DataType::Map(entries, _) => DataType::Map(entries, false),
            other => other,
        };
        let field = Field::new("c", data_type, true);
        let batch = random_batches::column(field, 11, 4_000);
        expect_size(&batch);
        expect_size(&batch.slice(1_000, 700));
        expect_size(&batch.slice(3_990, 5));
        expect_size(&batch.slice(3_990, 0));
    }
}

/// Texts that are too long to stand in their views.
fn long_views(rows: usize) -> ArrayRef {
    let texts = (0..rows).map(|row| format!("{row:0100}"));
    Arc::new(StringViewArray::from_iter_values(texts))
}

/// All of `column`, and what is cut out of it by rows, or filtered, is sent in about as many bytes as the rows have.
fn expect_no_excess(column: &ArrayRef, row_bytes: usize) {
    let every_tenth: BooleanArray = (0..column.len()).map(|row| Some(row % 10 == 0)).collect();
    let filtered = filter(column, &every_tenth).unwrap();
    for column in [
        column.clone(),
        column.slice(333, 500),
        filtered.slice(3, 50),
    ] {
        let batch = one_column(column);
        let expected = batch.num_rows() * row_bytes;
        let actual = later_bytes(&batch);
        assert!(actual <= expected + 2_000, "{actual}, {expected} expected");
        expect_size(&batch);
        expect_decoded(&[batch]);
    }
}

#[test]
fn values_that_no_row_has_are_left_out() {
    let views = long_views(10_000);
    expect_no_excess(&views, 116);
    expect_no_excess(&cast(&views, &DataType::BinaryView).unwrap(), 116);
    let offsets = OffsetBuffer::from_lengths(vec![4; 2_500]);
    let lists = ListArray::new(list(DataType::Utf8View), offsets, views.clone(), None);
    expect_no_excess(&(Arc::new(lists) as ArrayRef), 4 + 4 * 116);
    let (starts, sizes): (Vec<_>, Vec<_>) = (0..2_500).map(|row| (4 * row, 4)).unzip();
    let (item, nulls) = (list(DataType::Utf8View), None);
    let lists = ListViewArray::new(item, starts.into(), sizes.into(), views.clone(), nulls);
    expect_no_excess(&(Arc::new(lists) as ArrayRef), 8 + 4 * 116);
    let member = Field::new("v", DataType::Utf8View, true);
    let structs = StructArray::new(vec![member.clone()].into(), vec![views.clone()], None);
    expect_no_excess(&(Arc::new(structs) as ArrayRef), 116);
    let members: UnionFields = [(1, Arc::new(member))].into_iter().collect();
    let (ids, offsets) = (vec![1; 10_000], (0..10_000).collect::<Vec<_>>());
    let unions = UnionArray::try_new(members, ids.into(), Some(offsets.into()), vec![views]);
    expect_no_excess(&(Arc::new(unions.unwrap()) as ArrayRef), 5 + 116);
}

#[test]
fn list_views_of_rows_without_elements_keep_their_values() {
    let items: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
    let item = list(DataType::Int64);
    // Those of size 0 are anywhere; some overlap, some run backwards.
    let (starts, sizes) = (vec![0, 900, 500, 999, 499, 3], vec![0, 2, 3, 0, 2, 0]);
    let lists = ListViewArray::new(item, starts.into(), sizes.into(), items, None);
    let batch = one_column(Arc::new(lists));
    expect_decoded(&[batch.clone(), batch.slice(2, 3), batch.slice(3, 1)]);
}

#[test]
fn views_that_show_most_of_their_buffers_are_not_copied() {
    let views = long_views(1_000);
    let batch = one_column(views.slice(0, 600));
    let mut encoder = ArrowEncoder::try_new(&batch.schema()).unwrap();
    let pieces = encoder.encode(&batch).unwrap();
    let data = views.as_string_view().data_buffers().iter();
    let data = data.map(|buffer| buffer[..].as_ptr()).collect::<Vec<_>>();
    let shared = pieces.iter().filter(|piece| data.contains(&piece.as_ptr()));
    assert!(shared.count() > 0);
}

#[test]
fn large_dictionaries_are_cut_to_what_rows_have_and_others_are_sent_once() {
    for (values, is_cut) in [(1_000, false), (20_000, true)] {
        let texts = cast(&long_views(values), &DataType::Utf8).unwrap();
        let keys = Int32Array::from_iter_values((0..500).map(|row| row % 100));
        let column = DictionaryArray::<Int32Type>::new(keys, texts);
        let batch = one_column(Arc::new(column));
        let stream = bodies(&[batch.clone(), batch.slice(100, 50)]);
        let expected = if is_cut { 100 * 104 } else { values * 104 } + 500 * 4;
        assert!(stream[0].len() <= expected + 2_000, "{}", stream[0].len());
        let once = if is_cut { 50 * 104 } else { 0 };
        assert!(stream[1].len() <= once + 2_000, "{}", stream[1].len());
        expect_decoded(&[batch.clone(), batch.slice(100, 50)]);
    }
}

// ---- bodies that lie ----

fn sample() -> Bytes {
    let columns: [(_, ArrayRef); 2] = [
        (
            "n",
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])),
        ),
        ("t", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
    ];
    bodies(&[RecordBatch::try_from_iter(columns).unwrap()]).remove(0)
}

#[test]
fn every_truncation_is_refused() {
    let body = sample();
    let schema_bytes = joined(&ArrowEncoder::schema_only(&one_schema()).unwrap()).len() - 8;
    for len in 1..body.len() {
        let decoded = decoder().decode(&body.slice(..len));
        // Without its batch, a body still brings the schema.
        assert!(
            len == schema_bytes || decoded.is_err(),
            "{len}: {decoded:?}"
        );
    }
}

fn one_schema() -> SchemaRef {
    let mut decoder = decoder();
    decoder.decode(&sample()).unwrap();
    Arc::clone(decoder.schema().unwrap())
}

#[test]
fn messages_out_of_order_are_refused() {
    let body = sample();
    let schema = joined(&ArrowEncoder::schema_only(&one_schema()).unwrap());
    let schema = schema.slice(..schema.len() - 8);
    let batch = body.slice(schema.len()..);
    let no_schema = decoder().decode(&batch).unwrap_err();
    assert!(matches!(no_schema, ArrowBodyError::NoSchema), "{no_schema}");
    let twice = Bytes::from([&*schema, &*schema].concat());
    let twice = decoder().decode(&twice).unwrap_err();
    assert!(matches!(twice, ArrowBodyError::SecondSchema), "{twice}");
    let behind = Bytes::from([&*body, &*batch].concat());
    let behind = decoder().decode(&behind).unwrap_err();
    assert!(matches!(behind, ArrowBodyError::BehindTheBatch), "{behind}");
    let marker = decoder()
        .decode(&Bytes::from_static(b"ARROW1\0\0"))
        .unwrap_err();
    assert!(matches!(marker, ArrowBodyError::Marker { .. }), "{marker}");
}

#[test]
fn rows_and_dictionaries_have_a_limit() {
    let few = ArrowDecodeOptions {
        rows_max: 10,
        dictionary_bytes_max: 50,
        ..ArrowDecodeOptions::default()
    };
    let nulls = bodies(&[one_column(Arc::new(NullArray::new(11)))]).remove(0);
    let rows = ArrowDecoder::new(few.clone()).decode(&nulls).unwrap_err();
    assert!(
        matches!(
            rows,
            ArrowBodyError::RowCount {
                rows: 11,
                rows_max: 10
            }
        ),
        "{rows}"
    );
    let long = "x".repeat(100);
    let dictionary = bodies(&[dictionary(&[&*long], &[Some(0)])]).remove(0);
    let bytes = ArrowDecoder::new(few).decode(&dictionary).unwrap_err();
    assert!(
        matches!(bytes, ArrowBodyError::DictionaryBytes { .. }),
        "{bytes}"
    );
}

/// Lists of `size` items that take no bytes, the first of `rows` being null.
fn lists_of_nothing(item: &Arc<Field>, size: i32, rows: usize) -> ArrayRef {
    let items = rows * usize::try_from(size).unwrap();
    let items = match item.data_type() {
        DataType::Null => ArrayData::new_null(&DataType::Null, items),
        DataType::Struct(_) => StructArray::new_empty_fields(items, None).into(),
        data_type => panic!("{data_type}"),
    };
    let lists = ArrayData::builder(DataType::FixedSizeList(Arc::clone(item), size))
        .len(rows)
        .nulls(Some((0..rows).map(|row| row > 0).collect()))
        .add_child_data(items);
    make_array(lists.build().unwrap())
}

/// Decodes the only body of a stream of columns like this one, at most 1,000 rows.
fn decode_thousand(columns: usize, column: &ArrayRef) -> Result<RecordBatch, ArrowBodyError> {
    let named = (0..columns).map(|number| (number.to_string(), Arc::clone(column), true));
    let batch = RecordBatch::try_from_iter_with_nullable(named).unwrap();
    let mut decoder = ArrowDecoder::new(ArrowDecodeOptions {
        rows_max: 1_000,
        ..ArrowDecodeOptions::default()
    });
    let body = bodies(&[batch]).remove(0);
    decoder.decode(&body).map(Option::unwrap)
}

fn expect_too_many(columns: usize, column: &ArrayRef, expected: &str) {
    let error = decode_thousand(columns, column).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn items_that_take_no_bytes_have_a_limit_in_every_column() {
    const ALLOWED: &str = " values that take no bytes, at most 1000 allowed";
    for item in [DataType::Null, DataType::Struct(Fields::empty())] {
        let item = list(item);
        assert!(decode_thousand(50, &lists_of_nothing(&item, 100, 10)).is_ok());
        let too_long = format!("column 0.item: 1010{ALLOWED}");
        expect_too_many(1, &lists_of_nothing(&item, 101, 10), &too_long);
    }
    let nulls = |item: DataType, nulls: usize| -> ArrayRef {
        let offsets = OffsetBuffer::from_lengths([nulls]);
        let lists = ListArray::new(
            list(item.clone()),
            offsets,
            new_null_array(&item, nulls),
            None,
        );
        Arc::new(lists)
    };
    let ends = Arc::new(Field::new("run_ends", DataType::Int32, false));
    let values = Arc::new(Field::new("values", DataType::Null, true));
    let member = Field::new("m", DataType::Null, true);
    for item in [
        DataType::RunEndEncoded(ends, values),
        DataType::FixedSizeBinary(0),
        DataType::FixedSizeList(list(DataType::Int64), 0),
        DataType::Struct(vec![member].into()),
    ] {
        let is_fine = decode_thousand(50, &nulls(item.clone(), 1_000));
        assert!(is_fine.is_ok(), "{item}: {is_fine:?}");
        expect_too_many(1, &nulls(item, 1_001), &format!("1001{ALLOWED}"));
    }
}

#[test]
fn items_that_must_not_be_null_and_take_no_bytes_are_looked_at_within_a_limit_of_all_columns() {
    for item in [DataType::Null, DataType::Struct(Fields::empty())] {
        let item = Arc::new(Field::new("item", item, false));
        let lists = lists_of_nothing(&item, 100, 5);
        assert!(decode_thousand(2, &lists).is_ok());
        let third = "column 2: 500 values that take no bytes, at most 1000 allowed";
        expect_too_many(3, &lists, third);
        assert!(decode_thousand(50, &lists.slice(1, 4)).is_ok(), "no nulls");
    }
}

#[test]
fn a_hundred_bytes_are_not_two_billion_items() {
    let item = Arc::new(Field::new("item", DataType::Null, false));
    let (size, rows) = (77_777, 8);
    let mut body = bodies(&[one_column(lists_of_nothing(&item, size, rows))])[0].to_vec();
    let mut replace = |old: &[u8], new: &[u8]| {
        let at = body.windows(old.len()).position(|bytes| bytes == old);
        body[at.unwrap()..][..new.len()].copy_from_slice(new);
    };
    replace(&size.to_le_bytes(), &268_435_455_i32.to_le_bytes());
    replace(
        &(77_777_i64 * 8).to_le_bytes(),
        &2_147_483_640_i64.to_le_bytes(),
    );
    let error = decoder().decode(&body.into()).unwrap_err().to_string();
    assert!(
        error.contains(": 2147483640 values that take no bytes"),
        "{error}"
    );
}

/// The messages of a body, without the end of the stream.
fn messages(mut body: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while body.len() > 8 {
        let prefix = u32::from_le_bytes(body[4..8].try_into().unwrap());
        let header = body.slice(8..8 + prefix as usize);
        let length = arrow::ipc::root_as_message(&header).unwrap().bodyLength();
        let end = 8 + header.len() + usize::try_from(length).unwrap();
        messages.push(body.split_to(end));
    }
    messages
}

#[test]
fn a_dictionary_comes_once_in_a_body() {
    let stream = bodies(&[
        dictionary(&["a", "b"], &[Some(0)]),
        dictionary(&["a", "b", "c"], &[Some(2)]),
    ]);
    let [delta, batch] = &messages(stream[1].clone())[..] else {
        panic!("two messages");
    };
    let once = Bytes::from([&**delta, &**batch].concat());
    let twice = Bytes::from([&**delta, &**delta, &**batch].concat());
    let mut decoder = decoder();
    decoder.decode(&stream[0]).unwrap().unwrap();
    // As often as one likes, in bodies of their own.
    for _ in 0..3 {
        decoder.decode(&once).unwrap().unwrap();
    }
    let alone = decoder.decode(delta).unwrap_err();
    assert!(matches!(alone, ArrowBodyError::Malformed(_)), "{alone}");
    let twice = decoder.decode(&twice).unwrap_err();
    assert!(
        matches!(twice, ArrowBodyError::SecondDictionary { .. }),
        "{twice}"
    );
}

#[test]
fn replaced_dictionaries_count_no_more() {
    let long = |letter: &str| letter.repeat(1_000);
    let values: Vec<_> = ["a", "b", "c", "d"].map(long).into();
    let batches: Vec<_> = values
        .iter()
        .map(|value| dictionary(&[value], &[Some(0)]))
        .collect();
    let mut decoder = ArrowDecoder::new(ArrowDecodeOptions {
        dictionary_bytes_max: 2_500,
        ..ArrowDecodeOptions::default()
    });
    for (body, batch) in bodies(&batches).iter().zip(&batches) {
        assert_eq!(decoder.decode(body).unwrap().as_ref(), Some(batch));
    }
}

#[test]
fn a_schema_nested_too_deep_is_refused_by_name() {
    let deep = (0..40).fold(DataType::Int32, |inner, _| DataType::List(list(inner)));
    let body = bodies(&[one_column(new_empty_array(&deep))]).remove(0);
    let error = decoder().decode(&body).unwrap_err();
    assert!(error.to_string().ends_with("nested too deep"), "{error}");
}

#[test]
fn text_that_is_not_utf8_is_refused_by_column() {
    let body = sample();
    let at = body.windows(3).position(|bytes| bytes == b"abc").unwrap();
    let mut broken = body.to_vec();
    broken[at + 1] = 0xff;
    let error = decoder().decode(&broken.into()).unwrap_err();
    assert!(error.to_string().starts_with("column t: "), "{error}");
}

/// A body of two columns of numbers, and where in it the place of the second one's values is said.
fn numbers_and_place() -> (Vec<u8>, usize) {
    let column = || -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..1_000)) };
    let batch = RecordBatch::try_from_iter([("a", column()), ("b", column())]).unwrap();
    let body = bodies(&[batch]).remove(0);
    let place = [8_000_u64, 8_000].map(u64::to_le_bytes).concat();
    let mut windows = body.windows(16);
    let at = windows.rposition(|bytes| bytes == place).unwrap();
    (body.to_vec(), at)
}

#[test]
fn buffers_that_overlap_are_refused_by_column() {
    let (body, at) = numbers_and_place();
    // Also where it is not aligned, and would be copied.
    for offset in [0, 1, 7_992, 7_999_u64] {
        let mut body = body.clone();
        body[at..at + 8].copy_from_slice(&offset.to_le_bytes());
        let error = decoder().decode(&body.into()).unwrap_err().to_string();
        let expected = format!("column b: a buffer at {offset}, expected at 8000 or above");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn what_is_empty_may_be_anywhere() {
    let (body, at) = numbers_and_place();
    let expected = decoder().decode(&body.clone().into()).unwrap();
    // The validity, which has no bytes.
    let at = at - 16;
    assert_eq!(body[at + 8..at + 16], [0; 8]);
    for offset in [0, 1, -1, 16_000, i64::MAX] {
        let mut body = body.clone();
        body[at..at + 8].copy_from_slice(&offset.to_le_bytes());
        assert_eq!(decoder().decode(&body.into()).unwrap(), expected);
    }
}

#[test]
fn views_that_are_not_text_are_refused_and_many_of_the_same_text_are_not_read_one_by_one() {
    let long = "\u{fc}".repeat(1 << 19);
    let one = StringViewArray::from_iter_values([&long]);
    // 200 GB of text, one by one.
    let same = take(&one, &Int32Array::from(vec![0; 200_000]), None).unwrap();
    let batch = one_column(same);
    let body = bodies(std::slice::from_ref(&batch)).remove(0);
    let read = decoder().decode(&body).unwrap().unwrap();
    assert_eq!(read.column(0).as_string_view().value(199_999), long);
    // Within the text, behind its start, which stands in the views too.
    let at = body
        .windows(64)
        .rposition(|bytes| bytes == &long.as_bytes()[..64]);
    let mut broken = body.to_vec();
    broken[at.unwrap() + 5] = b'a';
    let error = decoder().decode(&broken.into()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("column c: bytes that are not"),
        "{error}"
    );
}

/// Streams to start from: every type, nested ones with values, dictionaries.
fn seeds() -> Vec<Vec<Bytes>> {
    let nulls = scalar_types().into_iter().chain(nested_types());
    let mut seeds: Vec<_> = nulls
        .map(|data_type| bodies(&[one_column(new_null_array(&data_type, 4))]))
        .collect();
    let random = &mut StdRng::seed_from_u64(5);
    for _ in 0..40 {
        let fields: Vec<_> = (0..2).map(|_| random::field("c", 3, random)).collect();
        let columns = fields
            .iter()
            .map(|field| random::array(field, 5, random))
            .collect();
        seeds.push(bodies(&[RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            columns,
        )
        .unwrap()]));
    }
    seeds.push(bodies(&[
        dictionary(&["a", "b"], &[Some(0)]),
        dictionary(&["a", "b", "c"], &[Some(2)]),
    ]));
    seeds
}

/// Mutations of one seed; the seed number makes a finding repeatable.
fn mutate(seed: u64, seeds: &[Vec<Bytes>]) {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut stream = seeds.choose(random).unwrap().clone();
    let body = random.random_range(0..stream.len());
    let mut bytes = stream[body].to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..4) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = *[0, 1, 0x7f, 0x80, 0xff].choose(random).unwrap(),
            2 => {
                let word = *[0, 1, -1, i32::MAX, i32::MIN, 64].choose(random).unwrap();
                let at = at / 4 * 4;
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
    stream[body] = bytes.into();
    record_batch::fuzzing::arrow_bodies(&stream);
}

#[test]
fn mutated_streams_never_panic_and_survive_when_accepted() {
    let seeds = seeds();
    // RECORD_BATCH_MUTATIONS=10000000 cargo test --release -p record-batch --test arrow_bodies mutated
    let count = std::env::var("RECORD_BATCH_MUTATIONS").map_or(20_000, |n| n.parse().unwrap());
    for seed in 0..count {
        mutate(seed, &seeds);
    }
}
