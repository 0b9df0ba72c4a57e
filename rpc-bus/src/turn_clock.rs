//! The time of answers, while many requests are started in a row.
//!
//! Reading the clock is a good part of what a small request costs. So as long as requests take no longer than a
//! microsecond or two, only every eighth answer reads it, and those in between have the time of the last reading: they
//! are off by a few microseconds. As soon as one takes longer, every answer reads it again.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use crate::link;

/// Most answers for which one reading serves.
const ANSWERS_MAX: u32 = 8;
/// Requests that take longer each have a reading each.
const SHORT: Duration = Duration::from_micros(2);

thread_local! {
    static CLOCK: Cell<Option<TurnClock>> = const { Cell::new(None) };
}

/// The last reading of a turn.
#[derive(Clone, Copy, Debug)]
struct TurnClock {
    read: Instant,
    /// For how many answers it serves.
    serves: u32,
    /// How many of them there were.
    served: u32,
}

impl TurnClock {
    fn new(now: Instant) -> Self {
        Self {
            read: now,
            serves: 1,
            served: 0,
        }
    }

    /// The time of the next answer.
    fn answer(&mut self, read: impl FnOnce() -> Instant) -> Instant {
        self.served += 1;
        if self.served >= self.serves {
            let now = read();
            let short = now.saturating_duration_since(self.read) <= SHORT * self.served;
            self.serves = if short {
                ANSWERS_MAX.min(2 * self.serves)
            } else {
                1
            };
            (self.read, self.served) = (now, 0);
        }
        self.read
    }
}

/// A turn of this thread; it ends when this is dropped.
#[must_use = "a turn ends when this is dropped"]
pub(crate) struct Running(());

/// Begins a turn of this thread at `now`.
pub(crate) fn begin(now: Instant) -> Running {
    CLOCK.set(Some(TurnClock::new(now)));
    Running(())
}

impl Drop for Running {
    fn drop(&mut self) {
        CLOCK.set(None);
    }
}

/// The time of an answer, on a turn of this thread or not.
pub(crate) fn answering() -> Instant {
    let Some(mut clock) = CLOCK.get() else {
        return link::now();
    };
    let at = clock.answer(link::now);
    CLOCK.set(Some(clock));
    at
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Answers after requests that take `each`, and how often the clock was read for them.
    fn readings(each: Duration, answers: u32) -> u32 {
        let start = Instant::now();
        let (mut clock, mut readings) = (TurnClock::new(start), 0);
        for answer in 1..=answers {
            let now = start + each * answer;
            let at = clock.answer(|| {
                readings += 1;
                now
            });
            assert!(at <= now && now - at < each.max(SHORT * ANSWERS_MAX));
        }
        readings
    }

    #[test]
    fn short_requests_share_readings_and_long_ones_do_not() {
        assert_eq!(readings(Duration::from_micros(1), 7), 3);
        assert_eq!(readings(Duration::from_micros(1), 807), 103);
        assert_eq!(readings(Duration::from_micros(3), 100), 100);
    }

    #[test]
    fn after_a_long_request_every_answer_has_its_own_time() {
        let start = Instant::now();
        let mut clock = TurnClock::new(start);
        (0..7).for_each(|_| _ = clock.answer(|| start));
        assert_eq!((clock.serves, clock.served), (8, 0));
        let late = start + Duration::from_millis(1);
        let times: Vec<_> = (0..9).map(|_| clock.answer(|| late)).collect();
        assert!(times[..7].iter().all(|&at| at == start));
        assert_eq!(times[7..], [late, late]);
        assert_eq!(clock.serves, 2);
    }

    #[test]
    fn a_turn_ends_when_it_is_dropped() {
        let long_ago = Instant::now();
        let turn = begin(long_ago);
        let mut clock = CLOCK.get().unwrap();
        clock.serves = ANSWERS_MAX;
        CLOCK.set(Some(clock));
        assert_eq!(answering(), long_ago);
        drop(turn);
        assert!(CLOCK.get().is_none());
    }
}
