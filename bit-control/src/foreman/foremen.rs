//! Does what queries want: sends fragments and cancels, takes statuses, tells whoever waits.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use membership::NodeAddress;
use protos::{
    calls::control as calls,
    control::{FragmentStatuses, InitializeFragments, PlanFragment, QueryStatuses, StatusesTaken},
    coord::DrillbitEndpoint,
    error::{ErrorType, Retry},
    id::{FragmentId, QueryId},
    shared::{MinorFragmentProfile, QueryProfile, query_result::QueryState},
};
use rpc_bus::{
    BudgetExceeded, BusRuntime, CallError, Charge, CloseReason, Ledger, RpcFailure,
    ledger::{Kind, Limits},
    task::Tasks,
};
use tokio::sync::{Notify, watch};

use super::run::{Action, CancelAnswer, NotStarted, Outcome, QueryPlan, Run, RunTimes, Wave};
use crate::{
    heartbeat::{Health, Heartbeats},
    lock,
    node::{ControlNode, WeakControlNode},
    reply::ReplyTo,
    served::fragment_handle,
    services::{QueryService, unknown_query},
};

/// Limits and times of the queries whose foreman is this node.
#[derive(Clone, Copy, Debug)]
pub struct ForemenOptions {
    /// Queries at a time; one more is refused. Default 1,000.
    pub queries_max: usize,
    /// Bytes of plans that wait to be sent. Default 256 MiB.
    pub plan_bytes_max: usize,
    /// How long a query may take to end once that was decided; then it ends whatever its nodes say. Default 5 s.
    pub end_patience: Duration,
    /// How long nothing may be heard of a node that runs fragments before it counts as gone. It must be well above the
    /// nodes' `report_keepalive`. Default 60 s.
    pub silence_max: Duration,
    /// Profiles of queries that are kept after their end. Default 100.
    pub ended_max: usize,
}

impl Default for ForemenOptions {
    fn default() -> Self {
        Self {
            queries_max: 1000,
            plan_bytes_max: 256 << 20,
            end_patience: Duration::from_secs(5),
            silence_max: Duration::from_mins(1),
            ended_max: 100,
        }
    }
}

/// The queries whose foreman is this node. Clones are the same; the last one drops what still runs.
#[derive(Clone)]
pub struct Foremen(Arc<Inner>);

struct Inner {
    this: Weak<Self>,
    runtime: BusRuntime,
    ledger: Ledger,
    options: ForemenOptions,
    tasks: Tasks,
    /// Set once.
    node: OnceLock<WeakControlNode>,
    /// Set once, if nodes are watched.
    heartbeats: OnceLock<Heartbeats>,
    queries: Mutex<Queries>,
    /// The last query has ended.
    idle: Notify,
}

#[derive(Default)]
struct Queries {
    running: HashMap<QueryId, Arc<Query>>,
    /// The newest last.
    ended: VecDeque<(QueryId, QueryProfile)>,
}

struct Query {
    id: QueryId,
    state: Mutex<State>,
    /// Something is due earlier than it was.
    wake: Notify,
    stage: watch::Sender<Stage>,
    start: i64,
}

/// What whoever waits for a query waits for.
#[derive(Clone, Debug)]
enum Stage {
    Starting,
    Started,
    Ended(Outcome),
}

struct State {
    run: Run,
    /// Until they are sent.
    plans: HashMap<FragmentId, (Bytes, Charge)>,
    end: Option<i64>,
    /// Once it was decided.
    error: Option<Box<RpcFailure>>,
    was_cancelled: bool,
}

/// A query that runs. Dropped before it has ended, it is cancelled.
#[must_use = "a query that is dropped is cancelled"]
pub struct QueryRun {
    query: Arc<Query>,
    foremen: Weak<Inner>,
    stage: watch::Receiver<Stage>,
}

impl Foremen {
    /// Queries run once [`Self::attach`] has given them a node.
    #[must_use]
    pub fn new(runtime: BusRuntime, options: ForemenOptions, ledger: &Ledger) -> Self {
        let limits = Limits {
            bytes: Some(options.plan_bytes_max),
            ..Limits::default()
        };
        Self(Arc::new_cyclic(|this| Inner {
            this: this.clone(),
            runtime,
            ledger: ledger.child("queries", limits),
            options,
            tasks: Tasks::default(),
            node: OnceLock::new(),
            heartbeats: OnceLock::new(),
            queries: Mutex::default(),
            idle: Notify::new(),
        }))
    }

    /// Fragments are sent through `node`, which serves this. Once.
    pub fn attach(&self, node: &ControlNode) {
        self.0.node.get_or_init(|| node.downgrade());
    }

    /// Nodes that are down, as these find them, are given no fragments. Once.
    pub fn watch(&self, heartbeats: &Heartbeats) {
        self.0.heartbeats.get_or_init(|| heartbeats.clone());
    }

    /// Runs a query.
    ///
    /// # Errors
    ///
    /// Its plan has no fragment or one twice, its id is in use, a node of it is down, or a limit of this node is met;
    /// nothing was sent. With other nodes a plan that names one that is down may be run.
    pub fn run(&self, plan: QueryPlan) -> Result<QueryRun, Box<RpcFailure>> {
        let query = self.0.add(plan)?;
        self.0.step(&query, |_, _| {});
        Ok(QueryRun {
            stage: query.stage.subscribe(),
            query,
            foremen: Arc::downgrade(&self.0),
        })
    }

    /// Cancels a query; says whether it runs.
    pub fn cancel(&self, query: QueryId) -> bool {
        let Some(query) = self.0.query(query) else {
            return false;
        };
        self.0.step(&query, State::cancel);
        true
    }

    /// A node has gone: queries with fragments there fail. Who calls it:
    /// [`Heartbeats::on_down`](crate::heartbeat::Heartbeats::on_down).
    pub fn node_down(&self, node: &NodeAddress) {
        for query in self.0.all() {
            self.0
                .step(&query, |state, now| state.run.node_down(node, now));
        }
    }

    /// The profile of a query that runs, or that has ended not long ago.
    #[must_use]
    pub fn profile(&self, query: QueryId) -> Option<QueryProfile> {
        if let Some(query) = self.0.query(query) {
            return Some(query.profile(self.0.endpoint()));
        }
        let queries = lock(&self.0.queries);
        let ended = queries.ended.iter().rev().find(|(id, _)| *id == query);
        ended.map(|(_, profile)| profile.clone())
    }

    /// The queries that run.
    #[must_use]
    pub fn list(&self) -> Vec<QueryId> {
        let mut running: Vec<_> = self.0.all().iter().map(|query| query.id).collect();
        running.sort();
        running
    }

    /// Waits until no query runs.
    pub async fn drained(&self) {
        loop {
            let ended = self.0.idle.notified();
            if lock(&self.0.queries).running.is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Cancels all queries, and waits until they have ended, at most `grace`.
    pub async fn shutdown(&self, grace: Duration) {
        for query in self.0.all() {
            self.0.step(&query, State::cancel);
        }
        // Whatever is left is dropped.
        let _ = tokio::time::timeout(grace, self.drained()).await;
        self.0.tasks.join(Duration::ZERO).await;
    }
}

impl QueryRun {
    /// Which one.
    #[must_use]
    pub fn id(&self) -> QueryId {
        self.query.id
    }

    /// How it ends, once it has, everywhere.
    ///
    /// # Cancel safety
    ///
    /// May be waited for again.
    pub async fn outcome(&mut self) -> Outcome {
        let is_over = |stage: &Stage| matches!(stage, Stage::Ended(_));
        match self.stage.wait_for(is_over).await.as_deref() {
            Ok(Stage::Ended(outcome)) => outcome.clone(),
            _ => Outcome::Cancelled,
        }
    }

    /// Waits until all of its fragments have started, or it has ended; says whether they have.
    ///
    /// # Cancel safety
    ///
    /// May be waited for again.
    pub async fn started(&mut self) -> bool {
        let is_there = |stage: &Stage| !matches!(stage, Stage::Starting);
        let stage = self.stage.wait_for(is_there).await;
        stage.is_ok_and(|stage| matches!(*stage, Stage::Started))
    }

    /// Asks for its end.
    pub fn cancel(&self) {
        if let Some(foremen) = self.foremen.upgrade() {
            foremen.step(&self.query, State::cancel);
        }
    }
}

impl Drop for QueryRun {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Inner {
    fn expect_none_down(&self, nodes: &BTreeSet<NodeAddress>) -> Result<(), Box<RpcFailure>> {
        let Some(heartbeats) = self.heartbeats.get() else {
            return Ok(());
        };
        let mut down = nodes
            .iter()
            .filter(|node| heartbeats.health(node) == Some(Health::Down));
        match down.next() {
            Some(node) => Err(down_already(node)),
            None => Ok(()),
        }
    }

    /// Takes a query, with the task that keeps its time.
    fn add(&self, plan: QueryPlan) -> Result<Arc<Query>, Box<RpcFailure>> {
        let times = RunTimes {
            patience: self.options.end_patience,
            silence_max: self.options.silence_max,
        };
        let run = Run::try_new(&plan, times, now())?;
        let id = plan.query;
        let nodes: BTreeSet<_> = plan.fragments.iter().map(|it| it.node.clone()).collect();
        let mut plans = HashMap::new();
        for part in plan.fragments {
            let charge = self.ledger.charge(Kind::Bytes, part.plan.len());
            let charge = charge.map_err(|exceeded| full(exceeded.to_string()))?;
            let fragment = FragmentId::new(id, part.major, part.minor);
            plans.insert(fragment, (part.plan, charge));
        }
        let query = Arc::new(Query {
            id,
            state: Mutex::new(State {
                run,
                plans,
                end: None,
                error: None,
                was_cancelled: false,
            }),
            wake: Notify::new(),
            stage: watch::Sender::new(Stage::Starting),
            start: unix_millis(),
        });
        let mut queries = lock(&self.queries);
        let max = self.options.queries_max;
        if queries.running.len() >= max {
            return Err(full(format!("{max} queries run here already")));
        }
        if queries.running.contains_key(&id) {
            let message = format!("the query {id} runs here already");
            return Err(Box::new(RpcFailure::new(ErrorType::Validation, message)));
        }
        // While nobody can look at the list: whoever is told of a node that goes down after this finds the query there.
        self.expect_none_down(&nodes)?;
        // The last thing that can fail: a query that is listed may be cancelled, which sends what it has to send.
        let watch = Self::keep_time(self.this.clone(), Arc::clone(&query));
        self.spawn(watch)
            .map_err(|exceeded| full(exceeded.to_string()))?;
        queries.running.insert(id, Arc::clone(&query));
        Ok(query)
    }

    /// Changes something of a query, and does what follows from it.
    fn step(&self, query: &Arc<Query>, change: impl FnOnce(&mut State, Instant)) {
        let mut state = lock(&query.state);
        let before = state.run.next_timeout();
        change(&mut state, now());
        let actions: Vec<_> = std::iter::from_fn(|| state.run.poll_action()).collect();
        let after = state.run.next_timeout();
        if state.run.is_running() {
            query.stage.send_if_modified(Stage::start);
        }
        let works: Vec<_> = actions
            .into_iter()
            .map(|action| state.work(action))
            .collect();
        drop(state);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            query.wake.notify_one();
        }
        for work in works {
            self.run_work(query, work);
        }
    }

    fn run_work(&self, query: &Arc<Query>, work: Work) {
        match work {
            Work::Initialize(node, wave, fragments) => {
                self.initialize(query, &node, wave, fragments);
            }
            Work::Cancel(node) => self.cancel(query, &node),
            Work::End(outcome) => self.end(query, outcome),
        }
    }

    fn initialize(
        &self,
        query: &Arc<Query>,
        node: &NodeAddress,
        wave: Wave,
        fragments: Vec<(FragmentId, Bytes)>,
    ) {
        let here = self.endpoint();
        let part = |(id, plan)| plan_fragment(id, plan, (node, wave), &here);
        let request = InitializeFragments {
            fragment: fragments.into_iter().map(part).collect(),
        };
        let (this, query_of_task, to) = (self.this.clone(), Arc::clone(query), node.clone());
        let control = self.node();
        let send = async move {
            let result = match control {
                Some(control) => start_on(&control, &to, request).await,
                None => Err(CallError::Lost(CloseReason::ShuttingDown)),
            };
            let result = result.map_err(|error| not_started(&to, error));
            let Some(foremen) = this.upgrade() else {
                return;
            };
            foremen.step(&query_of_task, |state, now| {
                state.run.on_initialized(&to, wave, result, now);
            });
        };
        if let Err(exceeded) = self.spawn(send) {
            let result = Err(NotStarted {
                failure: full(exceeded.to_string()),
                is_certain: true,
            });
            self.step(query, |state, now| {
                state.run.on_initialized(node, wave, result, now);
            });
        }
    }

    fn cancel(&self, query: &Arc<Query>, node: &NodeAddress) {
        let (this, query_of_task, to) = (self.this.clone(), Arc::clone(query), node.clone());
        let control = self.node();
        let send = async move {
            let answer = match control {
                Some(control) => control.tunnel(&to).cancel_fragments(query_of_task.id).await,
                None => Err(CallError::Lost(CloseReason::ShuttingDown)),
            };
            let answer = CancelAnswer::of(answer.ok());
            if let Some(foremen) = this.upgrade() {
                foremen.step(&query_of_task, |state, now| {
                    state.run.on_cancelled(&to, answer, now);
                });
            }
        };
        if self.spawn(send).is_err() {
            self.step(query, |state, now| {
                state.run.on_cancelled(node, CancelAnswer::None, now);
            });
        }
    }

    fn end(&self, query: &Arc<Query>, outcome: Outcome) {
        {
            let mut state = lock(&query.state);
            state.end = Some(unix_millis());
            state.plans.clear();
            match &outcome {
                Outcome::Finished => {}
                Outcome::Failed(failure) => state.error = Some(failure.clone()),
                Outcome::Cancelled => state.was_cancelled = true,
            }
        }
        let profile = query.profile(self.endpoint());
        let is_idle = {
            let mut queries = lock(&self.queries);
            queries.running.remove(&query.id);
            queries.ended.push_back((query.id, profile));
            if queries.ended.len() > self.options.ended_max {
                queries.ended.pop_front();
            }
            queries.running.is_empty()
        };
        query.stage.send_replace(Stage::Ended(outcome));
        query.wake.notify_one();
        if is_idle {
            self.idle.notify_waiters();
        }
    }

    /// Does what is due, when it is due, until the query has ended.
    async fn keep_time(this: Weak<Self>, query: Arc<Query>) {
        loop {
            let next = {
                let Some(foremen) = this.upgrade() else {
                    return;
                };
                foremen.step(&query, |state, now| state.run.handle_timeout(now));
                let state = lock(&query.state);
                if state.run.is_ended() {
                    return;
                }
                state.run.next_timeout()
            };
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = query.wake.notified() => {}
            }
        }
    }

    fn take(&self, from: &NodeAddress, statuses: QueryStatuses) -> Result<(), QueryId> {
        let Some(Ok(id)) = statuses.query_id.map(QueryId::try_from) else {
            return Ok(());
        };
        let query = self.query(id).ok_or(id)?;
        let statuses = statuses.fragment_profile.into_iter().flat_map(|stage| {
            let major = stage.major_fragment_id();
            let minors = stage.minor_fragment_profile.into_iter();
            minors.map(move |it| (FragmentId::new(id, major, it.minor_fragment_id()), it))
        });
        self.step(&query, |state, now| {
            state.run.on_heard(from, now);
            for (fragment, delta) in statuses {
                state.run.on_status(from, fragment, delta, now);
            }
        });
        Ok(())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), BudgetExceeded> {
        self.tasks.spawn(self.runtime.app(), &self.ledger, task)
    }

    fn query(&self, id: QueryId) -> Option<Arc<Query>> {
        lock(&self.queries).running.get(&id).cloned()
    }

    fn all(&self) -> Vec<Arc<Query>> {
        lock(&self.queries).running.values().cloned().collect()
    }

    fn node(&self) -> Option<ControlNode> {
        self.node.get()?.upgrade()
    }

    fn endpoint(&self) -> DrillbitEndpoint {
        self.node()
            .map_or_else(DrillbitEndpoint::default, |node| node.endpoint())
    }
}

impl Stage {
    /// All have started; says whether that is news.
    fn start(&mut self) -> bool {
        let is_news = matches!(self, Self::Starting);
        if is_news {
            *self = Self::Started;
        }
        is_news
    }
}

/// An action with all that it takes.
enum Work {
    Initialize(NodeAddress, Wave, Vec<(FragmentId, Bytes)>),
    Cancel(NodeAddress),
    End(Outcome),
}

impl State {
    fn work(&mut self, action: Action) -> Work {
        match action {
            Action::Initialize(node, wave, fragments) => {
                let mut plan = |id| {
                    let plan = self.plans.remove(&id);
                    (id, plan.map(|(plan, _)| plan).unwrap_or_default())
                };
                let fragments = fragments.into_iter().map(&mut plan).collect();
                Work::Initialize(node, wave, fragments)
            }
            Action::Cancel(node) => Work::Cancel(node),
            Action::Ended(outcome) => Work::End(outcome),
        }
    }

    fn cancel(&mut self, now: Instant) {
        self.run.cancel(now);
    }

    fn query_state(&self) -> QueryState {
        match () {
            () if self.error.is_some() => QueryState::Failed,
            () if self.was_cancelled => QueryState::Canceled,
            () if self.run.is_ended() => QueryState::Completed,
            () if self.run.is_ending() => QueryState::CancellationRequested,
            () if self.run.is_running() => QueryState::Running,
            () => QueryState::Starting,
        }
    }
}

impl Query {
    fn profile(&self, foreman: DrillbitEndpoint) -> QueryProfile {
        let state = lock(&self.state);
        let (all, over) = state.run.counts();
        let count = |n| i32::try_from(n).unwrap_or(i32::MAX);
        QueryProfile {
            id: Some(self.id.into()),
            start: Some(self.start),
            end: state.end,
            foreman: Some(foreman),
            state: Some(state.query_state().into()),
            total_fragments: Some(count(all)),
            finished_fragments: Some(count(over)),
            fragment_profile: state.run.profiles(),
            error: state.error.as_ref().map(ToString::to_string),
            ..QueryProfile::default()
        }
    }
}

async fn start_on(
    control: &ControlNode,
    to: &NodeAddress,
    request: InitializeFragments,
) -> Result<(), CallError> {
    let tunnel = control.tunnel(to);
    tunnel.expect_control_streams().await?;
    tunnel.initialize_fragments(request).await
}

/// What a failed start says about what runs.
fn not_started(node: &NodeAddress, error: CallError) -> NotStarted {
    let is_certain = !matches!(
        error,
        CallError::Lost(_)
            | CallError::Timeout(_)
            | CallError::UnexpectedAnswer { .. }
            | CallError::MalformedAnswer(_)
    );
    let failure = match error {
        CallError::Remote(failure) => failure,
        error => {
            let message = format!("the node {node} could not be told to run fragments: {error}");
            let failure = RpcFailure::new(ErrorType::Connection, message);
            Box::new(failure.with_retry(Retry::OtherNode))
        }
    };
    NotStarted {
        failure,
        is_certain,
    }
}

fn plan_fragment(
    id: FragmentId,
    plan: Bytes,
    (node, wave): (&NodeAddress, Wave),
    foreman: &DrillbitEndpoint,
) -> PlanFragment {
    PlanFragment {
        handle: Some(fragment_handle(id)),
        leaf_fragment: Some(wave == Wave::Leaves),
        assignment: Some(DrillbitEndpoint {
            address: Some(node.host().to_owned()),
            control_port: Some(node.control_port().into()),
            ..DrillbitEndpoint::default()
        }),
        foreman: Some(foreman.clone()),
        plan: Some(plan),
        ..PlanFragment::default()
    }
}

fn down_already(node: &NodeAddress) -> Box<RpcFailure> {
    let message = format!("the node {node}, which is to run fragments, is down");
    let failure = RpcFailure::new(ErrorType::Connection, message);
    Box::new(failure.with_retry(Retry::OtherNode))
}

fn full(message: String) -> Box<RpcFailure> {
    let failure = RpcFailure::new(ErrorType::Resource, message);
    Box::new(failure.with_retry(Retry::SameNode))
}

/// The time, as tests turn it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Milliseconds since 1970, as profiles have them.
fn unix_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

impl QueryService for Foremen {
    fn fragment_status(
        &self,
        from: &NodeAddress,
        fragment: FragmentId,
        profile: MinorFragmentProfile,
        reply: ReplyTo<calls::FragmentStatus>,
    ) {
        if let Some(query) = self.0.query(fragment.query) {
            self.0.step(&query, |state, now| {
                state.run.on_status(from, fragment, profile, now);
            });
        }
        reply.acknowledge(true);
    }

    fn fragment_statuses(
        &self,
        from: &NodeAddress,
        statuses: FragmentStatuses,
        reply: ReplyTo<calls::FragmentStatuses>,
    ) {
        let taken = statuses.query.into_iter().map(|it| self.0.take(from, it));
        let unknown = taken.filter_map(Result::err).map(Into::into).collect();
        reply.send(StatusesTaken { unknown });
    }

    fn status(&self, _: &NodeAddress, query: QueryId, reply: ReplyTo<calls::QueryStatus>) {
        match self.profile(query) {
            Some(profile) => reply.send(profile),
            None => reply.fail(unknown_query(query)),
        }
    }

    fn cancel(&self, _: &NodeAddress, query: QueryId, reply: ReplyTo<calls::QueryCancel>) {
        let is_known = Self::cancel(self, query);
        reply.acknowledge(is_known);
    }
}

impl fmt::Debug for Foremen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foremen")
            .field("running", &lock(&self.0.queries).running.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for QueryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryRun")
            .field("query", &self.query.id)
            .finish_non_exhaustive()
    }
}
