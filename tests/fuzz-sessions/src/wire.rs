//! Frames as the scripted side needs them.

use prost::Message;
use protos::rpc::RpcMode;
use rpc_bus::{
    CoordinationId,
    frame::{Header, Walk, encode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::QUIET;

/// Longest frame that either side may send here.
const FRAME_BYTES_MAX: usize = 16 << 20;
/// Pieces in which input is written: a prime, so that they never fall in step with frames.
const PIECE_BYTES: usize = 997;

/// A frame that came.
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) pbody: Vec<u8>,
}

impl Frame {
    pub(crate) fn id(&self) -> i32 {
        self.header.coordination_id.0
    }

    pub(crate) fn message<M: Message + Default>(&self) -> M {
        M::decode(&self.pbody[..]).expect("invariant: the product sends messages that can be read")
    }
}

pub(crate) fn frame(mode: RpcMode, id: i32, rpc_type: i32, message: &impl Message) -> Vec<u8> {
    frame_with(mode, id, rpc_type, (&message.encode_to_vec(), &[]))
}

pub(crate) fn frame_with(
    mode: RpcMode,
    id: i32,
    rpc_type: i32,
    (pbody, dbody): (&[u8], &[u8]),
) -> Vec<u8> {
    let header = Header {
        mode,
        coordination_id: CoordinationId(id),
        rpc_type,
    };
    let mut wire = Vec::new();
    encode(&header, pbody, dbody, &mut wire);
    wire
}

/// The whole frames of `bytes` with the bytes of each, and what is behind the last of them.
pub(crate) fn frames(bytes: &[u8]) -> (Vec<(Header, &[u8])>, &[u8]) {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    let walk = Walk::new(bytes, FRAME_BYTES_MAX).map_while(Result::ok);
    for walked in walk {
        let (frame, behind) = rest.split_at(prefix_bytes(rest) + walked.length);
        frames.push((walked.header, frame));
        rest = behind;
    }
    (frames, rest)
}

/// Length of the varint that `bytes` begin with.
fn prefix_bytes(bytes: &[u8]) -> usize {
    1 + bytes.iter().take_while(|&&byte| byte >= 0x80).count()
}

/// A socket whose other side is the product.
pub(crate) struct Peer {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            unread: Vec::new(),
        }
    }

    /// Sends as much as the other side takes before it closes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE_BYTES) {
            if self.socket.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The next frame; `None` at the end, or when nothing comes for a while.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        tokio::time::timeout(QUIET, self.read()).await.ok()?
    }

    /// The next frame; `None` at the end. What the product sends is whole frames, unless the connection breaks.
    async fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.split() {
                return Some(frame);
            }
            match self.socket.read_buf(&mut self.unread).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn split(&mut self) -> Option<Frame> {
        let walked = match Walk::new(&self.unread, FRAME_BYTES_MAX).next()? {
            Ok(walked) => walked,
            Err(error) => {
                let cut = matches!(error.kind, rpc_bus::frame::FrameErrorKind::Truncated { .. });
                assert!(cut, "the product sent {error}");
                return None;
            }
        };
        let frame = Frame {
            header: walked.header,
            pbody: walked.pbody.to_vec(),
        };
        let whole = prefix_bytes(&self.unread) + walked.length;
        self.unread.drain(..whole);
        Some(frame)
    }

    /// Sends nothing more.
    pub(crate) async fn shutdown(&mut self) {
        // Fails where the other side has closed already.
        let _ = self.socket.shutdown().await;
    }

    /// What still comes, until the other side has closed as well.
    pub(crate) async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.read().await {
            frames.push(frame);
        }
        frames
    }
}
