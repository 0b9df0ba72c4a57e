//! Frames as pure functions of bytes: types, encoding, errors.
//!
//! A frame is `varint32(N)` and N bytes: `0x0A` header, `0x12` protobuf body (always), `0x1A` raw body (only when it is
//! not empty). The order is fixed and every length must fit exactly. No socket, no clock, no task.
//!
//! - [`FrameDecoder`] takes bytes as they come from a socket,
//! - [`Walk`] goes through bytes that are all there, and says where each part lies,
//! - [`encode_head`] writes what comes before the bodies.
// wire: drill@051b164 exec/rpc/.../{RpcEncoder,RpcDecoder,ProtobufLengthDecoder}.java; golden/raw

mod body;
mod decoder;
mod head;
mod parse;
mod varint;
mod walk;

use std::fmt;

use bytes::Bytes;
use protos::rpc::RpcMode;
use thiserror::Error;

pub use body::BodyPool;
pub(crate) use body::BodyPoolOptions;
pub use decoder::{DecodeError, FrameDecoder};
pub use walk::{Walk, WalkedFrame};

pub(crate) use head::HEAD_BYTES_MAX;
use head::Head;
use varint::varint_len;

/// A frame whose body is longer than this is received piece by piece, its bodies in buffers of their own.
/// Up to here copying them out of the caller's buffer costs less than reading each on its own.
pub const STAGED_FRAME_BYTES_MAX: usize = 16 * 1024;
/// Longest header that is accepted. Three fields need at most 33 bytes; the rest is room for fields of later versions.
pub const HEADER_BYTES_MAX: usize = 1024;
/// Longest frame that Drill can take: it reads lengths as a Java `int`.
pub const FRAME_BYTES_LIMIT: usize = i32::MAX as usize;

const HEADER_KEY: u8 = 0x0A;
const PBODY_KEY: u8 = 0x12;
const DBODY_KEY: u8 = 0x1A;

const MODE_KEY: u8 = 0x08;
const COORDINATION_ID_KEY: u8 = 0x10;
const RPC_TYPE_KEY: u8 = 0x18;

/// Matches a response with its request; scope is one connection and one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoordinationId(pub i32);

impl CoordinationId {
    /// What PING, PONG and one-way messages carry; never a call.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for CoordinationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The three fields of `RpcHeader`; a field that the peer left out reads as 0, as in Drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub mode: RpcMode,
    /// Which call it belongs to.
    pub coordination_id: CoordinationId,
    /// Number from the plane's own `RpcType`.
    pub rpc_type: i32,
}

impl Header {
    /// Header of a message without a call: PING and PONG.
    #[must_use]
    pub fn bare(mode: RpcMode) -> Self {
        Self {
            mode,
            coordination_id: CoordinationId::NONE,
            rpc_type: 0,
        }
    }
}

/// One received frame. Its bodies own their memory; small ones share it, up to 4 KiB together.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Mode, id and type.
    pub header: Header,
    /// The protobuf body, possibly empty.
    pub pbody: Bytes,
    /// The raw body, possibly empty; starts at a 64-byte boundary if it is large.
    pub dbody: Bytes,
}

/// Without the bodies: that of a handshake may hold a password.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("header", &self.header)
            .field("pbody_bytes", &self.pbody.len())
            .field("dbody_bytes", &self.dbody.len())
            .finish()
    }
}

/// Which part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `RpcHeader`, key 0x0A.
    Header,
    /// Protobuf body, key 0x12.
    Pbody,
    /// Raw body, key 0x1A.
    Dbody,
}

impl Part {
    /// The byte that announces the part.
    #[must_use]
    pub fn key(self) -> u8 {
        match self {
            Self::Header => HEADER_KEY,
            Self::Pbody => PBODY_KEY,
            Self::Dbody => DBODY_KEY,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Pbody => "protobuf body",
            Self::Dbody => "raw body",
        })
    }
}

/// Bytes that are no frame, and where in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("byte {offset}: {kind}")]
pub struct FrameError {
    /// Offset in the stream of the first byte that is wrong.
    pub offset: u64,
    /// What was expected there, and what was found.
    pub kind: FrameErrorKind,
}

/// What is wrong with the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameErrorKind {
    /// A varint did not end where it must.
    #[error("expected a varint of at most {expected_max} bytes, found a longer one")]
    Varint {
        /// Most bytes that the varint may have.
        expected_max: usize,
    },
    /// The length of the frame is zero or negative.
    #[error("expected a frame length above 0, found {actual}")]
    Length {
        /// The length as Drill reads it.
        actual: i32,
    },
    /// The frame is longer than the limit.
    #[error("expected a frame of at most {expected_max} bytes, found {actual}")]
    TooLong {
        /// Announced length in bytes, prefix excluded.
        actual: usize,
        /// Limit in bytes.
        expected_max: usize,
    },
    /// Another part, or none, where one must begin.
    #[error("expected key 0x{:02x} ({expected}), found {}", .expected.key(), Found(*.actual))]
    Key {
        /// The part that must begin here.
        expected: Part,
        /// The byte found; `None` if the frame ends here.
        actual: Option<u8>,
    },
    /// The first bytes of a peer that speaks TLS, where none is expected.
    #[error("expected a frame, found a TLS record: the peer speaks TLS, and this side does not")]
    TlsRecord,
    /// A part that reaches beyond the frame.
    #[error("expected a {part} of at most {expected_max} bytes, found {actual}")]
    PartLength {
        /// The part.
        part: Part,
        /// Its announced length in bytes.
        actual: usize,
        /// Most bytes that it may have.
        expected_max: usize,
    },
    /// A raw body that does not end where the frame ends.
    #[error("expected a raw body of {expected} bytes, to the end of the frame, found {actual}")]
    DbodyLength {
        /// Bytes left in the frame.
        expected: usize,
        /// Its announced length in bytes.
        actual: usize,
    },
    /// A header that is not protobuf, or not a header.
    #[error("expected a field of RpcHeader, found the key {actual}")]
    HeaderField {
        /// Protobuf key (field number and wire type).
        actual: u64,
    },
    /// A mode that does not exist.
    #[error("expected an RpcMode from 0 to 4, found {actual}")]
    Mode {
        /// The number found.
        actual: i32,
    },
    /// The bytes end inside a frame.
    #[error("expected {expected} more bytes, found the end")]
    Truncated {
        /// How many bytes are missing, as far as is known.
        expected: usize,
    },
}

impl FrameErrorKind {
    pub(crate) fn at(self, offset: u64) -> FrameError {
        FrameError { offset, kind: self }
    }
}

struct Found(Option<u8>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(byte) => write!(f, "0x{byte:02x}"),
            None => f.write_str("the end of the frame"),
        }
    }
}

/// Writes length prefix, header, and key and length of the protobuf body, whose bytes must follow. Returns the bytes of
/// the whole frame on the wire, length prefix included.
///
/// Behind those comes [`encode_dbody_head`] and the raw body, if there is one.
pub fn encode_head(
    header: &Header,
    pbody_len: usize,
    dbody_len: usize,
    out: &mut Vec<u8>,
) -> usize {
    let header_len = header_len(header);
    let frame_len = frame_len(header_len, pbody_len, dbody_len);
    // Appended at once, and not as many small pieces.
    let mut head = Head::default();
    head.put_len(frame_len);
    head.put(HEADER_KEY);
    head.put_len(header_len);
    // All three fields, also when they are 0: Drill does the same.
    head.put_field(MODE_KEY, header.mode as i32);
    head.put_field(COORDINATION_ID_KEY, header.coordination_id.0);
    head.put_field(RPC_TYPE_KEY, header.rpc_type);
    head.put(PBODY_KEY);
    head.put_len(pbody_len);
    out.extend_from_slice(head.as_slice());
    varint_len(frame_len as u64) + frame_len
}

/// Writes key and length of the raw body, whose bytes must follow; nothing if it is empty.
pub fn encode_dbody_head(dbody_len: usize, out: &mut Vec<u8>) {
    if dbody_len > 0 {
        let mut head = Head::default();
        head.put(DBODY_KEY);
        head.put_len(dbody_len);
        out.extend_from_slice(head.as_slice());
    }
}

/// Bytes of the whole frame, length prefix excluded; what limits are compared with.
#[must_use]
pub fn encoded_len(header: &Header, pbody_len: usize, dbody_len: usize) -> usize {
    frame_len(header_len(header), pbody_len, dbody_len)
}

/// Writes a whole frame. For tests and tools: the driver chains large bodies instead of copying them.
pub fn encode(header: &Header, pbody: &[u8], dbody: &[u8], out: &mut Vec<u8>) {
    encode_head(header, pbody.len(), dbody.len(), out);
    out.extend_from_slice(pbody);
    encode_dbody_head(dbody.len(), out);
    out.extend_from_slice(dbody);
}

fn frame_len(header_len: usize, pbody_len: usize, dbody_len: usize) -> usize {
    let dbody_part = if dbody_len == 0 {
        0
    } else {
        part_len(dbody_len)
    };
    part_len(header_len) + part_len(pbody_len) + dbody_part
}

fn part_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

// Negative numbers are sign-extended to 64 bits, hence ten bytes long.
fn wire_i32(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
}

fn header_len(header: &Header) -> usize {
    let fields = [
        header.mode as i32,
        header.coordination_id.0,
        header.rpc_type,
    ];
    fields
        .into_iter()
        .map(|field| 1 + varint_len(wire_i32(field)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(mode: RpcMode, id: i32, rpc_type: i32, pbody: &[u8], dbody: &[u8]) -> Vec<u8> {
        let header = Header {
            mode,
            coordination_id: CoordinationId(id),
            rpc_type,
        };
        let mut out = Vec::new();
        encode(&header, pbody, dbody, &mut out);
        assert_eq!(
            encoded_len(&header, pbody.len(), dbody.len()) + 1,
            out.len()
        );
        out
    }

    #[test]
    fn frames_encode_as_drill_encodes_them() {
        // golden/user/idle: PING and PONG
        let ping = [0x0c, 0x0a, 6, 8, 3, 0x10, 0, 0x18, 0, 0x12, 2, 8, 1];
        assert_eq!(encoded(RpcMode::Ping, 0, 0, &[8, 1], &[]), ping);
        let ack = [0x0c, 0x0a, 6, 8, 1, 0x10, 5, 0x18, 1, 0x12, 2, 8, 1];
        assert_eq!(encoded(RpcMode::Response, 5, 1, &[8, 1], &[]), ack);
    }

    #[test]
    fn negative_ids_take_ten_bytes() {
        let wire = [
            0x15, 0x0a, 0x0f, 8, 1, 0x10, 0x80, 0x80, 0x80, 0x80, 0xf8, 0xff, 0xff, 0xff, 0xff, 1,
            0x18, 1, 0x12, 2, 8, 1,
        ];
        assert_eq!(encoded(RpcMode::Response, i32::MIN, 1, &[8, 1], &[]), wire);
    }

    #[test]
    fn the_key_of_the_raw_body_is_written_only_with_a_raw_body() {
        let wire = encoded(RpcMode::Request, 1, 6, &[], &[7, 7]);
        assert_eq!(wire[9..], [0x12, 0, 0x1a, 2, 7, 7]);
        assert_eq!(encoded(RpcMode::Request, 1, 6, &[], &[]).last(), Some(&0));
    }

    #[test]
    fn errors_name_what_was_expected_and_found() {
        let error = FrameErrorKind::Key {
            expected: Part::Pbody,
            actual: Some(0x1a),
        }
        .at(9);
        assert_eq!(
            error.to_string(),
            "byte 9: expected key 0x12 (protobuf body), found 0x1a"
        );
    }
}
