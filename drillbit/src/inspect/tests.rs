//! The inspector on recorded conversations, and on damage at every kind of place.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

use prost::Message as _;
use protos::{Plane, shared::QueryData};
use rpc_bus::frame::{CoordinationId, Header, encode};
use serde_json::Value;

use super::*;

/// One direction of a recorded connection.
struct Recording {
    wire: Vec<u8>,
    /// The recorder's own idea of each frame.
    frames: Vec<Value>,
}

/// `dir` is `C>S` or `S>C`. Frames whose bytes were left out of the recording are skipped.
fn recording(name: &str, dir: &str) -> Recording {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(format!("{name}.jsonl"));
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut recording = Recording {
        wire: Vec::new(),
        frames: Vec::new(),
    };
    for frame in lines.filter(|frame| frame["dir"] == dir) {
        if let Some(bytes) = frame["frame"].as_str() {
            recording.wire.extend(unhex(bytes));
            recording.frames.push(frame);
        }
    }
    assert!(!recording.frames.is_empty(), "{name} {dir}");
    recording
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

fn options(plane: Plane) -> Options {
    Options {
        plane,
        frame_bytes_max: 1 << 20,
        rows: None,
        secrets: Secrets::Hide,
    }
}

fn show(wire: &[u8], options: &Options) -> (Vec<Value>, Result<Summary, InspectError>) {
    let mut out = Vec::new();
    let outcome = inspect(wire, &mut out, options);
    let lines = out
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty());
    (
        lines
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect(),
        outcome,
    )
}

fn show_all(wire: &[u8], options: &Options) -> Vec<Value> {
    let (lines, outcome) = show(wire, options);
    let summary = outcome.unwrap();
    assert_eq!(
        (summary.bytes, summary.frames),
        (wire.len() as u64, lines.len() as u64)
    );
    lines
}

fn damage(wire: &[u8], options: &Options) -> (usize, String) {
    let (lines, outcome) = show(wire, options);
    (lines.len(), outcome.unwrap_err().to_string())
}

#[test]
fn lines_agree_with_the_recorder() {
    let recordings = [
        ("user/types.user1", Plane::User),
        ("user/error.user1", Plane::User),
        ("user/metadata.user1", Plane::User),
        ("user/prepared.user1", Plane::User),
        ("auth/auth_ok.user1", Plane::User),
        ("dist/hashagg.control1", Plane::Control),
        ("dist/hashagg.data1", Plane::Data),
        ("dist/bitping.data1", Plane::Data),
    ];
    for (name, plane) in recordings {
        for dir in ["C>S", "S>C"] {
            let recording = recording(name, dir);
            let lines = show_all(&recording.wire, &options(plane));
            let mut offset = 0;
            for (line, frame) in lines.iter().zip(&recording.frames) {
                assert_agrees(line, frame, offset);
                offset += frame["len"].as_u64().unwrap();
            }
        }
    }
}

fn assert_agrees(line: &Value, frame: &Value, offset: u64) {
    assert_eq!(line["offset"], offset, "{line}");
    let keys = [
        ("length", "len"),
        ("mode", "mode"),
        ("coordination_id", "coord"),
        ("rpc_type", "type"),
    ];
    for (ours, recorded) in keys {
        assert_eq!(line[ours], frame[recorded], "{line}");
    }
    assert_eq!(
        line["raw_len"],
        frame["raw_len"].as_u64().unwrap_or(0),
        "{line}"
    );
    if line["rpc_name"].is_string() {
        assert_eq!(line["rpc_name"], frame["name"]);
    }
    assert!(line["pbody"].is_object(), "{line}");
    assert_eq!(line.get("columns").is_some(), has_batch(frame), "{line}");
}

fn has_batch(frame: &Value) -> bool {
    matches!(
        frame["msg"].as_str(),
        Some("QueryData" | "FragmentRecordBatch")
    )
}

#[test]
fn a_body_is_shown_with_drills_field_names() {
    let recording = recording("user/types.user1", "C>S");
    let lines = show_all(&recording.wire, &options(Plane::User));
    let query = lines
        .iter()
        .find(|line| line["rpc_name"] == "RUN_QUERY")
        .unwrap();
    assert_eq!(query["pbody"]["results_mode"], "STREAM_FULL");
    assert_eq!(
        query["pbody"]["plan"],
        "select cast(42 as int) x from (values(1))"
    );
}

#[test]
fn a_batch_shows_its_columns_and_on_request_its_values() {
    let recording = recording("user/types.user1", "S>C");
    let with_rows = Options {
        rows: Some(10),
        ..options(Plane::User)
    };
    let lines = show_all(&recording.wire, &with_rows);
    let batch = lines
        .iter()
        .find(|line| line["rpc_name"] == "QUERY_DATA")
        .unwrap();
    let expected = json!([{
        "name": "x", "type": "INT", "mode": "REQUIRED",
        "value_count": 1, "buffer_length": 4, "values": [42]
    }]);
    assert_eq!(batch["columns"], expected);
}

#[test]
fn no_more_values_than_asked_for_are_shown() {
    let recording = recording("user/employee.user1", "S>C");
    let with_rows = Options {
        rows: Some(2),
        ..options(Plane::User)
    };
    let lines = show_all(&recording.wire, &with_rows);
    let columns = lines
        .iter()
        .filter_map(|line| line["columns"].as_array())
        .flatten();
    let counts: Vec<_> = columns
        .filter_map(|column| Some(column.get("values")?.as_array()?.len()))
        .collect();
    assert!(
        counts.contains(&2) && counts.iter().all(|&count| count <= 2),
        "{counts:?}"
    );
}

#[test]
fn ping_and_pong_have_no_name() {
    let recording = recording("user/idle.user1", "C>S");
    let lines = show_all(&recording.wire, &options(Plane::User));
    let ping = lines.iter().find(|line| line["mode"] == "PING").unwrap();
    assert_eq!(
        (&ping["rpc_name"], &ping["pbody"]),
        (&Value::Null, &json!({"ok": true}))
    );
}

#[test]
fn passwords_are_hidden_unless_asked_for() {
    let recording = recording("auth/auth_ok.user1", "C>S");
    let hidden = serde_json::to_string(&show_all(&recording.wire, &options(Plane::User))).unwrap();
    assert!(
        !hidden.contains("wonder") && hidden.contains("<hidden>"),
        "{hidden}"
    );
    assert!(!hidden.contains("AGFsaWNlAHdvbmRlcg=="), "{hidden}");
    let open = Options {
        secrets: Secrets::Show,
        ..options(Plane::User)
    };
    let shown = serde_json::to_string(&show_all(&recording.wire, &open)).unwrap();
    assert!(
        shown.contains("wonder") && shown.contains("AGFsaWNlAHdvbmRlcg=="),
        "{shown}"
    );
}

/// Gives one byte per read.
struct Dripping<'a>(&'a [u8]);

impl Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = buffer.len().min(1);
        self.0.read(&mut buffer[..end])
    }
}

#[test]
fn how_the_stream_arrives_makes_no_difference() {
    let recording = recording("user/handshake.user1", "S>C");
    let (mut whole, mut dripped) = (Vec::new(), Vec::new());
    inspect(&recording.wire[..], &mut whole, &options(Plane::User)).unwrap();
    inspect(
        Dripping(&recording.wire),
        &mut dripped,
        &options(Plane::User),
    )
    .unwrap();
    assert_eq!(whole, dripped);
}

// PING, PING: 13 bytes each.
const PINGS: [u8; 26] = [
    0x0c, 0x0a, 6, 8, 3, 0x10, 0, 0x18, 0, 0x12, 2, 8, 1, //
    0x0c, 0x0a, 6, 8, 3, 0x10, 0, 0x18, 0, 0x12, 2, 8, 1,
];

#[test]
fn a_stream_may_end_only_between_frames() {
    for cut in 0..=PINGS.len() {
        let (lines, outcome) = show(&PINGS[..cut], &options(Plane::User));
        assert_eq!(lines.len(), cut / 13);
        match outcome {
            Ok(summary) => assert_eq!((cut % 13, summary.bytes), (0, cut as u64)),
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.starts_with(&format!("byte {cut}: expected ")),
                    "{text}"
                );
                assert!(
                    text.ends_with(&format!("the frame that starts at byte {})", cut / 13 * 13)),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn damage_names_its_byte_and_what_was_expected_there() {
    let places: [(usize, u8, &str); 6] = [
        (
            13,
            0x00,
            "byte 13: expected a frame length above 0, found 0",
        ),
        (14, 0x0b, "byte 14: expected key 0x0a (header), found 0x0b"),
        (
            17,
            0x07,
            "byte 16: expected an RpcMode from 0 to 4, found 7",
        ),
        (
            22,
            0x1a,
            "byte 22: expected key 0x12 (protobuf body), found 0x1a",
        ),
        (
            23,
            0x09,
            "byte 23: expected a protobuf body of at most 2 bytes, found 9",
        ),
        (
            23,
            0x01,
            "byte 25: expected key 0x1a (raw body), found 0x01",
        ),
    ];
    for (at, byte, expected) in places {
        let mut wire = PINGS;
        wire[at] = byte;
        let (shown, error) = damage(&wire, &options(Plane::User));
        assert_eq!(
            (shown, error),
            (
                1,
                format!("{expected} (in the frame that starts at byte 13)")
            )
        );
    }
}

#[test]
fn a_raw_body_that_does_not_reach_the_end_is_damage() {
    let mut wire = PINGS.to_vec();
    wire.extend([
        0x0f, 0x0a, 6, 8, 0, 0x10, 1, 0x18, 6, 0x12, 0, 0x1a, 1, 7, 7, 7,
    ]);
    let (shown, error) = damage(&wire, &options(Plane::User));
    assert_eq!(shown, 2);
    assert!(
        error.starts_with("byte 38: expected a raw body of 3 bytes"),
        "{error}"
    );
}

#[test]
fn a_frame_above_the_limit_is_refused_by_its_length() {
    let limited = Options {
        frame_bytes_max: 11,
        ..options(Plane::User)
    };
    let (shown, error) = damage(&PINGS, &limited);
    assert_eq!(shown, 0);
    assert!(
        error.starts_with("byte 0: expected a frame of at most 11 bytes, found 12"),
        "{error}"
    );
}

#[test]
fn bytes_that_are_not_drills_are_named_at_once() {
    let endless = io::repeat(b'G');
    let mut out = Vec::new();
    let error = inspect(endless, &mut out, &options(Plane::User)).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("byte 1: expected key 0x0a (header), found 0x47"),
        "{error}"
    );
}

#[test]
fn an_unknown_type_is_shown_as_hexadecimal_text_and_is_no_error() {
    let wire = [0x0c, 0x0a, 6, 8, 0, 0x10, 1, 0x18, 99, 0x12, 2, 0xab, 0xcd];
    let lines = show_all(&wire, &options(Plane::User));
    assert_eq!(
        (&lines[0]["rpc_name"], &lines[0]["pbody"]),
        (&Value::Null, &json!("abcd"))
    );
    assert!(lines[0].get("pbody_error").is_none());
}

#[test]
fn a_body_that_does_not_fit_its_type_is_shown_told_and_counted() {
    let bad = [0x0c, 0x0a, 6, 8, 0, 0x10, 1, 0x18, 3, 0x12, 2, 0xff, 0xff];
    let wire = [&bad[..], &PINGS[..]].concat();
    let (lines, outcome) = show(&wire, &options(Plane::User));
    assert_eq!(lines[0]["pbody"], "ffff");
    assert!(
        lines[0]["pbody_error"]
            .as_str()
            .unwrap()
            .starts_with("not a exec.user.RunQuery")
    );
    assert_eq!((lines.len(), outcome.unwrap().bad_bodies), (3, 1));
}

#[test]
fn vectors_that_do_not_fit_their_definition_are_told_and_counted() {
    let recording = recording("user/types.user1", "S>C");
    let recorded = recording
        .frames
        .iter()
        .find(|frame| has_batch(frame))
        .unwrap();
    let mut batch = QueryData::decode(&unhex(recorded["pbody"].as_str().unwrap())[..]).unwrap();
    batch.def.as_mut().unwrap().field[0].buffer_length = Some(3);
    let header = Header {
        mode: RpcMode::Request,
        coordination_id: CoordinationId(1),
        rpc_type: 6,
    };
    let mut wire = Vec::new();
    encode(&header, &batch.encode_to_vec(), &[42, 0, 0, 0], &mut wire);
    let with_rows = Options {
        rows: Some(1),
        ..options(Plane::User)
    };
    let (lines, outcome) = show(&wire, &with_rows);
    assert!(lines[0]["columns_error"].is_string(), "{}", lines[0]);
    assert_eq!(outcome.unwrap().bad_bodies, 1);
}

#[test]
fn a_writer_that_fails_ends_the_inspection() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = inspect(&PINGS[..], Closed, &options(Plane::User)).unwrap_err();
    assert!(
        matches!(error, InspectError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe)
    );
}
