//! What one would write in an afternoon: tokio-util's frames with a length, Arrow's IPC stream in them.

use anyhow::{Context, Result};
use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt, TryStreamExt};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::{Load, Pair};
use crate::rpc::threads::runtime;
use crate::transfer::bus::SEND_BUFFER_BYTES;
use crate::transfer::{Consumer, Seen};

type Connection = Framed<TcpStream, LengthDelimitedCodec>;

/// Both ends, connected.
pub(super) struct FramedIpc {
    sender: Runtime,
    receiver: Runtime,
    sending: Option<Connection>,
    receiving: Option<Connection>,
}

impl FramedIpc {
    pub(super) fn start(threads: usize) -> Result<Self> {
        let (sender, receiver) = (runtime("sender", threads)?, runtime("receiver", threads)?);
        let listener = receiver.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let sending = sender.block_on(TcpStream::connect(listener.local_addr()?))?;
        let (receiving, _) = receiver.block_on(listener.accept())?;
        sending.set_nodelay(true)?;
        SockRef::from(&sending).set_send_buffer_size(SEND_BUFFER_BYTES)?;
        Ok(Self {
            sender,
            receiver,
            sending: Some(framed(sending)),
            receiving: Some(framed(receiving)),
        })
    }
}

fn framed(stream: TcpStream) -> Connection {
    let mut codec = LengthDelimitedCodec::builder();
    codec.max_frame_length(64 << 20).new_framed(stream)
}

impl Pair for FramedIpc {
    fn run(&mut self, load: &Load) -> Result<Seen> {
        let lost = "the connection was lost in an earlier round";
        let sending = self.sending.take().context(lost)?;
        let receiving = self.receiving.take().context(lost)?;
        let sent = self.sender.spawn(send(sending, load.clone()));
        let seen = self.receiver.spawn(receive(receiving, load.count));
        let (sending, received) = self.sender.block_on(async { (sent.await, seen.await) });
        let (receiving, seen) = received??;
        self.sending = Some(sending??);
        self.receiving = Some(receiving);
        Ok(seen)
    }
}

async fn send(mut connection: Connection, load: Load) -> Result<Connection> {
    let mut writer =
        StreamWriter::try_new(BytesMut::new().writer(), &load.batches.get(0).schema())?;
    for batch in load.batches.first(load.count) {
        writer.write(&batch)?;
        connection
            .send(writer.get_mut().get_mut().split().freeze())
            .await?;
    }
    Ok(connection)
}

async fn receive(connection: Connection, count: usize) -> Result<(Connection, Seen)> {
    let (mut connection, mut decoder) = (connection, StreamDecoder::new());
    let frames = (&mut connection).take(count).map_err(anyhow::Error::from);
    let batches = frames.and_then(|frame| {
        let batch = decode(&mut decoder, frame.freeze());
        std::future::ready(batch.map_err(anyhow::Error::from))
    });
    let seen = Consumer::default()
        .take(batches.try_filter_map(|batch| async { Ok(batch) }))
        .await?;
    Ok((connection, seen))
}

fn decode(
    decoder: &mut StreamDecoder,
    frame: Bytes,
) -> Result<Option<arrow::array::RecordBatch>, ArrowError> {
    let mut buffer = Buffer::from(frame);
    decoder.decode(&mut buffer)
}
