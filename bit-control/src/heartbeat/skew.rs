//! How far another node's clock is from ours, as far as round trips can tell.
//!
//! A beat carries four times, as in NTP: sent (ours), received and answered (theirs), answer received (ours). The
//! difference is known to within half of the round trip, so the shortest of the last round trips tells the most.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Exchanges among which the shortest is chosen. A clock that is set by less than their bounds can tell is known again
/// after so many at the latest.
const WINDOW: usize = 16;
/// What is lost because the times are whole microseconds.
const STAMPS_US: u64 = 2;
/// How fast two clocks may drift apart, in parts of a million, before one of them was set.
const DRIFT_PPM: u64 = 500;

/// The four times of a beat. Times of the peer are as it says: nothing is computed from them that could overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When the beat left, by our monotonic clock.
    pub sent: Instant,
    /// The same by our wall clock, in microseconds since 1970.
    pub sent_unix_us: u64,
    /// When the peer had the beat, by its wall clock, in microseconds since 1970.
    pub peer_received_unix_us: u64,
    /// When the peer answered, by its wall clock, in microseconds since 1970.
    pub peer_sent_unix_us: u64,
    /// When the answer was here, by our monotonic clock.
    pub received: Instant,
}

impl Exchange {
    /// How long it took, without the time that the peer says it took to answer.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        let all = self.received.saturating_duration_since(self.sent);
        let held = self
            .peer_sent_unix_us
            .saturating_sub(self.peer_received_unix_us);
        let held = Duration::from_micros(held);
        // A peer that claims more than there was has set its clock, or lies.
        all.checked_sub(held).unwrap_or(all)
    }

    /// The peer's clock less ours, and how far off that may be.
    fn skew(&self) -> Skew {
        // Our wall clock may be set meanwhile, so the end is taken from the start and the monotonic clock.
        let all = micros(self.received.saturating_duration_since(self.sent));
        let received = i128::from(self.sent_unix_us) + i128::from(all);
        let there = i128::from(self.peer_received_unix_us) - i128::from(self.sent_unix_us);
        let back = i128::from(self.peer_sent_unix_us) - received;
        let offset = i64::try_from(i128::midpoint(there, back)).unwrap_or(i64::MAX);
        Skew {
            offset_us: offset,
            error_us: micros(self.round_trip()) / 2 + STAMPS_US,
        }
    }
}

/// A difference of two wall clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// The peer's clock less ours, in microseconds.
    pub offset_us: i64,
    /// The true difference is within so many microseconds of it.
    pub error_us: u64,
}

impl Skew {
    /// Whether both can be true, if clocks have drifted apart by at most `drift_us`.
    fn agrees_with(&self, other: &Self, drift_us: u64) -> bool {
        let apart = self.offset_us.abs_diff(other.offset_us);
        apart
            <= self
                .error_us
                .saturating_add(other.error_us)
                .saturating_add(drift_us)
    }
}

/// The last exchanges with one node.
#[derive(Debug, Default)]
pub(super) struct SkewFilter {
    /// When the first one was.
    began: Option<Instant>,
    /// In microseconds since then; oldest first.
    window: VecDeque<(u64, Skew)>,
}

impl SkewFilter {
    pub(super) fn record(&mut self, exchange: &Exchange) {
        let began = *self.began.get_or_insert(exchange.received);
        let at = micros(exchange.received.saturating_duration_since(began));
        let skew = exchange.skew();
        let fits = |(then, older): &(u64, Skew)| {
            let drift = at.saturating_sub(*then).saturating_mul(DRIFT_PPM) / 1_000_000;
            skew.agrees_with(older, drift)
        };
        // Both cannot be true, so one of the clocks was set: what was before does not count.
        if !self.window.iter().all(fits) {
            self.window.clear();
        }
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back((at, skew));
    }

    /// By the shortest round trip.
    pub(super) fn best(&self) -> Option<Skew> {
        let all = self.window.iter().map(|(_, skew)| *skew);
        all.min_by_key(|skew| skew.error_us)
    }
}

/// What beats count times in.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u64 = 1_700_000_000_000_000;

    /// A beat `at` whose ways take so many microseconds, to a clock that is so far ahead.
    fn exchange(at: Instant, ahead: i64, (there, held, back): (u64, u64, u64)) -> Exchange {
        let received = OURS.checked_add_signed(ahead).unwrap() + there;
        Exchange {
            sent: at,
            sent_unix_us: OURS,
            peer_received_unix_us: received,
            peer_sent_unix_us: received + held,
            received: at + Duration::from_micros(there + held + back),
        }
    }

    #[test]
    fn the_difference_is_within_its_bound_however_uneven_the_ways_are() {
        let at = Instant::now();
        for (there, back) in [(100, 100), (0, 5000), (9000, 1), (1, 0)] {
            for ahead in [-3_600_000_000, -1, 0, 250_000] {
                let exchange = exchange(at, ahead, (there, 40, back));
                assert_eq!(exchange.round_trip(), Duration::from_micros(there + back));
                let skew = exchange.skew();
                let off = skew.offset_us.abs_diff(ahead);
                assert!(off <= skew.error_us, "{skew:?} of {ahead}");
            }
        }
    }

    #[test]
    fn the_shortest_round_trip_tells() {
        let (mut filter, at) = (SkewFilter::default(), Instant::now());
        assert_eq!(filter.best(), None);
        for ways in [(5000, 0, 90), (50, 0, 52), (100, 10, 8000)] {
            filter.record(&exchange(at, 700, ways));
        }
        let best = filter.best().unwrap();
        assert_eq!((best.offset_us, best.error_us), (699, 53));
        (0..WINDOW).for_each(|_| filter.record(&exchange(at, 700, (500, 0, 500))));
        assert_eq!(filter.best().unwrap().error_us, 502);
        assert_eq!(filter.window.len(), WINDOW);
    }

    #[test]
    fn a_clock_that_is_set_is_noticed_with_the_next_beat() {
        let (mut filter, at) = (SkewFilter::default(), Instant::now());
        filter.record(&exchange(at, 0, (50, 0, 50)));
        let later = at + Duration::from_secs(1);
        filter.record(&exchange(later, 1_000_000, (800, 0, 800)));
        assert_eq!(filter.best().unwrap().offset_us, 1_000_000);
    }

    #[test]
    fn times_that_cannot_be_do_no_harm() {
        let at = Instant::now();
        for (received, sent) in [(0, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX)] {
            let odd = Exchange {
                peer_received_unix_us: received,
                peer_sent_unix_us: sent,
                ..exchange(at, 0, (10, 0, 10))
            };
            assert!(odd.round_trip() <= Duration::from_micros(20));
            let mut filter = SkewFilter::default();
            filter.record(&odd);
            filter.record(&exchange(at, 0, (10, 0, 10)));
            assert_eq!(filter.best().unwrap().offset_us, 0);
        }
    }
}
