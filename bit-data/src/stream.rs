//! Streams between our own nodes: batches of one fragment for another, under byte credits.
//!
//! The receiver opens a stream over a connection of its own, with the bytes that it has room for; batches come back on
//! the same connection, each a one-way message:
//!
//! ```text
//! sender.rs -> transmitter.rs (pieces.rs, compress.rs, outbound.rs: credit) -> frame.rs -> connection
//!           -> receiver_side.rs (by stream id) -> intake.rs (order, credit.rs) -> inbound.rs (queue)
//!           -> receiver.rs (checksum, decompress, decode) -> receivers.rs
//! ```
//!
//! Credits, orders to stop, and the request that opens a stream go the other way: `receiver.rs`, `node.rs` ->
//! `sender_side.rs` -> `registry.rs`, `outbound.rs`. Each message of either way has its checksum (`checksum.rs`).

mod address;
mod budget;
mod checksum;
mod compress;
mod credit;
mod dictionaries;
mod error;
mod frame;
mod inbound;
mod intake;
mod node;
mod options;
mod outbound;
mod peers;
mod pieces;
mod receiver;
mod receiver_side;
mod receivers;
mod registry;
mod sender;
mod sender_side;
mod spilling;
mod stats;
mod transmitter;
mod tunnel;

pub use address::StreamAddress;
pub use error::{NodeDown, OpenError, PeerFailure, ReceiveError, SendError};
pub use node::{DataNode, NodeOptions, Origin};
pub use options::{Checksums, Compression, ReceiveOptions, SendOptions};
pub use peers::DataPeers;
pub use receiver::StreamReceiver;
pub use receivers::{Receivers, Unordered};
pub use sender::StreamSender;
#[cfg(test)]
pub(crate) use stats::lock;
pub use stats::{CodecReason, ReceiveStats, SendStats};
pub use tunnel::{StreamEnd, StreamStats, TunnelPeer, TunnelStats};
