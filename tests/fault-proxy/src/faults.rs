//! What can happen to one way of a connection.

use std::time::Duration;

/// From whom to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the client sends.
    ToServer,
    /// What the server sends.
    ToClient,
}

impl Way {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::ToServer, Self::ToClient];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::ToServer => 0,
            Self::ToClient => 1,
        }
    }
}

/// What happens to the bytes of one way. The default is nothing. Offsets count from the start of each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// How long each byte is on its way. At most 256 KiB are, so this bounds the rate too.
    pub latency: Duration,
    /// How much longer it may be, by chance; bytes stay in order. Drawn once for every KiB.
    pub jitter: Duration,
    /// Most bytes a second; `None`: as fast as they come.
    pub bytes_per_s: Option<u32>,
    /// Most bytes that are delivered at once. Default 16 KiB, at most 256 KiB; 1 is a peer that gets every byte on its own.
    pub piece_bytes_max: usize,
    /// Whether bytes move at all.
    pub flow: Flow,
    /// Offset of the one bit that arrives as its opposite; bit 0 is the lowest of the first byte.
    pub flip_bit: Option<u64>,
    /// Where the connection ends, both ways.
    pub cut: Option<Cut>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            bytes_per_s: None,
            piece_bytes_max: 16 * 1024,
            flow: Flow::Passing,
            flip_bit: None,
            cut: None,
        }
    }
}

/// Whether bytes move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They do.
    Passing,
    /// They wait, and with them the sender once its buffers are full. Nothing is lost.
    Stalled,
    /// They are taken and forgotten, and so are ends of connections: to the other side nothing has happened. Lost both
    /// ways, a connection is half open for both.
    Lost,
}

/// An end at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes that still arrive.
    pub after_bytes: u64,
    /// How the connection ends then.
    pub end: End,
}

/// How a connection ends, for both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As if the other side had closed.
    Fin,
    /// As if the other side had crashed.
    Reset,
}
