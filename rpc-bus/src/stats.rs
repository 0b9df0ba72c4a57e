//! Plain counters of one connection, kept beside its state; the program exports them.

use std::{collections::VecDeque, time::Duration};

/// What a connection has done so far, and what it is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Frames received.
    pub frames_received: u64,
    /// Bytes received, whole frames or not.
    pub bytes_received: u64,
    /// Frames handed to the socket.
    pub frames_sent: u64,
    /// Bytes handed to the socket.
    pub bytes_sent: u64,
    /// Reads that brought something.
    pub reads: u64,
    /// Writes that took something.
    pub writes: u64,
    /// Requests received, refused ones included.
    pub requests_received: u64,
    /// Requests refused because too many were in flight.
    pub requests_refused: u64,
    /// Requests answered with `RESPONSE_FAILURE`.
    pub failures_sent: u64,
    /// Calls made.
    pub calls_started: u64,
    /// Calls answered, failures included.
    pub calls_answered: u64,
    /// Calls answered with `RESPONSE_FAILURE`.
    pub calls_failed: u64,
    /// Calls whose deadline passed.
    pub calls_timed_out: u64,
    /// Answers that came after their call was given up.
    pub late_answers: u64,
    /// PINGs received.
    pub pings_received: u64,
    /// PINGs sent.
    pub pings_sent: u64,
    /// PONGs received.
    pub pongs_received: u64,
    /// Beats before which nothing had come from the peer since the last one.
    pub beats_missed: u64,
    /// Round trips of PINGs; `None` before the first PONG.
    pub round_trips: Option<RoundTripStats>,
    /// Calls that wait for their answer now, given up ones included.
    pub calls_in_flight: usize,
    /// Requests of the peer that wait for their answer now.
    pub requests_in_flight: usize,
    /// Bytes of requests that wait to be written now.
    pub write_queue_bytes: usize,
    /// Bytes of replies that wait to be written now.
    pub reply_queue_bytes: usize,
}

/// Round trips from a PING's leaving to its PONG, over the last ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoundTripStats {
    /// The last one.
    pub last: Duration,
    /// Half took at most this.
    pub p50: Duration,
    /// 99 of 100 took at most this.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
    /// Smoothed difference between one and the next.
    pub jitter: Duration,
}

/// The last round trips of one connection; no memory before the first.
#[derive(Debug, Default)]
pub(crate) struct RoundTrips {
    /// Oldest first.
    window: VecDeque<Duration>,
    jitter: Duration,
}

impl RoundTrips {
    /// How many are kept: two minutes' worth of beats.
    const WINDOW: usize = 120;
    /// Weight of the past in the jitter, as in RTP.
    const SMOOTHING: u32 = 16;

    pub(crate) fn record(&mut self, round_trip: Duration) {
        if let Some(&last) = self.window.back() {
            let difference = last.abs_diff(round_trip);
            let smoothed = self.jitter * (Self::SMOOTHING - 1) + difference;
            self.jitter = smoothed / Self::SMOOTHING;
        }
        if self.window.len() == Self::WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(round_trip);
    }

    pub(crate) fn stats(&self) -> Option<RoundTripStats> {
        let last = *self.window.back()?;
        let mut sorted: Vec<_> = self.window.iter().copied().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100) - 1];
        Some(RoundTripStats {
            last,
            p50: rank(50),
            p99: rank(99),
            max: rank(100),
            jitter: self.jitter,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_last_round_trips_only() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.stats(), None);
        trips.record(Duration::from_secs(9));
        (1..=120).for_each(|ms| trips.record(Duration::from_millis(ms)));
        let stats = trips.stats().expect("there are some");
        let ms = [stats.last, stats.p50, stats.p99, stats.max].map(|trip| trip.as_millis());
        assert_eq!(ms, [120, 60, 119, 120]);
    }

    #[test]
    fn jitter_follows_the_differences_and_forgets_them() {
        let mut trips = RoundTrips::default();
        let jitter = |trips: &RoundTrips| trips.stats().map(|stats| stats.jitter.as_millis());
        (0..200).for_each(|i| trips.record(Duration::from_millis(10 + 8 * (i % 2))));
        assert_eq!(jitter(&trips), Some(7));
        (0..200).for_each(|_| trips.record(Duration::from_millis(10)));
        assert_eq!(jitter(&trips), Some(0));
    }
}
