//! Runs a plan: nodes, their tasks, and what happens to them.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::resume_unwind,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use protos::id::QueryId;
use rpc_bus::{
    BusRuntime, Feature, Features, Ledger,
    ledger::Limits,
    simulation::{Death, Host, SimulatedNetwork},
};
use tempfile::TempDir;
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    oracle::{Outcome, ReceiverEnd, SenderEnd},
    plan::{Exchange, Happening, NodePlan, Plan},
    proof, receiving, sending,
};
use crate::{
    spill::{SpillDir, SpillOptions},
    stream::{DataNode, NodeOptions, Origin, StreamAddress},
};

const PORT: u16 = 31_012;
/// By when everybody has come to an end, after the last thing that happened.
const END_TIME_MAX: Duration = Duration::from_mins(10);
/// How long a node has to end.
const GRACE: Duration = Duration::from_secs(10);
/// How long the last word takes to its peer, if nothing holds it up.
const LAST_WORD_TIME: Duration = Duration::from_secs(2);
/// How long what is held may take to be given back.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(12);
/// A stall up to this is no reason to give a peer up, not even several behind each other.
const STALL_SHORT: Duration = Duration::from_secs(1);

/// What a schedule came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Hash over everything that happened, and when.
    pub(super) trace: u64,
    /// Streams that were to be.
    pub(super) streams: u64,
    /// Receivers that got all of all their senders.
    pub(super) complete: u64,
    /// Receivers that left before that, as they were to.
    pub(super) left: u64,
    /// Attempts of receivers that ended with an error.
    pub(super) failed: u64,
    /// Rows that came of receivers that got all.
    pub(super) rows: u64,
    /// Bytes that were spilled.
    pub(super) spilled_bytes: u64,
}

/// What all tasks know.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) network: SimulatedNetwork,
    outcomes: Mutex<Vec<Outcome>>,
    spilled_bytes: Mutex<u64>,
    began: Instant,
}

/// One life of a node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) data: DataNode,
    /// If one of its exchanges spills.
    pub(super) spill: Option<SpillDir>,
    pub(super) life: i64,
    _runtime: BusRuntime,
}

/// A node's place.
struct Place {
    /// `None` while it is dead.
    node: Option<Arc<Node>>,
    tasks: VecDeque<JoinHandle<()>>,
    /// Of all its lives.
    ledgers: Vec<Ledger>,
    lives: i64,
}

/// Runs one schedule; panics if anything comes out of it that must not.
pub(super) fn run(seed: u64) -> Report {
    // A thread of its own: what threads remember of one schedule is nothing to the next, whose clock begins anew.
    let schedule = thread::spawn(move || run_here(seed));
    schedule.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn run_here(seed: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(play(seed))
}

async fn play(seed: u64) -> Report {
    let world = World::new(seed);
    let spills = world.plan.exchanges.iter().any(|exchange| exchange.spills);
    let disk = spills.then(|| tempfile::tempdir().expect("a directory"));
    let mut places: Vec<_> = world.plan.nodes.iter().map(|_| Place::new()).collect();
    for (at, place) in places.iter_mut().enumerate() {
        world.begin(at, place, disk.as_ref()).await;
    }
    world.let_happen(&mut places, disk.as_ref()).await;
    world.finish(&mut places).await;
    world.report()
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let (plan, network) = (Plan::of(seed), SimulatedNetwork::new(seed));
        for (from, to, path) in &plan.paths {
            network.set_path(ip(*from), ip(*to), *path);
        }
        let outcomes = plan.exchanges.iter().map(|_| Outcome::default());
        Arc::new(Self {
            outcomes: Mutex::new(outcomes.collect()),
            plan,
            network,
            spilled_bytes: Mutex::default(),
            began: Instant::now(),
        })
    }

    // ---- nodes ----

    async fn begin(self: &Arc<Self>, at: usize, place: &mut Place, disk: Option<&TempDir>) {
        let host = self.network.host(ip(at));
        let spills = |exchange: &Exchange| exchange.receiver == at && exchange.spills;
        let disk = disk.filter(|_| self.plan.exchanges.iter().any(spills));
        let node = Node::start(&host, &self.plan.nodes[at], place, disk).await;
        let node = Arc::new(node);
        for (index, exchange) in self.plan.exchanges.iter().enumerate() {
            if exchange.is_fed_by_one && exchange.streams[0].sender == at {
                let task = sending::run_together(Arc::clone(self), Arc::clone(&node), index);
                place.tasks.push_back(Handle::current().spawn(task));
            }
            for (stream, sender) in exchange.streams.iter().enumerate() {
                if sender.sender == at && !exchange.is_fed_by_one {
                    let (world, node) = (Arc::clone(self), Arc::clone(&node));
                    let task = sending::run(world, node, (index, stream));
                    place.tasks.push_back(Handle::current().spawn(task));
                }
            }
            if exchange.receiver == at {
                let task = receiving::run(Arc::clone(self), Arc::clone(&node), index);
                place.tasks.push_back(Handle::current().spawn(task));
            }
        }
        place.node = Some(node);
    }

    async fn let_happen(self: &Arc<Self>, places: &mut [Place], disk: Option<&TempDir>) {
        let mut happenings: VecDeque<_> = self.plan.happenings.iter().copied().collect();
        let mut back: Vec<(Duration, usize)> = Vec::new();
        loop {
            back.sort_unstable();
            let next = happenings.front().map(|(at, _)| *at);
            if let Some(&(at, node)) = back.first()
                && next.is_none_or(|next| at <= next)
            {
                back.remove(0);
                sleep_until(self.began + at).await;
                self.begin(node, &mut places[node], disk).await;
                continue;
            }
            let Some((at, happening)) = happenings.pop_front() else {
                return;
            };
            sleep_until(self.began + at).await;
            if let Some((node, after)) = self.happen(happening, places).await {
                back.push((at + after, node));
            }
        }
    }

    /// Says which node comes back, and after what time.
    async fn happen(
        &self,
        happening: Happening,
        places: &mut [Place],
    ) -> Option<(usize, Duration)> {
        match happening {
            Happening::Stall { from, to, time } => {
                self.network.stall(ip(from), ip(to), time);
                if time > STALL_SHORT {
                    self.disturb(&[from, to]);
                }
            }
            Happening::Fault {
                from,
                to,
                after_bytes,
                fault,
            } => {
                self.network.fault(ip(from), ip(to), after_bytes, fault);
                self.disturb(&[from, to]);
            }
            Happening::Disconnect { at, from } => {
                if let Some(node) = &places[at].node {
                    node.data.peers().disconnect(address(from));
                    self.disturb(&[at, from]);
                }
            }
            Happening::Shutdown { node, back } => {
                let has_lived = self.shut_down(node, &mut places[node]).await;
                return has_lived.then_some((node, back?));
            }
            Happening::Death { node, death, back } => {
                return self
                    .kill(node, death, &mut places[node])
                    .then_some((node, back?));
            }
        }
        None
    }

    /// Says whether it was alive.
    fn kill(&self, at: usize, death: Death, place: &mut Place) -> bool {
        let Some(node) = place.node.take() else {
            return false;
        };
        self.network.kill(ip(at), death);
        self.disturb(&[at]);
        place.tasks.iter().for_each(JoinHandle::abort);
        drop(node);
        true
    }

    /// The same as its program would end it.
    async fn shut_down(&self, at: usize, place: &mut Place) -> bool {
        let Some(node) = place.node.take() else {
            return false;
        };
        self.disturb(&[at]);
        place.tasks.iter().for_each(JoinHandle::abort);
        // What is aborted is dropped in its own turn.
        sleep(Duration::from_millis(1)).await;
        let node = Arc::into_inner(node).expect("invariant: all its tasks have ended");
        node.data.shutdown(GRACE).await;
        self.network.kill(ip(at), Death::Process);
        true
    }

    /// Everything that may fail from now on because of these nodes; all of them, where there are several.
    fn disturb(&self, nodes: &[usize]) {
        let mut outcomes = self.outcomes();
        for (outcome, exchange) in outcomes.iter_mut().zip(&self.plan.exchanges) {
            let takes_part = |node: &usize| {
                let sends = |node| exchange.streams.iter().any(|stream| stream.sender == node);
                exchange.receiver == *node || sends(*node)
            };
            if nodes.iter().all(takes_part) {
                outcome.is_disturbed = true;
            }
        }
    }

    // ---- the end ----

    async fn finish(self: &Arc<Self>, places: &mut [Place]) {
        let until = Instant::now() + END_TIME_MAX;
        for place in &mut *places {
            while let Some(task) = place.tasks.pop_front() {
                let ended = timeout_at(until, task).await;
                match ended.unwrap_or_else(|_| panic!("somebody waits for ever: {self:#?}")) {
                    Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                    _ => {}
                }
            }
        }
        // What was said last may still be on its way.
        sleep(LAST_WORD_TIME).await;
        if !self.plan.happenings.is_empty() {
            self.network.heal();
            sleep(SETTLE_TIME_MAX).await;
            self.prove(places).await;
        }
        for place in &mut *places {
            if let Some(node) = place.node.take() {
                let node = Arc::into_inner(node).expect("invariant: all its tasks have ended");
                node.stop(self).await;
            }
        }
        for ledger in places.iter().flat_map(|place| &place.ledgers) {
            settled(ledger).await;
        }
        assert_eq!(
            self.network.connections(),
            0,
            "connections that nobody has closed"
        );
    }

    /// Whatever has happened before, every node that lives can receive from the next one.
    async fn prove(&self, places: &[Place]) {
        let live = || places.iter().filter_map(|place| place.node.as_deref());
        for (here, there) in live().zip(live().cycle().skip(1)) {
            let proof = timeout(END_TIME_MAX, proof::stream(here, there));
            let proved = proof.await.expect("neither waits for ever");
            assert!(
                proved.is_ok(),
                "{proved:?}: {here:?} from {there:?}, {self:#?}"
            );
        }
        // The last word of these.
        sleep(LAST_WORD_TIME).await;
    }

    fn report(&self) -> Report {
        let outcomes = self.outcomes();
        let mut report = Report {
            trace: self.network.trace(),
            spilled_bytes: *lock(&self.spilled_bytes),
            ..Report::default()
        };
        let mut first_sender = 0;
        for (outcome, exchange) in outcomes.iter().zip(&self.plan.exchanges) {
            outcome.check(exchange, first_sender, &self.plan);
            first_sender += i64::try_from(exchange.streams.len()).expect("few");
            report.streams += exchange.streams.len() as u64;
            report.add(outcome);
        }
        report
    }

    fn outcomes(&self) -> std::sync::MutexGuard<'_, Vec<Outcome>> {
        lock(&self.outcomes)
    }

    pub(super) fn note_sender(&self, (exchange, stream): (usize, usize), end: SenderEnd) {
        self.network.note([exchange as u64, stream as u64, 1]);
        self.outcomes()[exchange].senders.push((stream, end));
    }

    pub(super) fn note_receiver(&self, exchange: usize, end: ReceiverEnd) {
        self.network.note([exchange as u64, 0, 2]);
        self.outcomes()[exchange].receivers.push(end);
    }

    // ---- what tasks need ----

    pub(super) async fn sleep_until(&self, at: Duration) {
        sleep_until(self.began + at).await;
    }

    pub(super) fn sender_id(&self, exchange: usize, stream: usize) -> i64 {
        let before = self.plan.exchanges[..exchange].iter();
        let before: usize = before.map(|exchange| exchange.streams.len()).sum();
        i64::try_from(before + stream).expect("few")
    }

    pub(super) fn senders(&self, index: usize, node: &Node) -> Vec<(Origin, StreamAddress)> {
        let exchange: &Exchange = &self.plan.exchanges[index];
        let origin = |sender| match sender {
            here if address(here) == node.data.local_addr() => Origin::Here,
            there => Origin::Node(address(there)),
        };
        let streams = exchange.streams.iter().enumerate();
        streams
            .map(|(at, stream)| (origin(stream.sender), address_of((index, at))))
            .collect()
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("now", &self.began.elapsed())
            .field("plan", &self.plan)
            .field("outcomes", &*self.outcomes())
            .finish_non_exhaustive()
    }
}

impl Node {
    async fn start(
        host: &Host,
        plan: &NodePlan,
        place: &mut Place,
        disk: Option<&TempDir>,
    ) -> Self {
        let ledger = Ledger::root("node", Limits::default());
        place.ledgers.push(ledger.clone());
        place.lives += 1;
        let runtime = BusRuntime::simulated(host);
        let options = plan.options(place.lives);
        let at = SocketAddr::new(host.ip(), PORT);
        let data = DataNode::bind(at, runtime.clone(), options, ledger.clone());
        let data = data.await.expect("nobody else listens there");
        let options = SpillOptions {
            disk_bytes_max: plan.disk_bytes_max,
            unwritten_bytes_max: plan.unwritten_bytes_max,
            ..SpillOptions::default()
        };
        let spill = disk.map(|disk| {
            let dir = SpillDir::open_simulated(disk.path(), &options, &ledger, host);
            dir.expect("a directory")
        });
        Self {
            data,
            spill,
            life: place.lives,
            _runtime: runtime,
        }
    }

    async fn stop(mut self, world: &World) {
        let counted = self.data.tunnels();
        let open: usize = counted.iter().map(|tunnel| tunnel.open_streams).sum();
        assert_eq!(
            (open, self.data.streams_listed()),
            (0, 0),
            "no stream is open any more"
        );
        let spilled: u64 = counted
            .iter()
            .map(|tunnel| tunnel.received.bytes_spilled)
            .sum();
        *lock(&world.spilled_bytes) += spilled;
        assert_eq!(
            self.data.waiting(),
            (0, 0),
            "nobody waits for anybody any more"
        );
        assert!(self.data.reserved().is_zero(), "{:?}", self.data.reserved());
        if let Some(dir) = self.spill.take() {
            dir.idle().await;
            assert_eq!((dir.disk_bytes(), dir.unwritten_bytes()), (0, 0));
        }
        self.data.shutdown(GRACE).await;
    }
}

impl NodePlan {
    fn options(&self, life: i64) -> NodeOptions {
        let mut features: Vec<_> = vec![Feature::Streams, Feature::Checksums];
        features.extend(self.has_compression.then_some(Feature::Compression));
        NodeOptions {
            connections_per_peer: self.connections_per_peer,
            batch_bytes_max: self.batch_bytes_max,
            features: features.into_iter().collect::<Features>(),
            incarnation: Some(life.unsigned_abs()),
            ..NodeOptions::default()
        }
    }
}

impl Place {
    fn new() -> Self {
        Self {
            node: None,
            tasks: VecDeque::new(),
            ledgers: Vec::new(),
            lives: 0,
        }
    }
}

impl Report {
    fn add(&mut self, outcome: &Outcome) {
        for end in &outcome.receivers {
            match end {
                ReceiverEnd::All(received) => {
                    self.complete += 1;
                    self.rows += received.rows();
                }
                ReceiverEnd::Left => self.left += 1,
                ReceiverEnd::Failed(_) => self.failed += 1,
            }
        }
    }
}

/// Waits until the ledger reads 0: what was given up ends in its own time.
async fn settled(ledger: &Ledger) {
    let until = Instant::now() + SETTLE_TIME_MAX;
    while !ledger.is_zero() {
        assert!(Instant::now() < until, "still held: {ledger:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Of a stream, in the query of its exchange.
pub(super) fn address_of((exchange, stream): (usize, usize)) -> StreamAddress {
    let query = QueryId {
        part1: i64::try_from(exchange).expect("few"),
        part2: 1,
    };
    let minor = i32::try_from(stream).expect("few");
    StreamAddress::new(query, (1, minor), (0, 0))
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::new(ip(node), PORT)
}

fn ip(node: usize) -> IpAddr {
    let last = u8::try_from(node + 1).expect("few");
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    crate::stream::lock(mutex)
}
