//! Nodes, links and faults, one step at a time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};

use membership::{
    Event, Learned, Member, NodeAddress, NodeState, Registry, RegistryOptions, Watch,
};
use protos::coord::DrillbitEndpoint;
use rand::{Rng, RngCore, seq::IndexedRandom};

use super::{
    super::{BeatOptions, Due, Exchange, Health, Monitor},
    Report,
    observer::{BEAT, Belief},
};

const NODES: usize = 3;
/// How much later than asked timers fire.
const TIMER: Duration = Duration::from_millis(3);
const UNIX_US: u64 = 1_700_000_000_000_000;

type Time = Duration;

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// The timer of a node's monitor.
    Poll {
        node: usize,
        timer: u64,
    },
    /// A beat arrives.
    Beat(Flight),
    /// Its answer arrives.
    Answer {
        flight: Flight,
        peer: u64,
        received_us: u64,
    },
    /// Nothing listens there.
    Refused(Flight),
    /// The process that should have answered is gone.
    Lost(Flight),
    /// The caller has waited long enough.
    TimedOut(Flight),
    Fault(Fault),
    /// All that must hold is checked.
    Check,
}

impl What {
    /// Whose process deals with it.
    fn whom(&self) -> usize {
        match self {
            Self::Poll { node, .. } => *node,
            Self::Beat(flight) => flight.to,
            Self::Answer { flight, .. }
            | Self::Refused(flight)
            | Self::Lost(flight)
            | Self::TimedOut(flight) => flight.from,
            Self::Fault(_) | Self::Check => unreachable!("dealt with before"),
        }
    }
}

/// A beat on its way, and who sent it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    from: usize,
    to: usize,
    sequence: u64,
    sent: Time,
    sent_us: u64,
    /// The process that sent it.
    incarnation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Stop(usize),
    Continue(usize),
    Kill(usize),
    Start(usize),
    Cut(usize, usize),
    Heal(usize, usize),
    /// The wall clock is set, to so many microseconds beside the true time.
    Set(usize, i64),
    /// Its provider no longer names a member, or again.
    Forget(usize, usize),
    Remember(usize, usize),
    /// A node goes on to another state.
    Retire(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    Running,
    Stopped,
    Dead,
}

struct Node {
    process: Process,
    incarnation: u64,
    state: NodeState,
    clock_us: i64,
    /// Everything reaches it later by up to so long: it is busy.
    lag: Time,
    registry: Registry,
    watch: Watch,
    followed: BTreeMap<NodeAddress, Option<u64>>,
    monitor: Monitor,
    timer: u64,
    timer_at: Option<Instant>,
    beliefs: BTreeMap<usize, Belief>,
    /// What came while it was stopped.
    inbox: Vec<What>,
}

/// `SplitMix64`: as random as is needed here, and fast without optimisation.
struct Random(u64);

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        u32::try_from(self.next_u64() >> 32).expect("32 bits")
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.next_u64().to_le_bytes()[0]);
    }
}

impl Node {
    /// Whether its timer is in time: one that was stopped may not have been woken yet.
    fn is_awake(&self, now: Instant) -> bool {
        self.monitor.deadline() + self.lag + 2 * TIMER >= now
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    /// Answers come within two beats, always.
    is_gentle: bool,
    /// There, or back.
    delay_max: Time,
    loss_percent: u32,
    is_cut: bool,
}

pub(super) struct World {
    random: Random,
    start: Instant,
    now: Time,
    order: u64,
    events: BinaryHeap<Reverse<(Time, u64, What)>>,
    nodes: Vec<Node>,
    links: BTreeMap<(usize, usize), Link>,
    /// Nodes that never stop, never die, and are never busy.
    steady: Vec<usize>,
    incarnations: u64,
    report: Report,
}

fn address(node: usize) -> NodeAddress {
    let port = u16::try_from(node + 1).unwrap();
    NodeAddress::new("node", port).unwrap()
}

fn endpoint(node: usize, state: NodeState) -> DrillbitEndpoint {
    DrillbitEndpoint {
        address: Some("node".to_owned()),
        control_port: Some(i32::try_from(node + 1).unwrap()),
        user_port: Some(31010),
        state: Some(state.into()),
        ..DrillbitEndpoint::default()
    }
}

fn after(start: Instant, at: Time) -> Instant {
    start + at
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let start = Instant::now();
        let steady = (0..NODES).filter(|_| random.random_ratio(1, 2)).collect();
        let mut world = Self {
            random,
            start,
            now: Time::ZERO,
            order: 0,
            events: BinaryHeap::new(),
            nodes: Vec::new(),
            links: BTreeMap::new(),
            steady,
            incarnations: 0,
            report: Report::default(),
        };
        for node in 0..NODES {
            let fresh = world.fresh(node);
            world.nodes.push(fresh);
        }
        for pair in pairs() {
            let link = world.link();
            world.links.insert(pair, link);
        }
        (0..NODES).for_each(|node| world.begin(node));
        world
    }

    /// Faults for so long; then nothing bad happens any more, and everything must be well in the end.
    pub(super) fn run(&mut self, faults: Time, recovery: Time) {
        self.plan_faults(faults);
        self.run_until(faults);
        self.heal();
        let end = faults + recovery;
        self.run_until(end);
        self.check_recovered();
    }

    pub(super) fn report(&self) -> Report {
        self.report
    }

    fn run_until(&mut self, end: Time) {
        while let Some(Reverse((at, _, _))) = self.events.peek()
            && *at <= end
        {
            let Some(Reverse((at, _, what))) = self.events.pop() else {
                return;
            };
            self.now = at;
            self.happen(what);
        }
        self.now = end;
    }

    fn schedule(&mut self, after: Time, what: What) {
        self.order += 1;
        let at = self.now + after;
        self.events.push(Reverse((at, self.order, what)));
    }

    fn up_to(&mut self, max: Time) -> Time {
        self.random.random_range(Time::ZERO..=max)
    }

    // Nodes and links.

    fn fresh(&mut self, node: usize) -> Node {
        self.incarnations += 1;
        let state = NodeState::Online;
        let mut local = Member::of(endpoint(node, state).into()).unwrap();
        local.incarnation = Some(self.incarnations);
        let registry = Registry::of_node(local, RegistryOptions::default());
        let (_, watch) = registry.watch();
        let busy = !self.is_steady(node) && self.random.random_ratio(1, 3);
        Node {
            process: Process::Running,
            incarnation: self.incarnations,
            state,
            clock_us: self.random.random_range(-1_000_000..1_000_000),
            lag: if busy { BEAT / 2 } else { Time::ZERO },
            registry,
            watch,
            followed: BTreeMap::new(),
            monitor: self.monitor(),
            timer: 0,
            timer_at: None,
            beliefs: BTreeMap::new(),
            inbox: Vec::new(),
        }
    }

    fn monitor(&self) -> Monitor {
        let versions = ("0.1.0".to_owned(), String::new());
        Monitor::new(&BeatOptions::default(), versions, self.instant(self.now))
    }

    fn link(&mut self) -> Link {
        if self.random.random() {
            return Link {
                is_gentle: true,
                // Two beats there and back, less what a busy node and its timers take.
                delay_max: (BEAT * 3 / 4).saturating_sub(2 * TIMER),
                loss_percent: 0,
                is_cut: false,
            };
        }
        let slow = self.random.random_ratio(1, 3);
        Link {
            is_gentle: false,
            delay_max: if slow { BEAT * 2 } else { BEAT / 20 },
            loss_percent: *[0, 0, 5, 30].choose(&mut self.random).unwrap(),
            is_cut: false,
        }
    }

    fn is_steady(&self, node: usize) -> bool {
        self.steady.contains(&node)
    }

    /// Whether `peer` must never be taken for down.
    fn is_gentle(&self, node: usize, peer: usize) -> bool {
        self.is_steady(peer) && self.link_of(node, peer).is_gentle
    }

    fn link_of(&self, a: usize, b: usize) -> Link {
        self.links[&(a.min(b), a.max(b))]
    }

    fn instant(&self, at: Time) -> Instant {
        after(self.start, at)
    }

    fn unix_us(&self, node: usize) -> u64 {
        let micros = UNIX_US + u64::try_from(self.now.as_micros()).unwrap();
        micros.saturating_add_signed(self.nodes[node].clock_us)
    }

    /// A process starts: it knows its peers from a list.
    fn begin(&mut self, node: usize) {
        for peer in (0..NODES).filter(|&peer| peer != node) {
            self.remember(node, peer);
        }
        self.step(node);
    }

    fn remember(&mut self, node: usize, peer: usize) {
        let joined = self.nodes[node].registry.join(Member::at(address(peer)));
        joined.unwrap();
        self.follow(node);
    }

    /// Reads what the registry tells, as the driver does.
    fn follow(&mut self, node: usize) {
        let gentle: Vec<_> = (0..NODES)
            .map(|peer| peer != node && self.is_gentle(node, peer))
            .collect();
        let (now, instant) = (self.now, self.instant(self.now));
        let this = &mut self.nodes[node];
        while let Some(event) = this.watch.try_next() {
            let place = event.address().clone();
            let peer = usize::from(place.control_port()) - 1;
            let is_member = this.registry.member(&place).is_some();
            let before = this.followed.get(&place).copied();
            match &event {
                Event::Joined(member) => {
                    assert_eq!(before, None, "{event:?}");
                    this.followed.insert(place.clone(), member.incarnation);
                    if !this.beliefs.contains_key(&peer) && is_member {
                        let mut belief = Belief::new(now, gentle[peer], !this.lag.is_zero());
                        if !this.is_awake(instant) {
                            belief.on_stopped();
                        }
                        this.beliefs.insert(peer, belief);
                    }
                    if is_member {
                        this.monitor.join(&place, instant);
                    }
                }
                Event::Changed { after, .. } if peer != node => {
                    assert!(before.is_some(), "{event:?}");
                    this.followed.insert(place, after.incarnation);
                }
                Event::Changed { .. } => {}
                Event::Left(member) => {
                    assert_eq!(before, Some(member.incarnation), "{event:?}");
                    this.followed.remove(&place);
                    if !is_member {
                        this.monitor.leave(&place);
                        this.beliefs.remove(&peer);
                    }
                }
            }
        }
    }

    // What happens.

    fn happen(&mut self, what: What) {
        match &what {
            What::Fault(fault) => return self.befall(*fault),
            What::Check => return self.check(),
            _ => {}
        }
        let node = what.whom();
        match self.nodes[node].process {
            Process::Running => self.receive(node, what),
            Process::Stopped => self.nodes[node].inbox.push(what),
            Process::Dead => self.never_received(what),
        }
    }

    fn never_received(&mut self, what: What) {
        if let What::Beat(flight) = what {
            self.send_back(&flight, What::Lost(flight.clone()));
        }
    }

    fn receive(&mut self, node: usize, what: What) {
        if let What::Beat(flight) = what {
            return self.answer(node, &flight);
        }
        match what {
            What::Poll { timer, .. } if timer != self.nodes[node].timer => return,
            What::Poll { .. } => self.poll(node),
            What::Answer {
                flight,
                peer,
                received_us,
            } => self.answered(node, &flight, peer, received_us),
            What::Refused(flight) => self.tell(node, &flight, |monitor, due, now| {
                monitor.on_refused(due, "refused".to_owned(), now);
            }),
            What::Lost(flight) => self.tell(node, &flight, Monitor::on_lost),
            What::TimedOut(flight) => self.tell(node, &flight, Monitor::on_unanswered),
            What::Beat(_) | What::Fault(_) | What::Check => {}
        }
        self.step(node);
    }

    fn poll(&mut self, node: usize) {
        let (now, instant) = (self.now, self.instant(self.now));
        let this = &mut self.nodes[node];
        let deadline = this
            .monitor
            .deadline()
            .saturating_duration_since(self.start);
        let late = now.saturating_sub(deadline);
        this.beliefs
            .values_mut()
            .for_each(|belief| belief.on_late(late, now));
        this.monitor.poll(instant);
    }

    fn tell(
        &mut self,
        node: usize,
        flight: &Flight,
        news: impl FnOnce(&mut Monitor, &Due, Instant),
    ) {
        let now = self.instant(self.now);
        let this = &mut self.nodes[node];
        if this.incarnation == flight.incarnation {
            news(&mut this.monitor, &due(flight), now);
        }
    }

    fn answer(&mut self, node: usize, flight: &Flight) {
        let (now, instant) = (self.now, self.instant(self.now));
        let this = &mut self.nodes[node];
        let from = address(flight.from);
        // That another node beats us shows that it lives.
        if this.monitor.incarnation(&from) == Some(flight.incarnation) {
            this.monitor.on_heard(&from, instant, instant);
            let is_awake = this.is_awake(instant);
            if let Some(belief) = this.beliefs.get_mut(&flight.from) {
                belief.on_sign(now);
                if is_awake {
                    belief.on_awake();
                }
            }
        }
        let peer = this.incarnation;
        let received_us = self.unix_us(node);
        let what = What::Answer {
            flight: flight.clone(),
            peer,
            received_us,
        };
        self.send_back(flight, what);
        self.step(node);
    }

    fn answered(&mut self, node: usize, flight: &Flight, peer: u64, received_us: u64) {
        let (now, received) = (self.now, self.instant(self.now));
        let state = self.nodes[flight.to].state;
        let this = &mut self.nodes[node];
        if this.incarnation != flight.incarnation {
            return;
        }
        let exchange = Exchange {
            sent: after(self.start, flight.sent),
            sent_unix_us: flight.sent_us,
            peer_received_unix_us: received_us,
            peer_sent_unix_us: received_us,
            received,
        };
        let versions = ("0.1.0", "");
        let accepted = this
            .monitor
            .on_answer(&due(flight), &exchange, Some(peer), versions);
        if accepted {
            let is_awake = this.is_awake(received);
            let belief = this.beliefs.get_mut(&flight.to).expect("watched");
            belief.on_answer(peer, now);
            if is_awake {
                belief.on_awake();
            }
            let learned = Learned {
                incarnation: peer,
                endpoint: endpoint(flight.to, state).into(),
                software_version: "0.1.0".to_owned(),
                engine_version: String::new(),
                load: None,
            };
            this.registry.learn(&address(flight.to), &learned);
        }
    }

    /// After everything that a node does: what it sends, what it says, and when it is to be woken.
    fn step(&mut self, node: usize) {
        let now = self.now;
        while let Some(due) = self.nodes[node].monitor.next_due() {
            self.send(node, &due);
        }
        let lag = self.nodes[node].lag + 2 * TIMER;
        while let Some(event) = self.nodes[node].monitor.next_event() {
            let peer = usize::from(event.address.control_port()) - 1;
            let belief = self.nodes[node].beliefs.get_mut(&peer).expect("watched");
            belief.on_event(&event, now, lag);
            match event.to {
                Health::Up => self.report.ups += 1,
                Health::Suspect => self.report.suspects += 1,
                Health::Down => self.report.downs += 1,
            }
        }
        // Sometimes it does not look at once.
        if self.random.random_ratio(3, 4) {
            self.follow(node);
        }
        self.set_timer(node);
    }

    fn set_timer(&mut self, node: usize) {
        let (now, start) = (self.now, self.start);
        let this = &mut self.nodes[node];
        let deadline = this.monitor.deadline();
        if this.timer_at == Some(deadline) {
            return;
        }
        this.timer_at = Some(deadline);
        this.timer += 1;
        let timer = this.timer;
        let wait = deadline.saturating_duration_since(start);
        let late = TIMER.max(this.lag);
        let late = self.up_to(late);
        let wait = wait.saturating_sub(now) + late;
        self.schedule(wait, What::Poll { node, timer });
    }

    fn send(&mut self, node: usize, beat: &Due) {
        self.report.beats += 1;
        let to = usize::from(beat.address.control_port()) - 1;
        let flight = Flight {
            from: node,
            to,
            sequence: beat.sequence,
            sent: self.now,
            sent_us: self.unix_us(node),
            incarnation: self.nodes[node].incarnation,
        };
        self.schedule(4 * BEAT, What::TimedOut(flight.clone()));
        let link = self.link_of(node, to);
        let there = self.up_to(link.delay_max);
        if link.is_cut {
            return;
        }
        if self.nodes[to].process == Process::Dead {
            // The machine answers, not the process: nothing is lost for good there.
            return self.schedule(there, What::Refused(flight));
        }
        if !self.random.random_ratio(link.loss_percent, 100) {
            let lag = self.nodes[to].lag;
            let lag = self.up_to(lag);
            self.schedule(there + lag, What::Beat(flight));
        }
    }

    fn send_back(&mut self, flight: &Flight, what: What) {
        let link = self.link_of(flight.from, flight.to);
        if link.is_cut || self.random.random_ratio(link.loss_percent, 100) {
            return;
        }
        let lag = self.nodes[flight.from].lag;
        let back = self.up_to(link.delay_max) + self.up_to(lag);
        self.schedule(back, what);
    }

    // Faults.

    fn plan_faults(&mut self, until: Time) {
        for _ in 0..self.random.random_range(0..8) {
            let at = self.up_to(until);
            let lasting = self.up_to(Time::from_secs(8));
            let (fault, undone) = self.fault();
            self.schedule(at, What::Fault(fault));
            self.schedule(at + lasting, What::Fault(undone));
        }
        let checks = u32::try_from(until.as_millis() / 200).unwrap();
        for check in 1..checks {
            self.schedule(check * BEAT / 5, What::Check);
        }
    }

    /// Something bad, and its end.
    fn fault(&mut self) -> (Fault, Fault) {
        let a = self.random.random_range(0..NODES);
        let b = (a + self.random.random_range(1..NODES)) % NODES;
        // From any other time, also that of the start, by more than what the worst round trips may hide.
        let steps = self.random.random_range(1..13);
        let set = Fault::Set(
            a,
            if self.random.random() {
                5_000_000
            } else {
                -5_000_000
            } * steps,
        );
        let steady = self.is_steady(a);
        match self.random.random_range(0..8) {
            0..4 if steady => (set, set),
            0..2 => (Fault::Stop(a), Fault::Continue(a)),
            2..4 => (Fault::Kill(a), Fault::Start(a)),
            4 => (Fault::Cut(a, b), Fault::Heal(a, b)),
            5 => (set, set),
            6 => (Fault::Forget(a, b), Fault::Remember(a, b)),
            _ => (Fault::Retire(a), Fault::Retire(a)),
        }
    }

    fn befall(&mut self, fault: Fault) {
        match fault {
            Fault::Stop(node) if self.nodes[node].process == Process::Running => {
                self.nodes[node].process = Process::Stopped;
            }
            Fault::Continue(node) if self.nodes[node].process == Process::Stopped => {
                self.go_on(node);
            }
            Fault::Kill(node) => self.kill(node),
            Fault::Start(node) if self.nodes[node].process == Process::Dead => self.restart(node),
            Fault::Cut(a, b) => self.set_cut(a, b, true),
            Fault::Heal(a, b) => self.set_cut(a, b, false),
            Fault::Set(node, to) => self.nodes[node].clock_us = to,
            Fault::Forget(node, peer) => self.nodes[node].registry.leave(&address(peer)),
            Fault::Remember(node, peer) => self.remember(node, peer),
            Fault::Retire(node) => self.nodes[node].state = NodeState::Quiescent,
            Fault::Stop(_) | Fault::Continue(_) | Fault::Start(_) => {}
        }
    }

    /// What came meanwhile is there at once, in no order, or a moment later.
    fn go_on(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        this.process = Process::Running;
        let beliefs = this.beliefs.values_mut();
        beliefs.for_each(Belief::on_stopped);
        let inbox = std::mem::take(&mut self.nodes[node].inbox);
        for what in inbox {
            let moment = if self.random.random() {
                Time::ZERO
            } else {
                self.up_to(BEAT / 4)
            };
            self.schedule(moment, what);
        }
    }

    fn kill(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        this.process = Process::Dead;
        let inbox = std::mem::take(&mut this.inbox);
        for what in inbox {
            self.never_received(what);
        }
    }

    fn restart(&mut self, node: usize) {
        for (peer, belief) in &self.nodes[node].beliefs {
            self.report.restarts += belief.counts.restarts;
            self.report.flaps += belief.counts.flaps;
            assert_ne!(*peer, node);
        }
        self.nodes[node] = self.fresh(node);
        self.begin(node);
    }

    fn set_cut(&mut self, a: usize, b: usize, is_cut: bool) {
        let link = self.links.get_mut(&(a.min(b), a.max(b))).expect("a link");
        link.is_cut = is_cut && !link.is_gentle;
    }

    fn heal(&mut self) {
        let calm = Link {
            is_gentle: true,
            delay_max: BEAT / 20,
            loss_percent: 0,
            is_cut: false,
        };
        self.links.values_mut().for_each(|link| *link = calm);
        self.events
            .retain(|Reverse((_, _, what))| !matches!(what, What::Fault(_)));
        for node in 0..NODES {
            self.nodes[node].lag = Time::ZERO;
            self.befall(Fault::Continue(node));
            self.befall(Fault::Start(node));
            for peer in (0..NODES).filter(|&peer| peer != node) {
                self.remember(node, peer);
            }
            self.step(node);
        }
    }

    // What must hold.

    fn check(&self) {
        for node in &self.nodes {
            let lag = node.lag + 2 * TIMER;
            if node.process == Process::Running && node.is_awake(self.instant(self.now)) {
                node.beliefs
                    .values()
                    .for_each(|belief| belief.check(self.now, lag));
            }
        }
    }

    fn check_recovered(&mut self) {
        self.check();
        let now = self.instant(self.now);
        for node in 0..NODES {
            self.follow(node);
            let this = &self.nodes[node];
            assert_eq!(this.beliefs.len(), NODES - 1);
            for seen in this.monitor.nodes(now) {
                let peer = usize::from(seen.address.control_port()) - 1;
                assert_eq!(seen.health, Health::Up, "{node} of {peer}: {seen:?}");
                let belief = &this.beliefs[&peer];
                belief.check_counts(&seen.counts);
                self.report.restarts += belief.counts.restarts;
                self.report.flaps += belief.counts.flaps;
                let there = &self.nodes[peer];
                let member = this.registry.member(&seen.address).expect("a member");
                assert_eq!(member.incarnation, Some(there.incarnation));
                assert_eq!(member.state, Some(there.state));
                assert_eq!(this.followed[&seen.address], member.incarnation);
                let skew = seen.skew.expect("beats were answered");
                let off = skew.offset_us.abs_diff(there.clock_us - this.clock_us);
                assert!(off <= skew.error_us, "{skew:?} is off by {off}");
            }
        }
    }
}

fn due(flight: &Flight) -> Due {
    Due {
        address: address(flight.to),
        sequence: flight.sequence,
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..NODES).flat_map(|a| (a + 1..NODES).map(move |b| (a, b)))
}
