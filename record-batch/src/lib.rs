//! Arrow record batches to and from Drill's vectors. No I/O, no state between batches beyond the
//! schema.
//!
//! A Drill batch is a descriptor ([`RecordBatchDef`](protos::shared::RecordBatchDef)) and a body in
//! which the columns' buffers follow each other without padding. [`decode`] cuts the body along the
//! descriptor into Arrow arrays; an [`Encoder`] does the reverse for the batches of one schema.
//!
//! # Mapping
#![doc = ""]
#![doc = include_str!("../MAPPING.md")]

// Both formats are little-endian in memory and on the wire; buffers go from one to the other as
// they are.
#[cfg(not(target_endian = "little"))]
compile_error!("record-batch shares buffers between wire and memory, which are little-endian");

mod body;
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

pub use decode::{DecodeOptions, Decoder, decode, schema_of};
pub use drill_type::DrillType;
pub use encode::{EncodedBatch, Encoder};
pub use error::{DecodeError, EncodeError, EncodeProblem, VectorError};
pub use split::split;
