//! Which fragments have ended, oldest first: how long their marks stay. No clock: time comes in as an argument.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use protos::id::FragmentId;

/// The fragments that have ended lately.
#[derive(Debug)]
pub(crate) struct Tombstones {
    time: Duration,
    max: usize,
    oldest_first: VecDeque<(FragmentId, Instant)>,
}

impl Tombstones {
    /// At most `max` of them, each for `time`.
    pub(crate) fn new(time: Duration, max: usize) -> Self {
        Self {
            time,
            max,
            oldest_first: VecDeque::new(),
        }
    }

    /// Adds one; returns those that are to be forgotten, with the time when they were added.
    pub(crate) fn add(&mut self, fragment: FragmentId, now: Instant) -> Vec<(FragmentId, Instant)> {
        self.oldest_first.push_back((fragment, now));
        let is_over = |at: Instant| now.saturating_duration_since(at) >= self.time;
        let by_age = self.oldest_first.iter().take_while(|(_, at)| is_over(*at));
        let too_many = self.oldest_first.len().saturating_sub(self.max);
        let forgotten = by_age.count().max(too_many);
        self.oldest_first.drain(..forgotten).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::header::tests::QUERY, *};

    fn fragment(minor: i32) -> FragmentId {
        FragmentId::new(QUERY, 1, minor)
    }

    #[test]
    fn the_oldest_go_by_age_and_by_number() {
        let minute = Duration::from_mins(1);
        let start = Instant::now();
        let mut tombstones = Tombstones::new(10 * minute, 3);
        assert!(tombstones.add(fragment(0), start).is_empty());
        assert!(tombstones.add(fragment(1), start + minute).is_empty());
        let later = start + 10 * minute;
        assert_eq!(
            tombstones.add(fragment(2), later),
            [(fragment(0), start)],
            "after ten minutes"
        );
        assert!(tombstones.add(fragment(3), later).is_empty());
        assert_eq!(
            tombstones.add(fragment(4), later),
            [(fragment(1), start + minute)],
            "a fourth one"
        );
    }
}
