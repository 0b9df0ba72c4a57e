//! A framed RPC bus, wire-compatible with Apache Drill's RPC.
//!
//! The way of one message, file by file:
//!
//! ```text
//! socket -> driver.rs poll_read -> frame/decoder.rs feed -> connection.rs handle_frame -> Event
//!        -> dispatch.rs (mailbox, drainer on the app runtime) -> Handler::handle -> reply.rs Responder::send
//!        -> connection.rs respond -> lanes.rs -> connection.rs transmit -> driver.rs poll_write -> socket
//! ```
//!
//! A [`Server`] accepts and asks an [`Acceptor`] about every handshake; [`connect`] is the other side. Both hand out
//! [`RemoteConnection`]s, whose calls are rows of `protos::calls`, and give the peer's requests to a [`Handler`].

pub mod frame;
pub mod fuzzing;
pub mod ledger;
pub mod task;

mod client;
mod connection;
mod dispatch;
mod driver;
mod error;
mod id_hash;
mod lanes;
mod link;
mod options;
mod reconnect;
mod remote;
mod reply;
mod retry;
mod runtime;
mod server;
mod spawn;
mod stats;

#[cfg(test)]
mod tests;

pub use client::connect;
pub use connection::IdleTimeout;
pub use dispatch::{Acceptor, Handler, Hello, Verdict};
pub use error::{CallError, CloseReason, ConnectError, ProtocolError, RpcFailure};
pub use frame::CoordinationId;
pub use lanes::StreamKey;
pub use ledger::{BudgetExceeded, Charge, Ledger};
pub use options::{Beats, ConnectionOptions, OptionsError};
pub use reconnect::{Greeter, ReconnectingClient, Target};
pub use remote::{Answer, CallOptions, PendingAnswer, RemoteConnection};
pub use reply::{InboundRequest, Reply, Responder};
pub use retry::{RetryOptions, RetryOptionsError, RetryPolicy, is_retryable};
pub use runtime::{BusRuntime, ComputePanicked};
pub use server::{Server, ServerOptions};
pub use stats::{ConnectionStats, RoundTripStats};
