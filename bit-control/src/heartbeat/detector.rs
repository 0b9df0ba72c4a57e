//! One node's silence, and what it means: a phi-accrual detector under hard limits. Time comes in as an argument.
//!
//! Phi is how unlikely the present silence is, by the intervals between the last answers: at 8 such a silence would come
//! once in 10^8 answers. The limits hold whatever phi says.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    options::{PhiOptions, Timing},
    skew::micros,
};

/// What part of a beat this process must be late by before it has stalled.
const STALL: u32 = 10;
/// Longer intervals are taken for so many microseconds, twelve days, so that sums cannot overflow.
const INTERVAL_MAX_US: u64 = 1 << 40;

/// What a silence means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Alive,
    /// Longer than is usual with this node.
    Unusual {
        phi: f64,
    },
    /// Longer than is usual with any.
    Suspect,
    Down,
}

#[derive(Debug)]
pub(super) struct Detector {
    timing: Timing,
    intervals: Option<Intervals>,
    last_sign: Instant,
    /// Parts of the time since the last sign of life that are no silence of the node: this process did not run.
    excused: Duration,
    /// What the node gets in addition, at most a beat: after a stall, what has come waits in the sockets to be read.
    settling: Duration,
    last_answer: Option<Instant>,
    excused_since_answer: Duration,
}

impl Detector {
    /// A node that is given from `now` on the time to give a sign.
    pub(super) fn new(timing: Timing, now: Instant) -> Self {
        Self {
            timing,
            intervals: timing.phi.map(|phi| Intervals::new(phi, timing.interval)),
            last_sign: now,
            excused: Duration::ZERO,
            settling: Duration::ZERO,
            last_answer: None,
            excused_since_answer: Duration::ZERO,
        }
    }

    /// Something has come from the node. News of an older sign than the last changes nothing.
    pub(super) fn on_sign(&mut self, at: Instant) {
        if at > self.last_sign {
            self.last_sign = at;
            (self.excused, self.settling) = (Duration::ZERO, Duration::ZERO);
        }
    }

    /// A beat was answered.
    pub(super) fn on_answer(&mut self, at: Instant) {
        if let (Some(last), Some(intervals)) = (self.last_answer, &mut self.intervals) {
            let interval = at.saturating_duration_since(last);
            intervals.record(interval.saturating_sub(self.excused_since_answer));
        }
        self.last_answer = Some(at);
        self.excused_since_answer = Duration::ZERO;
        self.on_sign(at);
    }

    /// The node was away: the time until its next answer is not usual.
    pub(super) fn on_gap(&mut self) {
        self.last_answer = None;
    }

    /// This process did not run between the two times: what the node missed of that is no silence of its.
    pub(super) fn excuse(&mut self, from: Instant, to: Instant) {
        let missed = |since: Instant| to.saturating_duration_since(from.max(since));
        let stall = missed(self.last_sign);
        self.excused = self.excused.saturating_add(stall);
        // Each may be as late as timers are, and then gets nothing for it: else a verdict would always be one timer away.
        if stall >= self.timing.interval / STALL {
            self.settling = self
                .settling
                .saturating_add(stall)
                .min(self.timing.interval);
        }
        let since_answer = missed(self.last_answer.unwrap_or(to));
        self.excused_since_answer = self.excused_since_answer.saturating_add(since_answer);
    }

    pub(super) fn last_sign(&self) -> Instant {
        self.last_sign
    }

    /// How long the node has been silent, by what it can help.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.last_sign);
        since
            .saturating_sub(self.excused)
            .saturating_sub(self.settling)
    }

    pub(super) fn phi(&self, now: Instant) -> f64 {
        let intervals = self.intervals.as_ref();
        intervals.map_or(0.0, |intervals| intervals.phi(self.silence(now)))
    }

    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let silence = self.silence(now);
        if silence >= self.timing.down_after {
            return Verdict::Down;
        }
        if silence >= self.timing.suspect_after {
            return Verdict::Suspect;
        }
        match &self.intervals {
            Some(intervals) if silence >= intervals.unusual_after => Verdict::Unusual {
                phi: intervals.phi(silence),
            },
            _ => Verdict::Alive,
        }
    }

    /// When the verdict gets worse if nothing comes; `None` if it cannot.
    pub(super) fn worsens_at(&self, now: Instant) -> Option<Instant> {
        let unusual = self
            .intervals
            .as_ref()
            .map(|intervals| intervals.unusual_after);
        let limits = [
            unusual.unwrap_or(self.timing.suspect_after),
            self.timing.suspect_after,
            self.timing.down_after,
        ];
        let silence = self.silence(now);
        let next = limits.into_iter().filter(|&limit| limit > silence).min()?;
        Some(now + next.saturating_sub(silence))
    }
}

/// The intervals between the last answers.
#[derive(Debug)]
struct Intervals {
    options: PhiOptions,
    /// Microseconds, oldest first.
    window: VecDeque<u64>,
    /// Of all in the window, and of their squares: whole numbers, so that nothing is lost by adding and taking away.
    sum: u64,
    squares: u128,
    mean: f64,
    deviation: f64,
    /// Standard deviations above the mean at which phi is that of a suspect.
    suspect_score: f64,
    /// The silence from which on phi is that of a suspect.
    unusual_after: Duration,
}

impl Intervals {
    /// Before there are any, intervals are taken to be of `expected` length, give or take a quarter.
    fn new(options: PhiOptions, expected: Duration) -> Self {
        let mut intervals = Self {
            options,
            window: VecDeque::new(),
            sum: 0,
            squares: 0,
            mean: expected.as_secs_f64(),
            deviation: expected.as_secs_f64() / 4.0,
            suspect_score: score_of(options.suspect),
            unusual_after: Duration::MAX,
        };
        intervals.settle();
        intervals
    }

    #[allow(clippy::cast_precision_loss, reason = "53 bits are enough for seconds")]
    fn record(&mut self, interval: Duration) {
        let micros = micros(interval).min(INTERVAL_MAX_US);
        if self.window.len() >= self.options.samples
            && let Some(oldest) = self.window.pop_front()
        {
            self.sum -= oldest;
            self.squares -= u128::from(oldest).pow(2);
        }
        self.window.push_back(micros);
        self.sum += micros;
        self.squares += u128::from(micros).pow(2);
        let count = self.window.len() as u128;
        // Never below zero: the mean of the squares is at least the square of the mean.
        let variance = count * self.squares - u128::from(self.sum).pow(2);
        let per_second = count as f64 * 1e6;
        self.mean = self.sum as f64 / per_second;
        let deviation = (variance as f64).sqrt() / per_second;
        self.deviation = deviation.max(self.options.deviation_min.as_secs_f64());
        self.settle();
    }

    /// Mean and deviation are what they are now.
    fn settle(&mut self) {
        let seconds = self.mean + self.suspect_score * self.deviation;
        let usual = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        self.unusual_after = usual.saturating_add(self.options.pause);
    }

    fn phi(&self, silence: Duration) -> f64 {
        let unusual = silence.saturating_sub(self.options.pause).as_secs_f64();
        phi_of((unusual - self.mean) / self.deviation)
    }
}

/// -log10 of the chance that a value is so many standard deviations above the mean, of a normal distribution. By the
/// approximation of Borjesson and Sundberg (1979), which is off by at most 0.3 % of the chance.
fn phi_of(score: f64) -> f64 {
    let tail = score.abs();
    let width = 0.661 * tail + 0.339 * (tail * tail + 5.51).sqrt();
    let ln_chance = -(tail * tail + std::f64::consts::TAU.ln()) / 2.0 - width.ln();
    let ln_above = if score < 0.0 {
        (-ln_chance.exp()).ln_1p()
    } else {
        ln_chance
    };
    -ln_above / std::f64::consts::LN_10
}

/// The score at which phi is `phi`, by bisection: phi grows with the score.
fn score_of(phi: f64) -> f64 {
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if phi_of(middle) < phi {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use std::mem::discriminant;

    use super::*;
    use crate::heartbeat::options::BeatOptions;

    const BEAT: Duration = Duration::from_secs(1);

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn before(at: Instant, count: u64) -> Instant {
        at.checked_sub(millis(count)).unwrap()
    }

    fn detector(now: Instant) -> Detector {
        Detector::new(BeatOptions::default().timing(), now)
    }

    #[test]
    fn phi_is_the_exponent_of_the_chance() {
        // Of a normal distribution.
        for (score, chance) in [
            (-1.0, 0.841_345_f64),
            (0.0, 0.5),
            (2.0, 2.275_013e-2),
            (4.0, 3.167_124e-5),
            (6.0, 9.865_876e-10),
        ] {
            let found = phi_of(score);
            assert!((found + chance.log10()).abs() < 0.002, "{score}: {found}");
        }
        assert!(phi_of(1e9).is_finite() && phi_of(-1e9) >= 0.0);
        for phi in [1.0, 8.0, 16.0] {
            assert!((phi_of(score_of(phi)) - phi).abs() < 1e-6);
        }
    }

    #[test]
    fn mean_and_deviation_are_those_of_the_last_intervals() {
        let phi = BeatOptions::default().timing().phi.unwrap();
        let mut intervals = Intervals::new(phi, BEAT);
        let micros = |i: u32| 1_000_000 + i * i * 7 % 800_000;
        // One that is longer than any that counts leaves nothing behind.
        intervals.record(Duration::MAX);
        (0..1000).for_each(|i| intervals.record(Duration::from_micros(micros(i).into())));
        let last: Vec<_> = (900..1000).map(|i| f64::from(micros(i)) / 1e6).collect();
        let mean = last.iter().sum::<f64>() / 100.0;
        let squares = last.iter().map(|value| (value - mean).powi(2));
        let deviation = (squares.sum::<f64>() / 100.0).sqrt();
        assert_eq!(intervals.window.len(), 100);
        assert!(deviation > 0.1, "{deviation} is above the least one");
        assert!((intervals.mean - mean).abs() < 1e-9, "{intervals:?}");
        assert!(
            (intervals.deviation - deviation).abs() < 1e-9,
            "{intervals:?}"
        );
    }

    #[test]
    fn silence_gets_worse_step_by_step_and_each_step_is_foretold() {
        let start = Instant::now();
        let mut detector = detector(start);
        let mut now = start;
        for _ in 0..20 {
            now += BEAT;
            detector.on_answer(now);
        }
        assert_eq!(detector.verdict(now + millis(2100)), Verdict::Alive);
        let mut steps = Vec::new();
        let mut at = now;
        while let Some(next) = detector.worsens_at(at) {
            let just_before = discriminant(&detector.verdict(before(next, 1)));
            assert_eq!(
                just_before,
                discriminant(&detector.verdict(at)),
                "{steps:?}"
            );
            at = next;
            steps.push((detector.verdict(at), at - now));
        }
        let [unusual, suspect, down] = &steps[..] else {
            panic!("{steps:?}");
        };
        let learned = matches!(unusual.0, Verdict::Unusual { phi } if phi > 7.999);
        assert!(learned && unusual.1 < millis(2700), "{steps:?}");
        assert_eq!(*suspect, (Verdict::Suspect, millis(2900)));
        assert_eq!(*down, (Verdict::Down, millis(3900)));
    }

    #[test]
    fn with_irregular_answers_only_the_limits_count() {
        let start = Instant::now();
        let mut detector = detector(start);
        let mut now = start;
        for i in 0..50 {
            now += millis(if i % 2 == 0 { 100 } else { 1900 });
            detector.on_answer(now);
        }
        assert_eq!(detector.verdict(now + millis(2899)), Verdict::Alive);
        assert_eq!(detector.verdict(now + millis(2900)), Verdict::Suspect);
    }

    #[test]
    fn time_in_which_this_process_did_not_run_is_no_silence() {
        let start = Instant::now();
        let mut detector = detector(start);
        detector.on_answer(start + BEAT);
        let (stopped, woken) = (start + millis(1500), start + millis(61_500));
        detector.excuse(stopped, woken);
        assert_eq!(
            detector.silence(woken),
            Duration::ZERO,
            "and a beat to settle"
        );
        let now = woken + millis(1500);
        assert_eq!(detector.silence(now), millis(1000));
        // And no sample of what is usual.
        detector.on_answer(now);
        let mean = detector.intervals.as_ref().map(|intervals| intervals.mean);
        assert_eq!(mean, Some(2.0));
        // With the next sign the excuse is used up.
        assert_eq!(detector.verdict(now + millis(3900)), Verdict::Down);
    }

    #[test]
    fn a_verdict_that_is_always_looked_for_too_late_still_falls() {
        for late in [millis(1), millis(500)] {
            let start = Instant::now();
            let mut detector = detector(start);
            let mut now = start;
            while let Some(next) = detector.worsens_at(now) {
                detector.excuse(next, next + late);
                now = next + late;
            }
            assert_eq!(detector.verdict(now), Verdict::Down);
            assert!(now < start + millis(3900) + BEAT + 10 * late, "{late:?}");
        }
    }

    #[test]
    fn a_sign_that_came_while_this_process_did_not_run_is_not_older_than_it_is() {
        let start = Instant::now();
        let mut detector = detector(start);
        let woken = start + Duration::from_mins(1);
        detector.on_answer(before(woken, 10));
        detector.excuse(start, woken);
        assert_eq!(detector.verdict(woken + millis(3910)), Verdict::Down);
    }

    #[test]
    fn news_of_an_older_sign_changes_nothing() {
        let start = Instant::now();
        let mut detector = detector(start);
        detector.on_sign(start + BEAT);
        detector.on_sign(start);
        assert_eq!(detector.last_sign(), start + BEAT);
    }

    #[test]
    fn a_drillbit_has_five_minutes() {
        let start = Instant::now();
        let detector = Detector::new(Timing::of_drill(), start);
        assert_eq!(
            detector.verdict(start + Duration::from_secs(224)),
            Verdict::Alive
        );
        assert_eq!(
            detector.worsens_at(start),
            Some(start + Duration::from_secs(225))
        );
        assert_eq!(
            detector.verdict(start + Duration::from_mins(5)),
            Verdict::Down
        );
    }
}
