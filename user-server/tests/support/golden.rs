//! Frames of a recorded conversation with a real Drillbit.

use std::{fs, path::Path};

use serde_json::Value;

/// A frame as it was on the wire.
pub struct Recorded {
    pub from_client: bool,
    pub id: i32,
    pub rpc_type: i32,
    /// The whole frame, length prefix included.
    pub bytes: Vec<u8>,
    pub pbody: Vec<u8>,
}

/// The frames of `tests/golden/<name>.jsonl` in their order.
pub fn recording(name: &str) -> Vec<Recorded> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let text = fs::read_to_string(golden.join(format!("{name}.jsonl"))).expect("a recording");
    let lines = text.lines().skip(1);
    lines
        .map(|line| recorded(&serde_json::from_str(line).expect("JSON")))
        .collect()
}

fn recorded(line: &Value) -> Recorded {
    Recorded {
        from_client: line["dir"] == "C>S",
        id: number(&line["coord"]),
        rpc_type: number(&line["type"]),
        bytes: hex(&line["frame"]),
        pbody: hex(&line["pbody"]),
    }
}

fn number(value: &Value) -> i32 {
    i32::try_from(value.as_i64().expect("a number")).expect("small")
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("bytes in hexadecimal");
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("two digits"))
        .collect()
}
