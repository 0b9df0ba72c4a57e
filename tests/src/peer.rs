//! The other side of a connection, by hand: frames put together here, byte by byte, so that they
//! can be as wrong as a test wants, and so that no product codec is needed to test it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use prost::Message;
use protos::rpc::RpcMode;

/// No answer of a test takes longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A raw connection to a server, or one accepted from a client.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// `RpcMode` by number.
    pub mode: i32,
    /// Coordination id.
    pub coordination_id: i32,
    /// Number in the plane's own `RpcType`.
    pub rpc_type: i32,
    /// Protobuf body.
    pub pbody: Bytes,
    /// Raw body.
    pub raw: Bytes,
}

impl Peer {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    /// Speaks over an accepted connection.
    ///
    /// # Errors
    /// The socket refuses its options.
    pub fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            input: Vec::new(),
        })
    }

    /// Connects to a user server and shakes hands as Drill's own client does.
    ///
    /// # Errors
    /// The server refuses.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let mut peer = Self::connect(address)?;
        peer.send(&request(
            1,
            0,
            &hello(protos::USER_RPC_VERSION).encode_to_vec(),
        ))?;
        let reply = peer.frame()?.context("closed instead of a handshake")?;
        let reply = protos::user::BitToUserHandshake::decode(reply.pbody)?;
        let status = reply.status();
        ensure!(
            status == protos::user::HandshakeStatus::Success,
            "handshake answered with {status:?}"
        );
        Ok(peer)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends this direction; the other one stays open.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    /// The next frame; `None` when the connection has ended.
    ///
    /// # Errors
    /// Nothing came for a long time, or what came is no frame.
    pub fn frame(&mut self) -> Result<Option<RawFrame>> {
        self.frame_within(ANSWER_WITHIN)
    }

    /// As [`Peer::frame`], with a limit of time.
    ///
    /// # Errors
    /// As [`Peer::frame`].
    pub fn frame_within(&mut self, within: Duration) -> Result<Option<RawFrame>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(frame) = self.split()? {
                return Ok(Some(frame));
            }
            if !self.read_some(deadline)? {
                return Ok(None);
            }
        }
    }

    /// The next request or response that is neither PING nor PONG.
    ///
    /// # Errors
    /// As [`Peer::frame`]; also when the connection has ended.
    pub fn message(&mut self) -> Result<RawFrame> {
        loop {
            let frame = self.frame()?.context("the connection has ended")?;
            if frame.mode != RpcMode::Ping as i32 && frame.mode != RpcMode::Pong as i32 {
                return Ok(frame);
            }
        }
    }

    /// Waits for the other side to close; frames that come before are dropped.
    ///
    /// # Errors
    /// It did not close in time.
    pub fn closed_within(&mut self, within: Duration) -> Result<Duration> {
        let started = Instant::now();
        self.input.clear();
        while self.read_some(started + within)? {
            self.input.clear();
        }
        Ok(started.elapsed())
    }

    fn split(&mut self) -> Result<Option<RawFrame>> {
        let Some((length, prefix)) = varint(&self.input)? else {
            return Ok(None);
        };
        let end = prefix + usize::try_from(length)?;
        if self.input.len() < end {
            return Ok(None);
        }
        let frame = parse(&Bytes::copy_from_slice(&self.input[prefix..end]))?;
        self.input.drain(..end);
        Ok(Some(frame))
    }

    /// Whether bytes came; a reset counts as an end.
    fn read_some(&mut self, deadline: Instant) -> Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "no answer in time");
        self.stream.set_read_timeout(Some(left))?;
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(length) => {
                self.input.extend_from_slice(&buffer[..length]);
                Ok(length > 0)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("no answer in time")
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The handshake of Drill's own client.
#[must_use]
pub fn hello(rpc_version: i32) -> protos::user::UserToBitHandshake {
    protos::user::UserToBitHandshake {
        support_listening: Some(true),
        rpc_version: Some(rpc_version),
        credentials: Some(protos::shared::UserCredentials {
            user_name: Some("anonymous".to_owned()),
        }),
        support_complex_types: Some(true),
        support_timeout: Some(true),
        ..Default::default()
    }
}

/// `RUN_QUERY` for SQL.
#[must_use]
pub fn run_query(coordination_id: i32, sql: &str) -> Vec<u8> {
    let query = protos::user::RunQuery {
        results_mode: Some(protos::user::QueryResultsMode::StreamFull as i32),
        r#type: Some(protos::shared::QueryType::Sql as i32),
        plan: Some(sql.to_owned()),
        ..Default::default()
    };
    request(
        coordination_id,
        protos::user::RpcType::RunQuery as i32,
        &query.encode_to_vec(),
    )
}

/// The frame of a REQUEST without a raw body.
#[must_use]
pub fn request(coordination_id: i32, rpc_type: i32, pbody: &[u8]) -> Vec<u8> {
    frame(RpcMode::Request, coordination_id, rpc_type, pbody, &[])
}

/// The frame of an ACK.
#[must_use]
pub fn ack(coordination_id: i32) -> Vec<u8> {
    frame(
        RpcMode::Response,
        coordination_id,
        protos::user::RpcType::Ack as i32,
        &[0x08, 0x01],
        &[],
    )
}

/// A well-formed frame.
// wire: golden/user/handshake: all three header fields, always a body, a raw body if not empty.
#[must_use]
pub fn frame(
    mode: RpcMode,
    coordination_id: i32,
    rpc_type: i32,
    pbody: &[u8],
    raw: &[u8],
) -> Vec<u8> {
    let mut header = vec![0x08];
    put_signed(&mut header, mode as i32);
    header.push(0x10);
    put_signed(&mut header, coordination_id);
    header.push(0x18);
    put_signed(&mut header, rpc_type);
    let mut body = Vec::new();
    put_part(&mut body, 0x0a, &header);
    put_part(&mut body, 0x12, pbody);
    if !raw.is_empty() {
        put_part(&mut body, 0x1a, raw);
    }
    prefixed(&body)
}

/// `body` behind its length.
#[must_use]
pub fn prefixed(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_varint(&mut frame, body.len() as u64);
    frame.extend_from_slice(body);
    frame
}

/// A key byte, a length, and the bytes.
pub fn put_part(out: &mut Vec<u8>, key: u8, part: &[u8]) {
    out.push(key);
    put_varint(out, part.len() as u64);
    out.extend_from_slice(part);
}

/// Protobuf's variable-length integer.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

/// As protobuf does it for int32: negative numbers take ten bytes.
fn put_signed(out: &mut Vec<u8>, value: i32) {
    put_varint(out, i64::from(value).cast_unsigned());
}

fn parse(body: &Bytes) -> Result<RawFrame> {
    let mut rest = body.clone();
    let header = take_part(&mut rest, 0x0a)?;
    let pbody = take_part(&mut rest, 0x12)?;
    let raw = if rest.is_empty() {
        Bytes::new()
    } else {
        take_part(&mut rest, 0x1a)?
    };
    ensure!(rest.is_empty(), "{} bytes behind the raw body", rest.len());
    let header = protos::rpc::RpcHeader::decode(header)?;
    Ok(RawFrame {
        mode: header.mode.context("no mode")?,
        coordination_id: header.coordination_id.context("no coordination id")?,
        rpc_type: header.rpc_type.context("no rpc type")?,
        pbody,
        raw,
    })
}

fn take_part(rest: &mut Bytes, key: u8) -> Result<Bytes> {
    ensure!(
        rest.first() == Some(&key),
        "expected key {key:#x}, found {:?}",
        rest.first()
    );
    let (length, prefix) = varint(&rest[1..])?.context("a length cut off")?;
    let start = 1 + prefix;
    let end = start + usize::try_from(length)?;
    ensure!(end <= rest.len(), "a part that is longer than its frame");
    let part = rest.slice(start..end);
    *rest = rest.slice(end..);
    Ok(part)
}

/// The integer and how many bytes it took; `None` where it is cut off.
fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>> {
    let mut value = 0;
    for (i, byte) in bytes.iter().enumerate().take(5) {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    ensure!(bytes.len() < 5, "a length of more than five bytes");
    Ok(None)
}
