//! The rows of one query.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::{Stream, future::poll_fn};
use protos::id::QueryId;
use rpc_bus::CloseReason;

use crate::{
    bodies::Bodies,
    error::ClientError,
    gate::Undelivered,
    link::{Lease, Link},
    router::{Event, Events},
};

/// What comes of a query, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryEvent {
    /// The batches that follow have these columns. Comes before the first batch, and again when the
    /// columns change.
    Schema(SchemaRef),
    /// Rows; never without any.
    Batch(RecordBatch),
}

/// The result of a query, as a stream of record batches.
///
/// Batches are decoded when they are polled for, on the task that polls. The server is told only
/// then that they were taken, so that a slow consumer slows the query down. After an error nothing
/// follows. Dropping the stream before its end cancels the query.
pub struct QueryStream {
    id: QueryId,
    /// `None` after the end: a stream that is kept keeps no connection.
    running: Option<Running>,
    bodies: Bodies,
    schema: Option<SchemaRef>,
    /// Rows that come after a schema.
    waiting: Option<RecordBatch>,
    affected_rows: Option<i32>,
}

/// Where the rest comes from.
struct Running {
    link: Arc<Link>,
    events: Events,
    /// Gives the connection back.
    _lease: Option<Lease>,
}

impl QueryStream {
    pub(crate) fn new(link: Arc<Link>, lease: Option<Lease>, id: QueryId, events: Events) -> Self {
        Self {
            id,
            running: Some(Running {
                link,
                events,
                _lease: lease,
            }),
            bodies: Bodies::default(),
            schema: None,
            waiting: None,
            affected_rows: None,
        }
    }

    /// The server's name for the query.
    #[must_use]
    pub fn query_id(&self) -> QueryId {
        self.id
    }

    /// Columns of the last batch, or of a result without rows; `None` before the server has told
    /// them.
    #[must_use]
    pub fn schema(&self) -> Option<SchemaRef> {
        self.schema.clone()
    }

    /// For a statement that writes: how many rows it wrote, if the server tells.
    #[must_use]
    pub fn affected_rows(&self) -> Option<i32> {
        self.affected_rows
    }

    /// The next event; `None` at the end. The stream itself gives the batches alone.
    ///
    /// # Errors
    ///
    /// The query failed or was cancelled, or the connection was lost. Nothing follows.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn next_event(&mut self) -> Result<Option<QueryEvent>, ClientError> {
        poll_fn(|cx| self.poll_event(cx)).await.transpose()
    }

    /// Asks the server to end the query, if it has not ended. What is on its way still comes, and
    /// then [`ClientError::Canceled`], unless the query ended by itself before.
    ///
    /// # Errors
    ///
    /// The server could not be asked.
    pub async fn cancel(&self) -> Result<(), ClientError> {
        match &self.running {
            Some(running) => running.link.cancel(self.id).await,
            None => Ok(()),
        }
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<QueryEvent, ClientError>>> {
        loop {
            if let Some(batch) = self.waiting.take() {
                return Poll::Ready(Some(Ok(QueryEvent::Batch(batch))));
            }
            let Some(running) = &mut self.running else {
                return Poll::Ready(None);
            };
            let event = match ready!(running.events.poll_recv(cx)) {
                Some(Event::Batch(batch)) => self.receive(batch).transpose(),
                Some(Event::End(end)) => {
                    self.running = None;
                    return Poll::Ready(end.err().map(Err));
                }
                None => {
                    self.running = None;
                    Some(Err(ClientError::Lost(CloseReason::Aborted)))
                }
            };
            if let Some(event) = event {
                return Poll::Ready(Some(event));
            }
        }
    }

    /// What a batch means to the consumer; `None` if it brings nothing new.
    fn receive(&mut self, batch: Undelivered) -> Result<Option<QueryEvent>, ClientError> {
        self.affected_rows = batch.affected_rows().or(self.affected_rows);
        let batch = self.bodies.decode(batch.take());
        let batch = batch.inspect_err(|_| self.abandon())?;
        let schema = batch.schema();
        let has_rows = batch.num_rows() > 0;
        // wire: golden/transcripts/fake2 "emptyfirst": a batch may have neither columns nor rows
        let is_new = self.schema.as_ref() != Some(&schema);
        if is_new && (has_rows || !schema.fields().is_empty()) {
            self.schema = Some(Arc::clone(&schema));
            self.waiting = has_rows.then_some(batch);
            return Ok(Some(QueryEvent::Schema(schema)));
        }
        Ok(has_rows.then_some(QueryEvent::Batch(batch)))
    }

    /// Nobody wants the rest.
    fn abandon(&mut self) {
        if let Some(running) = self.running.take() {
            running.link.abandon(self.id, running.events);
        }
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.poll_event(cx)) {
                Some(Ok(QueryEvent::Schema(_))) => {}
                Some(Ok(QueryEvent::Batch(batch))) => return Poll::Ready(Some(Ok(batch))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for QueryStream {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl fmt::Debug for QueryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryStream")
            .field("id", &self.id)
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}
