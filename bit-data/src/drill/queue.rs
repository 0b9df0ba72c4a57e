//! What waits for one consumer: batches of one or several senders, in the order in which they came. No clock, no socket.
//!
//! ```text
//! Open --last batch of every sender taken--> (ended)
//!   |---- consumer gone, or cancelled ----> Closed: what comes is acknowledged and dropped
//!   `---- budget spent, sender lost ------> Failed: what comes is refused
//! ```

use std::{collections::VecDeque, mem, task::Waker};

use protos::id::{FragmentId, MajorFragmentId, MinorFragmentId};
use rpc_bus::{
    Charge, Ledger,
    ledger::{BudgetExceeded, Kind},
};

use super::{ack::AckShare, credit::Credit, error::ReceiveError, header::ArrivedBatch};

/// Batches a sender that may wait before their answers do.
// wire: drill@051b164 exec/java-exec/.../drill-module.conf: drill.exec.buffer.size
const BATCHES_PER_SENDER: usize = 6;

/// The batches that wait for one consumer.
pub(crate) struct Queue {
    receiver: FragmentId,
    sending_major: MajorFragmentId,
    /// In the order of their numbers.
    senders: Vec<Sender>,
    /// Senders whose last batch has not been taken.
    unfinished: usize,
    waiting: VecDeque<Waiting>,
    /// Answered on arrival while fewer wait; afterwards when they are taken.
    batches_soft_max: usize,
    credit: Credit,
    budget: Ledger,
    state: State,
    consumer: Option<Waker>,
}

struct Sender {
    minor: MinorFragmentId,
    /// Where its last batch so far came from.
    connection: Option<u64>,
    /// Whether its last batch of all has come.
    has_ended: bool,
}

/// The errors are those that the consumer has not been told yet.
enum State {
    Open,
    Closed(Option<ReceiveError>),
    Failed(Option<ReceiveError>),
}

/// A batch in the queue.
struct Waiting {
    batch: ArrivedBatch,
    /// `None` once answered.
    share: Option<AckShare>,
    _charge: Charge,
}

/// What the consumer gets.
pub(crate) enum Popped {
    /// A batch, and its answer if that has waited for this.
    Batch(ArrivedBatch, Option<AckShare>),
    Failed(ReceiveError),
    /// All senders have ended, or nobody wants anything any more.
    Ended,
    /// The waker is woken when there is more.
    Nothing,
}

/// What a queue lets go of. Dropping it refuses the batches and wakes the consumer: not with the queue locked.
#[must_use = "to be dropped once the queue is unlocked"]
#[derive(Default)]
pub(crate) struct Remains {
    waiting: VecDeque<Waiting>,
    consumer: Option<Waker>,
    /// Senders that had not sent their last batch.
    pub(crate) unfinished: Vec<FragmentId>,
}

impl Queue {
    /// A queue for the batches of `senders`, none of which is named twice. What waits is charged to `budget`.
    pub(crate) fn new(
        receiver: FragmentId,
        sending_major: MajorFragmentId,
        mut senders: Vec<MinorFragmentId>,
        credit: Credit,
        budget: Ledger,
    ) -> Self {
        senders.sort_unstable();
        let senders: Vec<_> = senders.into_iter().map(Sender::new).collect();
        Self {
            receiver,
            sending_major,
            unfinished: senders.len(),
            batches_soft_max: senders.len().saturating_mul(BATCHES_PER_SENDER),
            senders,
            waiting: VecDeque::new(),
            credit,
            budget,
            state: State::Open,
            consumer: None,
        }
    }

    /// Takes a batch in, or answers it at once. To be called in the order of arrival.
    pub(crate) fn push(
        &mut self,
        batch: ArrivedBatch,
        share: AckShare,
        connection: u64,
    ) -> Remains {
        match self.state {
            State::Open => {}
            State::Closed(_) => {
                share.accept(Credit::NO_ADVICE);
                return Remains::default();
            }
            State::Failed(_) => return Remains::default(),
        }
        let at = |sender: &Sender| sender.minor.cmp(&batch.sending_minor);
        let Ok(at) = self.senders.binary_search_by(at) else {
            return Remains::default();
        };
        // wire: drill@051b164 exec/java-exec/.../work/batch/BaseRawBatchBuffer.java: nothing comes after the end
        if self.senders[at].has_ended {
            return Remains::default();
        }
        let charge = match self.budget.charge(Kind::Bytes, batch.memory_bytes()) {
            Ok(charge) => charge,
            Err(exceeded) => return self.fail(self.out_of_budget(exceeded)),
        };
        self.senders[at].connection = Some(connection);
        self.senders[at].has_ended = batch.is_last;
        let share = self.answer_early(share);
        self.waiting.push_back(Waiting {
            batch,
            share,
            _charge: charge,
        });
        let mut remains = Remains::default();
        remains.consumer = self.consumer.take();
        remains
    }

    /// Takes the next batch out; `waker` is woken when there is one.
    pub(crate) fn pop(&mut self, waker: &Waker) -> Popped {
        if let State::Closed(error) | State::Failed(error) = &mut self.state {
            return error.take().map_or(Popped::Ended, Popped::Failed);
        }
        if let Some(Waiting { batch, share, .. }) = self.waiting.pop_front() {
            self.unfinished -= usize::from(batch.is_last);
            return Popped::Batch(batch, share);
        }
        if self.unfinished == 0 {
            return Popped::Ended;
        }
        self.consumer = Some(waker.clone());
        Popped::Nothing
    }

    /// What answers say that go out when a batch is taken.
    pub(crate) fn credit(&self) -> Credit {
        self.credit
    }

    /// Who sends.
    pub(crate) fn senders(&self) -> impl Iterator<Item = MinorFragmentId> {
        self.senders.iter().map(|sender| sender.minor)
    }

    /// What waits is acknowledged and dropped, and so is what comes. The consumer is told `error`, if it is not it that
    /// wants no more.
    pub(crate) fn close(&mut self, error: Option<ReceiveError>) -> Remains {
        let mut remains = self.end(State::Closed(error));
        let waiting = remains.waiting.iter_mut();
        let shares = waiting.filter_map(|waiting| waiting.share.take());
        shares.for_each(|share| share.accept(Credit::NO_ADVICE));
        remains
    }

    /// What waits is refused, and so is what comes. The consumer is told `error`.
    pub(crate) fn fail(&mut self, error: ReceiveError) -> Remains {
        self.end(State::Failed(Some(error)))
    }

    /// A connection has ended: a sender that used it and has not sent its last batch is lost.
    pub(crate) fn on_connection_closed(&mut self, connection: u64) -> Remains {
        let is_lost = |sender: &&Sender| sender.connection == Some(connection) && !sender.has_ended;
        match self.senders.iter().find(is_lost) {
            Some(sender) => {
                let lost = self.address(sender);
                self.fail(ReceiveError::SenderLost(lost))
            }
            None => Remains::default(),
        }
    }

    /// Answers at once while few batches wait and half of the budget is free; else the share is kept.
    fn answer_early(&self, share: AckShare) -> Option<AckShare> {
        let limit = self.budget.limit(Kind::Bytes);
        let is_tight = limit.is_some_and(|limit| self.budget.used(Kind::Bytes) > limit / 2);
        if is_tight || self.waiting.len() >= self.batches_soft_max {
            return Some(share);
        }
        share.accept(self.credit);
        None
    }

    fn out_of_budget(&self, source: BudgetExceeded) -> ReceiveError {
        ReceiveError::Budget {
            receiver: self.receiver,
            source,
        }
    }

    fn end(&mut self, state: State) -> Remains {
        if !matches!(self.state, State::Open) {
            return Remains::default();
        }
        self.state = state;
        let unfinished = self.senders.iter().filter(|sender| !sender.has_ended);
        Remains {
            unfinished: unfinished.map(|sender| self.address(sender)).collect(),
            waiting: mem::take(&mut self.waiting),
            consumer: self.consumer.take(),
        }
    }

    fn address(&self, sender: &Sender) -> FragmentId {
        FragmentId {
            query: self.receiver.query,
            major: self.sending_major,
            minor: sender.minor,
        }
    }
}

impl Sender {
    fn new(minor: MinorFragmentId) -> Self {
        Self {
            minor,
            connection: None,
            has_ended: false,
        }
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            consumer.wake();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use rpc_bus::ledger::Limits;

    use super::{
        super::{
            ack::tests::{Answers, answered, share},
            header::tests::QUERY,
        },
        *,
    };

    const CONNECTION: u64 = 9;

    fn budget(bytes: Option<usize>) -> Ledger {
        let limits = Limits {
            bytes,
            ..Limits::default()
        };
        Ledger::root("test", limits)
    }

    fn queue(senders: &[i32], budget: &Ledger) -> Queue {
        let minors = senders.iter().copied().map(MinorFragmentId).collect();
        let receiver = FragmentId::new(QUERY, 1, 0);
        let credit = Credit::of_batches(5);
        Queue::new(receiver, MajorFragmentId(2), minors, credit, budget.clone())
    }

    fn batch(sender: i32, bytes: usize) -> ArrivedBatch {
        ArrivedBatch {
            sending_major: MajorFragmentId(2),
            sending_minor: MinorFragmentId(sender),
            def: Bytes::new(),
            body: vec![0; bytes].into(),
            is_last: false,
        }
    }

    fn last(sender: i32) -> ArrivedBatch {
        ArrivedBatch {
            is_last: true,
            ..batch(sender, 0)
        }
    }

    fn push(queue: &mut Queue, batch: ArrivedBatch) -> Answers {
        let (share, answers) = share();
        drop(queue.push(batch, share, CONNECTION));
        answers
    }

    /// The sender of the next batch, whose answer goes out.
    fn pop(queue: &mut Queue) -> Option<i32> {
        match queue.pop(Waker::noop()) {
            Popped::Batch(batch, share) => {
                if let Some(share) = share {
                    share.accept(queue.credit());
                }
                Some(batch.sending_minor.0)
            }
            Popped::Failed(error) => panic!("{error}"),
            Popped::Ended | Popped::Nothing => None,
        }
    }

    fn has_ended(queue: &mut Queue) -> bool {
        matches!(queue.pop(Waker::noop()), Popped::Ended)
    }

    #[test]
    fn six_batches_a_sender_are_answered_when_they_come_and_more_when_they_are_taken() {
        for senders in [1, 3] {
            let ledger = budget(None);
            let mut queue = queue(&[4, 7, 2][..senders], &ledger);
            let soft = 6 * senders;
            let mut answers: Vec<_> = (0..soft + 3)
                .map(|_| push(&mut queue, batch(4, 10)))
                .collect();
            let late = answers.split_off(soft);
            for early in &answers {
                assert_eq!(answered(early), [Credit::of_batches(5)]);
            }
            for late in &late {
                assert_eq!(answered(late), []);
            }
            for _ in 0..soft {
                assert_eq!(pop(&mut queue), Some(4));
            }
            for late in late {
                assert_eq!(answered(&late), [], "not before it is taken");
                assert_eq!(pop(&mut queue), Some(4));
                assert_eq!(answered(&late), [Credit::of_batches(5)]);
            }
            assert!(ledger.is_zero());
        }
    }

    #[test]
    fn batches_wait_for_their_consumer_once_half_of_the_budget_is_spent() {
        let ledger = budget(Some(10_000));
        let mut queue = queue(&[0], &ledger);
        assert_eq!(answered(&push(&mut queue, batch(0, 4_000))).len(), 1);
        let late = push(&mut queue, batch(0, 4_000));
        assert_eq!(answered(&late), []);
        assert_eq!((pop(&mut queue), pop(&mut queue)), (Some(0), Some(0)));
        assert_eq!(answered(&late), [Credit::of_batches(5)]);
        assert!(ledger.is_zero());
    }

    #[test]
    fn a_spent_budget_fails_the_receiver_and_refuses_what_waits() {
        let ledger = budget(Some(10_000));
        let mut queue = queue(&[0, 1], &ledger);
        push(&mut queue, batch(0, 4_000));
        let late = push(&mut queue, batch(1, 4_000));
        let over = push(&mut queue, batch(0, 4_000));
        for refused in [&late, &over, &push(&mut queue, batch(1, 1))] {
            assert_eq!(answered(refused), [Credit::REFUSED]);
        }
        assert!(ledger.is_zero());
        let popped = queue.pop(Waker::noop());
        assert!(matches!(
            popped,
            Popped::Failed(ReceiveError::Budget { .. })
        ));
        assert!(has_ended(&mut queue));
    }

    #[test]
    fn it_ends_when_the_last_batch_of_every_sender_has_been_taken() {
        let ledger = budget(None);
        let mut queue = queue(&[3, 8], &ledger);
        push(&mut queue, last(8));
        assert_eq!(pop(&mut queue), Some(8));
        assert!(!has_ended(&mut queue), "one sender has not ended");
        push(&mut queue, batch(3, 1));
        push(&mut queue, last(3));
        assert_eq!((pop(&mut queue), pop(&mut queue)), (Some(3), Some(3)));
        assert!(has_ended(&mut queue));
        assert!(ledger.is_zero());
    }

    #[test]
    fn strangers_and_what_comes_after_the_end_are_refused_and_nothing_else_is() {
        let ledger = budget(None);
        let mut queue = queue(&[3, 8], &ledger);
        push(&mut queue, last(3));
        assert_eq!(answered(&push(&mut queue, batch(3, 1))), [Credit::REFUSED]);
        assert_eq!(answered(&push(&mut queue, last(3))), [Credit::REFUSED]);
        assert_eq!(answered(&push(&mut queue, batch(5, 1))), [Credit::REFUSED]);
        assert_eq!(answered(&push(&mut queue, batch(8, 1))).len(), 1);
        assert_eq!((pop(&mut queue), pop(&mut queue)), (Some(3), Some(8)));
    }

    #[test]
    fn a_closed_queue_acknowledges_and_drops_and_names_whom_to_stop() {
        let ledger = budget(Some(2_000));
        let mut queue = queue(&[3, 8], &ledger);
        push(&mut queue, last(3));
        push(&mut queue, batch(8, 600));
        let late = push(&mut queue, batch(8, 1));
        assert_eq!(answered(&late), []);
        let remains = queue.close(None);
        assert_eq!(remains.unfinished, [FragmentId::new(QUERY, 2, 8)]);
        drop(remains);
        for dropped in [&late, &push(&mut queue, batch(8, 1))] {
            assert_eq!(answered(dropped), [Credit::NO_ADVICE]);
        }
        assert!(queue.close(None).unfinished.is_empty(), "only once");
        assert!(has_ended(&mut queue) && ledger.is_zero());
    }

    #[test]
    fn a_cancelled_receiver_is_told_so_once() {
        let ledger = budget(None);
        let mut queue = queue(&[3], &ledger);
        push(&mut queue, batch(3, 1));
        drop(queue.close(Some(ReceiveError::Cancelled(queue.receiver))));
        let popped = queue.pop(Waker::noop());
        assert!(matches!(popped, Popped::Failed(ReceiveError::Cancelled(_))));
        assert!(has_ended(&mut queue));
        let after = push(&mut queue, batch(3, 1));
        assert_eq!(answered(&after), [Credit::NO_ADVICE]);
        assert!(ledger.is_zero());
    }

    #[test]
    fn a_sender_is_lost_with_its_connection_unless_it_has_ended() {
        let ledger = budget(None);
        let mut queue = queue(&[3, 8], &ledger);
        push(&mut queue, last(3));
        drop(queue.on_connection_closed(CONNECTION));
        assert_eq!(pop(&mut queue), Some(3), "8 has not been heard of");
        push(&mut queue, batch(8, 1));
        drop(queue.on_connection_closed(CONNECTION + 1));
        assert_eq!(pop(&mut queue), Some(8));
        drop(queue.on_connection_closed(CONNECTION));
        match queue.pop(Waker::noop()) {
            Popped::Failed(ReceiveError::SenderLost(lost)) => {
                assert_eq!(lost, FragmentId::new(QUERY, 2, 8));
            }
            _ => panic!("the sender is lost"),
        }
        assert!(ledger.is_zero());
    }
}
