//! One connection as a value: handshake, calls, heartbeat, limits. No socket, no task, no clock; time comes in.
//!
//! Bytes become frames elsewhere. Frames go in by [`Connection::handle_frame`]; what they mean comes out as [`Event`]s
//! by [`Connection::take_events`]; what is to be written comes out by [`Connection::transmit`]; and
//! [`Connection::poll_timeout`] says when [`Connection::handle_timeout`] wants to be called.

mod calls;
mod heartbeat;

use std::{
    fmt, mem,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protos::{
    Plane, body,
    error::{ErrorType, Retry},
    rpc::{Ack, RpcMode},
    shared::DrillPbError,
};

pub(crate) use calls::Completion;
pub(crate) use heartbeat::PingCompletion;

use crate::{
    capabilities::{Capabilities, Feature},
    dispatch::OneWayMessage,
    error::{CallError, CloseReason, ProtocolError, RpcFailure},
    frame::{CoordinationId, FRAME_BYTES_LIMIT, Frame, Header, encoded_len},
    lanes::{Lanes, Pbody, StreamKey, Transmit},
    ledger::{BudgetExceeded, Charge, Kind, Ledger},
    link::Room,
    metrics::{Counters, Ending, Rpcs, Started, Ticket},
    options::{Beats, ConnectionOptions},
    pace::Pace,
    replies::{Replies, Settled},
    stats::{ConnectionStats, RoundTrips},
};
use calls::{Answered, Calls, Waiting};
use heartbeat::{Beat, Heartbeat};

/// `rpc_type` of the handshake on every plane.
// wire: drill@051b164 protocol/src/main/protobuf/{User,BitControl,BitData}.proto
pub(crate) const HANDSHAKE: i32 = 0;
/// `rpc_type` of a peer that takes its leave, on every plane. Drill never sends it.
const GOODBYE: i32 = 2;
/// Requests in flight of a peer that is not let in yet.
const UNPROVEN_REQUESTS_MAX: usize = 16;
/// Bytes of replies that such a peer has not read yet.
const UNPROVEN_REPLY_BYTES_MAX: usize = 64 * 1024;

/// PINGs that are read a second, once a second's worth has come at once: far more than anybody needs to measure with, and
/// so few that answering them costs a hundredth of a core.
const PINGS_PER_SECOND_MAX: NonZeroU32 = NonZeroU32::new(100_000).expect("invariant: not zero");

/// Requests without order that are read a second, once a second's worth has come at once: none of them is more than a
/// cancel, and nobody has so many queries to cancel.
const UNORDERED_PER_SECOND_MAX: NonZeroU32 = NonZeroU32::new(10_000).expect("invariant: not zero");

/// Replies are charged in steps of this, so that few of them cost nothing.
const OWED_STEP_BYTES: usize = 16 * 1024;

/// What answers a call.
#[derive(PartialEq)]
pub(crate) struct Response {
    pub(crate) rpc_type: i32,
    pub(crate) pbody: Bytes,
    pub(crate) dbody: Bytes,
}

impl Response {
    fn bytes_len(&self) -> usize {
        self.pbody.len() + self.dbody.len()
    }
}

/// Without the bodies, as requests are shown.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("rpc_type", &self.rpc_type)
            .field("pbody_bytes", &self.pbody.len())
            .field("dbody_bytes", &self.dbody.len())
            .finish()
    }
}

/// How a call ended.
pub(crate) type Outcome = Result<Response, CallError>;

/// What a frame, or time, has brought.
pub(crate) enum Event {
    /// Server: the peer's handshake, to be judged by `open` or `refuse`.
    Hello { pbody: Bytes },
    /// A request to be handled; it must be answered by `respond` or `fail`.
    Request {
        rpc_type: i32,
        ticket: Ticket,
        pbody: Bytes,
        dbody: Bytes,
    },
    /// A message that is never answered.
    OneWay(OneWayMessage),
    /// A call has ended.
    Outcome(Completion, Outcome),
    /// A PING that somebody waits for has ended.
    Pinged(PingCompletion, Result<Duration, CloseReason>),
}

/// Without the bodies: that of a handshake may hold a password.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { pbody } => write!(f, "Hello({} bytes)", pbody.len()),
            Self::Request {
                rpc_type, ticket, ..
            } => write!(f, "Request(rpc type {rpc_type}, id {})", ticket.id),
            Self::OneWay(message) => message.fmt(f),
            Self::Outcome(_, outcome) => f.debug_tuple("Outcome").field(outcome).finish(),
            Self::Pinged(_, outcome) => f.debug_tuple("Pinged").field(outcome).finish(),
        }
    }
}

/// Whether the peer has to show signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleTimeout {
    /// As the options say.
    Keep,
    /// Not this peer: it has said that it cannot send PING.
    Off,
    /// Regular PINGs in its place, as the peer is one of our own nodes: a side that accepts does not know that before.
    Beats(Beats),
}

/// Server: `AwaitingHello` -> `Judging` -> (`Authenticating` ->) `Open` -> `Closed`; client: `AwaitingReply` -> `Open` ->
/// `Closed`.
#[derive(Debug)]
enum Phase {
    AwaitingHello {
        deadline: Instant,
    },
    Judging {
        id: CoordinationId,
        deadline: Instant,
    },
    /// The handshake is answered, but nobody knows yet who the peer is.
    Authenticating {
        deadline: Instant,
    },
    AwaitingReply {
        deadline: Instant,
        completion: Completion,
    },
    Open,
    Closed(Closed),
}

/// What the driver has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Running,
    /// Closed, but what is queued may still be written.
    Lingering,
    Over,
}

#[derive(Debug)]
struct Closed {
    reason: CloseReason,
    /// By when what is queued must be written; `None` if nothing is written any more.
    linger: Option<Instant>,
}

/// A request on its way out.
pub(crate) struct Outgoing<'a> {
    pub(crate) rpc_type: i32,
    pub(crate) pbody: Pbody<'a>,
    pub(crate) dbody: Vec<Bytes>,
    pub(crate) stream: StreamKey,
    pub(crate) room: Room,
    /// When its caller began.
    pub(crate) began: Instant,
}

/// A call that waits for room to write its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsent {
    pub(crate) rpc_type: i32,
    /// Of its bodies.
    pub(crate) bytes: usize,
    /// When its caller began.
    pub(crate) began: Instant,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Connection {
    plane: Plane,
    options: ConnectionOptions,
    phase: Phase,
    calls: Calls,
    heartbeat: Heartbeat,
    pings: Pace,
    /// Requests without order.
    unordered: Pace,
    /// Nothing is read before: the peer has sent too many PINGs, or requests without order.
    slowed_until: Option<Instant>,
    lanes: Lanes,
    events: Vec<Event>,
    requests_in_flight: usize,
    /// Calls of both directions.
    charge: Charge,
    /// Bytes of replies that wait to be written, in whole [`OWED_STEP_BYTES`].
    owed: Charge,
    stats: ConnectionStats,
    rpcs: Rpcs,
    round_trips: RoundTrips,
    /// What the peer and this side can both do beside Drill's protocol.
    agreed: Option<Arc<Capabilities>>,
}

impl Connection {
    /// The side that accepts.
    pub(crate) fn server(
        plane: Plane,
        options: ConnectionOptions,
        ledger: &Ledger,
        now: Instant,
    ) -> Self {
        let deadline = now + options.handshake_timeout;
        Self::new(
            plane,
            options,
            Phase::AwaitingHello { deadline },
            ledger,
            now,
        )
    }

    /// The side that connects: sends `hello` at once; `completion` gets the answer.
    pub(crate) fn client(
        plane: Plane,
        options: ConnectionOptions,
        hello: Bytes,
        completion: Completion,
        ledger: &Ledger,
        now: Instant,
    ) -> Self {
        let deadline = now + options.handshake_timeout;
        let phase = Phase::AwaitingReply {
            deadline,
            completion,
        };
        let hello = match &options.capabilities {
            Some(ours) => ours.append_to(&hello),
            None => hello,
        };
        let mut connection = Self::new(plane, options, phase, ledger, now);
        let coordination_id = connection.calls.next_id();
        let header = Header {
            mode: RpcMode::Request,
            coordination_id,
            rpc_type: HANDSHAKE,
        };
        connection
            .lanes
            .push_control(&header, hello.into(), Vec::new());
        connection
    }

    fn new(
        plane: Plane,
        options: ConnectionOptions,
        phase: Phase,
        ledger: &Ledger,
        now: Instant,
    ) -> Self {
        Self {
            plane,
            heartbeat: Heartbeat::new(&options, now),
            pings: Pace::new(now),
            unordered: Pace::new(now),
            slowed_until: None,
            options,
            phase,
            calls: Calls::default(),
            lanes: Lanes::default(),
            events: Vec::new(),
            requests_in_flight: 0,
            charge: ledger.nothing(Kind::Calls),
            owed: ledger.nothing(Kind::Bytes),
            stats: ConnectionStats::default(),
            rpcs: Rpcs::default(),
            round_trips: RoundTrips::default(),
            agreed: None,
        }
    }

    // ---- from the socket ----

    /// Bytes came, whether or not they completed a frame.
    pub(crate) fn handle_received(&mut self, bytes: usize, now: Instant) {
        self.stats.bytes_received += bytes as u64;
        self.stats.reads += 1;
        self.heartbeat.on_received(now);
    }

    /// A frame came.
    pub(crate) fn handle_frame(&mut self, frame: Frame, now: Instant) {
        self.stats.frames_received += 1;
        match self.phase {
            Phase::AwaitingHello { deadline } => self.handle_hello(frame, deadline, now),
            Phase::AwaitingReply { .. } => self.handle_hello_reply(frame, now),
            // Behind its handshake a peer may send on; handlers see it once the handshake is accepted.
            Phase::Judging { .. } if is_heartbeat(&frame) => {
                self.close(ProtocolError::HeartbeatBeforeHandshake.into(), now);
            }
            Phase::Judging { .. } | Phase::Authenticating { .. } | Phase::Open => {
                self.handle_open_frame(frame, now);
            }
            Phase::Closed(_) => {}
        }
    }

    // wire: golden/raw/raw_user "nohandshake"; Drill looks at the type only, not at the mode
    fn handle_hello(&mut self, frame: Frame, deadline: Instant, now: Instant) {
        if let Err(error) = expect_handshake(&frame) {
            return self.close(error.into(), now);
        }
        self.phase = Phase::Judging {
            id: frame.header.coordination_id,
            deadline,
        };
        self.agree(&frame.pbody);
        self.events.push(Event::Hello { pbody: frame.pbody });
    }

    fn handle_hello_reply(&mut self, frame: Frame, now: Instant) {
        if frame.header.mode == RpcMode::ResponseFailure {
            return self.close(ProtocolError::HandshakeFailed.into(), now);
        }
        if let Err(error) = expect_handshake(&frame) {
            return self.close(error.into(), now);
        }
        self.agree(&frame.pbody);
        if let Phase::AwaitingReply { completion, .. } = mem::replace(&mut self.phase, Phase::Open)
        {
            let response = Response {
                rpc_type: HANDSHAKE,
                pbody: frame.pbody,
                dbody: frame.dbody,
            };
            self.events.push(Event::Outcome(completion, Ok(response)));
        }
    }

    fn agree(&mut self, handshake: &Bytes) {
        let ours = self.options.capabilities.as_ref();
        self.agreed = ours.and_then(|ours| ours.agree(handshake.clone()));
    }

    fn handle_open_frame(&mut self, frame: Frame, now: Instant) {
        match frame.header.mode {
            RpcMode::Request => self.handle_request(frame, now),
            RpcMode::Response => self.handle_response(frame, now),
            RpcMode::ResponseFailure => self.handle_failure(frame, now),
            RpcMode::Ping | RpcMode::Pong if self.has(Feature::Streams) && !is_beat(&frame) => {
                let bytes = frame.pbody.len() + frame.dbody.len();
                self.close(ProtocolError::NotAHeartbeat { bytes }.into(), now);
            }
            RpcMode::Ping => self.handle_ping(now),
            RpcMode::Pong => self.handle_pong(now),
        }
    }

    fn handle_request(&mut self, frame: Frame, now: Instant) {
        let Header {
            coordination_id: id,
            rpc_type,
            ..
        } = frame.header;
        match rpc_type {
            // wire: golden/raw/raw_user "second HANDSHAKE"
            HANDSHAKE => return self.close(ProtocolError::DuplicateHandshake.into(), now),
            GOODBYE => return self.close(CloseReason::Goodbye, now),
            _ => {}
        }
        self.stats.requests_received += 1;
        let bytes = frame.pbody.len() + frame.dbody.len();
        if self.is_one_way(&frame.header) {
            self.rpcs.on_one_way(self.plane, rpc_type, bytes);
            let message = OneWayMessage::new(rpc_type, frame.pbody, frame.dbody);
            return self.events.push(Event::OneWay(message));
        }
        let ticket = self.rpcs.on_request(self.plane, (rpc_type, id), bytes, now);
        if self.rpcs.is_unordered(&ticket) {
            let wait = self.unordered.arrive(now, UNORDERED_PER_SECOND_MAX);
            self.slow_down(wait, now);
        }
        if !self.may_owe_more(now) {
            return;
        }
        if let Err(refusal) = self.take_place() {
            self.stats.requests_refused += 1;
            self.rpcs.on_refused(&ticket);
            return self.push_failure(id, &refusal);
        }
        self.requests_in_flight += 1;
        self.events.push(Event::Request {
            rpc_type,
            ticket,
            pbody: frame.pbody,
            dbody: frame.dbody,
        });
    }

    /// Whether nobody waits for an answer to what came with `header`. To Drill coordination id 0 is one like any other.
    pub(crate) fn is_one_way(&self, header: &Header) -> bool {
        (header.mode, header.coordination_id) == (RpcMode::Request, CoordinationId::NONE)
            && matches!(self.phase, Phase::Open)
            && self.has(Feature::Streams)
    }

    /// A place among the requests in flight, of this connection and of all.
    fn take_place(&mut self) -> Result<(), Box<RpcFailure>> {
        let max = self.requests_in_flight_max();
        let refusal = if self.requests_in_flight >= max {
            format!("too many requests in flight on this connection, at most {max}")
        } else {
            match self.charge.grow(1) {
                Ok(()) => return Ok(()),
                Err(exceeded) => exceeded.to_string(),
            }
        };
        let failure = RpcFailure::new(ErrorType::Resource, refusal);
        Err(Box::new(failure.with_retry(Retry::SameNode)))
    }

    fn requests_in_flight_max(&self) -> usize {
        match self.phase {
            Phase::Open => self.options.requests_in_flight_max,
            _ => UNPROVEN_REQUESTS_MAX.min(self.options.requests_in_flight_max),
        }
    }

    fn handle_response(&mut self, frame: Frame, now: Instant) {
        let Header {
            coordination_id: id,
            rpc_type,
            ..
        } = frame.header;
        let response = Response {
            rpc_type,
            pbody: frame.pbody,
            dbody: frame.dbody,
        };
        if !self.finish_call(id, || Ok(response), now) {
            self.close(ProtocolError::UnknownResponse { id }.into(), now);
        }
    }

    // wire: drill@051b164 exec/rpc/.../RequestIdMap.java: an unknown id is ignored here, unlike in a RESPONSE
    fn handle_failure(&mut self, frame: Frame, now: Instant) {
        let Frame {
            header, mut pbody, ..
        } = frame;
        let failure = || match body::decode::<DrillPbError>(&mut pbody) {
            Ok(error) => Err(CallError::Remote(Box::new(error.into()))),
            Err(error) => Err(CallError::MalformedAnswer(error)),
        };
        let id = header.coordination_id;
        if self.finish_call(id, failure, now) {
            self.stats.calls_failed += 1;
        } else if self.has(Feature::Streams) {
            // Our own nodes answer nothing that was not asked: a one-way message was damaged, here or on its way there.
            self.close(ProtocolError::UnknownResponse { id }.into(), now);
        }
    }

    /// `outcome` is asked for only if somebody waits for it.
    fn finish_call(
        &mut self,
        id: CoordinationId,
        outcome: impl FnOnce() -> Outcome,
        now: Instant,
    ) -> bool {
        match self.calls.answered(id) {
            Answered::Waiting(call) => {
                let outcome = outcome();
                let (ending, bytes) = match &outcome {
                    Ok(response) => (Ending::Answered, response.bytes_len()),
                    Err(error) => (error.into(), 0),
                };
                self.rpcs.on_answer(&call.started, ending, bytes, now);
                self.events.push(Event::Outcome(call.completion, outcome));
            }
            Answered::GivenUp => self.stats.late_answers += 1,
            Answered::Unknown => return false,
        }
        self.stats.calls_answered += 1;
        self.charge.shrink(1);
        true
    }

    fn handle_ping(&mut self, now: Instant) {
        self.stats.pings_received += 1;
        self.calls.shrink();
        let wait = self.pings.arrive(now, PINGS_PER_SECOND_MAX);
        self.slow_down(wait, now);
        if self.may_owe_more(now) {
            self.lanes
                .push_control(&Header::bare(RpcMode::Pong), Pbody::of(&ACK), Vec::new());
        }
    }

    fn slow_down(&mut self, wait: Duration, now: Instant) {
        if !wait.is_zero() {
            self.slowed_until = self.slowed_until.max(Some(now + wait));
        }
    }

    fn handle_pong(&mut self, now: Instant) {
        let Some((round_trip, completion)) = self.heartbeat.on_pong(now) else {
            return;
        };
        self.stats.pongs_received += 1;
        self.round_trips.record(round_trip);
        if let Some(completion) = completion {
            self.events.push(Event::Pinged(completion, Ok(round_trip)));
        }
    }

    // Reading never stops, so a peer that asks without reading can only be closed. What is waiting when more comes counts,
    // not what comes: one reply may be as long as it likes.
    fn may_owe_more(&mut self, now: Instant) -> bool {
        let (bytes, bytes_max) = (self.lanes.control_bytes(), self.reply_bytes_max());
        if bytes > bytes_max {
            self.close(CloseReason::RepliesNotRead { bytes, bytes_max }, now);
            return false;
        }
        self.owes(now)
    }

    fn reply_bytes_max(&self) -> usize {
        match self.phase {
            Phase::Open => self.options.reply_queue_bytes_max,
            _ => UNPROVEN_REPLY_BYTES_MAX.min(self.options.reply_queue_bytes_max),
        }
    }

    /// Charges the replies that wait; without room for them the peer is closed.
    fn owes(&mut self, now: Instant) -> bool {
        match self.charge_owed() {
            Ok(()) => true,
            Err(exceeded) => {
                self.close(exceeded.into(), now);
                false
            }
        }
    }

    /// What many peers together do not read is bounded by the plane's budget.
    fn charge_owed(&mut self) -> Result<(), BudgetExceeded> {
        let bytes = self.lanes.control_bytes();
        self.owed.resize(bytes - bytes % OWED_STEP_BYTES)
    }

    // ---- from the acceptor and the handlers ----

    /// Accepts the handshake with `reply`.
    pub(crate) fn open(&mut self, reply: Bytes, idle_timeout: IdleTimeout) {
        let Phase::Judging { id, .. } = self.phase else {
            return;
        };
        self.push_hello_reply(id, self.with_capabilities(reply));
        self.open_as(idle_timeout);
    }

    fn open_as(&mut self, idle_timeout: IdleTimeout) {
        self.phase = Phase::Open;
        match idle_timeout {
            IdleTimeout::Keep => {}
            IdleTimeout::Off => self.heartbeat.never_idle(),
            IdleTimeout::Beats(beats) => self.heartbeat.begin(beats),
        }
    }

    /// Answers the handshake with `reply`; until [`Self::admit`] the limits before the handshake, and its deadline, stay.
    pub(crate) fn authenticate(&mut self, reply: Bytes) {
        let Phase::Judging { id, deadline } = self.phase else {
            return;
        };
        self.push_hello_reply(id, self.with_capabilities(reply));
        self.phase = Phase::Authenticating { deadline };
    }

    /// The peer has proved who it is.
    pub(crate) fn admit(&mut self, idle_timeout: IdleTimeout) {
        if let Phase::Authenticating { .. } = self.phase {
            self.open_as(idle_timeout);
        }
    }

    // Only a peer that has offered something is told what was agreed.
    fn with_capabilities(&self, reply: Bytes) -> Bytes {
        match (&self.options.capabilities, &self.agreed) {
            (Some(ours), Some(agreed)) => ours.answer(agreed).append_to(&reply),
            _ => reply,
        }
    }

    /// Refuses the handshake: sends `reply`, if any, and closes.
    pub(crate) fn refuse(&mut self, reply: Option<Bytes>, reason: String, now: Instant) {
        let Phase::Judging { id, .. } = self.phase else {
            return;
        };
        self.lanes.clear();
        if let Some(reply) = reply {
            self.push_hello_reply(id, reply);
        }
        self.close(CloseReason::HandshakeRefused { reason }, now);
    }

    fn push_hello_reply(&mut self, coordination_id: CoordinationId, reply: Bytes) {
        let header = Header {
            mode: RpcMode::Response,
            coordination_id,
            rpc_type: HANDSHAKE,
        };
        self.lanes.push_first(&header, reply.into());
    }

    /// Answers requests. Every [`Event::Request`] ends in this or in [`Self::fail`], once.
    pub(crate) fn take_replies(&mut self, replies: &mut Replies) {
        let Some(at) = replies.settled.last().map(|settled| settled.at) else {
            return;
        };
        if !self.may_owe_more(at) || !self.settle_requests(replies.settled.len()) {
            *replies = Replies::default();
            return;
        }
        for Settled { ticket, bytes, at } in replies.settled.drain(..) {
            self.rpcs.on_settled(&ticket, Ending::Answered, bytes, at);
        }
        self.lanes.append_control(&mut replies.frames);
        self.owes(at);
    }

    /// Answers one request.
    pub(crate) fn respond(
        &mut self,
        ticket: &Ticket,
        rpc_type: i32,
        (pbody, dbody): (Bytes, Vec<Bytes>),
        now: Instant,
    ) {
        let mut replies = Replies::default();
        replies.push(*ticket, rpc_type, (pbody.into(), dbody), now);
        self.take_replies(&mut replies);
    }

    /// Answers a request with `RESPONSE_FAILURE`.
    pub(crate) fn fail(&mut self, ticket: &Ticket, failure: &RpcFailure, now: Instant) {
        if self.settle_requests(1) {
            self.rpcs.on_settled(ticket, Ending::Failed, 0, now);
            self.push_failure(ticket.id, failure);
        }
    }

    // Whether there is still somebody to answer.
    fn settle_requests(&mut self, requests: usize) -> bool {
        if self.is_closed() {
            return false;
        }
        self.requests_in_flight -= requests;
        self.charge.shrink(requests);
        true
    }

    // wire: drill@051b164 exec/rpc/.../RpcBus.java: failures carry rpc type 0
    fn push_failure(&mut self, coordination_id: CoordinationId, failure: &RpcFailure) {
        self.stats.failures_sent += 1;
        let header = Header {
            mode: RpcMode::ResponseFailure,
            coordination_id,
            rpc_type: 0,
        };
        if self.has(Feature::ErrorAdvice) || failure.error.advice.is_none() {
            self.push_failure_body(&header, &failure.error);
        } else {
            let plain = failure.error.clone().without_advice();
            self.push_failure_body(&header, &plain);
        }
    }

    fn push_failure_body(&mut self, header: &Header, error: &DrillPbError) {
        self.lanes
            .push_control(header, Pbody::of(error), Vec::new());
    }

    /// What was agreed on in the handshake.
    pub(crate) fn agreed(&self) -> Option<&Arc<Capabilities>> {
        self.agreed.as_ref()
    }

    fn has(&self, feature: Feature) -> bool {
        self.agreed
            .as_ref()
            .is_some_and(|agreed| agreed.features.contains(feature))
    }

    // ---- from callers ----

    /// Queues a request; `completion` gets how it ended, exactly once, and within `timeout` of its beginning.
    pub(crate) fn call(
        &mut self,
        request: Outgoing<'_>,
        timeout: Option<Duration>,
        completion: Completion,
    ) -> Result<CoordinationId, CallError> {
        if let Phase::Closed(closed) = &self.phase {
            return Err(CallError::Lost(closed.reason.clone()));
        }
        let bytes = request.pbody.bytes_len() + request.dbody.iter().map(Bytes::len).sum::<usize>();
        let started = self
            .rpcs
            .on_call(self.plane, request.rpc_type, bytes, request.began);
        self.note_room_wait(&request, &started);
        self.queue_call(request, timeout, completion, started)
            .inspect_err(|error| self.rpcs.on_call_ended(&started, error.into()))
    }

    fn queue_call(
        &mut self,
        request: Outgoing<'_>,
        timeout: Option<Duration>,
        completion: Completion,
        started: Started,
    ) -> Result<CoordinationId, CallError> {
        let calls_max = self.options.calls_in_flight_max;
        if self.calls.len() >= calls_max {
            return Err(CallError::TooManyCalls { calls_max });
        }
        let coordination_id = self.calls.next_id();
        let header = Header {
            mode: RpcMode::Request,
            coordination_id,
            rpc_type: request.rpc_type,
        };
        let dbody_len = request.dbody.iter().map(Bytes::len).sum();
        check_frame_bytes(&header, request.pbody.bytes_len(), dbody_len)?;
        self.charge.grow(1)?;
        self.stats.calls_started += 1;
        let call = Waiting {
            completion,
            deadline: timeout.and_then(|timeout| request.began.checked_add(timeout)),
            started,
        };
        self.calls.insert(coordination_id, call);
        let lane = (request.stream, request.room.bytes);
        self.lanes
            .push_bulk(lane, &header, request.pbody, request.dbody);
        Ok(coordination_id)
    }

    fn note_room_wait(&mut self, request: &Outgoing<'_>, started: &Started) {
        if let Some(waited) = request.room.waited {
            self.stats.on_room_wait(waited);
            self.rpcs.on_room_wait(started, waited);
        }
    }

    /// A call's deadline passed before there was room to write its request.
    pub(crate) fn note_unsent(&mut self, call: &Unsent, waited: Duration) {
        let started = self
            .rpcs
            .on_call(self.plane, call.rpc_type, call.bytes, call.began);
        self.stats.on_room_wait(waited);
        self.rpcs.on_room_wait(&started, waited);
        self.stats.calls_timed_out += 1;
        self.rpcs.on_call_ended(&started, Ending::TimedOut);
    }

    /// Queues a message that is never answered, behind the requests of its stream.
    pub(crate) fn post(&mut self, message: Outgoing<'_>) -> Result<(), CallError> {
        let (pbody_len, dbody_len) = (
            message.pbody.bytes_len(),
            message.dbody.iter().map(Bytes::len).sum(),
        );
        let header = self.one_way_header(message.rpc_type, pbody_len, dbody_len)?;
        let (bytes, waited) = (pbody_len + dbody_len, message.room.waited);
        self.rpcs
            .on_post(self.plane, message.rpc_type, bytes, waited);
        if let Some(waited) = waited {
            self.stats.on_room_wait(waited);
        }
        let lane = (message.stream, message.room.bytes);
        self.lanes
            .push_bulk(lane, &header, message.pbody, message.dbody);
        Ok(())
    }

    /// Queues a short message that is never answered, ahead of all requests.
    pub(crate) fn post_urgent(
        &mut self,
        rpc_type: i32,
        pbody: Pbody<'_>,
        now: Instant,
    ) -> Result<(), CallError> {
        let bytes = pbody.bytes_len();
        let header = self.one_way_header(rpc_type, bytes, 0)?;
        if !self.may_owe_more(now) {
            let reason = self.close_reason().cloned();
            return Err(CallError::Lost(reason.unwrap_or(CloseReason::Aborted)));
        }
        self.rpcs.on_post(self.plane, rpc_type, bytes, None);
        self.lanes.push_control(&header, pbody, Vec::new());
        Ok(())
    }

    fn one_way_header(
        &self,
        rpc_type: i32,
        pbody_len: usize,
        dbody_len: usize,
    ) -> Result<Header, CallError> {
        if let Phase::Closed(closed) = &self.phase {
            return Err(CallError::Lost(closed.reason.clone()));
        }
        if !self.has(Feature::Streams) {
            return Err(CallError::NotOffered(Feature::Streams));
        }
        let header = Header {
            mode: RpcMode::Request,
            coordination_id: CoordinationId::NONE,
            rpc_type,
        };
        check_frame_bytes(&header, pbody_len, dbody_len)?;
        Ok(header)
    }

    /// Nobody waits for the answer any more; when it comes it is dropped.
    pub(crate) fn give_up(&mut self, id: CoordinationId) {
        if let Some(call) = self.calls.give_up(id) {
            self.rpcs.on_call_ended(&call.started, Ending::GivenUp);
        }
    }

    /// An answer was not the message that its call expects.
    pub(crate) fn note_unusable_answer(&mut self) {
        self.stats.answers_unusable += 1;
    }

    /// Sends PING; `completion` gets the round-trip time.
    pub(crate) fn ping(&mut self, completion: PingCompletion, now: Instant) {
        match &self.phase {
            Phase::Closed(closed) => {
                self.events
                    .push(Event::Pinged(completion, Err(closed.reason.clone())));
            }
            _ => self.push_ping(Some(completion), now),
        }
    }

    /// The peer was found to be one that regular PINGs are for.
    pub(crate) fn begin_beats(&mut self, beats: Beats) {
        self.heartbeat.begin(beats);
    }

    /// Reading stops until [`Self::resume_reading`]; PINGs go on by timer.
    pub(crate) fn pause_reading(&mut self, now: Instant) {
        self.heartbeat.pause(now);
    }

    /// Reading goes on.
    pub(crate) fn resume_reading(&mut self, now: Instant) {
        self.heartbeat.resume(now);
    }

    /// Ends the connection; every call that waits fails. Only the first reason counts.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "callers make the reason for this"
    )]
    pub(crate) fn close(&mut self, reason: CloseReason, now: Instant) {
        if self.is_closed() {
            return;
        }
        let linger = reason.flushes().then(|| now + self.options.linger_timeout);
        let closed = Phase::Closed(Closed {
            reason: reason.clone(),
            linger,
        });
        let silent = self.is_silent();
        let unproven = matches!(self.phase, Phase::Authenticating { .. });
        let before = mem::replace(&mut self.phase, closed);
        if let Phase::AwaitingReply { completion, .. } = before {
            self.events
                .push(Event::Outcome(completion, Err(reason.clone().into())));
        }
        for completion in self.calls.drain() {
            self.events
                .push(Event::Outcome(completion, Err(reason.clone().into())));
        }
        for completion in self.heartbeat.drain() {
            self.events
                .push(Event::Pinged(completion, Err(reason.clone())));
        }
        // Before its answer to the handshake a server says nothing, and no requests before it knows who the peer is.
        let refused = matches!(reason, CloseReason::HandshakeRefused { .. });
        if linger.is_none() || (silent && !refused) {
            self.lanes.clear();
        } else if unproven {
            self.lanes.clear_bulk();
        }
        self.slowed_until = None;
        self.rpcs.on_close();
        self.requests_in_flight = 0;
        self.charge.shrink(usize::MAX);
        self.owed.shrink(usize::MAX);
    }

    fn push_ping(&mut self, completion: Option<PingCompletion>, now: Instant) {
        self.stats.pings_sent += 1;
        self.heartbeat.on_ping(completion, now);
        self.lanes
            .push_control(&Header::bare(RpcMode::Ping), Pbody::of(&ACK), Vec::new());
    }

    // ---- time ----

    /// Does what is due at `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.slowed_until = self.slowed_until.filter(|&until| until > now);
        match &mut self.phase {
            Phase::AwaitingHello { deadline }
            | Phase::Judging { deadline, .. }
            | Phase::Authenticating { deadline }
            | Phase::AwaitingReply { deadline, .. } => {
                if *deadline <= now {
                    let reason = CloseReason::HandshakeTimeout(self.options.handshake_timeout);
                    self.close(reason, now);
                }
            }
            Phase::Open => self.handle_open_timeout(now),
            Phase::Closed(closed) => {
                if closed.linger.is_some_and(|linger| linger <= now) {
                    closed.linger = None;
                    self.lanes.clear();
                }
            }
        }
    }

    fn handle_open_timeout(&mut self, now: Instant) {
        while let Some(call) = self.calls.expire(now) {
            self.stats.calls_timed_out += 1;
            self.rpcs.on_call_ended(&call.started, Ending::TimedOut);
            let timeout = call
                .deadline
                .map_or(Duration::ZERO, |at| call.started.until(at));
            let timeout = Err(CallError::Timeout(timeout));
            self.events.push(Event::Outcome(call.completion, timeout));
        }
        match self.heartbeat.due(now) {
            Some(Beat::Ping) => self.handle_beat(now),
            Some(Beat::Idle(timeout)) => self.close(CloseReason::IdleTimeout(timeout), now),
            Some(Beat::NoPong(timeout)) => self.close(CloseReason::PongTimeout(timeout), now),
            None => {}
        }
    }

    // A PING comes and goes when nothing else has for long, or at most at every beat.
    fn handle_beat(&mut self, now: Instant) {
        self.calls.shrink();
        let (missed, ping) = self.heartbeat.on_beat(now);
        self.stats.beats_missed += u64::from(missed);
        if ping {
            self.push_ping(None, now);
        }
    }

    /// When [`Self::handle_timeout`] has something to do; asked again after every step.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = self.phase_timeout();
        due.into_iter().chain(self.slowed_until).min()
    }

    fn phase_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::AwaitingHello { deadline }
            | Phase::Judging { deadline, .. }
            | Phase::Authenticating { deadline }
            | Phase::AwaitingReply { deadline, .. } => Some(*deadline),
            Phase::Open => {
                let beat = self.heartbeat.next_timeout();
                let call = self.calls.next_deadline();
                beat.into_iter().chain(call).min()
            }
            Phase::Closed(closed) => closed.linger,
        }
    }

    // ---- to the socket ----

    /// Moves the next frames into `out`. A server sends nothing before its answer to the handshake, and no requests
    /// before it knows who the peer is.
    // wire: drill@051b164 exec/rpc/.../AbstractHandshakeHandler.java takes the first message for the handshake
    pub(crate) fn transmit(&mut self, out: &mut Transmit) {
        if self.is_silent() {
            return;
        }
        self.note_queues();
        if let Phase::Authenticating { .. } = self.phase {
            self.lanes.fill_control(out);
        } else {
            self.lanes.fill(out);
        }
        if self.lanes.control_is_empty() {
            self.heartbeat.on_leaving();
            self.owed.shrink(usize::MAX);
        }
        self.stats.frames_sent += out.take_frames();
    }

    // Queues are longest right before they are emptied.
    fn note_queues(&mut self) {
        let stats = &mut self.stats;
        stats.write_queue_bytes_peak = stats.write_queue_bytes_peak.max(self.lanes.bulk_bytes());
        stats.reply_queue_bytes_peak = stats.reply_queue_bytes_peak.max(self.lanes.control_bytes());
    }

    fn is_silent(&self) -> bool {
        matches!(
            self.phase,
            Phase::AwaitingHello { .. } | Phase::Judging { .. }
        )
    }

    /// The socket has taken everything that it was given: `bytes`, in so many `writes`.
    pub(crate) fn handle_sent(&mut self, bytes: usize, writes: u64, now: Instant) {
        self.stats.bytes_sent += bytes as u64;
        self.stats.writes += writes;
        self.heartbeat.on_left(now);
    }

    /// The socket takes bytes again, after a time when it took none.
    pub(crate) fn handle_write_progress(&mut self, now: Instant) {
        self.heartbeat.on_write_progress(now);
    }

    // ---- questions ----

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        mem::take(&mut self.events)
    }

    /// What [`Self::take_events`] will return, instead of memory of its own: `events` is empty.
    pub(crate) fn lend_events(&mut self, mut events: Vec<Event>) {
        debug_assert!(events.is_empty(), "invariant: what is lent holds nothing");
        events.append(&mut self.events);
        self.events = events;
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    pub(crate) fn close_reason(&self) -> Option<&CloseReason> {
        match &self.phase {
            Phase::Closed(closed) => Some(&closed.reason),
            _ => None,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        match &self.phase {
            Phase::Closed(Closed { linger: None, .. }) => Stage::Over,
            Phase::Closed(_) => Stage::Lingering,
            _ => Stage::Running,
        }
    }

    /// Largest frame that may come in now, in bytes.
    pub(crate) fn frame_bytes_max(&self) -> usize {
        match self.phase {
            Phase::Open => self.options.frame_bytes_max,
            _ => self.options.handshake_frame_bytes_max,
        }
    }

    pub(crate) fn reading_is_paused(&self) -> bool {
        let paused = self.heartbeat.is_paused() || self.slowed_until.is_some();
        paused && !self.is_closed()
    }

    /// Whether more frames are likely to be queued in a moment, because more exchanges are going on than frames wait.
    pub(crate) fn expects_more(&self) -> bool {
        self.requests_in_flight + self.calls.len() > self.lanes.frames()
    }

    /// Given up ones included.
    pub(crate) fn calls_in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Places for calls, taken or not.
    #[cfg(test)]
    pub(crate) fn call_places(&self) -> usize {
        self.calls.places()
    }

    pub(crate) fn queued_frames(&self) -> usize {
        self.lanes.frames()
    }

    pub(crate) fn last_received(&self) -> Instant {
        self.heartbeat.last_received()
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        ConnectionStats {
            calls_in_flight: self.calls.len(),
            requests_in_flight: self.requests_in_flight,
            write_queue_bytes: self.lanes.bulk_bytes(),
            reply_queue_bytes: self.lanes.control_bytes(),
            round_trips: self.round_trips.stats(),
            ..self.stats
        }
    }

    /// All that it counts.
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            stats: self.stats(),
            pings: self.round_trips.all().clone(),
            rpcs: self.rpcs.clone(),
        }
    }
}

fn check_frame_bytes(header: &Header, pbody_len: usize, dbody_len: usize) -> Result<(), CallError> {
    let (bytes, bytes_max) = (encoded_len(header, pbody_len, dbody_len), FRAME_BYTES_LIMIT);
    if bytes > bytes_max {
        return Err(CallError::RequestTooLong { bytes, bytes_max });
    }
    Ok(())
}

/// Body of PING and PONG.
const ACK: Ack = Ack { ok: Some(true) };
/// The same, encoded.
const ACK_BYTES: [u8; 2] = [0x08, 0x01];

fn is_heartbeat(frame: &Frame) -> bool {
    matches!(frame.header.mode, RpcMode::Ping | RpcMode::Pong)
}

/// Whether the bodies are those of PING and PONG between our own nodes.
fn is_beat(frame: &Frame) -> bool {
    frame.pbody == ACK_BYTES[..] && frame.dbody.is_empty()
}

fn expect_handshake(frame: &Frame) -> Result<(), ProtocolError> {
    if is_heartbeat(frame) {
        return Err(ProtocolError::HeartbeatBeforeHandshake);
    }
    match frame.header.rpc_type {
        HANDSHAKE => Ok(()),
        actual => Err(ProtocolError::NotAHandshake { actual }),
    }
}
