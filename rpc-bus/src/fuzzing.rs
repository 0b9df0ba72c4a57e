//! Bodies of fuzz targets: any bytes in, invariants out. They panic if one does not hold.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protos::Plane;

use crate::{
    connection::{Connection, Event, IdleTimeout},
    frame::{BodyPool, BodyPoolOptions, DecodeError, Frame, FrameDecoder, Walk, encode},
    lanes::Transmit,
    ledger::{Kind, Ledger, Limits},
    link,
    options::ConnectionOptions,
};

/// Limit of the frames that are decoded, in bytes.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// How many large bodies' worth of memory a connection may hold, whatever its peer sends.
const BODY_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

/// Frames are the same however the stream is cut, whoever decodes it, and after encoding them again.
///
/// # Panics
///
/// They are not.
pub fn decode_encode_decode(bytes: &[u8]) {
    let (frames, end) = decode(&[bytes]);
    for cut in cuts(bytes) {
        let (left, right) = bytes.split_at(cut);
        assert_eq!(
            decode(&[left, right]),
            (frames.clone(), end.clone()),
            "cut at {cut}"
        );
    }
    let mut walked = 0;
    for (frame, expected) in Walk::new(bytes, FRAME_BYTES_MAX)
        .map_while(Result::ok)
        .zip(&frames)
    {
        assert_eq!(frame.header, expected.header);
        assert_eq!(
            (frame.pbody, frame.dbody),
            (&expected.pbody[..], &expected.dbody[..])
        );
        walked += 1;
    }
    assert_eq!(walked, frames.len());
    let mut again = Vec::new();
    for frame in &frames {
        encode(&frame.header, &frame.pbody, &frame.dbody, &mut again);
    }
    assert_eq!(decode(&[&again]), (frames, Ok(())));
}

/// A server's connection survives any bytes: every request is answered once, memory is bounded, nothing is left.
///
/// # Panics
///
/// An invariant does not hold.
pub fn session(bytes: &[u8]) {
    let mut session = Session::new();
    for chunk in bytes.chunks(97) {
        session.receive(chunk);
    }
    session.end();
}

fn decode(pieces: &[&[u8]]) -> (Vec<Frame>, Result<(), DecodeError>) {
    let ledger = Ledger::root("fuzzing", Limits::default());
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX, pool(), ledger.clone());
    let mut frames = Vec::new();
    let end = pieces
        .iter()
        .try_for_each(|piece| decoder.feed(piece, &mut frames));
    assert!(ledger.used(Kind::Bytes) <= BODY_BYTES_MAX + frames.len() * FRAME_BYTES_MAX);
    (frames, end)
}

fn pool() -> Arc<BodyPool> {
    BodyPool::new(BodyPoolOptions::default())
}

// Around the start, where prefix and header lie, and some further on.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let len = bytes.len();
    (0..len.min(24)).chain((24..len).step_by(1 + len / 16))
}

struct Session {
    connection: Connection,
    decoder: FrameDecoder,
    ledger: Ledger,
    now: Instant,
    requests: u64,
    answers: u64,
}

impl Session {
    fn new() -> Self {
        let now = Instant::now();
        let ledger = Ledger::root("fuzzing", Limits::default());
        let connection =
            Connection::server(Plane::User, ConnectionOptions::user_server(), &ledger, now);
        let decoder = FrameDecoder::new(FRAME_BYTES_MAX, pool(), ledger.clone());
        Self {
            connection,
            decoder,
            ledger,
            now,
            requests: 0,
            answers: 0,
        }
    }

    fn receive(&mut self, chunk: &[u8]) {
        self.now += Duration::from_millis(100);
        let mut frames = Vec::new();
        self.decoder
            .set_frame_bytes_max(self.connection.frame_bytes_max().min(FRAME_BYTES_MAX));
        let decoded = self.decoder.feed(chunk, &mut frames);
        self.connection.handle_received(chunk.len(), self.now);
        for frame in frames {
            self.connection.handle_frame(frame, self.now);
            self.handle_events();
        }
        if let Err(error) = decoded {
            self.connection.close(error.into(), self.now);
        }
        self.connection.handle_timeout(self.now);
        self.handle_events();
        self.send();
        assert!(self.ledger.used(Kind::Bytes) <= BODY_BYTES_MAX);
    }

    fn handle_events(&mut self) {
        let mut events = Vec::new();
        self.connection.take_events(&mut events);
        for event in events {
            match event {
                Event::Hello { pbody } => self.connection.open(pbody, IdleTimeout::Keep),
                Event::Request {
                    ticket,
                    rpc_type,
                    pbody,
                    dbody,
                } => {
                    self.requests += 1;
                    self.connection
                        .respond(&ticket, rpc_type, (pbody, vec![dbody]), self.now);
                }
                other => link::finish(other),
            }
        }
    }

    /// What goes out must be frames that a peer takes.
    fn send(&mut self) {
        let mut out = Transmit::default();
        self.connection.transmit(&mut out);
        let bytes = out.take_bytes();
        self.connection.handle_sent(bytes.len(), 1, self.now);
        for frame in Walk::new(&bytes, 2 * FRAME_BYTES_MAX) {
            let frame = frame.expect("invariant: what we send can be decoded");
            let is_answer = frame.header.mode == protos::rpc::RpcMode::Response;
            self.answers += u64::from(is_answer && frame.header.rpc_type != 0);
        }
    }

    fn end(mut self) {
        while self.connection.queued_frames() > 0 {
            self.send();
        }
        if !self.connection.is_closed() {
            assert_eq!(
                self.answers, self.requests,
                "every request is answered once"
            );
        }
        self.connection.close(crate::CloseReason::Aborted, self.now);
        drop((self.connection, self.decoder));
        assert!(self.ledger.is_zero(), "{:?}", self.ledger);
    }
}

/// A handshake, requests, heartbeats, a large frame: what mutations start from.
#[must_use]
pub fn valid_stream() -> Vec<u8> {
    use protos::rpc::RpcMode::{Ping, Pong, Request, Response, ResponseFailure};

    use crate::frame::{CoordinationId, Header};

    let mut wire = Vec::new();
    let modes = [
        (Request, 0),
        (Request, 3),
        (Ping, 0),
        (Request, 6),
        (ResponseFailure, 0),
    ];
    let tail = [(Pong, 0), (Request, 99), (Response, 1)];
    for (id, (mode, rpc_type)) in (1..).zip(modes.into_iter().chain(tail)) {
        let header = Header {
            mode,
            coordination_id: CoordinationId(id),
            rpc_type,
        };
        let dbody = if id == 4 {
            Bytes::from(vec![5; 70_000])
        } else {
            Bytes::new()
        };
        encode(&header, &[8, 1], &dbody, &mut wire);
    }
    wire
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    const RUNS: u64 = 300;

    fn mutated(random: &mut StdRng) -> Vec<u8> {
        let mut wire = valid_stream();
        // Most of the large body adds nothing but time.
        let keep = random.random_range(0..wire.len());
        if random.random_bool(0.8) {
            wire.truncate(keep.min(200));
        }
        for _ in 0..random.random_range(0..6) {
            let near_start = wire.len().min(120);
            let at = random.random_range(0..near_start.max(1));
            match random.random_range(0..4) {
                0 if !wire.is_empty() => wire[at] = random.random(),
                1 if !wire.is_empty() => wire[at] ^= 1 << random.random_range(0..8),
                2 => wire.insert(at.min(wire.len()), random.random()),
                _ if !wire.is_empty() => drop(wire.remove(at)),
                _ => {}
            }
        }
        wire
    }

    #[test]
    fn mutated_streams_hold_the_invariants() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..RUNS {
            let wire = mutated(&mut random);
            decode_encode_decode(&wire);
            session(&wire);
        }
    }

    #[test]
    fn the_valid_stream_is_valid() {
        let (frames, end) = decode(&[&valid_stream()]);
        assert_eq!((frames.len(), end), (8, Ok(())));
    }
}
