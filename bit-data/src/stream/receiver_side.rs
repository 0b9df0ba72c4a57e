//! One connection that this node has opened: the streams that come in on it.

use std::{
    collections::{BTreeMap, HashMap},
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
    checksum::{sealed, verify},
    error::ReceiveError,
    inbound::Inbound,
    stats::lock,
};
use crate::dispatch::StreamSink;

#[derive(Debug)]
pub(crate) struct ReceiverSide {
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
    open: HashMap<u64, Arc<Inbound>>,
    /// Ids below were given to streams; none is ever given twice.
    next: u64,
    ended: Option<CloseReason>,
}

impl ReceiverSide {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            streams: Mutex::new(Streams {
                open: HashMap::new(),
                // Key 0 is that of calls.
                next: 1,
                ended: None,
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

    #[cfg(test)]
    pub(crate) fn open_streams(&self) -> usize {
        lock(&self.streams).open.len()
    }

    fn batch(&self, frame: StreamFrame, body: Bytes) -> Result<(), PeerMisbehaved> {
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
            None if (1..next).contains(&id) => late(frame, &body),
            None => Err(PeerMisbehaved {
                reason: format!("a frame of stream {id}, which was never opened"),
            }),
        }
    }
}

/// A frame of a stream that is not open any more: whoever has closed it has told its sender. Its id may be the damaged one
/// of another stream, which would then wait for ever.
fn late(mut frame: StreamFrame, body: &Bytes) -> Result<(), PeerMisbehaved> {
    if frame.crc.is_some() {
        verify(&mut frame, body).map_err(misbehaved)?;
    }
    Ok(())
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
        let open = {
            let mut streams = lock(&self.streams);
            streams.ended = Some(reason.clone());
            std::mem::take(&mut streams.open)
        };
        let in_order: BTreeMap<_, _> = open.into_iter().collect();
        for inbound in in_order.into_values() {
            inbound.fail(ReceiveError::Lost(reason.clone()));
        }
    }
}
