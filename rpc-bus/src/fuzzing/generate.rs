//! Seeded inputs: scripts and streams, drawn anew or changed from a corpus. Same seed, same inputs.

use protos::rpc::RpcMode;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{FRAME_BYTES_MAX, Judgement, Op, Script};
use crate::frame::{CoordinationId, Header, Walk, encode};

/// Changes that one input takes at most.
const CHANGES_MAX: usize = 8;
/// Operations of a script that is drawn anew, at most.
const OPS_MAX: usize = 40;
/// Bytes that mean something somewhere: keys, limits of varints, signs.
const TELLING_BYTES: [u8; 12] = [
    0x00, 0x01, 0x08, 0x0a, 0x10, 0x12, 0x18, 0x1a, 0x7f, 0x80, 0xfe, 0xff,
];

/// A source of inputs.
#[derive(Debug)]
pub struct Generator {
    random: StdRng,
}

impl Generator {
    /// The inputs of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// What a peer might send: a stream of `corpus`, changed; mostly still with whole frames in it.
    pub fn stream(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = self.pick(corpus);
        for _ in 0..self.random.random_range(0..3) {
            stream = self.change_frames(&stream);
        }
        self.change_bytes(&mut stream);
        stream
    }

    /// What may happen to a connection: a script of `corpus`, changed, or one drawn anew.
    pub fn script(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        if self.random.random_bool(0.5) {
            return self.new_script().bytes();
        }
        let mut script = Script::parse(&self.pick(corpus));
        for _ in 0..self.random.random_range(1..=CHANGES_MAX) {
            self.change_ops(&mut script);
        }
        let mut bytes = script.bytes();
        if self.random.random_bool(0.1) {
            self.change_bytes(&mut bytes);
        }
        bytes
    }

    fn pick(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        corpus.choose(&mut self.random).cloned().unwrap_or_default()
    }

    // ---- bytes ----

    fn change_bytes(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.random.random_range(0..=CHANGES_MAX) {
            self.change_byte(bytes);
        }
    }

    fn change_byte(&mut self, bytes: &mut Vec<u8>) {
        let at = self.random.random_range(0..=bytes.len());
        let telling = TELLING_BYTES[self.random.random_range(0..TELLING_BYTES.len())];
        match (self.random.random_range(0..8), bytes.get_mut(at)) {
            (0..3, Some(byte)) => *byte ^= 1 << self.random.random_range(0..8),
            (3, Some(byte)) => *byte = telling,
            // One more or one less.
            (4, Some(byte)) => *byte = byte.wrapping_add([1, 255][at % 2]),
            (5, Some(_)) => drop(bytes.remove(at)),
            (6, _) => bytes.insert(at, telling),
            // Cut off, now and then.
            (_, Some(_)) if self.random.random_bool(0.1) => bytes.truncate(at),
            _ => {}
        }
    }

    // ---- frames ----

    fn change_frames(&mut self, stream: &[u8]) -> Vec<u8> {
        let mut frames: Vec<_> = Walk::new(stream, FRAME_BYTES_MAX)
            .map_while(Result::ok)
            .map(|frame| (frame.header, frame.pbody, frame.dbody))
            .collect();
        if frames.is_empty() {
            return stream.to_vec();
        }
        let (at, other) = (
            self.random.random_range(0..frames.len()),
            self.random.random_range(0..frames.len()),
        );
        match self.random.random_range(0..6) {
            0 => drop(frames.remove(at)),
            1 => frames.insert(other, frames[at]),
            2 => frames.swap(at, other),
            3 => frames[at].0 = self.header(),
            4 => (frames[at].1, frames[at].2) = (frames[other].1, frames[other].2),
            _ => frames[at].2 = &[],
        }
        let mut wire = Vec::new();
        for (header, pbody, dbody) in frames {
            encode(&header, pbody, dbody, &mut wire);
        }
        wire
    }

    fn header(&mut self) -> Header {
        let mode = match self.random.random_range(0..10) {
            0..5 => RpcMode::Request,
            5..7 => RpcMode::Response,
            7 => RpcMode::ResponseFailure,
            8 => RpcMode::Ping,
            _ => RpcMode::Pong,
        };
        // Mostly ids that a call may have, and types that exist.
        let near = self.random.random_range(1..12);
        let id = if self.random.random_bool(0.95) {
            near
        } else {
            self.random.random()
        };
        let rpc_type = if self.random.random_bool(0.03) {
            self.random.random_range(0..3)
        } else {
            self.random.random_range(3..30)
        };
        Header {
            mode,
            coordination_id: CoordinationId(id),
            rpc_type,
        }
    }

    // ---- scripts ----

    fn new_script(&mut self) -> Script {
        let mut script = Script::parse(&[self.random.random_range(0..64)]);
        // Handshakes of the script's own are the business of streams.
        script.mode.raw = self.random.random_bool(0.02);
        script.mode.judged_late = self.random.random_bool(0.1);
        let ops = self.random.random_range(1..=OPS_MAX);
        script.ops = (0..ops).map(|_| self.op()).collect();
        if script.mode.judged_late {
            script.ops.insert(ops.min(3), self.verdict());
        }
        script
    }

    fn change_ops(&mut self, script: &mut Script) {
        let at = self.random.random_range(0..=script.ops.len());
        match self.random.random_range(0..8) {
            0..3 => script.ops.insert(at, self.op()),
            3 if at < script.ops.len() => drop(script.ops.remove(at)),
            4 if at < script.ops.len() => script.ops.push(script.ops[at].clone()),
            5 => script.ops.truncate(at.max(script.ops.len() / 2)),
            6 => script.mode.narrow ^= true,
            _ => self.change_received(script, at),
        }
    }

    fn change_received(&mut self, script: &mut Script, at: usize) {
        let received = script.ops[at..].iter_mut().find_map(|op| match op {
            Op::Receive(bytes) => Some(bytes),
            _ => None,
        });
        if let Some(bytes) = received {
            if self.random.random_bool(0.5) {
                *bytes = self.change_frames(bytes);
            } else {
                self.change_byte(bytes);
            }
        }
    }

    fn op(&mut self) -> Op {
        let which = self.random.random();
        match self.random.random_range(0..40) {
            0..14 => self.frame(),
            14..18 => Op::Answer {
                which,
                bytes: self.length(),
            },
            18 => Op::Refuse { which },
            19..26 => Op::Call {
                stream: self.random.random_range(0..3),
                deadline: self.random.random_range(0..20),
                bytes: self.length(),
            },
            26..28 => Op::GiveUp { which },
            28..32 => Op::Wait(self.random.random_range(0..2000)),
            32 => Op::Wait(self.random.random()),
            33 => Op::Ping,
            34 => Op::Block,
            35 => Op::Unblock,
            36 => Op::Pause,
            37 => Op::Resume,
            38 => self.verdict(),
            _ => self.rare_op(),
        }
    }

    fn verdict(&mut self) -> Op {
        match self.random.random_range(0..8) {
            0..3 => Op::Judge(Judgement::Accept),
            3 => Op::Judge(Judgement::Refuse),
            4..6 => Op::Judge(Judgement::Authenticate),
            _ => Op::Admit,
        }
    }

    fn rare_op(&mut self) -> Op {
        match self.random.random_range(0..8) {
            0 => Op::Close,
            1 => Op::Eof,
            _ => {
                let bytes = (0..self.random.random_range(1..20)).map(|_| self.random.random());
                Op::Receive(bytes.collect())
            }
        }
    }

    fn frame(&mut self) -> Op {
        Op::Frame {
            header: self.header(),
            pbody: vec![8, 1],
            dbody_words: self.length(),
        }
    }

    // Mostly nothing, now and then beyond what is handled in one piece.
    fn length(&mut self) -> u16 {
        match self.random.random_range(0..50) {
            0..40 => 0,
            40..48 => self.random.random_range(0..300),
            48 => self.random.random_range(0..9000),
            _ => self.random.random(),
        }
    }
}
