//! Whether a driver with nothing to do looks again at once instead of going to sleep.
//!
//! Under load the peer's next batch is often only microseconds away, and waking a thread that sleeps takes as long. Two
//! ends that fall asleep after every batch spend more time on waking each other than on calls. So after a batch a driver
//! stays awake for a moment, as long as that pays: every time that nothing comes, more batches pass before it tries again.

use std::time::{Duration, Instant};

#[cfg(any(test, feature = "simulation"))]
use crate::simulation;

/// A batch of fewer frames is no load.
const FRAMES_MIN: usize = 8;
/// How long a driver stays awake: what going to sleep and being woken costs.
const TIME: Duration = Duration::from_micros(30);
/// Binary logarithm of the most batches that pass between two tries.
const PASS_LOG2_MAX: u32 = 4;

/// The clock of how long a thread is busy. The bus's may stand still, this one never does.
pub(crate) fn busy_now() -> Instant {
    #[cfg(any(test, feature = "simulation"))]
    if let Some(now) = simulation::busy::busy_now() {
        return now;
    }
    Instant::now()
}

/// See the module's description. Times are those of [`busy_now`].
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    /// While something is expected.
    until: Option<Instant>,
    /// How often in a row nothing came.
    in_vain: u32,
    /// Batches that pass before it tries again.
    pass: u32,
}

impl Lookout {
    /// A batch of so many frames came.
    pub(crate) fn on_batch(&mut self, frames: usize) {
        if frames >= FRAMES_MIN {
            self.on_load(busy_now());
        } else {
            self.rest();
        }
    }

    /// What comes next may take its time.
    pub(crate) fn rest(&mut self) {
        self.until = None;
    }

    fn on_load(&mut self, now: Instant) {
        if self.until.take().is_some() {
            self.in_vain = 0;
        }
        if self.pass > 0 {
            self.pass -= 1;
        } else {
            self.until = Some(now + TIME);
        }
    }

    /// Whether to stay awake.
    pub(crate) fn goes_on(&mut self) -> bool {
        self.until.is_some() && self.goes_on_at(busy_now())
    }

    fn goes_on_at(&mut self, now: Instant) -> bool {
        let goes_on = self.until.is_some_and(|until| now < until);
        if !goes_on && self.until.take().is_some() {
            self.in_vain = (self.in_vain + 1).min(PASS_LOG2_MAX);
            self.pass = (1 << self.in_vain) - 1;
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_for_a_moment_after_a_batch_and_not_after_a_frame() {
        let (mut lookout, now) = (Lookout::default(), Instant::now());
        assert!(!lookout.goes_on_at(now));
        lookout.on_load(now);
        assert!(lookout.goes_on_at(now + TIME / 2));
        assert!(!lookout.goes_on_at(now + TIME));
        lookout.on_batch(FRAMES_MIN - 1);
        assert!(!lookout.goes_on_at(now));
    }

    /// How many of so many batches are followed by a try, each `apart` from the next.
    fn tries(lookout: &mut Lookout, batches: u32, apart: Duration) -> usize {
        let start = Instant::now();
        let tried = (0..batches).filter(|&batch| {
            let now = start + batch * apart;
            lookout.on_load(now);
            let tried = lookout.goes_on_at(now);
            lookout.goes_on_at(now + apart);
            tried
        });
        tried.count()
    }

    #[test]
    fn it_is_tried_seldom_where_nothing_comes_and_always_where_something_does() {
        let mut lookout = Lookout::default();
        assert!(tries(&mut lookout, 1000, TIME) < 70);
        // As many as may still have to pass.
        tries(&mut lookout, 1 << PASS_LOG2_MAX, TIME / 2);
        assert_eq!(tries(&mut lookout, 1000, TIME / 2), 1000);
    }
}
