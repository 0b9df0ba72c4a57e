//! Which fragments run here, and in which state. No task, no clock: time comes in as an argument, and what is to be done
//! comes out as actions.
//!
//! ```text
//! (unknown) --initialize--> Starting --started--> Running --ended--> FINISHED or FAILED
//!     |                        |                     |
//!   cancel                  cancel                 cancel --> Cancelling --ended, or grace over--> CANCELLED
//!     |                        |
//! tombstone                CANCELLED, and the message that it came with is refused
//! ```
//!
//! A message of fragments is acknowledged once all of them have started; until then nothing is reported of any. If one
//! does not start, the others of its message are cancelled, and the message is refused once they have ended: whoever
//! reads the refusal knows that nothing of it runs.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use membership::NodeAddress;
use protos::{
    error::{ErrorType, Retry},
    id::{FragmentId, QueryId},
    shared::{DrillPbError, FragmentState, MinorFragmentProfile},
};
use rpc_bus::RpcFailure;

/// Names a message of fragments within this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MessageId(pub(crate) u64);

/// How much there may be, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableLimits {
    pub(crate) fragments_max: usize,
    /// How long a fragment may take to end once it was cancelled.
    pub(crate) grace: Duration,
    pub(crate) tombstones_max: usize,
    pub(crate) tombstone_age: Duration,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Start(FragmentId),
    /// Ask it to end.
    Cancel(FragmentId),
    /// It counts as ended, whatever it still does.
    Abandon(FragmentId),
    Acknowledge(MessageId),
    Refuse(MessageId, Box<RpcFailure>),
    Report(Box<Report>),
}

impl Action {
    fn is_report_of(&self, query: QueryId) -> bool {
        matches!(self, Self::Report(report) if report.fragment.query == query)
    }
}

/// A state for the foreman to know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) fragment: FragmentId,
    pub(crate) foreman: NodeAddress,
    pub(crate) state: FragmentState,
    pub(crate) error: Option<DrillPbError>,
    /// How far a fragment came that has run to its end.
    pub(crate) profile: Option<Box<MinorFragmentProfile>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Cancelling { until: Instant },
}

#[derive(Debug)]
struct Fragment {
    foreman: NodeAddress,
    /// Until that is acknowledged.
    message: Option<MessageId>,
    phase: Phase,
    /// Its foreman has gone: nobody is told of it.
    is_orphan: bool,
    /// As it has ended.
    profile: Option<Box<MinorFragmentProfile>>,
}

/// A message that is not answered yet.
#[derive(Debug, Default)]
struct Message {
    starting: usize,
    /// Those that have not ended, starting ones included.
    open: BTreeSet<FragmentId>,
    failure: Option<Box<RpcFailure>>,
    /// What is said once it is acknowledged.
    reports: Vec<Report>,
}

#[derive(Debug)]
pub(crate) struct Table {
    limits: TableLimits,
    fragments: BTreeMap<FragmentId, Fragment>,
    messages: BTreeMap<MessageId, Message>,
    graces: BTreeSet<(Instant, FragmentId)>,
    tombstones: Tombstones,
    is_draining: bool,
    actions: VecDeque<Action>,
}

impl Table {
    pub(crate) fn new(limits: TableLimits) -> Self {
        Self {
            limits,
            fragments: BTreeMap::new(),
            messages: BTreeMap::new(),
            graces: BTreeSet::new(),
            tombstones: Tombstones::default(),
            is_draining: false,
            actions: VecDeque::new(),
        }
    }

    /// Takes the fragments of a message. `held`: ended ones that their foremen do not know of yet.
    ///
    /// # Errors
    ///
    /// Why none of them is taken.
    pub(crate) fn initialize(
        &mut self,
        id: MessageId,
        foreman: &NodeAddress,
        fragments: &[FragmentId],
        held: usize,
        now: Instant,
    ) -> Result<(), Box<RpcFailure>> {
        self.judge(fragments, held, now)?;
        let message = Message {
            starting: fragments.len(),
            open: fragments.iter().copied().collect(),
            ..Message::default()
        };
        self.messages.insert(id, message);
        for &fragment in fragments {
            let entry = Fragment {
                foreman: foreman.clone(),
                message: Some(id),
                phase: Phase::Starting,
                is_orphan: false,
                profile: None,
            };
            self.fragments.insert(fragment, entry);
            self.actions.push_back(Action::Start(fragment));
        }
        self.settle(id);
        Ok(())
    }

    fn judge(
        &mut self,
        fragments: &[FragmentId],
        held: usize,
        now: Instant,
    ) -> Result<(), Box<RpcFailure>> {
        if fragments.is_empty() {
            return Ok(());
        }
        if self.is_draining {
            return Err(elsewhere(
                "this node takes no new fragments: it is going away",
            ));
        }
        let (used, max) = (self.fragments.len() + held, self.limits.fragments_max);
        if used + fragments.len() > max {
            let message = format!("{used} fragments run here, at most {max} may");
            return Err(elsewhere(message));
        }
        self.tombstones.forget_old(now, self.limits.tombstone_age);
        let mut seen = BTreeSet::new();
        for &fragment in fragments {
            if self.tombstones.has(fragment) {
                return Err(cancelled_early(fragment));
            }
            if self.fragments.contains_key(&fragment) || !seen.insert(fragment) {
                let message = format!("the fragment {fragment} is here already");
                return Err(failure(ErrorType::Validation, message));
            }
        }
        Ok(())
    }

    /// A fragment can receive data from now on, or cannot be started. Says whether it is to run.
    pub(crate) fn on_started(
        &mut self,
        id: FragmentId,
        result: Result<(), Box<RpcFailure>>,
        now: Instant,
    ) -> bool {
        let Some(fragment) = self.fragments.get_mut(&id) else {
            return false;
        };
        if fragment.phase != Phase::Starting {
            return false;
        }
        let message = fragment.message;
        match result {
            Ok(()) => {
                fragment.phase = Phase::Running;
                self.report(id, FragmentState::Running, None);
                self.no_longer_starting(message);
                true
            }
            Err(failure) => {
                let error = failure.error.clone();
                self.end(id, FragmentState::Failed, Some(error));
                self.fail_message(message, failure, now);
                false
            }
        }
    }

    /// A fragment that has run has ended.
    pub(crate) fn on_ended(
        &mut self,
        id: FragmentId,
        result: Result<(), Box<RpcFailure>>,
        profile: MinorFragmentProfile,
    ) {
        let Some(fragment) = self.fragments.get_mut(&id) else {
            return;
        };
        fragment.profile = Some(Box::new(profile));
        match (fragment.phase, result) {
            (Phase::Starting, _) => {}
            // What it says then may be what the cancel has done to it.
            (Phase::Cancelling { .. }, _) => self.end(id, FragmentState::Cancelled, None),
            (Phase::Running, Ok(())) => self.end(id, FragmentState::Finished, None),
            (Phase::Running, Err(failure)) => {
                self.end(id, FragmentState::Failed, Some(failure.error));
            }
        }
    }

    /// Ends a fragment; one that is not here is not to start any more.
    pub(crate) fn cancel(&mut self, id: FragmentId, now: Instant) {
        let Some(fragment) = self.fragments.get_mut(&id) else {
            let max = self.limits.tombstones_max;
            return self.tombstones.add(Gone::Fragment(id), now, max);
        };
        match fragment.phase {
            Phase::Cancelling { .. } => {}
            Phase::Running => {
                let until = now + self.limits.grace;
                fragment.phase = Phase::Cancelling { until };
                self.graces.insert((until, id));
                self.actions.push_back(Action::Cancel(id));
                self.report(id, FragmentState::CancellationRequested, None);
            }
            Phase::Starting => {
                let message = fragment.message;
                self.actions.push_back(Action::Abandon(id));
                self.end(id, FragmentState::Cancelled, None);
                self.fail_message(message, cancelled_early(id), now);
            }
        }
    }

    /// Ends all fragments of a query; none is to start any more.
    pub(crate) fn cancel_query(&mut self, query: QueryId, now: Instant) {
        let max = self.limits.tombstones_max;
        self.tombstones.add(Gone::Query(query), now, max);
        self.cancel_where(now, |id, _| id.query == query);
    }

    /// Ends all fragments whose foreman has gone.
    pub(crate) fn node_down(&mut self, node: &NodeAddress, now: Instant) {
        let orphans = self.fragments.values_mut();
        for fragment in orphans.filter(|fragment| fragment.foreman == *node) {
            fragment.is_orphan = true;
        }
        self.cancel_where(now, |_, fragment| fragment.foreman == *node);
    }

    /// Ends what runs of a query that its foreman does not know.
    pub(crate) fn cancel_orphans(&mut self, foreman: &NodeAddress, query: QueryId, now: Instant) {
        let is_meant = |id: FragmentId, it: &Fragment| id.query == query && it.foreman == *foreman;
        self.cancel_where(now, is_meant);
    }

    /// Ends all fragments.
    pub(crate) fn cancel_all(&mut self, now: Instant) {
        self.cancel_where(now, |_, _| true);
    }

    fn cancel_where(&mut self, now: Instant, is_meant: impl Fn(FragmentId, &Fragment) -> bool) {
        let meant = self.fragments.iter();
        let meant = meant.filter(|(id, fragment)| is_meant(**id, fragment));
        let meant: Vec<_> = meant.map(|(&id, _)| id).collect();
        for id in meant {
            self.cancel_known(id, now);
        }
    }

    /// Ends a fragment of a list, unless the end of another has ended it: it needs no tombstone.
    fn cancel_known(&mut self, id: FragmentId, now: Instant) {
        if self.fragments.contains_key(&id) {
            self.cancel(id, now);
        }
    }

    /// From now on nothing starts.
    pub(crate) fn begin_drain(&mut self) {
        self.is_draining = true;
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Gives up those that have not ended in time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(until, id)) = self.graces.first()
            && until <= now
        {
            self.actions.push_back(Action::Abandon(id));
            self.end(id, FragmentState::Cancelled, None);
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.graces.first().map(|&(until, _)| until)
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.fragments.len()
    }

    /// Whether nothing is left, answers to messages included.
    pub(crate) fn is_empty(&self) -> bool {
        self.fragments.is_empty() && self.messages.is_empty()
    }

    /// Whether the end of a fragment of a query is still to be reported, by what is known here.
    pub(crate) fn holds(&self, query: QueryId) -> bool {
        let mut actions = self.actions.iter();
        let runs = self.fragments.keys().any(|id| id.query == query);
        runs || actions.any(|action| action.is_report_of(query))
    }

    /// All fragments with their foremen and states; those that are starting have none yet.
    pub(crate) fn iter(
        &self,
    ) -> impl Iterator<Item = (FragmentId, &NodeAddress, Option<FragmentState>)> {
        self.fragments.iter().map(|(&id, fragment)| {
            let state = match fragment.phase {
                Phase::Starting => None,
                Phase::Running => Some(FragmentState::Running),
                Phase::Cancelling { .. } => Some(FragmentState::CancellationRequested),
            };
            (id, &fragment.foreman, state)
        })
    }

    /// Takes a fragment off the list.
    fn end(&mut self, id: FragmentId, state: FragmentState, error: Option<DrillPbError>) {
        self.report(id, state, error);
        let Some(fragment) = self.fragments.remove(&id) else {
            return;
        };
        if let Phase::Cancelling { until } = fragment.phase {
            self.graces.remove(&(until, id));
        }
        let Some(message_id) = fragment.message else {
            return;
        };
        if let Some(message) = self.messages.get_mut(&message_id) {
            message.open.remove(&id);
        }
        // The message of one that was starting is about to fail.
        if fragment.phase != Phase::Starting {
            self.settle(message_id);
        }
    }

    fn report(&mut self, id: FragmentId, state: FragmentState, error: Option<DrillPbError>) {
        let Some(fragment) = self.fragments.get_mut(&id) else {
            return;
        };
        if fragment.is_orphan {
            return;
        }
        let report = Report {
            fragment: id,
            foreman: fragment.foreman.clone(),
            state,
            error,
            profile: fragment.profile.take(),
        };
        let message = fragment.message.and_then(|id| self.messages.get_mut(&id));
        match message {
            Some(message) => message.reports.push(report),
            None => self.actions.push_back(Action::Report(Box::new(report))),
        }
    }

    fn no_longer_starting(&mut self, id: Option<MessageId>) {
        if let Some(id) = id
            && let Some(message) = self.messages.get_mut(&id)
        {
            message.starting -= 1;
            self.settle(id);
        }
    }

    /// One of the message's fragments does not start: the others end.
    fn fail_message(&mut self, id: Option<MessageId>, failure: Box<RpcFailure>, now: Instant) {
        let Some(id) = id else { return };
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        if message.failure.is_none() {
            message.failure = Some(failure);
            let open: Vec<_> = message.open.iter().copied().collect();
            for fragment in open {
                self.cancel_known(fragment, now);
            }
        }
        self.settle(id);
    }

    /// Answers a message if it is time to.
    fn settle(&mut self, id: MessageId) {
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        if let Some(failure) = &message.failure {
            if message.open.is_empty() {
                let failure = failure.clone();
                self.messages.remove(&id);
                self.actions.push_back(Action::Refuse(id, failure));
            }
        } else if message.starting == 0
            && let Some(message) = self.messages.remove(&id)
        {
            for fragment in &message.open {
                if let Some(fragment) = self.fragments.get_mut(fragment) {
                    fragment.message = None;
                }
            }
            self.actions.push_back(Action::Acknowledge(id));
            let reports = message.reports.into_iter().map(Box::new);
            self.actions.extend(reports.map(Action::Report));
        }
    }
}

fn failure(kind: ErrorType, message: impl Into<String>) -> Box<RpcFailure> {
    Box::new(RpcFailure::new(kind, message))
}

fn elsewhere(message: impl Into<String>) -> Box<RpcFailure> {
    let failure = RpcFailure::new(ErrorType::Resource, message);
    Box::new(failure.with_retry(Retry::OtherNode))
}

fn cancelled_early(id: FragmentId) -> Box<RpcFailure> {
    let message = format!("the fragment {id} was cancelled before it had started");
    failure(ErrorType::System, message)
}

/// What is never to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Gone {
    Query(QueryId),
    Fragment(FragmentId),
}

/// Cancels that may have overtaken the start of what they are for. Bounded: the oldest go first.
#[derive(Debug, Default)]
struct Tombstones {
    all: BTreeSet<Gone>,
    by_age: VecDeque<(Instant, Gone)>,
}

impl Tombstones {
    fn add(&mut self, gone: Gone, now: Instant, max: usize) {
        if !self.all.insert(gone) {
            return;
        }
        self.by_age.push_back((now, gone));
        if self.by_age.len() > max {
            self.forget_oldest();
        }
    }

    fn has(&self, fragment: FragmentId) -> bool {
        self.all.contains(&Gone::Fragment(fragment))
            || self.all.contains(&Gone::Query(fragment.query))
    }

    fn forget_old(&mut self, now: Instant, age: Duration) {
        while let Some(&(since, _)) = self.by_age.front()
            && now.saturating_duration_since(since) >= age
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, gone)) = self.by_age.pop_front() {
            self.all.remove(&gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MinorFragmentProfile as Profile, *};

    const GRACE: Duration = Duration::from_millis(500);
    const QUERY: QueryId = QueryId { part1: 1, part2: 1 };
    const MESSAGE: MessageId = MessageId(7);

    fn table() -> Table {
        Table::new(TableLimits {
            fragments_max: 10,
            grace: GRACE,
            tombstones_max: 3,
            tombstone_age: Duration::from_mins(10),
        })
    }

    fn foreman() -> NodeAddress {
        NodeAddress::new("foreman", 1).unwrap()
    }

    fn id(minor: i32) -> FragmentId {
        FragmentId::new(QUERY, 1, minor)
    }

    fn actions(table: &mut Table) -> Vec<Action> {
        std::iter::from_fn(|| table.poll_action()).collect()
    }

    fn report(minor: i32, state: FragmentState) -> Action {
        Action::Report(Box::new(Report {
            fragment: id(minor),
            foreman: foreman(),
            state,
            error: None,
            profile: None,
        }))
    }

    fn finished(minor: i32) -> Action {
        Action::Report(Box::new(Report {
            fragment: id(minor),
            foreman: foreman(),
            state: FragmentState::Finished,
            error: None,
            profile: Some(Box::default()),
        }))
    }

    /// Fragments 0 and 1 of one message, told to start.
    fn starting(now: Instant) -> Table {
        let mut table = table();
        let taken = table.initialize(MESSAGE, &foreman(), &[id(0), id(1)], 0, now);
        taken.unwrap();
        let starts = [Action::Start(id(0)), Action::Start(id(1))];
        assert_eq!(actions(&mut table), starts);
        table
    }

    /// Both run.
    fn running(now: Instant) -> Table {
        let mut table = starting(now);
        assert!(table.on_started(id(0), Ok(()), now) && table.on_started(id(1), Ok(()), now));
        actions(&mut table);
        table
    }

    fn refusal(action: &Action) -> &RpcFailure {
        match action {
            Action::Refuse(MESSAGE, failure) => failure,
            other => panic!("{other:?} is no refusal"),
        }
    }

    #[test]
    fn a_message_is_acknowledged_once_all_have_started_and_nothing_is_reported_before() {
        let now = Instant::now();
        let mut table = starting(now);
        assert!(table.on_started(id(1), Ok(()), now));
        table.on_ended(id(1), Ok(()), Profile::default());
        assert_eq!(actions(&mut table), []);
        assert!(table.on_started(id(0), Ok(()), now));
        let expected = [
            Action::Acknowledge(MESSAGE),
            report(1, FragmentState::Running),
            finished(1),
            report(0, FragmentState::Running),
        ];
        assert_eq!(actions(&mut table), expected);
        table.on_ended(id(0), Ok(()), Profile::default());
        assert_eq!(actions(&mut table), [finished(0)]);
        assert!(table.is_empty());
    }

    #[test]
    fn an_empty_message_is_acknowledged_even_while_draining() {
        let mut table = table();
        table.begin_drain();
        let taken = table.initialize(MESSAGE, &foreman(), &[], 0, Instant::now());
        taken.unwrap();
        assert_eq!(actions(&mut table), [Action::Acknowledge(MESSAGE)]);
    }

    #[test]
    fn one_that_does_not_start_ends_the_others_before_the_message_is_refused() {
        let now = Instant::now();
        let mut table = starting(now);
        assert!(table.on_started(id(0), Ok(()), now));
        let broken = failure(ErrorType::Plan, "no such operator");
        assert!(!table.on_started(id(1), Err(broken), now));
        assert_eq!(actions(&mut table), [Action::Cancel(id(0))]);
        table.handle_timeout(now + GRACE);
        let done = actions(&mut table);
        assert_eq!(done[0], Action::Abandon(id(0)));
        assert_eq!(refusal(&done[1]).to_string(), "no such operator");
        assert!(done.len() == 2 && table.is_empty());
    }

    #[test]
    fn a_cancel_while_starting_refuses_the_message_at_once() {
        let now = Instant::now();
        let mut table = starting(now);
        table.cancel(id(0), now);
        let done = actions(&mut table);
        let abandoned = [Action::Abandon(id(0)), Action::Abandon(id(1))];
        assert_eq!(done[..2], abandoned);
        assert!(refusal(&done[2]).to_string().contains("cancelled before"));
        assert!(table.is_empty());
        assert!(!table.on_started(id(0), Ok(()), now), "it came too late");
    }

    #[test]
    fn a_cancelled_fragment_is_asked_first_and_given_up_after_its_grace() {
        let now = Instant::now();
        let mut table = running(now);
        table.cancel(id(0), now);
        table.cancel(id(0), now);
        let asked = [
            Action::Cancel(id(0)),
            report(0, FragmentState::CancellationRequested),
        ];
        assert_eq!(actions(&mut table), asked);
        table.cancel(id(1), now + GRACE / 2);
        table.on_ended(
            id(1),
            Err(failure(ErrorType::System, "interrupted")),
            Profile::default(),
        );
        assert_eq!(table.next_timeout(), Some(now + GRACE));
        actions(&mut table);
        table.handle_timeout(now + GRACE);
        let given_up = [Action::Abandon(id(0)), report(0, FragmentState::Cancelled)];
        assert_eq!(actions(&mut table), given_up);
        assert!(table.is_empty() && table.next_timeout().is_none());
    }

    #[test]
    fn a_cancel_that_overtakes_its_start_leaves_a_tombstone_for_a_while() {
        let now = Instant::now();
        let mut table = table();
        let other = QueryId { part1: 2, part2: 2 };
        table.cancel(id(0), now);
        table.cancel_query(other, now);
        let of_other = FragmentId::new(other, 0, 0);
        for gone in [id(0), of_other] {
            let refused = table.initialize(MESSAGE, &foreman(), &[gone], 0, now);
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("cancelled before"), "{refused}");
        }
        assert!(
            table
                .initialize(MESSAGE, &foreman(), &[id(1)], 0, now)
                .is_ok()
        );
        let later = now + Duration::from_mins(10);
        assert!(
            table
                .initialize(MessageId(8), &foreman(), &[id(0)], 0, later)
                .is_ok()
        );
        for minor in 10..100 {
            table.cancel(id(minor), later);
        }
        assert_eq!(
            (table.tombstones.all.len(), table.tombstones.by_age.len()),
            (3, 3)
        );
    }

    #[test]
    fn a_draining_or_full_node_sends_foremen_elsewhere() {
        let now = Instant::now();
        let mut table = running(now);
        let many: Vec<_> = (10..15).map(id).collect();
        let full = table.initialize(MessageId(8), &foreman(), &many, 4, now);
        table.begin_drain();
        let draining = table.initialize(MessageId(8), &foreman(), &many[..1], 0, now);
        for refused in [full, draining] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.retry(), Retry::OtherNode);
            assert_eq!(refused.error.error_type(), ErrorType::Resource);
        }
        let twice = [id(20), id(20)];
        let mut table = running(now);
        for twice in [&[id(0)][..], &twice] {
            let refused = table.initialize(MessageId(9), &foreman(), twice, 0, now);
            let refused = refused.unwrap_err().to_string();
            assert!(refused.ends_with("is here already"), "{refused}");
        }
    }

    #[test]
    fn fragments_of_a_foreman_that_is_gone_end_and_others_go_on() {
        let now = Instant::now();
        let mut table = running(now);
        let (other, theirs) = (NodeAddress::new("other", 1).unwrap(), id(5));
        table
            .initialize(MessageId(8), &other, &[theirs], 0, now)
            .unwrap();
        actions(&mut table);
        table.node_down(&foreman(), now);
        let cancels: Vec<_> = actions(&mut table)
            .into_iter()
            .filter(|action| matches!(action, Action::Cancel(_) | Action::Abandon(_)))
            .collect();
        assert_eq!(cancels, [Action::Cancel(id(0)), Action::Cancel(id(1))]);
        table.cancel_all(now);
        table.handle_timeout(now + GRACE);
        assert!(table.is_empty());
    }
}
