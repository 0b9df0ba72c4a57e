//! Drill's way of moving batches, towards and from a real Drill: one request a batch, one answer with a credit.
//!
//! ```text
//! sending:    DataTunnel::send -> window (3, grown once) -> REQ_RECORD_BATCH -> answer -> window
//! receiving:  Arrivals::record_batch -> header.rs -> Fragments (route, early data, tombstones)
//!                 -> queue.rs -> BatchStream (decodes) ; ack.rs answers when the last receiver has taken it
//! ```
//!
//! What waits for its consumer waits as it came, and is decoded where it is read. The answer to a batch is what holds
//! its sender back: it goes out at once while few batches wait, and else when the batch is read.

mod ack;
mod credit;
mod early;
mod error;
mod filter;
mod fragments;
mod header;
mod queue;
mod receiver;
mod refusals;
mod tombstones;
mod tunnel;

pub(crate) use fragments::Arrivals;

pub use credit::Credit;
pub use error::{ReceiveError, Receivers, RegisterError, TunnelError};
pub use filter::RuntimeFilter;
pub use fragments::{FragmentEvents, Fragments, FragmentsOptions, NoEvents};
pub use receiver::{BatchStream, Input, Order};
pub use tunnel::{DataTunnel, TunnelOptions, TunnelStats};
