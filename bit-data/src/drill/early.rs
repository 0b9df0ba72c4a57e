//! Batches for a fragment that is not registered yet. They wait for a while, within limits, and are refused then.
//!
//! Drill acknowledges such batches and drops them, so that their rows are lost without a word; it keeps them from coming
//! by starting receivers before senders. Here nothing is lost: either the fragment comes in time, or its sender fails.

use std::time::Instant;

use rpc_bus::{BudgetExceeded, Charge, Ledger, ledger::Kind};

use super::{ack::AckShare, header::ArrivedBatch};

/// What waits for one fragment.
pub(crate) struct Early {
    pub(crate) deadline: Instant,
    batches: Vec<EarlyBatch>,
    bytes: usize,
}

/// One batch that waits for its fragment.
pub(crate) struct EarlyBatch {
    pub(crate) batch: ArrivedBatch,
    pub(crate) share: AckShare,
    pub(crate) connection: u64,
    _charge: Charge,
}

impl EarlyBatch {
    /// Charges the batch to `budget`, that of its connection.
    pub(crate) fn try_new(
        batch: ArrivedBatch,
        share: AckShare,
        connection: u64,
        budget: &Ledger,
    ) -> Result<Self, BudgetExceeded> {
        let charge = budget.charge(Kind::Bytes, batch.memory_bytes())?;
        Ok(Self {
            batch,
            share,
            connection,
            _charge: charge,
        })
    }
}

impl Early {
    /// The first batch of a fragment, whatever its size: it waits until `deadline`.
    pub(crate) fn new(first: EarlyBatch, deadline: Instant) -> Self {
        Self {
            deadline,
            bytes: first.batch.memory_bytes(),
            batches: vec![first],
        }
    }

    /// Adds a batch, or gives it back if more than `bytes_max` would wait.
    pub(crate) fn push(&mut self, next: EarlyBatch, bytes_max: usize) -> Result<(), EarlyBatch> {
        let bytes = self.bytes.saturating_add(next.batch.memory_bytes());
        if bytes > bytes_max {
            return Err(next);
        }
        self.bytes = bytes;
        self.batches.push(next);
        Ok(())
    }

    /// All of it, in the order of arrival.
    pub(crate) fn into_batches(self) -> Vec<EarlyBatch> {
        self.batches
    }

    /// Forgets what came over `connection`; whether anything is left.
    pub(crate) fn forget(&mut self, connection: u64) -> bool {
        self.batches.retain(|early| early.connection != connection);
        let bytes = self.batches.iter().map(|early| early.batch.memory_bytes());
        self.bytes = bytes.sum();
        !self.batches.is_empty()
    }
}
