//! What happens to one connection, as bytes: any bytes are a script.

use protos::rpc::RpcMode;

use super::PIECE_BYTES;
use crate::frame::{CoordinationId, Header, encode};

/// Which end the connection under test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It accepts.
    Server,
    /// It connects.
    Client,
}

/// How the connection under test is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent switches, one bit each"
)]
pub struct Mode {
    /// Which end it is.
    pub side: Side,
    /// Few requests, few calls, few bytes of replies.
    pub narrow: bool,
    /// Regular beats in place of Drill's heartbeat.
    pub beats: bool,
    /// It offers capabilities.
    pub capabilities: bool,
    /// Handshakes wait for [`Op::Judge`]; otherwise they are accepted at once.
    pub judged_late: bool,
    /// The peer's part of the handshake is left to the script; otherwise it is there.
    pub raw: bool,
}

impl Mode {
    fn of_bits(bits: u8) -> Self {
        let bit = |at: u8| bits & 1 << at != 0;
        let side = if bit(0) { Side::Client } else { Side::Server };
        Self {
            side,
            narrow: bit(1),
            beats: bit(2),
            capabilities: bit(3),
            judged_late: bit(4),
            raw: bit(5),
        }
    }

    fn bits(self) -> u8 {
        let bits = [
            self.side == Side::Client,
            self.narrow,
            self.beats,
            self.capabilities,
            self.judged_late,
            self.raw,
        ];
        bits.into_iter()
            .rev()
            .fold(0, |all, bit| all << 1 | u8::from(bit))
    }
}

/// What an acceptor says of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The connection is open.
    Accept,
    /// The connection is closed.
    Refuse,
    /// The connection is open after [`Op::Admit`].
    Authenticate,
}

impl Judgement {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Accept, Self::Refuse, Self::Authenticate];
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bytes come from the peer.
    Receive(Vec<u8>),
    /// A frame comes from the peer, with a raw body of so many bytes.
    Frame {
        /// Its header.
        header: Header,
        /// Its protobuf body.
        pbody: Vec<u8>,
        /// Length of its raw body in units of 4 bytes.
        dbody_words: u16,
    },
    /// The handler answers one of the requests that wait, with a raw body of so many bytes.
    Answer {
        /// Which one, in the order in which they came, modulo their number.
        which: u8,
        /// Length of the raw body.
        bytes: u16,
    },
    /// The handler refuses one of the requests that wait.
    Refuse {
        /// Which one.
        which: u8,
    },
    /// Somebody calls the peer.
    Call {
        /// Stream that the request leaves in.
        stream: u8,
        /// Its deadline in units of 100 ms; 0 is none.
        deadline: u8,
        /// Length of the raw body.
        bytes: u16,
    },
    /// Whoever waits for a call goes away.
    GiveUp {
        /// Which one, in the order in which they were made, modulo their number.
        which: u8,
    },
    /// Time passes, in milliseconds.
    Wait(u16),
    /// Somebody wants to know the round-trip time.
    Ping,
    /// The socket takes nothing until [`Op::Unblock`].
    Block,
    /// The socket takes everything again.
    Unblock,
    /// Reading stops until [`Op::Resume`].
    Pause,
    /// Reading goes on.
    Resume,
    /// There is a verdict on the handshake that waits.
    Judge(Judgement),
    /// The peer has proved who it is.
    Admit,
    /// This side closes.
    Close,
    /// The peer closes.
    Eof,
}

/// What happens to one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// How it is set up.
    pub mode: Mode,
    /// What happens, in order.
    pub ops: Vec<Op>,
}

impl Script {
    /// Reads a script; there are no bytes that are none. What the last operation lacks reads as 0.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut input = Input(bytes);
        let mode = Mode::of_bits(input.byte());
        let mut ops = Vec::new();
        while !input.0.is_empty() {
            ops.push(input.op());
        }
        Self { mode, ops }
    }

    /// The bytes that [`Self::parse`] reads this from.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![self.mode.bits()];
        self.ops.iter().for_each(|op| op.put(&mut out));
        out
    }

    /// A peer that sends `bytes`, its handshake included, to an end that answers everything at once.
    pub(super) fn of_stream(side: Side, bytes: &[u8]) -> Self {
        let mode = Mode {
            raw: true,
            ..Mode::of_bits(u8::from(side == Side::Client))
        };
        let piece = |piece: &[u8]| {
            let answer = Op::Answer { which: 0, bytes: 9 };
            [Op::Receive(piece.to_vec()), answer, Op::Wait(100)]
        };
        let ops = bytes.chunks(PIECE_BYTES).flat_map(piece).collect();
        Self { mode, ops }
    }
}

const MODES: [RpcMode; 5] = [
    RpcMode::Request,
    RpcMode::Response,
    RpcMode::ResponseFailure,
    RpcMode::Ping,
    RpcMode::Pong,
];

impl Op {
    /// How many kinds there are.
    pub(super) const KINDS: u8 = 16;

    /// The bytes that a frame of the peer has on the wire.
    pub(super) fn wire(header: &Header, pbody: &[u8], dbody_words: u16) -> Vec<u8> {
        let mut wire = Vec::new();
        encode(
            header,
            pbody,
            &vec![7; 4 * usize::from(dbody_words)],
            &mut wire,
        );
        wire
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Receive(bytes) => {
                // What does not fit one operation goes into the next.
                for piece in bytes.chunks(usize::from(u16::MAX)) {
                    out.push(0);
                    put_bytes(piece, out);
                }
            }
            Self::Frame {
                header,
                pbody,
                dbody_words,
            } => {
                out.extend([1, header.mode as u8]);
                out.extend(header.coordination_id.0.to_le_bytes());
                out.push(u8::try_from(header.rpc_type).unwrap_or(u8::MAX));
                put_bytes(pbody, out);
                out.extend(dbody_words.to_le_bytes());
            }
            Self::Answer { which, bytes } => put_short(&[2, *which], *bytes, out),
            Self::Refuse { which } => out.extend([3, *which]),
            Self::Call {
                stream,
                deadline,
                bytes,
            } => put_short(&[4, *stream, *deadline], *bytes, out),
            Self::GiveUp { which } => out.extend([5, *which]),
            Self::Wait(millis) => put_short(&[6], *millis, out),
            Self::Ping => out.push(7),
            Self::Block => out.push(8),
            Self::Unblock => out.push(9),
            Self::Pause => out.push(10),
            Self::Resume => out.push(11),
            Self::Judge(verdict) => out.extend([12, *verdict as u8]),
            Self::Close => out.push(13),
            Self::Eof => out.push(14),
            Self::Admit => out.push(15),
        }
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend(len.to_le_bytes());
    out.extend(&bytes[..usize::from(len)]);
}

fn put_short(first: &[u8], short: u16, out: &mut Vec<u8>) {
    out.extend(first);
    out.extend(short.to_le_bytes());
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = usize::from(self.short()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes.to_vec()
    }

    fn op(&mut self) -> Op {
        match self.byte() % Op::KINDS {
            0 => Op::Receive(self.bytes()),
            1 => self.frame(),
            2 => Op::Answer {
                which: self.byte(),
                bytes: self.short(),
            },
            3 => Op::Refuse { which: self.byte() },
            4 => Op::Call {
                stream: self.byte(),
                deadline: self.byte(),
                bytes: self.short(),
            },
            5 => Op::GiveUp { which: self.byte() },
            6 => Op::Wait(self.short()),
            7 => Op::Ping,
            8 => Op::Block,
            9 => Op::Unblock,
            10 => Op::Pause,
            11 => Op::Resume,
            12 => Op::Judge(Judgement::ALL[usize::from(self.byte()) % Judgement::ALL.len()]),
            13 => Op::Close,
            14 => Op::Eof,
            _ => Op::Admit,
        }
    }

    fn frame(&mut self) -> Op {
        let mode = MODES[usize::from(self.byte()) % MODES.len()];
        let id = i32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()]);
        let header = Header {
            mode,
            coordination_id: CoordinationId(id),
            rpc_type: i32::from(self.byte()),
        };
        Op::Frame {
            header,
            pbody: self.bytes(),
            dbody_words: self.short(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_reads_back_as_it_was_written() {
        for kind in 0..Op::KINDS {
            for bits in 0..64 {
                let bytes = [bits, kind, 3, 1, 0, 9, 0, 7, 2, 0, 5, 6, 1, 0];
                let script = Script::parse(&bytes);
                assert_eq!(script.mode.bits(), bits);
                assert_eq!(Script::parse(&script.bytes()), script);
            }
        }
    }
}
