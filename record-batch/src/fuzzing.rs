//! The body of the fuzz target, also run as a plain test.

use arrow::array::Array;
use bytes::Bytes;
use prost::Message;
use protos::shared::RecordBatchDef;

use crate::{DecodeOptions, Encoder};

/// Decodes a descriptor and body from anywhere. What decodes must encode, and decode to the same
/// rows again.
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
    let encoder = Encoder::try_new(&batch.schema()).expect("decoded types encode");
    let again = encoder.encode(&batch).expect("decoded values encode");
    let twice = crate::decode(&again.def, &again.joined(), &DecodeOptions::default());
    assert_eq!(twice.expect("our own encoding decodes"), batch);
}
