//! Connections stepped by hand over a simulated network. Both ends of each call the other; handlers answer late, in any
//! order, or refuse; the network delays and cuts up what it carries, stalls, resets connections, or loses them silently.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use protos::{Plane, error::ErrorType};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};

use super::{Report, run_all};
use crate::{
    connection::{Connection, IdleTimeout, Outcome, Outgoing},
    error::{CallError, CloseReason, RpcFailure},
    frame::CoordinationId,
    lanes::StreamKey,
    ledger::{Kind, Ledger, Limits},
    link::Room,
    metrics::Ticket,
    options::{Beats, ConnectionOptions},
    simulation::trace::Trace,
    tests::pair::{End, HELLO, REQUEST, RESPONSE},
};

const SCHEDULES: u64 = 2000;
/// What callers, handlers and the network do in one schedule.
const ACTIONS: u32 = 40;
const CONNECTIONS: usize = 3;
/// Longest time that bytes are on their way.
const DELAY_MAX: Duration = Duration::from_millis(60);
/// A stall up to this is no reason to give a peer up.
const SHORT_STALL: Duration = Duration::from_millis(1500);
/// Bytes that are on their way before a socket takes no more.
const WINDOW_BYTES: usize = 4096;
/// By when everything has ended after the last action: Drill's heartbeat needs the longest.
const PATIENCE: Duration = Duration::from_secs(90);
/// Bytes that one end may hold: what is on its way is short.
const HELD_BYTES_MAX: usize = 256 * 1024;

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// Until then its reader reads nothing.
    stalled: Option<Instant>,
}

impl Pipe {
    fn next(&self) -> Option<Instant> {
        let (at, _) = self.chunks.front()?;
        Some(self.stalled.map_or(*at, |stalled| stalled.max(*at)))
    }

    fn send(&mut self, wire: &[u8], now: Instant, random: &mut StdRng) {
        let mut rest = wire;
        while !rest.is_empty() {
            let len = match random.random_range(0..4) {
                0 => random.random_range(1..=rest.len()),
                _ => rest.len(),
            };
            let (chunk, behind) = rest.split_at(len);
            let earliest = self.chunks.back().map_or(now, |(at, _)| *at);
            let arrival = now + DELAY_MAX.mul_f64(random.random());
            self.chunks
                .push_back((arrival.max(earliest), chunk.to_vec()));
            self.bytes += len;
            rest = behind;
        }
    }

    fn receive(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next()? > now {
            return None;
        }
        let (_, chunk) = self.chunks.pop_front()?;
        self.bytes -= chunk.len();
        Some(chunk)
    }
}

/// One end, its callers and its handler.
struct Peer {
    end: End,
    /// Whether its socket took nothing the last time.
    is_blocked: bool,
    calls: Vec<Call>,
    /// Requests that are being handled, and when each is done.
    work: Vec<(Instant, Ticket, u64)>,
    /// Last call of each stream that was started here.
    last_of_stream: HashMap<u64, u64>,
    closed_at: Option<Instant>,
}

struct Call {
    id: CoordinationId,
    serial: u64,
    deadline: Option<Instant>,
    outcome: Receiver<Outcome>,
}

impl Peer {
    fn new(end: End) -> Self {
        Self {
            end,
            is_blocked: false,
            calls: Vec::new(),
            work: Vec::new(),
            last_of_stream: HashMap::new(),
            closed_at: None,
        }
    }
}

/// A connection: the end that connected, the one that accepted, and what is on its way.
struct Wire {
    peers: [Peer; 2],
    /// From the peer of the same index to the other.
    pipes: [Pipe; 2],
    /// The client's handshake, until it is answered.
    hello: Option<Receiver<Outcome>>,
    /// Which ends have done their handshake.
    is_open: [bool; 2],
    has_beats: bool,
    /// When bytes began to be lost.
    cut: Option<Instant>,
    /// Whether somebody may rightly think that the other is dead.
    excused: bool,
}

struct Net {
    random: StdRng,
    now: Instant,
    start: Instant,
    wires: Vec<Wire>,
    trace: Trace,
    serial: u64,
    /// Calls that some handler has seen.
    started: HashSet<u64>,
    report: Report,
}

impl Net {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut net = Self {
            random: StdRng::seed_from_u64(seed),
            now,
            start: now,
            wires: Vec::new(),
            trace: Trace::new(),
            serial: 0,
            started: HashSet::new(),
            report: Report::default(),
        };
        (0..CONNECTIONS).for_each(|_| net.connect());
        net
    }

    fn note(&mut self, what: u64, wire: usize, value: u64) {
        let at = u64::try_from((self.now - self.start).as_nanos()).unwrap();
        self.trace.note([at, what, wire as u64, value]);
    }

    fn connect(&mut self) {
        let has_beats = self.random.random_bool(0.7);
        let narrow = self.random.random_bool(0.3);
        let options = |mut options: ConnectionOptions| {
            options.beats = has_beats.then(Beats::default);
            if narrow {
                options.requests_in_flight_max = 4;
                options.calls_in_flight_max = 8;
            }
            options
        };
        let ledgers = ["client", "server"].map(|name| Ledger::root(name, Limits::default()));
        let [near, far] = &ledgers;
        let (completion, hello) = oneshot::channel();
        let client = Connection::client(
            Plane::User,
            options(ConnectionOptions::user_client()),
            HELLO,
            completion,
            near,
            self.now,
        );
        let server = options(ConnectionOptions::user_server());
        let server = Connection::server(Plane::User, server, far, self.now);
        let [near, far] = ledgers;
        self.wires.push(Wire {
            peers: [End::new(client, near), End::new(server, far)].map(Peer::new),
            pipes: Default::default(),
            hello: Some(hello),
            is_open: [false; 2],
            has_beats,
            cut: None,
            excused: false,
        });
    }

    // ---- what callers and the network do ----

    fn act(&mut self) {
        let wire = self.random.random_range(0..self.wires.len());
        let side = self.random.random_range(0..2);
        match self.random.random_range(0..100) {
            0..70 if self.wires[wire].is_open[side] => self.call_some(wire, side),
            70..78 => self.give_up(wire, side),
            78..82 => self.ping(wire, side),
            82..90 => self.stall(wire, side),
            90..92 => self.lose(wire),
            92..94 => self.close(wire, side, CloseReason::ClosedHere),
            94..96 => self.reset(wire),
            _ => {}
        }
        // Whoever has lost a connection makes another.
        if self.wires[wire].peers[0].closed_at.is_some() && self.wires.len() < 3 * CONNECTIONS {
            self.connect();
        }
    }

    /// Now and then several at once, which leave and arrive together.
    fn call_some(&mut self, wire: usize, side: usize) {
        let calls = [1, 1, 1, 4][self.random.random_range(0..4)];
        (0..calls).for_each(|_| self.call(wire, side));
    }

    fn call(&mut self, wire: usize, side: usize) {
        self.serial += 1;
        let serial = self.serial;
        let stream = self.random.random_range(0..3_u64);
        let timeout = Duration::from_millis(self.random.random_range(50..3000));
        let timeout = self.random.random_bool(0.3).then_some(timeout);
        let mut body = stream.to_le_bytes().to_vec();
        body.extend(serial.to_le_bytes());
        let dbody = vec![0; [0, 0, 100, 3000][self.random.random_range(0..4)]];
        let request = Outgoing {
            rpc_type: REQUEST,
            pbody: Bytes::from(body).into(),
            dbody: vec![dbody.into()],
            stream: StreamKey(stream),
            room: Room::default(),
            began: self.now,
        };
        let peer = &mut self.wires[wire].peers[side];
        let (completion, outcome) = oneshot::channel();
        // A full or closed connection refuses at once, which is an end too.
        if let Ok(id) = peer.end.connection.call(request, timeout, completion) {
            let deadline = timeout.map(|timeout| self.now + timeout);
            peer.calls.push(Call {
                id,
                serial,
                deadline,
                outcome,
            });
            self.note(1, wire, serial);
        }
    }

    fn give_up(&mut self, wire: usize, side: usize) {
        let peer = &mut self.wires[wire].peers[side];
        if let Some(call) = peer.calls.pop() {
            peer.end.connection.give_up(call.id);
            self.note(2, wire, call.serial);
        }
    }

    fn ping(&mut self, wire: usize, side: usize) {
        if self.wires[wire].is_open[side] {
            let end = &mut self.wires[wire].peers[side].end;
            end.connection.ping(oneshot::channel().0, self.now);
            end.take_events();
        }
    }

    fn stall(&mut self, wire: usize, side: usize) {
        let longest = if self.random.random_bool(0.8) {
            SHORT_STALL
        } else {
            4 * SHORT_STALL
        };
        let time = longest.mul_f64(self.random.random());
        let wire = &mut self.wires[wire];
        wire.excused |= time >= SHORT_STALL;
        // One after the other they could last for ever.
        if wire.pipes[side]
            .stalled
            .is_none_or(|until| until + SHORT_STALL < self.now)
        {
            wire.pipes[side].stalled = Some(self.now + time);
        }
    }

    /// From now on bytes are lost, and nobody is told.
    fn lose(&mut self, wire: usize) {
        let wire = &mut self.wires[wire];
        wire.cut.get_or_insert(self.now);
        wire.pipes = Default::default();
        wire.excused = true;
    }

    /// Both ends see the connection go.
    fn reset(&mut self, wire: usize) {
        self.wires[wire].pipes = Default::default();
        for side in [0, 1] {
            self.close(wire, side, CloseReason::PeerClosed { mid_frame: false });
        }
    }

    fn close(&mut self, wire: usize, side: usize, reason: CloseReason) {
        self.wires[wire].peers[side].end.close(reason, self.now);
    }

    // ---- time ----

    fn advance(&mut self, until: Instant) {
        (0..self.wires.len()).for_each(|wire| self.step(wire));
        while let Some(next) = self.wires.iter().filter_map(Wire::next).min()
            && next <= until
        {
            // What was due has been done: time must move on.
            assert!(next > self.now, "time stands still");
            self.now = next;
            for wire in 0..self.wires.len() {
                if self.wires[wire].next().is_some_and(|next| next <= self.now) {
                    self.step(wire);
                }
            }
        }
        self.now = until;
        (0..self.wires.len()).for_each(|wire| self.check(wire));
    }

    /// Does what is due on one connection, until nothing is.
    fn step(&mut self, wire: usize) {
        for round in 0.. {
            assert!(round < 1000, "never done");
            let moved = [0, 1].map(|side| self.step_side(wire, side));
            if moved == [false, false] {
                return;
            }
        }
    }

    fn step_side(&mut self, index: usize, side: usize) -> bool {
        let now = self.now;
        let wire = &mut self.wires[index];
        let peer = &mut wire.peers[side];
        if peer
            .end
            .connection
            .poll_timeout()
            .is_some_and(|at| at <= now)
        {
            peer.end.timeout(now);
        }
        let received = wire.pipes[1 - side].receive(now);
        if let Some(bytes) = &received
            && peer.closed_at.is_none()
        {
            peer.end.receive(bytes, now);
        }
        self.judge(index, side);
        self.start(index, side);
        self.finish_work(index, side);
        self.finish_calls(index, side);
        let sent = self.send(index, side);
        self.note_closed(index, side);
        if let Some(bytes) = &received {
            self.note(3, index, bytes.len() as u64);
        }
        received.is_some() || sent
    }

    /// Hands what is queued to the network, as far as it takes it; returns whether it did.
    fn send(&mut self, index: usize, side: usize) -> bool {
        let wire = &mut self.wires[index];
        let (peer, pipe) = (&mut wire.peers[side], &mut wire.pipes[side]);
        if pipe.bytes >= WINDOW_BYTES {
            peer.end.send_blocked();
            peer.is_blocked = true;
            return false;
        }
        let mut bytes = Vec::new();
        if std::mem::take(&mut peer.is_blocked) {
            bytes = peer.end.unblock(self.now);
        }
        bytes.extend(peer.end.send(self.now));
        if wire.cut.is_none() {
            pipe.send(&bytes, self.now, &mut self.random);
        }
        !bytes.is_empty()
    }

    // ---- the acceptor and the handlers ----

    fn judge(&mut self, wire: usize, side: usize) {
        let answered = |hello: &mut Receiver<Outcome>| matches!(hello.try_recv(), Ok(Ok(_)));
        if self.wires[wire].hello.take_if(answered).is_some() {
            self.wires[wire].is_open[0] = true;
        }
        let end = &mut self.wires[wire].peers[side].end;
        if end.hellos.pop().is_some() {
            end.connection.open(HELLO, IdleTimeout::Keep);
            self.wires[wire].is_open[1] = true;
            self.note(4, wire, 0);
        }
    }

    fn start(&mut self, wire: usize, side: usize) {
        while let Some((ticket, _, body)) = self.wires[wire].peers[side].end.requests.pop_front() {
            let word = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().unwrap());
            let (stream, serial) = (word(0), word(8));
            assert!(self.started.insert(serial), "call {serial} started twice");
            let done = self.now + Duration::from_millis(self.random.random_range(0..400));
            let peer = &mut self.wires[wire].peers[side];
            let last = peer.last_of_stream.insert(stream, serial);
            assert!(last < Some(serial), "call {serial} started behind {last:?}");
            peer.work.push((done, ticket.started(self.now), serial));
            self.note(5, wire, serial);
        }
    }

    fn finish_work(&mut self, wire: usize, side: usize) {
        let now = self.now;
        let done: Vec<_> = self.wires[wire].peers[side]
            .work
            .extract_if(.., |(at, ..)| *at <= now)
            .collect();
        for (_, ticket, serial) in done {
            let refuse = self.random.random_bool(0.1);
            let connection = &mut self.wires[wire].peers[side].end.connection;
            if refuse {
                let failure = RpcFailure::new(ErrorType::System, "no");
                connection.fail(&ticket, &failure, now);
            } else {
                let body = Bytes::copy_from_slice(&serial.to_le_bytes());
                connection.respond(&ticket, RESPONSE, (body, Vec::new()), now);
            }
            self.note(6, wire, serial);
        }
    }

    // ---- what must hold ----

    fn finish_calls(&mut self, wire: usize, side: usize) {
        let calls = std::mem::take(&mut self.wires[wire].peers[side].calls);
        for mut call in calls {
            match call.outcome.try_recv() {
                Ok(outcome) => self.finish(wire, &call, outcome),
                Err(TryRecvError::Empty) => self.wires[wire].peers[side].calls.push(call),
                Err(TryRecvError::Closed) => panic!("call {} was forgotten", call.serial),
            }
        }
    }

    fn finish(&mut self, wire: usize, call: &Call, outcome: Outcome) {
        let serial = call.serial;
        let was_started = self.started.contains(&serial);
        let (what, answered) = match outcome {
            Ok(response) => {
                assert_eq!(
                    response.pbody,
                    serial.to_le_bytes()[..],
                    "another call's answer"
                );
                assert!(was_started, "call {serial} was answered by nobody");
                (7, true)
            }
            Err(CallError::Remote(failure)) => {
                let refused = failure.error.error_type() == ErrorType::Resource;
                assert!(was_started != refused, "call {serial}: {failure}");
                (8, false)
            }
            Err(CallError::Timeout(_)) => {
                assert_eq!(call.deadline, Some(self.now), "call {serial}");
                (9, false)
            }
            Err(CallError::Lost(_)) => (10, false),
            Err(other) => panic!("call {serial}: {other:?}"),
        };
        self.report.answered += u64::from(answered);
        self.report.failed += u64::from(!answered);
        self.note(what, wire, serial);
    }

    /// The end of one side is the other side's, once what is on its way has arrived.
    fn note_closed(&mut self, index: usize, side: usize) {
        let wire = &mut self.wires[index];
        let peer = &wire.peers[side];
        let Some(reason) = peer.end.reason().filter(|_| peer.closed_at.is_none()) else {
            return;
        };
        let silence = matches!(
            reason,
            CloseReason::PongTimeout(_) | CloseReason::IdleTimeout(_)
        );
        assert!(wire.excused || !silence, "given up for nothing: {reason}");
        let late = wire.cut.map(|cut| self.now - cut);
        let found_by = Duration::from_secs(4);
        // Beats begin once the handshake is done.
        let beats = wire.has_beats && silence;
        let in_time = !beats || late.is_none_or(|late| late <= found_by);
        assert!(in_time, "found dead after {late:?}");
        wire.peers[side].closed_at = Some(self.now);
        self.report.ended += 1;
        self.note(11, index, side as u64);
        if self.wires[index].cut.is_none() && self.wires[index].pipes[side].chunks.is_empty() {
            self.close(
                index,
                1 - side,
                CloseReason::PeerClosed { mid_frame: false },
            );
        } else {
            // Nobody tells the other end: its heartbeat must.
            self.lose(index);
        }
    }

    fn check(&self, wire: usize) {
        for peer in &self.wires[wire].peers {
            let stats = peer.end.connection.stats();
            let in_flight = stats.requests_in_flight + stats.calls_in_flight;
            assert_eq!(peer.end.ledger.used(Kind::Calls), in_flight);
            assert!(peer.end.ledger.used(Kind::Bytes) <= HELD_BYTES_MAX);
            let outlived = peer.closed_at.is_some() && !peer.calls.is_empty();
            assert!(!outlived, "calls outlived their connection");
        }
    }

    fn end(mut self) -> Report {
        let last = self.now + PATIENCE;
        while self.now < last && self.wires.iter().any(Wire::is_busy) {
            self.advance(self.now + Duration::from_secs(1));
        }
        for wire in &self.wires {
            for peer in &wire.peers {
                assert!(peer.calls.is_empty(), "calls that never end");
                assert!(peer.work.is_empty(), "requests that never end");
            }
        }
        (0..self.wires.len()).for_each(|wire| self.reset(wire));
        for wire in self.wires.drain(..) {
            for peer in wire.peers {
                let ledger = peer.end.ledger.clone();
                drop(peer);
                assert!(ledger.is_zero(), "{ledger:?}");
            }
        }
        self.report.trace = self.trace.hash();
        self.report
    }
}

impl Wire {
    fn is_busy(&self) -> bool {
        self.peers
            .iter()
            .any(|peer| !peer.calls.is_empty() || !peer.work.is_empty())
    }

    /// When something is due.
    fn next(&self) -> Option<Instant> {
        let work = self.peers.iter().flat_map(|peer| &peer.work);
        let timeouts = self
            .peers
            .iter()
            .map(|peer| peer.end.connection.poll_timeout());
        let arrivals = self.pipes.iter().map(Pipe::next);
        work.map(|(at, ..)| Some(*at))
            .chain(timeouts)
            .chain(arrivals)
            .flatten()
            .min()
    }
}

fn run(seed: u64) -> Report {
    let mut net = Net::new(seed);
    for _ in 0..ACTIONS {
        net.act();
        let pause = Duration::from_micros(net.random.random_range(0..80_000));
        net.advance(net.now + pause);
    }
    net.end()
}

#[test]
fn every_call_ends_once_under_any_schedule() {
    let all = run_all("net", SCHEDULES, run);
    let schedules = all.answered + all.failed;
    assert!(
        all.answered > schedules / 3,
        "too little is answered: {all:?}"
    );
    assert!(
        all.failed > 0 && all.ended > 0,
        "too little goes wrong: {all:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    assert_eq!(run(42), run(42));
    assert_ne!(run(42).trace, run(43).trace);
}
