//! The bodies of the fuzz targets: any bytes in, invariants out. They panic if one does not hold.
//!
//! [`vectors`] and [`arrow()`] take one input each, which [`vectors_input`] and [`arrow_input`] write. They run as
//! cargo-fuzz targets (`fuzz/`), over the corpus and over seeded mutations of it in the test suite, and for as long as one
//! likes by `RECORD_BATCH_MUTATIONS=10000000 cargo test --release -p record-batch --test corpus`.

use arrow::{
    array::{Array, RecordBatch},
    datatypes::{DataType, Field},
};
use bytes::Bytes;
use prost::Message;
use protos::shared::RecordBatchDef;

use crate::{
    ArrowDecodeOptions, ArrowDecoder, ArrowEncoder, DecodeOptions, Encoder, body::saturating,
};

/// [`decode`] of an input that [`vectors_input`] wrote, or that looks like none.
///
/// # Panics
///
/// As [`decode`].
pub fn vectors(input: &[u8]) {
    if let Some((def, body)) = cut(input) {
        decode(def, body);
    }
}

/// Descriptor and body in one: the descriptor behind its length.
#[must_use]
pub fn vectors_input(def: &[u8], body: &[u8]) -> Vec<u8> {
    [&length(def), def, body].concat()
}

/// [`arrow_bodies`] of an input that [`arrow_input`] wrote, or that looks like none.
///
/// # Panics
///
/// As [`arrow_bodies`].
pub fn arrow(mut input: &[u8]) {
    let mut bodies = Vec::new();
    while let Some((body, rest)) = cut(input) {
        bodies.push(Bytes::copy_from_slice(body));
        input = rest;
    }
    arrow_bodies(&bodies);
}

/// The bodies of a stream in one, each behind its length.
#[must_use]
pub fn arrow_input(bodies: &[Bytes]) -> Vec<u8> {
    let parts = bodies
        .iter()
        .flat_map(|body| [length(body).to_vec(), body.to_vec()]);
    parts.flatten().collect()
}

fn length(bytes: &[u8]) -> [u8; 4] {
    saturating(bytes.len()).to_le_bytes()
}

/// The part behind a length, or all that is left if it is longer, and the rest.
fn cut(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    Some(rest.split_at(length.min(rest.len())))
}

/// Decodes a descriptor and body from anywhere. What decodes must encode, and decode to the same
/// rows again; from then on nothing changes any more.
///
/// # Panics
///
/// When an accepted batch does not survive the way there and back, or costs more memory than its
/// bytes justify: a finding.
pub fn decode(def_bytes: &[u8], body: &[u8]) {
    let Ok(def) = RecordBatchDef::decode(def_bytes) else {
        return;
    };
    let body = Bytes::copy_from_slice(body);
    let Ok(batch) = crate::decode(&def, &body, &DecodeOptions::default()) else {
        return;
    };
    let memory: usize = batch
        .columns()
        .iter()
        .map(Array::get_buffer_memory_size)
        .sum();
    // A decimal takes 16 bytes here and at least its offset there; copies are rounded up.
    let justified = 8 * body.len() + 1024 * (1 + def_bytes.len());
    assert!(
        memory <= justified,
        "{memory} bytes from {} and {}",
        def_bytes.len(),
        body.len()
    );
    let again = there_and_back(&batch);
    assert_eq!(again.num_rows(), batch.num_rows());
    assert_eq!(there_and_back(&again), again);
    // A union's row without a value loses its type, and layouts that Drill does not write, such as
    // a LIST of REPEATED vectors, become ones that it does.
    let unions = batch
        .columns()
        .iter()
        .any(|column| has_union(column.data_type()));
    if !unions && again.schema() == batch.schema() {
        assert_eq!(again, batch);
    }
}

/// Decodes the bodies of one stream from anywhere. What decodes must encode, and decode to the same rows again.
///
/// # Panics
///
/// When an accepted batch does not survive the way there and back, or costs more memory than its bytes justify.
pub fn arrow_bodies(bodies: &[Bytes]) {
    let mut decoder = ArrowDecoder::new(ArrowDecodeOptions::default());
    let bytes: usize = bodies.iter().map(Bytes::len).sum();
    for body in bodies {
        let Ok(batch) = decoder.decode(body) else {
            return;
        };
        let Some(batch) = batch else { continue };
        let columns = batch.columns().iter();
        let memory: usize = columns.map(Array::get_buffer_memory_size).sum();
        // A dictionary in another may be there once for each value of the other.
        let schema = batch.schema();
        let mut types = schema.flattened_fields().into_iter().map(Field::data_type);
        let repeats = if types.any(|of| matches!(of, DataType::Dictionary(..))) {
            1 + bytes / 16
        } else {
            1
        };
        let justified = (8 * bytes + 1024) * repeats;
        assert!(memory <= justified, "{memory} bytes from {bytes}");
        assert_eq!(arrow_there_and_back(&batch), batch);
    }
}

fn arrow_there_and_back(batch: &RecordBatch) -> RecordBatch {
    let mut encoder = ArrowEncoder::try_new(&batch.schema()).expect("decoded types encode");
    let pieces = encoder.encode(batch).expect("decoded values encode");
    let mut decoder = ArrowDecoder::new(ArrowDecodeOptions::default());
    let again = decoder.decode(&Bytes::from(pieces.concat()));
    again
        .expect("our own encoding decodes")
        .expect("there is a batch")
}

fn there_and_back(batch: &RecordBatch) -> RecordBatch {
    let encoder = Encoder::try_new(&batch.schema()).expect("decoded types encode");
    let sent = encoder.encode(batch).expect("decoded values encode");
    crate::decode(&sent.def, &sent.joined(), &DecodeOptions::default())
        .expect("our own encoding decodes")
}

fn has_union(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) => true,
        DataType::List(item) | DataType::Map(item, _) => has_union(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_union(field.data_type())),
        _ => false,
    }
}
