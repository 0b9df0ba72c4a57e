//! All nodes under watch. No task, no clock, no socket: time and news come in, beats to send and events come out.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use membership::NodeAddress;

use super::{
    driver::Signs,
    node::{Failure, Health, Node, NodeHealth, Reason, VersionMismatch},
    options::{BeatOptions, Timing},
    skew::Exchange,
};

/// The health of a node has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthEvent {
    /// Whose.
    pub address: NodeAddress,
    /// What it was.
    pub from: Health,
    /// What it is.
    pub to: Health,
    /// Why.
    pub reason: Reason,
}

/// A beat that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Where to.
    pub address: NodeAddress,
    /// Its number.
    pub sequence: u64,
}

/// Watches over all nodes but this one.
///
/// The caller [polls](Self::poll) it when it says so, sends what is [due](Self::next_due), brings what comes of it, and
/// takes the [events](Self::next_event) before it does anything else: there are at most two for a node in each step.
#[derive(Debug)]
pub struct Monitor {
    timing: Timing,
    /// Of this node: software, engine.
    versions: (String, String),
    nodes: BTreeMap<NodeAddress, Node>,
    /// When all nodes of ours are sent their next beat.
    next_turn: Instant,
    /// When [`Self::poll`] is to be called next.
    deadline: Instant,
    due: VecDeque<Due>,
    events: VecDeque<HealthEvent>,
    stalled: Duration,
}

impl Monitor {
    /// Watches over nobody yet. `versions` are those of this node: of its software, and of its engine or empty.
    #[must_use]
    pub fn new(options: &BeatOptions, versions: (String, String), now: Instant) -> Self {
        Self {
            timing: options.timing(),
            versions,
            nodes: BTreeMap::new(),
            next_turn: now + options.interval,
            deadline: now + options.interval,
            due: VecDeque::new(),
            events: VecDeque::new(),
            stalled: Duration::ZERO,
        }
    }

    /// Watches over a node from now on; its first beat is due at once.
    pub fn join(&mut self, address: &NodeAddress, now: Instant) {
        if !self.nodes.contains_key(address) {
            let mut node = Node::new(address.clone(), self.timing, now);
            self.due.extend(due(address, &mut node, now));
            self.advance(node.judge_at(now));
            self.nodes.insert(address.clone(), node);
        }
    }

    /// Forgets a node.
    pub fn leave(&mut self, address: &NodeAddress) {
        self.nodes.remove(address);
        self.due.retain(|due| &due.address != address);
    }

    /// Judges all nodes and finds the beats that are due. Returns when to call it again: a later call is taken to mean
    /// that this process did not run, which no node is to blame for.
    pub fn poll(&mut self, now: Instant) -> Instant {
        self.excuse(now);
        let turn = now >= self.next_turn;
        for (address, node) in &mut self.nodes {
            node.judge(now, &mut self.events);
            if (turn && node.is_due(now)) || node.is_due_again(now) {
                self.due.extend(due(address, node, now));
            }
        }
        if turn {
            let regular = self.next_turn + self.timing.interval;
            self.next_turn = regular.max(now + self.timing.interval / 2);
        }
        self.deadline = self.next_turn;
        let nodes = self.nodes.values();
        let times = nodes.flat_map(|node| [node.judge_at(now), node.own_beat_at()]);
        let first = times.flatten().min();
        self.advance(first);
        self.deadline
    }

    /// When to call [`Self::poll`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The next beat to send.
    pub fn next_due(&mut self) -> Option<Due> {
        self.due.pop_front()
    }

    /// The next event.
    pub fn next_event(&mut self) -> Option<HealthEvent> {
        self.events.pop_front()
    }

    /// A beat was answered by a process of such `incarnation` and `versions` (of its software, of its engine or empty).
    /// False, and nothing is learned, if the answer is to no beat that waits for one.
    pub fn on_answer(
        &mut self,
        beat: &Due,
        exchange: &Exchange,
        incarnation: Option<u64>,
        versions: (&str, &str),
    ) -> bool {
        let Some(node) = self.nodes.get_mut(&beat.address) else {
            return false;
        };
        let known = node.on_answer(beat.sequence, exchange, incarnation, &mut self.events);
        if known {
            node.version_mismatch = mismatch(&self.versions, versions);
        }
        known
    }

    /// A beat ended without an answer, because nothing listens at the node's address.
    pub fn on_refused(&mut self, beat: &Due, error: String, now: Instant) {
        self.on_failed(beat, Failure::Refused(error), now);
    }

    /// A beat ended without an answer, because the connection was lost.
    pub fn on_lost(&mut self, beat: &Due, now: Instant) {
        if let Some(node) = self.nodes.get_mut(&beat.address) {
            node.on_unknown(self.timing, now);
        }
        self.on_failed(beat, Failure::Lost, now);
    }

    /// The connection with a node has ended, whether or not a beat was in flight.
    pub fn on_closed(&mut self, address: &NodeAddress, now: Instant) {
        if let Some(node) = self.nodes.get_mut(address) {
            node.on_unknown(self.timing, now);
            node.on_lost(now);
            self.advance(Some(now));
        }
    }

    /// A beat could not be sent, or its answer is of no use. Returns the error, at most 200 bytes of it, if it is news:
    /// another one than the last since the node has answered.
    pub fn on_error(&mut self, beat: &Due, error: &str, now: Instant) -> Option<&str> {
        self.on_failed(beat, Failure::Other, now);
        self.nodes.get_mut(&beat.address)?.on_error(error)
    }

    /// A beat ended without an answer, and nothing tells why.
    pub fn on_unanswered(&mut self, beat: &Due, now: Instant) {
        self.on_failed(beat, Failure::Other, now);
    }

    /// The node takes no beats: it is a Drillbit. What is due to it from now on are PINGs.
    pub fn on_drill(&mut self, address: &NodeAddress, now: Instant) {
        if let Some(node) = self.nodes.get_mut(address) {
            node.on_drill(now, &mut self.events);
        }
    }

    /// A PING in place of a beat was answered.
    pub fn on_pong(&mut self, beat: &Due, round_trip: Duration, now: Instant) {
        if let Some(node) = self.nodes.get_mut(&beat.address) {
            node.on_pong(beat.sequence, round_trip, now, &mut self.events);
        }
    }

    /// Something came from a node, on any connection, `at` a time that may be past.
    pub fn on_heard(&mut self, address: &NodeAddress, at: Instant, now: Instant) {
        if let Some(node) = self.nodes.get_mut(address) {
            node.on_heard(at.min(now), now, &mut self.events);
        }
    }

    /// What connections of the data plane tell of each node; `None` where there is none.
    pub fn on_signs(&mut self, now: Instant, signs: impl Fn(&NodeAddress) -> Option<Signs>) {
        for (address, node) in &mut self.nodes {
            let signs = signs(address);
            if let Some(signs) = signs {
                node.on_heard(signs.last_received.min(now), now, &mut self.events);
            }
            node.data_round_trips = signs.and_then(|signs| signs.round_trips);
        }
    }

    /// How a node is.
    #[must_use]
    pub fn health(&self, address: &NodeAddress) -> Option<Health> {
        self.nodes.get(address).map(Node::health)
    }

    /// Which process answers at an address.
    #[must_use]
    pub fn incarnation(&self, address: &NodeAddress) -> Option<u64> {
        self.nodes.get(address)?.incarnation()
    }

    /// Everything that is known of all nodes, by address.
    #[must_use]
    pub fn nodes(&self, now: Instant) -> Vec<NodeHealth> {
        let nodes = self.nodes.values();
        nodes.map(|node| node.snapshot(now)).collect()
    }

    /// How long this process did not run when it should have, together.
    #[must_use]
    pub fn stalled(&self) -> Duration {
        self.stalled
    }

    /// A late call means that nothing could be received either.
    fn excuse(&mut self, now: Instant) {
        let from = self.deadline;
        let stall = now.saturating_duration_since(from);
        if !stall.is_zero() {
            self.stalled = self.stalled.saturating_add(stall);
            let nodes = self.nodes.values_mut();
            nodes.for_each(|node| node.excuse(from, now));
        }
    }

    fn on_failed(&mut self, beat: &Due, failure: Failure, now: Instant) {
        if let Some(node) = self.nodes.get_mut(&beat.address) {
            node.on_failed(beat.sequence, failure, now, &mut self.events);
            let again = node.own_beat_at();
            self.advance(again.map(|at| at.max(now)));
        }
    }

    fn advance(&mut self, to: Option<Instant>) {
        self.deadline = self.deadline.min(to.unwrap_or(self.deadline));
    }
}

fn due(address: &NodeAddress, node: &mut Node, now: Instant) -> Option<Due> {
    Some(Due {
        sequence: node.beat(now)?,
        address: address.clone(),
    })
}

fn mismatch(ours: &(String, String), theirs: (&str, &str)) -> Option<VersionMismatch> {
    let same = (&*ours.0, &*ours.1) == theirs;
    (!same).then(|| VersionMismatch {
        ours: ours.clone(),
        theirs: (theirs.0.to_owned(), theirs.1.to_owned()),
    })
}
