//! JSON: an array of objects, or one object a line. A schema change needs nothing: every object
//! names its keys.

use std::sync::Arc;

use arrow::{
    array::{Array, RecordBatch, StructArray},
    datatypes::Field,
    json::writer::{EncoderOptions, make_encoder},
};

use super::{Render, RenderError, cell};

/// A result as JSON objects. A DECIMAL keeps its digits; a float that is no number is null.
pub(crate) struct Json {
    options: EncoderOptions,
    frame: Frame,
    rows: u64,
}

/// What stands around the objects.
struct Frame {
    open: &'static [u8],
    between: &'static [u8],
    close: &'static [u8],
    /// In place of all of it when there is no object.
    empty: &'static [u8],
}

impl Json {
    /// `[`, one object a line, `]`.
    pub(crate) fn array() -> Self {
        Self::new(Frame {
            open: b"[\n",
            between: b",\n",
            close: b"\n]\n",
            empty: b"[]\n",
        })
    }

    /// One object a line.
    pub(crate) fn lines() -> Self {
        Self::new(Frame {
            open: b"",
            between: b"\n",
            close: b"\n",
            empty: b"",
        })
    }

    fn new(frame: Frame) -> Self {
        Self {
            options: cell::json_options(),
            frame,
            rows: 0,
        }
    }
}

impl Render for Json {
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), RenderError> {
        let objects = StructArray::from(batch.clone());
        let field = Arc::new(Field::new("", objects.data_type().clone(), false));
        let mut encoder = make_encoder(&field, &objects, &self.options)?;
        for row in 0..batch.num_rows() {
            let front = if self.rows == 0 {
                self.frame.open
            } else {
                self.frame.between
            };
            out.extend_from_slice(front);
            encoder.encode(row, out);
            self.rows += 1;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), RenderError> {
        out.extend_from_slice(if self.rows == 0 {
            self.frame.empty
        } else {
            self.frame.close
        });
        Ok(())
    }
}
