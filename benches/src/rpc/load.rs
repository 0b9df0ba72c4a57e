//! What is asked of a variant, and what came of it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;

/// Bytes that a call carries in each direction.
pub(crate) const MESSAGE_BYTES: usize = 100;
/// Bytes of one message of a bulk stream.
pub(crate) const BULK_BYTES: usize = 1 << 20;
/// Messages of a bulk stream that are under way at a time, so that none waits for an answer before it goes on.
pub(crate) const BULK_IN_FLIGHT: usize = 2;
const WARM_UP: Duration = Duration::from_millis(200);

/// One case: who calls whom how often at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) case: &'static str,
    /// Connections that carry calls.
    pub(crate) connections: usize,
    /// Callers of each of them, each with one call at a time.
    pub(crate) in_flight: usize,
    /// Further connections with nothing but bulk, as much of it as goes through.
    pub(crate) bulk: usize,
    /// How long it is measured.
    pub(crate) measured: Duration,
}

/// What came of a load.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) latencies: Latencies,
    /// CPU time of this process, hence of both ends.
    pub(crate) cpu: Duration,
    /// Bulk that arrived.
    pub(crate) bulk_bytes: u64,
}

/// Round-trip times of the calls that ended while it was measured.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u32>);

/// When calls are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

impl Load {
    /// `connections` with `in_flight` callers each, and nothing else.
    pub(crate) const fn calls(case: &'static str, connections: usize, in_flight: usize) -> Self {
        Self {
            case,
            connections,
            in_flight,
            bulk: 0,
            measured: Duration::from_secs(1),
        }
    }

    /// From the end of the warm-up on, which begins now.
    pub(crate) fn window(&self) -> Window {
        let from = Instant::now() + WARM_UP;
        Window {
            from,
            until: from + self.measured,
        }
    }
}

/// What a caller sends: no two callers the same, so that nobody takes another one's answer for its own.
pub(crate) fn message(caller: usize) -> Bytes {
    let mut message = vec![7; MESSAGE_BYTES];
    message[..8].copy_from_slice(&caller.to_le_bytes());
    message.into()
}

/// Fails unless `answer` is what was sent.
pub(crate) fn verify(answer: &[u8], sent: &[u8]) -> Result<()> {
    ensure!(answer == sent, "an echo of something else");
    Ok(())
}

impl Window {
    /// Whether what ended at `ended` counts, whenever it began: slow calls must not be fewer than they are.
    pub(crate) fn holds(self, ended: Instant) -> bool {
        (self.from..self.until).contains(&ended)
    }
}

impl Latencies {
    /// Adds `calls` that began at `begun` and end now, if that is within `window`. Returns when they ended, which is when
    /// the next ones begin; `None` if the window is over.
    pub(crate) fn record(
        &mut self,
        begun: Instant,
        calls: usize,
        window: Window,
    ) -> Option<Instant> {
        let ended = Instant::now();
        if window.holds(ended) {
            let nanos = u32::try_from((ended - begun).as_nanos()).unwrap_or(u32::MAX);
            self.0.extend(std::iter::repeat_n(nanos, calls));
        }
        (ended < window.until).then_some(ended)
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// That of the calls of which `percent` were not slower.
    pub(crate) fn micros(&mut self, percent: usize) -> Result<f64> {
        ensure!(!self.0.is_empty(), "no call ended in time");
        let index = (self.0.len() - 1) * percent / 100;
        Ok(f64::from(*self.0.select_nth_unstable(index).1) / 1e3)
    }

    /// Number of calls.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 calls")]
    pub(crate) fn calls(&self) -> f64 {
        self.0.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let mut latencies = Latencies((1..=100).rev().map(|micros| micros * 1000).collect());
        let near = |micros: f64, expected: f64| (micros - expected).abs() < 1e-9;
        assert!(near(latencies.micros(50).unwrap(), 50.0));
        assert!(near(latencies.micros(99).unwrap(), 99.0));
        assert!(Latencies::default().micros(50).is_err());
    }

    #[test]
    fn calls_count_in_the_window_in_which_they_end() {
        let now = Instant::now();
        let minute = Duration::from_mins(1);
        let (now_on, later) = ((now, now + minute), (now + minute, now + 2 * minute));
        let mut latencies = Latencies::default();
        let mut record =
            |calls, (from, until)| latencies.record(now, calls, Window { from, until });
        assert!(record(1, later).is_some());
        assert!(record(3, now_on).is_some());
        assert!(record(1, (now, now)).is_none());
        assert_eq!(latencies.0.len(), 3);
    }

    #[test]
    fn an_echo_of_another_callers_message_is_found() {
        assert!(verify(&message(1), &message(1)).is_ok());
        assert!(verify(&message(1), &message(2)).is_err());
    }
}
