//! Several nodes, the network between them, and what goes wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::AddAssign,
    time::{Duration, Instant},
};

use bytes::Bytes;
use membership::NodeAddress;
use protos::{
    error::ErrorType,
    id::{FragmentId, QueryId},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rpc_bus::RpcFailure;

use super::{
    engine::{Behaviour, Ending},
    node::{Effect, Node, RUN_TIMES, Reply, Request},
};
use crate::{
    foreman::run::{Assignment, CancelAnswer, NotStarted, Outcome, QueryPlan, Run, Wave},
    fragments::reports::MessageNumber,
};

/// While things go wrong.
const TROUBLE: Duration = Duration::from_secs(20);
/// After that, those that still have fragments that wait to be cancelled are. By then all others must have ended.
const HANGING: Duration = Duration::from_mins(3);
/// Until all that was going on must have ended.
const QUIET: Duration = Duration::from_mins(4);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What was reached.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) finished: usize,
    pub(super) failed: usize,
    pub(super) cancelled: usize,
    pub(super) lost: usize,
    pub(super) refused: usize,
    pub(super) abandoned: usize,
    pub(super) calls_lost: usize,
    pub(super) deaths: usize,
    pub(super) suspicions: usize,
    pub(super) tombstones_hit: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.finished += other.finished;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.lost += other.lost;
        self.refused += other.refused;
        self.abandoned += other.abandoned;
        self.calls_lost += other.calls_lost;
        self.deaths += other.deaths;
        self.suspicions += other.suspicions;
        self.tombstones_hit += other.tombstones_hit;
    }
}

/// One start of a node.
type Life = (usize, u64);

#[derive(Debug)]
enum Event {
    Request(u64),
    /// An answer, which may find that nobody waits any more.
    Reply(u64, Reply),
    CallTimeout(u64),
    Started(Life, FragmentId, Ending),
    Ended(Life, FragmentId, Ending),
    /// Time for whoever waits for it.
    Timer,
    Submit,
    CancelQuery(usize, QueryId),
    /// The same, if it would go on for ever.
    CancelHanging(usize, QueryId),
    Break(usize, usize),
    Die(usize),
    Revive(usize),
    /// A node learns that another is down, or thinks so.
    Down(usize, usize),
}

/// A call that is not answered.
#[derive(Debug)]
struct Call {
    from: Life,
    to: Life,
    request: Option<Request>,
    about: About,
}

/// Whom the answer is for.
#[derive(Clone, Copy, Debug)]
enum About {
    Start(QueryId, Wave),
    Cancel(QueryId),
    Report(MessageNumber),
}

struct Submitted {
    query: QueryId,
    foreman: Life,
    fragments: Vec<(FragmentId, usize)>,
}

pub(super) struct World {
    seed: u64,
    random: StdRng,
    start: Instant,
    now: Instant,
    nodes: Vec<Option<Node>>,
    lives: Vec<u64>,
    events: BTreeMap<(Instant, u64), Event>,
    next: u64,
    calls: BTreeMap<u64, Call>,
    submitted: Vec<Submitted>,
    /// Of nodes that have died.
    past: Vec<Node>,
    finished: BTreeSet<FragmentId>,
    /// Queries that may rightly end otherwise than their fragments.
    troubled: BTreeSet<QueryId>,
    tally: Tally,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let nodes: usize = random.random_range(2..6);
        let start = Instant::now();
        let mut world = Self {
            seed,
            random,
            start,
            now: start,
            nodes: (0..nodes).map(|_| Some(Node::new())).collect(),
            lives: vec![0; nodes],
            events: BTreeMap::new(),
            next: 0,
            calls: BTreeMap::new(),
            submitted: Vec::new(),
            past: Vec::new(),
            finished: BTreeSet::new(),
            troubled: BTreeSet::new(),
            tally: Tally::default(),
        };
        world.plan_trouble();
        world
    }

    fn plan_trouble(&mut self) {
        let queries = self.random.random_range(1..6);
        for _ in 0..queries {
            let at = self.moment();
            self.at(at, Event::Submit);
        }
        // A third of the schedules is without trouble of any one kind.
        let some = |random: &mut StdRng, max: usize| {
            if random.random_bool(0.33) {
                0
            } else {
                random.random_range(0..=max)
            }
        };
        for _ in 0..some(&mut self.random, 6) {
            let (a, b, at) = (self.node(), self.node(), self.moment());
            self.at(at, Event::Break(a, b));
        }
        for _ in 0..some(&mut self.random, 2) {
            let (node, at) = (self.node(), self.moment());
            let back = at + Duration::from_millis(self.random.random_range(0..10_000));
            self.at(at, Event::Die(node));
            self.at(back, Event::Revive(node));
        }
        for _ in 0..some(&mut self.random, 2) {
            let (who, whom, at) = (self.node(), self.node(), self.moment());
            self.at(at, Event::Down(who, whom));
        }
    }

    fn node(&mut self) -> usize {
        self.random.random_range(0..self.nodes.len())
    }

    fn moment(&mut self) -> Instant {
        self.start + TROUBLE.mul_f64(self.random.random())
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.events.insert((at.max(self.now), self.next), event);
        self.next += 1;
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    fn delay(&mut self) -> Duration {
        // Mostly fast; now and then something overtakes something.
        let max = if self.random.random_bool(0.1) { 800 } else { 5 };
        Duration::from_millis(self.random.random_range(0..max))
    }

    pub(super) fn run(&mut self) {
        let end = self.start + TROUBLE + QUIET;
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > end {
                break;
            }
            self.now = at;
            self.handle(event);
            for node in 0..self.nodes.len() {
                self.step(node);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request(call) => self.on_request(call),
            Event::Reply(call, reply) => self.on_reply(call, Some(reply)),
            Event::CallTimeout(call) => self.on_reply(call, None),
            Event::Started(life, id, result) => self.on_started(life, id, &result),
            Event::Ended(life, id, result) => self.on_ended(life, id, &result),
            Event::Timer => {}
            Event::Submit => self.submit(),
            Event::CancelQuery(node, query) => self.cancel(node, query),
            Event::CancelHanging(node, query) => {
                let nodes = self.nodes.iter().flatten();
                let mut live = nodes.flat_map(|node| &node.engine.live);
                let hangs = |(id, it): (&FragmentId, &Behaviour)| {
                    id.query == query && it.end_after.is_none()
                };
                if live.any(hangs) {
                    self.cancel(node, query);
                }
            }
            Event::Break(a, b) => self.break_link(a, b),
            Event::Die(node) => self.die(node),
            Event::Revive(node) => {
                if self.nodes[node].is_none() {
                    self.nodes[node] = Some(Node::new());
                }
            }
            Event::Down(who, whom) => {
                if who != whom && self.nodes[who].is_some() {
                    self.tally.suspicions += 1;
                    self.down(who, whom);
                }
            }
        }
    }

    fn cancel(&mut self, node: usize, query: QueryId) {
        let now = self.now;
        if let Some(node) = &mut self.nodes[node]
            && let Some(run) = node.runs.get_mut(&query)
        {
            run.cancel(now);
            self.troubled.insert(query);
        }
    }

    /// Does what a node wants done, and wakes it when it wants to be woken.
    fn step(&mut self, index: usize) {
        let now = self.now;
        let Some(node) = &mut self.nodes[index] else {
            return;
        };
        node.handle_timeout(now);
        let effects = node.effects(now);
        if let Some(at) = node.next_timeout() {
            assert!(
                at > now,
                "seed {}: a timeout that is never handled",
                self.seed
            );
            let is_known = |((due, _), event): (&(Instant, u64), &Event)| {
                *due == at && matches!(event, Event::Timer)
            };
            if !self.events.range((at, 0)..=(at, u64::MAX)).any(is_known) {
                self.at(at, Event::Timer);
            }
        }
        for effect in effects {
            self.apply((index, self.lives[index]), effect);
        }
    }

    fn apply(&mut self, life: Life, effect: Effect) {
        let Some(node) = &mut self.nodes[life.0] else {
            return;
        };
        match effect {
            Effect::Call(to, request) => self.call(life, &to, request),
            Effect::Answer(call, reply) => self.reply(call, reply),
            Effect::Start(id) => {
                let behaviour = Behaviour::draw(&mut self.random);
                node.engine.start(id, behaviour.clone());
                let started = Event::Started(life, id, behaviour.start);
                self.after(behaviour.start_after, started);
            }
            Effect::Cancel(id) => {
                if let Some(wait) = node.engine.live[&id].cancel_after {
                    let interrupted = RpcFailure::new(ErrorType::System, "interrupted");
                    let ended = Event::Ended(life, id, Err(Box::new(interrupted)));
                    self.after(wait, ended);
                }
            }
            Effect::Abandon(id) => {
                self.tally.abandoned += 1;
                node.engine.live.remove(&id).expect("it was there");
            }
        }
    }

    fn call(&mut self, from: Life, to: &NodeAddress, request: Request) {
        let to = index(to);
        let id = self.next;
        let call = Call {
            from,
            to: (to, self.lives[to]),
            about: match &request {
                Request::Initialize(query, wave, _) => About::Start(*query, *wave),
                Request::Cancel(query) => About::Cancel(*query),
                Request::Statuses(number, _) => About::Report(*number),
            },
            request: Some(request),
        };
        self.next += 1;
        self.calls.insert(id, call);
        let wait = self.delay();
        self.after(wait, Event::Request(id));
        self.after(CALL_TIMEOUT, Event::CallTimeout(id));
    }

    fn on_request(&mut self, id: u64) {
        let now = self.now;
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let (from, to) = (call.from, call.to);
        let request = call.request.take().expect("it is delivered once");
        let alive = self.nodes[to.0].as_mut();
        let alive = alive.filter(|_| self.lives[to.0] == to.1);
        let Some(node) = alive else {
            // Nobody is there.
            return self.on_reply(id, None);
        };
        let reply = node.on_request(&address(from.0), id, request, now);
        if let Some(reply) = reply {
            self.reply(id, reply);
        }
    }

    fn reply(&mut self, call: u64, reply: Reply) {
        let wait = self.delay();
        self.after(wait, Event::Reply(call, reply));
    }

    /// A call is over; without a reply nobody knows what came of it.
    fn on_reply(&mut self, id: u64, reply: Option<Reply>) {
        let now = self.now;
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        if reply.is_none() {
            self.tally.calls_lost += 1;
        }
        if let Some(Reply::Failed(failure)) = &reply {
            self.tally.refused += 1;
            let is_early = failure.to_string().contains("cancelled before");
            self.tally.tombstones_hit += usize::from(is_early);
        }
        let alive = self.nodes[call.from.0].as_mut();
        let Some(node) = alive.filter(|_| self.lives[call.from.0] == call.from.1) else {
            return;
        };
        let to = address(call.to.0);
        match (call.about, reply) {
            (About::Report(number), Some(Reply::Unknown(unknown))) => {
                node.reports.on_taken(&to, number, now);
                for query in unknown {
                    node.table.cancel_orphans(&to, query, now);
                }
            }
            (About::Report(number), _) => {
                if node.reports.on_failed(&to, number, now) {
                    node.table.node_down(&to, now);
                    node.reports.forget(&to);
                }
            }
            (About::Start(query, wave), reply) => {
                if !matches!(reply, Some(Reply::Done)) {
                    self.troubled.insert(query);
                }
                if let Some(run) = node.runs.get_mut(&query) {
                    run.on_initialized(&to, wave, started(reply), now);
                }
            }
            (About::Cancel(query), reply) => {
                let is_left = reply.map(|reply| !matches!(reply, Reply::Cancelled(false)));
                if let Some(run) = node.runs.get_mut(&query) {
                    run.on_cancelled(&to, CancelAnswer::of(is_left), now);
                }
            }
        }
    }

    fn on_started(&mut self, life: Life, id: FragmentId, result: &Ending) {
        let now = self.now;
        let Some(node) = self.alive(life) else { return };
        let runs = node.table.on_started(id, result.clone(), now);
        let Some(behaviour) = node.engine.live.get(&id).cloned() else {
            assert!(!runs, "an abandoned fragment is not to run");
            return;
        };
        match (runs, behaviour.end_after) {
            (true, Some(wait)) => self.after(wait, Event::Ended(life, id, behaviour.end)),
            (true, None) => {}
            (false, _) => {
                assert!(result.is_err(), "it was wanted");
                node.engine.live.remove(&id);
            }
        }
    }

    fn on_ended(&mut self, life: Life, id: FragmentId, result: &Ending) {
        let Some(node) = self.alive(life) else { return };
        let profile = protos::shared::MinorFragmentProfile::default();
        node.table.on_ended(id, result.clone(), profile);
        // It may have been cancelled, and ended twice over.
        if node.engine.live.remove(&id).is_some() && result.is_ok() {
            node.engine.finished.insert(id);
        }
    }

    fn alive(&mut self, (node, life): Life) -> Option<&mut Node> {
        let is_it = self.lives[node] == life;
        self.nodes[node].as_mut().filter(|_| is_it)
    }

    fn submit(&mut self) {
        let foreman = self.node();
        if self.nodes[foreman].is_none() {
            return;
        }
        let query = QueryId {
            part1: 1,
            part2: i64::try_from(self.submitted.len()).expect("few"),
        };
        let stages = self.random.random_range(1..4);
        let mut fragments = Vec::new();
        for major in 0..stages {
            for minor in 0..self.random.random_range(1..6) {
                fragments.push(Assignment {
                    major,
                    minor,
                    node: address(self.node()),
                    is_leaf: major == stages - 1,
                    plan: Bytes::new(),
                });
            }
        }
        let of = |it: &Assignment| {
            let id = FragmentId::new(query, it.major, it.minor);
            (id, index(&it.node))
        };
        self.submitted.push(Submitted {
            query,
            foreman: (foreman, self.lives[foreman]),
            fragments: fragments.iter().map(of).collect(),
        });
        let plan = QueryPlan { query, fragments };
        let run = Run::try_new(&plan, RUN_TIMES, self.now).expect("a good plan");
        let node = self.nodes[foreman].as_mut().expect("it lives");
        node.runs.insert(query, run);
        // Those that hang are cancelled at some time, too.
        let wait = Duration::from_millis(self.random.random_range(0..15_000));
        if self.random.random_bool(0.4) {
            self.after(wait / 20, Event::CancelQuery(foreman, query));
        } else {
            self.after(HANGING, Event::CancelHanging(foreman, query));
        }
    }

    /// What is under way between two nodes is lost.
    fn break_link(&mut self, a: usize, b: usize) {
        let between = |call: &Call| {
            let ends = (call.from.0, call.to.0);
            a != b && (ends == (a, b) || ends == (b, a))
        };
        let lost = self.calls.iter().filter(|(_, call)| between(call));
        let lost: Vec<_> = lost.map(|(&id, _)| id).collect();
        for id in lost {
            self.on_reply(id, None);
        }
    }

    fn die(&mut self, node: usize) {
        let Some(dead) = self.nodes[node].take() else {
            return;
        };
        self.tally.deaths += 1;
        self.past.push(dead);
        self.lives[node] += 1;
        for other in 0..self.nodes.len() {
            self.break_link(node, other);
            if other != node {
                let wait = Duration::from_millis(self.random.random_range(0..4000));
                self.after(wait, Event::Down(other, node));
            }
        }
    }

    fn down(&mut self, who: usize, whom: usize) {
        let now = self.now;
        if let Some(node) = &mut self.nodes[who] {
            node.node_down(&address(whom), now);
        }
    }

    /// Every query has ended once where its foreman lives, and nothing is left anywhere.
    pub(super) fn check(mut self) -> Tally {
        let seed = self.seed;
        for node in self.nodes.iter().flatten() {
            node.assert_idle(seed);
        }
        let all = self.nodes.iter().flatten().chain(&self.past);
        for node in all.clone() {
            self.finished.extend(&node.engine.finished);
        }
        let mut outcomes: BTreeMap<QueryId, Vec<&Outcome>> = BTreeMap::new();
        for (query, outcome) in all.flat_map(|node| &node.outcomes) {
            outcomes.entry(*query).or_default().push(outcome);
        }
        for it in &self.submitted {
            let ended = outcomes.remove(&it.query).unwrap_or_default();
            let (foreman, life) = it.foreman;
            let lives = self.lives[foreman] == life && self.nodes[foreman].is_some();
            match ended[..] {
                [] => {
                    assert!(!lives, "seed {seed}: the query {} never ended", it.query);
                    self.tally.lost += 1;
                }
                [Outcome::Finished] => {
                    self.tally.finished += 1;
                    for (id, _) in &it.fragments {
                        let has_finished = self.finished.contains(id);
                        assert!(has_finished, "seed {seed}: {id} has not finished");
                    }
                }
                [Outcome::Failed(failure)] => {
                    self.tally.failed += 1;
                    let mut ids = it.fragments.iter().map(|(id, _)| id);
                    let all_well = ids.all(|id| self.finished.contains(id));
                    let is_quiet = self.tally.deaths + self.tally.suspicions == 0;
                    // Reports may be lost, and are made again.
                    let is_wrong = all_well && is_quiet && !self.troubled.contains(&it.query);
                    assert!(!is_wrong, "seed {seed}: {} failed: {failure}", it.query);
                }
                [Outcome::Cancelled] => self.tally.cancelled += 1,
                _ => panic!("seed {seed}: the query {} ended more than once", it.query),
            }
        }
        self.tally
    }
}

/// What an answer, or none, says about fragments that were to start.
fn started(reply: Option<Reply>) -> Result<(), NotStarted> {
    match reply {
        Some(Reply::Failed(failure)) => Err(NotStarted {
            failure,
            is_certain: true,
        }),
        Some(_) => Ok(()),
        None => Err(NotStarted {
            failure: Box::new(RpcFailure::new(ErrorType::Connection, "lost")),
            is_certain: false,
        }),
    }
}

fn address(index: usize) -> NodeAddress {
    let port = u16::try_from(index + 1).expect("few");
    NodeAddress::new("node", port).expect("an address")
}

fn index(address: &NodeAddress) -> usize {
    usize::from(address.control_port()) - 1
}
