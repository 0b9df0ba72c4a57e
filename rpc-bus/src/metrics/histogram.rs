//! Times in buckets of fixed bounds: powers of two, from a microsecond to a minute.

use std::time::{Duration, Instant};

/// Times up to 2^this nanoseconds are in the first bucket: 1.024 microseconds.
const FIRST_BOUND_LOG2: usize = 10;
/// Buckets with an upper bound; the last of them ends at 2^36 nanoseconds, 68.7 s.
const BOUNDS: usize = 27;
/// Upper bounds in seconds.
const BOUNDS_S: [f64; BOUNDS] = bounds_s();

const _: () = assert!(BOUNDS_S[0] < 2e-6 && BOUNDS_S[BOUNDS - 1] > 60.0);

/// How long things took, as counts by upper bound.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Histogram {
    /// Upper bounds of the buckets in seconds, inclusive, ascending.
    pub bounds_s: &'static [f64],
    /// Times in each bucket alone; one more than there are bounds, the last for what is above all of them.
    pub counts: Vec<u64>,
    /// Sum of all times in seconds.
    pub sum_s: f64,
    /// Number of times: the sum of `counts`.
    pub count: u64,
}

/// A histogram that is written to: no allocation, no lock of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    counts: [u64; BOUNDS + 1],
    /// Nanoseconds: enough for 584 years.
    sum_ns: u64,
}

impl Times {
    pub(crate) fn record(&mut self, time: Duration) {
        let nanos = nanos(time);
        self.counts[bucket(nanos)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(nanos);
    }

    /// Records the time from one to the other; none if they come in the wrong order.
    pub(crate) fn record_between(&mut self, from: Instant, to: Instant) {
        self.record(to.saturating_duration_since(from));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    pub(crate) fn snapshot(&self) -> Histogram {
        Histogram {
            bounds_s: &BOUNDS_S,
            counts: self.counts.to_vec(),
            sum_s: Duration::from_nanos(self.sum_ns).as_secs_f64(),
            count: self.counts.iter().sum(),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    let whole = time.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(u64::from(time.subsec_nanos()))
}

/// The first bucket whose bound is not below so many nanoseconds.
fn bucket(nanos: u64) -> usize {
    // Rounded up: a power of two belongs to the bucket that it bounds.
    let log2 = (u64::BITS - nanos.saturating_sub(1).leading_zeros()) as usize;
    log2.saturating_sub(FIRST_BOUND_LOG2).min(BOUNDS)
}

#[allow(clippy::cast_precision_loss, reason = "powers of two are exact")]
const fn bounds_s() -> [f64; BOUNDS] {
    let mut bounds = [0.0; BOUNDS];
    let mut i = 0;
    while i < BOUNDS {
        bounds[i] = (1_u64 << (FIRST_BOUND_LOG2 + i)) as f64 / 1e9;
        i += 1;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        for (index, bound) in BOUNDS_S.into_iter().enumerate() {
            let bound = Duration::from_secs_f64(bound);
            assert_eq!(bucket(nanos(bound)), index);
            assert_eq!(bucket(nanos(bound) + 1), index + 1);
        }
        let of = |time| bucket(nanos(time));
        assert_eq!((of(Duration::ZERO), of(Duration::MAX)), (0, BOUNDS));
    }

    #[test]
    fn the_count_is_the_sum_of_the_buckets_and_sums_add_up() {
        let (mut times, mut more) = (Times::default(), Times::default());
        for millis in [0, 1, 10, 100_000] {
            times.record(Duration::from_millis(millis));
            more.record(Duration::from_millis(millis));
        }
        times.add(&more);
        let histogram = times.snapshot();
        assert_eq!((histogram.count, histogram.counts.len()), (8, BOUNDS + 1));
        assert_eq!(histogram.counts.iter().sum::<u64>(), 8);
        assert_eq!(histogram.counts[BOUNDS], 2);
        assert!((histogram.sum_s - 200.022).abs() < 1e-9, "{histogram:?}");
    }
}
