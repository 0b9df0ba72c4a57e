//! The receiver of a stream: frames in, batches out, decoded where they are consumed.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::Bytes;
use futures::{
    Stream,
    future::{BoxFuture, FutureExt},
    stream::FusedStream,
};
use protos::data::close_stream;
use record_batch::{ArrowDecodeOptions, ArrowDecoder, Codec, Reassembly};
use rpc_bus::{BusRuntime, RemoteConnection, RpcFailure};

use super::{
    address::StreamAddress,
    budget::Budget,
    checksum::check_body,
    error::{ReceiveError, SendError},
    frame::codec_of,
    inbound::{Inbound, Item, grant},
    intake::{EncodedBatch, Terms},
    outbound::Outbound,
    pieces::ROWS_MAX,
    receiver_side::{ReceiverSide, close},
    stats::{ReceiveStats, now},
    tunnel::{TunnelPeer, Tunnels},
};

/// Decompressing more than this goes to the cpu pool: about 50 us of work.
const COMPUTE_BYTES_MIN: usize = 64 * 1024;

/// Where batches come from.
pub(crate) enum Source {
    Local(Arc<Outbound>),
    Remote {
        connection: RemoteConnection,
        side: Arc<ReceiverSide>,
        stream: u64,
    },
}

/// Receives the batches of one fragment from another: a [`Stream`] that ends with `None` after the sender's end, or with
/// one error. Dropping it cancels the stream, stops the sender, and gives all memory back at once.
#[must_use = "a receiver that is dropped cancels its stream"]
pub struct StreamReceiver {
    address: StreamAddress,
    source: Source,
    inbound: Arc<Inbound>,
    terms: Terms,
    decoder: ArrowDecoder,
    /// A batch on the cpu pool, and since when.
    decompressing: Option<(BoxFuture<'static, Result<Bytes, ReceiveError>>, Instant)>,
    runtime: BusRuntime,
    tunnels: Arc<Tunnels>,
    is_done: bool,
    /// Given back with the last receiver of it.
    _budget: Arc<Budget>,
}

/// What a receiver is made of.
pub(crate) struct Parts {
    pub(crate) address: StreamAddress,
    pub(crate) source: Source,
    pub(crate) inbound: Arc<Inbound>,
    pub(crate) terms: Terms,
    pub(crate) runtime: BusRuntime,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) budget: Arc<Budget>,
}

impl StreamReceiver {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            address,
            source,
            inbound,
            terms,
            runtime,
            tunnels,
            budget,
        } = parts;
        tunnels.add_receiver(source.peer(), address, &inbound);
        Self {
            address,
            source,
            inbound,
            terms,
            decoder: ArrowDecoder::new(ArrowDecodeOptions {
                rows_max: ROWS_MAX,
                ..ArrowDecodeOptions::default()
            }),
            decompressing: None,
            runtime,
            tunnels,
            is_done: false,
            _budget: budget,
        }
    }

    /// Which stream it is.
    #[must_use]
    pub fn address(&self) -> StreamAddress {
        self.address
    }

    /// Of the batches, once the first frame of another process has been decoded.
    #[must_use]
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.decoder.schema()
    }

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> ReceiveStats {
        self.inbound.stats()
    }

    /// What counts, also after the end.
    pub(crate) fn inbound(&self) -> Arc<Inbound> {
        Arc::clone(&self.inbound)
    }

    /// Wants no more: for the sender that is success.
    pub fn finish(mut self) {
        self.end(close_stream::Kind::Finished, None);
    }

    /// Ends the stream with an error that the sender gets.
    pub fn fail(mut self, failure: RpcFailure) {
        self.end(close_stream::Kind::Failed, Some(failure));
    }

    /// Gives all memory back and tells the sender, unless it has ended itself.
    fn end(&mut self, kind: close_stream::Kind, failure: Option<RpcFailure>) {
        if std::mem::replace(&mut self.is_done, true) {
            return;
        }
        self.decompressing = None;
        self.source.stop(kind, failure);
        self.close();
    }

    fn close(&mut self) {
        self.is_done = true;
        self.source.forget();
        self.inbound.close();
    }

    fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<RecordBatch>, ReceiveError>> {
        loop {
            if let Some((decompressing, began)) = &mut self.decompressing {
                let body = ready!(decompressing.poll_unpin(cx));
                let began = *began;
                self.decompressing = None;
                if let Some(batch) = self.decode(&body?, began)? {
                    return Poll::Ready(Ok(Some(batch)));
                }
            }
            let Some(taken) = ready!(self.inbound.poll_take(cx)).transpose()? else {
                return Poll::Ready(Ok(None));
            };
            if let Some(limit_bytes) = taken.limit_bytes {
                self.source.raise(limit_bytes);
            }
            match taken.item {
                Item::Value(batch, _) => return Poll::Ready(Ok(Some(batch))),
                Item::Encoded(batch) => {
                    if let Some(batch) = self.open(batch, taken.at)? {
                        return Poll::Ready(Ok(Some(batch)));
                    }
                }
            }
        }
    }

    /// Decodes a batch, or starts to decompress it.
    fn open(
        &mut self,
        batch: EncodedBatch,
        began: Instant,
    ) -> Result<Option<RecordBatch>, ReceiveError> {
        if self.terms.has_checksums {
            let mut frames = batch.frames.iter();
            frames.try_for_each(|(frame, body)| check_body(frame, body))?;
        }
        let body = Joined::of(batch, self.terms.batch_bytes_max)?;
        match body.codec {
            Codec::None => self.decode(&body.bytes, began),
            _ if body.decoded_bytes < COMPUTE_BYTES_MIN => {
                let bytes = body.decompress()?;
                self.decode(&bytes, began)
            }
            _ => {
                let runtime = self.runtime.clone();
                let decompressing =
                    async move { runtime.compute(move || body.decompress()).await? };
                self.decompressing = Some((decompressing.boxed(), began));
                Ok(None)
            }
        }
    }

    fn decode(
        &mut self,
        body: &Bytes,
        began: Instant,
    ) -> Result<Option<RecordBatch>, ReceiveError> {
        let batch = self.decoder.decode(body)?;
        self.inbound
            .on_decoded(now().saturating_duration_since(began), batch.is_some());
        Ok(batch)
    }
}

/// The body of a batch in one piece, as it was sent.
struct Joined {
    bytes: Bytes,
    codec: Codec,
    decoded_bytes: usize,
    bytes_max: usize,
}

impl Joined {
    fn of(batch: EncodedBatch, bytes_max: usize) -> Result<Self, ReceiveError> {
        let missing = || ReceiveError::Protocol("a batch without a frame".to_owned());
        let (first, _) = batch.frames.first().ok_or_else(missing)?;
        let codec = codec_of(first)?;
        let decoded_bytes = usize::try_from(first.decoded_bytes()).unwrap_or(usize::MAX);
        let chunked_bytes = usize::try_from(first.chunked_bytes()).unwrap_or(usize::MAX);
        let mut bodies = batch.frames.into_iter().map(|(_, body)| body);
        let bytes = if chunked_bytes == 0 {
            bodies.next().ok_or_else(missing)?
        } else {
            join(bodies, chunked_bytes, bytes_max)?
        };
        Ok(Self {
            bytes,
            codec,
            decoded_bytes,
            bytes_max,
        })
    }

    fn decompress(&self) -> Result<Bytes, ReceiveError> {
        Ok(self
            .codec
            .decompress(&self.bytes, self.decoded_bytes, self.bytes_max)?)
    }
}

fn join(
    mut chunks: impl Iterator<Item = Bytes>,
    total_bytes: usize,
    bytes_max: usize,
) -> Result<Bytes, ReceiveError> {
    let mut reassembly = Reassembly::begin(total_bytes, bytes_max)?;
    let whole = chunks.find_map(|chunk| reassembly.push(chunk).transpose());
    let missing = || ReceiveError::Protocol("chunks are missing".to_owned());
    Ok(whole.ok_or_else(missing)??)
}

impl Source {
    fn peer(&self) -> TunnelPeer {
        match self {
            Self::Local(_) => TunnelPeer::Here,
            Self::Remote { connection, .. } => TunnelPeer::of(connection),
        }
    }

    fn raise(&self, limit_bytes: u64) {
        match self {
            Self::Local(outbound) => outbound.raise(limit_bytes),
            Self::Remote {
                connection, stream, ..
            } => grant(connection, *stream, limit_bytes),
        }
    }

    fn stop(&self, kind: close_stream::Kind, failure: Option<RpcFailure>) {
        match self {
            Self::Remote {
                connection, stream, ..
            } => close(
                connection,
                *stream,
                kind,
                failure.map(|failure| failure.error),
            ),
            Self::Local(outbound) => outbound.stop(match (kind, failure) {
                (close_stream::Kind::Finished, _) => SendError::ReceiverFinished,
                (close_stream::Kind::Failed, Some(failure)) => {
                    SendError::ReceiverFailed(failure.into())
                }
                _ => SendError::ReceiverCancelled,
            }),
        }
    }

    fn forget(&self) {
        if let Self::Remote { side, stream, .. } = self {
            side.forget(*stream);
        }
    }
}

impl Stream for StreamReceiver {
    type Item = Result<RecordBatch, ReceiveError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        match ready!(self.poll_batch(cx)) {
            Ok(Some(batch)) => Poll::Ready(Some(Ok(batch))),
            Ok(None) => {
                self.close();
                Poll::Ready(None)
            }
            Err(error) => {
                let failure = error.to_failure();
                self.end(close_stream::Kind::Failed, Some(failure));
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl FusedStream for StreamReceiver {
    fn is_terminated(&self) -> bool {
        self.is_done
    }
}

impl Drop for StreamReceiver {
    fn drop(&mut self) {
        self.end(close_stream::Kind::Cancelled, None);
        self.tunnels.end_receiver(self.source.peer(), &self.inbound);
    }
}

impl fmt::Debug for StreamReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReceiver")
            .field("address", &self.address)
            .field("is_done", &self.is_done)
            .finish_non_exhaustive()
    }
}
