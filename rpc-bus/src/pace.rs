//! How fast connections of one address, or PINGs and cancels of one connection, may come: what comes faster waits, so that a flood is
//! served at a known cost.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// So much of what is due later may come at once.
const AHEAD: Duration = Duration::from_secs(1);

/// Of one origin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// When the next one would be due if all had come evenly.
    due: Instant,
}

impl Pace {
    /// Nothing has come for long.
    pub(crate) fn new(now: Instant) -> Self {
        Self { due: now }
    }

    /// Another one comes at `now`; `per_second` is the pace. Returns how long it has to wait.
    pub(crate) fn arrive(&mut self, now: Instant, per_second: NonZeroU32) -> Duration {
        let wait = self.due.saturating_duration_since(now + AHEAD);
        self.due = self.due.max(now) + Duration::from_secs(1) / per_second.get();
        wait
    }

    /// Whether it is as good as new.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.due <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: NonZeroU32 = NonZeroU32::new(10).expect("invariant: not zero");
    const STEP: Duration = Duration::from_millis(100);

    #[test]
    fn a_second_worth_comes_at_once_and_the_rest_evenly() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let waits: Vec<_> = (0..14).map(|_| pace.arrive(now, TEN)).collect();
        assert_eq!(waits[..11], [Duration::ZERO; 11]);
        assert_eq!(waits[11..], [STEP, 2 * STEP, 3 * STEP]);
    }

    #[test]
    fn those_that_keep_the_pace_never_wait() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for count in 0..100 {
            assert_eq!(pace.arrive(start + count * STEP, TEN), Duration::ZERO);
        }
    }

    #[test]
    fn silence_is_no_credit_beyond_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.arrive(start, TEN);
        assert!(!pace.is_over(start));
        let later = start + Duration::from_mins(1);
        assert!(pace.is_over(later));
        let waits = (0..12).filter(|_| !pace.arrive(later, TEN).is_zero());
        assert_eq!(waits.count(), 1);
    }
}
