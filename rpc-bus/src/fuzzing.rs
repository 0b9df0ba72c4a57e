//! Bodies of fuzz targets: any bytes in, invariants out. They panic if one does not hold.
//!
//! The same functions run as cargo-fuzz targets (`fuzz/`), over the corpus and over seeded mutations of it in the test
//! suite, and for as long as one likes by `cargo run --release -p rpc-bus --example mutate`.

mod batch;
mod codec;
mod generate;
mod host;
mod oracle;
mod script;

pub use batch::{Corpus, batch};
pub use codec::codec;
pub use generate::Generator;
pub use script::{Judgement, Mode, Op, Script, Side};

use host::Host;

/// Limit of the frames that are decoded, in bytes.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Pieces in which [`stream`] hands over its bytes: a prime, so that they never fall in step with frames.
const PIECE_BYTES: usize = 97;

/// What a run has seen, to be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames that were taken out of the bytes, each counted once however often it was decoded.
    pub frames: u64,
    /// Sessions that got beyond their handshake.
    pub sessions: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.sessions += other.sessions;
    }
}

/// A connection survives whatever its peer, its callers and its handler do: `bytes` are a [`Script`].
///
/// Every request is answered once, every call ends once, requests start in their order, nothing is said before the
/// handshake, limits hold, time always moves on, and nothing is left in the ledger at the end.
///
/// # Panics
///
/// One of these does not hold.
#[allow(
    clippy::must_use_candidate,
    reason = "fuzz targets have no use for the tally"
)]
pub fn session(bytes: &[u8]) -> Tally {
    Host::run(&Script::parse(bytes))
}

/// A connection survives `bytes` as all that its peer sends, the handshake included: as server and as client.
///
/// # Panics
///
/// As [`session`].
#[allow(
    clippy::must_use_candidate,
    reason = "fuzz targets have no use for the tally"
)]
pub fn stream(bytes: &[u8]) -> Tally {
    let mut tally = Tally::default();
    for side in [Side::Server, Side::Client] {
        tally += Host::run(&Script::of_stream(side, bytes));
    }
    tally
}

/// A handshake, requests, heartbeats, a large frame: what mutations start from when there is no corpus.
#[must_use]
pub fn valid_stream() -> Vec<u8> {
    use protos::rpc::RpcMode::{Ping, Pong, Request, Response, ResponseFailure};

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
        let header = crate::frame::Header {
            mode,
            coordination_id: crate::frame::CoordinationId(id),
            rpc_type,
        };
        let dbody = vec![5; if id == 4 { 70_000 } else { 0 }];
        crate::frame::encode(&header, &[8, 1], &dbody, &mut wire);
    }
    wire
}
