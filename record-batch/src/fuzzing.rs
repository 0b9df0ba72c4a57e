//! The body of the fuzz target, also run as a plain test.

use arrow::{
    array::{Array, RecordBatch},
    datatypes::DataType,
};
use bytes::Bytes;
use prost::Message;
use protos::shared::RecordBatchDef;

use crate::{DecodeOptions, Encoder};

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
