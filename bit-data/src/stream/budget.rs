//! Budgets of bytes: plane, query, receiver, each a part of the one before.
//!
//! What is charged here is what senders are promised room for, whether or not anything has come. A body that has come
//! is charged once more, as memory of the connection that it came on: a promise has no memory, and a connection does not
//! know which stream a body is for before all of it is there. So whatever limits both together, as the ledger of the
//! process does, has to hold the windows twice when they are full.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex},
};

use protos::id::QueryId;
use rpc_bus::{
    BudgetExceeded, Charge, Ledger,
    ledger::{Kind, Limits},
};

use super::{credit::WindowSizes, inbound::as_usize, stats::lock};

/// What receivers of this node may hold together, and of each query.
#[derive(Debug)]
pub(crate) struct Budgets {
    plane: Ledger,
    query_bytes_max: usize,
    queries: Mutex<HashMap<QueryId, (Ledger, usize)>>,
}

/// What one receiver may hold. Its query's budget lives as long as any of these.
#[derive(Debug)]
pub(crate) struct Budget {
    budgets: Arc<Budgets>,
    query: QueryId,
    of_query: Ledger,
    pub(crate) ledger: Ledger,
}

/// What a stream that spills takes of its query's budget beside what its receiver holds; and what it sees of the rest, which
/// is shared with receivers that are not open yet.
#[derive(Debug)]
pub(crate) struct QueryBudget {
    ledger: Ledger,
    /// Of a row of this process that is beyond the receiver's budget, until it is spilled.
    beyond: Charge,
}

impl QueryBudget {
    pub(crate) fn new(ledger: &Ledger) -> Self {
        Self {
            ledger: ledger.clone(),
            beyond: ledger.nothing(Kind::Bytes),
        }
    }

    /// Charges so much, if that is not charged already.
    pub(crate) fn charge_beyond(&mut self, bytes: usize) -> Result<(), BudgetExceeded> {
        let more_bytes = bytes.saturating_sub(self.beyond.amount());
        if more_bytes == 0 {
            return Ok(());
        }
        self.beyond.grow(more_bytes)
    }

    /// Gives back all but so much.
    pub(crate) fn keep_beyond(&mut self, bytes: usize) {
        self.beyond
            .shrink(self.beyond.amount().saturating_sub(bytes));
    }

    /// Whether a stream may take so much more that could go to disk: the last quarter is for first windows. A receiver that
    /// is opened cannot wait for it, because those who have it may wait for that receiver.
    pub(crate) fn has_to_spare(&self, more_bytes: usize) -> bool {
        let used_bytes = self.ledger.used(Kind::Bytes);
        let is_within = |limit: usize| more_bytes <= (limit - limit / 4).saturating_sub(used_bytes);
        self.ledger.limit(Kind::Bytes).is_none_or(is_within)
    }
}

/// What one stream of a receiver holds from before it is opened. All of them have theirs before one is opened, which may
/// take of the rest whatever it can use.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) budget: Arc<Budget>,
    pub(crate) windows: WindowSizes,
    pub(crate) reserved: Charge,
}

impl Budget {
    /// For a stream that spills.
    pub(crate) fn of_query(&self) -> QueryBudget {
        QueryBudget::new(&self.of_query)
    }

    /// Reserves the first window of a stream.
    pub(crate) fn share(self: &Arc<Self>, windows: WindowSizes) -> Result<Share, BudgetExceeded> {
        Ok(Share {
            reserved: windows.reserve(&self.ledger)?,
            budget: Arc::clone(self),
            windows,
        })
    }
}

impl WindowSizes {
    /// The first window, with what a batch may overrun it by.
    pub(crate) fn reserve(&self, budget: &Ledger) -> Result<Charge, BudgetExceeded> {
        let bytes = self.bytes.saturating_add(self.overrun_bytes);
        budget.charge(Kind::Bytes, as_usize(bytes))
    }
}

impl Budgets {
    pub(crate) fn new(
        parent: &Ledger,
        plane_bytes_max: Option<usize>,
        query_bytes_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            plane: parent.child("data plane", bytes(plane_bytes_max)),
            query_bytes_max,
            queries: Mutex::default(),
        })
    }

    /// The part of a receiver of `query`.
    pub(crate) fn receiver(self: &Arc<Self>, query: QueryId, bytes_max: usize) -> Arc<Budget> {
        let mut queries = lock(&self.queries);
        let (of_query, receivers) = queries.entry(query).or_insert_with(|| {
            let limits = bytes(Some(self.query_bytes_max));
            (self.plane.child(format!("query {query}"), limits), 0)
        });
        *receivers += 1;
        Arc::new(Budget {
            budgets: Arc::clone(self),
            query,
            of_query: of_query.clone(),
            ledger: of_query.child("receiver", bytes(Some(bytes_max))),
        })
    }

    pub(crate) fn plane(&self) -> &Ledger {
        &self.plane
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        let mut queries = lock(&self.budgets.queries);
        if let Entry::Occupied(mut of_query) = queries.entry(self.query) {
            of_query.get_mut().1 -= 1;
            if of_query.get().1 == 0 {
                of_query.remove();
            }
        }
    }
}

fn bytes(bytes: Option<usize>) -> Limits {
    Limits {
        bytes,
        ..Limits::default()
    }
}

#[cfg(test)]
mod tests {
    use rpc_bus::ledger::Kind;

    use super::*;

    #[test]
    fn receivers_of_a_query_share_its_budget() {
        let root = Ledger::root("test", Limits::default());
        let budgets = Budgets::new(&root, Some(1_000), 100);
        let query = QueryId { part1: 1, part2: 1 };
        let (one, two) = (budgets.receiver(query, 80), budgets.receiver(query, 80));
        let held = one.ledger.charge(Kind::Bytes, 80).expect("there is room");
        assert!(one.ledger.charge(Kind::Bytes, 1).is_err());
        assert!(
            two.ledger.charge(Kind::Bytes, 21).is_err(),
            "the query has 20 left"
        );
        drop((held, one, two));
        assert!(lock(&budgets.queries).is_empty() && root.is_zero());
    }
}
