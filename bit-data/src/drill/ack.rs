//! The answer to a batch as something that its receivers own together: it goes out when the last of them has taken the
//! batch, and tells the largest of their credits. A share that is dropped refuses the batch, at once.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
};

use bytes::Bytes;
use prost::Message;
use protos::{Call, calls::data::RecordBatch, data::AckWithCredit};
use rpc_bus::Responder;

use super::credit::Credit;

/// One receiver's part of the obligation to answer a batch.
#[must_use = "a dropped share refuses the batch"]
pub(crate) struct AckShare(Option<Arc<Due>>);

impl AckShare {
    /// As many shares as there are receivers; with none, the batch is refused.
    pub(crate) fn split(reply: impl Answer, receivers: usize) -> Vec<Self> {
        let due = Arc::new(Due {
            answer: Mutex::new(Some(Box::new(reply))),
            credit: AtomicI32::new(0),
        });
        if receivers == 0 {
            due.answer(Credit::REFUSED);
        }
        (0..receivers)
            .map(|_| Self(Some(Arc::clone(&due))))
            .collect()
    }

    /// The receiver has taken the batch, or has no need of it.
    pub(crate) fn accept(mut self, credit: Credit) {
        if let Some(due) = self.0.take() {
            due.credit.fetch_max(credit.batches(), Ordering::AcqRel);
        }
    }
}

impl Drop for AckShare {
    fn drop(&mut self) {
        if let Some(due) = self.0.take() {
            due.answer(Credit::REFUSED);
        }
    }
}

impl fmt::Debug for AckShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AckShare").finish_non_exhaustive()
    }
}

/// Where the answer goes.
pub(crate) trait Answer: Send + 'static {
    fn answer(self: Box<Self>, credit: Credit);
}

impl Answer for Responder {
    fn answer(self: Box<Self>, credit: Credit) {
        let pbody = match credit {
            Credit::NO_ADVICE => Bytes::from_static(&[8, 0]),
            other => AckWithCredit::from(other).encode_to_vec().into(),
        };
        self.send(RecordBatch::RESPONSE, pbody, Vec::new());
    }
}

/// The answer that all shares owe together.
struct Due {
    /// `None` once it has gone.
    answer: Mutex<Option<Box<dyn Answer>>>,
    /// The largest so far.
    credit: AtomicI32,
}

impl Due {
    fn answer(&self, credit: Credit) {
        let answer = self.answer.lock();
        let answer = answer.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(answer) = answer {
            answer.answer(credit);
        }
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        let credit = self.credit.load(Ordering::Acquire);
        let largest = AckWithCredit {
            allowed_credit: Some(credit),
        };
        self.answer(largest.into());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Tells a test what was answered.
    pub(crate) type Answers = mpsc::Receiver<Credit>;

    struct ToTest(mpsc::Sender<Credit>);

    impl Answer for ToTest {
        fn answer(self: Box<Self>, credit: Credit) {
            // Not every test listens.
            let _ = self.0.send(credit);
        }
    }

    /// Shares of an answer that a test can see.
    pub(crate) fn shares(receivers: usize) -> (Vec<AckShare>, Answers) {
        let (sender, answers) = mpsc::channel();
        (AckShare::split(ToTest(sender), receivers), answers)
    }

    /// A single share, and its answer.
    pub(crate) fn share() -> (AckShare, Answers) {
        let (mut shares, answers) = shares(1);
        (shares.remove(0), answers)
    }

    /// Everything that was answered so far.
    pub(crate) fn answered(answers: &Answers) -> Vec<Credit> {
        answers.try_iter().collect()
    }

    #[test]
    fn the_answer_goes_when_the_last_receiver_has_taken_the_batch_and_tells_the_largest_credit() {
        let (shares, answers) = shares(3);
        for (share, credit) in shares.into_iter().zip([0, 20, 5]) {
            assert_eq!(answered(&answers), []);
            share.accept(Credit::of_batches(credit));
        }
        assert_eq!(answered(&answers), [Credit::of_batches(20)]);
    }

    #[test]
    fn a_dropped_share_refuses_at_once_and_nothing_follows() {
        let (mut shares, answers) = shares(3);
        drop(shares.pop());
        assert_eq!(answered(&answers), [Credit::REFUSED]);
        for share in shares {
            share.accept(Credit::of_batches(20));
        }
        assert_eq!(answered(&answers), []);
    }

    #[test]
    fn a_batch_for_nobody_is_refused() {
        let (shares, answers) = shares(0);
        assert!(shares.is_empty());
        assert_eq!(answered(&answers), [Credit::REFUSED]);
    }

    #[test]
    fn shares_may_be_taken_on_any_threads() {
        for _ in 0..200 {
            let (shares, answers) = shares(4);
            std::thread::scope(|scope| {
                for share in shares {
                    scope.spawn(|| share.accept(Credit::of_batches(7)));
                }
            });
            assert_eq!(answered(&answers), [Credit::of_batches(7)]);
        }
    }
}
