//! One connection that a peer has opened: the streams that go out on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ptr,
    sync::{Arc, Mutex, Weak},
    task::Waker,
};

use protos::{
    OneWay,
    calls::{CloseStream as CloseCall, Credit as CreditCall, data::OpenStream as OpenCall},
    data::{self, CloseStream, close_stream, stream_frame},
    error::{ErrorType, Retry},
    rpc::Ack,
};
use record_batch::Codec;
use rpc_bus::{
    CloseReason, Feature, OneWayMessage, PeerMisbehaved, RemoteConnection, Reply, RpcFailure,
};

use super::{
    address::{IncompleteAddress, StreamAddress},
    checksum::{Damaged, Sealed, check},
    error::{NodeDown, SendError},
    frame::codec_from_wire,
    options::{piece_bytes, piece_of},
    outbound::{Outbound, RemoteRoute, Route, SenderGone},
    peers::incarnation_of,
    registry::{Met, Opener, Refusal, Registry},
    stats::lock,
    tunnel::node_address,
};
use crate::dispatch::{StreamHost, StreamSink};

/// Only streams whose opening is on its way are closed before they are opened.
const CLOSED_EARLY_MAX: usize = 16_384;

/// Serves the streams of all peers that connect.
pub(crate) struct SenderHost {
    registry: Arc<Registry>,
    /// Largest batch of this node.
    batch_bytes_max: usize,
    sides: Arc<Sides>,
}

impl SenderHost {
    pub(crate) fn new(registry: Arc<Registry>, batch_bytes_max: usize) -> Self {
        Self {
            registry,
            batch_bytes_max,
            sides: Arc::default(),
        }
    }

    /// The connections of those that have connected.
    pub(crate) fn sides(&self) -> Arc<Sides> {
        Arc::clone(&self.sides)
    }
}

impl StreamHost for SenderHost {
    fn accepted(&self, connection: &RemoteConnection) -> Arc<dyn StreamSink> {
        let side = Arc::new_cyclic(|this| SenderSide {
            this: this.clone(),
            has_checksums: connection.has(Feature::Checksums),
            connection: connection.clone(),
            registry: Arc::clone(&self.registry),
            batch_bytes_max: self.batch_bytes_max,
            streams: Mutex::default(),
            sides: Arc::clone(&self.sides),
        });
        self.sides.add(&side);
        side
    }
}

/// All that is open, by the number of its connection.
#[derive(Debug, Default)]
pub(crate) struct Sides(Mutex<BTreeMap<u64, Weak<SenderSide>>>);

impl Sides {
    fn add(&self, side: &Arc<SenderSide>) {
        lock(&self.0).insert(side.connection.id(), Arc::downgrade(side));
    }

    /// Ends all that go to a process that is down.
    pub(crate) fn node_down(&self, down: &NodeDown) {
        let sides: Vec<_> = lock(&self.0).values().filter_map(Weak::upgrade).collect();
        let of_node = sides
            .into_iter()
            .filter(|side| incarnation_of(&side.connection) == Some(down.incarnation));
        of_node.for_each(|side| side.node_down(down));
    }
}

#[derive(Debug)]
pub(crate) struct SenderSide {
    this: Weak<Self>,
    connection: RemoteConnection,
    /// Whether the peer seals what it sends.
    has_checksums: bool,
    registry: Arc<Registry>,
    batch_bytes_max: usize,
    streams: Mutex<Streams>,
    /// Where it is listed.
    sides: Arc<Sides>,
}

/// Under its lock. A receiver is there as long as its stream is listed; so the registry, which looks for that under its
/// own lock, and only there, never keeps one that has gone.
#[derive(Debug, Default)]
struct Streams {
    /// By id, and so in the order in which they came.
    listed: BTreeMap<u64, Listed>,
    /// How many of them wait.
    waiting: usize,
    /// Ids up to here were given to streams.
    highest: u64,
    /// Ids above that were closed: what closes is fast, and overtakes what opens.
    closed_early: BTreeSet<u64>,
    ended: Option<CloseReason>,
}

#[derive(Debug)]
enum Listed {
    /// For a sender.
    Waiting(StreamAddress),
    Open(Arc<Outbound>),
}

impl SenderSide {
    /// Connects a sender with the receiver that has opened its stream, and acknowledges.
    pub(crate) fn attach(
        self: &Arc<Self>,
        outbound: &Arc<Outbound>,
        request: &data::OpenStream,
        reply: Reply<OpenCall>,
    ) -> Met {
        let route = Route::Remote(Arc::new(self.route(request)));
        let mut streams = lock(&self.streams);
        let Some(&Listed::Waiting(address)) = streams.listed.get(&request.stream()) else {
            return Met::ReceiverGone;
        };
        streams.remove(request.stream());
        // In one step: an open stream has a receiver, and is stopped with the connection.
        let attached = outbound.attach(route, request.limit_bytes());
        if attached.is_ok() {
            let open = Listed::Open(Arc::clone(outbound));
            streams.listed.insert(request.stream(), open);
        }
        drop(streams);
        match attached {
            Ok(sender) => {
                reply.send(&Ack { ok: Some(true) });
                sender.into_iter().for_each(Waker::wake);
            }
            Err(SenderGone) => reply.fail(Refusal::SenderGone.into_failure(address)),
        }
        Met::Told
    }

    fn route(self: &Arc<Self>, request: &data::OpenStream) -> RemoteRoute {
        let agreed = self.connection.peer_capabilities();
        let theirs = agreed.map_or(0, |agreed| agreed.batch_bytes_max);
        let batch_bytes_max = match usize::try_from(theirs).unwrap_or(usize::MAX) {
            0 => self.batch_bytes_max,
            theirs => theirs,
        };
        RemoteRoute {
            side: Arc::clone(self),
            connection: self.connection.clone(),
            stream: request.stream(),
            has_checksums: request.checksum() && self.has_checksums,
            codecs: self.codecs(request),
            piece_bytes: piece_bytes(request.limit_bytes()).min(piece_of(batch_bytes_max)),
            batch_bytes_max,
        }
    }

    /// Codecs that both sides know.
    fn codecs(&self, request: &data::OpenStream) -> Vec<Codec> {
        if !self.connection.has(Feature::Compression) {
            return Vec::new();
        }
        let known = request.codecs.iter().copied();
        let known = known.filter_map(|number| stream_frame::Codec::try_from(number).ok());
        known
            .map(codec_from_wire)
            .filter(|&codec| codec != Codec::None)
            .collect()
    }

    /// Sends nothing any more of a stream.
    pub(crate) fn forget(&self, stream: u64) {
        lock(&self.streams).remove(stream);
    }

    /// Whether the receiver of a stream, which has no sender yet, is still there.
    pub(crate) fn is_waiting(&self, stream: u64) -> bool {
        lock(&self.streams).is_waiting(stream)
    }

    /// The sender of a stream; `None` if it has ended.
    fn sender(&self, stream: u64) -> Result<Option<Arc<Outbound>>, PeerMisbehaved> {
        let streams = lock(&self.streams);
        if stream == 0 || stream > streams.highest {
            return Err(never_opened(stream));
        }
        match streams.listed.get(&stream) {
            Some(Listed::Open(outbound)) => Ok(Some(Arc::clone(outbound))),
            _ => Ok(None),
        }
    }

    fn check(&self, request: &mut data::OpenStream) -> Result<StreamAddress, Box<RpcFailure>> {
        if !self.connection.has(Feature::Streams) {
            let message = "streams were not agreed on in the handshake";
            return Err(refusal(ErrorType::UnsupportedOperation, message));
        }
        let damaged = |error: Damaged| refusal(ErrorType::Connection, error.to_string());
        self.checked(request).map_err(damaged)?;
        let invalid = |error: IncompleteAddress| refusal(ErrorType::Validation, error.to_string());
        let address = StreamAddress::from_wire(request).map_err(invalid)?;
        let waiting_max = self.registry.waiting_max_of_a_connection();
        lock(&self.streams).list(request.stream(), address, waiting_max)?;
        Ok(address)
    }

    /// A flipped bit in a limit could let the sender wait for ever.
    fn checked(&self, message: &mut impl Sealed) -> Result<(), Damaged> {
        if self.has_checksums {
            return check(message);
        }
        Ok(())
    }

    fn close_stream(&self, message: &CloseStream) -> Result<(), PeerMisbehaved> {
        let stream = message.stream();
        // Not locked any more: the registry looks here under its own lock.
        let closed = lock(&self.streams).close(stream)?;
        if let Some(closed) = closed {
            self.end(stream, closed, stop_reason(message));
        }
        Ok(())
    }

    /// Streams end with that, and those that waited for a sender are given up.
    fn node_down(&self, down: &NodeDown) {
        self.end_all(&CloseReason::ClosedHere, &SendError::NodeDown(down.clone()));
        self.connection.close();
    }

    fn end_all(&self, reason: &CloseReason, error: &SendError) {
        let listed = lock(&self.streams).end(reason);
        for (stream, was) in listed {
            self.end(stream, was, error.clone());
        }
    }

    /// The receiver of a stream that was listed has gone.
    fn end(&self, stream: u64, was: Listed, reason: SendError) {
        match was {
            Listed::Open(outbound) => outbound.stop(reason),
            Listed::Waiting(address) => self.registry.withdraw(address, |opener| {
                matches!(opener, Opener::Remote { side, request, .. }
                    if ptr::eq(&raw const **side, self) && request.stream() == stream)
            }),
        }
    }
}

impl Drop for SenderSide {
    fn drop(&mut self) {
        lock(&self.sides.0).remove(&self.connection.id());
    }
}

impl Streams {
    /// Takes the id of a new stream, for a receiver that waits from now on; ids only ever grow.
    fn list(
        &mut self,
        stream: u64,
        address: StreamAddress,
        waiting_max: usize,
    ) -> Result<(), Box<RpcFailure>> {
        let highest = self.highest;
        if stream <= highest {
            let message = format!("stream id {stream}, expected one above {highest}");
            return Err(refusal(ErrorType::Validation, message));
        }
        self.highest = stream;
        let is_closed = self.closed_early.remove(&stream);
        self.closed_early = self.closed_early.split_off(&stream);
        if is_closed || self.ended.is_some() {
            let message = "the stream was closed before it was opened";
            return Err(refusal(ErrorType::Connection, message));
        }
        if self.waiting >= waiting_max {
            let message = format!(
                "{waiting_max} receivers of this connection wait for their senders already"
            );
            let failure = RpcFailure::new(ErrorType::Resource, message);
            return Err(Box::new(failure.with_retry(Retry::SameNode)));
        }
        self.listed.insert(stream, Listed::Waiting(address));
        self.waiting += 1;
        Ok(())
    }

    fn is_waiting(&self, stream: u64) -> bool {
        matches!(self.listed.get(&stream), Some(Listed::Waiting(_)))
    }

    fn remove(&mut self, stream: u64) -> Option<Listed> {
        let removed = self.listed.remove(&stream);
        self.waiting -= usize::from(matches!(removed, Some(Listed::Waiting(_))));
        removed
    }

    /// The receiver of a stream wants nothing any more; a stream that is not opened yet never will be.
    fn close(&mut self, stream: u64) -> Result<Option<Listed>, PeerMisbehaved> {
        if stream == 0 {
            return Err(never_opened(stream));
        }
        if stream > self.highest {
            if self.closed_early.len() == CLOSED_EARLY_MAX {
                return Err(never_opened(stream));
            }
            self.closed_early.insert(stream);
        }
        Ok(self.remove(stream))
    }

    /// All that were listed.
    fn end(&mut self, reason: &CloseReason) -> BTreeMap<u64, Listed> {
        self.ended = Some(reason.clone());
        self.waiting = 0;
        std::mem::take(&mut self.listed)
    }
}

fn never_opened(stream: u64) -> PeerMisbehaved {
    PeerMisbehaved {
        reason: format!("stream {stream} was never opened"),
    }
}

fn misbehaved(damaged: Damaged) -> PeerMisbehaved {
    PeerMisbehaved {
        reason: damaged.to_string(),
    }
}

fn refusal(kind: ErrorType, message: impl Into<String>) -> Box<RpcFailure> {
    Box::new(RpcFailure::new(kind, message))
}

fn stop_reason(message: &CloseStream) -> SendError {
    match message.kind() {
        close_stream::Kind::Finished => SendError::ReceiverFinished,
        close_stream::Kind::Cancelled => SendError::ReceiverCancelled,
        close_stream::Kind::Failed => {
            let error = message.error.clone().unwrap_or_default();
            SendError::ReceiverFailed(RpcFailure::from(error).into())
        }
    }
}

impl StreamSink for SenderSide {
    fn open(&self, mut request: data::OpenStream, reply: Reply<OpenCall>) {
        let address = match self.check(&mut request) {
            Ok(address) => address,
            Err(failure) => return reply.fail(*failure),
        };
        let Some(side) = self.this.upgrade() else {
            let message = "the connection is closing";
            let failure = RpcFailure::new(ErrorType::Connection, message);
            return reply.fail(failure.with_retry(Retry::SameNode));
        };
        let opener = Opener::Remote {
            side,
            request: Box::new(request),
            reply,
        };
        self.registry.open(address, opener);
    }

    fn one_way(&self, message: OneWayMessage) -> Result<(), PeerMisbehaved> {
        match message.rpc_type {
            CreditCall::RPC_TYPE => {
                let (mut credit, _) = message.decode::<CreditCall>()?;
                self.checked(&mut credit).map_err(misbehaved)?;
                if let Some(outbound) = self.sender(credit.stream())? {
                    outbound.raise(credit.limit_bytes());
                }
                Ok(())
            }
            CloseCall::RPC_TYPE => {
                let (mut close, _) = message.decode::<CloseCall>()?;
                self.checked(&mut close).map_err(misbehaved)?;
                self.close_stream(&close)
            }
            _ => Err(message.unexpected()),
        }
    }

    fn closed(&self, reason: &CloseReason) {
        let lost = SendError::Lost {
            peer: node_address(&self.connection),
            reason: reason.clone(),
        };
        self.end_all(reason, &lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> StreamAddress {
        let query = protos::id::QueryId { part1: 1, part2: 2 };
        StreamAddress::new(query, (1, 0), (0, 0))
    }

    #[test]
    fn what_is_closed_before_it_is_opened_is_remembered_until_later_streams_come_and_within_a_limit()
     {
        let mut streams = Streams::default();
        for stream in 1..=CLOSED_EARLY_MAX as u64 {
            assert!(streams.close(stream).expect("there is room").is_none());
        }
        let beyond = CLOSED_EARLY_MAX as u64 + 1;
        assert!(streams.close(beyond).is_err() && streams.close(0).is_err());
        assert!(streams.list(7, address(), 1).is_err(), "it is closed");
        assert_eq!(streams.closed_early.len(), CLOSED_EARLY_MAX - 7);
        assert!(streams.list(beyond, address(), 1).is_ok());
        assert!(streams.closed_early.is_empty());
        assert!(streams.list(beyond + 1, address(), 1).is_err(), "one waits");
        let closed = streams.close(beyond).expect("it is open");
        assert!(matches!(closed, Some(Listed::Waiting(_))) && streams.waiting == 0);
    }
}
