//! Channels between our own nodes: long-lived streams of messages in both directions of a control connection, for plans,
//! status and metrics.
//!
//! One side opens a channel to a service that the other has registered by name. Each direction has a credit of its own,
//! in bytes, and ends on its own: with an end, with an error, or with the connection, never in silence.
//!
//! ```text
//! ChannelSender::send -> end.rs (credit) -> CHANNEL_MESSAGE -> side.rs (which one) -> end.rs (queue) -> ChannelReceiver
//!                                        <- CHANNEL_CREDIT  <-                     <- taken
//! ```

mod credit;
mod end;
mod error;
mod given_up;
mod halves;
mod request;
mod side;

pub use error::ChannelError;
pub use halves::{Channel, ChannelReceiver, ChannelSender, ChannelSink};
pub use request::{ChannelRequest, ChannelService, ChannelServices, NameTaken};
pub(crate) use side::ChannelSide;

use bytes::Bytes;
use end::End;
use membership::NodeAddress;
use request::Answer;
use rpc_bus::{Ledger, RpcFailure};
use tokio::sync::oneshot;

/// Longest message, in bytes: both sides know it, so that one message may overrun a credit.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Limits of the channels of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelOptions {
    /// Channels that a peer may open on a connection. Default 64.
    pub channels_max: usize,
    /// What a peer may send on a channel before it is taken, in bytes; one message may overrun it. Default 256 KiB.
    pub window_bytes: u64,
    /// What may wait to be taken on all channels of the node, in bytes; a channel that would go beyond fails. Default
    /// 64 MiB.
    pub queued_bytes_max: usize,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            channels_max: 64,
            window_bytes: 256 << 10,
            queued_bytes_max: 64 << 20,
        }
    }
}

/// What all channels of a node share.
#[derive(Clone, Debug)]
pub(crate) struct Around {
    pub(crate) services: ChannelServices,
    pub(crate) options: ChannelOptions,
    /// Where queues are charged.
    pub(crate) ledger: Ledger,
}

/// What comes of a channel within this process.
type Opened = oneshot::Receiver<Result<(), Box<RpcFailure>>>;

impl Around {
    /// A channel within this process: the request for its service, the opening side, and whether it is opened.
    pub(crate) fn here(
        &self,
        node: &NodeAddress,
        argument: Bytes,
    ) -> (ChannelRequest, Channel, Opened) {
        let [here, there] = End::pair([self.options.window_bytes; 2], &self.ledger);
        let (answer, opened) = oneshot::channel();
        let request = ChannelRequest {
            from: node.clone(),
            argument,
            end: there,
            answer: Some(Answer::Here(answer)),
        };
        (request, Channel::new(node.clone(), here), opened)
    }
}
