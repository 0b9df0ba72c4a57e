//! Sending as Drill does: one tunnel for each fragment that sends and each node that it sends to.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use protos::{
    calls::data,
    data::{AckWithCredit, FragmentRecordBatch},
    id::{FragmentId, MajorFragmentId, MinorFragmentId},
    shared::RecordBatchDef,
};
use record_batch::{EncodedBatch, Encoder, split};
use rpc_bus::{
    Answer, BusRuntime, CallError, CallOptions, PendingAnswer, RemoteConnection, StreamKey,
};

use super::{
    credit::{Credit, Window},
    error::{Receivers, TunnelError},
    filter::RuntimeFilter,
};
use crate::connect::DataClient;

/// Batches below this are encoded where they are: handing them to the pool takes longer.
const INLINE_BYTES_MAX: usize = 32 * 1024;

/// Limits of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelOptions {
    /// Bytes that a body should have at most; larger batches are split by rows. A single row may have more.
    /// Default 16 MiB.
    pub batch_bytes_target: usize,
    /// Most rows of a batch. Default 32 Ki; Drill's receivers take at most 64 Ki.
    pub batch_rows_max: usize,
    /// Most batches that may be unanswered, whatever the receiver allows. Default 1024.
    pub window_batches_max: usize,
}

impl Default for TunnelOptions {
    fn default() -> Self {
        Self {
            batch_bytes_target: 16 << 20,
            batch_rows_max: 32 * 1024,
            window_batches_max: 1024,
        }
    }
}

/// What a tunnel has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelStats {
    /// Batches sent, last ones included; one for several receivers counts once.
    pub batches: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Time spent waiting for answers before the next batch could be sent.
    pub window_wait: Duration,
    /// Batches that may be unanswered.
    pub window_batches: usize,
}

/// Sends the batches of one fragment to the fragments of one stage on one node.
///
/// At most three batches are unanswered, or as many as the receiver has allowed; with more, sending waits. Answers may
/// take as long as the receivers do, so they have no deadline. A batch that is refused or lost breaks the tunnel, and so
/// does a `send` that is dropped before it is done.
pub struct DataTunnel {
    client: DataClient,
    runtime: BusRuntime,
    sender: FragmentId,
    receiving_major: MajorFragmentId,
    options: TunnelOptions,
    /// From the first batch on, always the same.
    connection: Option<RemoteConnection>,
    stream: StreamKey,
    window: Window,
    answers: FuturesUnordered<PendingBatch>,
    encoder: Option<(SchemaRef, Arc<Encoder>)>,
    is_broken: bool,
    stats: TunnelStats,
}

impl DataTunnel {
    /// A tunnel from `sender` to fragments of `receiving_major` at the node of `client`. Nothing is sent yet.
    #[must_use]
    pub fn new(
        client: DataClient,
        runtime: BusRuntime,
        sender: FragmentId,
        receiving_major: MajorFragmentId,
        options: TunnelOptions,
    ) -> Self {
        Self {
            stream: client.next_stream(),
            client,
            runtime,
            sender,
            receiving_major,
            options,
            connection: None,
            window: Window::new(options.window_batches_max),
            answers: FuturesUnordered::new(),
            encoder: None,
            is_broken: false,
            stats: TunnelStats::default(),
        }
    }

    /// Sends a batch to each of `to`, encoded once; returns when it is on its way. One without rows tells the columns.
    ///
    /// # Errors
    ///
    /// The batch has no Drill vectors, the node cannot be reached, or this or an earlier batch was refused or lost.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: part of the batch may be sent. The tunnel is broken then.
    pub async fn send(
        &mut self,
        batch: &RecordBatch,
        to: &[MinorFragmentId],
    ) -> Result<(), TunnelError> {
        self.guarded(async |tunnel: &mut Self| tunnel.send_split(batch, to, Position::Middle).await)
            .await
    }

    /// As [`Self::send`], with the last batch for each of `to`.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn send_last(
        &mut self,
        batch: &RecordBatch,
        to: &[MinorFragmentId],
    ) -> Result<(), TunnelError> {
        self.guarded(async |tunnel: &mut Self| tunnel.send_split(batch, to, Position::Last).await)
            .await
    }

    /// Tells each of `to` that no batch follows.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    // wire: golden/dist/broadcast.data1 frame 3: without columns
    pub async fn end(&mut self, to: &[MinorFragmentId]) -> Result<(), TunnelError> {
        let nothing = EncodedBatch {
            def: RecordBatchDef {
                record_count: Some(0),
                ..RecordBatchDef::default()
            },
            dbody: Vec::new(),
        };
        self.send_last_encoded(nothing, to).await
    }

    /// As [`Self::send`], with a batch that is encoded already: one for several nodes is encoded once.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn send_encoded(
        &mut self,
        batch: EncodedBatch,
        to: &[MinorFragmentId],
    ) -> Result<(), TunnelError> {
        self.guarded(async |tunnel: &mut Self| tunnel.post(batch, to, Position::Middle).await)
            .await
    }

    /// As [`Self::send_last`], with a batch that is encoded already.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn send_last_encoded(
        &mut self,
        batch: EncodedBatch,
        to: &[MinorFragmentId],
    ) -> Result<(), TunnelError> {
        self.guarded(async |tunnel: &mut Self| tunnel.post(batch, to, Position::Last).await)
            .await
    }

    /// Sends a runtime filter, whatever the window, and waits for its answer.
    ///
    /// # Errors
    ///
    /// The node cannot be reached, or the filter was refused or lost. The tunnel goes on.
    pub async fn send_runtime_filter(&mut self, filter: &RuntimeFilter) -> Result<(), TunnelError> {
        let connection = self.connection().await?;
        let (def, body) = filter.to_wire();
        let options = self.call_options();
        let answer = connection.call::<data::RuntimeFilter>(&def, body, options);
        let answer = answer.await.map_err(|source| self.lost(source))?;
        if Credit::from(answer.message).is_refusal() {
            return Err(self.refused(vec![filter.fragment.minor]));
        }
        Ok(())
    }

    /// Waits until all batches are answered, as a fragment does before it ends.
    ///
    /// # Errors
    ///
    /// A batch was refused or lost.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: answers that have not come are still waited for by the next call.
    pub async fn flush(&mut self) -> Result<TunnelStats, TunnelError> {
        if self.is_broken {
            return Err(self.broken());
        }
        while let Some(settled) = self.answers.next().await {
            self.settle(settled)?;
        }
        Ok(self.stats())
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> TunnelStats {
        TunnelStats {
            window_batches: self.window.size(),
            ..self.stats
        }
    }

    /// Runs a step that breaks the tunnel unless it succeeds.
    async fn guarded(
        &mut self,
        step: impl AsyncFnOnce(&mut Self) -> Result<(), TunnelError>,
    ) -> Result<(), TunnelError> {
        if self.is_broken {
            return Err(self.broken());
        }
        self.is_broken = true;
        step(self).await?;
        self.is_broken = false;
        Ok(())
    }

    async fn send_split(
        &mut self,
        batch: &RecordBatch,
        to: &[MinorFragmentId],
        position: Position,
    ) -> Result<(), TunnelError> {
        let encoder = self.encoder(batch)?;
        let (rows_max, bytes_target) =
            (self.options.batch_rows_max, self.options.batch_bytes_target);
        let mut pieces = split(batch, rows_max, bytes_target).peekable();
        while let Some(piece) = pieces.next() {
            let body = self.encode(&encoder, piece).await?;
            let position = match pieces.peek() {
                Some(_) => Position::Middle,
                None => position,
            };
            self.post(body, to, position).await?;
        }
        Ok(())
    }

    async fn encode(
        &self,
        encoder: &Arc<Encoder>,
        piece: RecordBatch,
    ) -> Result<EncodedBatch, TunnelError> {
        let sender = self.sender;
        let body = if piece.get_array_memory_size() <= INLINE_BYTES_MAX {
            encoder.encode(&piece)
        } else {
            let encoder = Arc::clone(encoder);
            let work = move || encoder.encode(&piece);
            let done = self.runtime.compute(work).await;
            done.map_err(|source| TunnelError::Panicked { sender, source })?
        };
        body.map_err(|source| TunnelError::Encode { sender, source })
    }

    fn encoder(&mut self, batch: &RecordBatch) -> Result<Arc<Encoder>, TunnelError> {
        let schema = batch.schema();
        if let Some((known, encoder)) = &self.encoder
            && (Arc::ptr_eq(known, &schema) || *known == schema)
        {
            return Ok(Arc::clone(encoder));
        }
        let sender = self.sender;
        let encoder = Encoder::try_new(&schema);
        let encoder = Arc::new(encoder.map_err(|source| TunnelError::Encode { sender, source })?);
        self.encoder = Some((schema, Arc::clone(&encoder)));
        Ok(encoder)
    }

    /// Waits for room in the window, then for room to write.
    async fn post(
        &mut self,
        batch: EncodedBatch,
        to: &[MinorFragmentId],
        position: Position,
    ) -> Result<(), TunnelError> {
        self.room().await?;
        let connection = self.connection().await?;
        let bytes = batch.body_bytes() as u64;
        let request = self.request(batch.def, to, position);
        let options = self.call_options();
        let answer = connection.start::<data::RecordBatch>(&request, batch.dbody, options);
        let answer = answer.await.map_err(|source| self.lost(source))?;
        self.window.on_sent();
        self.stats.batches += 1;
        self.stats.body_bytes += bytes;
        let to = Some(to.to_vec());
        self.answers.push(PendingBatch { answer, to });
        Ok(())
    }

    async fn room(&mut self) -> Result<(), TunnelError> {
        while let Some(Some(settled)) = self.answers.next().now_or_never() {
            self.settle(settled)?;
        }
        let since = (!self.window.has_room()).then(Instant::now);
        while !self.window.has_room() {
            match self.answers.next().await {
                Some(settled) => self.settle(settled)?,
                None => break,
            }
        }
        self.stats.window_wait += since.map(|since| since.elapsed()).unwrap_or_default();
        Ok(())
    }

    fn settle(&mut self, (answer, to): Settled) -> Result<(), TunnelError> {
        self.window.on_settled();
        let settled = match answer {
            Ok(answer) => Credit::from(answer.message),
            Err(source) => {
                self.is_broken = true;
                return Err(self.lost(source));
            }
        };
        if settled.is_refusal() {
            self.is_broken = true;
            return Err(self.refused(to));
        }
        self.window.on_credit(settled);
        Ok(())
    }

    async fn connection(&mut self) -> Result<RemoteConnection, TunnelError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let sender = self.sender;
        let connection = self.client.connection().await;
        let connection = connection.map_err(|source| TunnelError::Connect { sender, source })?;
        Ok(self.connection.insert(connection).clone())
    }

    fn request(
        &self,
        def: RecordBatchDef,
        to: &[MinorFragmentId],
        position: Position,
    ) -> FragmentRecordBatch {
        let FragmentId {
            query,
            major,
            minor,
        } = self.sender;
        FragmentRecordBatch {
            query_id: Some(query.into()),
            receiving_major_fragment_id: Some(self.receiving_major.0),
            receiving_minor_fragment_id: to.iter().map(|minor| minor.0).collect(),
            sending_major_fragment_id: Some(major.0),
            sending_minor_fragment_id: Some(minor.0),
            def: Some(def),
            is_last_batch: Some(position == Position::Last),
            stream: None,
        }
    }

    fn call_options(&self) -> CallOptions {
        CallOptions {
            stream: self.stream,
            ..CallOptions::without_deadline()
        }
    }

    fn lost(&self, source: CallError) -> TunnelError {
        let sender = self.sender;
        TunnelError::Call { sender, source }
    }

    fn refused(&self, minors: Vec<MinorFragmentId>) -> TunnelError {
        TunnelError::Refused {
            sender: self.sender,
            receivers: Receivers {
                major: self.receiving_major,
                minors,
            },
        }
    }

    fn broken(&self) -> TunnelError {
        TunnelError::Broken {
            sender: self.sender,
        }
    }
}

impl fmt::Debug for DataTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataTunnel")
            .field("sender", &self.sender)
            .field("receiving_major", &self.receiving_major)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Where a batch stands among those of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Middle,
    Last,
}

/// The answer to a batch, and who the batch was for.
type Settled = (
    Result<Answer<AckWithCredit>, CallError>,
    Vec<MinorFragmentId>,
);

/// A batch that was sent.
struct PendingBatch {
    answer: PendingAnswer<AckWithCredit>,
    /// `None` once answered.
    to: Option<Vec<MinorFragmentId>>,
}

impl Future for PendingBatch {
    type Output = Settled;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Settled> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        Poll::Ready((answer, self.to.take().unwrap_or_default()))
    }
}
