//! Why a stream could not be opened, sent or received.

use std::{error, fmt, net::SocketAddr, sync::Arc, time::Duration};

use protos::{
    error::{ErrorType, Retry},
    id::QueryId,
};
use record_batch::{ArrowBodyError, ChunkError, CodecError, EncodeError};
use rpc_bus::{BudgetExceeded, CallError, CloseReason, ConnectError, RpcFailure};
use thiserror::Error;

use super::address::StreamAddress;
use crate::spill::SpillError;

/// A node is down, as whoever watches over nodes has said: see [`DataPeers::node_down`](super::DataPeers::node_down).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the node with incarnation {incarnation:016x} is down: {reason}")]
#[non_exhaustive]
pub struct NodeDown {
    /// Drawn by its process at its start.
    pub incarnation: u64,
    /// As was said.
    pub reason: Arc<str>,
}

/// Why a sender was not registered, or a receiver not opened. Nothing was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer cannot be reached.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The peer refused, did not answer in time, or was lost before it did.
    #[error("{0}")]
    Call(#[from] CallError),
    /// Another process than the expected one is at the address: the node was started again, and has no sender that was
    /// there before.
    #[error(
        "the node at {address} was started again: its incarnation is {}, expected {expected:016x}",
        incarnation(*.actual)
    )]
    OtherIncarnation {
        /// Where its data server listens.
        address: SocketAddr,
        /// As the receiver said.
        expected: u64,
        /// As the process said, if it has.
        actual: Option<u64>,
    },
    /// The node went down while the stream was opened.
    #[error("{0}")]
    NodeDown(#[from] NodeDown),
    /// A budget has no room for the least that the streams need.
    #[error("{0}")]
    Budget(#[from] BudgetExceeded),
    /// The budget of the receiver is too small for its senders.
    #[error("{streams} streams need {needed_bytes} bytes, the receiver's budget is {budget_bytes}")]
    TooManyStreams {
        /// How many senders there are.
        streams: usize,
        /// What they need at least.
        needed_bytes: usize,
        /// As configured.
        budget_bytes: usize,
    },
    /// All streams of a receiver are of one query, in whose budget they are.
    #[error("the stream {address} is of another query, expected one of {expected}")]
    OtherQuery {
        /// The stream.
        address: StreamAddress,
        /// That of the first stream.
        expected: QueryId,
    },
    /// Both ends of a stream are used once: there is a sender of it that has not ended.
    #[error("the stream {0} has a sender already")]
    Duplicate(StreamAddress),
    /// No sender of this process has come in time.
    #[error("no sender of the stream {address} within {waited:?}")]
    NoSender {
        /// The stream.
        address: StreamAddress,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The schema cannot be sent.
    #[error("{0}")]
    Schema(#[from] EncodeError),
    /// A value of the options can never work.
    #[error("{name} is {actual}, expected {expected}")]
    Options {
        /// Name of the option.
        name: &'static str,
        /// The value.
        actual: usize,
        /// What it may be.
        expected: &'static str,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl OpenError {
    /// Whether, and where, another try may succeed.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Connect(error) => worthwhile(error.is_retryable()),
            Self::Call(CallError::Remote(failure)) => failure.retry(),
            Self::Call(error) => worthwhile(error.is_retryable()),
            Self::Budget(_) | Self::NoSender { .. } => Retry::SameNode,
            // What was to be found there will not come back.
            Self::OtherIncarnation { .. } | Self::NodeDown(_) | Self::ShuttingDown => {
                Retry::OtherNode
            }
            Self::TooManyStreams { .. }
            | Self::OtherQuery { .. }
            | Self::Duplicate(_)
            | Self::Schema(_)
            | Self::Options { .. } => Retry::Never,
        }
    }
}

fn incarnation(told: Option<u64>) -> String {
    told.map_or_else(|| "not told".to_owned(), |told| format!("{told:016x}"))
}

fn worthwhile(is_retryable: bool) -> Retry {
    if is_retryable {
        Retry::SameNode
    } else {
        Retry::Never
    }
}

/// What the other end of a stream said before it ended it.
#[derive(Clone, Debug)]
pub struct PeerFailure(Box<RpcFailure>);

impl PeerFailure {
    /// The failure, in Drill's form.
    #[must_use]
    pub fn failure(&self) -> &RpcFailure {
        &self.0
    }
}

impl From<RpcFailure> for PeerFailure {
    fn from(failure: RpcFailure) -> Self {
        Self(Box::new(failure))
    }
}

impl fmt::Display for PeerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl error::Error for PeerFailure {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// Why a sender sends no more. The stream has ended.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The receiver has all that it needs: no failure.
    #[error("the receiver needs no more")]
    ReceiverFinished,
    /// The receiver was cancelled.
    #[error("the receiver was cancelled")]
    ReceiverCancelled,
    /// The receiver failed.
    #[error("the receiver failed: {0}")]
    ReceiverFailed(#[source] PeerFailure),
    /// The connection to the receiver was lost.
    #[error("connection with {peer} lost: {reason}")]
    Lost {
        /// Where the node of the receiver listens, if it has told that; else where it has connected from.
        peer: SocketAddr,
        /// How it ended.
        #[source]
        reason: CloseReason,
    },
    /// The node of the receiver is down.
    #[error("{0}")]
    NodeDown(#[from] NodeDown),
    /// The node of this sender shuts down, wherever its receiver is, and whether or not it has come.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The connection refuses the message.
    #[error("{0}")]
    Call(#[from] CallError),
    /// No receiver has opened the stream in time.
    #[error("no receiver has opened the stream within {0:?}")]
    NoReceiver(Duration),
    /// The batch cannot be encoded.
    #[error("cannot encode: {0}")]
    Encode(String),
    /// One row, with the dictionaries that it brings, is longer than what the receiver takes.
    #[error("a row of {bytes} bytes, at most {bytes_max} are taken")]
    RowTooLong {
        /// Of the row's body.
        bytes: usize,
        /// Agreed with the peer.
        bytes_max: usize,
    },
    /// The stream has ended already.
    #[error("the stream has ended")]
    Ended,
}

impl SendError {
    /// Whether the receiver stopped the stream because it has what it needs: for the sender that is success.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self, Self::ReceiverFinished)
    }

    /// Whether, and where, another try may succeed.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::ReceiverFailed(failure) => failure.failure().retry(),
            Self::Lost { reason, .. } => worthwhile(reason.is_retryable()),
            Self::Call(error) => worthwhile(error.is_retryable()),
            Self::NoReceiver(_) => Retry::SameNode,
            Self::NodeDown(_) | Self::ShuttingDown => Retry::OtherNode,
            Self::ReceiverFinished
            | Self::ReceiverCancelled
            | Self::Encode(_)
            | Self::RowTooLong { .. }
            | Self::Ended => Retry::Never,
        }
    }
}

/// Why a receiver ends without all batches of its sender.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The sender failed.
    #[error("the sender failed: {0}")]
    SenderFailed(#[source] PeerFailure),
    /// The sender was cancelled, or dropped before its end.
    #[error("the sender was cancelled")]
    SenderCancelled,
    /// The connection to the sender was lost, which ends all of its streams.
    #[error("connection with {peer} lost: {reason}")]
    Lost {
        /// Where this node has connected to.
        peer: SocketAddr,
        /// How it ended.
        #[source]
        reason: CloseReason,
    },
    /// The node of the sender is down.
    #[error("{0}")]
    NodeDown(#[from] NodeDown),
    /// The node of this receiver shuts down, and its sender is there too.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// A frame was damaged on its way.
    #[error("frame {sequence} is damaged: checksum {actual:08x}, expected {expected:08x}")]
    Checksum {
        /// Number of the frame in its stream.
        sequence: u64,
        /// As sent.
        expected: u32,
        /// Of what came.
        actual: u32,
    },
    /// A batch could not be decompressed.
    #[error("{0}")]
    Codec(#[from] CodecError),
    /// The chunks of a batch do not fit together.
    #[error("{0}")]
    Chunk(#[from] ChunkError),
    /// A batch could not be decoded.
    #[error("{0}")]
    Body(String),
    /// A batch that could not be cut to the receiver's window does not fit into the budget: one long row, or one that
    /// brings long dictionaries.
    #[error("{0}")]
    Budget(#[from] BudgetExceeded),
    /// What was spilled cannot be read back, or could not be written.
    #[error("{0}")]
    Spill(#[from] SpillError),
    /// Decompressing panicked.
    #[error("{0}")]
    Compute(#[from] rpc_bus::ComputePanicked),
    /// The sender does not keep to the protocol; the connection ends.
    #[error("the sender breaks the protocol: {0}")]
    Protocol(String),
}

impl ReceiveError {
    /// Whether, and where, another try may succeed: for a stream, that is the whole of it.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::SenderFailed(failure) => failure.failure().retry(),
            Self::Spill(error) => error.retry(),
            Self::Lost { reason, .. } => worthwhile(reason.is_retryable()),
            Self::NodeDown(_) | Self::ShuttingDown => Retry::OtherNode,
            Self::Checksum { .. } | Self::Budget(_) | Self::SenderCancelled => Retry::SameNode,
            Self::Codec(_)
            | Self::Chunk(_)
            | Self::Body(_)
            | Self::Compute(_)
            | Self::Protocol(_) => Retry::Never,
        }
    }

    /// What the sender is told.
    pub(crate) fn to_failure(&self) -> RpcFailure {
        let kind = match self {
            Self::Budget(_) | Self::Spill(_) => ErrorType::Resource,
            Self::Lost { .. } | Self::NodeDown(_) | Self::ShuttingDown => ErrorType::Connection,
            _ => ErrorType::DataRead,
        };
        RpcFailure::new(kind, self.to_string()).with_retry(self.retry())
    }
}

impl From<ArrowBodyError> for ReceiveError {
    fn from(error: ArrowBodyError) -> Self {
        Self::Body(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_is_kept_through_every_wrapping() {
        let reason = CloseReason::PeerClosed { mid_frame: true };
        let peer = ([127, 0, 0, 1], 31012).into();
        let busy = RpcFailure::new(ErrorType::Resource, "busy").with_retry(Retry::OtherNode);
        let lost = ReceiveError::Lost {
            peer,
            reason: reason.clone(),
        };
        assert!(rpc_bus::is_retryable(&lost) && lost.to_string().contains("127.0.0.1:31012"));
        assert!(rpc_bus::is_retryable(&SendError::Lost { peer, reason }));
        assert!(rpc_bus::is_retryable(&SendError::ReceiverFailed(
            busy.clone().into()
        )));
        let failed = ReceiveError::SenderFailed(busy.clone().into());
        assert_eq!(failed.retry(), Retry::OtherNode);
        assert_eq!(failed.to_failure().retry(), Retry::OtherNode);
        let open = OpenError::Call(CallError::Remote(Box::new(busy)));
        assert!(rpc_bus::is_retryable(&open) && open.retry() == Retry::OtherNode);
        let down = NodeDown {
            incarnation: 7,
            reason: "no beat".into(),
        };
        assert_eq!(ReceiveError::from(down.clone()).retry(), Retry::OtherNode);
        assert_eq!(SendError::from(down.clone()).retry(), Retry::OtherNode);
        let told = OpenError::from(down).to_string();
        assert_eq!(
            told,
            "the node with incarnation 0000000000000007 is down: no beat"
        );
    }
}
