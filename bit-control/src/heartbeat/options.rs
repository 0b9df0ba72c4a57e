//! How often to beat, and how long silence may last.

use std::time::Duration;

use thiserror::Error;

/// How many beats a silence may last before its node is suspect.
const SUSPECT_BEATS: u32 = 3;
/// How much earlier than promised a verdict falls: timers are late, and news takes its way.
const EARLY: u32 = 10;
/// Answers from which the detector learns what is usual.
const SAMPLES: usize = 100;

/// Times of the beats between our own nodes.
///
/// A node from which nothing comes is `suspect` within 3 beats and `down` within 3 beats and [`Self::down_grace`]. Fewer
/// beats cannot be had: one lost or late answer is no death.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeatOptions {
    /// Time between two beats. Default 1 s, at least 10 ms. A beat costs both sides some microseconds.
    pub interval: Duration,
    /// How long after the third beat a silent node may go on as `suspect`. Default 1 s, at least as much as `interval`
    /// or 100 ms, whichever is less.
    pub down_grace: Duration,
    /// From which phi on a silence is suspicious before the third beat: 8 is a chance of one in 10^8 that it is nothing,
    /// by what the answers have been like so far. Default 8, from 1 to 16.
    pub phi_suspect: f64,
}

impl Default for BeatOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            down_grace: Duration::from_secs(1),
            phi_suspect: 8.0,
        }
    }
}

/// Options that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum BeatOptionsError {
    /// Beats faster than timers.
    #[error("expected an interval of at least 10 ms between beats, found {0:?}")]
    Interval(Duration),
    /// No time to answer.
    #[error("expected a grace of at least {min:?} before a node is down, found {actual:?}")]
    Grace {
        /// Least.
        min: Duration,
        /// Found.
        actual: Duration,
    },
    /// Not a useful threshold.
    #[error("expected a phi from 1 to 16, found {0}")]
    Phi(f64),
}

impl BeatOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// One of them cannot work.
    pub fn validate(&self) -> Result<(), BeatOptionsError> {
        if self.interval < Duration::from_millis(10) {
            return Err(BeatOptionsError::Interval(self.interval));
        }
        let (min, actual) = (
            self.interval.min(Duration::from_millis(100)),
            self.down_grace,
        );
        if actual < min {
            return Err(BeatOptionsError::Grace { min, actual });
        }
        if !(1.0..=16.0).contains(&self.phi_suspect) {
            return Err(BeatOptionsError::Phi(self.phi_suspect));
        }
        Ok(())
    }

    pub(super) fn timing(&self) -> Timing {
        let early = self.interval.min(self.down_grace) / EARLY;
        let last_beat = self.interval * SUSPECT_BEATS;
        Timing {
            interval: self.interval,
            suspect_after: last_beat.saturating_sub(early),
            down_after: (last_beat + self.down_grace).saturating_sub(early),
            phi: Some(PhiOptions {
                suspect: self.phi_suspect,
                pause: self.interval,
                deviation_min: self.interval / 10,
                samples: SAMPLES,
            }),
        }
    }
}

/// When to beat a node, and what its silence means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Timing {
    /// Between our own nodes: from beat to beat. Towards Drill: from the last sign of life to the PING.
    pub(super) interval: Duration,
    pub(super) suspect_after: Duration,
    pub(super) down_after: Duration,
    /// `None` where answers are too rare to learn from.
    pub(super) phi: Option<PhiOptions>,
}

/// What the detector takes for usual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PhiOptions {
    pub(super) suspect: f64,
    /// How much longer than usual is still nothing: a lost beat.
    pub(super) pause: Duration,
    /// However regular the answers are.
    pub(super) deviation_min: Duration,
    /// How many of the last ones count.
    pub(super) samples: usize,
}

impl Timing {
    /// Towards a real Drill: PING after 150 s without a sign of life, 150 s for its PONG.
    // wire: drill@051b164 exec/java-exec/.../drill-module.conf: drill.exec.rpc.bit.timeout
    pub(super) fn of_drill() -> Self {
        let idle = Duration::from_secs(150);
        Self {
            interval: idle,
            suspect_after: idle + idle / 2,
            down_after: idle * 2,
            phi: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_are_refused() {
        let default = BeatOptions::default();
        assert_eq!(default.validate(), Ok(()));
        let fast = BeatOptions {
            interval: Duration::from_millis(9),
            ..default
        };
        assert!(matches!(
            fast.validate(),
            Err(BeatOptionsError::Interval(_))
        ));
        let hasty = BeatOptions {
            down_grace: Duration::from_millis(99),
            ..default
        };
        assert!(matches!(
            hasty.validate(),
            Err(BeatOptionsError::Grace { .. })
        ));
        for phi_suspect in [0.5, 17.0, f64::NAN] {
            let odd = BeatOptions {
                phi_suspect,
                ..default
            };
            assert!(matches!(odd.validate(), Err(BeatOptionsError::Phi(_))));
        }
    }

    #[test]
    fn verdicts_fall_within_what_is_promised() {
        let timing = BeatOptions::default().timing();
        assert!(timing.suspect_after < Duration::from_secs(3));
        assert!(timing.down_after < Duration::from_secs(4));
        assert!(timing.down_after > Duration::from_secs(3));
    }
}
