//! One node under watch: its health and why, its beats in flight, and what was counted.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use membership::NodeAddress;
use rpc_bus::{Histogram, RoundTripStats, RoundTrips};

use super::{
    detector::{Detector, Verdict},
    monitor::HealthEvent,
    options::Timing,
    skew::{Exchange, Skew, SkewFilter},
};

/// Beats to one node that may wait for their answer; none is sent beyond that.
const IN_FLIGHT_MAX: usize = 8;
/// Refused connections in a row, one a beat, after which a node is down: nothing listens there any more.
const REFUSED_MAX: u32 = 3;
/// Round trips that are shown one by one.
const RECENT: usize = 30;
/// Longest text of an error that is kept, in bytes.
const ERROR_BYTES_MAX: usize = 200;

/// Whether a node can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// It gives signs of life.
    Up,
    /// It has not for longer than is usual, or not yet.
    Suspect,
    /// It has not for so long that what runs there is given up.
    Down,
}

impl Health {
    /// As status and metrics show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

/// Why a node has the health that it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// What decided.
    pub rule: Rule,
    /// How long nothing had come from the node then; without the time in which this process did not run.
    pub silence: Duration,
    /// First and last of the beats that were sent since the last answer.
    pub unanswered: Option<(u64, u64)>,
    /// Why beats fail, where something tells; it may have come later than the rest. `None` once the node can be used.
    pub error: Option<String>,
}

/// What decides on the health of a node.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// It is new, and nothing has come from it yet.
    Awaited,
    /// It answered a beat.
    Answered {
        /// Which one.
        sequence: u64,
    },
    /// Something else came from it.
    Heard,
    /// Its silence is unusual, by the intervals between its last answers.
    Unusual {
        /// Exponent of the chance: 8 is one in 10^8.
        phi: f64,
    },
    /// Its silence is longer than any node's may be.
    Silent {
        /// How long that is.
        limit: Duration,
    },
    /// It could not be connected to.
    Refused {
        /// How often in a row.
        attempts: u32,
        /// The last error.
        error: String,
    },
    /// Another process answers in its place.
    Restarted,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::Awaited => f.write_str("nothing has come from it yet")?,
            Rule::Answered { sequence } => return write!(f, "beat {sequence} was answered"),
            Rule::Heard => return f.write_str("something came from it"),
            Rule::Unusual { phi } => {
                write!(f, "silent for {:.1?}: phi is {phi:.1}", self.silence)?;
            }
            Rule::Silent { limit } => write!(f, "silent for {:.1?} of {limit:.1?}", self.silence)?,
            Rule::Refused { attempts, error } => write!(f, "refused {attempts} times: {error}")?,
            Rule::Restarted => return f.write_str("it was started again"),
        }
        match self.unanswered {
            Some((first, last)) if first == last => write!(f, "; beat {first} is unanswered")?,
            Some((first, last)) => write!(f, "; beats {first} to {last} are unanswered")?,
            None => {}
        }
        match (&self.rule, &self.error) {
            (Rule::Refused { error, .. }, Some(last)) if error == last => Ok(()),
            (_, Some(last)) => write!(f, "; last error: {last}"),
            (_, None) => Ok(()),
        }
    }
}

/// What was counted of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BeatCounts {
    /// Beats sent, PINGs to a Drillbit included.
    pub sent: u64,
    /// Beats answered.
    pub answered: u64,
    /// Beats that ended without an answer.
    pub failed: u64,
    /// Times that it came to be suspect after it was up.
    pub suspected: u64,
    /// Times that it went down.
    pub downs: u64,
    /// Times that it came back up, as the same process.
    pub flaps: u64,
    /// Times that another process answered in its place.
    pub restarts: u64,
}

/// Another version than ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionMismatch {
    /// Versions of this node: software, engine.
    pub ours: (String, String),
    /// Versions of the other one.
    pub theirs: (String, String),
}

/// Everything that is known of a node's health.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NodeHealth {
    /// Whose.
    pub address: NodeAddress,
    /// Whether it can be used.
    pub health: Health,
    /// Of which process: the one that answered last. `None` of a Drillbit, and of a node that has not answered yet.
    pub incarnation: Option<u64>,
    /// Why.
    pub reason: Reason,
    /// For how long it has been so.
    pub since: Duration,
    /// How long ago the last sign of life came; of a node that gave none yet, how long ago it became a member.
    pub beat_age: Duration,
    /// How unusual its present silence is; 0 of a Drillbit.
    pub phi: f64,
    /// Whether it is watched as a Drillbit is, by PINGs in long intervals.
    pub is_drill: bool,
    /// The last beat sent.
    pub sequence: u64,
    /// Round trips of the last beats.
    pub round_trips: Option<RoundTripStats>,
    /// The last half minute of them, the newest last.
    pub recent_round_trips: Vec<Duration>,
    /// Round trips of all beats.
    pub round_trip_histogram: Histogram,
    /// Round trips on a data connection, where there is one.
    pub data_round_trips: Option<RoundTripStats>,
    /// Its clock less ours.
    pub skew: Option<Skew>,
    /// Where its versions are not ours.
    pub version_mismatch: Option<VersionMismatch>,
    /// What was counted.
    pub counts: BeatCounts,
}

/// What came instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing listens at its address.
    Refused(String),
    /// The connection was lost: time for another one at once.
    Lost,
    /// No answer, or one that is none.
    Other,
}

#[derive(Debug)]
pub(super) struct Node {
    address: NodeAddress,
    detector: Detector,
    timing: Timing,
    health: Health,
    reason: Reason,
    /// Why the last beats have failed, until one is answered.
    error: Option<String>,
    since: Instant,
    heard: bool,
    been_up: bool,
    incarnation: Option<u64>,
    sequence: u64,
    answered: u64,
    in_flight: VecDeque<u64>,
    last_beat: Option<Instant>,
    /// When the connection was lost: time for a beat out of turn, one a turn.
    lost_at: Option<Instant>,
    beaten_again: bool,
    refused: u32,
    refused_at: Option<Instant>,
    round_trips: RoundTrips,
    pub(super) data_round_trips: Option<RoundTripStats>,
    skew: SkewFilter,
    pub(super) version_mismatch: Option<VersionMismatch>,
    counts: BeatCounts,
}

type Events = VecDeque<HealthEvent>;

impl Node {
    pub(super) fn new(address: NodeAddress, timing: Timing, now: Instant) -> Self {
        Self {
            address,
            detector: Detector::new(timing, now),
            timing,
            health: Health::Suspect,
            reason: Reason {
                rule: Rule::Awaited,
                silence: Duration::ZERO,
                unanswered: None,
                error: None,
            },
            error: None,
            since: now,
            heard: false,
            been_up: false,
            incarnation: None,
            sequence: 0,
            answered: 0,
            in_flight: VecDeque::new(),
            last_beat: None,
            lost_at: None,
            beaten_again: false,
            refused: 0,
            refused_at: None,
            round_trips: RoundTrips::default(),
            data_round_trips: None,
            skew: SkewFilter::default(),
            version_mismatch: None,
            counts: BeatCounts::default(),
        }
    }

    /// The sequence of a beat that is to be sent now; `None` if there are enough in flight.
    pub(super) fn beat(&mut self, now: Instant) -> Option<u64> {
        self.last_beat = Some(now);
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        self.sequence += 1;
        self.counts.sent += 1;
        self.in_flight.push_back(self.sequence);
        Some(self.sequence)
    }

    /// Whether a beat is due with the turn of all nodes that is at `now`.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        (self.lost_at, self.beaten_again) = (None, false);
        !self.is_drill() || self.ping_at().is_some_and(|at| at <= now)
    }

    /// Whether a beat is due out of turn.
    pub(super) fn is_due_again(&mut self, now: Instant) -> bool {
        let due = self.lost_at.take_if(|at| *at <= now).is_some();
        self.beaten_again |= due;
        due
    }

    /// When a PING to a Drillbit is due, or a beat out of turn.
    pub(super) fn own_beat_at(&self) -> Option<Instant> {
        if self.is_drill() {
            self.ping_at()
        } else {
            self.lost_at
        }
    }

    fn is_drill(&self) -> bool {
        self.timing.phi.is_none()
    }

    fn ping_at(&self) -> Option<Instant> {
        let last = self.last_beat.max(Some(self.detector.last_sign()))?;
        Some(last + self.timing.interval)
    }

    /// A beat was answered. False if it is not one that was waited for.
    pub(super) fn on_answer(
        &mut self,
        sequence: u64,
        exchange: &Exchange,
        incarnation: Option<u64>,
        events: &mut Events,
    ) -> bool {
        let now = exchange.received;
        let is_other = self.incarnation.is_some() && incarnation != self.incarnation;
        // A process that is gone already may have answered; its answer has been overtaken.
        let is_stale = is_other && sequence < self.answered;
        if !self.take(sequence) || is_stale {
            return false;
        }
        if is_other {
            self.on_restart(now, events);
        }
        self.incarnation = incarnation;
        self.answered = self.answered.max(sequence);
        self.counts.answered += 1;
        self.error = None;
        self.round_trips.record(exchange.round_trip());
        self.skew.record(exchange);
        if self.health == Health::Down {
            self.detector.on_gap();
        }
        self.detector.on_answer(now);
        self.refused = 0;
        self.revive(Rule::Answered { sequence }, now, events);
        true
    }

    fn on_restart(&mut self, now: Instant, events: &mut Events) {
        self.counts.restarts += 1;
        self.been_up = false;
        // Perhaps on another machine.
        self.skew = SkewFilter::default();
        self.detector.on_gap();
        self.turn(Health::Down, Rule::Restarted, now, events);
    }

    /// A PING to a Drillbit was answered.
    pub(super) fn on_pong(
        &mut self,
        sequence: u64,
        trip: Duration,
        now: Instant,
        out: &mut Events,
    ) {
        if self.take(sequence) {
            self.answered = self.answered.max(sequence);
            self.counts.answered += 1;
            self.error = None;
            self.round_trips.record(trip);
            self.on_heard(now, now, out);
        }
    }

    /// Something came from the node `at` a time that may be past.
    pub(super) fn on_heard(&mut self, at: Instant, now: Instant, events: &mut Events) {
        if at <= self.detector.last_sign() && self.heard {
            return;
        }
        self.detector.on_sign(at);
        if self.refused_at.is_some_and(|refused| at > refused) {
            self.refused = 0;
        }
        if self.refused == 0 && self.detector.verdict(now) == Verdict::Alive {
            self.revive(Rule::Heard, now, events);
        }
    }

    /// It is a Drillbit, or speaks like one.
    pub(super) fn on_drill(&mut self, now: Instant, events: &mut Events) {
        if !self.is_drill() {
            self.timing = Timing::of_drill();
            self.detector = Detector::new(self.timing, now);
        }
        self.on_heard(now, now, events);
    }

    /// It may be something else from now on: the connection that told is gone.
    pub(super) fn on_unknown(&mut self, timing: Timing, now: Instant) {
        if self.is_drill() {
            self.timing = timing;
            self.detector = Detector::new(timing, now);
        }
    }

    /// A beat ended without an answer.
    pub(super) fn on_failed(
        &mut self,
        sequence: u64,
        failure: Failure,
        now: Instant,
        events: &mut Events,
    ) {
        if !self.take(sequence) {
            return;
        }
        self.counts.failed += 1;
        match failure {
            Failure::Refused(error) => self.on_refused(&error, now, events),
            Failure::Lost => self.on_lost(now),
            Failure::Other => {}
        }
    }

    /// Something tells why beats fail; what is kept of it, if that is news.
    pub(super) fn on_error(&mut self, error: &str) -> Option<&str> {
        let error = Some(shortened(error));
        let is_news = self.error != error;
        self.error = error;
        if self.health != Health::Up {
            self.reason.error.clone_from(&self.error);
        }
        self.error.as_deref().filter(|_| is_news)
    }

    /// The connection is gone.
    pub(super) fn on_lost(&mut self, now: Instant) {
        if !self.beaten_again {
            self.lost_at = Some(now);
        }
    }

    fn on_refused(&mut self, error: &str, now: Instant, events: &mut Events) {
        self.refused = self.refused.saturating_add(1);
        self.refused_at = Some(now);
        self.on_error(error);
        let (attempts, error) = (self.refused, shortened(error));
        let rule = Rule::Refused { attempts, error };
        if attempts >= REFUSED_MAX {
            self.turn(Health::Down, rule, now, events);
        } else if self.health == Health::Up {
            self.turn(Health::Suspect, rule, now, events);
        }
    }

    /// This process did not run between the two times.
    pub(super) fn excuse(&mut self, from: Instant, to: Instant) {
        self.detector.excuse(from, to);
    }

    /// Looks whether the silence has become too long.
    pub(super) fn judge(&mut self, now: Instant, events: &mut Events) {
        let limit = |after| Rule::Silent { limit: after };
        let (worse, rule) = match self.detector.verdict(now) {
            Verdict::Alive => return,
            Verdict::Unusual { phi } => (Health::Suspect, Rule::Unusual { phi }),
            Verdict::Suspect => (Health::Suspect, limit(self.timing.suspect_after)),
            Verdict::Down => (Health::Down, limit(self.timing.down_after)),
        };
        if worse == Health::Down || self.health == Health::Up {
            self.turn(worse, rule, now, events);
        }
    }

    /// When [`Self::judge`] may have something to say.
    pub(super) fn judge_at(&self, now: Instant) -> Option<Instant> {
        match self.health {
            Health::Down => None,
            Health::Up | Health::Suspect => self.detector.worsens_at(now),
        }
    }

    pub(super) fn health(&self) -> Health {
        self.health
    }

    pub(super) fn incarnation(&self) -> Option<u64> {
        self.incarnation
    }

    pub(super) fn snapshot(&self, now: Instant) -> NodeHealth {
        NodeHealth {
            address: self.address.clone(),
            health: self.health,
            incarnation: self.incarnation,
            reason: self.reason.clone(),
            since: now.saturating_duration_since(self.since),
            beat_age: now.saturating_duration_since(self.detector.last_sign()),
            phi: self.detector.phi(now),
            is_drill: self.is_drill(),
            sequence: self.sequence,
            round_trips: self.round_trips.stats(),
            recent_round_trips: self.round_trips.recent(RECENT),
            round_trip_histogram: self.round_trips.histogram(),
            data_round_trips: self.data_round_trips,
            skew: self.skew.best(),
            version_mismatch: self.version_mismatch.clone(),
            counts: self.counts,
        }
    }

    fn take(&mut self, sequence: u64) -> bool {
        let place = self.in_flight.iter().position(|&beat| beat == sequence);
        place.and_then(|at| self.in_flight.remove(at)).is_some()
    }

    fn revive(&mut self, rule: Rule, now: Instant, events: &mut Events) {
        self.heard = true;
        if self.health != Health::Up {
            self.counts.flaps += u64::from(self.been_up);
            self.been_up = true;
            self.turn(Health::Up, rule, now, events);
        }
    }

    fn turn(&mut self, to: Health, rule: Rule, now: Instant, events: &mut Events) {
        let from = self.health;
        if from == to {
            return;
        }
        self.counts.suspected += u64::from(to == Health::Suspect);
        self.counts.downs += u64::from(to == Health::Down);
        let first = self.answered + 1;
        let unanswered = (self.sequence >= first).then_some((first, self.sequence));
        self.reason = Reason {
            rule,
            silence: self.detector.silence(now),
            unanswered,
            error: self.error.clone().filter(|_| to != Health::Up),
        };
        (self.health, self.since) = (to, now);
        events.push_back(HealthEvent {
            address: self.address.clone(),
            from,
            to,
            reason: self.reason.clone(),
        });
    }
}

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(ERROR_BYTES_MAX)].to_owned()
}
