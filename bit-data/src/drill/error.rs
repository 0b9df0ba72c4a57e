//! What can go wrong: one enum per operation.

use protos::id::{FragmentId, MajorFragmentId, MinorFragmentId};
use record_batch::{DecodeError, EncodeError};
use rpc_bus::{BudgetExceeded, CallError, ComputePanicked, ConnectError};
use thiserror::Error;

/// Why a fragment cannot be registered as a receiver.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// It is registered.
    #[error("fragment {0} is receiving already")]
    Receiving(FragmentId),
    /// It has ended, or was cancelled before it began.
    #[error("fragment {0} has ended already")]
    Ended(FragmentId),
    /// Nothing would end it.
    #[error("fragment {0} has no inputs, expected at least one")]
    NoInputs(FragmentId),
    /// An input that nobody sends to would never end.
    #[error("the input from major fragment {0} has no senders, expected at least one")]
    NoSenders(MajorFragmentId),
    /// A sender of two inputs, or twice of one.
    #[error("sender {major}:{minor} is named twice")]
    SenderTwice {
        /// Its stage.
        major: MajorFragmentId,
        /// Which one of the stage.
        minor: MinorFragmentId,
    },
}

/// Why a receiver ends before all its senders have.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The fragment, or its query, was cancelled.
    #[error("fragment {0} was cancelled")]
    Cancelled(FragmentId),
    /// The connection of a sender ended before its last batch.
    #[error("sender {0} was lost before its last batch")]
    SenderLost(FragmentId),
    /// What waits does not fit into the receiver's budget.
    #[error("batches that wait for fragment {receiver}: {source}")]
    Budget {
        /// Who they are for.
        receiver: FragmentId,
        /// The budget that is spent.
        source: BudgetExceeded,
    },
    /// A descriptor that is no `RecordBatchDef`.
    #[error("a batch of sender {sender} has no descriptor that can be read: {source}")]
    Descriptor {
        /// Who sent it.
        sender: FragmentId,
        /// What is wrong.
        source: protos::body::BodyError,
    },
    /// A body that is not as its descriptor says.
    #[error("a batch of sender {sender}: {source}")]
    Decode {
        /// Who sent it.
        sender: FragmentId,
        /// What is wrong.
        source: DecodeError,
    },
}

/// Why batches of a fragment do not reach their receivers. The tunnel is of no use then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// A receiver has refused a batch (credit -1): it has failed, or does not expect this sender.
    #[error("the receivers {receivers} did not accept a batch of fragment {sender}")]
    Refused {
        /// Who sent it.
        sender: FragmentId,
        /// Who it was for, as `major:minor,minor`.
        receivers: Receivers,
    },
    /// There is no connection.
    #[error("fragment {sender} cannot send: {source}")]
    Connect {
        /// Who wanted to send.
        sender: FragmentId,
        /// Why not.
        source: ConnectError,
    },
    /// A batch was not answered.
    #[error("a batch of fragment {sender} was not answered: {source}")]
    Call {
        /// Who sent it.
        sender: FragmentId,
        /// Why not.
        source: CallError,
    },
    /// Drill has no vectors for the batch.
    #[error("a batch of fragment {sender} cannot be encoded: {source}")]
    Encode {
        /// Who wanted to send.
        sender: FragmentId,
        /// What has no vectors.
        source: EncodeError,
    },
    /// Encoding panicked.
    #[error("a batch of fragment {sender} cannot be encoded: {source}")]
    Panicked {
        /// Who wanted to send.
        sender: FragmentId,
        /// The panic.
        source: ComputePanicked,
    },
    /// A batch before this one has failed, or sending it was given up halfway.
    #[error("an earlier batch of fragment {sender} has failed")]
    Broken {
        /// Who wanted to send.
        sender: FragmentId,
    },
}

/// The fragments that a batch is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receivers {
    /// Their stage.
    pub major: MajorFragmentId,
    /// Which ones of the stage.
    pub minors: Vec<MinorFragmentId>,
}

impl std::fmt::Display for Receivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.major)?;
        for (i, minor) in self.minors.iter().enumerate() {
            write!(f, "{}{minor}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
