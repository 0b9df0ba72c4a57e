//! Several senders of one receiver, taken from in one of three ways.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::{
    Stream, StreamExt,
    stream::{FusedStream, SelectAll},
};

use crate::merge::{Merge, MergeKeyError, MergeOptions, SortKey};

use super::{error::ReceiveError, inbound::Inbound, receiver::StreamReceiver, stats::ReceiveStats};

/// The streams of all senders of a receiver, open and not yet taken from.
#[derive(Debug)]
#[must_use = "receivers that are dropped cancel their streams"]
pub struct Receivers(Vec<StreamReceiver>);

impl Receivers {
    pub(crate) fn new(receivers: Vec<StreamReceiver>) -> Self {
        Self(receivers)
    }

    /// One queue: batches in the order in which they come. Those of one sender keep theirs.
    pub fn unordered(self) -> Unordered {
        Unordered {
            counters: self.0.iter().map(StreamReceiver::inbound).collect(),
            open: self.0.into_iter().collect(),
        }
    }

    /// One sorted stream of sorted ones, which must all have the columns of `schema`. It holds one batch of each sender
    /// beside what their windows hold.
    ///
    /// # Errors
    ///
    /// The keys cannot be compared.
    pub fn merged(
        self,
        schema: SchemaRef,
        keys: &[SortKey],
        options: MergeOptions,
    ) -> Result<Merge<StreamReceiver>, MergeKeyError> {
        Merge::try_new(schema, keys, self.0, options)
    }

    /// Each on its own, in the order in which they were asked for.
    #[must_use]
    pub fn per_sender(self) -> Vec<StreamReceiver> {
        self.0
    }
}

/// Batches of all senders in the order in which they come. The first error ends it and cancels the other senders.
#[derive(Debug)]
#[must_use = "a receiver that is dropped cancels its streams"]
pub struct Unordered {
    open: SelectAll<StreamReceiver>,
    /// Of all, also of those that have ended.
    counters: Vec<Arc<Inbound>>,
}

impl Unordered {
    /// What all streams have counted, summed.
    #[must_use]
    pub fn stats(&self) -> ReceiveStats {
        let mut sum = ReceiveStats::default();
        for stream in &self.counters {
            sum.add(&stream.stats());
        }
        sum
    }

    /// Wants no more of any: for the senders that is success.
    pub fn finish(self) {
        self.open.into_iter().for_each(StreamReceiver::finish);
    }
}

impl Stream for Unordered {
    type Item = Result<RecordBatch, ReceiveError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.open.poll_next_unpin(cx));
        if matches!(next, Some(Err(_))) {
            self.open.clear();
        }
        Poll::Ready(next)
    }
}

impl FusedStream for Unordered {
    fn is_terminated(&self) -> bool {
        self.open.is_terminated()
    }
}
