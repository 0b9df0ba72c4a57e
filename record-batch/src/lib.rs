//! Arrow record batches to and from Drill's vectors. No I/O, no state between batches beyond the
//! schema.
//!
//! A Drill batch is a descriptor ([`RecordBatchDef`](protos::shared::RecordBatchDef)) and a body in
//! which the columns' buffers follow each other without padding. [`decode()`] cuts the body along the
//! descriptor into Arrow arrays; an [`Encoder`] does the reverse for the batches of one schema.
//!
//! ```
//! # use std::{error::Error, sync::Arc};
//! use arrow::array::{ArrayRef, RecordBatch, StringArray};
//! use record_batch::{DecodeOptions, Decoder, Encoder, split};
//!
//! # fn main() -> Result<(), Box<dyn Error>> {
//! let names: ArrayRef = Arc::new(StringArray::from(vec![Some("Sheri"), None]));
//! let batch = RecordBatch::try_from_iter([("name", names)])?;
//!
//! let encoder = Encoder::try_new(&batch.schema())?;
//! let mut decoder = Decoder::new(DecodeOptions::default());
//! for piece in split(&batch, 32 * 1024, 1024 * 1024) {
//!     let sent = encoder.encode(&piece)?;
//!     let received = decoder.decode(&sent.def, &sent.joined())?;
//!     assert_eq!(received, piece);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Between our own nodes bodies are Arrow's: an [`ArrowEncoder`] and an [`ArrowDecoder`] keep every Arrow type, for the
//! batches of one stream. A body of either kind may be compressed with a [`Codec`], cut into [`chunks()`] and secured by
//! a [`Checksum`].
//!
//! Null rows keep whatever stands in their slots, on both sides and both ways: it travels as it is,
//! is never looked at, and text behind a null row need not even be UTF-8. Who must not show it to a
//! peer clears it before encoding.
//!
//! # Mapping
#![doc = ""]
#![doc = include_str!("../MAPPING.md")]

// Both formats are little-endian in memory and on the wire; buffers go from one to the other as
// they are.
#[cfg(not(target_endian = "little"))]
compile_error!("record-batch shares buffers between wire and memory, which are little-endian");

mod arrow_body;
mod body;
mod checked;
mod checksum;
mod chunks;
mod codec;
mod decimal;
mod decode;
mod drill_type;
mod encode;
mod error;
pub mod fuzzing;
mod mapping;
pub mod metadata;
mod names;
mod split;
mod time;
mod validity;

pub use arrow_body::{
    ArrowBodyError, ArrowDecodeOptions, ArrowDecoder, ArrowEncoder, arrow_body_bytes,
};
pub use checksum::Checksum;
pub use chunks::{ChunkError, Reassembly, chunks};
pub use codec::{Codec, CodecError};
pub use decode::{DecodeOptions, Decoder, decode, schema_of};
pub use drill_type::DrillType;
pub use encode::{EncodedBatch, Encoder};
pub use error::{DecodeError, EncodeError, EncodeProblem, VectorError};
pub use split::{body_bytes, split};
