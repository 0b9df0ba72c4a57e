//! Nested types that do not come back as they were, and what becomes of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Int32Array, Int64Array, ListArray, MapArray, NullArray,
        RecordBatch, StringArray, StructArray, UnionArray,
    },
    buffer::{NullBuffer, OffsetBuffer, ScalarBuffer},
    compute::cast,
    datatypes::{DataType, Field, Fields, Schema, UnionFields},
    util::pretty::pretty_format_columns,
};
use bytes::Bytes;
use protos::{
    common::{DataMode, MajorType, MinorType},
    shared::{NamePart, RecordBatchDef, SerializedField},
};
use record_batch::{
    DecodeError, DecodeOptions, EncodedBatch, Encoder, VectorError, decode, metadata,
};

fn encode(field: Field, array: ArrayRef) -> Result<EncodedBatch, String> {
    let schema = Arc::new(Schema::new(vec![field]));
    let batch = RecordBatch::try_new(schema.clone(), vec![array]).unwrap();
    let encoder = Encoder::try_new(&schema).map_err(|error| error.to_string())?;
    encoder.encode(&batch).map_err(|error| error.to_string())
}

/// The type on the wire and what arrives.
fn sent(field: Field, array: ArrayRef) -> (String, ArrayRef) {
    let encoded = encode(field, array).unwrap();
    let batch = decode(&encoded.def, &encoded.joined(), &DecodeOptions::default()).unwrap();
    (wire(&encoded.def.field[0]), batch.column(0).clone())
}

/// A descriptor in one line, helpers left out.
fn wire(field: &SerializedField) -> String {
    let major = field.major_type.as_ref().unwrap();
    let inner: Vec<_> = field
        .child
        .iter()
        .filter(|child| {
            !["$bits$", "$offsets$", "types"].contains(&child.name_part.as_ref().unwrap().name())
        })
        .map(wire)
        .collect();
    let mode = &major.mode().as_str_name()[..3];
    let name = field.name_part.as_ref().unwrap().name();
    format!(
        "{name}:{mode} {}[{}]",
        major.minor_type().as_str_name(),
        inner.join(" ")
    )
}

fn lists(
    values: ArrayRef,
    lengths: &[usize],
    nulls: Option<Vec<bool>>,
    nullable: bool,
) -> ListArray {
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), nullable));
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    ListArray::new(item, offsets, values, nulls.map(NullBuffer::from))
}

fn ints(values: Vec<Option<i32>>) -> ArrayRef {
    Arc::new(Int32Array::from(values))
}

fn text(array: &ArrayRef) -> String {
    pretty_format_columns("c", std::slice::from_ref(array))
        .unwrap()
        .to_string()
}

#[test]
fn a_null_struct_is_one_whose_members_are_null() {
    let members: Vec<(Arc<Field>, ArrayRef)> = vec![
        (
            Arc::new(Field::new("a", DataType::Int32, false)),
            ints(vec![Some(1), Some(2), Some(3)]),
        ),
        (
            Arc::new(Field::new(
                "b",
                lists(ints(vec![]), &[], None, false).data_type().clone(),
                false,
            )),
            Arc::new(lists(
                ints((0..6).map(Some).collect()),
                &[1, 2, 3],
                None,
                false,
            )),
        ),
    ];
    let (fields, columns): (Vec<_>, Vec<_>) = members.into_iter().unzip();
    let nulls = NullBuffer::from(vec![true, false, true]);
    let array = StructArray::new(fields.into(), columns, Some(nulls));
    let (wire, back) = sent(
        Field::new("s", array.data_type().clone(), true),
        Arc::new(array),
    );
    assert_eq!(
        wire,
        "s:REQ MAP[a:OPT INT[a:OPT INT[]] b:REP INT[$data$:REQ INT[]]]"
    );
    let back = back.as_struct();
    assert_eq!(back.column(0), &ints(vec![Some(1), None, Some(3)]));
    let elements = ints(vec![Some(0), Some(3), Some(4), Some(5)]);
    assert_eq!(
        back.column(1).as_list::<i32>(),
        &lists(elements, &[1, 0, 3], None, false)
    );
}

#[test]
fn members_of_a_nullable_struct_are_optional_also_without_nulls() {
    let member = Arc::new(Field::new("a", DataType::Int32, false));
    let array = StructArray::new(vec![member].into(), vec![ints(vec![Some(1)])], None);
    let (wire, _) = sent(
        Field::new("s", array.data_type().clone(), true),
        Arc::new(array),
    );
    assert_eq!(wire, "s:REQ MAP[a:OPT INT[a:OPT INT[]]]");
}

#[test]
fn lists_are_repeated_only_where_nothing_can_be_null() {
    let strict = lists(ints(vec![Some(1), Some(2)]), &[2, 0], None, false);
    let field = Field::new("l", strict.data_type().clone(), false);
    assert_eq!(
        sent(field, Arc::new(strict.clone())).0,
        "l:REP INT[$data$:REQ INT[]]"
    );
    let field = Field::new("l", strict.data_type().clone(), true);
    let list = "l:OPT LIST[$data$:OPT INT[$data$:OPT INT[]]]";
    assert_eq!(sent(field, Arc::new(strict)).0, list);
    let nulls = lists(
        ints(vec![Some(1), None]),
        &[2, 0],
        Some(vec![true, false]),
        true,
    );
    let (wire, back) = sent(
        Field::new("l", nulls.data_type().clone(), true),
        Arc::new(nulls.clone()),
    );
    assert_eq!(wire, list);
    assert_eq!(back.as_list::<i32>(), &nulls);
}

#[test]
fn a_field_may_ask_for_repeated_and_then_null_lists_are_empty() {
    let asked = |array: &ListArray| {
        Field::new("l", array.data_type().clone(), true)
            .with_metadata([(metadata::MODE.to_owned(), "REPEATED".to_owned())].into())
    };
    let array = lists(
        ints((1..=4).map(Some).collect()),
        &[1, 2, 1],
        Some(vec![true, false, true]),
        true,
    );
    let (wire, back) = sent(asked(&array), Arc::new(array.clone()));
    assert_eq!(wire, "l:REP INT[$data$:REQ INT[]]");
    assert_eq!(
        back.as_list::<i32>(),
        &lists(ints(vec![Some(1), Some(4)]), &[1, 0, 1], None, false)
    );
    let array = lists(ints(vec![Some(1), None]), &[2], None, true);
    let refusal = encode(asked(&array), Arc::new(array)).unwrap_err();
    assert!(
        refusal.ends_with("a null element in a REPEATED vector"),
        "{refusal}"
    );
}

#[test]
fn every_kind_of_list_arrives_whole_and_sliced() {
    let values = ints((0..8).map(|n| (n != 3).then_some(n)).collect());
    let plain: ArrayRef = Arc::new(lists(
        values,
        &[2, 2, 2, 2],
        Some(vec![true, true, false, true]),
        true,
    ));
    let item = Arc::new(Field::new_list_field(DataType::Int32, true));
    for kind in [
        DataType::LargeList(item.clone()),
        DataType::FixedSizeList(item.clone(), 2),
        DataType::ListView(item.clone()),
        DataType::LargeListView(item.clone()),
    ] {
        let other = cast(&plain, &kind).unwrap();
        for (start, len) in [(0, 4), (1, 3), (2, 1), (0, 0)] {
            let (_, back) = sent(Field::new("l", kind.clone(), true), other.slice(start, len));
            assert_eq!(text(&back), text(&plain.slice(start, len)), "{kind}");
        }
    }
}

#[test]
fn arrays_of_arrays_maps_and_dictionaries_have_their_layouts() {
    let inner: ArrayRef = Arc::new(lists(ints(vec![Some(1), Some(2)]), &[2], None, false));
    let outer = lists(inner, &[1, 0], None, false);
    let field = Field::new("ll", outer.data_type().clone(), false);
    let expected = "ll:REP LIST[$data$:REP INT[$data$:REQ INT[]]]";
    assert_eq!(sent(field, Arc::new(outer)).0, expected);

    let member = Arc::new(Field::new("a", DataType::Int32, true));
    let maps = StructArray::new(vec![member].into(), vec![ints(vec![Some(1)])], None);
    let maps = lists(Arc::new(maps), &[1, 0], None, false);
    let field = Field::new("rm", maps.data_type().clone(), false);
    assert_eq!(
        sent(field, Arc::new(maps)).0,
        "rm:REP MAP[a:OPT INT[a:OPT INT[]]]"
    );

    let dicts = lists(Arc::new(dictionary(None)), &[1, 1], None, false);
    let field = Field::new("rd", dicts.data_type().clone(), false);
    let (wire, back) = sent(field, Arc::new(dicts.clone()));
    assert_eq!(
        wire,
        "rd:REP DICT[$inner$:REQ DICT[key:REQ VARCHAR[] value:OPT INT[value:OPT INT[]]]]"
    );
    assert_eq!(text(&back), text(&(Arc::new(dicts) as ArrayRef)));
}

/// `{x: 1, y: null}` and `{x: 3}`.
fn dictionary(nulls: Option<NullBuffer>) -> MapArray {
    let fields = Fields::from(vec![
        Field::new("keys", DataType::Utf8, false),
        Field::new("values", DataType::Int32, true),
    ]);
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "x"]));
    let pairs = vec![keys, ints(vec![Some(1), None, Some(3)])];
    let entries = StructArray::new(fields.clone(), pairs, None);
    let field = Field::new("entries", DataType::Struct(fields), false);
    MapArray::new(
        Arc::new(field),
        OffsetBuffer::from_lengths([2, 1]),
        entries,
        nulls,
        false,
    )
}

#[test]
fn a_null_dictionary_arrives_empty() {
    let array = dictionary(Some(NullBuffer::from(vec![false, true])));
    let (_, back) = sent(
        Field::new("d", array.data_type().clone(), true),
        Arc::new(array),
    );
    let back = back.as_map();
    assert_eq!((back.value_length(0), back.value_length(1)), (0, 1));
    assert_eq!(back.values(), &ints(vec![Some(3)]));
}

#[test]
fn keys_in_optional_vectors_come_back_as_such_unless_one_is_null() {
    let array = dictionary(None);
    let optional = (metadata::MODE.to_owned(), "OPTIONAL".to_owned());
    let DataType::Map(entries, _) = array.data_type() else {
        panic!("a map");
    };
    let DataType::Struct(pair) = entries.data_type() else {
        panic!("a struct");
    };
    let key = Field::clone(&pair[0]).with_metadata([optional].into());
    let pair = Fields::from(vec![Arc::new(key), Arc::clone(&pair[1])]);
    let entries = Field::new("entries", DataType::Struct(pair), false);
    let field = Field::new("d", DataType::Map(Arc::new(entries), false), false);
    let schema = Arc::new(Schema::new(vec![field]));
    let encoder = Encoder::try_new(&schema).unwrap();
    let array = cast(&array, schema.field(0).data_type()).unwrap();
    let batch = RecordBatch::try_new(schema, vec![array]).unwrap();
    let sent = encoder.encode(&batch).unwrap();
    let keys = "key:OPT VARCHAR[key:OPT VARCHAR[]]";
    assert!(wire(&sent.def.field[0]).contains(keys));

    let received = decode(&sent.def, &sent.joined(), &DecodeOptions::default()).unwrap();
    assert_eq!(text(received.column(0)), text(batch.column(0)));
    let again = Encoder::try_new(&received.schema()).unwrap();
    assert_eq!(again.encode(&received).unwrap(), sent);

    // Behind three offsets, the first key's validity.
    let mut body = sent.joined().to_vec();
    body[12] = 0;
    let error = decode(&sent.def, &body.into(), &DecodeOptions::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("column d: children do not form an array"),
        "{error}"
    );
}

#[test]
fn keys_that_are_not_scalars_are_refused() {
    let key = Field::new("key", DataType::Struct(Fields::empty()), false);
    let pair = Fields::from(vec![key, Field::new("value", DataType::Int32, true)]);
    let entries = Field::new("entries", DataType::Struct(pair), false);
    let field = Field::new("d", DataType::Map(Arc::new(entries), false), false);
    let error = Encoder::try_new(&Arc::new(Schema::new(vec![field])))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "column d.key of type Struct(): no Drill type: the keys of a DICT are scalars"
    );
}

#[test]
fn elements_of_unknown_type_are_drills_default_vector() {
    let array = lists(
        Arc::new(NullArray::new(0)),
        &[0, 0],
        Some(vec![true, false]),
        true,
    );
    let field = Field::new("l", array.data_type().clone(), true);
    let (wire, back) = sent(field, Arc::new(array.clone()));
    assert_eq!(wire, "l:OPT LIST[[DEFAULT]:OPT LATE[]]");
    assert_eq!(back.as_list::<i32>(), &array);
    let array = lists(Arc::new(NullArray::new(2)), &[2], None, true);
    let field = Field::new("l", array.data_type().clone(), true);
    let (_, back) = sent(field, Arc::new(array));
    assert_eq!(
        back.as_list::<i32>(),
        &lists(ints(vec![None, None]), &[2], None, true)
    );
}

/// 7, "b", null, "d" with Arrow's own type ids 0 and 1.
fn unions(offsets: Option<Vec<i32>>) -> UnionArray {
    let fields = [
        (0, Arc::new(Field::new("number", DataType::Int64, true))),
        (1, Arc::new(Field::new("word", DataType::Utf8, true))),
    ];
    let dense = offsets.is_some();
    let numbers: ArrayRef = if dense {
        Arc::new(Int64Array::from(vec![None, Some(7)]))
    } else {
        Arc::new(Int64Array::from(vec![Some(7), Some(-1), None, Some(-1)]))
    };
    let words: ArrayRef = if dense {
        Arc::new(StringArray::from(vec!["b", "d"]))
    } else {
        Arc::new(StringArray::from(vec!["no", "b", "no", "d"]))
    };
    UnionArray::try_new(
        UnionFields::from_iter(fields),
        ScalarBuffer::from(vec![0, 1, 0, 1]),
        offsets.map(ScalarBuffer::from),
        vec![numbers, words],
    )
    .unwrap()
}

#[test]
fn unions_of_both_kinds_are_marked_with_drills_ordinals() {
    for array in [unions(None), unions(Some(vec![1, 0, 0, 1]))] {
        let field = Field::new("u", array.data_type().clone(), true);
        let encoded = encode(field.clone(), Arc::new(array.clone())).unwrap();
        let major = encoded.def.field[0].major_type.as_ref().unwrap();
        assert_eq!(
            major.sub_type,
            [MinorType::Bigint as i32, MinorType::Varchar as i32]
        );
        // BIGINT is the fifth, VARCHAR the 23rd of Drill's types, and a null row is of none.
        assert_eq!(encoded.joined()[..4], [5, 23, 0, 23]);
        let (wire, back) = sent(field, Arc::new(array));
        let members =
            "bigint:OPT BIGINT[bigint:OPT BIGINT[]] varchar:OPT VARCHAR[varchar:OPT VARCHAR[]]";
        assert_eq!(wire, format!("u:OPT UNION[internal:REQ MAP[{members}]]"));
        let back = back.as_union();
        assert_eq!(back.type_ids(), &[5, 23, 0, 23]);
        assert_eq!(
            back.child(5).as_ref(),
            &Int64Array::from(vec![Some(7), None, None, None])
        );
        let words = StringArray::from(vec![None, Some("b"), None, Some("d")]);
        assert_eq!(back.child(23).as_ref(), &words);
        let (_, again) = sent(
            Field::new("u", back.data_type().clone(), true),
            Arc::new(back.clone()),
        );
        assert_eq!(again.as_ref(), back as &dyn Array);
    }
}

#[test]
fn a_list_of_unions_and_a_union_of_lists() {
    let array = lists(Arc::new(unions(None)), &[1, 3], None, true);
    let field = Field::new("l", array.data_type().clone(), false);
    let (wire, back) = sent(field, Arc::new(array));
    assert!(
        wire.starts_with("l:OPT LIST[$union$:OPT UNION[internal:REQ MAP[bigint"),
        "{wire}"
    );
    assert_eq!(back.as_list::<i32>().value_length(1), 3);

    let numbers: ArrayRef = Arc::new(lists(ints(vec![Some(1)]), &[1, 0], None, false));
    let member = Arc::new(Field::new("n", numbers.data_type().clone(), false));
    let ids = ScalarBuffer::from(vec![4, 4]);
    let array = UnionArray::try_new(
        UnionFields::from_iter([(4, member)]),
        ids,
        None,
        vec![numbers],
    );
    let array = array.unwrap();
    let (wire, _) = sent(
        Field::new("u", array.data_type().clone(), true),
        Arc::new(array),
    );
    let list = "list:OPT LIST[$data$:OPT INT[$data$:OPT INT[]]]";
    assert_eq!(wire, format!("u:OPT UNION[internal:REQ MAP[{list}]]"));
}

#[test]
fn two_members_of_one_drill_type_are_refused_by_path() {
    let member = |name| Arc::new(Field::new(name, DataType::Int32, true));
    let union = UnionFields::from_iter([(0, member("a")), (1, member("b"))]);
    let union = Field::new(
        "u",
        DataType::Union(union, arrow::datatypes::UnionMode::Sparse),
        true,
    );
    let outer = Field::new("s", DataType::Struct(vec![union].into()), false);
    let error = Encoder::try_new(&Arc::new(Schema::new(vec![outer]))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "column s.u.b of type Int32: no Drill type: a union has one member of a Drill type"
    );
}

#[test]
fn nesting_is_limited_both_ways() {
    let mut field = Field::new("c", DataType::Int32, false);
    for _ in 0..40 {
        field = Field::new("c", DataType::Struct(vec![field].into()), false);
    }
    let error = Encoder::try_new(&Arc::new(Schema::new(vec![field])))
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("nested too deep"), "{error}");

    let mut deep = vector("c", MinorType::Int, DataMode::Required, 0, 0, vec![]);
    for _ in 0..40 {
        deep = vector("c", MinorType::Map, DataMode::Required, 0, 0, vec![deep]);
    }
    let def = RecordBatchDef {
        field: vec![deep],
        ..RecordBatchDef::default()
    };
    let error = decode(&def, &Bytes::new(), &DecodeOptions::default()).unwrap_err();
    let DecodeError::Column { column, problem } = error else {
        panic!("{error}")
    };
    assert_eq!(
        (column.matches('.').count(), problem),
        (32, VectorError::TooDeep)
    );
}

fn vector(
    name: &str,
    minor: MinorType,
    mode: DataMode,
    values: i32,
    bytes: i32,
    child: Vec<SerializedField>,
) -> SerializedField {
    SerializedField {
        major_type: Some(MajorType {
            minor_type: Some(minor as i32),
            mode: Some(mode as i32),
            ..MajorType::default()
        }),
        name_part: Some(NamePart {
            name: Some(name.to_owned()),
            ..NamePart::default()
        }),
        child,
        value_count: Some(values),
        var_byte_length: None,
        buffer_length: Some(bytes),
    }
}

fn decode_one(field: SerializedField, body: &[u8]) -> Result<ArrayRef, DecodeError> {
    let def = RecordBatchDef {
        record_count: field.value_count,
        field: vec![field],
        ..RecordBatchDef::default()
    };
    let batch = decode(
        &def,
        &Bytes::copy_from_slice(body),
        &DecodeOptions::default(),
    )?;
    Ok(batch.column(0).clone())
}

#[test]
fn the_old_decimals_are_read() {
    let decimal = |minor, scale, body: &[u8]| {
        let bytes = i32::try_from(body.len()).unwrap();
        let mut field = vector("d", minor, DataMode::Required, 1, bytes, vec![]);
        field.major_type.as_mut().unwrap().scale = Some(scale);
        let array = decode_one(field, body).unwrap();
        format!(
            "{} {}",
            array.data_type(),
            text(&array).lines().nth(3).unwrap()
        )
    };
    let words = |words: &[i32]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        decimal(MinorType::Decimal9, 2, &words(&[-1234])),
        "Decimal128(9, 2) | -12.34 |"
    );
    let long = (-123_456_789_012_i64).to_le_bytes();
    assert_eq!(
        decimal(MinorType::Decimal18, 3, &long),
        "Decimal128(18, 3) | -123456789.012 |"
    );
    let sparse = words(&[0, 0, 0, 12, 340_000_000]);
    assert_eq!(
        decimal(MinorType::Decimal28sparse, 2, &sparse),
        "Decimal128(28, 2) | 12.34 |"
    );
    let sparse = words(&[i32::MIN, 0, 0, 1, 2, 500_000_000]);
    assert_eq!(
        decimal(MinorType::Decimal38sparse, 1, &sparse),
        "Decimal128(38, 1) | -1000000002.5 |"
    );
    let dense = 1234_u128.to_be_bytes();
    assert_eq!(
        decimal(MinorType::Decimal38dense, 2, &dense),
        "Decimal128(38, 2) | 12.34 |"
    );
    let dense = (1_i128 << 30 | 7).to_be_bytes();
    assert_eq!(
        decimal(MinorType::Decimal28dense, 3, &dense[4..]),
        "Decimal128(28, 3) | 1000000.007 |"
    );
}

#[test]
fn old_decimals_of_more_digits_than_fit_are_refused_unless_null() {
    let (minor, body) = (MinorType::Decimal38sparse, [0xff_u8; 24]);
    let field = vector("d", minor, DataMode::Required, 1, 24, vec![]);
    let error = decode_one(field, &body).unwrap_err().to_string();
    assert_eq!(error, "column d: row 0 is a decimal of more than 38 digits");
    let children = vec![
        vector("$bits$", MinorType::Uint1, DataMode::Required, 1, 1, vec![]),
        vector("d", minor, DataMode::Optional, 1, 24, vec![]),
    ];
    let field = vector("d", minor, DataMode::Optional, 1, 25, children);
    let body = [&[0][..], &body].concat();
    assert_eq!(decode_one(field, &body).unwrap().null_count(), 1);
}

#[test]
fn text_of_16_bits_is_big_endian_unless_it_says_otherwise() {
    let offsets = vector(
        "$offsets$",
        MinorType::Uint4,
        DataMode::Required,
        4,
        16,
        vec![],
    );
    let read = |data: &[u8], ends: [u8; 3]| {
        let mut body: Vec<u8> = [0, ends[0], ends[1], ends[2]]
            .iter()
            .flat_map(|&end| [end, 0, 0, 0])
            .collect();
        body.extend(data);
        let bytes = i32::try_from(body.len()).unwrap();
        let (minor, mode) = (MinorType::Var16char, DataMode::Required);
        decode_one(
            vector("t", minor, mode, 3, bytes, vec![offsets.clone()]),
            &body,
        )
    };
    let array = read(
        &[0, 0x41, 0xfe, 0xff, 0x20, 0xac, 0xff, 0xfe, 0xac, 0x20],
        [2, 6, 10],
    )
    .unwrap();
    assert_eq!(
        array.as_ref(),
        &StringArray::from(vec!["A", "\u{20ac}", "\u{20ac}"])
    );
    let half_a_pair = read(&[0, 0x41, 0xd8, 0x00, 0, 0x42], [2, 4, 6]).unwrap_err();
    assert_eq!(half_a_pair.to_string(), "column t: row 1 is not valid text");
}

#[test]
fn values_that_take_no_bytes_are_limited_by_rows() {
    let untyped = |values| vector("n", MinorType::Null, DataMode::Optional, values, 0, vec![]);
    let offsets = vector(
        "$offsets$",
        MinorType::Uint4,
        DataMode::Required,
        2,
        8,
        vec![],
    );
    let count = i32::MAX;
    let mut body = vec![0; 4];
    body.extend(count.to_le_bytes());
    for members in [vec![untyped(count)], vec![]] {
        let children = std::iter::once(offsets.clone()).chain(members).collect();
        let maps = vector("m", MinorType::Map, DataMode::Repeated, 1, 8, children);
        let error = decode_one(maps, &body).unwrap_err().to_string();
        assert!(
            error.ends_with("2147483647 values without a byte for any"),
            "{error}"
        );
    }
}

/// Sends `array`, changes its descriptor on the way, and gives the refusal.
fn refusal(array: ArrayRef, lie: impl Fn(&mut SerializedField)) -> String {
    let field = Field::new("c", array.data_type().clone(), false);
    let mut encoded = encode(field, array).unwrap();
    lie(&mut encoded.def.field[0]);
    decode(&encoded.def, &encoded.joined(), &DecodeOptions::default())
        .unwrap_err()
        .to_string()
}

fn rename(field: &mut SerializedField, name: &str) {
    field.name_part.as_mut().unwrap().name = Some(name.to_owned());
}

fn set_mode(field: &mut SerializedField, mode: DataMode) {
    field.major_type.as_mut().unwrap().set_mode(mode);
}

#[test]
fn repeated_vectors_that_lie_are_refused() {
    let numbers =
        || -> ArrayRef { Arc::new(lists(ints(vec![Some(1), Some(2)]), &[2, 0], None, false)) };
    assert_eq!(
        refusal(numbers(), |field| rename(&mut field.child[1], "data")),
        "column c: child vector named \"data\", expected \"$data$\""
    );
    assert_eq!(
        refusal(numbers(), |field| field.child[1].value_count = Some(1)),
        "column c.$data$: 1 values, expected 2"
    );
    assert_eq!(
        refusal(numbers(), |field| set_mode(
            &mut field.child[1],
            DataMode::Optional
        )),
        "column c: child vector is OPTIONAL INT"
    );
    assert_eq!(
        refusal(numbers(), |field| field.child[1].buffer_length = Some(9)),
        "column c.$data$: 9 bytes described, 8 available"
    );
    assert_eq!(
        refusal(numbers(), |field| field.child.truncate(1)),
        "column c: 1 child vectors, expected 2"
    );
    let more = refusal(numbers(), |field| field.child[0].buffer_length = Some(8));
    assert_eq!(more, "column c: 8 bytes, expected 12");
}

#[test]
fn lists_dictionaries_and_unions_that_lie_are_refused() {
    let list = || -> ArrayRef { Arc::new(lists(ints(vec![Some(1), None]), &[2, 0], None, true)) };
    assert_eq!(
        refusal(list(), |field| field.child[1].value_count = Some(1)),
        "column c: 1 values, expected 2"
    );
    assert_eq!(
        refusal(list(), |field| rename(&mut field.child[2], "[DEFAULT]")),
        "column c: 2 values, expected 0"
    );
    let dict = || -> ArrayRef { Arc::new(dictionary(None)) };
    assert_eq!(
        refusal(dict(), |field| rename(&mut field.child[1], "keys")),
        "column c: child vector named \"keys\", expected \"key\""
    );
    assert_eq!(
        refusal(dict(), |field| set_mode(
            &mut field.child[1],
            DataMode::Optional
        )),
        "column c.key: 1 child vectors, expected 2"
    );
    assert_eq!(
        refusal(dict(), |field| set_mode(
            &mut field.child[1],
            DataMode::Repeated
        )),
        "column c: child vector is REPEATED VARCHAR"
    );
    let union = || -> ArrayRef { Arc::new(unions(None)) };
    assert_eq!(
        refusal(union(), |field| {
            // The VARCHAR member's rows are of a type that no member has any more.
            let words = field.child[0].child.pop().unwrap();
            for length in [&mut field.child[0].buffer_length, &mut field.buffer_length] {
                *length = length.map(|bytes| bytes - words.buffer_length.unwrap());
            }
        }),
        "column c: row 1 is of a type that the union has no member for"
    );
}
