//! Every recorded record batch becomes an Arrow batch and comes back: the descriptor byte by byte,
//! the vectors outside of null slots and padding.

use bytes::Bytes;
use prost::Message;
use protos::common::MinorType;
use protos::shared::{RecordBatchDef, SerializedField};
use protos::{data, shared};
use record_batch::{DecodeOptions, Encoder};
use tests::golden::{Frame, Recording};

#[test]
fn every_recorded_batch_survives_arrow() {
    let batches = batches();
    for (place, def, raw) in &batches {
        let (def_again, raw_again) =
            round_trip(def, raw).unwrap_or_else(|error| panic!("{place}: {error}"));
        let expected = with_zeros(def);
        assert_eq!(
            without_what_lacks(&def_again, &expected),
            expected,
            "{place}"
        );
        assert_eq!(same_values(def, raw, &raw_again), Ok(()), "{place}");
    }
    assert!(batches.len() > 250, "only {} batches", batches.len());
}

/// Place, descriptor and raw body of every batch of the user and data planes.
fn batches() -> Vec<(String, RecordBatchDef, Bytes)> {
    let mut batches = Vec::new();
    for recording in Recording::all().unwrap() {
        for (item, frame) in recording.frames() {
            if let Some(def) = def(frame) {
                let place = format!("{} {}", recording.name, item.index);
                batches.push((place, def, frame.raw()));
            }
        }
    }
    batches
}

fn def(frame: &Frame) -> Option<RecordBatchDef> {
    let pbody = frame.pbody.clone();
    match frame.head.message.as_deref()? {
        "QueryData" => shared::QueryData::decode(pbody).unwrap().def,
        "FragmentRecordBatch" => data::FragmentRecordBatch::decode(pbody).unwrap().def,
        _ => None,
    }
}

/// Decodes a batch and encodes it again.
pub(crate) fn round_trip(
    def: &RecordBatchDef,
    raw: &Bytes,
) -> Result<(RecordBatchDef, Bytes), String> {
    let batch = record_batch::decode(def, raw, &DecodeOptions::default())
        .map_err(|error| error.to_string())?;
    let encoder = Encoder::try_new(&batch.schema()).map_err(|error| error.to_string())?;
    let again = encoder.encode(&batch).map_err(|error| error.to_string())?;
    Ok((again.def, again.dbody.concat().into()))
}

/// What Drill's sender of a data connection leaves out of a batch without rows, as its user server
/// (and ours) writes it: zeros. Every other descriptor stays as it is.
fn with_zeros(def: &RecordBatchDef) -> RecordBatchDef {
    if def.carries_two_byte_selection_vector.is_some() {
        return def.clone();
    }
    RecordBatchDef {
        record_count: Some(0),
        field: def.field.iter().map(field_with_zeros).collect(),
        carries_two_byte_selection_vector: Some(false),
        ..def.clone()
    }
}

fn field_with_zeros(field: &SerializedField) -> SerializedField {
    SerializedField {
        child: field.child.iter().map(field_with_zeros).collect(),
        value_count: Some(0),
        buffer_length: Some(0),
        ..field.clone()
    }
}

/// `def` without the inner vectors that `expected`, a batch without rows, does not list.
fn without_what_lacks(def: &RecordBatchDef, expected: &RecordBatchDef) -> RecordBatchDef {
    let mut def = def.clone();
    for (field, expected) in def.field.iter_mut().zip(&expected.field) {
        if expected.child.is_empty() && expected.value_count() == 0 {
            field.child.clear();
        }
    }
    def
}

/// Compares two raw bodies of one descriptor outside of null slots and padding.
pub(crate) fn same_values(
    def: &RecordBatchDef,
    expected: &Bytes,
    found: &Bytes,
) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!(
            "{} bytes, expected {}",
            found.len(),
            expected.len()
        ));
    }
    let (mut expected, mut found) = (expected.clone(), found.clone());
    for field in &def.field {
        let length = length(field);
        let (mut one, mut other) = (expected.split_to(length), found.split_to(length));
        compare(field, &mut one, &mut other, None)
            .map_err(|slot| format!("{} {slot}", column_name(field)))?;
    }
    Ok(())
}

/// Compares one vector; `present` says which of its slots hold a value.
fn compare(
    field: &SerializedField,
    one: &mut Bytes,
    other: &mut Bytes,
    present: Option<&[u8]>,
) -> Result<(), String> {
    let mut present = present.map(<[u8]>::to_vec);
    let mut types = None;
    for child in &field.child {
        let (mut one, mut other) = (one.split_to(length(child)), other.split_to(length(child)));
        let bytes = one.to_vec();
        let of_child = match (minor_type(field), column_name(child)) {
            (_, "$offsets$") => None,
            // Behind the offsets of a LIST are elements; what it knows is of its rows.
            (MinorType::List, name) if name != "$bits$" => None,
            // Drill sets a member of a union in the rows of its type, and leaves the others as they are.
            _ => of_type(types.as_deref(), child).or_else(|| present.clone()),
        };
        compare(child, &mut one, &mut other, of_child.as_deref())
            .map_err(|slot| format!("/{}{slot}", column_name(child)))?;
        match (minor_type(field), column_name(child)) {
            // It rules the vectors behind it.
            (minor, "$bits$") if minor != MinorType::List => present = Some(bytes),
            (MinorType::Map, "types") if column_name(field) == "internal" => types = Some(bytes),
            _ => {}
        }
    }
    let slots = (0..usize::try_from(field.value_count()).unwrap())
        .filter(|slot| present.as_ref().is_none_or(|bits| bits[*slot] == 1));
    let different = match (slot_bytes(field), minor_type(field)) {
        (Some(width), _) => slots
            .map(|slot| (slot, value(one, slot, width) == value(other, slot, width)))
            .find(|(_, same)| !same),
        (None, MinorType::Bit) => slots
            .map(|slot| (slot, bit(one, slot) == bit(other, slot)))
            .find(|(_, same)| !same),
        (None, _) => (one != other).then_some((0, false)),
    };
    different.map_or(Ok(()), |(slot, _)| Err(format!(" slot {slot}")))
}

/// The rows of a union that are of the type of `member`, by the types of its rows.
fn of_type(types: Option<&[u8]>, member: &SerializedField) -> Option<Vec<u8>> {
    let number = minor_type(member) as i32;
    // The types are marked by their places among all types, and not all numbers are one's.
    let place = (0..number).filter(|number| MinorType::try_from(*number).is_ok());
    let place = u8::try_from(place.count()).unwrap();
    types.map(|types| types.iter().map(|of| u8::from(*of == place)).collect())
}

fn value(vector: &[u8], slot: usize, (width, used): (usize, usize)) -> Option<&[u8]> {
    vector.get(slot * width..slot * width + used)
}

fn bit(vector: &[u8], slot: usize) -> Option<u8> {
    vector.get(slot / 8).map(|byte| byte >> (slot % 8) & 1)
}

fn length(field: &SerializedField) -> usize {
    usize::try_from(field.buffer_length()).unwrap()
}

/// Width of a slot, and how many of its bytes mean something; `None` where the width is not fixed.
fn slot_bytes(field: &SerializedField) -> Option<(usize, usize)> {
    Some(match minor_type(field) {
        MinorType::Tinyint | MinorType::Uint1 => (1, 1),
        MinorType::Smallint | MinorType::Uint2 => (2, 2),
        MinorType::Int
        | MinorType::Uint4
        | MinorType::Float4
        | MinorType::Time
        | MinorType::Intervalyear => (4, 4),
        MinorType::Bigint
        | MinorType::Uint8
        | MinorType::Float8
        | MinorType::Date
        | MinorType::Timestamp => (8, 8),
        MinorType::Intervalday => (12, 8),
        MinorType::Interval => (16, 12),
        _ => return None,
    })
}

fn minor_type(field: &SerializedField) -> MinorType {
    field
        .major_type
        .as_ref()
        .map(protos::common::MajorType::minor_type)
        .unwrap()
}

fn column_name(field: &SerializedField) -> &str {
    field
        .name_part
        .as_ref()
        .and_then(|part| part.name.as_deref())
        .unwrap_or_default()
}
