//! Counters of one connection by rpc type and direction: plain numbers beside its state.
//!
//! Only numbers of the plane's table get a place of their own; all others share one, so that a peer can never make this
//! grow. A connection that has carried no request has none.

use std::time::{Duration, Instant};

use protos::{
    Plane,
    calls::{self, CallRow, TABLE, rpc_name},
};

use super::{InboundRpc, OutboundRpc, RpcCounts, histogram::Times};
use crate::{error::CallError, frame::CoordinationId};

/// Name of the slot that all numbers outside of the table share.
const UNKNOWN: &str = "unknown";

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Answered,
    /// It is never answered: its end is that it was taken, or queued.
    OneWay,
    Failed,
    /// Inbound: too many were in flight.
    Refused,
    TimedOut,
    GivenUp,
    MalformedAnswer,
    TooManyCalls,
    Budget,
    RequestTooLong,
    /// The connection ended first.
    Lost,
}

impl Ending {
    const COUNT: usize = Self::Lost as usize + 1;
    const INBOUND: &[Self] = &[
        Self::Answered,
        Self::OneWay,
        Self::Failed,
        Self::Refused,
        Self::Lost,
    ];
    const OUTBOUND: &[Self] = &[
        Self::Answered,
        Self::OneWay,
        Self::Failed,
        Self::TimedOut,
        Self::GivenUp,
        Self::MalformedAnswer,
        Self::TooManyCalls,
        Self::Budget,
        Self::RequestTooLong,
        Self::Lost,
    ];

    /// The same words as those of [`CallError::kind`].
    fn kind(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::OneWay => "one_way",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::GivenUp => "given_up",
            Self::MalformedAnswer => "malformed_answer",
            Self::TooManyCalls => "too_many_calls",
            Self::Budget => "budget",
            Self::RequestTooLong => "request_too_long",
            Self::Lost => "lost",
        }
    }
}

impl From<&CallError> for Ending {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Remote(_) => Self::Failed,
            CallError::Timeout(_) => Self::TimedOut,
            CallError::TooManyCalls { .. } => Self::TooManyCalls,
            CallError::Budget(_) => Self::Budget,
            CallError::RequestTooLong { .. } => Self::RequestTooLong,
            CallError::UnexpectedAnswer { .. } | CallError::MalformedAnswer(_) => {
                Self::MalformedAnswer
            }
            CallError::Lost(_) | CallError::Connect(_) | CallError::NotOffered(_) => Self::Lost,
        }
    }
}

/// Where the requests of one type are counted, within their connection and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(u8);

/// What it takes to answer a request of the peer, and to count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) id: CoordinationId,
    slot: Slot,
    received: Instant,
    started: Instant,
}

impl Ticket {
    /// Its handler starts now.
    pub(crate) fn started(self, now: Instant) -> Self {
        Self {
            started: now,
            ..self
        }
    }
}

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    slot: Slot,
    at: Instant,
}

impl Started {
    /// How long it has lasted at `end`.
    pub(crate) fn until(&self, end: Instant) -> Duration {
        end.saturating_duration_since(self.at)
    }
}

/// One connection's, or the sum of many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rpcs {
    inbound: Vec<PerType>,
    outbound: Vec<PerType>,
}

/// Requests of one type in one direction.
#[derive(Clone, Debug)]
struct PerType {
    /// `None`: all that are not in the plane's table.
    rpc_type: Option<i32>,
    /// As the plane's table says.
    unordered: bool,
    requests: u64,
    request_bytes: u64,
    answer_bytes: u64,
    endings: [u64; Ending::COUNT],
    /// Before it goes on: in the mailbox, or until there is room to write.
    wait: Times,
    /// Until its answer: from the handler, or from the peer.
    answer: Times,
}

impl Rpcs {
    // ---- requests of the peer ----

    /// A request came in; what ends it must be told.
    pub(crate) fn on_request(
        &mut self,
        plane: Plane,
        header: (i32, CoordinationId),
        bytes: usize,
        now: Instant,
    ) -> Ticket {
        let (rpc_type, id) = header;
        let slot = slot(&mut self.inbound, plane, rpc_type, bytes);
        Ticket {
            id,
            slot,
            received: now,
            started: now,
        }
    }

    /// Whether its type has no order.
    pub(crate) fn is_unordered(&self, ticket: &Ticket) -> bool {
        let rpc = self.inbound.get(usize::from(ticket.slot.0));
        rpc.is_some_and(|rpc| rpc.unordered)
    }

    /// It was answered, in so many `bytes`, or refused by its handler.
    pub(crate) fn on_settled(
        &mut self,
        ticket: &Ticket,
        ending: Ending,
        bytes: usize,
        now: Instant,
    ) {
        if let Some(rpc) = self.inbound.get_mut(usize::from(ticket.slot.0)) {
            rpc.endings[ending as usize] += 1;
            rpc.answer_bytes += bytes as u64;
            rpc.wait.record_between(ticket.received, ticket.started);
            rpc.answer.record_between(ticket.started, now);
        }
    }

    /// It was refused before any handler saw it.
    pub(crate) fn on_refused(&mut self, ticket: &Ticket) {
        end(&mut self.inbound, ticket.slot, Ending::Refused);
    }

    // ---- calls ----

    /// A call is made that began at `at`; what ends it must be told.
    pub(crate) fn on_call(
        &mut self,
        plane: Plane,
        rpc_type: i32,
        bytes: usize,
        at: Instant,
    ) -> Started {
        let slot = slot(&mut self.outbound, plane, rpc_type, bytes);
        Started { slot, at }
    }

    /// It had to wait for room to write.
    pub(crate) fn on_room_wait(&mut self, call: &Started, waited: Duration) {
        if let Some(rpc) = self.outbound.get_mut(usize::from(call.slot.0)) {
            rpc.wait.record(waited);
        }
    }

    /// Its answer came, in so many `bytes`.
    pub(crate) fn on_answer(&mut self, call: &Started, ending: Ending, bytes: usize, now: Instant) {
        if let Some(rpc) = self.outbound.get_mut(usize::from(call.slot.0)) {
            rpc.endings[ending as usize] += 1;
            rpc.answer_bytes += bytes as u64;
            rpc.answer.record_between(call.at, now);
        }
    }

    /// It ended without an answer.
    pub(crate) fn on_call_ended(&mut self, call: &Started, ending: Ending) {
        end(&mut self.outbound, call.slot, ending);
    }

    // ---- both ----

    /// A message came in that is never answered.
    pub(crate) fn on_one_way(&mut self, plane: Plane, rpc_type: i32, bytes: usize) {
        let slot = slot(&mut self.inbound, plane, rpc_type, bytes);
        end(&mut self.inbound, slot, Ending::OneWay);
    }

    /// A message was queued that is never answered, perhaps after waiting for room to write.
    pub(crate) fn on_post(
        &mut self,
        plane: Plane,
        rpc_type: i32,
        bytes: usize,
        room_wait: Option<Duration>,
    ) {
        let slot = slot(&mut self.outbound, plane, rpc_type, bytes);
        end(&mut self.outbound, slot, Ending::OneWay);
        if let (Some(rpc), Some(waited)) = (self.outbound.get_mut(usize::from(slot.0)), room_wait) {
            rpc.wait.record(waited);
        }
    }

    /// The connection has ended, and with it all that was in flight.
    pub(crate) fn on_close(&mut self) {
        for rpc in self.inbound.iter_mut().chain(&mut self.outbound) {
            rpc.endings[Ending::Lost as usize] += rpc.in_flight();
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        add(&mut self.inbound, &other.inbound);
        add(&mut self.outbound, &other.outbound);
    }

    pub(crate) fn inbound(&self, plane: Plane) -> Vec<InboundRpc> {
        let rpcs = self.inbound.iter();
        rpcs.map(|rpc| InboundRpc {
            counts: rpc.counts(plane, Ending::INBOUND),
            queue_time: rpc.wait.snapshot(),
            handler_time: rpc.answer.snapshot(),
        })
        .collect()
    }

    pub(crate) fn outbound(&self, plane: Plane) -> Vec<OutboundRpc> {
        let rpcs = self.outbound.iter();
        rpcs.map(|rpc| OutboundRpc {
            counts: rpc.counts(plane, Ending::OUTBOUND),
            room_wait: rpc.wait.snapshot(),
            round_trip: rpc.answer.snapshot(),
        })
        .collect()
    }

    /// The counts of a type whose requests have not all ended, each in one way; for checks once a connection is closed.
    pub(crate) fn unsettled(&self, plane: Plane) -> Option<RpcCounts> {
        let inbound = self.inbound(plane).into_iter().map(|rpc| rpc.counts);
        let outbound = self.outbound(plane).into_iter().map(|rpc| rpc.counts);
        inbound.chain(outbound).find(|counts| {
            let ended: u64 = counts.ended.iter().map(|(_, count)| count).sum();
            (ended, counts.in_flight) != (counts.requests, 0)
        })
    }
}

impl PerType {
    fn new(rpc_type: Option<i32>, unordered: bool) -> Self {
        Self {
            rpc_type,
            unordered,
            requests: 0,
            request_bytes: 0,
            answer_bytes: 0,
            endings: [0; Ending::COUNT],
            wait: Times::default(),
            answer: Times::default(),
        }
    }

    fn in_flight(&self) -> u64 {
        let ended: u64 = self.endings.iter().sum();
        self.requests - ended
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.request_bytes += other.request_bytes;
        self.answer_bytes += other.answer_bytes;
        for (ending, more) in self.endings.iter_mut().zip(other.endings) {
            *ending += more;
        }
        self.wait.add(&other.wait);
        self.answer.add(&other.answer);
    }

    fn counts(&self, plane: Plane, endings: &[Ending]) -> RpcCounts {
        let name = self.rpc_type.and_then(|rpc_type| rpc_name(plane, rpc_type));
        let ended = endings
            .iter()
            .map(|&ending| (ending.kind(), self.endings[ending as usize]));
        RpcCounts {
            name: name.unwrap_or(UNKNOWN),
            rpc_type: self.rpc_type,
            requests: self.requests,
            in_flight: self.in_flight(),
            ended: ended.collect(),
            request_bytes: self.request_bytes,
            answer_bytes: self.answer_bytes,
        }
    }
}

/// Counts one more request of `bytes` bytes, and says where.
fn slot(rpcs: &mut Vec<PerType>, plane: Plane, rpc_type: i32, bytes: usize) -> Slot {
    let found = rpcs.iter().position(|rpc| rpc.rpc_type == Some(rpc_type));
    let index = found.unwrap_or_else(|| {
        let is_called = |row: &CallRow| row.plane == plane && row.request == rpc_type;
        let is_known =
            TABLE.into_iter().flatten().any(is_called) || calls::one_way(plane, rpc_type).is_some();
        let unordered = calls::unordered(plane, rpc_type);
        position_or_new(rpcs, is_known.then_some(rpc_type), unordered)
    });
    rpcs[index].requests += 1;
    rpcs[index].request_bytes += bytes as u64;
    // At most a slot for each row of the table, and one more.
    Slot(u8::try_from(index).unwrap_or(u8::MAX))
}

fn position_or_new(rpcs: &mut Vec<PerType>, rpc_type: Option<i32>, unordered: bool) -> usize {
    let found = rpcs.iter().position(|rpc| rpc.rpc_type == rpc_type);
    found.unwrap_or_else(|| {
        // Most connections carry one or two types; a vector's own growth would hold room for four.
        rpcs.reserve_exact(1);
        rpcs.push(PerType::new(rpc_type, unordered));
        rpcs.len() - 1
    })
}

fn end(rpcs: &mut [PerType], slot: Slot, ending: Ending) {
    if let Some(rpc) = rpcs.get_mut(usize::from(slot.0)) {
        rpc.endings[ending as usize] += 1;
    }
}

fn add(rpcs: &mut Vec<PerType>, others: &[PerType]) {
    for other in others {
        let index = position_or_new(rpcs, other.rpc_type, other.unordered);
        rpcs[index].add(other);
    }
}
