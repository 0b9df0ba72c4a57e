//! Batches recorded from a real Drill: decoded and encoded again, they come out as they went in.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::PathBuf};

use arrow::{
    array::{Array, RecordBatch, RecordBatchOptions},
    util::display::array_value_to_string,
};
use bytes::Bytes;
use prost::Message;
use protos::{
    common::{DataMode, MinorType},
    data::FragmentRecordBatch,
    shared::{QueryData, RecordBatchDef, SerializedField},
};
use record_batch::{DecodeOptions, Decoder, Encoder, decode};
use serde_json::Value;

/// One recorded batch.
struct Recording {
    place: String,
    def: RecordBatchDef,
    body: Bytes,
}

#[test]
fn recorded_batches_come_out_as_they_went_in() {
    let recordings = recordings(&["user", "dist", "auth"]);
    assert!(recordings.len() > 100, "only {} batches", recordings.len());
    for recording in recordings
        .iter()
        .filter(|recording| says_everything(&recording.def))
    {
        let Recording { place, def, body } = recording;
        let batch = decoded(recording);
        let encoded = Encoder::try_new(&batch.schema())
            .unwrap()
            .encode(&batch)
            .unwrap();
        assert_eq!(&encoded.def, def, "{place}");
        assert_eq!(encoded.def.encode_to_vec(), def.encode_to_vec(), "{place}");
        let (left, right) = (masked(&encoded.def, &encoded.joined()), masked(def, body));
        assert!(left == right, "{place}: bodies differ");
    }
}

#[test]
fn a_decoder_of_a_stream_gives_the_same_as_a_fresh_one() {
    let mut decoder = Decoder::default();
    for recording in recordings(&["user", "dist"]) {
        let batch = decoder.decode(&recording.def, &recording.body).unwrap();
        assert_eq!(batch, decoded(&recording), "{}", recording.place);
    }
}

#[test]
fn batches_without_counts_are_schemas() {
    let recordings = recordings(&["dist", "raw"]);
    let bare: Vec<_> = recordings
        .iter()
        .filter(|r| r.def.record_count.is_none())
        .collect();
    assert!(bare.len() > 5);
    for recording in bare {
        let batch = decoded(recording);
        assert_eq!(batch.num_rows(), 0);
        assert_eq!(batch.num_columns(), recording.def.field.len());
        let full = Encoder::try_new(&batch.schema()).unwrap().schema_only();
        let again = decode(&full, &Bytes::new(), &DecodeOptions::default()).unwrap();
        assert_eq!(again, batch, "{}", recording.place);
    }
}

#[test]
fn a_batch_without_columns_has_rows() {
    for rows in [0, 5] {
        let def = RecordBatchDef {
            record_count: Some(rows),
            ..RecordBatchDef::default()
        };
        let batch = decode(&def, &Bytes::new(), &DecodeOptions::default()).unwrap();
        let expected = usize::try_from(rows).unwrap();
        assert_eq!((batch.num_columns(), batch.num_rows()), (0, expected));
        let options = RecordBatchOptions::new().with_row_count(Some(expected));
        let empty = RecordBatch::try_new_with_options(batch.schema(), vec![], &options).unwrap();
        let encoded = Encoder::try_new(&batch.schema())
            .unwrap()
            .encode(&empty)
            .unwrap();
        assert_eq!(encoded.def.record_count, Some(rows));
        assert!(encoded.dbody.is_empty());
    }
}

#[test]
fn every_truncation_of_a_recorded_body_is_an_error() {
    for Recording { place, def, body } in recordings(&["user"]) {
        // Large bodies at a stride that hits every residue of the widths.
        let stride = if body.len() > 4096 { 1009 } else { 1 };
        for len in (0..body.len()).step_by(stride) {
            let cut = decode(&def, &body.slice(..len), &DecodeOptions::default());
            assert!(cut.is_err(), "{place} cut to {len}");
        }
        let mut longer = body.to_vec();
        longer.push(0);
        assert!(
            decode(&def, &longer.into(), &DecodeOptions::default()).is_err(),
            "{place} longer"
        );
    }
}

#[test]
fn recorded_values_are_what_the_jdbc_driver_printed() {
    let values: Vec<_> = recordings(&["user/types"])
        .iter()
        .map(|recording| {
            let batch = decoded(recording);
            let value = array_value_to_string(batch.column(0), 0).unwrap();
            format!("{} {value}", batch.column(0).data_type())
        })
        .collect();
    // golden/transcripts/types.txt, in Arrow's spelling
    let printed = [
        "Int32 42",
        "Int64 -9223372036854775807",
        "Float32 1.5",
        "Float64 -2.25",
        "Utf8 h\u{e9}llo",
        "Binary 616263",
        "Utf8 ab",
        "Date64 2024-02-29T00:00:00",
        "Time32(ms) 23:59:58.123",
        "Timestamp(ms) 2024-02-29T12:34:56.789",
        "Timestamp(ms) 1969-12-31T23:59:59.999",
        "Date64 1492-10-12T00:00:00",
        "Decimal128(9, 2) 123.45",
        "Decimal128(18, 4) -12345678901234.5678",
        "Boolean true",
        "Interval(YearMonth) 1 years 2 mons",
        "Interval(DayTime) 3 days 4 hours 5 mins 6.789 secs",
        "Interval(DayTime) -1 days",
        "Int32 ",
        "Utf8 ",
        "Decimal128(9, 2) ",
        "Boolean ",
        "Int32 ",
        "Date64 2024-01-01T00:00:00",
    ];
    assert_eq!(values, printed);
}

#[test]
fn misaligned_bodies_decode_alike_and_count_their_own_memory() {
    for recording in recordings(&["user"]) {
        let batch = decoded(&recording);
        for lead in 1..8 {
            let mut shifted = vec![0xee; lead];
            shifted.extend_from_slice(&recording.body);
            let body = Bytes::from(shifted).slice(lead..);
            let other = decode(&recording.def, &body, &DecodeOptions::default()).unwrap();
            assert_eq!(other, batch, "{}", recording.place);
            let memory: usize = other
                .columns()
                .iter()
                .map(Array::get_buffer_memory_size)
                .sum();
            // Copies are rounded up to 64 bytes, and there are at most three buffers a vector.
            let slack = 1024 * (1 + other.num_columns());
            assert!(
                memory <= recording.body.len() + slack,
                "{}: {memory}",
                recording.place
            );
        }
    }
}

fn decoded(recording: &Recording) -> RecordBatch {
    decode(&recording.def, &recording.body, &DecodeOptions::default())
        .unwrap_or_else(|error| panic!("{}: {error}", recording.place))
}

/// Drill's senders write some empty batches with less than the descriptor of a result has.
fn says_everything(def: &RecordBatchDef) -> bool {
    def.carries_two_byte_selection_vector.is_some()
}

/// Batches of all recordings whose path starts with one of `prefixes` and whose bytes were kept.
fn recordings(prefixes: &[&str]) -> Vec<Recording> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut files: Vec<_> = ["user", "dist", "auth", "raw"]
        .iter()
        .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "jsonl")
        })
        .filter(|path| {
            let relative = path.strip_prefix(&root).unwrap().to_str().unwrap();
            prefixes.iter().any(|prefix| relative.starts_with(prefix))
        })
        .collect();
    files.sort();
    files.iter().flat_map(read).collect()
}

fn read(file: &PathBuf) -> Vec<Recording> {
    let text = fs::read_to_string(file).unwrap();
    let frames = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    frames
        .filter(|frame| frame["mode"] == "REQUEST" && frame.get("trimmed").is_none())
        .filter_map(|frame| {
            let def = definition(&frame)?;
            let place = format!("{} frame {}", file.display(), frame["i"]);
            let body = body(&frame, file);
            Some(Recording { place, def, body })
        })
        .collect()
}

fn definition(frame: &Value) -> Option<RecordBatchDef> {
    let pbody = || match frame.get("pbody") {
        Some(pbody) => hex(pbody),
        None => hex(&frame["frame"])[span(&frame["pbody_at"])].to_vec(),
    };
    match frame["name"].as_str()? {
        "QUERY_DATA" => QueryData::decode(&*pbody()).unwrap().def,
        "REQ_RECORD_BATCH" => FragmentRecordBatch::decode(&*pbody()).unwrap().def,
        _ => None,
    }
}

fn body(frame: &Value, file: &std::path::Path) -> Bytes {
    let Some(len) = frame.get("raw_len").and_then(Value::as_u64) else {
        return Bytes::new();
    };
    let len = usize::try_from(len).unwrap();
    let body = match frame.get("raw_bin") {
        Some(place) => {
            let folder = file.parent().unwrap();
            let all = fs::read(folder.join(place[0].as_str().unwrap())).unwrap();
            let start = usize::try_from(place[1].as_u64().unwrap()).unwrap();
            all[start..start + len].to_vec()
        }
        None => hex(&frame["raw"]),
    };
    assert_eq!(body.len(), len);
    body.into()
}

fn span(value: &Value) -> std::ops::Range<usize> {
    let at = |index: usize| usize::try_from(value[index].as_u64().unwrap()).unwrap();
    at(0)..at(1)
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// The body with everything zeroed that holds garbage: slots of null rows, and padding.
fn masked(def: &RecordBatchDef, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let mut rest = body.as_mut_slice();
    for field in &def.field {
        let (own, behind) = rest.split_at_mut(length(field));
        mask(field, own);
        rest = behind;
    }
    body
}

fn mask(field: &SerializedField, body: &mut [u8]) {
    let major = field.major_type.as_ref().unwrap();
    if major.minor_type() == MinorType::Intervalday && field.child.is_empty() {
        body.chunks_mut(12).for_each(|slot| slot[8..].fill(0));
    }
    if let [bits, values] = field.child.as_slice()
        && major.mode() == DataMode::Optional
        && bits.name_part.as_ref().unwrap().name() == "$bits$"
        && values.child.is_empty()
    {
        let (bits, values) = body.split_at_mut(length(bits));
        mask_nulls(bits, values);
    }
    let mut rest = body;
    for child in &field.child {
        let (own, behind) = rest.split_at_mut(length(child));
        mask(child, own);
        rest = behind;
    }
}

fn mask_nulls(bits: &[u8], values: &mut [u8]) {
    let null_rows = bits.iter().enumerate().filter(|&(_, &bit)| bit == 0);
    if values.len() < bits.len() {
        null_rows.for_each(|(row, _)| values[row / 8] &= !(1 << (row % 8)));
    } else if !bits.is_empty() {
        let width = values.len() / bits.len();
        null_rows.for_each(|(row, _)| values[row * width..][..width].fill(0));
    }
}

fn length(field: &SerializedField) -> usize {
    usize::try_from(field.buffer_length.unwrap_or(0)).unwrap()
}
