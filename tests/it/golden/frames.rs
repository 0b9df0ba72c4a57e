//! Every recorded frame decodes to what the recorder saw, and encodes to the bytes that it was.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use protos::rpc::RpcMode;
use rpc_bus::BusRuntime;
use rpc_bus::frame::{self, CoordinationId, DecodeError, Frame, FrameDecoder, Header, Walk};
use rpc_bus::ledger::{Ledger, Limits};
use tests::golden::{self, Content, Head, Recording, Side};
use tokio::runtime::Runtime;

use crate::nodes;

const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Streams up to this many bytes are cut at every byte: the time grows with the square.
const SPLIT_STREAM_BYTES_MAX: usize = 6 * 1024;

/// Frames that no encoder makes: a client made them by hand, to see what Drill does.
const ODD: [(&str, usize); 5] = [
    // Protobuf body before the header.
    ("raw/raw_user.user16", 2),
    // A header without a mode.
    ("raw/raw_user.user17", 2),
    // Header fields in another order.
    ("raw/raw_user.user18", 2),
    // No protobuf body, not even an empty one.
    ("raw/raw_user.user19", 2),
    // The length of the header in more bytes than it needs.
    ("raw/raw_user.user20", 2),
];
/// Those of [`ODD`] that Drill closed the connection over.
const REFUSED: [&str; 2] = ["raw/raw_user.user16", "raw/raw_user.user19"];

#[test]
fn every_recorded_frame_decodes_to_what_the_recorder_saw() {
    let mut seen = 0;
    for recording in Recording::all().unwrap() {
        for (item, recorded) in recording.frames() {
            if REFUSED.contains(&recording.name.as_str())
                && ODD.iter().any(|odd| odd.1 == item.index)
            {
                continue;
            }
            let frames = feed(&[&recorded.bytes]).unwrap();
            assert_eq!(
                frames,
                [expected(recorded)],
                "{} {}",
                recording.name,
                item.index
            );
            seen += 1;
        }
    }
    assert!(seen > 2500, "only {seen} frames");
}

#[test]
fn what_drill_refused_is_refused() {
    for name in REFUSED {
        let recording = Recording::named(name).unwrap();
        let stream = recording.stream(Side::Client).unwrap();
        assert!(
            matches!(feed(&[&stream]), Err(DecodeError::Frame(_))),
            "{name}"
        );
    }
}

#[test]
fn http_is_no_frame() {
    let recording = Recording::named("raw/raw_user.user7").unwrap();
    let Content::Garbage(http) = &recording.items[0].content else {
        panic!("a frame")
    };
    assert!(http.starts_with(b"GET / HTTP"));
    assert!(matches!(feed(&[http]), Err(DecodeError::Frame(_))));
}

#[test]
fn every_recorded_frame_encodes_to_the_bytes_that_it_was() {
    let mut different = BTreeSet::new();
    for recording in Recording::all().unwrap() {
        for (item, recorded) in recording.frames() {
            let mut bytes = Vec::new();
            let frame = expected(recorded);
            frame::encode(&frame.header, &frame.pbody, &frame.dbody, &mut bytes);
            if bytes != recorded.bytes {
                different.insert((recording.name.clone(), item.index));
            }
        }
    }
    let odd = ODD
        .iter()
        .map(|(name, index)| ((*name).to_owned(), *index))
        .collect();
    assert_eq!(different, odd);
}

#[test]
fn every_header_encodes_to_the_bytes_that_it_was() {
    let mut trimmed = 0;
    for recording in Recording::all().unwrap() {
        for item in &recording.items {
            let Content::Trimmed(head) = &item.content else {
                continue;
            };
            let mut bytes = Vec::new();
            let pbody_len = pbody_len(head);
            frame::encode_head(&header(head), pbody_len, head.raw_len, &mut bytes);
            let described = bytes.len() + pbody_len + part_head_len(head.raw_len) + head.raw_len;
            assert_eq!(
                described, head.frame_len,
                "{} {}",
                recording.name, item.index
            );
            let found = bytes
                .windows(head.bytes.len())
                .any(|window| window == head.bytes);
            assert!(found, "{} {}", recording.name, item.index);
            trimmed += 1;
        }
    }
    assert!(trimmed > 700, "only {trimmed} frames");
}

#[test]
fn small_conversations_cut_at_every_byte_are_the_same_conversations() {
    let mut cuts = 0;
    for (name, stream) in streams(SPLIT_STREAM_BYTES_MAX) {
        let whole = feed(&[&stream]).map_err(|error| error.to_string());
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            let parts = feed(&[head, tail]).map_err(|error| error.to_string());
            assert_eq!(parts, whole, "{name} cut at {cut}");
            cuts += 1;
        }
    }
    assert!(cuts > 50_000, "only {cuts} cuts");
}

#[test]
fn conversations_fed_byte_by_byte_are_the_same_conversations() {
    for (name, stream) in streams(usize::MAX) {
        let whole = feed(&[&stream]).map_err(|error| error.to_string());
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(
            feed(&bytes).map_err(|error| error.to_string()),
            whole,
            "{name}"
        );
    }
}

#[test]
fn a_walk_over_a_conversation_finds_the_same_frames() {
    for (name, stream) in streams(usize::MAX) {
        let Ok(frames) = feed(&[&stream]) else {
            continue;
        };
        let mut walk = Walk::new(&stream, FRAME_BYTES_MAX);
        let mut walked = Vec::new();
        while let Some(Ok(frame)) = walk.next() {
            walked.push(frame.header);
        }
        let headers: Vec<Header> = frames.iter().map(|frame| frame.header).collect();
        assert_eq!(walked, headers, "{name}");
    }
}

/// What each side of each recording sent, where all of it was kept.
fn streams(bytes_max: usize) -> Vec<(String, Bytes)> {
    let mut streams = Vec::new();
    for recording in Recording::all().unwrap() {
        for side in [Side::Client, Side::Server] {
            let stream = recording
                .stream(side)
                .filter(|stream| stream.len() <= bytes_max);
            streams.extend(stream.map(|stream| (format!("{} {side:?}", recording.name), stream)));
        }
    }
    streams
}

fn feed(parts: &[&[u8]]) -> Result<Vec<Frame>, DecodeError> {
    let bodies = Arc::clone(bus().bodies());
    let ledger = Ledger::root("golden", Limits::default());
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX, bodies, ledger);
    let mut frames = Vec::new();
    for part in parts {
        decoder.feed(part, &mut frames)?;
    }
    Ok(frames)
}

/// Only for its pool of buffers: nothing runs on it.
fn bus() -> &'static BusRuntime {
    static BUS: OnceLock<(Runtime, BusRuntime)> = OnceLock::new();
    let bus = BUS.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let bus = {
            let _entered = runtime.enter();
            nodes::bus()
        };
        (runtime, bus)
    });
    &bus.1
}

fn expected(recorded: &golden::Frame) -> Frame {
    Frame {
        header: header(&recorded.head),
        pbody: recorded.pbody.clone(),
        dbody: recorded.raw(),
    }
}

fn header(head: &Head) -> Header {
    Header {
        mode: RpcMode::from_str_name(&head.mode).unwrap(),
        coordination_id: CoordinationId(head.coordination_id),
        rpc_type: head.rpc_type,
    }
}

/// Follows from the other lengths: a frame has no bytes but its parts.
fn pbody_len(head: &Head) -> usize {
    let prefix = varint_len(head.frame_len - varint_len(head.frame_len));
    let raw = part_head_len(head.raw_len) + head.raw_len;
    let part = head.frame_len - prefix - part_head_len(head.bytes.len()) - head.bytes.len() - raw;
    (0..part)
        .rev()
        .find(|len| 1 + varint_len(*len) + len == part)
        .unwrap()
}

fn part_head_len(part_len: usize) -> usize {
    if part_len == 0 {
        0
    } else {
        1 + varint_len(part_len)
    }
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - value.leading_zeros()).div_ceil(7).max(1) as usize
}
