//! The control plane: fragments, custom messages, heartbeats.

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
