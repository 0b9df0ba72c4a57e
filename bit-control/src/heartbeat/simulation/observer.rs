//! What one node believes of another, and whether it may.

use std::time::Duration;

use super::super::{BeatCounts, Health, HealthEvent, Rule};

pub(super) const BEAT: Duration = Duration::from_secs(1);
/// A silent node is suspect within so long.
const SUSPECT_WITHIN: Duration = Duration::from_secs(3);
/// And down within so long.
const DOWN_WITHIN: Duration = Duration::from_secs(4);

/// One node as seen by another. Times are since the start of the schedule.
#[derive(Debug)]
pub(super) struct Belief {
    health: Health,
    last_sign: Duration,
    /// What the observer may take longer since the last sign of life, because it was late itself.
    late: Duration,
    /// And, after it was very late, at most a beat to read what came meanwhile.
    settling: Duration,
    excuse: Excuse,
    /// The peer lives and answers within two beats, all the time: it must never be taken for down.
    is_gentle: bool,
    been_up: bool,
    incarnation: Option<u64>,
    pub(super) counts: Seen,
}

/// Why an observer may be late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excuse {
    None,
    /// It is busy, all the time.
    Busy,
    /// It was stopped since the last sign of life.
    Stopped,
}

/// What events have told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) ups: u64,
    pub(super) suspected: u64,
    pub(super) downs: u64,
    pub(super) flaps: u64,
    pub(super) restarts: u64,
}

impl Belief {
    pub(super) fn new(now: Duration, is_gentle: bool, is_busy: bool) -> Self {
        Self {
            health: Health::Suspect,
            last_sign: now,
            late: Duration::ZERO,
            settling: Duration::ZERO,
            excuse: if is_busy { Excuse::Busy } else { Excuse::None },
            is_gentle,
            been_up: false,
            incarnation: None,
            counts: Seen::default(),
        }
    }

    /// The peer gave a sign of life, which the observer has seen now.
    pub(super) fn on_sign(&mut self, now: Duration) {
        self.last_sign = now;
        (self.late, self.settling) = (Duration::ZERO, Duration::ZERO);
    }

    /// The observer is awake again, and has had a sign of life since: it has no excuse any more.
    pub(super) fn on_awake(&mut self) {
        if self.excuse == Excuse::Stopped {
            self.excuse = Excuse::None;
        }
    }

    /// The observer accepts the answer of a process.
    pub(super) fn on_answer(&mut self, incarnation: u64, now: Duration) {
        let before = self.incarnation.replace(incarnation);
        if before.is_some_and(|before| before != incarnation) {
            self.counts.restarts += 1;
            self.been_up = false;
        }
        self.on_sign(now);
    }

    /// The observer was stopped.
    pub(super) fn on_stopped(&mut self) {
        if self.excuse == Excuse::None {
            self.excuse = Excuse::Stopped;
        }
    }

    /// The observer polled so much later than it should have.
    pub(super) fn on_late(&mut self, late: Duration, now: Duration) {
        let late = late.min(now.saturating_sub(self.last_sign));
        self.late += late;
        if late >= BEAT / 10 {
            self.settling = (self.settling + late).min(BEAT);
        }
    }

    fn may_take(&self, within: Duration, lag: Duration) -> Duration {
        match self.excuse {
            Excuse::None => within,
            Excuse::Busy | Excuse::Stopped => within + self.late + self.settling + lag,
        }
    }

    /// The health of the peer changes, as the observer sees it.
    pub(super) fn on_event(&mut self, event: &HealthEvent, now: Duration, lag: Duration) {
        assert_eq!(event.from, self.health, "{event:?} after {self:?}");
        assert_ne!(event.from, event.to, "{event:?}");
        let silence = now.saturating_sub(self.last_sign);
        match event.to {
            Health::Up => {
                assert!(silence.is_zero(), "up without a sign: {event:?}, {self:?}");
                self.counts.ups += 1;
                self.counts.flaps += u64::from(self.been_up);
                self.been_up = true;
            }
            Health::Suspect => self.counts.suspected += 1,
            Health::Down => self.on_down(event, silence, lag),
        }
        self.health = event.to;
    }

    fn on_down(&mut self, event: &HealthEvent, silence: Duration, lag: Duration) {
        assert!(!self.is_gentle, "a false alarm: {event:?}, {self:?}");
        self.counts.downs += 1;
        if let Rule::Silent { .. } = event.reason.rule {
            assert!(silence >= 3 * BEAT, "too early: {event:?}, {self:?}");
            let within = self.may_take(DOWN_WITHIN, lag);
            assert!(silence <= within, "too late: {event:?}, {self:?}");
        }
    }

    /// What must be so by now, whether or not anything happened.
    pub(super) fn check(&self, now: Duration, lag: Duration) {
        let silence = now.saturating_sub(self.last_sign);
        if silence > self.may_take(DOWN_WITHIN, lag) {
            assert_eq!(self.health, Health::Down, "{self:?} at {now:?}");
        }
        if silence > self.may_take(SUSPECT_WITHIN, lag) {
            assert_ne!(self.health, Health::Up, "{self:?} at {now:?}");
        }
    }

    /// What the monitor has counted is what its events have told.
    pub(super) fn check_counts(&self, counted: &BeatCounts) {
        let Seen {
            suspected,
            downs,
            flaps,
            restarts,
            ..
        } = self.counts;
        let seen = (suspected, downs, flaps, restarts);
        let counted = (
            counted.suspected,
            counted.downs,
            counted.flaps,
            counted.restarts,
        );
        assert_eq!(counted, seen, "{self:?}");
    }
}
