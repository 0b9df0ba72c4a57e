//! Why a direction of a channel has ended.

use rpc_bus::{BudgetExceeded, CallError, CloseReason, RpcFailure};
use thiserror::Error;

/// Why nothing more is sent, or comes.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The side that receives wants no more.
    #[error("the receiver wants no more{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Cancelled(Option<Box<RpcFailure>>),
    /// The side that sends has stopped before its end.
    #[error("the sender has failed: {0}")]
    Failed(Box<RpcFailure>),
    /// The connection has ended.
    #[error("connection lost: {0}")]
    Lost(CloseReason),
    /// The message is too long to be sent.
    #[error("a message of {bytes} bytes, at most {bytes_max} fit")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// Limit in bytes.
        bytes_max: usize,
    },
    /// There is no room for what has come.
    #[error(transparent)]
    Budget(#[from] BudgetExceeded),
    /// What has come is not the message that was expected.
    #[error("malformed message: {0}")]
    Malformed(#[from] prost::DecodeError),
}

impl From<CallError> for ChannelError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Lost(reason) => Self::Lost(reason),
            CallError::Budget(exceeded) => Self::Budget(exceeded),
            // A channel is there only where all else is given.
            _ => Self::Lost(CloseReason::Aborted),
        }
    }
}
