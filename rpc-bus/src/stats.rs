//! Plain counters of one connection, kept beside its state; the program exports them.
//!
//! What is counted by rpc type is in `metrics`.

use std::{collections::VecDeque, time::Duration};

use crate::metrics::{Histogram, Times};

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
    /// Calls answered with something that is not the message that they expect.
    pub answers_unusable: u64,
    /// Answers that came after their call was given up.
    pub late_answers: u64,
    /// Calls that had to wait for room to write.
    pub room_waits: u64,
    /// How long they did, together.
    pub room_wait_time: Duration,
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
    /// Most bytes of requests that ever waited to be written.
    pub write_queue_bytes_peak: usize,
    /// Most bytes of replies that ever waited to be written.
    pub reply_queue_bytes_peak: usize,
}

impl ConnectionStats {
    /// A request had to wait for room to write.
    pub(crate) fn on_room_wait(&mut self, waited: Duration) {
        self.room_waits += 1;
        self.room_wait_time += waited;
    }

    /// Adds counters and gauges, and takes the higher peaks.
    pub(crate) fn add(&mut self, other: &Self) {
        let mut other = *other;
        let sums = self.counters_mut().into_iter().zip(other.counters_mut());
        sums.for_each(|(sum, more)| *sum += *more);
        self.room_wait_time = self.room_wait_time.saturating_add(other.room_wait_time);
        self.calls_in_flight += other.calls_in_flight;
        self.requests_in_flight += other.requests_in_flight;
        self.write_queue_bytes += other.write_queue_bytes;
        self.reply_queue_bytes += other.reply_queue_bytes;
        self.write_queue_bytes_peak = self
            .write_queue_bytes_peak
            .max(other.write_queue_bytes_peak);
        self.reply_queue_bytes_peak = self
            .reply_queue_bytes_peak
            .max(other.reply_queue_bytes_peak);
    }

    fn counters_mut(&mut self) -> [&mut u64; 20] {
        [
            &mut self.frames_received,
            &mut self.bytes_received,
            &mut self.frames_sent,
            &mut self.bytes_sent,
            &mut self.reads,
            &mut self.writes,
            &mut self.requests_received,
            &mut self.requests_refused,
            &mut self.failures_sent,
            &mut self.calls_started,
            &mut self.calls_answered,
            &mut self.calls_failed,
            &mut self.calls_timed_out,
            &mut self.answers_unusable,
            &mut self.late_answers,
            &mut self.room_waits,
            &mut self.pings_received,
            &mut self.pings_sent,
            &mut self.pongs_received,
            &mut self.beats_missed,
        ]
    }
}

/// Round trips over the last ones; those of a connection are from a PING's leaving to its PONG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoundTripStats {
    /// The last one.
    pub last: Duration,
    /// The shortest: of the link alone, when nobody had to wait for a core or behind other bytes.
    pub min: Duration,
    /// Half took at most this.
    pub p50: Duration,
    /// 99 of 100 took at most this.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
    /// Smoothed difference between one and the next.
    pub jitter: Duration,
}

/// The last round trips with one peer, and a histogram of all; no memory before the first.
#[derive(Clone, Debug, Default)]
pub struct RoundTrips {
    /// Oldest first.
    window: VecDeque<Duration>,
    jitter: Duration,
    /// All there ever were.
    all: Times,
}

impl RoundTrips {
    /// How many are kept: two minutes' worth of beats.
    const WINDOW: usize = 120;
    /// Weight of the past in the jitter, as in RTP.
    const SMOOTHING: u32 = 16;

    /// Adds one.
    pub fn record(&mut self, round_trip: Duration) {
        self.all.record(round_trip);
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

    /// All there ever were.
    #[must_use]
    pub fn histogram(&self) -> Histogram {
        self.all.snapshot()
    }

    pub(crate) fn all(&self) -> &Times {
        &self.all
    }

    /// The last ones, at most `count`, the newest last.
    #[must_use]
    pub fn recent(&self, count: usize) -> Vec<Duration> {
        let older = self.window.len().saturating_sub(count);
        self.window.iter().skip(older).copied().collect()
    }

    /// The last ones; `None` before the first.
    #[must_use]
    pub fn stats(&self) -> Option<RoundTripStats> {
        let last = *self.window.back()?;
        let mut sorted: Vec<_> = self.window.iter().copied().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100) - 1];
        Some(RoundTripStats {
            last,
            min: sorted[0],
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
        let ms = [stats.last, stats.min, stats.p50, stats.p99, stats.max];
        assert_eq!(ms.map(|trip| trip.as_millis()), [120, 1, 60, 119, 120]);
        assert_eq!(trips.recent(2), [119, 120].map(Duration::from_millis));
        assert_eq!(trips.recent(1000).len(), 120);
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
