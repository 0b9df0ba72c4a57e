//! The fragments of this node that receive: which batch goes where, and what becomes of one whose fragment is not there.
//!
//! ```text
//! (nothing) --batch--> Early --registered--> Live --all its streams dropped, or cancelled--> Gone --time--> (nothing)
//! ```

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use protos::{
    calls::data,
    data::AckWithCredit,
    id::{FragmentId, MajorFragmentId, MinorFragmentId, QueryId},
};
use rpc_bus::{InboundRequest, Ledger, ledger::Limits};
use tokio::sync::Notify;

use super::{
    ack::AckShare,
    credit::Credit,
    early::{Early, EarlyBatch},
    error::{ReceiveError, RegisterError},
    filter::RuntimeFilter,
    header::{Arrival, ArrivedBatch},
    queue::{Queue, Remains},
    receiver::{BatchStream, Input, Order, QueueCell},
    refusals::{Refusal, Refusals},
    tombstones::Tombstones,
};

/// Early batches are looked at no more often than this, however many deadlines pass.
const SWEEP_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Limits of what arrives for fragments that are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentsOptions {
    /// Bytes that may wait for one fragment before it is registered; a single larger batch may, too. Default 1 MiB.
    pub early_bytes_per_fragment_max: usize,
    /// Bytes that may wait so of one connection. Default 16 MiB.
    pub early_bytes_per_connection_max: usize,
    /// How long they may; then they are refused. Default 10 s.
    pub early_timeout: Duration,
    /// Fragments that have ended and whose batches are still acknowledged and dropped; beyond, the oldest are forgotten.
    /// Default 65,536.
    pub tombstones_max: usize,
    /// For how long, unless their query is dropped before. Default 10 min.
    pub tombstone_time: Duration,
}

impl Default for FragmentsOptions {
    fn default() -> Self {
        Self {
            early_bytes_per_fragment_max: 1 << 20,
            early_bytes_per_connection_max: 16 << 20,
            early_timeout: Duration::from_secs(10),
            tombstones_max: 65_536,
            tombstone_time: Duration::from_mins(10),
        }
    }
}

/// What fragments cause elsewhere. Calls must not wait.
pub trait FragmentEvents: Send + Sync + 'static {
    /// `receiver` wants no more of `sender`, which has not sent its last batch: what Drill is told on the control plane
    /// with `REQ_RECEIVER_FINISHED`.
    fn receiver_finished(&self, receiver: FragmentId, sender: FragmentId) {
        let _ = (receiver, sender);
    }

    /// A runtime filter has come. It is acknowledged in any case.
    fn runtime_filter(&self, filter: RuntimeFilter) {
        let _ = filter;
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvents;

impl FragmentEvents for NoEvents {}

/// The fragments of this node that receive batches as Drill sends them. Clones are the same.
#[derive(Clone)]
pub struct Fragments(Arc<Shared>);

struct Shared {
    options: FragmentsOptions,
    early: Ledger,
    events: Arc<dyn FragmentEvents>,
    queries: DashMap<QueryId, Places>,
    tombstones: Mutex<Tombstones>,
    early_came: Notify,
}

/// The fragments of one query.
#[derive(Default)]
struct Places(HashMap<Place, State>);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place(MajorFragmentId, MinorFragmentId);

enum State {
    Early(Early),
    Live(Arc<Live>),
    /// Since when.
    Gone(Instant),
}

/// A fragment that receives, or has.
enum Known {
    Live(Arc<Live>),
    Gone,
}

/// A fragment that receives.
struct Live {
    receiver: FragmentId,
    queues: Vec<Arc<QueueCell>>,
    /// By sender.
    routes: HashMap<Place, Arc<QueueCell>>,
    /// Streams that have not been dropped.
    streams: AtomicUsize,
}

impl Fragments {
    /// No fragments yet. What waits for fragments that are not there is charged to a part of `ledger`.
    #[must_use]
    pub fn new(
        options: FragmentsOptions,
        ledger: &Ledger,
        events: Arc<dyn FragmentEvents>,
    ) -> Self {
        let tombstones = Tombstones::new(options.tombstone_time, options.tombstones_max);
        Self(Arc::new(Shared {
            early: ledger.child("early batches", Limits::default()),
            options,
            events,
            queries: DashMap::new(),
            tombstones: Mutex::new(tombstones),
            early_came: Notify::new(),
        }))
    }

    /// Lets `receiver` receive, beginning with what has come already; returns the streams of each input. What waits for
    /// it is charged to `budget`; half of its bytes should hold a few frames of 16 MiB, because from there on batches
    /// are acknowledged only when they are read, and all of it what its senders may have unacknowledged.
    ///
    /// The fragment has ended once all its streams are dropped.
    ///
    /// # Errors
    ///
    /// It is registered already, or has ended; or there are no inputs, or they name no sender, or one twice.
    pub fn register(
        &self,
        receiver: FragmentId,
        inputs: Vec<Input>,
        budget: &Ledger,
    ) -> Result<Vec<Vec<BatchStream>>, RegisterError> {
        if inputs.is_empty() {
            return Err(RegisterError::NoInputs(receiver));
        }
        let mut build = Build::of(receiver, budget.clone());
        let cells: Vec<_> = inputs
            .into_iter()
            .map(|input| build.input(input))
            .collect::<Result<_, _>>()?;
        let live = Arc::new(build.live);
        self.enter(&live)?;
        let stream = |(major, cell)| BatchStream::new(cell, major, self.registration(&live));
        let streams = cells.into_iter();
        Ok(streams
            .map(|input| input.into_iter().map(stream).collect())
            .collect())
    }

    /// Ends a fragment, whether or not it has been registered: its streams end with [`ReceiveError::Cancelled`], its
    /// senders are told to stop, and what still comes for it is acknowledged and dropped.
    pub fn cancel(&self, fragment: FragmentId) {
        let now = now();
        let before = {
            let mut places = self.0.queries.entry(fragment.query).or_default();
            match places.0.entry(Place::of(fragment)) {
                Entry::Occupied(gone) if matches!(gone.get(), State::Gone(_)) => return,
                Entry::Occupied(mut before) => Some(before.insert(State::Gone(now))),
                Entry::Vacant(free) => {
                    free.insert(State::Gone(now));
                    None
                }
            }
        };
        self.0.bury(fragment, now);
        for unfinished in before.map(State::end).unwrap_or_default() {
            self.0.events.receiver_finished(fragment, unfinished);
        }
    }

    /// Forgets all fragments of a query that has ended everywhere. Those that still receive are cancelled; their senders
    /// are not told, since they have ended.
    pub fn drop_query(&self, query: QueryId) {
        if let Some((_, places)) = self.0.queries.remove(&query) {
            places.0.into_values().for_each(|state| drop(state.end()));
        }
    }

    /// Where the batches of one connection come in.
    pub(crate) fn arrivals(&self, connection: u64) -> Arrivals {
        let limits = Limits {
            bytes: Some(self.0.options.early_bytes_per_connection_max),
            ..Limits::default()
        };
        Arrivals {
            early: self.0.early.child("early batches of a connection", limits),
            fragments: self.clone(),
            connection,
        }
    }

    /// Refuses batches that have waited too long for their fragments; for ever.
    pub(crate) async fn sweep(self) {
        loop {
            self.0.early_came.notified().await;
            while let Some(deadline) = self.refuse_overdue(now()) {
                let earliest = now() + SWEEP_INTERVAL_MIN;
                tokio::time::sleep_until(deadline.max(earliest).into()).await;
            }
        }
    }

    /// Refuses what has waited until `now` at least; returns the next deadline.
    fn refuse_overdue(&self, now: Instant) -> Option<Instant> {
        let (mut next, mut overdue) = (None, Vec::new());
        self.0.queries.retain(|_, places| {
            let is_over =
                |_: &Place, state: &mut State| state.deadline().is_some_and(|at| at <= now);
            overdue.extend(places.0.extract_if(is_over));
            let deadlines = places.0.values().filter_map(State::deadline);
            next = next.into_iter().chain(deadlines).min();
            !places.0.is_empty()
        });
        // The shares are dropped here, which refuses: no query is locked.
        drop(overdue);
        next
    }

    fn enter(&self, live: &Arc<Live>) -> Result<(), RegisterError> {
        let (receiver, mut refusals) = (live.receiver, Refusals::default());
        let mut places = self.0.queries.entry(receiver.query).or_default();
        let early = match places.0.entry(Place::of(receiver)) {
            Entry::Vacant(free) => {
                free.insert(State::Live(Arc::clone(live)));
                return Ok(());
            }
            Entry::Occupied(mut taken) => match taken.get() {
                State::Live(_) => return Err(RegisterError::Receiving(receiver)),
                State::Gone(_) => return Err(RegisterError::Ended(receiver)),
                State::Early(_) => taken.insert(State::Live(Arc::clone(live))),
            },
        };
        // Still locked: what comes now must not overtake what came before.
        if let State::Early(early) = early {
            for early in early.into_batches() {
                let outcome = live.deliver(early.batch, early.share, early.connection);
                refusals.note(receiver, outcome);
            }
        }
        drop(places);
        refusals.log(None);
        Ok(())
    }

    fn registration(&self, live: &Arc<Live>) -> Registration {
        Registration {
            shared: Arc::clone(&self.0),
            live: Arc::clone(live),
        }
    }
}

impl fmt::Debug for Fragments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fragments")
            .field("queries", &self.0.queries.len())
            .finish_non_exhaustive()
    }
}

/// The batches of one connection on their way to the fragments of this node.
pub(crate) struct Arrivals {
    fragments: Fragments,
    connection: u64,
    /// What of this connection waits for fragments that are not there.
    early: Ledger,
}

impl Arrivals {
    /// Takes a `REQ_RECORD_BATCH`: one that cannot be read is a failure, one that nobody expects is refused.
    pub(crate) fn record_batch(&self, request: InboundRequest) {
        let InboundRequest {
            pbody,
            dbody,
            responder,
            ..
        } = request;
        let arrival = match Arrival::parse(pbody, dbody) {
            Ok(arrival) => arrival,
            Err(error) => return responder.fail(error.into()),
        };
        let shares = AckShare::split(responder, arrival.receivers.len());
        self.deliver_all(&arrival, shares)
            .log(Some(self.connection));
    }

    /// Gives every receiver its share.
    fn deliver_all(&self, arrival: &Arrival, shares: Vec<AckShare>) -> Refusals {
        let mut refusals = Refusals::default();
        for (to, share) in arrival.addresses().zip(shares) {
            let outcome = self.deliver(to, arrival.batch.clone(), share);
            refusals.note(to, outcome);
        }
        refusals
    }

    /// Takes a `REQ_RUNTIME_FILTER`, and always answers.
    pub(crate) fn runtime_filter(&self, request: InboundRequest) {
        let Some((def, body, reply)) = request.decode::<data::RuntimeFilter>() else {
            return;
        };
        let credit = match RuntimeFilter::parse(def, body) {
            Ok(filter) => {
                self.fragments.0.events.runtime_filter(filter);
                Credit::NO_ADVICE
            }
            Err(error) => {
                tracing::warn!(connection = self.connection, %error, "runtime filter refused");
                Credit::REFUSED
            }
        };
        reply.send(&AckWithCredit::from(credit));
    }

    /// The connection has ended: what of it still waits for a fragment is dropped, and senders that have used it and
    /// not ended are lost.
    pub(crate) fn closed(&self) {
        let (mut lost, connection) = (Vec::new(), self.connection);
        self.fragments.0.queries.retain(|_, places| {
            places.0.retain(|_, state| match state {
                State::Early(early) => early.forget(connection),
                State::Live(live) => {
                    lost.push(Arc::clone(live));
                    true
                }
                State::Gone(_) => true,
            });
            !places.0.is_empty()
        });
        for live in lost {
            live.end(|queue| queue.on_connection_closed(connection));
        }
    }

    fn deliver(&self, to: FragmentId, batch: ArrivedBatch, share: AckShare) -> Result<(), Refusal> {
        match self.fragments.0.known(to) {
            Some(Known::Live(live)) => return live.deliver(batch, share, self.connection),
            Some(Known::Gone) => {
                share.accept(Credit::NO_ADVICE);
                return Ok(());
            }
            None => {}
        }
        let early = EarlyBatch::try_new(batch, share, self.connection, &self.early)?;
        self.fragments.0.keep_early(to, early)
    }
}

impl Shared {
    fn known(&self, fragment: FragmentId) -> Option<Known> {
        let places = self.queries.get(&fragment.query)?;
        match places.0.get(&Place::of(fragment))? {
            State::Live(live) => Some(Known::Live(Arc::clone(live))),
            State::Gone(_) => Some(Known::Gone),
            State::Early(_) => None,
        }
    }

    /// Keeps a batch for a fragment that was not there a moment ago.
    fn keep_early(&self, to: FragmentId, early: EarlyBatch) -> Result<(), Refusal> {
        let mut places = self.queries.entry(to.query).or_default();
        match places.0.entry(Place::of(to)) {
            Entry::Vacant(free) => {
                let deadline = now() + self.options.early_timeout;
                free.insert(State::Early(Early::new(early, deadline)));
                self.early_came.notify_one();
            }
            Entry::Occupied(mut taken) => match taken.get_mut() {
                State::Early(waiting) => {
                    let bytes_max = self.options.early_bytes_per_fragment_max;
                    let pushed = waiting.push(early, bytes_max);
                    return pushed.map_err(|_| Refusal::Fragment { bytes_max });
                }
                State::Live(live) => {
                    return live.deliver(early.batch, early.share, early.connection);
                }
                State::Gone(_) => early.share.accept(Credit::NO_ADVICE),
            },
        }
        Ok(())
    }

    /// A fragment has ended by itself.
    fn ended(&self, live: &Arc<Live>) {
        let (fragment, now) = (live.receiver, now());
        let is_same = {
            let mut places = self.queries.get_mut(&fragment.query);
            let state = places
                .as_mut()
                .and_then(|places| places.0.get_mut(&Place::of(fragment)));
            match state {
                Some(state @ State::Live(_)) if state.is(live) => {
                    *state = State::Gone(now);
                    true
                }
                _ => false,
            }
        };
        if is_same {
            self.bury(fragment, now);
        }
    }

    /// Marks a fragment as gone, and forgets those that are gone for long.
    fn bury(&self, fragment: FragmentId, now: Instant) {
        let tombstones = self.tombstones.lock();
        let forgotten = tombstones
            .unwrap_or_else(PoisonError::into_inner)
            .add(fragment, now);
        for (fragment, since) in forgotten {
            self.forget(fragment, since);
        }
    }

    fn forget(&self, fragment: FragmentId, gone_since: Instant) {
        let place = Place::of(fragment);
        if let dashmap::Entry::Occupied(mut query) = self.queries.entry(fragment.query) {
            let places = &mut query.get_mut().0;
            if matches!(places.get(&place), Some(State::Gone(since)) if *since == gone_since) {
                places.remove(&place);
            }
            if places.is_empty() {
                query.remove();
            }
        }
    }
}

impl State {
    fn is(&self, live: &Arc<Live>) -> bool {
        matches!(self, Self::Live(this) if Arc::ptr_eq(this, live))
    }

    /// How long it waits for its fragment, if it does.
    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Early(early) => Some(early.deadline),
            Self::Live(_) | Self::Gone(_) => None,
        }
    }

    /// Ends what there is; returns the senders that had not ended.
    fn end(self) -> Vec<FragmentId> {
        match self {
            Self::Early(early) => {
                let batches = early.into_batches().into_iter();
                batches.for_each(|early| early.share.accept(Credit::NO_ADVICE));
                Vec::new()
            }
            Self::Live(live) => {
                let cancelled = || ReceiveError::Cancelled(live.receiver);
                live.end(|queue| queue.close(Some(cancelled())))
            }
            Self::Gone(_) => Vec::new(),
        }
    }
}

impl Live {
    fn deliver(
        &self,
        batch: ArrivedBatch,
        share: AckShare,
        connection: u64,
    ) -> Result<(), Refusal> {
        let (major, minor) = (batch.sending_major, batch.sending_minor);
        let Some(cell) = self.routes.get(&Place(major, minor)) else {
            return Err(Refusal::Sender { major, minor });
        };
        drop(cell.with(|queue| queue.push(batch, share, connection)));
        Ok(())
    }

    /// Does something to each queue; returns the senders that had not ended where this ended it.
    fn end(&self, mut step: impl FnMut(&mut Queue) -> Remains) -> Vec<FragmentId> {
        let queues = self.queues.iter();
        queues.flat_map(|cell| cell.with(&mut step)).collect()
    }
}

impl Place {
    fn of(fragment: FragmentId) -> Self {
        Self(fragment.major, fragment.minor)
    }
}

/// What a stream knows of its fragment.
pub(crate) struct Registration {
    shared: Arc<Shared>,
    live: Arc<Live>,
}

impl Registration {
    pub(crate) fn receiver(&self) -> FragmentId {
        self.live.receiver
    }

    /// Tells senders that nothing more is wanted of them.
    pub(crate) fn stop(&self, senders: &[FragmentId]) {
        let receiver = self.live.receiver;
        for &sender in senders {
            self.shared.events.receiver_finished(receiver, sender);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.live.streams.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.ended(&self.live);
        }
    }
}

/// A fragment's queues while it is being registered.
struct Build {
    live: Live,
    budget: Ledger,
}

impl Build {
    fn of(receiver: FragmentId, budget: Ledger) -> Self {
        let live = Live {
            receiver,
            queues: Vec::new(),
            routes: HashMap::new(),
            streams: AtomicUsize::new(0),
        };
        Self { live, budget }
    }

    /// The queues of one input: one for all senders, or one for each.
    fn input(
        &mut self,
        input: Input,
    ) -> Result<Vec<(MajorFragmentId, Arc<QueueCell>)>, RegisterError> {
        let major = input.sending_major;
        let mut senders = input.senders;
        if senders.is_empty() {
            return Err(RegisterError::NoSenders(major));
        }
        senders.sort_unstable();
        let groups: Vec<Vec<_>> = match input.order {
            Order::AsTheyCome => vec![senders],
            Order::PerSender => senders.into_iter().map(|sender| vec![sender]).collect(),
        };
        let mut cells = Vec::with_capacity(groups.len());
        for group in groups {
            cells.push((major, self.queue(major, group, input.credit)?));
        }
        Ok(cells)
    }

    fn queue(
        &mut self,
        major: MajorFragmentId,
        senders: Vec<MinorFragmentId>,
        credit: Credit,
    ) -> Result<Arc<QueueCell>, RegisterError> {
        let (receiver, budget) = (self.live.receiver, self.budget.clone());
        let queue = Queue::new(receiver, major, senders.clone(), credit, budget);
        let cell = Arc::new(QueueCell::new(queue));
        for minor in senders {
            let place = Place(major, minor);
            if self.live.routes.insert(place, Arc::clone(&cell)).is_some() {
                return Err(RegisterError::SenderTwice { major, minor });
            }
        }
        self.live.queues.push(Arc::clone(&cell));
        *self.live.streams.get_mut() += 1;
        Ok(cell)
    }
}

/// The time by tokio's clock, which tests turn.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use futures::{FutureExt, StreamExt};
    use rpc_bus::ledger::Kind;

    use super::{
        super::{
            ack::tests::{Answers, answered, share, shares},
            header::tests::QUERY,
        },
        *,
    };

    fn fragments(options: FragmentsOptions) -> (Fragments, Ledger) {
        let ledger = Ledger::root("test", Limits::default());
        let fragments = Fragments::new(options, &ledger, Arc::new(NoEvents));
        (fragments, ledger)
    }

    fn receiver(minor: i32) -> FragmentId {
        FragmentId::new(QUERY, 1, minor)
    }

    fn batch(bytes: usize) -> ArrivedBatch {
        ArrivedBatch {
            sending_major: MajorFragmentId(2),
            sending_minor: MinorFragmentId(0),
            def: Bytes::new(),
            body: vec![0; bytes].into(),
            is_last: false,
        }
    }

    fn arrive(arrivals: &Arrivals, minor: i32, bytes: usize) -> Answers {
        let (share, answers) = share();
        let _refused = arrivals.deliver(receiver(minor), batch(bytes), share);
        answers
    }

    fn register(fragments: &Fragments, minor: i32, budget: &Ledger) -> BatchStream {
        let input = Input {
            sending_major: MajorFragmentId(2),
            senders: vec![MinorFragmentId(0)],
            order: Order::AsTheyCome,
            credit: Credit::NO_ADVICE,
        };
        let streams = fragments.register(receiver(minor), vec![input], budget);
        streams.unwrap().remove(0).remove(0)
    }

    fn are_unanswered(answers: &[Answers]) -> bool {
        answers.iter().all(|answers| answered(answers).is_empty())
    }

    #[tokio::test(start_paused = true)]
    async fn early_batches_are_refused_when_their_time_is_over_and_no_sooner() {
        let (fragments, ledger) = fragments(FragmentsOptions::default());
        let arrivals = fragments.arrivals(1);
        let sweeping = fragments.clone().sweep();
        let mut sweeping = Box::pin(sweeping);
        let start = tokio::time::Instant::now();
        let first = arrive(&arrivals, 0, 10);
        tokio::time::advance(Duration::from_secs(4)).await;
        let second = arrive(&arrivals, 1, 10);
        for (answers, seconds) in [(first, 10), (second, 14)] {
            let refused = loop {
                assert!((&mut sweeping).now_or_never().is_none());
                match answered(&answers)[..] {
                    [] => tokio::time::advance(Duration::from_millis(500)).await,
                    [credit] => break credit,
                    _ => panic!("answered twice"),
                }
            };
            assert_eq!(refused, Credit::REFUSED);
            assert_eq!(start.elapsed().as_secs(), seconds);
        }
        assert!(ledger.is_zero() && fragments.0.queries.is_empty());
    }

    #[tokio::test]
    async fn early_batches_of_a_fragment_and_of_a_connection_are_limited_in_bytes() {
        let (fragments, ledger) = fragments(FragmentsOptions {
            early_bytes_per_fragment_max: 1_000,
            early_bytes_per_connection_max: 10_000,
            ..FragmentsOptions::default()
        });
        let (one, other) = (fragments.arrivals(1), fragments.arrivals(2));
        let small = [arrive(&one, 0, 100), arrive(&one, 0, 100)];
        let full = arrive(&one, 0, 100);
        let large = arrive(&one, 1, 8_000);
        assert!(are_unanswered(&small) && are_unanswered(&[large]));
        assert_eq!(
            answered(&full),
            [Credit::REFUSED],
            "the fragment has enough"
        );
        let full = arrive(&one, 2, 2_000);
        assert_eq!(
            answered(&full),
            [Credit::REFUSED],
            "the connection has enough"
        );
        let other = [arrive(&other, 2, 2_000)];
        assert!(are_unanswered(&other));
        assert!(ledger.used(Kind::Bytes) > 10_000);
        fragments.drop_query(QUERY);
        assert!(ledger.is_zero());
    }

    #[tokio::test]
    async fn a_batch_too_many_for_a_fragment_that_is_not_there_leaves_no_trace() {
        let (fragments, ledger) = fragments(FragmentsOptions {
            early_bytes_per_connection_max: 100,
            ..FragmentsOptions::default()
        });
        let arrivals = fragments.arrivals(1);
        for minor in 0..100 {
            let refused = arrive(&arrivals, minor, 1_000);
            assert_eq!(answered(&refused), [Credit::REFUSED]);
        }
        assert!(ledger.is_zero() && fragments.0.queries.is_empty());
    }

    #[tokio::test]
    async fn what_is_refused_of_one_request_is_told_once() {
        let (fragments, ledger) = fragments(FragmentsOptions {
            early_bytes_per_connection_max: 10_000,
            ..FragmentsOptions::default()
        });
        let stream = register(&fragments, 0, &ledger);
        let arrivals = fragments.arrivals(1);
        let arrival = Arrival {
            query: QUERY,
            receiving_major: MajorFragmentId(1),
            receivers: (0..100).map(MinorFragmentId).collect(),
            batch: batch(744),
        };
        let (shares, answers) = shares(100);
        let refusals = arrivals.deliver_all(&arrival, shares);
        assert_eq!(answered(&answers), [Credit::REFUSED]);
        // One is there, ten wait for theirs.
        assert_eq!(refusals.count(), 89);
        let mut stranger = arrival;
        stranger.batch.sending_minor = MinorFragmentId(7);
        stranger.receivers.truncate(1);
        let (shares, answers) = self::shares(1);
        let refusals = arrivals.deliver_all(&stranger, shares);
        assert_eq!(refusals.count(), 1);
        assert_eq!(answered(&answers), [Credit::REFUSED]);
        drop(stream);
        fragments.drop_query(QUERY);
        assert!(ledger.is_zero());
    }

    #[tokio::test]
    async fn what_waits_early_goes_with_its_connection_and_nothing_else_does() {
        let (fragments, ledger) = fragments(FragmentsOptions::default());
        let (one, other) = (fragments.arrivals(1), fragments.arrivals(2));
        arrive(&one, 0, 10);
        let stays = [arrive(&other, 0, 10)];
        arrive(&one, 1, 10);
        one.closed();
        assert!(are_unanswered(&stays));
        let mut stream = register(&fragments, 0, &ledger);
        assert_eq!(answered(&stays[0]).len(), 1);
        other.closed();
        let lost = stream.next().await.unwrap();
        assert!(matches!(lost, Err(ReceiveError::SenderLost(_))), "{lost:?}");
        drop(stream);
        fragments.drop_query(QUERY);
        assert!(ledger.is_zero() && fragments.0.queries.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancel_that_overtakes_its_start_leaves_a_mark_for_ten_minutes() {
        let (fragments, ledger) = fragments(FragmentsOptions::default());
        let arrivals = fragments.arrivals(1);
        fragments.cancel(receiver(0));
        fragments.cancel(receiver(0));
        let minute = Duration::from_mins(1);
        tokio::time::advance(9 * minute).await;
        fragments.cancel(receiver(1));
        let dropped = arrive(&arrivals, 0, 10);
        assert_eq!(answered(&dropped), [Credit::NO_ADVICE]);
        tokio::time::advance(minute).await;
        fragments.cancel(receiver(2));
        let early = [arrive(&arrivals, 0, 10)];
        assert!(are_unanswered(&early), "forgotten: it may still come");
        let dropped = arrive(&arrivals, 1, 10);
        assert_eq!(answered(&dropped), [Credit::NO_ADVICE]);
        fragments.drop_query(QUERY);
        assert!(ledger.is_zero());
    }

    #[tokio::test]
    async fn the_oldest_marks_make_room_for_new_ones() {
        let (fragments, ledger) = fragments(FragmentsOptions {
            tombstones_max: 2,
            ..FragmentsOptions::default()
        });
        let arrivals = fragments.arrivals(1);
        for minor in 0..3 {
            drop(register(&fragments, minor, &ledger));
        }
        let early = [arrive(&arrivals, 0, 10)];
        assert!(are_unanswered(&early));
        for minor in [1, 2] {
            let dropped = arrive(&arrivals, minor, 10);
            assert_eq!(answered(&dropped), [Credit::NO_ADVICE]);
        }
        fragments.drop_query(QUERY);
        assert!(ledger.is_zero() && fragments.0.queries.is_empty());
    }
}
