//! Why a receiver gets no sender, as it is told on this node and on others.

use std::time::Duration;

use protos::error::{ErrorType, Retry};
use rpc_bus::{BudgetExceeded, CallError, RpcFailure};

use crate::stream::{address::StreamAddress, error::OpenError};

#[derive(Debug)]
pub(crate) enum Refusal {
    /// None has come within this time.
    NoSender(Duration),
    /// It has gone: another one may come.
    SenderGone,
    /// Nobody reads it.
    ReceiverGone,
    /// Another receiver has asked for the sender. That one may be gone, without this node knowing of it yet.
    WaitsAlready,
    /// So many wait already.
    TooMany(usize),
    /// There is no room to wait.
    Budget(BudgetExceeded),
    ShuttingDown,
}

impl Refusal {
    /// For a receiver of another node.
    pub(crate) fn into_failure(self, address: StreamAddress) -> RpcFailure {
        let (kind, retry, message) = match self {
            Self::NoSender(waited) => {
                let message = format!("no sender of the stream {address} within {waited:?}");
                (ErrorType::Resource, Retry::SameNode, message)
            }
            Self::SenderGone => {
                let message = format!("the sender of the stream {address} was cancelled");
                (ErrorType::Resource, Retry::SameNode, message)
            }
            Self::ReceiverGone => {
                let message = format!("the receiver of the stream {address} has gone");
                (ErrorType::Connection, Retry::Never, message)
            }
            Self::WaitsAlready => {
                let message = format!("a receiver of the stream {address} waits already");
                (ErrorType::Validation, Retry::SameNode, message)
            }
            Self::TooMany(max) => {
                let message = format!("{max} receivers wait for their senders already");
                (ErrorType::Resource, Retry::SameNode, message)
            }
            Self::Budget(spent) => (ErrorType::Resource, Retry::SameNode, spent.to_string()),
            Self::ShuttingDown => {
                let message = "the node is shutting down".to_owned();
                (ErrorType::Connection, Retry::OtherNode, message)
            }
        };
        RpcFailure::new(kind, message).with_retry(retry)
    }

    /// For one of this node.
    pub(crate) fn into_error(self, address: StreamAddress) -> OpenError {
        match self {
            Self::NoSender(waited) => OpenError::NoSender { address, waited },
            Self::Budget(spent) => spent.into(),
            Self::ShuttingDown => OpenError::ShuttingDown,
            other => CallError::Remote(Box::new(other.into_failure(address))).into(),
        }
    }
}
