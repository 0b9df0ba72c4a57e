//! What a sender does with a batch: cut, encode, compress, wait for credit, hand to the connection.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::Bytes;
use protos::{
    calls::StreamBatch,
    data::{StreamEnd, StreamFrame, stream_end},
    error::ErrorType,
    shared::DrillPbError,
};
use record_batch::{ArrowEncoder, Codec, chunks};
use rpc_bus::{BusRuntime, RpcFailure, StreamKey};

use super::{
    address::StreamAddress,
    checksum::seal_frame,
    compress::{CodecChooser, sample},
    credit::cost_bytes,
    dictionaries::LastDictionaries,
    error::{OpenError, ReceiveError, SendError},
    frame::{codec_to_wire, envelope},
    inbound::{Inbound, value_cost_bytes},
    options::{PIECE_BYTES_MAX, SendOptions},
    outbound::{Outbound, RemoteRoute, Route},
    pieces::{ROWS_MAX, pieces},
    registry::Registry,
    stats::{SendStats, lock, now},
    tunnel::{TunnelPeer, Tunnels},
};

/// Compressing more than this goes to the cpu pool: about 50 us of work.
const COMPUTE_BYTES_MIN: usize = 32 * 1024;

/// What of the node a sender needs.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) runtime: BusRuntime,
    pub(crate) registry: Arc<Registry>,
    pub(crate) tunnels: Arc<Tunnels>,
}

/// Where batches go, once a receiver has come.
enum Target {
    Local(Arc<Inbound>),
    Remote(Box<Remote>),
}

struct Remote {
    route: Arc<RemoteRoute>,
    encoder: ArrowEncoder,
    codecs: CodecChooser,
    next_sequence: u64,
    /// Of the codecs that are to be tried on the next batch.
    samples_wanted: Option<Vec<Codec>>,
}

/// A batch, ready to be sent.
struct Encoded {
    body: Vec<Bytes>,
    wire_bytes: usize,
    decoded_bytes: usize,
    codec: Codec,
    /// How long that took, and when it was done.
    took: Duration,
    done: Instant,
}

pub(crate) struct Transmitter {
    address: StreamAddress,
    schema: SchemaRef,
    options: SendOptions,
    around: Surroundings,
    outbound: Arc<Outbound>,
    target: Option<Target>,
    /// Of what was handed over within this process.
    dictionaries: Option<LastDictionaries>,
    stats: Arc<Mutex<SendStats>>,
    has_ended: bool,
}

impl Transmitter {
    /// Registers a sender; its receiver may have come already.
    pub(crate) fn try_new(
        address: StreamAddress,
        schema: &SchemaRef,
        options: SendOptions,
        around: Surroundings,
    ) -> Result<Self, OpenError> {
        // A schema that cannot be sent is refused here, not with the first batch.
        ArrowEncoder::try_new(schema)?;
        let outbound = around.registry.register(address)?;
        Ok(Self {
            address,
            schema: Arc::clone(schema),
            options,
            around,
            outbound,
            target: None,
            dictionaries: LastDictionaries::of(schema),
            stats: Arc::default(),
            has_ended: false,
        })
    }

    pub(crate) fn stats(&self) -> Arc<Mutex<SendStats>> {
        Arc::clone(&self.stats)
    }

    /// Why nothing can be sent any more, if so.
    pub(crate) fn stopped(&self) -> Option<SendError> {
        self.outbound.stopped()
    }

    /// Sends a batch: it is with the connection, or the receiver, when this is done. The receiver is told why a batch
    /// cannot be sent, which no other try would change.
    pub(crate) async fn send(&mut self, batch: RecordBatch) -> Result<(), SendError> {
        let sent = self.send_pieces(batch).await;
        if let Err(error @ (SendError::Encode(_) | SendError::RowTooLong { .. })) = &sent {
            let failure = RpcFailure::new(ErrorType::DataWrite, error.to_string());
            // Fails with the connection, or with what the receiver has said itself.
            let _ = self.fail(failure.with_retry(error.retry())).await;
        }
        sent
    }

    async fn send_pieces(&mut self, batch: RecordBatch) -> Result<(), SendError> {
        self.find_target().await?;
        match &self.target {
            Some(Target::Local(inbound)) => {
                let inbound = Arc::clone(inbound);
                self.hand_over(&inbound, batch).await
            }
            Some(Target::Remote(remote)) => {
                for piece in pieces(batch, remote.route.piece_bytes) {
                    let encoded = self.encode(&piece).await?;
                    self.transmit(encoded).await?;
                    lock(&self.stats).batches += 1;
                }
                Ok(())
            }
            None => Err(SendError::Ended),
        }
    }

    /// Ends the stream: nothing is missing.
    pub(crate) async fn finish(&mut self) -> Result<(), SendError> {
        self.find_target().await?;
        if lock(&self.stats).batches == 0 && matches!(self.target, Some(Target::Remote(_))) {
            self.send_schema().await?;
        }
        self.end(stream_end::Kind::Finished, None, Ok(())).await
    }

    /// Ends the stream with an error.
    pub(crate) async fn fail(&mut self, failure: RpcFailure) -> Result<(), SendError> {
        self.find_target().await?;
        let error = failure.error.clone();
        let outcome = Err(ReceiveError::SenderFailed(failure.into()));
        self.end(stream_end::Kind::Failed, Some(error), outcome)
            .await
    }

    async fn find_target(&mut self) -> Result<(), SendError> {
        if self.target.is_some() {
            return Ok(());
        }
        let began = now();
        let attached = self.outbound.attached();
        let route = match self.options.receiver_timeout {
            None => attached.await?,
            Some(patience) => tokio::time::timeout(patience, attached)
                .await
                .map_err(|_| SendError::NoReceiver(patience))??,
        };
        lock(&self.stats).wait_response_time += since(began);
        let peer = match &route {
            Route::Local(_) => TunnelPeer::Here,
            Route::Remote(route) => TunnelPeer::of(&route.connection),
        };
        let (stats, outbound) = (&self.stats, &self.outbound);
        let tunnels = &self.around.tunnels;
        tunnels.add_sender(peer, self.address, stats, outbound);
        self.target = Some(match route {
            Route::Local(inbound) => Target::Local(inbound),
            Route::Remote(route) => Target::Remote(self.remote(route)?),
        });
        Ok(())
    }

    fn remote(&self, route: Arc<RemoteRoute>) -> Result<Box<Remote>, SendError> {
        let codecs = CodecChooser::new(self.options.compression, &route.codecs, now());
        Ok(Box::new(Remote {
            route,
            encoder: ArrowEncoder::try_new(&self.schema).map_err(encode_error)?,
            codecs,
            next_sequence: 0,
            samples_wanted: None,
        }))
    }

    /// Without a copy, but in pieces, as to another process: what waits is to be within the receiver's budget.
    async fn hand_over(&mut self, inbound: &Inbound, batch: RecordBatch) -> Result<(), SendError> {
        // Most batches fit, and are measured once.
        let (cost_bytes, piece_bytes) = (value_cost_bytes(&batch), inbound.piece_bytes());
        if cost_bytes <= piece_bytes as u64 && batch.num_rows() <= ROWS_MAX {
            return self.hand_over_piece(inbound, batch, cost_bytes).await;
        }
        for piece in pieces(batch, piece_bytes) {
            let cost_bytes = value_cost_bytes(&piece);
            self.hand_over_piece(inbound, piece, cost_bytes).await?;
        }
        Ok(())
    }

    async fn hand_over_piece(
        &mut self,
        inbound: &Inbound,
        piece: RecordBatch,
        cost_bytes: u64,
    ) -> Result<(), SendError> {
        self.wait_for_credit().await?;
        let cost_bytes = self.with_dictionaries(&piece, cost_bytes, inbound.piece_bytes() as u64);
        self.outbound.on_sent(cost_bytes);
        inbound.push_value(piece, cost_bytes);
        let mut stats = lock(&self.stats);
        stats.batches += 1;
        stats.bytes_pass_through += cost_bytes;
        Ok(())
    }

    /// What a piece costs together with the dictionaries that it brings. They raise it to `piece_bytes` at most: that is what
    /// the receiver's budget holds beyond the credit, so that no piece of several rows is refused for its dictionaries. Of
    /// longer ones no more wait than pieces would.
    fn with_dictionaries(&mut self, piece: &RecordBatch, cost_bytes: u64, piece_bytes: u64) -> u64 {
        let Some(last) = &mut self.dictionaries else {
            return cost_bytes;
        };
        let new_bytes = last.new_bytes(piece) as u64;
        let there_bytes = piece.get_array_memory_size() as u64;
        let bytes = (cost_bytes + new_bytes).min(there_bytes).min(piece_bytes);
        bytes.max(cost_bytes)
    }

    async fn encode(&mut self, batch: &RecordBatch) -> Result<Encoded, SendError> {
        let began = now();
        let Some(Target::Remote(remote)) = &mut self.target else {
            return Err(SendError::Ended);
        };
        let body = remote.encoder.encode(batch).map_err(encode_error)?;
        let runtime = &self.around.runtime;
        let mut encoded = remote.compress(body, runtime, began).await?;
        encoded.done = now();
        encoded.took = encoded.done.saturating_duration_since(began);
        Ok(encoded)
    }

    async fn send_schema(&mut self) -> Result<(), SendError> {
        let body = ArrowEncoder::schema_only(&self.schema).map_err(encode_error)?;
        self.transmit(Encoded::plain(body, now())).await
    }

    /// Sends an encoded batch as soon as there is credit: in one frame, or in chunks where a single row is too long.
    async fn transmit(&mut self, encoded: Encoded) -> Result<(), SendError> {
        let waited_for_credit = self.wait_for_credit().await?;
        let began = encoded.done + waited_for_credit;
        let Some(Target::Remote(remote)) = &mut self.target else {
            return Err(SendError::Ended);
        };
        let bytes_max = remote.route.batch_bytes_max;
        let bytes = encoded.wire_bytes.max(encoded.decoded_bytes);
        if bytes > bytes_max {
            return Err(SendError::RowTooLong { bytes, bytes_max });
        }
        let (wire_bytes, decoded_bytes) = (encoded.wire_bytes as u64, encoded.decoded_bytes as u64);
        self.outbound.on_sent(cost_bytes(wire_bytes, decoded_bytes));
        let (codec, serializing) = (encoded.codec, encoded.took);
        remote.post(encoded, &self.outbound).await?;
        let done = now();
        let took = done.saturating_duration_since(began);
        let bytes = (decoded_bytes, wire_bytes);
        remote.samples_wanted = remote.codecs.on_sent(bytes, waited_for_credit + took, done);
        let mut stats = lock(&self.stats);
        stats.bytes_sent += wire_bytes;
        stats.bytes_uncompressed += decoded_bytes;
        stats.serialize_chunk_time += serializing;
        stats.send_request_time += took;
        (stats.codec, stats.codec_reason) = (codec, remote.codecs.reason());
        Ok(())
    }

    async fn wait_for_credit(&self) -> Result<Duration, SendError> {
        if self.outbound.has_credit() {
            return Ok(Duration::ZERO);
        }
        let waiting = WaitingForCredit::begin(&self.stats);
        self.outbound.credit().await?;
        Ok(waiting.so_far())
    }

    async fn end(
        &mut self,
        kind: stream_end::Kind,
        error: Option<DrillPbError>,
        outcome: Result<(), ReceiveError>,
    ) -> Result<(), SendError> {
        if let Some(reason) = self.outbound.stopped() {
            return Err(reason);
        }
        match &mut self.target {
            Some(Target::Local(inbound)) => inbound.end(outcome),
            Some(Target::Remote(remote)) => {
                let frame = end_frame(kind, error);
                remote.post_frame(frame, Vec::new(), &self.outbound).await?;
                remote.route.side.forget(remote.route.stream);
            }
            None => {}
        }
        self.has_ended = true;
        self.outbound.stop(SendError::Ended);
        Ok(())
    }
}

/// Counts how long a sender waits, also one that is dropped meanwhile.
struct WaitingForCredit<'a> {
    stats: &'a Mutex<SendStats>,
    began: Instant,
}

impl<'a> WaitingForCredit<'a> {
    fn begin(stats: &'a Mutex<SendStats>) -> Self {
        let began = now();
        lock(stats).waits_since = Some(began);
        Self { stats, began }
    }

    fn so_far(&self) -> Duration {
        since(self.began)
    }
}

impl Drop for WaitingForCredit<'_> {
    fn drop(&mut self) {
        let mut stats = lock(self.stats);
        // Not before the lock is held: whoever held it has shown more then, and counters do not go back.
        *stats = stats.until(now());
    }
}

impl Remote {
    async fn compress(
        &mut self,
        body: Vec<Bytes>,
        runtime: &BusRuntime,
        began: Instant,
    ) -> Result<Encoded, SendError> {
        if let Some(codecs) = self.samples_wanted.take() {
            let body = body.clone();
            let samples = runtime.compute(move || sample(&body, &codecs, now)).await;
            self.codecs.on_samples(samples.map_err(encode_error)?);
        }
        let codec = self.codecs.codec();
        let plain = Encoded::plain(body, began);
        if codec == Codec::None {
            return Ok(plain);
        }
        let (bytes, body) = (plain.wire_bytes, plain.body.clone());
        let compressed = if bytes < COMPUTE_BYTES_MIN {
            codec.compress(body)
        } else {
            let compressed = runtime.compute(move || codec.compress(body)).await;
            compressed.map_err(encode_error)?
        };
        let wire_bytes = compressed.iter().map(Bytes::len).sum();
        // What does not shrink goes out as it is.
        if wire_bytes >= bytes {
            return Ok(plain);
        }
        Ok(Encoded {
            body: compressed,
            wire_bytes,
            codec,
            ..plain
        })
    }

    async fn post(&mut self, encoded: Encoded, outbound: &Outbound) -> Result<(), SendError> {
        let mut first = Some(StreamFrame {
            codec: codec_to_wire(encoded.codec).map(Into::into),
            decoded_bytes: Some(encoded.decoded_bytes as u64),
            ..StreamFrame::default()
        });
        // A batch of several rows is cut to this; its head and padding make it a little longer.
        if encoded.wire_bytes <= 2 * PIECE_BYTES_MAX {
            let frame = first.unwrap_or_default();
            return self.post_frame(frame, encoded.body, outbound).await;
        }
        if let Some(frame) = &mut first {
            frame.chunked_bytes = Some(encoded.wire_bytes as u64);
        }
        for chunk in chunks(encoded.body, PIECE_BYTES_MAX) {
            let frame = first.take().unwrap_or_default();
            self.post_frame(frame, chunk, outbound).await?;
        }
        Ok(())
    }

    async fn post_frame(
        &mut self,
        mut frame: StreamFrame,
        body: Vec<Bytes>,
        outbound: &Outbound,
    ) -> Result<(), SendError> {
        self.route.number(&mut frame, self.next_sequence, &body);
        let RemoteRoute {
            connection, stream, ..
        } = &*self.route;
        let key = StreamKey(*stream);
        let posted = connection
            .post::<StreamBatch>(&envelope(frame), body, key)
            .await;
        // What stopped the stream says more than that its connection is gone.
        posted.map_err(|error| {
            outbound
                .stopped()
                .unwrap_or_else(|| self.route.failed(error))
        })?;
        self.next_sequence += 1;
        Ok(())
    }
}

impl Encoded {
    fn plain(body: Vec<Bytes>, done: Instant) -> Self {
        let bytes = body.iter().map(Bytes::len).sum();
        Self {
            body,
            wire_bytes: bytes,
            decoded_bytes: bytes,
            codec: Codec::None,
            took: Duration::ZERO,
            done,
        }
    }
}

/// Dropped before its end: the receiver is told, behind what was sent.
impl Drop for Transmitter {
    fn drop(&mut self) {
        let (route, stopped) = self.outbound.end();
        // Afterwards: the registry lists nobody who has ended, so that nobody is left there.
        self.around
            .registry
            .unregister(self.address, &self.outbound);
        if self.has_ended {
            return;
        }
        let is_stopped = stopped.is_some();
        match (self.target.take(), route) {
            (_, Some(Route::Local(inbound))) => inbound.end(Err(ReceiveError::SenderCancelled)),
            (Some(Target::Remote(remote)), _) => {
                remote.route.cancel(remote.next_sequence, is_stopped);
            }
            (None, Some(Route::Remote(route))) => route.cancel(0, is_stopped),
            _ => {}
        }
    }
}

impl RemoteRoute {
    /// Makes `frame` the one at `sequence`.
    fn number(&self, frame: &mut StreamFrame, sequence: u64, body: &[Bytes]) {
        (frame.stream, frame.sequence) = (Some(self.stream), Some(sequence));
        if self.has_checksums {
            seal_frame(frame, body);
        }
    }

    /// Sends nothing any more. The receiver, unless it has stopped the stream itself, is told with the frame at `sequence`,
    /// the only one that does not wait for room: nobody is left who could.
    fn cancel(&self, sequence: u64, is_stopped: bool) {
        self.side.forget(self.stream);
        if is_stopped {
            return;
        }
        let mut frame = end_frame(stream_end::Kind::Cancelled, None);
        self.number(&mut frame, sequence, &[]);
        let key = StreamKey(self.stream);
        // Fails with the connection, whose end the receiver sees.
        let _ = self
            .connection
            .post_last::<StreamBatch>(&envelope(frame), key);
    }
}

fn end_frame(kind: stream_end::Kind, error: Option<DrillPbError>) -> StreamFrame {
    let end = StreamEnd {
        kind: Some(kind.into()),
        error,
    };
    StreamFrame {
        end: Some(end),
        ..StreamFrame::default()
    }
}

fn since(began: Instant) -> Duration {
    now().saturating_duration_since(began)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn encode_error(error: impl std::error::Error) -> SendError {
    SendError::Encode(error.to_string())
}
