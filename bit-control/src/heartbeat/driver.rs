//! The task that runs the monitor: members from the registry, beats over control connections, the clocks.

use std::{
    collections::HashMap,
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use membership::{Event, Learned, Member, NodeAddress, Registry};
use rpc_bus::{CallError, RemoteConnection, RoundTripStats};
use thiserror::Error;
use tokio::sync::broadcast;

use super::{
    beat::{ANNOUNCEMENT, News, Outcome, Sender},
    monitor::{Due, HealthEvent, Monitor},
    node::{Health, NodeHealth},
    options::{BeatOptions, BeatOptionsError},
    skew::{Exchange, micros},
    status::{learned, status_of},
};
use crate::{lock, node::ControlNode};

/// Events that a watcher may be behind before it has missed some. Some 200 bytes each, shared by all watchers.
const EVENTS_MAX: usize = 1024;

/// The ways to other nodes.
#[async_trait]
pub trait PeerLinks: Send + Sync + 'static {
    /// The control connection with a node; made if there is none.
    ///
    /// # Errors
    /// None could be made.
    async fn connection(&self, to: &NodeAddress) -> Result<RemoteConnection, CallError>;

    /// The control connection with a node that [`Self::connection`] would give, if there is one. Must not wait.
    fn open(&self, to: &NodeAddress) -> Option<RemoteConnection> {
        let _ = to;
        None
    }

    /// Closes all control connections with a node, which fails the calls on them: it is down.
    fn disconnect(&self, node: &NodeAddress);

    /// What other connections with a node tell, those of the data plane above all. Asked at every beat; must not wait.
    fn signs(&self, node: &NodeAddress) -> Option<Signs> {
        let _ = node;
        None
    }
}

#[async_trait]
impl PeerLinks for ControlNode {
    async fn connection(&self, to: &NodeAddress) -> Result<RemoteConnection, CallError> {
        self.tunnel(to).connection().await
    }

    fn open(&self, to: &NodeAddress) -> Option<RemoteConnection> {
        self.inner_peers().open(to)
    }

    fn disconnect(&self, node: &NodeAddress) {
        Self::disconnect(self, node);
    }
}

/// Signs of life on other connections than those of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// When anything came from the node last, on any of them.
    pub last_received: Instant,
    /// Round trips on one of them.
    pub round_trips: Option<RoundTripStats>,
}

/// Watches over all members of a registry. Clones are the same.
///
/// [Run](Self::run) it in a task, best on an I/O thread: there it is as little held up as the connections themselves,
/// and wakes no other thread for a beat. A [`BeatAnswerer`](super::BeatAnswerer) answers the beats of others.
#[derive(Clone)]
pub struct Heartbeats(Arc<Shared>);

/// What the task, the answerer and all that ask have in common.
pub(super) struct Shared {
    registry: Registry,
    options: BeatOptions,
    /// Held for as long as it takes to look at every node.
    monitor: Mutex<Monitor>,
    events: broadcast::Sender<HealthEvent>,
    /// Where this node's monotonic clock starts, as it is told to others.
    began: Instant,
    /// What this node has said of itself last, and the same encoded.
    said: Mutex<Option<(Arc<Member>, Bytes)>>,
}

/// A watcher did not keep up: it knows nothing of the events between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{count} events were missed; how nodes are now is still known")]
pub struct MissedEvents {
    /// How many.
    pub count: u64,
}

/// Changes of health, in order.
#[derive(Debug)]
pub struct HealthWatch(broadcast::Receiver<HealthEvent>);

impl HealthWatch {
    /// The next one; `None` once the [`Heartbeats`] are gone.
    ///
    /// # Errors
    /// The watcher is more than 1,024 events behind: it goes on with the oldest that is left, and should look at
    /// [`Heartbeats::nodes`].
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping the future.
    pub async fn next(&mut self) -> Option<Result<HealthEvent, MissedEvents>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Err(MissedEvents { count })),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Heartbeats {
    /// Watches over the members of `registry`, once it runs.
    ///
    /// # Errors
    /// The options cannot work.
    pub fn new(registry: Registry, options: BeatOptions) -> Result<Self, BeatOptionsError> {
        options.validate()?;
        let now = now();
        let monitor = Monitor::new(&options, versions(&registry), now);
        Ok(Self(Arc::new(Shared {
            registry,
            options,
            monitor: Mutex::new(monitor),
            events: broadcast::Sender::new(EVENTS_MAX),
            began: now,
            said: Mutex::default(),
        })))
    }

    /// Watches until it is dropped. To be run once at a time.
    pub async fn run(&self, links: Arc<dyn PeerLinks>) {
        let shared = &self.0;
        *shared.monitor() = Monitor::new(&shared.options, versions(&shared.registry), now());
        let (members, mut watch) = shared.registry.watch();
        let mut driver = Driver::new(shared, links);
        for member in members {
            driver.join(&member.address);
        }
        let mut deadline = driver.step();
        let mut sleep = pin!(tokio::time::sleep_until(deadline.into()));
        loop {
            tokio::select! {
                biased;
                Some(outcome) = driver.beats.next() => driver.on_outcomes(outcome),
                event = watch.next() => driver.on_member(&event),
                () = &mut sleep => driver.poll(),
            }
            let next = driver.step();
            if next != deadline || sleep.is_elapsed() {
                deadline = next;
                sleep.as_mut().reset(deadline.into());
            }
        }
    }

    /// Tells all nodes that are up what this node says of itself now, which others learn with the next beats else: for
    /// one that leaves. Waits for their answers, at most `patience`.
    pub async fn announce(&self, links: Arc<dyn PeerLinks>, patience: Duration) {
        let nodes = self.nodes().into_iter();
        let ours = nodes.filter(|node| node.health == Health::Up && !node.is_drill);
        let sender = Sender::new(&self.0, &links, patience);
        let telling = ours.map(|node| {
            sender.clone().send(Due {
                address: node.address,
                sequence: ANNOUNCEMENT,
            })
        });
        join_all(telling).await;
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// How a node is; `None` of this one, and of one that is no member.
    #[must_use]
    pub fn health(&self, node: &NodeAddress) -> Option<Health> {
        self.0.monitor().health(node)
    }

    /// Everything that is known of the health of all others, by address.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeHealth> {
        self.0.monitor().nodes(now())
    }

    /// Changes of health from now on.
    #[must_use]
    pub fn watch(&self) -> HealthWatch {
        HealthWatch(self.0.events.subscribe())
    }

    /// How much later than it should this task has run, together: what a busy or stopped process costs.
    #[must_use]
    pub fn stalled(&self) -> Duration {
        self.0.monitor().stalled()
    }
}

impl fmt::Debug for Heartbeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeats")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What this node says of itself, encoded anew only when it has changed.
    pub(super) fn status(&self) -> Option<Bytes> {
        let local = self.registry.local()?;
        let mut said = lock(&self.said);
        if let Some((member, status)) = &*said
            && Arc::ptr_eq(member, &local)
        {
            return Some(status.clone());
        }
        let status = status_of(&local);
        *said = Some((local, status.clone()));
        Some(status)
    }

    /// Microseconds of this node's monotonic clock.
    pub(super) fn monotonic_us(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.began))
    }

    /// A node beats us: it lives, if it is the process that answers us. Whoever holds the lock now judges later.
    pub(super) fn on_beat(&self, from: &NodeAddress, incarnation: Option<u64>) {
        if let Ok(mut monitor) = self.monitor.try_lock()
            && incarnation.is_some()
            && monitor.incarnation(from) == incarnation
        {
            let now = now();
            monitor.on_heard(from, now, now);
        }
    }

    /// A node says out of turn what it has become: believed of the process that answers us.
    pub(super) fn on_announcement(&self, from: &NodeAddress, learned: &Learned) {
        if self.monitor().incarnation(from) == Some(learned.incarnation) {
            self.registry.learn(from, learned);
        }
    }

    fn monitor(&self) -> MutexGuard<'_, Monitor> {
        lock(&self.monitor)
    }
}

/// The task's own part.
struct Driver<'a> {
    shared: &'a Arc<Shared>,
    links: Arc<dyn PeerLinks>,
    /// How long the answer to a beat may take.
    patience: Duration,
    beats: FuturesUnordered<BoxFuture<'static, Outcome>>,
    /// The connections on which beats were sent last.
    lines: HashMap<NodeAddress, RemoteConnection>,
    /// What nodes have said of themselves last: said again, it is not read again.
    said: HashMap<NodeAddress, (Bytes, Learned)>,
}

impl<'a> Driver<'a> {
    fn new(shared: &'a Arc<Shared>, links: Arc<dyn PeerLinks>) -> Self {
        Self {
            shared,
            links,
            patience: shared.options.timing().down_after,
            beats: FuturesUnordered::new(),
            lines: HashMap::new(),
            said: HashMap::new(),
        }
    }

    fn join(&self, address: &NodeAddress) {
        let local = self.shared.registry.local();
        if local.is_none_or(|local| &local.address != address) {
            self.shared.monitor().join(address, now());
        }
    }

    fn on_member(&mut self, event: &Event) {
        let address = event.address();
        // What was learned may have been forgotten, or something else learned since.
        self.said.remove(address);
        match event {
            Event::Joined(_) => self.join(address),
            // One that was started again has left and joined, and is watched all the while.
            Event::Left(_) if self.shared.registry.member(address).is_none() => {
                self.shared.monitor().leave(address);
                self.lines.remove(address);
            }
            Event::Left(_) | Event::Changed { .. } => {}
        }
    }

    fn poll(&mut self) {
        self.look();
        self.shared.monitor().poll(now());
    }

    /// Looks at the connections for signs of life, and for their end.
    fn look(&mut self) {
        let mut monitor = self.shared.monitor();
        let now = now();
        self.lines.retain(|address, line| {
            let open = !line.is_closed();
            monitor.on_heard(address, line.last_received(), now);
            if !open {
                monitor.on_closed(address, now);
            }
            open
        });
        monitor.on_signs(now, |address| self.links.signs(address));
    }

    /// What has come of a beat, and of all others that have ended by now: most are sent, and answered, together.
    fn on_outcomes(&mut self, first: Outcome) {
        let shared = Arc::clone(self.shared);
        let mut monitor = shared.monitor();
        self.on_outcome(&mut monitor, first);
        while let Some(Some(outcome)) = self.beats.next().now_or_never() {
            self.on_outcome(&mut monitor, outcome);
        }
    }

    fn on_outcome(&mut self, monitor: &mut Monitor, outcome: Outcome) {
        let Outcome { due, line, news } = outcome;
        let now = now();
        match news {
            News::Answered { exchange, status } => {
                self.on_answer(monitor, &due, &exchange, status);
            }
            News::Pong(round_trip) => {
                monitor.on_drill(&due.address, now);
                monitor.on_pong(&due, round_trip, now);
            }
            News::Refused(error) => monitor.on_refused(&due, error, now),
            News::Lost => monitor.on_lost(&due, now),
            News::Failed(error) => on_error(monitor, &due, &error),
            News::Unanswered => monitor.on_unanswered(&due, now),
        }
        if let Some(line) = line
            && self.lines.get(&due.address).map(RemoteConnection::id) != Some(line.id())
            && monitor.health(&due.address).is_some()
            && !line.is_closed()
        {
            self.lines.insert(due.address, line);
        }
    }

    fn on_answer(
        &mut self,
        monitor: &mut Monitor,
        due: &Due,
        exchange: &Exchange,
        status: Option<Bytes>,
    ) {
        let said = self.said.get(&due.address);
        let said = said.filter(|(before, _)| Some(before) == status.as_ref());
        if let Some((_, learned)) = said {
            monitor.on_answer(
                due,
                exchange,
                Some(learned.incarnation),
                versions_of(learned),
            );
            return;
        }
        let learned = match learned(status.clone()) {
            Ok(learned) => learned,
            Err(error) => return on_error(monitor, due, &error.to_string()),
        };
        let incarnation = Some(learned.incarnation);
        if monitor.on_answer(due, exchange, incarnation, versions_of(&learned)) {
            self.shared.registry.learn(&due.address, &learned);
            let status = Bytes::copy_from_slice(&status.unwrap_or_default());
            self.said.insert(due.address.clone(), (status, learned));
        }
    }

    /// Sends what is due and tells what has happened. Returns when to poll.
    fn step(&mut self) -> Instant {
        let mut monitor = self.shared.monitor();
        let due: Vec<_> = std::iter::from_fn(|| monitor.next_due()).collect();
        let events: Vec<_> = std::iter::from_fn(|| monitor.next_event()).collect();
        let deadline = monitor.deadline();
        drop(monitor);
        if !due.is_empty() {
            let sender = Sender::new(self.shared, &self.links, self.patience);
            let beats = due.into_iter().map(|due| sender.clone().send(due).boxed());
            self.beats.extend(beats);
        }
        for event in events {
            self.tell(event);
        }
        deadline
    }

    fn tell(&mut self, event: HealthEvent) {
        let HealthEvent {
            address,
            from,
            to,
            reason,
        } = &event;
        tracing::info!(node = %address, from = from.name(), to = to.name(), %reason, "health");
        // Not if another process has taken its place already.
        if self.shared.monitor().health(address) == Some(Health::Down) {
            self.lines.remove(address);
            self.links.disconnect(address);
        }
        // Nobody need watch.
        let _ = self.shared.events.send(event);
    }
}

/// A beat has failed, with an error that an operator may do something about: said once, until it is another one.
fn on_error(monitor: &mut Monitor, due: &Due, error: &str) {
    if let Some(error) = monitor.on_error(due, error, now()) {
        tracing::warn!(node = %due.address, error, "no beat gets through");
    }
}

fn versions(registry: &Registry) -> (String, String) {
    let local = registry.local();
    let version = |of: fn(&Member) -> Option<&String>| {
        let version = local.as_deref().and_then(of);
        version.cloned().unwrap_or_default()
    };
    (
        version(|local| local.software_version.as_ref()),
        version(|local| local.engine_version.as_ref()),
    )
}

/// Software and engine.
fn versions_of(learned: &Learned) -> (&str, &str) {
    (&learned.software_version, &learned.engine_version)
}

/// The clock of everything that is not sans-io; tests can turn it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock, in microseconds since 1970; 0 before.
pub(super) fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    micros(since.unwrap_or_default())
}
