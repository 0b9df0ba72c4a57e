//! What came of each stream, and whether it may have.

use std::{collections::BTreeMap, error::Error, iter};

use arrow::array::RecordBatch;
use rpc_bus::CloseReason;

use super::{
    data::{Author, rows},
    plan::{Ending, Exchange, Plan},
};
use crate::stream::{ReceiveError, SendError};

pub(super) type AnyError = Box<dyn Error + Send + Sync>;

/// What one receiver has got of its senders, in one attempt.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// By sender: its attempt, and the number that comes next.
    by_sender: BTreeMap<i64, (i64, i64)>,
    /// The number of the last row of all.
    last: i64,
}

/// How an attempt of a receiver has ended.
#[derive(Debug)]
pub(super) enum ReceiverEnd {
    /// With the end of all its senders.
    All(Received),
    /// As its plan has it.
    Left,
    Failed(AnyError),
}

/// How an attempt of a sender has ended.
#[derive(Debug)]
pub(super) enum SenderEnd {
    /// All is sent.
    Sent,
    /// As its plan has it.
    Left,
    Stopped(SendError),
}

impl Received {
    /// Takes the next rows; panics if one is lost, doubled, of another sender, or out of its order.
    pub(super) fn take(&mut self, batch: &RecordBatch, senders: &[i64]) {
        for (Author { sender, attempt }, number) in rows(batch) {
            assert!(
                senders.contains(&sender),
                "a row of {sender}, expected {senders:?}"
            );
            let (of_attempt, next) = self.by_sender.entry(sender).or_insert((attempt, 0));
            assert_eq!(
                attempt, *of_attempt,
                "rows of two attempts of sender {sender}"
            );
            assert_eq!(
                number, *next,
                "lost, doubled or reordered of sender {sender}"
            );
            *next += 1;
        }
    }

    /// The same of a merging receiver, of which all rows are sorted.
    pub(super) fn take_merged(&mut self, batch: &RecordBatch, senders: &[i64]) {
        for (author, number) in rows(batch) {
            assert!(
                number >= self.last,
                "{author:?}: {number} comes behind {}",
                self.last
            );
            self.last = number;
        }
        self.take(batch, senders);
    }

    pub(super) fn join(&mut self, other: Self) {
        self.by_sender.extend(other.by_sender);
    }

    pub(super) fn rows(&self) -> u64 {
        let rows = self.by_sender.values().map(|(_, next)| next.unsigned_abs());
        rows.sum()
    }
}

/// What an exchange has come to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) receivers: Vec<ReceiverEnd>,
    /// With the index of the stream.
    pub(super) senders: Vec<(usize, SenderEnd)>,
    /// Something has happened to its nodes or their connections.
    pub(super) is_disturbed: bool,
}

impl Outcome {
    /// Panics if it may not be so.
    pub(super) fn check(&self, exchange: &Exchange, first_sender: i64, plan: &Plan) {
        for error in self.errors().filter(|_| !plan.has_damage()) {
            assert!(
                !blames_the_peer(error),
                "nothing was damaged, and yet: {error:?}"
            );
            if let Some(reason) = lost(error).filter(|_| !plan.has_disconnects()) {
                assert!(reason.is_retryable(), "another try may succeed: {error:?}");
            }
        }
        for received in self.receivers.iter().filter_map(ReceiverEnd::all) {
            for (stream, sender) in exchange.streams.iter().zip(first_sender..) {
                let sent: usize = stream.batches.iter().map(|batch| batch.rows).sum();
                let (_, came) = received.by_sender.get(&sender).copied().unwrap_or_default();
                assert_eq!(
                    usize::try_from(came),
                    Ok(sent),
                    "an end of {sender} before its last row"
                );
                let is_finished = matches!(stream.ending, Ending::Finished | Ending::DroppedAt(_));
                assert!(is_finished, "an end of {sender}, which has not finished");
            }
        }
        if !self.is_disturbed && !exchange.may_fail {
            self.check_undisturbed(exchange);
        }
    }

    fn errors(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        let receivers = self.receivers.iter().filter_map(|end| match end {
            ReceiverEnd::Failed(error) => Some(&**error as &(dyn Error + 'static)),
            _ => None,
        });
        let senders = self.senders.iter().filter_map(|(_, end)| match end {
            SenderEnd::Stopped(error) => Some(error as &(dyn Error + 'static)),
            _ => None,
        });
        receivers.chain(senders)
    }

    /// Nothing stands in its way: each side succeeds, with its first attempt.
    fn check_undisturbed(&self, exchange: &Exchange) {
        assert!(
            matches!(self.receivers[..], [ReceiverEnd::All(_)]),
            "{:?} of {exchange:#?}",
            self.receivers
        );
        let mut sent: Vec<_> = self.senders.iter().map(|(stream, _)| *stream).collect();
        sent.sort_unstable();
        assert!(
            sent.into_iter().eq(0..exchange.streams.len()),
            "{:?}",
            self.senders
        );
        let failed = self
            .senders
            .iter()
            .find(|(_, end)| !matches!(end, SenderEnd::Sent));
        assert!(failed.is_none(), "{failed:?} of {exchange:#?}");
    }
}

/// An error, and those that it comes of.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}

/// Why the connection was lost, if it was.
fn lost<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CloseReason> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// Whether what came is said to be no stream.
fn blames_the_peer(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|error| {
        matches!(
            error.downcast_ref(),
            Some(
                ReceiveError::Checksum { .. }
                    | ReceiveError::Codec(_)
                    | ReceiveError::Chunk(_)
                    | ReceiveError::Body(_)
                    | ReceiveError::Protocol(_)
            )
        )
    })
}

impl ReceiverEnd {
    fn all(&self) -> Option<&Received> {
        match self {
            Self::All(received) => Some(received),
            _ => None,
        }
    }
}
