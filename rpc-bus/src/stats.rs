//! Plain counters of one connection, kept beside its state; the program exports them.

use std::time::Duration;

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
    /// From the last PING's leaving to its PONG; `None` before the first.
    pub round_trip_last: Option<Duration>,
    /// Shortest of all round trips.
    pub round_trip_min: Option<Duration>,
    /// Longest of all round trips.
    pub round_trip_max: Option<Duration>,
    /// Calls that wait for their answer now, given up ones included.
    pub calls_in_flight: usize,
    /// Requests of the peer that wait for their answer now.
    pub requests_in_flight: usize,
    /// Bytes of requests that wait to be written now.
    pub write_queue_bytes: usize,
    /// Bytes of replies that wait to be written now.
    pub reply_queue_bytes: usize,
}

impl ConnectionStats {
    pub(crate) fn on_round_trip(&mut self, round_trip: Duration) {
        self.round_trip_last = Some(round_trip);
        self.round_trip_min = Some(
            self.round_trip_min
                .map_or(round_trip, |m| m.min(round_trip)),
        );
        self.round_trip_max = self.round_trip_max.max(Some(round_trip));
    }
}
