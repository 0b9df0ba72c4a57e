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
//!
//! ```
//! use std::sync::Arc;
//!
//! use bytes::Bytes;
//! use protos::{Plane, calls::user::CancelQuery, rpc::Ack, shared::QueryId};
//! use rpc_bus::{
//!     Acceptor, BusRuntime, CallOptions, ConnectionOptions, Endpoint, Handler, Hello, IdleTimeout,
//!     InboundRequest, Ledger, Server, ServerOptions, Verdict, connect, ledger::Limits,
//! };
//!
//! struct Cancels;
//!
//! impl Handler for Cancels {
//!     fn handle(&self, request: InboundRequest) {
//!         // A body that is no QueryId has been refused already.
//!         let Some((_query, _dbody, reply)) = request.decode::<CancelQuery>() else { return };
//!         reply.send(&Ack { ok: Some(true) });
//!     }
//! }
//!
//! impl Acceptor for Cancels {
//!     fn accept(&self, _hello: Hello) -> Verdict {
//!         let handler = Arc::new(Self);
//!         Verdict::Open { reply: Bytes::new(), handler, idle_timeout: IdleTimeout::Keep }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = BusRuntime::here();
//! let ledger = Ledger::root("process", Limits::default());
//! let options = ServerOptions::new(ConnectionOptions::user_server());
//! let (here, user) = ("127.0.0.1:0".parse()?, Plane::User);
//! let server =
//!     Server::bind(here, user, runtime.clone(), options, ledger.clone(), Arc::new(Cancels)).await?;
//!
//! let options = ConnectionOptions::user_client();
//! let (to, hello) = (Endpoint::new(server.local_addr(), user), Bytes::new());
//! let (connection, _reply) =
//!     connect(&to, &runtime, options, ledger, hello, Arc::new(Cancels)).await?;
//! let query = QueryId::default();
//! let answer = connection.call::<CancelQuery>(&query, vec![], CallOptions::default()).await?;
//! assert_eq!(answer.message.ok, Some(true));
//! # Ok(())
//! # }
//! ```

pub mod auth;
pub mod frame;
pub mod fuzzing;
pub mod ledger;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod task;
pub mod tls;

mod capabilities;
mod client;
mod connection;
mod dispatch;
mod driver;
mod entrance;
mod error;
mod id_hash;
mod lanes;
mod link;
mod lookout;
mod metrics;
mod network;
mod options;
mod pace;
mod reconnect;
mod remote;
mod replies;
mod reply;
mod retry;
mod runtime;
mod server;
mod socket;
mod spawn;
mod stats;
mod transport;
mod vectored;

#[cfg(test)]
mod tests;

pub use capabilities::{Capabilities, Feature, Features};
pub use client::{Endpoint, connect};
pub use connection::IdleTimeout;
pub use dispatch::{Acceptor, Handler, Hello, OneWayMessage, Verdict};
pub use error::{CallError, CloseReason, ConnectError, PeerMisbehaved, ProtocolError, RpcFailure};
pub use frame::CoordinationId;
pub use lanes::StreamKey;
pub use ledger::{BudgetExceeded, Charge, Ledger};
pub use metrics::{
    ConnectionCounts, Histogram, InboundRpc, Metrics, OutboundRpc, PlaneSnapshot, RpcCounts,
};
pub use options::{Beats, ConnectionOptions, OptionsError};
pub use reconnect::{Greeter, ReconnectingClient, Target};
pub use remote::{Answer, CallOptions, PendingAnswer, RemoteConnection};
pub use reply::{InboundRequest, Reply, Responder};
pub use retry::{RetryOptions, RetryOptionsError, RetryPolicy, is_retryable};
pub use runtime::{BusRuntime, ComputePanicked};
pub use server::{Server, ServerOptions};
pub use stats::{ConnectionStats, RoundTripStats, RoundTrips};
