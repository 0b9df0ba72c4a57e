//! Sends a result: encodes pieces on the cpu pool, and keeps what the client has not acknowledged
//! in a window.

use std::sync::Arc;

use futures::{Stream, StreamExt, future, stream};
use protos::{
    calls::user::QueryData as QueryDataCall,
    error::ErrorType,
    rpc::Ack,
    shared::{QueryData, RecordBatchDef},
};
use record_batch::{EncodedBatch, Encoder};
use rpc_bus::{
    Answer, BusRuntime, CallError, Charge, PendingAnswer,
    ledger::{BudgetExceeded, Kind},
};

use crate::{
    engine::QueryOutput,
    error::UserError,
    names,
    query::{Failure, Query},
    shape::{GATHERED_BATCHES_MAX, Piece, PieceLimits, pieces},
    window::{Window, WindowLimits},
};

/// Pieces below this are encoded where they are: handing them to the pool takes longer.
const ENCODED_INLINE_BYTES_MAX: usize = 32 * 1024;
/// Pieces that are encoded, or wait for the window, at once: the next one while the last one is
/// written.
const ENCODED_AHEAD: usize = 2;

type Batches = stream::BoxStream<'static, Result<arrow::array::RecordBatch, UserError>>;
type Acknowledgement = Result<Answer<Ack>, CallError>;

/// A result on its way to the client.
pub(crate) struct Delivery<'a> {
    query: &'a Query,
    encoder: Arc<Encoder>,
    affected_rows: Option<i32>,
    window: Window<Unacknowledged>,
}

/// A batch that was sent, with its memory, until the answer is there.
type Unacknowledged = future::Map<
    future::Join<PendingAnswer<Ack>, future::Ready<Charge>>,
    fn((Acknowledgement, Charge)) -> Acknowledgement,
>;

impl<'a> Delivery<'a> {
    pub(crate) fn new(query: &'a Query, output: &QueryOutput) -> Result<Self, Failure> {
        let options = &query.shared.options;
        let limits = WindowLimits {
            batches_max: options.unacked_batches_max,
            bytes_max: options.unacked_bytes_max,
        };
        Ok(Self {
            query,
            encoder: Arc::new(Encoder::try_new(&names::unique(&output.schema))?),
            affected_rows: output.affected_rows,
            window: Window::new(limits),
        })
    }

    /// Sends everything and waits until the client has taken it. A result without rows is one batch
    /// that tells the columns.
    // wire: golden/user/employee
    pub(crate) async fn send_all(mut self, batches: Batches) -> Result<(), Failure> {
        let (first, rest) = batches.into_future().await;
        let encoded = self.encoded(first, rest);
        futures::pin_mut!(encoded);
        let mut sent_any = false;
        while let Some(batch) = self.next_encoded(&mut encoded).await? {
            self.send(batch).await?;
            sent_any = true;
        }
        if !sent_any {
            let def = self.encoder.schema_only();
            self.send(EncodedBatch {
                def,
                dbody: Vec::new(),
            })
            .await?;
        }
        while let Some(answer) = self.window.next().await {
            check(answer)?;
        }
        Ok(())
    }

    /// The result in encoded pieces. The first batch goes alone, so that its rows are there at
    /// once.
    fn encoded(
        &self,
        first: Option<Result<arrow::array::RecordBatch, UserError>>,
        rest: Batches,
    ) -> impl Stream<Item = Result<EncodedBatch, UserError>> + use<> {
        let options = &self.query.shared.options;
        let limits = PieceLimits {
            rows_max: options.batch_rows_max,
            bytes_target: options.batch_bytes_target,
        };
        let (runtime, encoder) = (self.query.shared.runtime.clone(), Arc::clone(&self.encoder));
        stream::iter(first.map(|batch| vec![batch]))
            .chain(rest.ready_chunks(GATHERED_BATCHES_MAX))
            .flat_map(move |ready| stream::iter(pieces(ready, limits)))
            .map(move |piece| encode(piece, runtime.clone(), Arc::clone(&encoder)))
            .buffered(ENCODED_AHEAD)
    }

    /// The next piece; acknowledgements are taken while it is made.
    async fn next_encoded(
        &mut self,
        encoded: &mut (impl Stream<Item = Result<EncodedBatch, UserError>> + Unpin),
    ) -> Result<Option<EncodedBatch>, Failure> {
        loop {
            tokio::select! {
                biased;
                Some(answer) = self.window.next(), if !self.window.is_empty() => check(answer)?,
                piece = encoded.next() => return Ok(piece.transpose()?),
            }
        }
    }

    async fn send(&mut self, batch: EncodedBatch) -> Result<(), Failure> {
        let (rows, bytes) = (batch.def.record_count(), batch.body_bytes());
        let charge = self.make_room(bytes).await?;
        let (message, dbody) = (self.message(batch.def), batch.dbody);
        let options = self.query.call_options();
        let sent = self
            .query
            .connection
            .start::<QueryDataCall>(&message, dbody, options)
            .await;
        let answer = sent.map_err(unsent)?;
        self.query
            .entry
            .sent(usize::try_from(rows).unwrap_or_default(), bytes);
        self.window.push(bytes, hold(answer, charge));
        Ok(())
    }

    /// Waits until the window, and the ledger, have room for a batch.
    async fn make_room(&mut self, bytes: usize) -> Result<Charge, Failure> {
        loop {
            let refused = match self.try_room(bytes) {
                Some(Ok(charge)) => return Ok(charge),
                Some(Err(refused)) => Some(refused),
                None => None,
            };
            match (self.window.next().await, refused) {
                (Some(answer), _) => check(answer)?,
                (None, Some(refused)) => return Err(refused.into()),
                (None, None) => {}
            }
        }
    }

    /// `None` if the window is full.
    fn try_room(&self, bytes: usize) -> Option<Result<Charge, BudgetExceeded>> {
        let ledger = &self.query.shared.ledger;
        self.window
            .has_room(bytes)
            .then(|| ledger.charge(Kind::Bytes, bytes))
    }

    fn message(&self, mut def: RecordBatchDef) -> QueryData {
        def.affected_rows_count = self.affected_rows;
        QueryData {
            query_id: Some(self.query.request.id.into()),
            row_count: def.record_count,
            def: Some(def),
            affected_rows_count: self.affected_rows,
        }
    }
}

async fn encode(
    piece: Result<Piece, UserError>,
    runtime: BusRuntime,
    encoder: Arc<Encoder>,
) -> Result<EncodedBatch, UserError> {
    let piece = piece?;
    let bytes = piece.bytes();
    let job = move || -> Result<_, UserError> { Ok(encoder.encode(&piece.into_batch()?)?) };
    match bytes {
        ..ENCODED_INLINE_BYTES_MAX => job(),
        _ => runtime.compute(job).await?,
    }
}

fn hold(answer: PendingAnswer<Ack>, charge: Charge) -> Unacknowledged {
    use futures::FutureExt;
    let release: fn((Acknowledgement, Charge)) -> Acknowledgement = |(answer, _charge)| answer;
    future::join(answer, future::ready(charge)).map(release)
}

/// Whether the client took a batch.
// wire: golden/transcripts/raw_flow "ackfalse"
fn check(answer: Acknowledgement) -> Result<(), Failure> {
    match answer {
        Ok(answer) if answer.message.ok() => Ok(()),
        Ok(_) => Err(refused("the client refused a batch of the result")),
        Err(CallError::Remote(failure)) => Err(refused(&format!(
            "the client failed to take a batch of the result: {failure}"
        ))),
        Err(error) => Err(Failure::Lost(error)),
    }
}

fn refused(message: &str) -> Failure {
    UserError::new(ErrorType::System, message).into()
}

/// A batch that could not be sent: the connection is gone, unless a limit of this side was met.
fn unsent(error: CallError) -> Failure {
    match error {
        CallError::Lost(_) => Failure::Lost(error),
        limit => UserError::resource(limit.to_string()).into(),
    }
}
