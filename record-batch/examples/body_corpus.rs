//! Writes the corpus of the fuzz targets `vectors` and `arrow`.
//!
//! ```sh
//! cargo run -p record-batch --example body_corpus -- tests/golden fuzz/corpus
//! ```
//!
//! Small batches out of the recordings of a real Drill, and small batches of random schemas.

use std::{env, error::Error, fs, path::Path};

use arrow::array::RecordBatch;
use bytes::Bytes;
use prost::Message;
use protos::{data::FragmentRecordBatch, shared::QueryData, shared::RecordBatchDef};
use record_batch::{ArrowEncoder, Encoder, fuzzing};
use serde_json::Value;

/// Longest input: mutations of longer ones find nothing new, slower.
const INPUT_BYTES_MAX: usize = 4000;
/// Batches of each recording.
const RECORDED: usize = 8;
/// Random schemas of each kind.
const SCHEMAS: u64 = 60;
const ROWS: usize = 4;

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let [golden, corpus] = env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "usage: corpus RECORDINGS CORPUS, such as tests/golden fuzz/corpus")?;
    let corpus = Path::new(&corpus);
    for target in ["vectors", "arrow"] {
        fs::create_dir_all(corpus.join(target))?;
    }
    recorded(Path::new(&golden), corpus)?;
    for seed in 0..SCHEMAS {
        let batch = random_batches::batch(seed, ROWS);
        let sent = Encoder::try_new(&batch.schema())?.encode(&batch)?;
        let input = fuzzing::vectors_input(&sent.def.encode_to_vec(), &sent.joined());
        write(corpus, &format!("vectors/random-{seed}"), &input)?;
        write(corpus, &format!("arrow/random-{seed}"), &stream(&batch)?)?;
    }
    Ok(())
}

/// Two bodies of one stream.
fn stream(batch: &RecordBatch) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut encoder = ArrowEncoder::try_new(&batch.schema())?;
    let mut bodies = Vec::new();
    for piece in [batch.clone(), batch.slice(1, 2)] {
        bodies.push(Bytes::from(encoder.encode(&piece)?.concat()));
    }
    Ok(fuzzing::arrow_input(&bodies))
}

fn write(corpus: &Path, name: &str, input: &[u8]) -> Done {
    if input.len() <= INPUT_BYTES_MAX {
        fs::write(corpus.join(name), input)?;
    }
    Ok(())
}

/// The first batches of each recording, whose bodies stand in the frames themselves.
fn recorded(golden: &Path, corpus: &Path) -> Done {
    for folder in ["user", "dist"] {
        for entry in fs::read_dir(golden.join(folder))? {
            let path = entry?.path();
            if path
                .extension()
                .is_none_or(|extension| extension != "jsonl")
            {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            for (number, input) in inputs(&text)?.into_iter().enumerate().take(RECORDED) {
                write(corpus, &format!("vectors/{name}-{number}"), &input)?;
            }
        }
    }
    Ok(())
}

/// Different batches of one recording.
fn inputs(text: &str) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut inputs = Vec::new();
    for line in text.lines() {
        let frame: Value = serde_json::from_str(line)?;
        if let Some(def) = definition(&frame)? {
            let input = fuzzing::vectors_input(&def.encode_to_vec(), &hex(&frame["raw"]));
            if !inputs.contains(&input) {
                inputs.push(input);
            }
        }
    }
    Ok(inputs)
}

fn definition(frame: &Value) -> Result<Option<RecordBatchDef>, Box<dyn Error>> {
    if frame["mode"] != "REQUEST" || frame.get("pbody").is_none() || frame.get("raw_bin").is_some()
    {
        return Ok(None);
    }
    let pbody = hex(&frame["pbody"]);
    Ok(match frame["name"].as_str() {
        Some("QUERY_DATA") => QueryData::decode(&*pbody)?.def,
        Some("REQ_RECORD_BATCH") => FragmentRecordBatch::decode(&*pbody)?.def,
        _ => None,
    })
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default().as_bytes();
    let pairs = text.chunks(2).filter_map(|pair| str::from_utf8(pair).ok());
    pairs
        .filter_map(|pair| u8::from_str_radix(pair, 16).ok())
        .collect()
}
