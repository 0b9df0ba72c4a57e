//! Every format over every type, NULLs, odd text, no rows and schema changes.

use std::{slice, sync::Arc};

use arrow::{
    array::*, buffer::ScalarBuffer, compute::concat_batches, datatypes::*,
    ipc::reader::StreamReader,
};

use super::*;

fn render(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut renderer = ResultRenderer::new(format, Place::First, &mut out);
    for batch in batches {
        renderer.batch(batch, &mut out).unwrap();
    }
    renderer.finish(&mut out).unwrap();
    out
}

fn text(format: Format, batches: &[RecordBatch]) -> String {
    String::from_utf8(render(format, batches)).unwrap()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap()
}

fn strings(name: &str, values: Vec<Option<&str>>) -> RecordBatch {
    batch(vec![(name, Arc::new(StringArray::from(values)))])
}

/// One column of each type, a value and a NULL each, and how the value looks as CSV and as JSON.
fn all_types() -> Vec<(ArrayRef, &'static str, &'static str)> {
    let mut types = numbers();
    types.extend(texts_and_bytes());
    types.extend(times());
    types.extend(nested());
    types
}

fn numbers() -> Vec<(ArrayRef, &'static str, &'static str)> {
    vec![
        (Arc::new(NullArray::new(2)), "", "null"),
        (
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            "true",
            "true",
        ),
        (
            Arc::new(Int8Array::from(vec![Some(-128), None])),
            "-128",
            "-128",
        ),
        (
            Arc::new(Int16Array::from(vec![Some(-32768), None])),
            "-32768",
            "-32768",
        ),
        (Arc::new(Int32Array::from(vec![Some(-1), None])), "-1", "-1"),
        (
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
            "-9223372036854775808",
            "-9223372036854775808",
        ),
        (
            Arc::new(UInt8Array::from(vec![Some(255), None])),
            "255",
            "255",
        ),
        (
            Arc::new(UInt16Array::from(vec![Some(65535), None])),
            "65535",
            "65535",
        ),
        (
            Arc::new(UInt32Array::from(vec![Some(u32::MAX), None])),
            "4294967295",
            "4294967295",
        ),
        (
            Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])),
            "18446744073709551615",
            "18446744073709551615",
        ),
        (
            Arc::new(Float32Array::from(vec![Some(0.5), None])),
            "0.5",
            "0.5",
        ),
        (
            Arc::new(Float64Array::from(vec![Some(f64::NAN), None])),
            "NaN",
            "null",
        ),
        (
            decimal(),
            "-12345678901234567890.12",
            "-12345678901234567890.12",
        ),
    ]
}

fn decimal() -> ArrayRef {
    let values = Decimal128Array::from(vec![Some(-1_234_567_890_123_456_789_012), None]);
    Arc::new(values.with_precision_and_scale(38, 2).unwrap())
}

fn texts_and_bytes() -> Vec<(ArrayRef, &'static str, &'static str)> {
    let bytes: Vec<Option<&[u8]>> = vec![Some(b"\x00\xff"), None];
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None].into_iter().collect();
    let runs: RunArray<Int32Type> = vec![Some("a"), None].into_iter().collect();
    vec![
        (
            Arc::new(StringArray::from(vec![Some("ä"), None])),
            "ä",
            "\"ä\"",
        ),
        (
            Arc::new(LargeStringArray::from(vec![Some("a"), None])),
            "a",
            "\"a\"",
        ),
        (
            Arc::new(StringViewArray::from(vec![Some("a"), None])),
            "a",
            "\"a\"",
        ),
        (
            Arc::new(BinaryArray::from(bytes.clone())),
            "00ff",
            "\"00ff\"",
        ),
        (
            Arc::new(LargeBinaryArray::from(bytes.clone())),
            "00ff",
            "\"00ff\"",
        ),
        (Arc::new(BinaryViewArray::from(bytes)), "00ff", "\"00ff\""),
        (Arc::new(dictionary), "a", "\"a\""),
        (Arc::new(runs), "a", "\"a\""),
    ]
}

fn times() -> Vec<(ArrayRef, &'static str, &'static str)> {
    let day = 86_400_000;
    let noon = 43_200_123;
    vec![
        (
            Arc::new(Date32Array::from(vec![Some(1), None])),
            "1970-01-02",
            "\"1970-01-02\"",
        ),
        (
            Arc::new(Date64Array::from(vec![Some(day), None])),
            "1970-01-02",
            "\"1970-01-02\"",
        ),
        (
            Arc::new(Time32MillisecondArray::from(vec![Some(43_200_123), None])),
            "12:00:00.123",
            "\"12:00:00.123\"",
        ),
        (
            Arc::new(TimestampMillisecondArray::from(vec![Some(noon), None])),
            "1970-01-01 12:00:00.123",
            "\"1970-01-01T12:00:00.123\"",
        ),
        (
            Arc::new(TimestampSecondArray::from(vec![Some(0), None]).with_timezone("+01:00")),
            "1970-01-01T01:00:00+01:00",
            "\"1970-01-01T01:00:00+01:00\"",
        ),
        (
            Arc::new(IntervalYearMonthArray::from(vec![Some(14), None])),
            "1 years 2 mons",
            "\"1 years 2 mons\"",
        ),
        (
            Arc::new(IntervalDayTimeArray::from(vec![
                Some(IntervalDayTime::new(1, 2_500)),
                None,
            ])),
            "1 days 2.500 secs",
            "\"1 days 2.500 secs\"",
        ),
        (
            Arc::new(IntervalMonthDayNanoArray::from(vec![
                Some(IntervalMonthDayNano::new(14, 3, 4_000_000_000)),
                None,
            ])),
            "14 mons 3 days 4.000000000 secs",
            "\"14 mons 3 days 4.000000000 secs\"",
        ),
        (
            Arc::new(DurationSecondArray::from(vec![Some(60), None])),
            "PT60S",
            "\"PT60S\"",
        ),
    ]
}

fn nested() -> Vec<(ArrayRef, &'static str, &'static str)> {
    let list =
        ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    let field = Arc::new(Field::new("a", DataType::Utf8, true));
    let value: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None]));
    let nulls = Some(vec![true, false].into());
    let object = StructArray::new(vec![field].into(), vec![value], nulls);
    vec![
        (Arc::new(list), "\"[1,null]\"", "[1,null]"),
        (
            Arc::new(object),
            "\"{\"\"a\"\":\"\"x\"\"}\"",
            "{\"a\":\"x\"}",
        ),
        (string_map(), "\"{\"\"k\"\":1}\"", "{\"k\":1}"),
        (int_map(), "{7: 1}", "\"{7: 1}\""),
    ]
}

fn string_map() -> ArrayRef {
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    map.keys().append_value("k");
    map.values().append_value(1);
    map.append(true).unwrap();
    map.append(false).unwrap();
    Arc::new(map.finish())
}

fn int_map() -> ArrayRef {
    let mut map = MapBuilder::new(None, Int32Builder::new(), Int32Builder::new());
    map.keys().append_value(7);
    map.values().append_value(1);
    map.append(true).unwrap();
    map.append(false).unwrap();
    Arc::new(map.finish())
}

#[test]
fn every_type_has_a_csv_form_and_null_is_empty() {
    for (array, csv, _) in all_types() {
        let data_type = array.data_type().clone();
        let shown = text(Format::Csv, &[batch(vec![("c", array)])]);
        assert_eq!(shown, format!("c\n{csv}\n\n"), "{data_type}");
    }
}

#[test]
fn every_type_has_a_json_form_and_null_is_null() {
    for (array, _, json) in all_types() {
        let data_type = array.data_type().clone();
        let shown = text(Format::Ndjson, &[batch(vec![("c", array)])]);
        assert_eq!(
            shown,
            format!("{{\"c\":{json}}}\n{{\"c\":null}}\n"),
            "{data_type}"
        );
        for line in shown.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}

#[test]
fn every_type_has_a_table_form() {
    for (array, _, _) in all_types() {
        let data_type = array.data_type().clone();
        let shown = text(Format::Table, &[batch(vec![("c", array)])]);
        assert_eq!(shown.lines().count(), 6, "{data_type}");
        assert!(shown.contains("null"), "{data_type}: {shown}");
    }
}

#[test]
fn every_type_survives_arrow() {
    for (array, _, _) in all_types() {
        let whole = batch(vec![("c", array)]);
        let parts = [whole.slice(0, 1), whole.slice(1, 1)];
        let bytes = render(Format::Arrow, &parts);
        let read: Vec<_> = StreamReader::try_new(&bytes[..], None)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let read = concat_batches(&whole.schema(), &read);
        // Runs cannot be concatenated; their count must do.
        if let Ok(read) = read {
            assert_eq!(read, whole);
        }
    }
}

#[test]
fn a_union_is_shown_and_does_not_fail() {
    let fields = UnionFields::try_new(
        [0, 1],
        [
            Field::new("i", DataType::Int32, true),
            Field::new("s", DataType::Utf8, true),
        ],
    )
    .unwrap();
    let children: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![Some(1), None])),
        Arc::new(StringArray::from(vec![None, Some("a\"b")])),
    ];
    let types = ScalarBuffer::from(vec![0_i8, 1]);
    let union = UnionArray::try_new(fields, types, None, children).unwrap();
    let batch = batch(vec![("c", Arc::new(union))]);
    assert_eq!(
        text(Format::Ndjson, slice::from_ref(&batch)),
        "{\"c\":\"{i=1}\"}\n{\"c\":\"{s=a\\\"b}\"}\n"
    );
    assert_eq!(text(Format::Csv, &[batch]), "c\n{i=1}\n\"{s=a\"\"b}\"\n");
}

#[test]
fn csv_quotes_what_must_be_quoted() {
    let values = vec![
        Some("a,b"),
        Some("say \"hi\""),
        Some("two\nlines"),
        Some("cr\r"),
        Some(""),
        None,
        Some(" x "),
    ];
    let expected = "\"a,b\"\n\"a,b\"\n\"say \"\"hi\"\"\"\n\"two\nlines\"\n\"cr\r\"\n\"\"\n\n x \n";
    assert_eq!(text(Format::Csv, &[strings("a,b", values)]), expected);
}

#[test]
fn a_table_aligns_text_left_and_numbers_right_in_terminal_cells() {
    let batch = batch(vec![
        ("name", Arc::new(StringArray::from(vec![Some("雪"), None]))),
        ("n", Arc::new(Int32Array::from(vec![7, 1000]))),
    ]);
    let expected = "\
+------+------+
| name |    n |
+------+------+
| 雪   |    7 |
| null | 1000 |
+------+------+
";
    assert_eq!(text(Format::Table, &[batch]), expected);
}

#[test]
fn a_table_shows_control_characters_and_never_sends_them() {
    let shown = text(
        Format::Table,
        &[strings("c", vec![Some("\u{1b}[2J\ttab\nline")])],
    );
    assert!(shown.contains("\\u{1b}[2J\\ttab\\nline"), "{shown}");
    assert!(!shown.contains('\u{1b}'));
}

#[test]
fn a_long_table_streams_before_its_end() {
    let rows = strings("c", vec![Some("x"); 1_500]);
    let mut out = Vec::new();
    let mut renderer = ResultRenderer::new(Format::Table, Place::First, &mut out);
    renderer.batch(&rows, &mut out).unwrap();
    assert_eq!(out.split(|&byte| byte == b'\n').count(), 1_500 + 3 + 1);
}

#[test]
fn no_rows_still_give_the_columns() {
    let empty = strings("c", vec![]);
    assert_eq!(
        text(Format::Table, slice::from_ref(&empty)),
        "+---+\n| c |\n+---+\n+---+\n"
    );
    assert_eq!(text(Format::Csv, slice::from_ref(&empty)), "c\n");
    assert_eq!(text(Format::Json, slice::from_ref(&empty)), "[]\n");
    assert_eq!(text(Format::Ndjson, slice::from_ref(&empty)), "");
    let bytes = render(Format::Arrow, &[empty]);
    assert_eq!(
        StreamReader::try_new(&bytes[..], None)
            .unwrap()
            .schema()
            .field(0)
            .name(),
        "c"
    );
}

#[test]
fn a_result_without_columns_is_no_error() {
    let none = RecordBatch::new_empty(Arc::new(Schema::empty()));
    for format in Format::value_variants() {
        render(*format, slice::from_ref(&none));
        render(*format, &[]);
    }
    assert_eq!(text(Format::Csv, slice::from_ref(&none)), "");
    assert_eq!(text(Format::Table, slice::from_ref(&none)), "");
    assert_eq!(text(Format::Json, &[none]), "[]\n");
}

#[test]
fn a_schema_batch_in_front_does_not_fix_the_types() {
    let provisional = batch(vec![("c", Arc::new(Int32Array::from(Vec::<i32>::new())))]);
    let rows = strings("d", vec![Some("x")]);
    for format in Format::value_variants() {
        let with = render(*format, &[provisional.clone(), rows.clone()]);
        assert_eq!(with, render(*format, slice::from_ref(&rows)), "{format:?}");
    }
}

#[test]
fn a_change_of_type_is_fine_for_text_and_refused_by_arrow() {
    let numbers = batch(vec![("c", Arc::new(Int32Array::from(vec![1])))]);
    let words = strings("c", vec![Some("x")]);
    let both = [numbers, words];
    assert_eq!(text(Format::Csv, &both), "c\n1\nx\n");
    assert_eq!(
        text(Format::Json, &both),
        "[\n{\"c\":1},\n{\"c\":\"x\"}\n]\n"
    );
    assert_eq!(text(Format::Table, &both).matches("| c |").count(), 2);
    let error = failure(Format::Arrow, &both);
    assert!(error.contains("from [c Int32] to [c Utf8]"), "{error}");
}

#[test]
fn a_change_of_names_is_refused_by_csv() {
    let error = failure(
        Format::Csv,
        &[strings("a", vec![None]), strings("b", vec![None])],
    );
    assert!(error.contains("CSV") && error.contains("ndjson"), "{error}");
}

#[test]
fn a_late_null_is_no_schema_change_for_arrow() {
    let required =
        RecordBatch::try_from_iter([("c", Arc::new(Int32Array::from(vec![1])) as ArrayRef)])
            .unwrap();
    let optional = batch(vec![("c", Arc::new(Int32Array::from(vec![None])))]);
    let bytes = render(Format::Arrow, &[required, optional]);
    assert_eq!(StreamReader::try_new(&bytes[..], None).unwrap().count(), 2);
}

#[test]
fn results_that_follow_are_set_apart() {
    let place = |format| {
        let mut out = Vec::new();
        drop(ResultRenderer::new(format, Place::Following, &mut out));
        out
    };
    assert_eq!(place(Format::Csv), b"\n");
    assert_eq!(place(Format::Ndjson), b"");
}

fn failure(format: Format, batches: &[RecordBatch]) -> String {
    let mut out = Vec::new();
    let mut renderer = ResultRenderer::new(format, Place::First, &mut out);
    batches
        .iter()
        .find_map(|batch| renderer.batch(batch, &mut out).err())
        .unwrap()
        .to_string()
}
