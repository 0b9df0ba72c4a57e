//! Batches that fragments do not take, told in one line for all that came at once.

use protos::id::{FragmentId, MajorFragmentId, MinorFragmentId};
use rpc_bus::BudgetExceeded;
use thiserror::Error;

/// Why a fragment does not take a batch. Its share of the answer is dropped, which tells the sender.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("too much waits for fragments that are not there: {0}")]
    Connection(#[from] BudgetExceeded),
    #[error("too much waits for the fragment, which is not there: at most {bytes_max} bytes may")]
    Fragment { bytes_max: usize },
    #[error("no input of the fragment has the sender {major}:{minor}")]
    Sender {
        major: MajorFragmentId,
        minor: MinorFragmentId,
    },
}

/// What was refused at one time.
#[derive(Debug, Default)]
#[must_use = "somebody should be told"]
pub(crate) struct Refusals {
    first: Option<(FragmentId, Refusal)>,
    count: usize,
}

impl Refusals {
    pub(crate) fn note(&mut self, receiver: FragmentId, outcome: Result<(), Refusal>) {
        if let Err(refusal) = outcome {
            self.count += 1;
            self.first.get_or_insert((receiver, refusal));
        }
    }

    pub(crate) fn log(self, connection: Option<u64>) {
        if let Some((receiver, error)) = self.first {
            let count = self.count;
            tracing::warn!(connection, count, %receiver, %error, "batches refused, of which this is the first");
        }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}
