//! Owned tasks: the only place that spawns.
//!
//! A [`Tasks`] counts its tasks in the ledger, waits for them, and aborts what still runs when it is dropped.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, task::AbortHandle};
use tokio_util::task::TaskTracker;

use crate::ledger::{BudgetExceeded, Kind, Ledger};

/// A group of tasks with one owner.
#[derive(Debug, Default)]
pub struct Tasks {
    group: Arc<Group>,
}

#[derive(Debug, Default)]
struct Group {
    tracker: TaskTracker,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    next: u64,
    /// `None`: about to start.
    aborts: BTreeMap<u64, Option<AbortHandle>>,
    /// What starts from now on is aborted at once.
    aborted: bool,
}

impl Tasks {
    /// Runs `task` on `runtime`, charged to `ledger`, until it ends or the group is dropped.
    ///
    /// # Errors
    ///
    /// The ledger has no room for another task; `task` is dropped.
    pub fn spawn(
        &self,
        runtime: &Handle,
        ledger: &Ledger,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), BudgetExceeded> {
        let charge = ledger.charge(Kind::Tasks, 1)?;
        let key = self.group.announce();
        let entry = Entry {
            key,
            group: Arc::downgrade(&self.group),
        };
        // Boxed: the future around it would hold room for it twice, as long as an idle connection lives.
        let task = Box::pin(task);
        let owned = async move {
            let _held = (charge, entry);
            task.await;
        };
        let handle = self.group.tracker.spawn_on(owned, runtime);
        self.group.list(key, &handle.abort_handle());
        Ok(())
    }

    /// How many tasks are running.
    #[must_use]
    pub fn running(&self) -> usize {
        self.group.lock().aborts.len()
    }

    /// Waits until all have ended, at most `grace`; then aborts the rest and waits for those.
    pub async fn join(&self, grace: Duration) {
        self.group.tracker.close();
        if tokio::time::timeout(grace, self.group.tracker.wait())
            .await
            .is_err()
        {
            self.abort();
            self.group.tracker.wait().await;
        }
    }

    /// Aborts all that run, and all that would start later.
    pub fn abort(&self) {
        self.group.abort();
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Group {
    fn announce(&self) -> u64 {
        let mut running = self.lock();
        let key = running.next;
        running.next += 1;
        running.aborts.insert(key, None);
        key
    }

    // The task may have ended already; a runtime that is shut down drops it before it has begun.
    fn list(&self, key: u64, handle: &AbortHandle) {
        let mut running = self.lock();
        let aborted = running.aborted;
        if let Some(place) = running.aborts.get_mut(&key) {
            *place = Some(handle.clone());
        }
        drop(running);
        if aborted {
            handle.abort();
        }
    }

    fn abort(&self) {
        let mut running = self.lock();
        running.aborted = true;
        let handles: Vec<_> = running.aborts.values().flatten().cloned().collect();
        // What is aborted may be dropped here and now, and would want the lock.
        drop(running);
        handles.iter().for_each(AbortHandle::abort);
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a task off the list when it ends, however it ends.
struct Entry {
    key: u64,
    group: Weak<Group>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(group) = self.group.upgrade() {
            group.lock().aborts.remove(&self.key);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::ledger::Limits;

    #[tokio::test]
    async fn dropping_the_owner_aborts_what_runs() {
        let ledger = Ledger::root("test", Limits::default());
        let tasks = Tasks::default();
        let (dropped, ended) = tokio::sync::oneshot::channel::<()>();
        let task = async move {
            let _held = dropped;
            pending::<()>().await;
        };
        tasks.spawn(&Handle::current(), &ledger, task).unwrap();
        assert_eq!((tasks.running(), ledger.used(Kind::Tasks)), (1, 1));
        drop(tasks);
        assert!(ended.await.is_err());
        tokio::task::yield_now().await;
        assert!(ledger.is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn joining_waits_and_then_aborts() {
        let ledger = Ledger::root("test", Limits::default());
        let tasks = Tasks::default();
        tasks.spawn(&Handle::current(), &ledger, pending()).unwrap();
        tasks.spawn(&Handle::current(), &ledger, async {}).unwrap();
        tasks.join(Duration::from_secs(3)).await;
        assert!(ledger.is_zero());
    }

    #[test]
    fn a_runtime_that_is_shut_down_takes_no_task_and_nothing_is_left() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let ledger = Ledger::root("test", Limits::default());
        let tasks = Tasks::default();
        tasks.spawn(&handle, &ledger, pending()).unwrap();
        assert_eq!(tasks.running(), 0);
        assert!(ledger.is_zero());
    }

    #[tokio::test]
    async fn what_starts_after_an_abort_is_aborted() {
        let ledger = Ledger::root("test", Limits::default());
        let tasks = Tasks::default();
        tasks.abort();
        tasks.spawn(&Handle::current(), &ledger, pending()).unwrap();
        tasks.join(Duration::from_mins(1)).await;
        assert!(ledger.is_zero());
    }

    #[tokio::test]
    async fn a_full_ledger_refuses_the_task() {
        let ledger = Ledger::root(
            "test",
            Limits {
                tasks: Some(1),
                ..Limits::default()
            },
        );
        let tasks = Tasks::default();
        tasks.spawn(&Handle::current(), &ledger, pending()).unwrap();
        assert!(tasks.spawn(&Handle::current(), &ledger, pending()).is_err());
    }
}
