//! The control plane: calls between nodes, channels, the fragments of queries, and their foremen.
//!
//! A [`ControlNode`] accepts other nodes, connects to them when there is something to say, and uses whatever connection
//! there is, whichever side has opened it. [`ControlNode::tunnel`] is the way to one of them; this node itself is one,
//! reached without a socket. What a node serves is [`Services`]: Drill's calls in terms of queries and fragments
//! ([`FragmentService`], [`QueryService`]), custom messages by number ([`CustomHandlers`]) and, between our own nodes,
//! channels by name ([`ChannelServices`]).
//!
//! ```text
//! request -> dispatch.rs -> served.rs (what it means) -> services.rs, custom.rs, channel/side.rs -> reply.rs
//! tunnel.rs -> peers.rs (which connection) -> connect.rs, if there is none
//! ```
//!
//! On top of it, for engines whose plans are bytes: [`Fragments`] runs fragments on this node, with a
//! [`FragmentRunner`]; [`Foremen`] spreads the fragments of a query over nodes, watches them, and ends them everywhere,
//! once; [`heartbeat::Heartbeats::on_down`] tells both of nodes that are gone. With a real Drillbit only the calls are
//! shared: its plans cannot be run here, and say so.
//!
//! ```
//! # use std::{error::Error, net::SocketAddr, sync::Arc};
//! # use bit_control::{ControlNode, ControlOptions, CustomReply, ChannelRequest, Services};
//! # use bytes::Bytes;
//! # use membership::NodeAddress;
//! # use protos::{coord::DrillbitEndpoint, id::QueryId};
//! # use rpc_bus::{BusRuntime, Ledger, ledger::Limits};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn Error>> {
//! # let runtime = BusRuntime::current(Arc::new(rayon::ThreadPoolBuilder::new().build()?));
//! # let ledger = Ledger::root("process", Limits::default());
//! # let any = SocketAddr::from(([127, 0, 0, 1], 0));
//! # let endpoint = DrillbitEndpoint { address: Some("127.0.0.1".to_owned()), ..Default::default() };
//! # let bind = |services| {
//! #     let (options, endpoint) = (ControlOptions::default(), endpoint.clone());
//! #     ControlNode::bind(any, endpoint, runtime.clone(), options, services, ledger.clone())
//! # };
//! let services = Services::default();
//! let upper = |_: &NodeAddress, message: Bytes, _: Bytes, reply: CustomReply| {
//!     reply.send(message.to_ascii_uppercase().into(), vec![]);
//! };
//! services.custom.register(77, upper)?;
//! let refuse_all = |request: ChannelRequest| drop(request);
//! services.channels.register("metrics", refuse_all)?;
//! let there = bind(services).await?;
//! let here = bind(Services::default()).await?;
//!
//! let tunnel = here.tunnel(there.address());
//! let answer = tunnel.custom(77, Bytes::from_static(b"hello"), vec![]).await?;
//! assert_eq!(answer.message, "HELLO");
//! // Nothing is run there.
//! assert!(!tunnel.cancel_query(QueryId { part1: 1, part2: 2 }).await?);
//! assert!(tunnel.open_channel("metrics", Bytes::new()).await.is_err());
//! # Ok(())
//! # }
//! ```

pub mod heartbeat;

mod channel;
mod connect;
mod custom;
mod dispatch;
mod foreman;
mod fragments;
mod handshake;
mod node;
mod peers;
mod reply;
mod served;
mod server;
mod services;
mod tunnel;

#[cfg(test)]
mod simulation;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use channel::{
    Channel, ChannelError, ChannelOptions, ChannelReceiver, ChannelRequest, ChannelSender,
    ChannelService, ChannelServices, ChannelSink, MESSAGE_BYTES_MAX, NameTaken,
};
pub use custom::{CustomHandler, CustomHandlers, CustomReply, NumberTaken};
pub use foreman::{Assignment, Foremen, ForemenOptions, Outcome, QueryPlan, QueryRun};
pub use fragments::{
    FragmentControl, FragmentInfo, FragmentRunner, FragmentTask, Fragments, FragmentsOptions,
    Started,
};
pub use node::{ControlNode, ControlOptions};
pub use peers::{Direction, PeerInfo};
pub use reply::ReplyTo;
pub use served::{Served, fragment_handle};
pub use services::{
    Extension, FragmentService, NoFragments, NoQueries, QueryService, Services, unknown_query,
};
pub use tunnel::ControlTunnel;

/// What a panic has left behind is still whole: nothing here panics half way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
