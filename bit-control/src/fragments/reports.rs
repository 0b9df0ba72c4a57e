//! What foremen do not know yet of the fragments that run for them here: one message a node, with what has changed.
//!
//! An end is told at once, everything else once per interval. One message is on its way to a foreman at a time; what
//! happens meanwhile is in the next one. What has changed of many fragments is told in a round of several messages, of
//! which each has the ends that came meanwhile first, so that no fragment waits for others. A message that fails is made
//! again from what is then to be told, after a pause. Where nothing changes for long, a message without changes asks the
//! foreman whether it still knows the queries.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    time::{Duration, Instant},
};

use membership::NodeAddress;
use protos::{
    control::{FragmentStatuses, QueryStatuses},
    id::{FragmentId, QueryId},
    shared::{DrillPbError, FragmentState, MajorFragmentProfile, MinorFragmentProfile},
};

use super::{
    delta::{changes, is_final},
    table::Report,
};

/// Pause after the first failure; it doubles with every further one.
const BACKOFF: Duration = Duration::from_millis(100);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Most fragments in a message, so that it stays far below what a frame may hold.
const FRAGMENTS_MAX: usize = 1000;

/// When to tell what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReportTimes {
    pub(crate) interval: Duration,
    /// Longest silence towards a foreman.
    pub(crate) keepalive: Duration,
    /// How long a foreman may not be reached before it counts as gone.
    pub(crate) patience: Duration,
}

/// All foremen that something is to be told to.
#[derive(Debug)]
pub(crate) struct Reports {
    times: ReportTimes,
    by_foreman: BTreeMap<NodeAddress, Account>,
    next: MessageNumber,
}

/// Tells messages apart: an answer may come after its foreman was forgotten, and became known again.
pub(crate) type MessageNumber = u64;

/// What a foreman knows once it has taken a message.
type Told = Vec<(FragmentId, MinorFragmentProfile)>;

/// One foreman.
#[derive(Debug)]
struct Account {
    fragments: BTreeMap<FragmentId, Entry>,
    /// Up to where the present round has come; `None` where the next message begins one.
    cursor: Option<FragmentId>,
    /// When the present round, or the next one, may go on.
    round_at: Instant,
    /// The message on its way, and what it says of each.
    in_flight: Option<(MessageNumber, Told)>,
    due: Instant,
    told: Instant,
    failing_since: Option<Instant>,
    pause: Duration,
}

#[derive(Debug)]
struct Entry {
    /// What the foreman knows.
    known: MinorFragmentProfile,
    state: FragmentState,
    error: Option<DrillPbError>,
    /// As of the last look.
    profile: MinorFragmentProfile,
}

impl Entry {
    fn current(&self, id: FragmentId) -> MinorFragmentProfile {
        MinorFragmentProfile {
            state: Some(self.state.into()),
            error: self.error.clone(),
            minor_fragment_id: Some(id.minor.0),
            ..self.profile.clone()
        }
    }
}

impl Account {
    fn new(now: Instant) -> Self {
        Self {
            fragments: BTreeMap::new(),
            cursor: None,
            round_at: now,
            in_flight: None,
            due: now,
            told: now,
            failing_since: None,
            pause: BACKOFF,
        }
    }

    fn next_timeout(&self, times: ReportTimes) -> Option<Instant> {
        if self.in_flight.is_some() {
            return None;
        }
        let silent = self.failing_since.is_none();
        let keepalive = silent.then(|| self.told + times.keepalive);
        Some(keepalive.map_or(self.due, |keepalive| self.due.min(keepalive)))
    }
}

/// Per query and stage, what has changed.
type Changes = BTreeMap<QueryId, BTreeMap<i32, Vec<MinorFragmentProfile>>>;

impl Account {
    /// Takes the profiles of fragments that run.
    fn look(&mut self, mut profiles: HashMap<FragmentId, MinorFragmentProfile>) {
        for (id, entry) in &mut self.fragments {
            if !is_final(entry.state)
                && let Some(profile) = profiles.remove(id)
            {
                entry.profile = profile;
            }
        }
    }

    /// What the foreman does not know: ends first, then the next part of the round.
    fn next_page(&mut self, interval: Duration, now: Instant) -> Page {
        let mut page = Page::naming(self.fragments.keys());
        let ended = self.fragments.iter().filter(|(_, it)| is_final(it.state));
        for (&id, entry) in ended.take(FRAGMENTS_MAX) {
            page.add(id, entry);
        }
        if self.go_on(&mut page) {
            self.round_at = now + interval;
        }
        self.due = now.max(self.round_at);
        page
    }

    /// Adds what has changed of fragments that run, from where the round has come to; says whether it is done.
    fn go_on(&mut self, page: &mut Page) -> bool {
        let after = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.fragments.range((after, Bound::Unbounded));
        for (&id, entry) in rest.filter(|(_, it)| !is_final(it.state)) {
            if page.told.len() == FRAGMENTS_MAX {
                return false;
            }
            page.add(id, entry);
            self.cursor = Some(id);
        }
        self.cursor = None;
        true
    }
}

/// A message in the making, and what the foreman knows once it has taken it.
#[derive(Debug)]
struct Page {
    changes: Changes,
    told: Told,
}

impl Page {
    /// Queries are named even without changes: their foreman hears that they are alive here.
    fn naming<'a>(fragments: impl Iterator<Item = &'a FragmentId>) -> Self {
        Self {
            changes: fragments.map(|id| (id.query, BTreeMap::new())).collect(),
            told: Told::new(),
        }
    }

    fn add(&mut self, id: FragmentId, entry: &Entry) {
        let current = entry.current(id);
        if let Some(delta) = changes(&entry.known, &current) {
            let stages = self.changes.entry(id.query).or_default();
            stages.entry(id.major.0).or_default().push(delta);
            self.told.push((id, current));
        }
    }
}

impl Reports {
    pub(crate) fn new(times: ReportTimes) -> Self {
        Self {
            times,
            by_foreman: BTreeMap::new(),
            next: 0,
        }
    }

    /// Takes a state.
    pub(crate) fn add(&mut self, report: Report, now: Instant) {
        let far = now + self.times.keepalive;
        let account = self.by_foreman.entry(report.foreman);
        let account = account.or_insert_with(|| Account {
            due: far,
            ..Account::new(now)
        });
        let due = match (is_final(report.state), account.failing_since) {
            (_, Some(_)) => account.due,
            (true, None) => now,
            (false, None) => now.max(account.told + self.times.interval),
        };
        account.due = account.due.min(due);
        let entry = account.fragments.entry(report.fragment);
        let entry = entry.or_insert_with(|| Entry {
            known: MinorFragmentProfile::default(),
            state: report.state,
            error: None,
            profile: MinorFragmentProfile::default(),
        });
        (entry.state, entry.error) = (report.state, report.error);
        if let Some(profile) = report.profile {
            entry.profile = *profile;
        }
    }

    /// A foreman that is to be told something now.
    pub(crate) fn due(&self, now: Instant) -> Option<NodeAddress> {
        let mut accounts = self.by_foreman.iter();
        let is_due = |account: &Account| {
            let at = account.next_timeout(self.times);
            at.is_some_and(|at| at <= now)
        };
        let (foreman, _) = accounts.find(|(_, account)| is_due(account))?;
        Some(foreman.clone())
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let accounts = self.by_foreman.values();
        accounts
            .filter_map(|account| account.next_timeout(self.times))
            .min()
    }

    /// The message for a foreman, with the profiles of fragments that run; it is on its way from now on. `None` if there
    /// is nothing to tell.
    pub(crate) fn take(
        &mut self,
        foreman: &NodeAddress,
        profiles: HashMap<FragmentId, MinorFragmentProfile>,
        now: Instant,
    ) -> Option<(MessageNumber, FragmentStatuses)> {
        let account = self.by_foreman.get_mut(foreman)?;
        account.look(profiles);
        let Page { changes, told } = account.next_page(self.times.interval, now);
        if told.is_empty() && now < account.told + self.times.keepalive {
            return None;
        }
        let number = self.next;
        self.next += 1;
        account.in_flight = Some((number, told));
        account.told = now;
        let statuses = FragmentStatuses {
            query: changes.into_iter().map(in_message).collect(),
        };
        Some((number, statuses))
    }

    /// A foreman has taken a message.
    pub(crate) fn on_taken(&mut self, foreman: &NodeAddress, number: MessageNumber, now: Instant) {
        let Some((account, told)) = self.answered(foreman, number) else {
            return;
        };
        account.failing_since = None;
        account.pause = BACKOFF;
        for (id, current) in told {
            if is_final(current.state()) {
                account.fragments.remove(&id);
            } else if let Some(entry) = account.fragments.get_mut(&id) {
                entry.known = current;
            }
        }
        if account.fragments.is_empty() {
            self.by_foreman.remove(foreman);
        } else if account.fragments.values().any(|it| is_final(it.state)) {
            account.due = now;
        }
    }

    /// A message has not been taken, as far as is known; says whether the foreman counts as gone.
    #[must_use]
    pub(crate) fn on_failed(
        &mut self,
        foreman: &NodeAddress,
        number: MessageNumber,
        now: Instant,
    ) -> bool {
        let patience = self.times.patience;
        let Some((account, _)) = self.answered(foreman, number) else {
            return false;
        };
        account.due = now + account.pause;
        account.pause = (account.pause * 2).min(BACKOFF_MAX);
        let since = *account.failing_since.get_or_insert(now);
        now.saturating_duration_since(since) >= patience
    }

    /// The foreman that a message was on its way to, and what that has said.
    fn answered(
        &mut self,
        foreman: &NodeAddress,
        number: MessageNumber,
    ) -> Option<(&mut Account, Told)> {
        let account = self.by_foreman.get_mut(foreman)?;
        let (_, told) = account.in_flight.take_if(|(it, _)| *it == number)?;
        Some((account, told))
    }

    /// Nothing is to be told to a node that has gone.
    pub(crate) fn forget(&mut self, foreman: &NodeAddress) {
        self.by_foreman.remove(foreman);
    }

    /// Fragments whose profiles the next message to a foreman is to be made with: all, where it begins a round.
    pub(crate) fn looked_at(&self, foreman: &NodeAddress) -> Vec<FragmentId> {
        let account = self.by_foreman.get(foreman);
        let account = account.filter(|it| it.cursor.is_none());
        account.map_or_else(Vec::new, |it| it.fragments.keys().copied().collect())
    }

    /// Whether something is to be told of a query.
    pub(crate) fn hold(&self, query: QueryId) -> bool {
        let mut accounts = self.by_foreman.values();
        accounts.any(|it| it.fragments.keys().any(|id| id.query == query))
    }

    /// Fragments that have ended, which their foremen do not know yet.
    pub(crate) fn ended(&self) -> usize {
        let entries = self
            .by_foreman
            .values()
            .flat_map(|it| it.fragments.values());
        entries.filter(|entry| is_final(entry.state)).count()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_foreman.is_empty()
    }
}

fn in_message(
    (query, stages): (QueryId, BTreeMap<i32, Vec<MinorFragmentProfile>>),
) -> QueryStatuses {
    let stage = |(major, minors): (i32, _)| MajorFragmentProfile {
        major_fragment_id: Some(major),
        minor_fragment_profile: minors,
    };
    QueryStatuses {
        query_id: Some(query.into()),
        fragment_profile: stages.into_iter().map(stage).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: QueryId = QueryId { part1: 1, part2: 1 };
    const SECOND: Duration = Duration::from_secs(1);

    fn reports() -> Reports {
        Reports::new(ReportTimes {
            interval: SECOND,
            keepalive: 10 * SECOND,
            patience: 30 * SECOND,
        })
    }

    fn foreman() -> NodeAddress {
        NodeAddress::new("foreman", 1).unwrap()
    }

    fn id(minor: i32) -> FragmentId {
        FragmentId::new(QUERY, 2, minor)
    }

    fn state(minor: i32, state: FragmentState) -> Report {
        Report {
            fragment: id(minor),
            foreman: foreman(),
            state,
            error: None,
            profile: None,
        }
    }

    /// What a message says: number and state of each fragment.
    fn said(message: &FragmentStatuses) -> Vec<(i32, Option<FragmentState>)> {
        let stages = message.query.iter().flat_map(|it| &it.fragment_profile);
        let minors = stages.flat_map(|it| &it.minor_fragment_profile);
        minors
            .map(|it| (it.minor_fragment_id(), it.state.map(|_| it.state())))
            .collect()
    }

    fn told(reports: &mut Reports, now: Instant) -> Vec<(i32, Option<FragmentState>)> {
        assert_eq!(reports.due(now), Some(foreman()));
        said(&reports.take(&foreman(), HashMap::new(), now).unwrap().1)
    }

    /// The last message is taken.
    fn taken(reports: &mut Reports, now: Instant) {
        let number = reports.next - 1;
        reports.on_taken(&foreman(), number, now);
    }

    #[test]
    fn an_answer_to_a_message_of_before_says_nothing_about_the_next_one() {
        let start = Instant::now();
        let mut reports = reports();
        reports.add(state(0, FragmentState::Finished), start);
        told(&mut reports, start);
        let before = reports.next - 1;
        reports.forget(&foreman());
        reports.add(state(1, FragmentState::Finished), start);
        told(&mut reports, start);
        reports.on_taken(&foreman(), before, start);
        assert!(!reports.on_failed(&foreman(), before, start + 100 * SECOND));
        assert_eq!(reports.ended(), 1);
        taken(&mut reports, start);
        assert!(reports.is_empty());
    }

    #[test]
    fn an_end_is_told_at_once_and_all_that_runs_once_per_interval() {
        let start = Instant::now();
        let mut reports = reports();
        for minor in 0..100 {
            reports.add(state(minor, FragmentState::Running), start);
        }
        assert_eq!(reports.due(start), None);
        assert_eq!(reports.next_timeout(), Some(start + SECOND));
        let ended = state(7, FragmentState::Finished);
        reports.add(ended, start + SECOND / 2);
        let first = told(&mut reports, start + SECOND / 2);
        assert_eq!(first.len(), 100);
        assert_eq!(first[0], (7, Some(FragmentState::Finished)));
        // One at a time: what happens meanwhile is in the next one.
        let ended = state(8, FragmentState::Failed);
        reports.add(ended, start + SECOND);
        assert_eq!(reports.next_timeout(), None);
        taken(&mut reports, start + SECOND);
        let next = told(&mut reports, start + SECOND);
        assert_eq!(next, [(8, Some(FragmentState::Failed))]);
        assert_eq!(reports.ended(), 1);
        taken(&mut reports, start + SECOND);
        assert_eq!(
            (reports.ended(), reports.looked_at(&foreman()).len()),
            (0, 98)
        );
    }

    #[test]
    fn only_what_has_changed_is_told_and_a_silent_foreman_is_asked_now_and_then() {
        let start = Instant::now();
        let mut reports = reports();
        reports.add(state(0, FragmentState::Running), start);
        told(&mut reports, start + SECOND);
        taken(&mut reports, start + SECOND);
        let grown = MinorFragmentProfile {
            memory_used: Some(5),
            ..MinorFragmentProfile::default()
        };
        let profiles = HashMap::from([(id(0), grown)]);
        let message = reports.take(&foreman(), profiles, start + 2 * SECOND);
        let (_, message) = message.unwrap();
        assert_eq!(said(&message), [(0, None)]);
        let profile = &message.query[0].fragment_profile[0].minor_fragment_profile[0];
        assert_eq!(profile.memory_used, Some(5));
        taken(&mut reports, start + 2 * SECOND);
        let silent = reports.take(&foreman(), HashMap::new(), start + 11 * SECOND);
        assert_eq!(silent, None);
        let message = reports.take(&foreman(), HashMap::new(), start + 12 * SECOND);
        let (_, message) = message.unwrap();
        assert_eq!(message.query[0].query_id, Some(QUERY.into()));
        assert!(message.query[0].fragment_profile.is_empty());
    }

    #[test]
    fn what_was_not_taken_is_told_again_until_the_foreman_counts_as_gone() {
        let start = Instant::now();
        let mut reports = reports();
        reports.add(state(0, FragmentState::Finished), start);
        let (mut now, mut tries) = (start, 0);
        loop {
            let again = told(&mut reports, now);
            assert_eq!(again, [(0, Some(FragmentState::Finished))]);
            tries += 1;
            let number = reports.next - 1;
            if reports.on_failed(&foreman(), number, now) {
                break;
            }
            now = reports.next_timeout().unwrap();
        }
        // Pauses of 0.1, 0.2, ... 3.2 s, then of 5 s.
        assert_eq!(tries, 12);
        assert!(now >= start + 30 * SECOND && now < start + 40 * SECOND);
        reports.forget(&foreman());
        assert!(reports.is_empty() && reports.next_timeout().is_none());
    }

    #[test]
    fn many_changes_are_told_in_several_messages() {
        let start = Instant::now();
        let mut reports = reports();
        for minor in 0..2500 {
            reports.add(state(minor, FragmentState::Finished), start);
        }
        for expected in [1000, 1000, 500] {
            assert_eq!(told(&mut reports, start).len(), expected);
            taken(&mut reports, start);
        }
        assert!(reports.is_empty());
    }

    /// Profiles of fragments that have all grown.
    fn grown(reports: &Reports, bytes: i64) -> HashMap<FragmentId, MinorFragmentProfile> {
        let grown = MinorFragmentProfile {
            memory_used: Some(bytes),
            ..MinorFragmentProfile::default()
        };
        let all = reports.looked_at(&foreman()).into_iter();
        all.map(|id| (id, grown.clone())).collect()
    }

    #[test]
    fn fragments_that_change_all_the_time_hold_up_neither_others_nor_ends() {
        let start = Instant::now();
        let mut reports = reports();
        for minor in 0..2500 {
            reports.add(state(minor, FragmentState::Running), start);
        }
        let other = QueryId { part1: 2, part2: 2 };
        let last = Report {
            fragment: FragmentId::new(other, 0, 0),
            ..state(0, FragmentState::Running)
        };
        reports.add(last, start);
        let (mut now, mut told) = (start + SECOND, BTreeMap::<i32, usize>::new());
        for bytes in 0..6 {
            if bytes == 1 {
                reports.add(state(2400, FragmentState::Failed), now);
            }
            assert_eq!(reports.due(now), Some(foreman()));
            let profiles = grown(&reports, bytes);
            let (_, message) = reports.take(&foreman(), profiles, now).unwrap();
            let named: Vec<_> = message.query.iter().map(|it| it.query_id).collect();
            assert_eq!(named, [Some(QUERY.into()), Some(other.into())]);
            let said = said(&message);
            assert!(said.len() <= FRAGMENTS_MAX);
            let has_failed = said.contains(&(2400, Some(FragmentState::Failed)));
            assert_eq!(has_failed, bytes == 1);
            for (minor, _) in said {
                *told.entry(minor).or_default() += 1;
            }
            taken(&mut reports, now);
            // A round has three messages, one after the other; the next one begins an interval later.
            let pause = if bytes % 3 == 2 {
                SECOND
            } else {
                Duration::ZERO
            };
            assert_eq!(reports.next_timeout(), Some(now + pause));
            now += pause;
        }
        assert_eq!(told.len(), 2500);
        assert_eq!(told.remove(&2400), Some(1));
        // The other query's only fragment has the number 0, too.
        assert_eq!(told.remove(&0), Some(4));
        assert!(told.values().all(|&times| times == 2), "{told:?}");
    }

    #[test]
    fn an_end_between_rounds_does_not_hurry_the_round() {
        let start = Instant::now();
        let mut reports = reports();
        for minor in 0..1500 {
            reports.add(state(minor, FragmentState::Running), start);
        }
        let mut now = start + SECOND;
        for expected in [1000, 500] {
            assert_eq!(told(&mut reports, now).len(), expected);
            taken(&mut reports, now);
        }
        now += SECOND / 2;
        reports.add(state(1400, FragmentState::Finished), now);
        let profiles = grown(&reports, 5);
        let (_, message) = reports.take(&foreman(), profiles, now).unwrap();
        let said = said(&message);
        assert_eq!(said.len(), 1000);
        assert!(said.contains(&(1400, Some(FragmentState::Finished))));
        taken(&mut reports, now);
        assert_eq!(reports.next_timeout(), Some(start + 2 * SECOND));
    }
}
