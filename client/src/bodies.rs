//! The bodies of one result, as record batches.

use arrow::array::RecordBatch;
use record_batch::{ArrowDecoder, Decoder};

use crate::{error::ClientError, gate::BatchBody};

/// Decodes what the server sends: Drill's vectors, or Arrow bodies where both sides have agreed on them.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    drill: Decoder,
    arrow: ArrowDecoder,
}

impl Bodies {
    /// The batch; without rows where only the columns are told.
    pub(crate) fn decode(&mut self, body: BatchBody) -> Result<RecordBatch, ClientError> {
        match body {
            BatchBody::Drill(def, dbody) => Ok(self.drill.decode(&def, &dbody)?),
            BatchBody::Arrow(dbody) => {
                let batch = self.arrow.decode(&dbody)?;
                let schema = self.arrow.schema();
                let columns_only = || schema.map(|schema| RecordBatch::new_empty(schema.clone()));
                let nothing = ClientError::Protocol("an Arrow body without columns");
                batch.or_else(columns_only).ok_or(nothing)
            }
        }
    }
}
