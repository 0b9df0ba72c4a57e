//! Runs what the table says: starts and ends fragments, answers messages, and reports to foremen.

use std::{
    collections::HashMap,
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::{Duration, Instant},
};

use futures::FutureExt;
use membership::NodeAddress;
use protos::{
    calls::control as calls,
    control::{FragmentStatuses, InitializeFragments, PlanFragment},
    error::{ErrorType, Retry},
    id::{FragmentId, QueryId},
    shared::{FragmentState, MinorFragmentProfile},
};
use rpc_bus::{
    BudgetExceeded, BusRuntime, CallError, Charge, CloseReason, Ledger, RpcFailure,
    ledger::{Kind, Limits},
    task::Tasks,
};
use tokio::sync::{Notify, oneshot};

use super::{
    reports::{MessageNumber, ReportTimes, Reports},
    runner::{FragmentControl, FragmentRunner, FragmentTask, Started},
    table::{Action, MessageId, Table, TableLimits},
};
use crate::{
    lock,
    node::{ControlNode, WeakControlNode},
    reply::ReplyTo,
    served::fragment_id,
    services::FragmentService,
};

/// Limits and times of the fragments of a node.
#[derive(Clone, Copy, Debug)]
pub struct FragmentsOptions {
    /// Fragments at a time; more are refused, for the foreman to try elsewhere. Default 10,000.
    pub fragments_max: usize,
    /// Bytes of plans at a time. Default 256 MiB.
    pub plan_bytes_max: usize,
    /// How long a fragment may take to end once it was cancelled; then it is dropped. Default 500 ms.
    pub cancel_grace: Duration,
    /// How often foremen are told of what runs; of what has ended, at once. Default 1 s.
    pub report_interval: Duration,
    /// Longest silence towards a foreman, by which it knows that this node lives. Default 10 s.
    pub report_keepalive: Duration,
    /// How long a foreman may not be reached before its fragments end. Default 30 s.
    pub foreman_patience: Duration,
    /// Cancels that are remembered because they may have overtaken their start. Default 10,000.
    pub tombstones_max: usize,
    /// For how long. Default 10 min.
    pub tombstone_age: Duration,
}

impl Default for FragmentsOptions {
    fn default() -> Self {
        Self {
            fragments_max: 10_000,
            plan_bytes_max: 256 << 20,
            cancel_grace: Duration::from_millis(500),
            report_interval: Duration::from_secs(1),
            report_keepalive: Duration::from_secs(10),
            foreman_patience: Duration::from_secs(30),
            tombstones_max: 10_000,
            tombstone_age: Duration::from_mins(10),
        }
    }
}

/// A fragment that runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentInfo {
    /// Which one.
    pub id: FragmentId,
    /// Whose query it is of.
    pub foreman: NodeAddress,
    /// `None` while it is starting.
    pub state: Option<FragmentState>,
}

/// The fragments that run on this node. Clones are the same; the last one drops what still runs.
#[derive(Clone)]
pub struct Fragments(Arc<Inner>);

struct Inner {
    this: Weak<Self>,
    runner: Arc<dyn FragmentRunner>,
    runtime: BusRuntime,
    ledger: Ledger,
    tasks: Tasks,
    state: Mutex<State>,
    /// Where reports go; set once.
    node: OnceLock<WeakControlNode>,
    /// Something is due earlier than it was.
    wake: Arc<Notify>,
    /// Something has ended.
    idle: Notify,
}

struct State {
    table: Table,
    reports: Reports,
    live: HashMap<FragmentId, Live>,
    replies: HashMap<MessageId, ReplyTo<calls::InitializeFragments>>,
    next_message: u64,
}

/// A fragment's task, and how to reach it.
struct Live {
    /// Until it is started.
    waiting: Option<Waiting>,
    /// Once it has started.
    control: Option<Arc<dyn FragmentControl>>,
    /// Dropped, the task ends.
    _keep: oneshot::Sender<()>,
    _plan: Charge,
}

/// What to run, and what ends when it counts as ended.
type Waiting = (FragmentTask, oneshot::Receiver<()>);

/// Fragments that run, and how to reach them.
type Controls = Vec<(FragmentId, Arc<dyn FragmentControl>)>;

/// What is to be done once nothing is locked.
enum Effect {
    Spawn(Waiting),
    Cancel(Arc<dyn FragmentControl>),
    Answer(
        ReplyTo<calls::InitializeFragments>,
        Result<(), Box<RpcFailure>>,
    ),
}

impl Fragments {
    /// Runs fragments with `runner`, on the app runtime. Reports begin with [`Self::attach`].
    #[must_use]
    pub fn new(
        runner: Arc<dyn FragmentRunner>,
        runtime: BusRuntime,
        options: FragmentsOptions,
        ledger: &Ledger,
    ) -> Self {
        let limits = Limits {
            bytes: Some(options.plan_bytes_max),
            ..Limits::default()
        };
        let table = Table::new(TableLimits {
            fragments_max: options.fragments_max,
            grace: options.cancel_grace,
            tombstones_max: options.tombstones_max,
            tombstone_age: options.tombstone_age,
        });
        let reports = Reports::new(ReportTimes {
            interval: options.report_interval,
            keepalive: options.report_keepalive,
            patience: options.foreman_patience,
        });
        Self(Arc::new_cyclic(|this| Inner {
            this: this.clone(),
            runner,
            runtime,
            ledger: ledger.child("fragments", limits),
            tasks: Tasks::default(),
            state: Mutex::new(State {
                table,
                reports,
                live: HashMap::new(),
                replies: HashMap::new(),
                next_message: 0,
            }),
            node: OnceLock::new(),
            wake: Arc::default(),
            idle: Notify::new(),
        }))
    }

    /// From now on foremen are told through `node`, which serves this, what becomes of their fragments. Once.
    ///
    /// # Errors
    ///
    /// The ledger has no room for the task that does it.
    pub fn attach(&self, node: &ControlNode) -> Result<(), BudgetExceeded> {
        if self.0.node.set(node.downgrade()).is_err() {
            return Ok(());
        }
        self.0.spawn(Inner::keep_time(self.0.this.clone()))
    }

    /// What runs here, by query and fragment.
    #[must_use]
    pub fn list(&self) -> Vec<FragmentInfo> {
        let state = lock(&self.0.state);
        let info = |(id, foreman, state): (_, &NodeAddress, _)| FragmentInfo {
            id,
            foreman: foreman.clone(),
            state,
        };
        state.table.iter().map(info).collect()
    }

    /// A node has gone: what runs here for its queries ends, and it is told nothing any more. Who calls it:
    /// [`Heartbeats::on_down`](crate::heartbeat::Heartbeats::on_down).
    pub fn node_down(&self, node: &NodeAddress) {
        self.0.step(|state, now| state.node_down(node, now));
    }

    /// Refuses new fragments from now on, so that their foremen try elsewhere.
    pub fn begin_drain(&self) {
        self.0.step(|state, _| state.table.begin_drain());
    }

    /// Whether new fragments are refused.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        lock(&self.0.state).table.is_draining()
    }

    /// Waits until nothing runs here, and the foremen know.
    pub async fn drained(&self) {
        loop {
            let ended = self.0.idle.notified();
            if lock(&self.0.state).is_idle() {
                return;
            }
            ended.await;
        }
    }

    /// Refuses new fragments, cancels those that run, and waits until they have ended and their foremen know, at most
    /// `grace`.
    pub async fn shutdown(&self, grace: Duration) {
        self.0.step(|state, now| {
            state.table.begin_drain();
            state.table.cancel_all(now);
        });
        // Whatever is left is dropped.
        let _ = tokio::time::timeout(grace, self.drained()).await;
        self.0.tasks.join(Duration::ZERO).await;
    }
}

impl State {
    fn node_down(&mut self, node: &NodeAddress, now: Instant) {
        self.table.node_down(node, now);
        self.reports.forget(node);
    }

    fn is_idle(&self) -> bool {
        self.table.is_empty() && self.reports.is_empty()
    }

    /// What the table wants done.
    fn effects(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(action) = self.table.poll_action() {
            effects.extend(self.effect(action, now));
        }
        effects
    }

    fn effect(&mut self, action: Action, now: Instant) -> Option<Effect> {
        match action {
            Action::Start(id) => Some(Effect::Spawn(self.live.get_mut(&id)?.waiting.take()?)),
            Action::Cancel(id) => Some(Effect::Cancel(self.live.get(&id)?.control.clone()?)),
            Action::Abandon(id) => {
                self.live.remove(&id);
                None
            }
            Action::Acknowledge(id) => Some(Effect::Answer(self.replies.remove(&id)?, Ok(()))),
            Action::Refuse(id, failure) => {
                Some(Effect::Answer(self.replies.remove(&id)?, Err(failure)))
            }
            Action::Report(report) => {
                self.reports.add(*report, now);
                None
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let times = [self.table.next_timeout(), self.reports.next_timeout()];
        times.into_iter().flatten().min()
    }
}

impl Inner {
    /// Changes something, and does what follows from it.
    fn step<R>(&self, change: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut state = lock(&self.state);
        let now = now();
        let before = state.next_timeout();
        let result = change(&mut state, now);
        let effects = state.effects(now);
        let (after, is_idle) = (state.next_timeout(), state.is_idle());
        drop(state);
        for effect in effects {
            self.run_effect(effect);
        }
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.wake.notify_one();
        }
        if is_idle {
            self.idle.notify_waiters();
        }
        result
    }

    fn run_effect(&self, effect: Effect) {
        match effect {
            Effect::Spawn(waiting) => self.start(waiting),
            Effect::Cancel(control) => survive(|| control.cancel()).unwrap_or(()),
            Effect::Answer(reply, Ok(())) => reply.acknowledge(true),
            Effect::Answer(reply, Err(failure)) => reply.fail(*failure),
        }
    }

    fn start(&self, (task, abandoned): Waiting) {
        let (this, runner, id) = (self.this.clone(), Arc::clone(&self.runner), task.id);
        let run = async move {
            tokio::select! {
                biased;
                _ = abandoned => {}
                () = run(this, runner, task) => {}
            }
        };
        if let Err(exceeded) = self.spawn(run) {
            let failure = RpcFailure::new(ErrorType::Resource, exceeded.to_string());
            let failure = failure.with_retry(Retry::OtherNode);
            self.step(|state, now| state.on_started(id, Err(Box::new(failure)), now));
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), BudgetExceeded> {
        self.tasks.spawn(self.runtime.app(), &self.ledger, task)
    }

    /// Does what is due, when it is due.
    async fn keep_time(this: Weak<Self>) {
        let Some(wake) = this.upgrade().map(|inner| Arc::clone(&inner.wake)) else {
            return;
        };
        loop {
            let Some(inner) = this.upgrade() else { return };
            inner.step(|state, now| state.table.handle_timeout(now));
            inner.send_reports();
            let next = lock(&inner.state).next_timeout();
            drop(inner);
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = wake.notified() => {}
            }
        }
    }

    fn send_reports(&self) {
        let now = now();
        while let Some((foreman, controls)) = self.due(now) {
            // The engine's own code: not under our lock.
            let look = |(id, control): (FragmentId, Arc<dyn FragmentControl>)| {
                Some((id, survive(|| control.profile())?))
            };
            let profiles = controls.into_iter().filter_map(look).collect();
            let message = lock(&self.state).reports.take(&foreman, profiles, now);
            if let Some((number, message)) = message {
                self.send(&foreman, number, message);
            }
        }
    }

    /// A foreman that is to be told something, and the fragments that run for it, if they are to be looked at.
    fn due(&self, now: Instant) -> Option<(NodeAddress, Controls)> {
        let state = lock(&self.state);
        let foreman = state.reports.due(now)?;
        let fragments = state.reports.looked_at(&foreman).into_iter();
        let control = |id| Some((id, state.live.get(&id)?.control.clone()?));
        Some((foreman, fragments.filter_map(control).collect()))
    }

    fn send(&self, foreman: &NodeAddress, number: MessageNumber, message: FragmentStatuses) {
        let (this, node) = (self.this.clone(), self.node.get().cloned());
        let to = foreman.clone();
        let send = async move {
            let node = node.and_then(|node| node.upgrade());
            let taken = match node {
                Some(node) => node.tunnel(&to).fragment_statuses(message).await,
                None => Err(CallError::Lost(CloseReason::ShuttingDown)),
            };
            if let Some(inner) = this.upgrade() {
                inner.step(|state, now| state.on_told(&to, number, taken, now));
            }
        };
        if self.spawn(send).is_err() {
            self.step(|state, now| {
                let failed = Err(CallError::Lost(CloseReason::Aborted));
                state.on_told(foreman, number, failed, now);
            });
        }
    }
}

impl State {
    fn on_told(
        &mut self,
        foreman: &NodeAddress,
        number: MessageNumber,
        taken: Result<Vec<QueryId>, CallError>,
        now: Instant,
    ) {
        match taken {
            Ok(unknown) => {
                self.reports.on_taken(foreman, number, now);
                for query in unknown {
                    self.table.cancel_orphans(foreman, query, now);
                }
            }
            Err(error) => {
                tracing::debug!(%foreman, %error, "a foreman was not told of its fragments");
                if self.reports.on_failed(foreman, number, now) {
                    tracing::warn!(%foreman, %error, "a foreman cannot be reached: its fragments end");
                    self.node_down(foreman, now);
                }
            }
        }
    }

    fn on_started(
        &mut self,
        id: FragmentId,
        result: Result<Arc<dyn FragmentControl>, Box<RpcFailure>>,
        now: Instant,
    ) -> bool {
        let (control, result) = match result {
            Ok(control) => (Some(control), Ok(())),
            Err(failure) => (None, Err(failure)),
        };
        if let (Some(live), Some(control)) = (self.live.get_mut(&id), control) {
            live.control = Some(control);
        }
        let runs = self.table.on_started(id, result, now);
        if !runs {
            self.live.remove(&id);
        }
        runs
    }

    fn on_ended(
        &mut self,
        id: FragmentId,
        result: Result<(), Box<RpcFailure>>,
        profile: MinorFragmentProfile,
    ) {
        self.live.remove(&id);
        self.table.on_ended(id, result, profile);
    }

    fn initialize(
        &mut self,
        foreman: &NodeAddress,
        tasks: Vec<(FragmentTask, Charge)>,
        reply: ReplyTo<calls::InitializeFragments>,
        now: Instant,
    ) -> Result<(), Refused> {
        let ids: Vec<_> = tasks.iter().map(|(task, _)| task.id).collect();
        let (id, held) = (MessageId(self.next_message), self.reports.ended());
        self.next_message += 1;
        if let Err(failure) = self.table.initialize(id, foreman, &ids, held, now) {
            return Err((reply, failure));
        }
        self.replies.insert(id, reply);
        for (task, plan) in tasks {
            let (keep, abandoned) = oneshot::channel();
            let live = Live {
                waiting: Some((task.clone(), abandoned)),
                control: None,
                _keep: keep,
                _plan: plan,
            };
            self.live.insert(task.id, live);
        }
        Ok(())
    }
}

type Refused = (ReplyTo<calls::InitializeFragments>, Box<RpcFailure>);

/// A fragment from its start to its end.
async fn run(this: Weak<Inner>, runner: Arc<dyn FragmentRunner>, task: FragmentTask) {
    let id = task.id;
    let start = async { runner.start(task).await };
    let started = survived(AssertUnwindSafe(start).catch_unwind().await, id);
    drop(runner);
    let (started, run) = match started {
        Ok(Started { control, run }) => (Ok(Arc::clone(&control)), Some((control, run))),
        Err(failure) => (Err(failure), None),
    };
    let step = |inner: Arc<Inner>| inner.step(|state, now| state.on_started(id, started, now));
    let (Some(true), Some((control, run))) = (this.upgrade().map(step), run) else {
        return;
    };
    let result = survived(AssertUnwindSafe(run).catch_unwind().await, id);
    let profile = survive(|| control.profile()).unwrap_or_default();
    if let Some(inner) = this.upgrade() {
        inner.step(|state, _| state.on_ended(id, result, profile));
    }
}

/// A panic fails the fragment.
fn survived<T>(
    result: std::thread::Result<Result<T, Box<RpcFailure>>>,
    id: FragmentId,
) -> Result<T, Box<RpcFailure>> {
    result.unwrap_or_else(|_| {
        tracing::error!(fragment = %id, "the engine panicked");
        let message = format!("the engine panicked in the fragment {id}");
        Err(Box::new(RpcFailure::new(ErrorType::InternalError, message)))
    })
}

/// Runs the engine's code; a panic is its own.
fn survive<T>(foreign: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(AssertUnwindSafe(foreign))
        .inspect_err(|_| tracing::error!("a fragment's control panicked"))
        .ok()
}

/// The time, as tests turn it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl FragmentService for Fragments {
    fn initialize(
        &self,
        from: &NodeAddress,
        request: InitializeFragments,
        reply: ReplyTo<calls::InitializeFragments>,
    ) {
        let inner = &self.0;
        let task = |fragment| {
            let task = read(from, fragment)?;
            let plan = inner.ledger.charge(Kind::Bytes, task.plan.len());
            let full = |exceeded: BudgetExceeded| {
                let failure = RpcFailure::new(ErrorType::Resource, exceeded.to_string());
                Box::new(failure.with_retry(Retry::OtherNode))
            };
            Ok((task, plan.map_err(full)?))
        };
        let tasks: Result<Vec<_>, Box<RpcFailure>> =
            request.fragment.into_iter().map(task).collect();
        let taken = match tasks {
            Ok(tasks) => inner.step(|state, now| state.initialize(from, tasks, reply, now)),
            Err(failure) => Err((reply, failure)),
        };
        if let Err((reply, failure)) = taken {
            reply.fail(*failure);
        }
    }

    fn cancel(&self, _: &NodeAddress, fragment: FragmentId, reply: ReplyTo<calls::CancelFragment>) {
        self.0.step(|state, now| state.table.cancel(fragment, now));
        reply.acknowledge(true);
    }

    fn cancel_query(
        &self,
        _: &NodeAddress,
        query: QueryId,
        reply: ReplyTo<calls::CancelFragments>,
    ) {
        let is_left = self.0.step(|state, now| {
            state.table.cancel_query(query, now);
            state.table.holds(query) || state.reports.hold(query)
        });
        reply.acknowledge(is_left);
    }

    fn unpause(
        &self,
        _: &NodeAddress,
        fragment: FragmentId,
        reply: ReplyTo<calls::UnpauseFragment>,
    ) {
        if let Some(control) = self.0.control(fragment) {
            survive(|| control.unpause());
        }
        reply.acknowledge(true);
    }

    fn receiver_finished(
        &self,
        _: &NodeAddress,
        receiver: FragmentId,
        sender: FragmentId,
        reply: ReplyTo<calls::ReceiverFinished>,
    ) {
        if let Some(control) = self.0.control(sender) {
            survive(|| control.receiver_finished(receiver));
        }
        reply.acknowledge(true);
    }
}

impl Inner {
    fn control(&self, fragment: FragmentId) -> Option<Arc<dyn FragmentControl>> {
        lock(&self.state).live.get(&fragment)?.control.clone()
    }
}

/// Reads a fragment of a foreman of our own kind.
fn read(from: &NodeAddress, fragment: PlanFragment) -> Result<FragmentTask, Box<RpcFailure>> {
    let refused = |kind, message: String| Err(Box::new(RpcFailure::new(kind, message)));
    let Some(id) = fragment_id(fragment.handle) else {
        let message = "a fragment without a whole handle".to_owned();
        return refused(ErrorType::Validation, message);
    };
    let foreman = fragment.foreman.as_ref().map(NodeAddress::of);
    if foreman.is_some_and(|foreman| foreman.as_ref() != Ok(from)) {
        let message = format!("the fragment {id} came from {from}, which is not its foreman");
        return refused(ErrorType::Validation, message);
    }
    match (fragment.plan, fragment.fragment_json) {
        (Some(plan), None) => Ok(FragmentTask {
            id,
            foreman: from.clone(),
            is_leaf: fragment.leaf_fragment.unwrap_or_default(),
            plan,
        }),
        (_, Some(_)) => {
            let message = format!(
                "the fragment {id} is a plan of Drill's operators (fragment_json), which cannot be run here; expected \
                 a plan of our own engine"
            );
            refused(ErrorType::UnsupportedOperation, message)
        }
        (None, None) => refused(
            ErrorType::Validation,
            format!("the fragment {id} has no plan"),
        ),
    }
}

impl fmt::Debug for Fragments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.0.state);
        f.debug_struct("Fragments")
            .field("running", &state.table.len())
            .field("is_draining", &state.table.is_draining())
            .finish_non_exhaustive()
    }
}
