//! The threads on which statements are planned.
//!
//! Parsing and planning recurse over the statement and do not wait, so they get stacks of 64 MiB and
//! never run on the async threads. A thread lives for one statement; a semaphore bounds them, and a
//! statement whose client went away keeps its place until the planner notices.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::EngineError;

const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Runs planning jobs, a bounded number at a time.
#[derive(Debug)]
pub(super) struct PlanningThreads {
    places: Arc<Semaphore>,
    time_max: Duration,
}

/// Tells a planning job to end.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    cancelled: CancellationToken,
    deadline: Instant,
    time_max: Duration,
}

impl PlanningThreads {
    pub(super) fn new(threads_max: usize, time_max: Duration) -> Self {
        Self {
            places: Arc::new(Semaphore::new(threads_max)),
            time_max,
        }
    }

    /// Runs `job` on a thread of its own; dropping the future stops the job at its next check.
    ///
    /// # Errors
    ///
    /// The job's own, [`EngineError::PlanningTimeout`], or [`EngineError::OutOfResources`] when no
    /// thread became free in time.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Stop) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let cancelled = CancellationToken::new();
        let _cancel_on_drop = cancelled.clone().drop_guard();
        let places = Arc::clone(&self.places).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(self.time_max, places).await else {
            let reason = "All planning threads are busy".into();
            return Err(EngineError::OutOfResources { reason });
        };
        let stop = Stop {
            cancelled,
            deadline: Instant::now() + self.time_max,
            time_max: self.time_max,
        };
        let (sender, receiver) = oneshot::channel();
        let work = move || {
            let planned = catch_unwind(AssertUnwindSafe(|| job(&stop)));
            // Nobody listens any more: the late plan is dropped here, on the large stack.
            drop(sender.send(planned.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))));
            drop(place);
        };
        std::thread::Builder::new()
            .name("plan".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work)
            .map_err(|error| EngineError::OutOfResources {
                reason: format!("No planning thread: {error}"),
            })?;
        match tokio::time::timeout(self.time_max, receiver).await {
            Ok(Ok(planned)) => planned,
            Ok(Err(_)) => Err(EngineError::Internal {
                reason: "The planning thread ended without a word".into(),
            }),
            Err(_) => Err(self.timeout()),
        }
    }

    fn timeout(&self) -> EngineError {
        EngineError::PlanningTimeout {
            seconds: self.time_max.as_secs(),
        }
    }
}

impl Stop {
    /// An error once nobody wants the plan any more.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        if self.cancelled.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(EngineError::PlanningTimeout {
                seconds: self.time_max.as_secs(),
            });
        }
        Ok(())
    }

    /// Ends when the job is cancelled.
    pub(super) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// The optimizer's rules with a check before each of them.
    pub(super) fn between(
        &self,
        rules: &[Arc<dyn OptimizerRule + Send + Sync>],
    ) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
        let check: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(self.clone());
        rules
            .iter()
            .flat_map(|rule| [Arc::clone(&check), Arc::clone(rule)])
            .collect()
    }
}

impl OptimizerRule for Stop {
    fn name(&self) -> &'static str {
        "stop"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        self.check()?;
        Ok(Transformed::no(plan))
    }
}

/// What a panic said, for a message.
pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> EngineError {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    EngineError::Internal {
        reason: format!("The engine panicked: {}", text.unwrap_or("no reason given")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn threads(time_max: Duration) -> PlanningThreads {
        PlanningThreads::new(1, time_max)
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_that_statement_only() {
        let threads = threads(Duration::from_mins(1));
        let error = threads
            .run::<()>(|_| panic!("boom"))
            .await
            .expect_err("panicked");
        assert_eq!(error.to_string(), "The engine panicked: boom");
        assert_eq!(threads.run(|_| Ok(1)).await.expect("free again"), 1);
    }

    #[tokio::test]
    async fn dropping_the_future_stops_the_job() {
        let threads = threads(Duration::from_mins(1));
        let (sender, receiver) = mpsc::channel();
        let (started, has_started) = oneshot::channel();
        let job = threads.run::<()>(move |stop| {
            let _ = started.send(());
            while stop.check().is_ok() {
                std::thread::yield_now();
            }
            sender
                .send(stop.check().expect_err("stopped").to_string())
                .expect("test listens");
            Ok(())
        });
        tokio::select! {
            _ = job => panic!("the job ends only when it is stopped"),
            _ = has_started => {}
        }
        let reason = tokio::task::spawn_blocking(move || receiver.recv())
            .await
            .expect("joined");
        assert_eq!(
            reason.expect("stopped"),
            "The query was cancelled while it was planned"
        );
    }

    #[tokio::test]
    async fn a_planner_that_does_not_end_is_given_up() {
        let threads = threads(Duration::from_millis(1));
        let (release, wait) = mpsc::channel::<()>();
        let error = threads
            .run::<()>(move |_| {
                let _ = wait.recv();
                Ok(())
            })
            .await
            .expect_err("too slow");
        assert!(
            matches!(error, EngineError::PlanningTimeout { .. }),
            "{error}"
        );
        let error = threads
            .run(|_| Ok(()))
            .await
            .expect_err("the one thread is taken");
        assert!(error.is_retryable(), "{error}");
        drop(release);
    }
}
