//! The other side of a connection, by hand: frames are put together here, so that a test needs
//! nothing of the product to say what is on the wire.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use protos::{
    Call,
    rpc::{Ack, RpcHeader, RpcMode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One end of a connection.
pub struct Peer {
    socket: TcpStream,
    input: BytesMut,
}

/// A frame as it came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub mode: RpcMode,
    pub id: i32,
    pub rpc_type: i32,
    pub pbody: Bytes,
    pub raw: Bytes,
}

impl Frame {
    /// The body as a message.
    pub fn message<M: Message + Default>(&self) -> M {
        M::decode(self.pbody.clone()).expect("a body of the expected message")
    }

    /// Whether it is a request of this kind.
    pub fn is_request<C: Call>(&self) -> bool {
        (self.mode, self.rpc_type) == (RpcMode::Request, C::REQUEST)
    }

    /// The reply of a call.
    pub fn reply<C: Call>(&self) -> C::Reply {
        assert_eq!(
            (self.mode, self.rpc_type),
            (RpcMode::Response, C::RESPONSE),
            "{self:?}"
        );
        self.message()
    }
}

impl Peer {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("somebody listens"))
    }

    pub fn over(socket: TcpStream) -> Self {
        Self {
            socket,
            input: BytesMut::new(),
        }
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket
            .write_all(bytes)
            .await
            .expect("the connection is open");
    }

    pub async fn send(&mut self, mode: RpcMode, id: i32, rpc_type: i32, pbody: &[u8], raw: &[u8]) {
        self.send_bytes(&encode(mode, id, rpc_type, pbody, raw))
            .await;
    }

    pub async fn request<C: Call>(&mut self, id: i32, request: &C::Request) {
        self.send(
            RpcMode::Request,
            id,
            C::REQUEST,
            &request.encode_to_vec(),
            &[],
        )
        .await;
    }

    pub async fn respond<C: Call>(&mut self, id: i32, reply: &C::Reply) {
        self.send(
            RpcMode::Response,
            id,
            C::RESPONSE,
            &reply.encode_to_vec(),
            &[],
        )
        .await;
    }

    pub async fn acknowledge(&mut self, id: i32, ok: bool) {
        let ack = Ack { ok: Some(ok) }.encode_to_vec();
        self.send(RpcMode::Response, id, 1, &ack, &[]).await;
    }

    /// The next frame; `None` once the other side has closed.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = split(&mut self.input) {
                return Some(frame);
            }
            match self.socket.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub async fn frame(&mut self) -> Frame {
        self.next()
            .await
            .expect("a frame, not the end of the connection")
    }
}

/// Header with all three fields, body always, raw body only if there is one.
// wire: golden/README.md
pub fn encode(mode: RpcMode, id: i32, rpc_type: i32, pbody: &[u8], raw: &[u8]) -> Vec<u8> {
    let mut header = vec![0x08, u8::try_from(mode as i32).expect("small"), 0x10];
    put_varint(&mut header, i64::from(id).cast_unsigned());
    header.push(0x18);
    put_varint(&mut header, i64::from(rpc_type).cast_unsigned());
    let mut body = Vec::new();
    for (key, part) in [(0x0a, &header[..]), (0x12, pbody), (0x1a, raw)] {
        if key != 0x1a || !part.is_empty() {
            body.push(key);
            put_varint(&mut body, part.len() as u64);
            body.extend_from_slice(part);
        }
    }
    let mut frame = Vec::new();
    put_varint(&mut frame, body.len() as u64);
    frame.extend_from_slice(&body);
    frame
}

fn put_varint(out: &mut Vec<u8>, value: u64) {
    prost::encoding::encode_varint(value, out);
}

fn split(input: &mut BytesMut) -> Option<Frame> {
    let mut peek = &input[..];
    let length = usize::try_from(prost::encoding::decode_varint(&mut peek).ok()?).expect("small");
    if peek.len() < length {
        return None;
    }
    let prefix = input.len() - peek.len();
    input.advance(prefix);
    let mut body = input.split_to(length).freeze();
    let header = RpcHeader::decode(part(&mut body, 0x0a)).expect("a header");
    let pbody = part(&mut body, 0x12);
    let raw = if body.is_empty() {
        Bytes::new()
    } else {
        part(&mut body, 0x1a)
    };
    Some(Frame {
        mode: header.mode(),
        id: header.coordination_id(),
        rpc_type: header.rpc_type(),
        pbody,
        raw,
    })
}

fn part(body: &mut Bytes, key: u8) -> Bytes {
    assert_eq!(body.get_u8(), key, "order of the parts");
    let length = prost::encoding::decode_varint(body).expect("a length");
    body.split_to(usize::try_from(length).expect("small"))
}
