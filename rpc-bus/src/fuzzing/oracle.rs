//! What a peer may rightly expect of a connection, told from the frames of both directions alone.

use std::collections::{HashMap, HashSet};

use protos::rpc::RpcMode;

use super::{FRAME_BYTES_MAX, Side};
use crate::frame::{CoordinationId, Frame, Walk, WalkedFrame};

/// `rpc_type` of the calls that a [`Host`](super::host::Host) makes.
pub(super) const CALL: i32 = 6;
/// `rpc_type` of the handshake, and of heartbeats and failures.
const HANDSHAKE: i32 = 0;

/// Counts what is owed to the peer, and refuses what it must not see.
pub(super) struct Oracle {
    side: Side,
    /// Whether the peer's first frame was a handshake.
    pub(super) greeted: bool,
    /// Whether a server has decided about the handshake.
    pub(super) judged: bool,
    /// Whether the peer still has to prove who it is.
    pub(super) unproven: bool,
    hello: Option<CoordinationId>,
    /// Frames that the peer was sent.
    sent: u64,
    /// Requests of the peer that are not answered, by their id.
    owed: HashMap<CoordinationId, u32>,
    /// PINGs of the peer that are not answered.
    pings: u64,
    /// Ids of the calls that the peer has seen.
    called: HashSet<CoordinationId>,
    /// Last call of each stream that the peer has seen.
    last_of_stream: HashMap<u8, u32>,
}

impl Oracle {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            greeted: false,
            judged: false,
            unproven: false,
            hello: None,
            sent: 0,
            owed: HashMap::new(),
            pings: 0,
            called: HashSet::new(),
            last_of_stream: HashMap::new(),
        }
    }

    /// A frame that did not end the connection came in; returns whether it must be answered by a handler or a refusal.
    pub(super) fn received(&mut self, frame: &Frame) -> bool {
        let header = frame.header;
        if !self.greeted {
            assert_eq!(header.rpc_type, HANDSHAKE);
            (self.greeted, self.hello) = (true, Some(header.coordination_id));
            return false;
        }
        match header.mode {
            RpcMode::Request => *self.owed.entry(header.coordination_id).or_default() += 1,
            RpcMode::Ping => self.pings += 1,
            _ => {}
        }
        header.mode == RpcMode::Request
    }

    /// Bytes went out: whole frames, each of them due.
    pub(super) fn sent(&mut self, wire: &[u8]) {
        for frame in Walk::new(wire, 2 * FRAME_BYTES_MAX) {
            let frame = frame.expect("invariant: what we send can be decoded");
            if self.sent == 0 {
                self.first(&frame);
            } else {
                self.next(&frame);
            }
            self.sent += 1;
        }
    }

    /// Everything that is owed must have been paid.
    pub(super) fn settled(&self) {
        assert!(
            self.owed.values().all(|&owed| owed == 0),
            "never answered: {:?}",
            self.owed
        );
        assert_eq!(self.pings, 0, "PINGs without PONG");
    }

    fn first(&self, frame: &WalkedFrame<'_>) {
        let header = frame.header;
        assert_eq!(header.rpc_type, HANDSHAKE);
        match self.side {
            Side::Client => assert_eq!(header.mode, RpcMode::Request),
            Side::Server => {
                assert!(
                    self.judged,
                    "said something before the handshake: {frame:?}"
                );
                assert_eq!(header.mode, RpcMode::Response);
                assert_eq!(Some(header.coordination_id), self.hello);
            }
        }
    }

    fn next(&mut self, frame: &WalkedFrame<'_>) {
        let id = frame.header.coordination_id;
        match frame.header.mode {
            RpcMode::Response => {
                self.pay(id);
                assert_eq!(frame.pbody, id.0.to_le_bytes(), "another request's answer");
            }
            RpcMode::ResponseFailure => self.pay(id),
            RpcMode::Request => self.call(id, frame),
            RpcMode::Pong => {
                self.pings = self.pings.checked_sub(1).expect("a PONG without PING");
            }
            RpcMode::Ping => assert_eq!(id, CoordinationId::NONE),
        }
    }

    fn pay(&mut self, id: CoordinationId) {
        let owed = self.owed.get_mut(&id).filter(|owed| **owed > 0);
        let owed = owed.unwrap_or_else(|| panic!("nothing is owed to {id}"));
        *owed -= 1;
    }

    fn call(&mut self, id: CoordinationId, frame: &WalkedFrame<'_>) {
        assert_eq!(frame.header.rpc_type, CALL);
        assert!(!self.unproven, "called a peer that may be anybody");
        assert!(id != CoordinationId::NONE && self.called.insert(id));
        let (stream, serial) = read_call(frame.pbody);
        let last = self.last_of_stream.insert(stream, serial);
        assert!(last < Some(serial), "calls of stream {stream} out of order");
    }
}

/// Body of a call: its stream, and its number among all.
pub(super) fn call_body(stream: u8, serial: u32) -> Vec<u8> {
    let mut body = vec![stream];
    body.extend(serial.to_le_bytes());
    body
}

fn read_call(body: &[u8]) -> (u8, u32) {
    match *body {
        [stream, a, b, c, d] => (stream, u32::from_le_bytes([a, b, c, d])),
        _ => panic!("the body of a call has changed: {body:?}"),
    }
}
