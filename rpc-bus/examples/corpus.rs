//! Writes the corpus of the fuzz targets: the recordings of a real Drill, cut short, and edge cases made by hand.
//!
//! ```text
//! cargo run -p rpc-bus --example corpus -- tests/golden fuzz/corpus
//! ```
//!
//! A recording becomes three inputs: what each side sent (`stream/`), and a script of either side (`session/`): what came
//! in is received, what went out is called or answered.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use protos::rpc::RpcMode;
use rpc_bus::{
    CoordinationId,
    frame::{Header, encode},
    fuzzing::{Mode, Op, Script, Side},
};
use serde_json::Value;

/// What is kept of a recording, in bytes of frames.
const RECORDING_BYTES_MAX: usize = 3000;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).map(PathBuf::from);
    let (Some(golden), Some(corpus)) = (args.next(), args.next()) else {
        return Err("usage: corpus GOLDEN CORPUS".into());
    };
    let (streams, scripts) = (corpus.join("stream"), corpus.join("session"));
    for folder in [&streams, &scripts] {
        fs::create_dir_all(folder)?;
    }
    for file in recordings(&golden)? {
        let frames = read(&file)?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        for side in [Side::Client, Side::Server] {
            let (sent, script) = (sent_by(side, &frames), script(side, &frames));
            fs::write(streams.join(format!("{name}.{side:?}")), sent)?;
            fs::write(scripts.join(format!("{name}.{side:?}")), script.bytes())?;
        }
    }
    for (name, bytes) in edge_cases() {
        fs::write(streams.join(name), bytes)?;
    }
    Ok(())
}

/// One of each kind: the other recordings say the same with other data.
fn recordings(golden: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in ["auth", "raw", "user", "dist"] {
        for entry in fs::read_dir(golden.join(folder))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let distributed = folder == "dist" && !name.starts_with("dynfc");
            if name.ends_with(".jsonl") && !distributed {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

struct Recorded {
    from: Side,
    mode: Option<String>,
    coordination_id: i64,
    bytes: Vec<u8>,
}

/// The frames of a recording, up to the first that is too long or was left out.
fn read(file: &Path) -> Result<Vec<Recorded>> {
    let text = fs::read_to_string(file)?;
    let mut frames = Vec::new();
    let mut bytes_left = RECORDING_BYTES_MAX;
    for line in text.lines().skip(1) {
        let line: Value = serde_json::from_str(line)?;
        let frame = line.get("frame").or_else(|| line.get("not_a_frame"));
        let Some(frame) = frame.and_then(Value::as_str) else {
            break;
        };
        let bytes = hex(frame)?;
        let Some(left) = bytes_left.checked_sub(bytes.len()) else {
            break;
        };
        bytes_left = left;
        frames.push(Recorded {
            from: match line["dir"].as_str() {
                Some("C>S") => Side::Client,
                _ => Side::Server,
            },
            mode: line["mode"].as_str().map(str::to_owned),
            coordination_id: line["coord"].as_i64().unwrap_or_default(),
            bytes,
        });
    }
    Ok(frames)
}

fn hex(text: &str) -> Result<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

fn sent_by(side: Side, frames: &[Recorded]) -> Vec<u8> {
    let sent = frames.iter().filter(|frame| frame.from == side);
    sent.flat_map(|frame| frame.bytes.clone()).collect()
}

/// The recording as `side` lived through it.
fn script(side: Side, frames: &[Recorded]) -> Script {
    let mode = Mode {
        side,
        raw: true,
        ..Script::parse(&[]).mode
    };
    let mut ops = Vec::new();
    let mut waiting = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        let is = |mode| frame.mode.as_deref() == Some(mode);
        if frame.from != side {
            ops.push(Op::Receive(frame.bytes.clone()));
            // The first frame is the handshake, which no handler sees.
            if is("REQUEST") && index > 0 {
                waiting.push(frame.coordination_id);
            }
        } else if is("REQUEST") && index > 0 {
            let bytes = u16::try_from(frame.bytes.len()).unwrap_or(u16::MAX);
            let (stream, deadline) = (0, 0);
            ops.push(Op::Call {
                stream,
                deadline,
                bytes,
            });
        } else if let Some(at) = waiting.iter().position(|&id| id == frame.coordination_id) {
            waiting.remove(at);
            let which = u8::try_from(at).unwrap_or(u8::MAX);
            let failed = is("RESPONSE_FAILURE");
            let bytes = 0;
            ops.push(if failed {
                Op::Refuse { which }
            } else {
                Op::Answer { which, bytes }
            });
        }
    }
    Script { mode, ops }
}

/// Frames as no good peer sends them.
fn edge_cases() -> Vec<(&'static str, Vec<u8>)> {
    let hello = frame(RpcMode::Request, 1, 0, 2, 0);
    let behind = |rest: &[u8]| [&hello[..], rest].concat();
    vec![
        ("edge.empty", Vec::new()),
        ("edge.length_0", vec![0]),
        ("edge.length_negative", vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("edge.length_without_end", vec![0x80; 6]),
        ("edge.length_above_limit", vec![0x81, 0x80, 0x40, 0x0a, 6]),
        (
            "edge.length_not_minimal",
            behind(&[0x8c, 0, 0x0a, 6, 8, 3, 0x10, 0, 0x18, 0, 0x12, 2, 8, 1]),
        ),
        (
            "edge.fields_in_other_order",
            vec![0x0c, 0x0a, 6, 0x18, 0, 0x10, 1, 8, 0, 0x12, 2, 8, 1],
        ),
        ("edge.header_left_out", vec![6, 0x0a, 0, 0x12, 2, 8, 1]),
        (
            "edge.raw_body_of_length_0",
            behind(&[0x0c, 0x0a, 6, 8, 0, 0x10, 2, 0x18, 3, 0x12, 0, 0x1a, 0]),
        ),
        (
            "edge.same_id_twice",
            behind(
                &[
                    frame(RpcMode::Request, 7, 3, 2, 0),
                    frame(RpcMode::Request, 7, 3, 2, 0),
                ]
                .concat(),
            ),
        ),
        (
            "edge.answers_to_nothing",
            behind(&frame(RpcMode::Response, 9, 1, 2, 0)),
        ),
        ("edge.two_handshakes", behind(&hello)),
        ("edge.goodbye", behind(&frame(RpcMode::Request, 2, 2, 0, 0))),
        ("edge.ping_first", frame(RpcMode::Ping, 0, 0, 2, 0)),
        (
            "edge.pongs_without_ping",
            behind(&frame(RpcMode::Pong, 0, 0, 2, 0)),
        ),
        (
            "edge.lowest_id",
            behind(&frame(RpcMode::Request, i32::MIN, 3, 2, 0)),
        ),
        (
            "edge.staged_to_the_byte",
            behind(&frame(RpcMode::Request, 2, 3, 0, 16 * 1024 - 12)),
        ),
        (
            "edge.just_not_staged",
            behind(&frame(RpcMode::Request, 2, 3, 0, 16 * 1024 + 1)),
        ),
    ]
}

fn frame(mode: RpcMode, id: i32, rpc_type: i32, pbody: usize, dbody: usize) -> Vec<u8> {
    let header = Header {
        mode,
        coordination_id: CoordinationId(id),
        rpc_type,
    };
    let mut wire = Vec::new();
    encode(&header, &[8, 1][..pbody], &vec![5; dbody], &mut wire);
    wire
}
