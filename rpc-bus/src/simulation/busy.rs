//! How long a thread is busy, in a simulation.
//!
//! Its clock stands still while tasks run, and that of the machine would make every run another one: so every look takes
//! a microsecond.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

const LOOK: Duration = Duration::from_micros(1);

thread_local! {
    /// How many simulations this thread runs, and what its last look has shown.
    static RUNNING: Cell<(usize, Option<Instant>)> = const { Cell::new((0, None)) };
}

/// While this lives, the thread that made it looks at this clock.
#[derive(Debug)]
pub(super) struct Busy(());

impl Busy {
    pub(super) fn new() -> Self {
        let (running, _) = RUNNING.get();
        RUNNING.set((running + 1, Some(Instant::now())));
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let (running, last) = RUNNING.get();
        let running = running.saturating_sub(1);
        RUNNING.set((running, last.filter(|_| running > 0)));
    }
}

/// `None` where no simulation runs.
pub(crate) fn busy_now() -> Option<Instant> {
    let (running, last) = RUNNING.get();
    let now = last? + LOOK;
    RUNNING.set((running, Some(now)));
    Some(now)
}
