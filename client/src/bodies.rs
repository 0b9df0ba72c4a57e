//! The bodies of one result, as record batches.

use arrow::array::RecordBatch;
use record_batch::{ArrowDecodeOptions, ArrowDecoder, Decoder};

use crate::{error::ClientError, gate::BatchBody};

/// Decodes what the server sends: Drill's vectors, or Arrow bodies where both sides have agreed on them.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    drill: Decoder,
    /// Once the first Arrow body has come.
    arrow: Option<ArrowDecoder>,
}

impl Bodies {
    /// The batch; without rows where only the columns are told.
    pub(crate) fn decode(&mut self, body: BatchBody) -> Result<RecordBatch, ClientError> {
        match body {
            BatchBody::Drill(def, dbody) => Ok(self.drill.decode(&def, &dbody)?),
            BatchBody::Arrow(dbody) => {
                let new = || ArrowDecoder::new(ArrowDecodeOptions::default());
                let decoder = self.arrow.get_or_insert_with(new);
                let batch = decoder.decode(&dbody)?;
                let schema = decoder.schema();
                let columns_only = || schema.map(|schema| RecordBatch::new_empty(schema.clone()));
                let nothing = ClientError::Protocol("an Arrow body without columns");
                batch.or_else(columns_only).ok_or(nothing)
            }
        }
    }
}
