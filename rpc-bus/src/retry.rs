//! Trying again: when it makes sense, how long to wait, and how often altogether.
//!
//! A retry is a new load on a peer that is in trouble already. So each waits longer, at a random moment, and all of them
//! together stay below a share of the calls that were made.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::Rng;
use thiserror::Error;

use crate::{
    error::{CallError, CloseReason, ConnectError, RpcFailure},
    link,
};

/// How often, and how soon, to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOptions {
    /// Tries altogether, the first one included. Default 5.
    pub attempts_max: u32,
    /// Longest wait before the second try; it doubles with every further one. Default 100 ms.
    pub backoff_base: Duration,
    /// Longest wait before any try. Default 5 s.
    pub backoff_max: Duration,
    /// Retries for 100 calls, in the long run. Default 10.
    pub budget_percent: u32,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            budget_percent: 10,
        }
    }
}

impl RetryOptions {
    /// Checks how the values relate.
    ///
    /// # Errors
    ///
    /// One of them can never work.
    pub fn validate(&self) -> Result<(), RetryOptionsError> {
        if self.attempts_max == 0 {
            return Err(RetryOptionsError::NoAttempt);
        }
        if self.backoff_base > self.backoff_max {
            let (base, max) = (self.backoff_base, self.backoff_max);
            return Err(RetryOptionsError::Backoff { base, max });
        }
        Ok(())
    }

    /// The longest wait after `failures` tries have failed.
    fn ceiling(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.backoff_base
            .saturating_mul(doubled)
            .min(self.backoff_max)
    }

    // Full jitter: peers that failed together do not come back together.
    fn wait(&self, failures: u32, random: &mut impl Rng) -> Duration {
        self.ceiling(failures)
            .mul_f64(random.random_range(0.0..=1.0))
    }
}

/// Retry options that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RetryOptionsError {
    /// Not even one try.
    #[error("attempts_max must not be 0")]
    NoAttempt,
    /// The first wait is longer than the longest.
    #[error("backoff_base {base:?} is above backoff_max {max:?}")]
    Backoff {
        /// The base.
        base: Duration,
        /// The maximum.
        max: Duration,
    },
}

/// Options, and the budget that all who share it spend. Clones share it.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    options: RetryOptions,
    budget: Arc<Budget>,
}

impl RetryPolicy {
    /// A policy with a budget of its own.
    ///
    /// # Errors
    ///
    /// The options cannot work.
    pub fn try_new(options: RetryOptions) -> Result<Self, RetryOptionsError> {
        options.validate()?;
        Ok(Self {
            options,
            budget: Arc::default(),
        })
    }

    /// Runs `attempt` until it succeeds, fails for good (see [`is_retryable`]), or too often. It must be something that
    /// may be done twice.
    ///
    /// # Errors
    ///
    /// That of the last attempt.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the attempt that is going on.
    pub async fn run<T, E, F>(&self, attempt: impl FnMut() -> F) -> Result<T, E>
    where
        E: Error + 'static,
        F: Future<Output = Result<T, E>>,
    {
        self.run_until(None, attempt).await
    }

    /// The same, with no wait that would last until `until` or longer.
    pub(crate) async fn run_until<T, E, F>(
        &self,
        until: Option<Instant>,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        E: Error + 'static,
        F: Future<Output = Result<T, E>>,
    {
        self.budget.deposit(self.options.budget_percent);
        let mut failures = 0;
        loop {
            let error = match attempt().await {
                Ok(success) => return Ok(success),
                Err(error) => error,
            };
            failures += 1;
            let wait = self.wait(failures, &error);
            if failures >= self.options.attempts_max
                || !is_retryable(&error)
                || until.is_some_and(|until| link::now() + wait >= until)
                || !self.budget.withdraw()
            {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait after the last of so many failures.
    fn wait(&self, failures: u32, last: &(dyn Error + 'static)) -> Duration {
        let wait = self.options.wait(failures, &mut rand::rng());
        let asked_for = retry_after(last).unwrap_or_default();
        wait.max(asked_for.min(self.options.backoff_max))
    }
}

/// Retries that may be made, in hundredths.
#[derive(Debug)]
struct Budget(AtomicU64);

impl Budget {
    const RETRY: u64 = 100;
    /// What there is before the first call: a peer that is restarted early on is found again.
    const START: u64 = 10 * Self::RETRY;
    /// What a quiet time can save up.
    const MAX: u64 = 100 * Self::RETRY;

    fn deposit(&self, hundredths: u32) {
        let add = |held: u64| Some((held + u64::from(hundredths)).min(Self::MAX));
        // The closure always returns a value.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn withdraw(&self) -> bool {
        let take = |held: u64| held.checked_sub(Self::RETRY);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU64::new(Self::START))
    }
}

/// Whether another try may succeed, whatever has been wrapped around the bus's own error.
#[must_use]
pub fn is_retryable(error: &(dyn Error + 'static)) -> bool {
    chain(error).find_map(verdict).unwrap_or(false)
}

/// How long the peer asks to wait, whatever has been wrapped around what it said.
fn retry_after(error: &(dyn Error + 'static)) -> Option<Duration> {
    chain(error).find_map(|error| {
        let call = error.downcast_ref().and_then(CallError::retry_after);
        let failure = || error.downcast_ref::<RpcFailure>()?.error.retry_after();
        call.or_else(failure)
    })
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn verdict(error: &(dyn Error + 'static)) -> Option<bool> {
    let call = error.downcast_ref().map(CallError::is_retryable);
    let connect = || error.downcast_ref().map(ConnectError::is_retryable);
    let close = || error.downcast_ref().map(CloseReason::is_retryable);
    let failure = || {
        error
            .downcast_ref()
            .map(|f: &RpcFailure| f.retry().is_worthwhile())
    };
    call.or_else(connect).or_else(close).or_else(failure)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use protos::error::{ErrorType, Retry};
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[derive(Debug, Error)]
    #[error("outer")]
    struct Outer(#[source] Middle);

    #[derive(Debug, Error)]
    #[error("middle")]
    struct Middle(#[from] CallError);

    fn lost() -> CallError {
        CallError::Lost(CloseReason::PeerClosed { mid_frame: false })
    }

    fn policy() -> RetryPolicy {
        RetryPolicy::try_new(RetryOptions::default()).expect("the defaults are valid")
    }

    async fn attempts(policy: &RetryPolicy, error: CallError) -> u32 {
        let count = Cell::new(0);
        let result: Result<(), _> = policy
            .run(|| {
                count.set(count.get() + 1);
                std::future::ready(Err(error.clone()))
            })
            .await;
        assert_eq!(result, Err(error));
        count.get()
    }

    #[test]
    fn retryable_is_kept_through_any_wrapping() {
        assert!(is_retryable(&Outer(lost().into())));
        let here = CallError::Lost(CloseReason::ClosedHere);
        assert!(!is_retryable(&Outer(here.into())));
        let failure = RpcFailure::new(ErrorType::Resource, "busy").with_retry(Retry::SameNode);
        assert!(is_retryable(&failure));
        assert!(!is_retryable(&std::io::Error::other("of somebody else")));
    }

    #[test]
    fn waits_are_random_below_a_doubling_ceiling() {
        let options = RetryOptions::default();
        let ceilings = [1, 2, 3, 7, 40].map(|failures| options.ceiling(failures).as_millis());
        assert_eq!(ceilings, [100, 200, 400, 5000, 5000]);
        let mut random = StdRng::seed_from_u64(7);
        let waits: Vec<_> = (0..1000)
            .map(|_| options.wait(3, &mut random).as_millis())
            .collect();
        assert!(waits.iter().all(|&wait| wait <= 400));
        assert!(waits.iter().any(|&wait| wait < 40) && waits.iter().any(|&wait| wait > 360));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lasting_failure_is_tried_five_times_and_a_final_one_once() {
        assert_eq!(attempts(&policy(), lost()).await, 5);
        assert_eq!(
            attempts(&policy(), CallError::Lost(CloseReason::ClosedHere)).await,
            1
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_spent_budget_ends_retries_until_calls_have_refilled_it() {
        let policy = policy();
        let mut total = 0;
        for _ in 0..100 {
            total += attempts(&policy, lost()).await;
        }
        // 100 first tries, 10 retries to start with, and one for every ten calls.
        assert_eq!(total, 120);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_may_ask_for_a_longer_wait_up_to_the_longest() {
        let busy = |wait| {
            let failure = RpcFailure::new(ErrorType::Resource, "busy");
            let failure = failure.with_retry(Retry::SameNode).with_retry_after(wait);
            CallError::Remote(Box::new(failure))
        };
        for (asked_for, waited) in [(2, 4 * 2), (3600, 4 * 5)] {
            let begun = tokio::time::Instant::now();
            attempts(&policy(), busy(Duration::from_secs(asked_for))).await;
            assert_eq!(begun.elapsed().as_secs(), waited);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_after_failures_is_a_success() {
        let mut left = 3;
        let result = policy()
            .run(|| {
                left -= 1;
                std::future::ready(if left == 0 { Ok("done") } else { Err(lost()) })
            })
            .await;
        assert_eq!(result, Ok("done"));
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        let never = RetryOptions {
            attempts_max: 0,
            ..RetryOptions::default()
        };
        assert_eq!(never.validate(), Err(RetryOptionsError::NoAttempt));
        let long = RetryOptions {
            backoff_base: Duration::from_mins(1),
            ..RetryOptions::default()
        };
        assert!(matches!(
            long.validate(),
            Err(RetryOptionsError::Backoff { .. })
        ));
    }
}
