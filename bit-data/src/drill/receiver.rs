//! The consumer's end: a stream of decoded batches.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use arrow::array::RecordBatch;
use futures::Stream;
use protos::{
    body,
    id::{FragmentId, MajorFragmentId, MinorFragmentId},
    shared::RecordBatchDef,
};
use record_batch::{DecodeOptions, Decoder};

use super::{
    credit::Credit,
    error::ReceiveError,
    fragments::Registration,
    header::ArrivedBatch,
    queue::{Popped, Queue, Remains},
};

/// What a fragment receives from one stage (Drill's `Collector`).
#[derive(Clone, Debug)]
pub struct Input {
    /// The stage that sends.
    pub sending_major: MajorFragmentId,
    /// All that send of it.
    pub senders: Vec<MinorFragmentId>,
    /// Whether it matters who sent what.
    pub order: Order,
    /// What the senders are told with every batch that is taken. [`Credit::NO_ADVICE`] leaves them at three batches each.
    pub credit: Credit,
}

/// How the batches of several senders are handed out. Those of one sender always come in the order in which it sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One stream, as they come.
    AsTheyCome,
    /// A stream for each sender, in the order of their numbers.
    PerSender,
}

/// Batches of one or several senders of a stage. It ends when all of them have sent their last batch, or with an error.
///
/// Dropping it before that tells the senders, through [`FragmentEvents`](super::FragmentEvents), that nothing more is
/// wanted; what they still send is acknowledged and dropped.
pub struct BatchStream {
    cell: Arc<QueueCell>,
    decoder: Decoder,
    /// Whether a batch without rows has told the columns already.
    knows_schema: bool,
    sending_major: MajorFragmentId,
    registration: Registration,
}

impl BatchStream {
    pub(crate) fn new(
        cell: Arc<QueueCell>,
        sending_major: MajorFragmentId,
        registration: Registration,
    ) -> Self {
        Self {
            cell,
            decoder: Decoder::new(DecodeOptions::default()),
            knows_schema: false,
            sending_major,
            registration,
        }
    }

    /// The stage whose batches these are.
    #[must_use]
    pub fn sending_major(&self) -> MajorFragmentId {
        self.sending_major
    }

    /// Whose batches these are.
    #[must_use]
    pub fn senders(&self) -> Vec<MinorFragmentId> {
        self.cell.lock().senders().collect()
    }

    /// `None` for a batch that has nothing to tell: one without rows, unless it is the first to name the columns.
    fn decode(&mut self, batch: &ArrivedBatch) -> Result<Option<RecordBatch>, ReceiveError> {
        let sender = FragmentId {
            query: self.registration.receiver().query,
            major: batch.sending_major,
            minor: batch.sending_minor,
        };
        let def = body::decode::<RecordBatchDef>(&mut batch.def.clone())
            .map_err(|source| ReceiveError::Descriptor { sender, source })?;
        if def.record_count() == 0 && (self.knows_schema || def.field.is_empty()) {
            return Ok(None);
        }
        self.knows_schema = true;
        let decoded = self.decoder.decode(&def, &batch.body);
        let decoded = decoded.map_err(|source| ReceiveError::Decode { sender, source })?;
        Ok(Some(decoded))
    }
}

impl Stream for BatchStream {
    type Item = Result<(MinorFragmentId, RecordBatch), ReceiveError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (popped, credit) = {
                let mut queue = self.cell.lock();
                (queue.pop(cx.waker()), queue.credit())
            };
            let (batch, share) = match popped {
                Popped::Batch(batch, share) => (batch, share),
                Popped::Failed(error) => return Poll::Ready(Some(Err(error))),
                Popped::Ended => return Poll::Ready(None),
                Popped::Nothing => return Poll::Pending,
            };
            if let Some(share) = share {
                share.accept(credit);
            }
            match self.decode(&batch) {
                Ok(Some(decoded)) => return Poll::Ready(Some(Ok((batch.sending_minor, decoded)))),
                Ok(None) => {}
                // Told to the consumer by the next turn.
                Err(error) => drop(self.cell.with(|queue| queue.fail(error))),
            }
        }
    }
}

impl Drop for BatchStream {
    fn drop(&mut self) {
        let unfinished = self.cell.with(|queue| queue.close(None));
        self.registration.stop(&unfinished);
    }
}

impl fmt::Debug for BatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchStream")
            .field("receiver", &self.registration.receiver())
            .field("sending_major", &self.sending_major)
            .finish_non_exhaustive()
    }
}

/// A queue that server and consumer share.
pub(crate) struct QueueCell(Mutex<Queue>);

impl QueueCell {
    pub(crate) fn new(queue: Queue) -> Self {
        Self(Mutex::new(queue))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the queue; what that leaves is let go of once the queue is unlocked. Returns the senders that
    /// had not ended, where this ended the queue.
    pub(crate) fn with(&self, step: impl FnOnce(&mut Queue) -> Remains) -> Vec<FragmentId> {
        let mut remains = step(&mut self.lock());
        std::mem::take(&mut remains.unfinished)
    }
}
