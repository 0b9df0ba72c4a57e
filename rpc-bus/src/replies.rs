//! Replies between their handlers and the connection: encoded as they are made, taken over all at once.

use std::time::Instant;

use bytes::Bytes;
use protos::rpc::RpcMode;

use crate::{
    frame::Header,
    lanes::{Pbody, Queue},
    metrics::Ticket,
};

/// Whole frames, one for each request that they answer.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    pub(crate) frames: Queue,
    pub(crate) settled: Vec<Settled>,
}

/// A request that is answered.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) ticket: Ticket,
    /// Of the answer's bodies.
    pub(crate) bytes: usize,
    pub(crate) at: Instant,
}

impl Replies {
    /// Encodes the answer to one request.
    pub(crate) fn push(
        &mut self,
        ticket: Ticket,
        rpc_type: i32,
        (pbody, dbody): (Pbody<'_>, Vec<Bytes>),
        at: Instant,
    ) {
        let bytes = pbody.bytes_len() + dbody.iter().map(Bytes::len).sum::<usize>();
        self.settled.push(Settled { ticket, bytes, at });
        let header = Header {
            mode: RpcMode::Response,
            coordination_id: ticket.id,
            rpc_type,
        };
        self.frames.push_frame(&header, pbody, dbody, 0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.settled.is_empty()
    }
}
