//! One node: what runs on it, what it is foreman of, and what it sends.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use membership::NodeAddress;
use protos::{control::FragmentStatuses, id::FragmentId, id::QueryId};
use rpc_bus::RpcFailure;

use super::engine::Engine;
use crate::{
    foreman::run::{Action as QueryAction, Outcome, Run, RunTimes, Wave},
    fragments::{
        reports::{MessageNumber, ReportTimes, Reports},
        table::{Action, MessageId, Table, TableLimits},
    },
};

pub(super) const RUN_TIMES: RunTimes = RunTimes {
    patience: Duration::from_secs(5),
    silence_max: Duration::from_mins(1),
};

/// What one node asks of another.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Initialize(QueryId, Wave, Vec<FragmentId>),
    Cancel(QueryId),
    Statuses(MessageNumber, FragmentStatuses),
}

/// What it answers.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Done,
    /// To a cancel: whether something is left of the query.
    Cancelled(bool),
    Unknown(Vec<QueryId>),
    Failed(Box<RpcFailure>),
}

/// What a node wants done outside of it.
#[derive(Debug)]
pub(super) enum Effect {
    Call(NodeAddress, Request),
    Answer(u64, Reply),
    Start(FragmentId),
    Cancel(FragmentId),
    Abandon(FragmentId),
}

pub(super) struct Node {
    pub(super) table: Table,
    pub(super) reports: Reports,
    pub(super) runs: BTreeMap<QueryId, Run>,
    pub(super) engine: Engine,
    /// Calls that wait for a message of fragments.
    waiting: BTreeMap<MessageId, (u64, Vec<FragmentId>)>,
    answered: BTreeSet<MessageId>,
    next_message: u64,
    /// How queries have ended.
    pub(super) outcomes: Vec<(QueryId, Outcome)>,
}

impl Node {
    pub(super) fn new() -> Self {
        Self {
            table: Table::new(TableLimits {
                fragments_max: 1000,
                grace: Duration::from_millis(500),
                tombstones_max: 1000,
                tombstone_age: Duration::from_mins(10),
            }),
            reports: Reports::new(ReportTimes {
                interval: Duration::from_secs(1),
                keepalive: Duration::from_secs(10),
                patience: Duration::from_secs(30),
            }),
            runs: BTreeMap::new(),
            engine: Engine::default(),
            waiting: BTreeMap::new(),
            answered: BTreeSet::new(),
            next_message: 0,
            outcomes: Vec::new(),
        }
    }

    pub(super) fn on_request(
        &mut self,
        from: &NodeAddress,
        call: u64,
        request: Request,
        now: Instant,
    ) -> Option<Reply> {
        match request {
            Request::Initialize(_, _, fragments) => {
                let id = MessageId(self.next_message);
                self.next_message += 1;
                let held = self.reports.ended();
                match self.table.initialize(id, from, &fragments, held, now) {
                    Ok(()) => {
                        self.waiting.insert(id, (call, fragments));
                        None
                    }
                    Err(failure) => Some(Reply::Failed(failure)),
                }
            }
            Request::Cancel(query) => {
                self.table.cancel_query(query, now);
                let is_left = self.table.holds(query) || self.reports.hold(query);
                Some(Reply::Cancelled(is_left))
            }
            Request::Statuses(_, statuses) => Some(Reply::Unknown(self.take(from, statuses, now))),
        }
    }

    fn take(
        &mut self,
        from: &NodeAddress,
        statuses: FragmentStatuses,
        now: Instant,
    ) -> Vec<QueryId> {
        let mut unknown = Vec::new();
        for of_query in statuses.query {
            let query = QueryId::try_from(of_query.query_id.unwrap()).unwrap();
            let Some(run) = self.runs.get_mut(&query) else {
                unknown.push(query);
                continue;
            };
            run.on_heard(from, now);
            for stage in of_query.fragment_profile {
                let major = stage.major_fragment_id();
                for minor in stage.minor_fragment_profile {
                    let id = FragmentId::new(query, major, minor.minor_fragment_id());
                    run.on_status(from, id, minor, now);
                }
            }
        }
        unknown
    }

    pub(super) fn node_down(&mut self, node: &NodeAddress, now: Instant) {
        self.table.node_down(node, now);
        self.reports.forget(node);
        for run in self.runs.values_mut() {
            run.node_down(node, now);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.table.handle_timeout(now);
        for run in self.runs.values_mut() {
            run.handle_timeout(now);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let runs = self.runs.values().map(Run::next_timeout);
        let own = [self.table.next_timeout(), self.reports.next_timeout()];
        own.into_iter().chain(runs).flatten().min()
    }

    /// What follows from what has happened.
    pub(super) fn effects(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(action) = self.table.poll_action() {
            effects.extend(self.effect(action, now));
        }
        while let Some(foreman) = self.reports.due(now) {
            let message = self.reports.take(&foreman, HashMap::new(), now);
            let message = message.map(|(number, it)| Request::Statuses(number, it));
            effects.extend(message.map(|message| Effect::Call(foreman, message)));
        }
        let Self { runs, outcomes, .. } = self;
        for (&query, run) in runs.iter_mut() {
            while let Some(action) = run.poll_action() {
                effects.extend(match action {
                    QueryAction::Initialize(node, wave, fragments) => {
                        let request = Request::Initialize(query, wave, fragments);
                        Some(Effect::Call(node, request))
                    }
                    QueryAction::Cancel(node) => Some(Effect::Call(node, Request::Cancel(query))),
                    QueryAction::Ended(outcome) => {
                        outcomes.push((query, outcome));
                        None
                    }
                });
            }
        }
        runs.retain(|_, run| !run.is_ended());
        effects
    }

    fn effect(&mut self, action: Action, now: Instant) -> Option<Effect> {
        match action {
            Action::Start(id) => Some(Effect::Start(id)),
            Action::Cancel(id) => Some(Effect::Cancel(id)),
            Action::Abandon(id) => Some(Effect::Abandon(id)),
            Action::Acknowledge(id) => {
                let (call, _) = self.answer(id);
                Some(Effect::Answer(call, Reply::Done))
            }
            Action::Refuse(id, failure) => {
                let (call, fragments) = self.answer(id);
                let mut running = self.table.iter();
                assert!(
                    running.all(|(id, ..)| !fragments.contains(&id)),
                    "nothing of a refused message is to run"
                );
                Some(Effect::Answer(call, Reply::Failed(failure)))
            }
            Action::Report(report) => {
                self.reports.add(*report, now);
                None
            }
        }
    }

    fn answer(&mut self, id: MessageId) -> (u64, Vec<FragmentId>) {
        assert!(self.answered.insert(id), "{id:?} was answered twice");
        self.waiting.remove(&id).expect("it was asked")
    }

    /// Nothing is left of anything.
    pub(super) fn assert_idle(&self, seed: u64) {
        assert!(self.table.is_empty(), "seed {seed}: {:?}", self.table);
        assert!(self.reports.is_empty(), "seed {seed}: {:?}", self.reports);
        assert!(self.runs.is_empty(), "seed {seed}: {:?}", self.runs);
        assert!(self.waiting.is_empty(), "seed {seed}: {:?}", self.waiting);
        let live = &self.engine.live;
        assert!(live.is_empty(), "seed {seed}: {live:?}");
        let timeout = self.next_timeout();
        assert_eq!(timeout, None, "seed {seed}");
    }
}
