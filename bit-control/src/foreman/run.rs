//! One query, as its foreman sees it. No task, no clock: time comes in as an argument, and what is to be done comes out
//! as actions.
//!
//! ```text
//! Starting --inner fragments are there--> Starting --leaves are there--> Running --all have finished--> Ended
//!     |                                      |                             |
//!     `---- a failure, a cancel, a node that is gone: the first counts ----'--> Ending --all have ended,
//!                                                                               or patience over--> Ended
//! ```
//!
//! Fragments that receive are started before those that only send, and the latter once all of the former are there.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use membership::NodeAddress;
use protos::{
    error::{ErrorType, Retry},
    id::{FragmentId, QueryId},
    shared::{FragmentState, MajorFragmentProfile, MinorFragmentProfile},
};
use rpc_bus::RpcFailure;

use crate::fragments::delta::{apply, is_final};

/// Pause before a cancel that was not answered is sent again.
const CANCEL_AGAIN: Duration = Duration::from_millis(200);

/// A query that is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryPlan {
    /// Its id.
    pub query: QueryId,
    /// All of it.
    pub fragments: Vec<Assignment>,
}

/// One fragment, and where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Number of its stage.
    pub major: i32,
    /// Which one of the stage.
    pub minor: i32,
    /// Where it runs.
    pub node: NodeAddress,
    /// Whether it receives from no other fragment: it is started once all others are there.
    pub is_leaf: bool,
    /// For the engine alone to read.
    pub plan: Bytes,
}

/// How a query has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All fragments have finished.
    Finished,
    /// The first thing that went wrong.
    Failed(Box<RpcFailure>),
    /// Somebody has asked for it.
    Cancelled,
}

/// Which fragments go out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Wave {
    Inner,
    Leaves,
}

impl Wave {
    fn of(is_leaf: bool) -> Self {
        if is_leaf { Self::Leaves } else { Self::Inner }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Send these fragments to a node, in one message.
    Initialize(NodeAddress, Wave, Vec<FragmentId>),
    /// End all fragments of the query on a node.
    Cancel(NodeAddress),
    Ended(Outcome),
}

/// Why fragments were not started.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NotStarted {
    pub(crate) failure: Box<RpcFailure>,
    /// Whether it is certain that none of them runs.
    pub(crate) is_certain: bool,
}

/// What a node says to a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelAnswer {
    /// Nothing, as far as is known.
    None,
    /// Reports will tell how its fragments end.
    Ending,
    /// None of them is there, and none is to start any more: nothing will be reported.
    NothingLeft,
}

impl CancelAnswer {
    /// Of an answer that says whether something is left.
    pub(crate) fn of(is_left: Option<bool>) -> Self {
        match is_left {
            None => Self::None,
            Some(true) => Self::Ending,
            Some(false) => Self::NothingLeft,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RunTimes {
    /// How long a query may take to end once that was decided.
    pub(crate) patience: Duration,
    /// How long nothing may be heard of a node that has something to do.
    pub(crate) silence_max: Duration,
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Starting(Wave),
    Running,
    Ending { outcome: Outcome, until: Instant },
    Ended,
}

#[derive(Debug)]
struct Fragment {
    node: NodeAddress,
    is_leaf: bool,
    was_sent: bool,
    /// Whether it does nothing any more.
    is_over: bool,
    profile: MinorFragmentProfile,
}

#[derive(Debug)]
struct Node {
    /// Messages of fragments that are not answered.
    unanswered: BTreeSet<Wave>,
    /// Fragments that are not over, sent or not.
    open: usize,
    heard: Instant,
    /// When to send the next cancel.
    cancel_at: Option<Instant>,
    /// It has answered a cancel: it has none of the fragments, and will take none.
    is_clear: bool,
}

#[derive(Debug)]
pub(crate) struct Run {
    times: RunTimes,
    phase: Phase,
    fragments: BTreeMap<FragmentId, Fragment>,
    nodes: BTreeMap<NodeAddress, Node>,
    /// Fragments that are not over.
    open: usize,
    actions: VecDeque<Action>,
}

impl Run {
    /// # Errors
    ///
    /// There is no fragment, or one twice.
    pub(crate) fn try_new(
        plan: &QueryPlan,
        times: RunTimes,
        now: Instant,
    ) -> Result<Self, Box<RpcFailure>> {
        let (mut fragments, mut nodes) = (BTreeMap::new(), BTreeMap::new());
        for part in &plan.fragments {
            let id = FragmentId::new(plan.query, part.major, part.minor);
            let fragment = Fragment {
                node: part.node.clone(),
                is_leaf: part.is_leaf,
                was_sent: false,
                is_over: false,
                profile: MinorFragmentProfile {
                    minor_fragment_id: Some(part.minor),
                    ..MinorFragmentProfile::default()
                },
            };
            if fragments.insert(id, fragment).is_some() {
                let message = format!("the fragment {id} is in the plan twice");
                return Err(failure(ErrorType::Plan, message));
            }
            let node = nodes.entry(part.node.clone()).or_insert_with(|| Node {
                unanswered: BTreeSet::new(),
                open: 0,
                heard: now,
                cancel_at: None,
                is_clear: false,
            });
            node.open += 1;
        }
        if fragments.is_empty() {
            let message = "a plan without fragments";
            return Err(failure(ErrorType::Plan, message));
        }
        let mut run = Self {
            times,
            phase: Phase::Starting(Wave::Inner),
            open: fragments.len(),
            fragments,
            nodes,
            actions: VecDeque::new(),
        };
        run.send_wave(Wave::Inner, now);
        Ok(run)
    }

    /// A node has answered a message of fragments, or has not.
    pub(crate) fn on_initialized(
        &mut self,
        node: &NodeAddress,
        wave: Wave,
        result: Result<(), NotStarted>,
        now: Instant,
    ) {
        let Some(place) = self.nodes.get_mut(node) else {
            return;
        };
        place.unanswered.remove(&wave);
        match result {
            Ok(()) => {
                place.heard = now;
                self.next_wave(now);
            }
            Err(NotStarted {
                failure,
                is_certain,
            }) => {
                if is_certain {
                    self.end_where(|it| it.node == *node && Wave::of(it.is_leaf) == wave);
                }
                self.end_as(Outcome::Failed(failure), now);
            }
        }
        self.end_clear(node);
        self.settle();
    }

    /// A node tells what has changed of one of its fragments.
    pub(crate) fn on_status(
        &mut self,
        from: &NodeAddress,
        id: FragmentId,
        delta: MinorFragmentProfile,
        now: Instant,
    ) {
        if let Some(node) = self.nodes.get_mut(from) {
            node.heard = now;
        }
        let Some(fragment) = self.fragments.get_mut(&id) else {
            return;
        };
        // Whoever else says so; and an end is final.
        if fragment.node != *from || fragment.is_over {
            return;
        }
        let is_kept = apply(&mut fragment.profile, delta);
        let state = fragment.profile.state();
        let error = fragment.profile.error.clone();
        if is_final(state) {
            self.end_one(id);
        }
        if let Err(error) = is_kept {
            let message = format!("the node {from} says too much of the fragment {id}: {error}");
            self.end_as(Outcome::Failed(failure(ErrorType::Resource, message)), now);
        }
        match state {
            FragmentState::Failed => {
                let failure = RpcFailure::from(error.unwrap_or_default());
                self.end_as(Outcome::Failed(Box::new(failure)), now);
            }
            FragmentState::Cancelled => {
                let message = format!("the fragment {id} was cancelled by its node {from}");
                let failure = RpcFailure::new(ErrorType::System, message);
                let failure = failure.with_retry(Retry::OtherNode);
                self.end_as(Outcome::Failed(Box::new(failure)), now);
            }
            _ => {}
        }
        self.settle();
    }

    /// A node has said something, if only that it lives.
    pub(crate) fn on_heard(&mut self, from: &NodeAddress, now: Instant) {
        if let Some(node) = self.nodes.get_mut(from) {
            node.heard = now;
        }
    }

    /// A cancel was answered, or not.
    pub(crate) fn on_cancelled(&mut self, node: &NodeAddress, answer: CancelAnswer, now: Instant) {
        let Some(place) = self.nodes.get_mut(node) else {
            return;
        };
        match answer {
            CancelAnswer::None if place.open > 0 => place.cancel_at = Some(now + CANCEL_AGAIN),
            CancelAnswer::None | CancelAnswer::Ending => {}
            CancelAnswer::NothingLeft => place.is_clear = true,
        }
        self.end_clear(node);
        self.settle();
    }

    /// Ends the fragments on a node that has none of them, once it has answered all messages of fragments.
    fn end_clear(&mut self, node: &NodeAddress) {
        let place = self.nodes.get(node);
        if place.is_some_and(|it| it.is_clear && it.unanswered.is_empty()) {
            self.end_where(|it| it.node == *node);
        }
    }

    /// Somebody wants the query to end.
    pub(crate) fn cancel(&mut self, now: Instant) {
        self.end_as(Outcome::Cancelled, now);
        self.settle();
    }

    /// A node has gone, and with it what ran there.
    pub(crate) fn node_down(&mut self, node: &NodeAddress, now: Instant) {
        let lost = self.nodes.get_mut(node);
        let Some(lost) = lost.filter(|lost| lost.open > 0) else {
            return;
        };
        lost.unanswered.clear();
        self.end_where(|it| it.node == *node);
        let message = format!("the node {node} went down while it ran fragments");
        let failure = RpcFailure::new(ErrorType::Connection, message);
        let failure = failure.with_retry(Retry::OtherNode);
        self.end_as(Outcome::Failed(Box::new(failure)), now);
        self.settle();
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Ending { until, .. } = self.phase
            && until <= now
        {
            self.end_where(|_| true);
            return self.settle();
        }
        for (node, place) in &mut self.nodes {
            if place.cancel_at.is_some_and(|at| at <= now) {
                place.cancel_at = None;
                self.actions.push_back(Action::Cancel(node.clone()));
            }
        }
        let silent = self.nodes.iter();
        let silent = silent.filter(|(_, place)| self.is_silent(place, now));
        let silent: Vec<_> = silent.map(|(node, _)| node.clone()).collect();
        for node in silent {
            self.node_down(&node, now);
        }
    }

    fn is_silent(&self, node: &Node, now: Instant) -> bool {
        self.hears_until(node).is_some_and(|until| until <= now)
    }

    /// When a node counts as gone if nothing is heard of it.
    fn hears_until(&self, node: &Node) -> Option<Instant> {
        let is_heard = matches!(self.phase, Phase::Starting(_) | Phase::Running);
        (is_heard && node.open > 0).then(|| node.heard + self.times.silence_max)
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let ending = match self.phase {
            Phase::Ending { until, .. } => Some(until),
            Phase::Ended => return None,
            _ => None,
        };
        let of_node = |node: &Node| [node.cancel_at, self.hears_until(node)];
        let nodes = self.nodes.values().flat_map(of_node);
        nodes.flatten().chain(ending).min()
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether something has been decided about its end.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. } | Phase::Ended)
    }

    /// Whether all of its fragments were sent and none has ended it.
    pub(crate) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// All fragments, and how many of them are over.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let all = self.fragments.len();
        (all, all - self.open)
    }

    /// Profiles of all fragments that were sent, by stage.
    pub(crate) fn profiles(&self) -> Vec<MajorFragmentProfile> {
        let mut stages: BTreeMap<i32, Vec<MinorFragmentProfile>> = BTreeMap::new();
        let sent = self.fragments.iter().filter(|(_, it)| it.was_sent);
        for (id, fragment) in sent {
            let stage = stages.entry(id.major.0).or_default();
            stage.push(fragment.profile.clone());
        }
        let stage = |(major, minors): (i32, _)| MajorFragmentProfile {
            major_fragment_id: Some(major),
            minor_fragment_profile: minors,
        };
        stages.into_iter().map(stage).collect()
    }

    /// Sends what belongs to a wave; an empty one is done at once.
    fn send_wave(&mut self, wave: Wave, now: Instant) {
        self.phase = Phase::Starting(wave);
        let mut by_node: BTreeMap<NodeAddress, Vec<FragmentId>> = BTreeMap::new();
        for (&id, fragment) in &mut self.fragments {
            if Wave::of(fragment.is_leaf) == wave {
                fragment.was_sent = true;
                by_node.entry(fragment.node.clone()).or_default().push(id);
            }
        }
        for (address, fragments) in by_node {
            if let Some(node) = self.nodes.get_mut(&address) {
                node.unanswered.insert(wave);
                node.heard = now;
            }
            let action = Action::Initialize(address, wave, fragments);
            self.actions.push_back(action);
        }
        self.next_wave(now);
    }

    /// Goes on once all nodes have answered.
    fn next_wave(&mut self, now: Instant) {
        let Phase::Starting(wave) = self.phase else {
            return;
        };
        let mut nodes = self.nodes.values();
        if nodes.any(|node| node.unanswered.contains(&wave)) {
            return;
        }
        match wave {
            Wave::Inner => self.send_wave(Wave::Leaves, now),
            Wave::Leaves => self.phase = Phase::Running,
        }
    }

    /// Decides how the query ends, if that was not decided before, and ends what runs.
    fn end_as(&mut self, outcome: Outcome, now: Instant) {
        if self.is_ending() {
            return;
        }
        let until = now + self.times.patience;
        self.phase = Phase::Ending { outcome, until };
        self.end_where(|it| !it.was_sent);
        let open = self.nodes.iter().filter(|(_, node)| node.open > 0);
        let cancels = open.map(|(node, _)| Action::Cancel(node.clone()));
        self.actions.extend(cancels);
    }

    fn end_where(&mut self, is_meant: impl Fn(&Fragment) -> bool) {
        let meant = self.fragments.iter().filter(|(_, it)| is_meant(it));
        let meant: Vec<_> = meant.map(|(&id, _)| id).collect();
        for id in meant {
            self.end_one(id);
        }
    }

    fn end_one(&mut self, id: FragmentId) {
        let Some(fragment) = self.fragments.get_mut(&id) else {
            return;
        };
        if fragment.is_over {
            return;
        }
        fragment.is_over = true;
        if !is_final(fragment.profile.state()) {
            fragment.profile.set_state(FragmentState::Cancelled);
        }
        self.open -= 1;
        if let Some(node) = self.nodes.get_mut(&fragment.node) {
            node.open -= 1;
            if node.open == 0 {
                node.cancel_at = None;
            }
        }
    }

    /// Ends the query once nothing of it runs.
    fn settle(&mut self) {
        if self.open > 0 || self.phase == Phase::Ended {
            return;
        }
        let outcome = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Ending { outcome, .. } => outcome,
            _ => Outcome::Finished,
        };
        self.actions.push_back(Action::Ended(outcome));
    }
}

fn failure(kind: ErrorType, message: impl Into<String>) -> Box<RpcFailure> {
    Box::new(RpcFailure::new(kind, message))
}

#[cfg(test)]
mod tests {
    use protos::shared::OperatorProfile;

    use super::*;

    const QUERY: QueryId = QueryId { part1: 1, part2: 1 };
    const TIMES: RunTimes = RunTimes {
        patience: Duration::from_secs(5),
        silence_max: Duration::from_mins(1),
    };

    fn node(name: &str) -> NodeAddress {
        NodeAddress::new(name, 1).unwrap()
    }

    fn id(major: i32, minor: i32) -> FragmentId {
        FragmentId::new(QUERY, major, minor)
    }

    /// 0:0 and 1:0 receive, on a and b; 2:0 and 2:1 are leaves, on a and b.
    fn plan() -> QueryPlan {
        let part = |(major, minor, name, is_leaf)| Assignment {
            major,
            minor,
            node: node(name),
            is_leaf,
            plan: Bytes::new(),
        };
        let parts = [
            (0, 0, "a", false),
            (1, 0, "b", false),
            (2, 0, "a", true),
            (2, 1, "b", true),
        ];
        QueryPlan {
            query: QUERY,
            fragments: parts.map(part).into(),
        }
    }

    fn started(now: Instant) -> Run {
        let mut run = Run::try_new(&plan(), TIMES, now).unwrap();
        let inner = [
            Action::Initialize(node("a"), Wave::Inner, vec![id(0, 0)]),
            Action::Initialize(node("b"), Wave::Inner, vec![id(1, 0)]),
        ];
        assert_eq!(actions(&mut run), inner);
        run
    }

    fn running(now: Instant) -> Run {
        let mut run = started(now);
        for wave in [Wave::Inner, Wave::Leaves] {
            for name in ["a", "b"] {
                run.on_initialized(&node(name), wave, Ok(()), now);
            }
        }
        assert!(run.is_running());
        actions(&mut run);
        run
    }

    fn actions(run: &mut Run) -> Vec<Action> {
        std::iter::from_fn(|| run.poll_action()).collect()
    }

    fn state(state: FragmentState) -> MinorFragmentProfile {
        MinorFragmentProfile {
            state: Some(state.into()),
            ..MinorFragmentProfile::default()
        }
    }

    fn finish_all(run: &mut Run, now: Instant) {
        for (major, minor, name) in [(2, 0, "a"), (2, 1, "b"), (1, 0, "b"), (0, 0, "a")] {
            let finished = state(FragmentState::Finished);
            run.on_status(&node(name), id(major, minor), finished, now);
        }
    }

    #[test]
    fn leaves_go_out_once_all_others_are_there_and_the_query_ends_with_its_last_fragment() {
        let now = Instant::now();
        let mut run = started(now);
        run.on_initialized(&node("b"), Wave::Inner, Ok(()), now);
        assert_eq!(actions(&mut run), []);
        run.on_initialized(&node("a"), Wave::Inner, Ok(()), now);
        let leaves = [
            Action::Initialize(node("a"), Wave::Leaves, vec![id(2, 0)]),
            Action::Initialize(node("b"), Wave::Leaves, vec![id(2, 1)]),
        ];
        assert_eq!(actions(&mut run), leaves);
        // Fragments may end before the message that has started them is answered.
        finish_all(&mut run, now);
        assert_eq!(actions(&mut run), [Action::Ended(Outcome::Finished)]);
        for name in ["a", "b"] {
            run.on_initialized(&node(name), Wave::Leaves, Ok(()), now);
        }
        finish_all(&mut run, now);
        run.cancel(now);
        run.node_down(&node("a"), now);
        assert_eq!(actions(&mut run), []);
        assert_eq!((run.counts(), run.next_timeout()), ((4, 4), None));
    }

    #[test]
    fn a_refused_message_fails_the_query_and_ends_what_was_started_elsewhere() {
        let now = Instant::now();
        let mut run = started(now);
        run.on_initialized(&node("a"), Wave::Inner, Ok(()), now);
        let not_started = NotStarted {
            failure: failure(ErrorType::Resource, "full"),
            is_certain: true,
        };
        run.on_initialized(&node("b"), Wave::Inner, Err(not_started), now);
        assert_eq!(actions(&mut run), [Action::Cancel(node("a"))]);
        let cancelled = state(FragmentState::Cancelled);
        run.on_status(&node("a"), id(0, 0), cancelled, now);
        let failed = Outcome::Failed(failure(ErrorType::Resource, "full"));
        assert_eq!(actions(&mut run), [Action::Ended(failed)]);
    }

    #[test]
    fn a_message_without_an_answer_may_have_started_something() {
        let now = Instant::now();
        let mut run = started(now);
        let lost = NotStarted {
            failure: failure(ErrorType::Connection, "lost"),
            is_certain: false,
        };
        run.on_initialized(&node("b"), Wave::Inner, Err(lost), now);
        let cancels = [Action::Cancel(node("a")), Action::Cancel(node("b"))];
        assert_eq!(actions(&mut run), cancels);
        run.on_cancelled(&node("b"), CancelAnswer::None, now);
        let again = run.next_timeout().unwrap();
        run.handle_timeout(again);
        assert_eq!(actions(&mut run), [Action::Cancel(node("b"))]);
        // Nobody says anything any more.
        run.handle_timeout(now + TIMES.patience);
        let ended = actions(&mut run);
        assert!(matches!(ended[..], [Action::Ended(Outcome::Failed(_))]));
    }

    #[test]
    fn a_query_ends_once_no_node_has_anything_left_of_it() {
        let now = Instant::now();
        let lost = || {
            Err(NotStarted {
                failure: failure(ErrorType::Connection, "lost"),
                is_certain: false,
            })
        };
        // The answer to the cancel comes after that to the fragments, and before.
        for is_before in [false, true] {
            let mut run = started(now);
            run.on_initialized(&node("a"), Wave::Inner, Ok(()), now);
            if is_before {
                run.cancel(now);
                run.on_cancelled(&node("b"), CancelAnswer::NothingLeft, now);
                assert_eq!(run.counts(), (4, 2), "it may be under way");
                run.on_initialized(&node("b"), Wave::Inner, lost(), now);
            } else {
                run.on_initialized(&node("b"), Wave::Inner, lost(), now);
                run.on_cancelled(&node("b"), CancelAnswer::NothingLeft, now);
            }
            assert_eq!(run.counts(), (4, 3), "{is_before}");
            run.on_cancelled(&node("a"), CancelAnswer::Ending, now);
            assert!(!run.is_ended());
            let cancelled = state(FragmentState::Cancelled);
            run.on_status(&node("a"), id(0, 0), cancelled, now);
            assert!(run.is_ended());
            let ended = actions(&mut run).pop();
            let failed = Outcome::Failed(failure(ErrorType::Connection, "lost"));
            let outcome = if is_before {
                Outcome::Cancelled
            } else {
                failed
            };
            assert_eq!(ended, Some(Action::Ended(outcome)));
        }
    }

    #[test]
    fn the_first_failure_counts_and_later_news_change_nothing() {
        let now = Instant::now();
        let mut run = running(now);
        let mut failed = state(FragmentState::Failed);
        failed.error = Some(RpcFailure::new(ErrorType::DataRead, "first").error);
        run.on_status(&node("a"), id(2, 0), failed.clone(), now);
        failed.error = Some(RpcFailure::new(ErrorType::DataRead, "second").error);
        run.on_status(&node("b"), id(2, 1), failed, now);
        run.cancel(now);
        let cancels = [Action::Cancel(node("a")), Action::Cancel(node("b"))];
        assert_eq!(actions(&mut run), cancels);
        // Ends are final, and only its own node speaks for a fragment.
        let running = state(FragmentState::Running);
        run.on_status(&node("a"), id(2, 0), running, now);
        run.on_status(&node("b"), id(0, 0), state(FragmentState::Cancelled), now);
        assert_eq!(run.counts(), (4, 2));
        run.node_down(&node("b"), now);
        run.on_status(&node("a"), id(0, 0), state(FragmentState::Cancelled), now);
        let first = Outcome::Failed(failure(ErrorType::DataRead, "first"));
        assert_eq!(actions(&mut run), [Action::Ended(first)]);
    }

    #[test]
    fn a_cancel_ends_the_query_even_where_a_fragment_finishes_meanwhile() {
        let now = Instant::now();
        let mut run = running(now);
        run.cancel(now);
        assert_eq!(actions(&mut run).len(), 2);
        finish_all(&mut run, now);
        assert_eq!(actions(&mut run), [Action::Ended(Outcome::Cancelled)]);
    }

    #[test]
    fn a_node_that_is_gone_or_silent_fails_the_query() {
        let now = Instant::now();
        for is_told in [true, false] {
            let mut run = running(now);
            let later = now + TIMES.silence_max;
            if is_told {
                run.node_down(&node("b"), later);
            } else {
                run.on_heard(&node("a"), now + Duration::from_secs(1));
                assert_eq!(run.next_timeout(), Some(later));
                run.handle_timeout(later);
            }
            assert_eq!(actions(&mut run), [Action::Cancel(node("a"))]);
            run.handle_timeout(later + TIMES.patience);
            let ended = actions(&mut run);
            let [Action::Ended(Outcome::Failed(failure))] = &ended[..] else {
                panic!("{ended:?}");
            };
            assert_eq!(failure.retry(), Retry::OtherNode);
            let message = "the node b:1 went down while it ran fragments";
            assert_eq!(failure.to_string(), message);
        }
    }

    #[test]
    fn a_node_that_says_too_much_of_a_fragment_fails_the_query() {
        let now = Instant::now();
        for (ends, over) in [(false, 0), (true, 1)] {
            let mut run = running(now);
            let said = MinorFragmentProfile {
                operator_profile: vec![OperatorProfile::default(); 1001],
                state: ends.then_some(FragmentState::Finished.into()),
                ..MinorFragmentProfile::default()
            };
            run.on_status(&node("b"), id(1, 0), said, now);
            let cancels = [Action::Cancel(node("a")), Action::Cancel(node("b"))];
            assert_eq!(actions(&mut run), cancels);
            assert_eq!(run.counts(), (4, over));
            finish_all(&mut run, now);
            let ended = actions(&mut run);
            let [Action::Ended(Outcome::Failed(failure))] = &ended[..] else {
                panic!("{ended:?}");
            };
            let message = "the node b:1 says too much of the fragment";
            assert!(failure.to_string().starts_with(message), "{failure}");
        }
    }

    #[test]
    fn a_fragment_that_its_node_has_cancelled_fails_the_query() {
        let now = Instant::now();
        let mut run = running(now);
        run.on_status(&node("b"), id(1, 0), state(FragmentState::Cancelled), now);
        finish_all(&mut run, now);
        let ended = actions(&mut run);
        let last = ended.last();
        assert!(
            matches!(last, Some(Action::Ended(Outcome::Failed(_)))),
            "{ended:?}"
        );
    }

    #[test]
    fn plans_that_cannot_be_run_are_refused() {
        let now = Instant::now();
        let mut twice = plan();
        twice.fragments.push(twice.fragments[0].clone());
        let none = QueryPlan {
            query: QUERY,
            fragments: Vec::new(),
        };
        for (plan, said) in [(twice, "twice"), (none, "without fragments")] {
            let refused = Run::try_new(&plan, TIMES, now).unwrap_err();
            assert!(refused.to_string().contains(said), "{refused}");
        }
    }
}
