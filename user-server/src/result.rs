//! Sends a result, and keeps what the client has not acknowledged in a window.

use futures::{StreamExt, future, stream};
use protos::{
    calls::user::QueryData as QueryDataCall,
    error::ErrorType,
    rpc::Ack,
    shared::{QueryData, RecordBatchDef},
};
use rpc_bus::{
    Answer, CallError, Charge, Feature, PendingAnswer,
    ledger::{BudgetExceeded, Kind},
};

use crate::{
    bodies::{Bodies, Outgoing},
    engine::QueryOutput,
    error::UserError,
    names,
    query::{Failure, Query},
    shape::{GATHERED_BATCHES_MAX, PieceLimits, pieces},
    window::{Window, WindowLimits},
};

type Batches = stream::BoxStream<'static, Result<arrow::array::RecordBatch, UserError>>;
type Outgoings = stream::BoxStream<'static, Result<Outgoing, UserError>>;
type Acknowledgement = Result<Answer<Ack>, CallError>;

/// A result on its way to the client.
pub(crate) struct Delivery<'a> {
    query: &'a Query,
    bodies: Bodies,
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
        let schema = names::unique(&output.schema);
        let has_arrow = query.connection.has(Feature::ArrowBodies);
        Ok(Self {
            query,
            bodies: Bodies::new(schema, has_arrow)?,
            affected_rows: output.affected_rows,
            window: Window::new(limits),
        })
    }

    /// Sends everything and waits until the client has taken it. A result without rows is one batch
    /// that tells the columns.
    // wire: golden/user/employee
    pub(crate) async fn send_all(mut self, batches: Batches) -> Result<(), Failure> {
        let (first, rest) = batches.into_future().await;
        let mut encoded = self.encoded(first, rest);
        let mut sent_any = false;
        while let Some(batch) = self.next_encoded(&mut encoded).await? {
            self.send(batch).await?;
            sent_any = true;
        }
        if !sent_any {
            let columns = self.bodies.schema_only()?;
            self.send(columns).await?;
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
    ) -> Outgoings {
        let options = &self.query.shared.options;
        let limits = PieceLimits {
            rows_max: options.batch_rows_max,
            bytes_target: options.batch_bytes_target,
        };
        let pieces = stream::iter(first.map(|batch| vec![batch]))
            .chain(rest.ready_chunks(GATHERED_BATCHES_MAX))
            .flat_map(move |ready| stream::iter(pieces(ready, limits)));
        let runtime = self.query.shared.runtime.clone();
        self.bodies.of(pieces.boxed(), runtime)
    }

    /// The next piece; acknowledgements are taken while it is made.
    async fn next_encoded(&mut self, encoded: &mut Outgoings) -> Result<Option<Outgoing>, Failure> {
        loop {
            tokio::select! {
                biased;
                Some(answer) = self.window.next(), if !self.window.is_empty() => check(answer)?,
                piece = encoded.next() => return Ok(piece.transpose()?),
            }
        }
    }

    async fn send(&mut self, batch: Outgoing) -> Result<(), Failure> {
        let (rows, bytes) = (batch.rows, batch.body_bytes());
        let charge = self.make_room(bytes).await?;
        let (message, dbody) = (self.message(rows, batch.def), batch.dbody);
        let options = self.query.call_options();
        let sent = self
            .query
            .connection
            .start::<QueryDataCall>(&message, dbody, options)
            .await;
        let answer = sent.map_err(unsent)?;
        self.query.entry.sent(rows, bytes);
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

    fn message(&self, rows: usize, mut def: Option<RecordBatchDef>) -> QueryData {
        if let Some(def) = &mut def {
            def.affected_rows_count = self.affected_rows;
        }
        QueryData {
            query_id: Some(self.query.request.id.into()),
            // Java's int, which the pieces are far below.
            row_count: Some(i32::try_from(rows).unwrap_or(i32::MAX)),
            arrow_body: def.is_none().then_some(true),
            def,
            affected_rows_count: self.affected_rows,
        }
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
