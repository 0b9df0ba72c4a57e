//! The sender of a stream: batches in, frames out.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::Sink;
use rpc_bus::RpcFailure;
use tokio_util::sync::ReusableBoxFuture;

use super::{
    address::StreamAddress,
    error::SendError,
    stats::{SendStats, lock, now},
    transmitter::Transmitter,
};

/// Sends the batches of one fragment to another: a [`Sink`] with back-pressure.
///
/// `send` of [`futures::SinkExt`] returns once the batch is with the connection. `feed` keeps the batch, and the next call
/// begins to send it: a task may feed several senders in turn. `close` ends the stream, after all batches; dropping the
/// sender before cancels it.
///
/// A batch that is being sent has its place in the queue for room on the connection, and gets room that others then wait
/// for. So a sender that was not ready is to be polled until it is, or to be dropped: also by a task that makes the next
/// batch meanwhile, with `flush` beside it.
#[must_use = "a sender that is dropped cancels its stream"]
pub struct StreamSender {
    address: StreamAddress,
    schema: SchemaRef,
    stats: Arc<Mutex<SendStats>>,
    state: State,
    job: Job,
}

type Done = (Option<Box<Transmitter>>, Result<(), SendError>);
type Job = ReusableBoxFuture<'static, Done>;

enum State {
    /// Ready for a batch.
    Idle(Box<Transmitter>),
    /// The job has the transmitter.
    Sending,
    Ending,
    Ended(Result<(), SendError>),
}

impl StreamSender {
    pub(crate) fn new(address: StreamAddress, schema: SchemaRef, transmitter: Transmitter) -> Self {
        Self {
            address,
            schema,
            stats: transmitter.stats(),
            state: State::Idle(Box::new(transmitter)),
            job: ReusableBoxFuture::new(std::future::ready((None, Ok(())))),
        }
    }

    /// Which stream it is.
    #[must_use]
    pub fn address(&self) -> StreamAddress {
        self.address
    }

    /// Of its batches.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> SendStats {
        lock(&self.stats).until(now())
    }

    /// Ends the stream with an error, which its receiver gets behind the batches that were sent.
    ///
    /// # Errors
    ///
    /// The stream has ended already, or its receiver cannot be told.
    pub async fn fail(mut self, failure: RpcFailure) -> Result<(), SendError> {
        std::future::poll_fn(|cx| self.poll_idle(cx)).await?;
        match std::mem::replace(&mut self.state, State::Ended(Err(SendError::Ended))) {
            State::Idle(mut transmitter) => transmitter.fail(failure).await,
            _ => Err(SendError::Ended),
        }
    }

    /// Waits until nothing is being sent.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        loop {
            match &mut self.state {
                State::Idle(transmitter) => {
                    let Some(stopped) = transmitter.stopped() else {
                        return Poll::Ready(Ok(()));
                    };
                    self.state = State::Ended(Err(stopped));
                }
                State::Sending => match ready!(self.job.poll(cx)) {
                    (Some(transmitter), Ok(())) => self.state = State::Idle(transmitter),
                    (_, outcome) => self.state = State::Ended(outcome),
                },
                State::Ending => {
                    let (_, outcome) = ready!(self.job.poll(cx));
                    self.state = State::Ended(outcome);
                }
                State::Ended(outcome) => {
                    let ended = |()| Err(SendError::Ended);
                    return Poll::Ready(outcome.clone().and_then(ended));
                }
            }
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        match self.state {
            State::Ending | State::Ended(_) => {}
            State::Idle(_) | State::Sending => ready!(self.poll_idle(cx))?,
        }
        let state = std::mem::replace(&mut self.state, State::Ending);
        match state {
            State::Idle(mut transmitter) => self.job.set(async move {
                let outcome = transmitter.finish().await;
                (None, outcome)
            }),
            state => self.state = state,
        }
        if let State::Ending = self.state {
            let (_, outcome) = ready!(self.job.poll(cx));
            self.state = State::Ended(outcome);
        }
        match &self.state {
            State::Ended(outcome) => Poll::Ready(outcome.clone()),
            _ => Poll::Pending,
        }
    }
}

impl Sink<RecordBatch> for StreamSender {
    type Error = SendError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_idle(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, batch: RecordBatch) -> Result<(), SendError> {
        match std::mem::replace(&mut self.state, State::Sending) {
            State::Idle(mut transmitter) => {
                self.job.set(async move {
                    let outcome = transmitter.send(batch).await;
                    (Some(transmitter), outcome)
                });
                Ok(())
            }
            state => {
                self.state = state;
                Err(SendError::Ended)
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_idle(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_end(cx)
    }
}

impl fmt::Debug for StreamSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSender")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
