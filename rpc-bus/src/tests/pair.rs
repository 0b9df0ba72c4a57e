//! The pair: what one end sends, the other gets, as soon as the test says so.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protos::{Plane, rpc::RpcMode};
use tokio::sync::oneshot;

use crate::{
    connection::{Connection, Event, IdleTimeout, Outcome, Outgoing},
    dispatch::OneWayMessage,
    error::{CallError, CloseReason},
    frame::{BodyPool, BodyPoolOptions, CoordinationId, Frame, FrameDecoder, Header, encode},
    lanes::{StreamKey, Transmit},
    ledger::{Ledger, Limits},
    link::Room,
    metrics::Ticket,
    options::ConnectionOptions,
};

/// `rpc_type` of the requests that tests send.
pub(super) const REQUEST: i32 = 6;
/// `rpc_type` of their answers.
pub(super) const RESPONSE: i32 = 1;

/// Body of the client's handshake: field 3 is 5, as in the user plane's.
pub(super) const HELLO: Bytes = Bytes::from_static(b"\x18\x05");

/// One end: a connection, and what its driver and its handler would keep.
pub(super) struct End {
    pub(super) connection: Connection,
    pub(super) ledger: Ledger,
    decoder: FrameDecoder,
    transmit: Transmit,
    /// Requests that nobody has answered yet.
    pub(super) requests: VecDeque<(Ticket, i32, Bytes)>,
    pub(super) hellos: Vec<Bytes>,
    pub(super) one_way: Vec<OneWayMessage>,
}

impl End {
    pub(super) fn new(connection: Connection, ledger: Ledger) -> Self {
        let bodies = BodyPool::new(BodyPoolOptions::default());
        let decoder = FrameDecoder::new(1 << 20, bodies, ledger.clone());
        Self {
            connection,
            ledger,
            decoder,
            transmit: Transmit::default(),
            requests: VecDeque::new(),
            hellos: Vec::new(),
            one_way: Vec::new(),
        }
    }

    /// All that is queued, taken by a socket that never blocks.
    pub(super) fn send(&mut self, now: Instant) -> Vec<u8> {
        let mut wire = Vec::new();
        loop {
            self.connection.transmit(&mut self.transmit);
            let bytes = self.transmit.take_bytes();
            self.connection.handle_sent(bytes.len(), 1, now);
            if bytes.is_empty() {
                return wire;
            }
            wire.extend(bytes);
        }
    }

    /// Moves what is queued towards a socket that takes none of it.
    pub(super) fn send_blocked(&mut self) {
        self.connection.transmit(&mut self.transmit);
    }

    /// A socket that was blocked takes all of it.
    pub(super) fn unblock(&mut self, now: Instant) -> Vec<u8> {
        let bytes = self.transmit.take_bytes();
        self.connection.handle_write_progress(now);
        self.connection.handle_sent(bytes.len(), 1, now);
        bytes
    }

    pub(super) fn receive(&mut self, wire: &[u8], now: Instant) {
        let mut frames = Vec::new();
        self.decoder
            .set_frame_bytes_max(self.connection.frame_bytes_max());
        let decoded = self.decoder.feed(wire, &mut frames);
        self.connection.handle_received(wire.len(), now);
        for frame in frames {
            self.connection.handle_frame(frame, now);
        }
        if let Err(error) = decoded {
            self.connection.close(error.into(), now);
        }
        self.take_events();
    }

    pub(super) fn receive_frame(&mut self, mode: RpcMode, id: i32, rpc_type: i32, now: Instant) {
        let header = Header {
            mode,
            coordination_id: CoordinationId(id),
            rpc_type,
        };
        let frame = Frame {
            header,
            pbody: Bytes::new(),
            dbody: Bytes::new(),
        };
        let mut wire = Vec::new();
        encode(&frame.header, &frame.pbody, &frame.dbody, &mut wire);
        self.receive(&wire, now);
    }

    pub(super) fn take_events(&mut self) {
        for event in self.connection.take_events() {
            match event {
                Event::Hello { pbody } => self.hellos.push(pbody),
                Event::Request {
                    rpc_type,
                    ticket,
                    pbody,
                    ..
                } => {
                    self.requests.push_back((ticket, rpc_type, pbody));
                }
                Event::OneWay(message) => self.one_way.push(message),
                other => crate::link::finish(other),
            }
        }
    }

    pub(super) fn timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
        self.take_events();
    }

    pub(super) fn close(&mut self, reason: CloseReason, now: Instant) {
        self.connection.close(reason, now);
        self.take_events();
    }

    pub(super) fn reason(&self) -> Option<&CloseReason> {
        self.connection.close_reason()
    }
}

pub(super) struct Pair {
    pub(super) client: End,
    pub(super) server: End,
    pub(super) hello: oneshot::Receiver<Outcome>,
    pub(super) now: Instant,
    /// Whether bytes are lost on the way, both ways.
    cut: bool,
}

impl Default for Pair {
    fn default() -> Self {
        let mut pair = Self::before_handshake();
        pair.drive();
        pair.server
            .connection
            .open(Bytes::from_static(b"welcome"), IdleTimeout::Keep);
        pair.drive();
        pair
    }
}

impl Pair {
    pub(super) fn before_handshake() -> Self {
        Self::with(
            ConnectionOptions::user_client(),
            ConnectionOptions::user_server(),
        )
    }

    pub(super) fn with(client: ConnectionOptions, server: ConnectionOptions) -> Self {
        let now = Instant::now();
        let ledgers = ["client", "server"].map(|name| Ledger::root(name, Limits::default()));
        let [client_ledger, server_ledger] = ledgers;
        let (completion, hello) = oneshot::channel();
        let client =
            Connection::client(Plane::User, client, HELLO, completion, &client_ledger, now);
        let server = Connection::server(Plane::User, server, &server_ledger, now);
        Self {
            client: End::new(client, client_ledger),
            server: End::new(server, server_ledger),
            hello,
            now,
            cut: false,
        }
    }

    pub(super) fn open_with(client: ConnectionOptions, server: ConnectionOptions) -> Self {
        let mut pair = Self::with(client, server);
        pair.drive();
        pair.server.connection.open(Bytes::new(), IdleTimeout::Keep);
        pair.drive();
        pair
    }

    /// From now on bytes are lost.
    pub(super) fn cut(&mut self) {
        self.cut = true;
    }

    /// Moves bytes until neither end has any left.
    pub(super) fn drive(&mut self) {
        loop {
            let to_server = self.client.send(self.now);
            let to_client = self.server.send(self.now);
            if to_server.is_empty() && to_client.is_empty() {
                return;
            }
            if self.cut {
                continue;
            }
            for (end, wire) in [(&mut self.server, to_server), (&mut self.client, to_client)] {
                if !wire.is_empty() {
                    end.receive(&wire, self.now);
                }
            }
        }
    }

    /// Lets time pass, stopping wherever an end wants to be called.
    pub(super) fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let ends = [&self.client, &self.server];
            let next = ends
                .into_iter()
                .filter_map(|end| end.connection.poll_timeout())
                .min();
            let Some(next) = next.filter(|&next| next <= until) else {
                break;
            };
            self.now = self.now.max(next);
            self.client.timeout(self.now);
            self.server.timeout(self.now);
            self.drive();
        }
        self.now = until;
    }

    pub(super) fn call(&mut self, body: &'static str) -> oneshot::Receiver<Outcome> {
        self.try_call(body, None).unwrap().1
    }

    /// The server sends a message that is never answered.
    pub(super) fn post(&mut self, body: &'static str) -> Result<(), CallError> {
        let message = self.outgoing(body);
        self.server.connection.post(message)
    }

    fn outgoing(&self, body: &'static str) -> Outgoing<'static> {
        Outgoing {
            rpc_type: REQUEST,
            pbody: Bytes::from_static(body.as_bytes()).into(),
            dbody: Vec::new(),
            stream: StreamKey::default(),
            room: Room::default(),
            began: self.now,
        }
    }

    pub(super) fn try_call(
        &mut self,
        body: &'static str,
        timeout: Option<Duration>,
    ) -> Result<(CoordinationId, oneshot::Receiver<Outcome>), CallError> {
        let (completion, outcome) = oneshot::channel();
        let request = self.outgoing(body);
        Ok((
            self.client.connection.call(request, timeout, completion)?,
            outcome,
        ))
    }

    /// Once both ends are closed, every request has one end, on both sides.
    pub(super) fn assert_all_requests_counted(&self) {
        for end in [&self.client, &self.server] {
            let rpcs = end.connection.counters().rpcs;
            assert_eq!(rpcs.unsettled(Plane::User), None);
        }
    }

    /// The server answers its oldest request with the request's own body.
    pub(super) fn echo(&mut self) {
        let (ticket, _, body) = self.server.requests.pop_front().unwrap();
        self.server
            .connection
            .respond(&ticket, RESPONSE, (body, Vec::new()), self.now);
    }
}

/// What a call that has ended brought.
pub(super) fn outcome(receiver: &mut oneshot::Receiver<Outcome>) -> Result<Bytes, CallError> {
    receiver.try_recv().unwrap().map(|response| response.pbody)
}
