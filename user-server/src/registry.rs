//! The queries that are running, for cancel and for whoever watches the node.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use dashmap::DashMap;
use protos::{id::QueryId, shared::query_result::QueryState};
use tokio_util::sync::CancellationToken;

/// All running queries of a server, and how many have ended. Clones are the same.
#[derive(Clone, Default)]
pub struct Queries(Arc<Registry>);

#[derive(Default)]
struct Registry {
    running: DashMap<QueryId, Arc<Progress>>,
    rows: AtomicU64,
    bytes: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    canceled: AtomicU64,
    lost: AtomicU64,
}

/// How many queries a server has had. Each ends in one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryCounts {
    /// Those that are running.
    pub running: u64,
    /// Those that ended with their last row.
    pub completed: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that were cancelled, also by the end of their connection.
    pub canceled: u64,
    /// Those whose client was gone before it could be told.
    pub lost: u64,
    /// Rows sent by all of them.
    pub rows: u64,
    /// Bytes of batches sent by all of them.
    pub bytes: u64,
}

/// How a query ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Completed,
    Failed,
    Canceled,
    Lost,
}

/// How far a query is.
struct Progress {
    user: Arc<str>,
    sql: String,
    started: SystemTime,
    cancel: CancellationToken,
    state: AtomicI32,
    rows: AtomicU64,
    bytes: AtomicU64,
}

/// What is known of a running query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySnapshot {
    /// Its name.
    pub id: QueryId,
    /// Who asked.
    pub user: Arc<str>,
    /// The statement.
    pub sql: String,
    /// STARTING until the engine has planned it, then RUNNING, `CANCELLATION_REQUESTED` after a
    /// cancel.
    pub state: QueryState,
    /// When it came.
    pub started: SystemTime,
    /// Rows sent so far.
    pub rows: u64,
    /// Bytes of batches sent so far.
    pub bytes: u64,
}

impl Queries {
    /// Lists a query until the returned entry is dropped.
    pub(crate) fn enter(
        &self,
        id: QueryId,
        user: Arc<str>,
        sql: String,
        cancel: CancellationToken,
    ) -> Entry {
        let progress = Arc::new(Progress {
            user,
            sql,
            started: SystemTime::now(),
            cancel,
            state: AtomicI32::new(QueryState::Starting.into()),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        self.0.running.insert(id, Arc::clone(&progress));
        Entry {
            queries: self.clone(),
            id,
            progress,
        }
    }

    /// Asks for the end of a query; false if none of that name runs.
    #[must_use]
    pub fn cancel(&self, id: QueryId) -> bool {
        let running = self.0.running.get(&id);
        if let Some(progress) = &running {
            progress.set_state(QueryState::CancellationRequested);
            progress.cancel.cancel();
        }
        running.is_some()
    }

    /// The queries that are running, in no order.
    #[must_use]
    pub fn snapshot(&self) -> Vec<QuerySnapshot> {
        let running = &self.0.running;
        running
            .iter()
            .map(|entry| entry.value().snapshot(*entry.key()))
            .collect()
    }

    /// How many there are and were.
    #[must_use]
    pub fn counts(&self) -> QueryCounts {
        let Registry {
            running,
            rows,
            bytes,
            completed,
            failed,
            canceled,
            lost,
        } = &*self.0;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueryCounts {
            running: running.len() as u64,
            completed: read(completed),
            failed: read(failed),
            canceled: read(canceled),
            lost: read(lost),
            rows: read(rows),
            bytes: read(bytes),
        }
    }
}

impl fmt::Debug for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Queries").field(&self.counts()).finish()
    }
}

impl Progress {
    fn set_state(&self, state: QueryState) {
        self.state.store(state.into(), Ordering::Relaxed);
    }

    fn snapshot(&self, id: QueryId) -> QuerySnapshot {
        let state = QueryState::try_from(self.state.load(Ordering::Relaxed));
        QuerySnapshot {
            id,
            user: Arc::clone(&self.user),
            sql: self.sql.clone(),
            state: state.unwrap_or(QueryState::Running),
            started: self.started,
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// A query's place in the list, given up when dropped.
pub(crate) struct Entry {
    queries: Queries,
    id: QueryId,
    progress: Arc<Progress>,
}

impl Entry {
    /// Cancelled when the query shall end.
    pub(crate) fn cancel_token(&self) -> &CancellationToken {
        &self.progress.cancel
    }

    /// The engine has planned it.
    pub(crate) fn running(&self) {
        let (starting, running) = (QueryState::Starting.into(), QueryState::Running.into());
        // A cancel that came first stays visible.
        let state = &self.progress.state;
        let _ = state.compare_exchange(starting, running, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, rows: usize, bytes: usize) {
        let (rows, bytes) = (rows as u64, bytes as u64);
        let registry = &self.queries.0;
        for counter in [&self.progress.rows, &registry.rows] {
            counter.fetch_add(rows, Ordering::Relaxed);
        }
        for counter in [&self.progress.bytes, &registry.bytes] {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Counts how the query ended; to be called once.
    pub(crate) fn ended(&self, ending: Ending) {
        let registry = &self.queries.0;
        let counter = match ending {
            Ending::Completed => &registry.completed,
            Ending::Failed => &registry.failed,
            Ending::Canceled => &registry.canceled,
            Ending::Lost => &registry.lost,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.queries.0.running.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_listed_with_its_progress_until_it_ends() {
        let queries = Queries::default();
        let id = QueryId { part1: 1, part2: 2 };
        let token = CancellationToken::new();
        let entry = queries.enter(id, "alice".into(), "select 1".to_owned(), token.clone());
        assert_eq!(queries.snapshot()[0].state, QueryState::Starting);
        entry.running();
        entry.sent(10, 80);
        assert!(queries.cancel(id));
        entry.running();
        let [query] = &queries.snapshot()[..] else {
            panic!("one query")
        };
        assert_eq!((query.rows, query.bytes, &*query.user), (10, 80, "alice"));
        assert_eq!(query.state, QueryState::CancellationRequested);
        assert!(token.is_cancelled());
        entry.ended(Ending::Canceled);
        drop(entry);
        assert!(queries.snapshot().is_empty());
        let counts = queries.counts();
        assert_eq!((counts.running, counts.canceled), (0, 1));
        assert_eq!((counts.completed, counts.failed, counts.lost), (0, 0, 0));
        assert_eq!((counts.rows, counts.bytes), (10, 80));
    }

    #[test]
    fn cancelling_an_unknown_query_does_nothing() {
        assert!(!Queries::default().cancel(QueryId::default()));
    }
}
