//! One connection that this node has opened: the streams that come in on it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::Waker,
};

use bytes::Bytes;
use protos::{
    OneWay,
    calls::{CloseStream as CloseCall, StreamBatch},
    data::{CloseStream, StreamFrame, close_stream},
};
use rpc_bus::{CloseReason, OneWayMessage, PeerMisbehaved, RemoteConnection};

use super::{
    checksum::{check_frame, sealed},
    error::{NodeDown, OpenError, ReceiveError},
    inbound::Inbound,
    stats::lock,
};
use crate::dispatch::StreamSink;

#[derive(Debug)]
pub(crate) struct ReceiverSide {
    /// Where the connection goes.
    peer: SocketAddr,
    streams: Mutex<Streams>,
    /// Consumers that are woken when what came in one go has been taken: a batch often comes with others, and waking
    /// somebody costs more than taking it.
    asleep: Mutex<Vec<Waker>>,
    /// Held from the registration of a stream until the request that opens it is queued: its sender takes ids only in
    /// ascending order.
    pub(crate) opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Streams {
    /// By id, and so in the order in which they were opened.
    open: BTreeMap<u64, Arc<Inbound>>,
    /// Ids below were given to streams; none is ever given twice.
    next: u64,
    ended: Option<CloseReason>,
    /// Said before the connection ended.
    down: Option<NodeDown>,
}

impl ReceiverSide {
    /// Of a connection to `peer`.
    pub(crate) fn new(peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            peer,
            streams: Mutex::new(Streams {
                open: BTreeMap::new(),
                // Key 0 is that of calls.
                next: 1,
                ended: None,
                down: None,
            }),
            asleep: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        })
    }

    /// Gives a stream its id; frames of it are taken from now on. `opening` is to be held.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub(crate) fn register(&self, inbound: &Arc<Inbound>) -> Result<u64, CloseReason> {
        let mut streams = lock(&self.streams);
        if let Some(reason) = &streams.ended {
            return Err(reason.clone());
        }
        let id = streams.next;
        streams.next += 1;
        streams.open.insert(id, Arc::clone(inbound));
        Ok(id)
    }

    /// Takes nothing any more of a stream.
    pub(crate) fn forget(&self, stream: u64) {
        lock(&self.streams).open.remove(&stream);
    }

    /// The node at the other end is down: all streams end at once. Its connection is the caller's to close.
    pub(crate) fn node_down(&self, down: &NodeDown) {
        let open = {
            let mut streams = lock(&self.streams);
            streams.down = Some(down.clone());
            streams.end(CloseReason::ClosedHere)
        };
        for inbound in open.into_values() {
            inbound.fail(ReceiveError::NodeDown(down.clone()));
        }
    }

    /// Why a stream could not be opened: that its node is down says more than that its connection is gone.
    pub(crate) fn explain(&self, error: OpenError) -> OpenError {
        let down = lock(&self.streams).down.clone();
        down.map_or(error, OpenError::NodeDown)
    }

    #[cfg(test)]
    pub(crate) fn open_streams(&self) -> usize {
        lock(&self.streams).open.len()
    }

    fn batch(&self, mut frame: StreamFrame, body: Bytes) -> Result<(), PeerMisbehaved> {
        // Before anything in it counts, its id most of all: whose frame it really is waits for it, perhaps for ever.
        if frame.crc.is_some() {
            check_frame(&mut frame).map_err(|damaged| self.fail(damaged))?;
        }
        let id = frame.stream();
        let (inbound, next) = {
            let streams = lock(&self.streams);
            (streams.open.get(&id).cloned(), streams.next)
        };
        match inbound {
            Some(inbound) => {
                let (accepted, consumer) = inbound.accept(frame, body);
                lock(&self.asleep).extend(consumer);
                accepted.map_err(misbehaved)
            }
            // Whoever has closed it has told its sender.
            None if (1..next).contains(&id) => Ok(()),
            None => Err(PeerMisbehaved {
                reason: format!("a frame of stream {id}, which was never opened"),
            }),
        }
    }

    /// Ends all streams: which of them the error is of cannot be known. The connection ends with it.
    fn fail(&self, error: ReceiveError) -> PeerMisbehaved {
        let open: Vec<_> = lock(&self.streams).open.values().cloned().collect();
        for inbound in open {
            inbound.fail(error.clone());
        }
        misbehaved(error)
    }
}

/// Tells the sender of a stream that nothing more is wanted.
pub(crate) fn close(
    connection: &RemoteConnection,
    stream: u64,
    kind: close_stream::Kind,
    error: Option<protos::shared::DrillPbError>,
) {
    let message = sealed(CloseStream {
        stream: Some(stream),
        kind: Some(kind.into()),
        error,
        crc: None,
    });
    // A connection that has ended has stopped the sender already.
    let _ = connection.post_urgent::<CloseCall>(&message);
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn misbehaved(error: ReceiveError) -> PeerMisbehaved {
    PeerMisbehaved {
        reason: error.to_string(),
    }
}

impl Streams {
    /// No more are opened. Those that are open.
    fn end(&mut self, reason: CloseReason) -> BTreeMap<u64, Arc<Inbound>> {
        self.ended = Some(reason);
        std::mem::take(&mut self.open)
    }
}

impl StreamSink for ReceiverSide {
    fn one_way(&self, message: OneWayMessage) -> Result<(), PeerMisbehaved> {
        if message.rpc_type != StreamBatch::RPC_TYPE {
            return Err(message.unexpected());
        }
        let (batch, body) = message.decode::<StreamBatch>()?;
        let frame = batch.stream.ok_or_else(|| PeerMisbehaved {
            reason: "a batch without an answer that is of no stream".to_owned(),
        })?;
        self.batch(frame, body)
    }

    fn turn_ended(&self) {
        let asleep = std::mem::take(&mut *lock(&self.asleep));
        asleep.into_iter().for_each(Waker::wake);
    }

    fn closed(&self, reason: &CloseReason) {
        let open = lock(&self.streams).end(reason.clone());
        for inbound in open.into_values() {
            inbound.fail(ReceiveError::Lost {
                peer: self.peer,
                reason: reason.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use prost::Message;
    use rpc_bus::{Ledger, ledger::Limits};

    use super::*;
    use crate::stream::{
        checksum::seal_frame,
        frame::Codecs,
        intake::Terms,
        options::{PIECE_BYTES_MAX, window_sizes},
    };

    /// A connection with three streams, 1 to 3.
    fn side() -> (Arc<ReceiverSide>, Vec<Arc<Inbound>>) {
        let side = ReceiverSide::new(([127, 0, 0, 1], 31012).into());
        let terms = Terms {
            has_checksums: true,
            batch_bytes_max: 16 << 20,
            codecs: Codecs::default(),
        };
        let ledger = Ledger::root("test", Limits::default());
        let stream = || {
            let sizes = window_sizes(2 << 20, 2 << 20);
            let reserved = sizes.reserve(&ledger).expect("there is room");
            let inbound = Arc::new(Inbound::new(sizes, terms, reserved));
            side.register(&inbound).expect("it is open");
            inbound
        };
        let streams = (0..3).map(|_| stream()).collect();
        (side, streams)
    }

    fn sealed_frame(frame: StreamFrame, body: &Bytes) -> StreamFrame {
        let mut frame = StreamFrame {
            sequence: Some(0),
            ..frame
        };
        seal_frame(&mut frame, std::slice::from_ref(body));
        frame
    }

    /// As the consumer sees it.
    fn has_failed(inbound: &Inbound) -> bool {
        let polled = inbound.poll_take(&mut Context::from_waker(Waker::noop()));
        matches!(
            polled,
            Poll::Ready(Some(Err(ReceiveError::Checksum { .. })))
        )
    }

    #[test]
    fn a_frame_that_has_strayed_to_another_stream_ends_both_when_it_comes() {
        let body = Bytes::from(vec![7; 1_000]);
        let of_second = StreamFrame {
            stream: Some(2),
            ..StreamFrame::default()
        };
        let sealed = sealed_frame(of_second, &body);
        // Open, failed, closed, and off the list.
        for step in 0..4 {
            let (side, streams) = side();
            match step {
                1 => streams[2].fail(ReceiveError::SenderCancelled),
                2 => streams[2].close(),
                3 => side.forget(3),
                _ => {}
            }
            let strayed = StreamFrame {
                stream: Some(2 ^ 1),
                ..sealed.clone()
            };
            assert!(side.batch(strayed, body.clone()).is_err());
            assert!(has_failed(&streams[1]), "step {step}");
            assert_eq!(has_failed(&streams[2]), step == 0);
        }
    }

    #[test]
    fn every_flipped_bit_in_the_message_of_a_chunk_is_seen_when_it_comes() {
        let body = Bytes::from(vec![7; PIECE_BYTES_MAX]);
        let first = StreamFrame {
            stream: Some(2),
            decoded_bytes: Some(9 << 20),
            chunked_bytes: Some(9 << 20),
            ..StreamFrame::default()
        };
        let message = sealed_frame(first, &body).encode_to_vec();
        for bit in 0..message.len() * 8 {
            let mut flipped = message.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(frame) = StreamFrame::decode(&*flipped) {
                let (side, _streams) = side();
                assert!(side.batch(frame, body.clone()).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_frame_without_the_checksum_that_was_agreed_on_is_refused() {
        let (side, streams) = side();
        let frame = StreamFrame {
            stream: Some(2),
            sequence: Some(0),
            ..StreamFrame::default()
        };
        assert!(side.batch(frame, Bytes::from_static(b"x")).is_err());
        assert!(has_failed(&streams[1]) && !has_failed(&streams[0]));
    }
}
