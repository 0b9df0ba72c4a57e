//! All that surrounds a connection: socket, clock, callers and handler, played from a script.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protos::{Plane, error::ErrorType, rpc::RpcMode};
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};

use super::{
    FRAME_BYTES_MAX, Judgement, Mode, Op, Script, Side, Tally,
    oracle::{CALL, Oracle, call_body},
};
use crate::{
    capabilities::{Capabilities, Features},
    connection::{Connection, Event, IdleTimeout, Outcome, Outgoing, Stage},
    error::{CloseReason, RpcFailure},
    frame::{BodyPool, BodyPoolOptions, CoordinationId, Frame, FrameDecoder, Header},
    lanes::{StreamKey, Transmit},
    ledger::{Kind, Ledger, Limits},
    link::{self, Room},
    metrics::Ticket,
    options::{Beats, ConnectionOptions},
};

/// Body of the peer's handshake: field 3 is 5, as in the user plane's.
const HELLO: &[u8] = b"\x18\x05";
/// Bodies that callers and handlers send are pieces of this.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
/// What a decoder may hold beside a whole frame: rounding, and the start of a small one.
const SLACK_BYTES: usize = 64 * 1024;
/// How often a connection may want to be called at one and the same time.
const CALLS_AT_ONCE_MAX: u32 = 4;

pub(super) struct Host {
    mode: Mode,
    options: ConnectionOptions,
    connection: Connection,
    decoder: FrameDecoder,
    ledger: Ledger,
    now: Instant,
    transmit: Transmit,
    socket_is_blocked: bool,
    /// Bytes of the peer that wait in the socket while reading is paused.
    unread: Vec<u8>,
    /// Requests that nobody has answered yet, oldest first.
    requests: Vec<Ticket>,
    calls: Vec<Call>,
    calls_made: u32,
    pings: Vec<Receiver<Result<Duration, CloseReason>>>,
    hello_is_pending: bool,
    oracle: Oracle,
    tally: Tally,
}

/// A call that has not ended.
struct Call {
    id: CoordinationId,
    deadline: Option<Instant>,
    outcome: Receiver<Outcome>,
}

impl Host {
    /// Plays a whole script.
    pub(super) fn run(script: &Script) -> Tally {
        let mut host = Self::new(script.mode);
        host.greet();
        for op in &script.ops {
            host.play(op);
            host.check();
        }
        host.end()
    }

    fn new(mode: Mode) -> Self {
        let (options, now) = (options(mode), Instant::now());
        let ledger = Ledger::root("fuzzing", Limits::default());
        let connection = match mode.side {
            Side::Server => Connection::server(Plane::User, options.clone(), &ledger, now),
            Side::Client => {
                let completion = oneshot::channel().0;
                let hello = Bytes::from_static(HELLO);
                Connection::client(
                    Plane::User,
                    options.clone(),
                    hello,
                    completion,
                    &ledger,
                    now,
                )
            }
        };
        let bodies = BodyPool::new(BodyPoolOptions::default());
        Self {
            mode,
            options,
            connection,
            decoder: FrameDecoder::new(FRAME_BYTES_MAX, bodies, ledger.clone()),
            ledger,
            now,
            transmit: Transmit::default(),
            socket_is_blocked: false,
            unread: Vec::new(),
            requests: Vec::new(),
            calls: Vec::new(),
            calls_made: 0,
            pings: Vec::new(),
            hello_is_pending: false,
            oracle: Oracle::new(mode.side),
            tally: Tally::default(),
        }
    }

    /// The peer's part of the handshake.
    fn greet(&mut self) {
        if self.mode.raw {
            return;
        }
        let (mode, rpc_type) = match self.mode.side {
            Side::Server => (RpcMode::Request, 0),
            Side::Client => (RpcMode::Response, 0),
        };
        let header = Header {
            mode,
            coordination_id: CoordinationId(1),
            rpc_type,
        };
        let offered = everything().append_to(HELLO);
        self.send();
        self.receive(&Op::wire(&header, &offered, 0));
        self.send();
    }

    fn play(&mut self, op: &Op) {
        match op {
            Op::Receive(bytes) => self.receive(bytes),
            Op::Frame {
                header,
                pbody,
                dbody_words,
            } => self.receive(&Op::wire(header, pbody, *dbody_words)),
            Op::Answer { which, bytes } => self.answer(*which, *bytes),
            Op::Refuse { which } => self.refuse(*which),
            Op::Call {
                stream,
                deadline,
                bytes,
            } => self.call(*stream, *deadline, *bytes),
            Op::GiveUp { which } => self.give_up(*which),
            Op::Wait(millis) => self.wait(Duration::from_millis(u64::from(*millis))),
            Op::Ping => self.ping(),
            Op::Block => self.socket_is_blocked = true,
            Op::Unblock => self.unblock(),
            Op::Pause => self.connection.pause_reading(self.now),
            Op::Resume => self.resume(),
            Op::Judge(verdict) => self.judge(*verdict),
            Op::Admit => self.admit(),
            Op::Close => self.close(CloseReason::ClosedHere),
            Op::Eof => {
                let mid_frame = !self.decoder.is_between_frames();
                self.close(CloseReason::PeerClosed { mid_frame });
            }
        }
        self.take_events(Vec::new());
        // What is due already is done at once.
        self.wait(Duration::ZERO);
        self.send();
    }

    // ---- the socket ----

    fn receive(&mut self, bytes: &[u8]) {
        if self.connection.reading_is_paused() {
            self.unread.extend_from_slice(bytes);
        } else if !self.connection.is_closed() && !bytes.is_empty() {
            self.read(bytes);
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        let limit = self.connection.frame_bytes_max().min(FRAME_BYTES_MAX);
        self.decoder.set_frame_bytes_max(limit);
        let mut frames = Vec::new();
        let decoded = self.decoder.feed(bytes, &mut frames);
        self.connection.handle_received(bytes.len(), self.now);
        let mut started = Vec::new();
        for frame in frames {
            self.handle(frame, &mut started);
        }
        if let Err(error) = decoded {
            self.connection.close(error.into(), self.now);
        }
        self.take_events(started);
        let held = self.ledger.used(Kind::Bytes);
        assert!(held <= FRAME_BYTES_MAX + SLACK_BYTES, "{held} bytes held");
    }

    fn handle(&mut self, frame: Frame, requests: &mut Vec<Frame>) {
        self.tally.frames += 1;
        let one_way = self.connection.is_one_way(&frame.header);
        self.connection.handle_frame(frame.clone(), self.now);
        if !self.connection.is_closed() && (one_way || self.oracle.received(&frame)) {
            requests.push(frame);
        }
    }

    /// Everything that is queued goes out, as far as the socket takes it.
    fn send(&mut self) {
        loop {
            self.connection.transmit(&mut self.transmit);
            if self.socket_is_blocked || self.transmit.is_empty() {
                return;
            }
            self.write();
        }
    }

    fn write(&mut self) {
        let wire = self.transmit.take_bytes();
        self.oracle.sent(&wire);
        self.connection.handle_sent(wire.len(), 1, self.now);
    }

    fn unblock(&mut self) {
        if mem::take(&mut self.socket_is_blocked) && !self.transmit.is_empty() {
            self.connection.handle_write_progress(self.now);
            self.write();
        }
    }

    fn resume(&mut self) {
        self.connection.resume_reading(self.now);
        let unread = mem::take(&mut self.unread);
        self.receive(&unread);
    }

    // ---- events ----

    /// `started` are the requests of the frames behind the events: those that are not refused start in their order.
    fn take_events(&mut self, started: Vec<Frame>) {
        let mut started = started.into_iter();
        for event in self.connection.take_events() {
            match event {
                Event::Hello { .. } => {
                    self.hello_is_pending = true;
                    if !self.mode.judged_late {
                        self.judge(Judgement::Accept);
                    }
                }
                Event::Request {
                    ticket,
                    rpc_type,
                    pbody,
                    dbody,
                } => {
                    self.check_order(&mut started, (ticket.id, rpc_type), (&pbody, &dbody));
                    self.requests.push(ticket.started(self.now));
                }
                Event::OneWay(message) => {
                    let header = (CoordinationId::NONE, message.rpc_type);
                    self.check_order(&mut started, header, (&message.pbody, &message.dbody));
                }
                other => link::finish(other),
            }
        }
    }

    fn check_order(
        &self,
        started: &mut impl Iterator<Item = Frame>,
        header: (CoordinationId, i32),
        bodies: (&Bytes, &Bytes),
    ) {
        let same = |frame: Frame| {
            (frame.header.coordination_id, frame.header.rpc_type) == header
                && (&frame.pbody, &frame.dbody) == bodies
        };
        // A connection that was closed behind it owes nothing.
        let in_order = self.connection.is_closed() || started.any(same);
        assert!(in_order, "{header:?} did not start in its turn");
    }

    // ---- the acceptor and the handler ----

    fn judge(&mut self, verdict: Judgement) {
        if !mem::take(&mut self.hello_is_pending) || self.connection.is_closed() {
            return;
        }
        self.oracle.judged = true;
        let reply = Bytes::from_static(HELLO);
        match verdict {
            Judgement::Accept => self.connection.open(reply, IdleTimeout::Keep),
            Judgement::Refuse => {
                let reason = "asked".to_owned();
                self.connection.refuse(Some(reply), reason, self.now);
            }
            Judgement::Authenticate => {
                self.oracle.unproven = true;
                self.connection.authenticate(reply);
            }
        }
    }

    fn admit(&mut self) {
        if self.oracle.unproven && !self.connection.is_closed() {
            self.oracle.unproven = false;
            self.connection.admit(IdleTimeout::Keep);
        }
    }

    fn take_request(&mut self, which: u8) -> Option<Ticket> {
        let len = self.requests.len();
        (len > 0).then(|| self.requests.remove(usize::from(which) % len))
    }

    fn answer(&mut self, which: u8, bytes: u16) {
        if let Some(ticket) = self.take_request(which) {
            let pbody = Bytes::copy_from_slice(&ticket.id.0.to_le_bytes());
            let body = (pbody, zeros(bytes));
            self.connection.respond(&ticket, 1, body, self.now);
        }
    }

    fn refuse(&mut self, which: u8) {
        if let Some(ticket) = self.take_request(which) {
            let failure = RpcFailure::new(ErrorType::System, "no");
            self.connection.fail(&ticket, &failure, self.now);
        }
    }

    // ---- callers ----

    fn call(&mut self, stream: u8, deadline: u8, bytes: u16) {
        // Callers wait for room.
        if self.connection.stats().write_queue_bytes > self.options.write_queue_bytes_max {
            return;
        }
        self.calls_made += 1;
        let request = Outgoing {
            rpc_type: CALL,
            pbody: Bytes::from(call_body(stream, self.calls_made)).into(),
            dbody: zeros(bytes),
            stream: StreamKey(u64::from(stream)),
            room: Room::default(),
            began: self.now,
        };
        let timeout = Duration::from_millis(100) * u32::from(deadline);
        let timeout = (deadline > 0).then_some(timeout);
        let (completion, outcome) = oneshot::channel();
        let made = self.connection.call(request, timeout, completion);
        self.calls.extend(made.ok().map(|id| Call {
            id,
            deadline: timeout.map(|timeout| self.now + timeout),
            outcome,
        }));
    }

    /// What a dropped `PendingAnswer` does.
    fn give_up(&mut self, which: u8) {
        let len = self.calls.len();
        if len > 0 {
            let call = self.calls.swap_remove(usize::from(which) % len);
            self.connection.give_up(call.id);
        }
    }

    fn ping(&mut self) {
        let (completion, outcome) = oneshot::channel();
        self.connection.ping(completion, self.now);
        self.pings.push(outcome);
        self.take_events(Vec::new());
    }

    fn close(&mut self, reason: CloseReason) {
        self.connection.close(reason, self.now);
        self.take_events(Vec::new());
    }

    // ---- time ----

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        let mut at_once = 0;
        while let Some(next) = self.connection.poll_timeout().filter(|&next| next <= until) {
            at_once = if next > self.now { 0 } else { at_once + 1 };
            assert!(at_once <= CALLS_AT_ONCE_MAX, "time stands still");
            self.now = self.now.max(next);
            self.connection.handle_timeout(self.now);
            self.take_events(Vec::new());
            self.send();
        }
        self.now = until;
    }

    // ---- what must hold ----

    fn is_open(&self) -> bool {
        let answered = self.mode.side == Side::Client || self.oracle.judged;
        let proven = answered && !self.oracle.unproven;
        self.oracle.greeted && proven && !self.connection.is_closed()
    }

    fn check(&mut self) {
        let (stats, options) = (self.connection.stats(), &self.options);
        let in_flight = stats.requests_in_flight + stats.calls_in_flight;
        // The client's handshake is no call that anybody is charged for.
        assert_eq!(self.ledger.used(Kind::Calls), in_flight);
        assert!(stats.requests_in_flight <= options.requests_in_flight_max);
        assert!(stats.calls_in_flight <= options.calls_in_flight_max);
        if self.connection.is_closed() {
            assert_eq!(in_flight, 0);
        } else {
            assert_eq!(stats.requests_in_flight, self.requests.len());
        }
        if self.connection.stage() == Stage::Over {
            assert_eq!(self.connection.queued_frames(), 0);
        }
        self.tally.sessions = self.tally.sessions.max(u64::from(self.is_open()));
        self.check_calls();
    }

    /// Calls that have ended are forgotten; the others must have a reason to wait.
    fn check_calls(&mut self) {
        let (now, open, closed) = (self.now, self.is_open(), self.connection.is_closed());
        self.calls.retain_mut(|call| match call.outcome.try_recv() {
            Ok(_) => false,
            Err(TryRecvError::Closed) => panic!("call {} was forgotten", call.id),
            Err(TryRecvError::Empty) => {
                assert!(!closed, "call {} outlived its connection", call.id);
                let late = call.deadline.is_some_and(|deadline| deadline < now);
                assert!(!(late && open), "call {} is past its deadline", call.id);
                true
            }
        });
    }

    /// Every request of either side was counted, and has ended in one way.
    fn check_counters(&self) {
        let rpcs = self.connection.counters().rpcs;
        assert_eq!(rpcs.unsettled(Plane::User), None);
    }

    fn end(mut self) -> Tally {
        for op in [
            Op::Unblock,
            Op::Resume,
            Op::Judge(Judgement::Accept),
            Op::Admit,
        ] {
            self.play(&op);
        }
        self.check();
        while !self.requests.is_empty() {
            self.answer(0, 0);
        }
        self.send();
        if self.is_open() {
            self.oracle.settled();
        }
        self.close(CloseReason::Aborted);
        self.check();
        assert!(self.calls.is_empty());
        for ping in &mut self.pings {
            assert!(ping.try_recv().is_ok(), "a PING was forgotten");
        }
        self.check_counters();
        drop((self.connection, self.decoder, self.transmit));
        assert!(self.ledger.is_zero(), "{:?}", self.ledger);
        self.tally
    }
}

fn zeros(bytes: u16) -> Vec<Bytes> {
    vec![Bytes::from_static(&ZEROS[..usize::from(bytes)])]
}

fn options(mode: Mode) -> ConnectionOptions {
    let mut options = match mode.side {
        Side::Server => ConnectionOptions::user_server(),
        Side::Client => ConnectionOptions::user_client(),
    };
    options.frame_bytes_max = FRAME_BYTES_MAX;
    if mode.narrow {
        options.requests_in_flight_max = 4;
        options.calls_in_flight_max = 4;
        options.reply_queue_bytes_max = 4096;
        options.write_queue_bytes_max = 4096;
    }
    if mode.beats {
        options.beats = Some(Beats::default());
    }
    if mode.capabilities {
        options.capabilities = Some(Arc::new(everything()));
    }
    options
}

fn everything() -> Capabilities {
    Capabilities {
        features: Features::all(),
        ..Capabilities::of_software("1")
    }
}
