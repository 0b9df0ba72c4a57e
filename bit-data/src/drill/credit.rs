//! Credits of Drill's answers, and the window of a sender that they move. No clock, no socket.

use protos::data::AckWithCredit;

/// What the answer to a batch says to its sender.
// wire: drill@051b164 exec/java-exec/.../rpc/data/DataTunnel.java, DynamicSemaphore.java; golden/dist/dynfc.data1
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Credit(i32);

impl Credit {
    /// Taken; the sender keeps its window.
    pub const NO_ADVICE: Self = Self(0);
    /// Not taken; the sending fragment fails.
    pub const REFUSED: Self = Self(-1);

    /// Taken; `batches` may be unanswered at a time. A sender of Drill hears the first such advice of at least 3.
    #[must_use]
    pub fn of_batches(batches: u16) -> Self {
        Self(i32::from(batches))
    }

    /// As on the wire.
    pub(crate) fn batches(self) -> i32 {
        self.0
    }

    /// Whether the batch was not taken.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        self < Self::NO_ADVICE
    }
}

impl From<Credit> for AckWithCredit {
    fn from(credit: Credit) -> Self {
        Self {
            allowed_credit: Some(credit.0),
        }
    }
}

impl From<AckWithCredit> for Credit {
    fn from(ack: AckWithCredit) -> Self {
        Self(ack.allowed_credit())
    }
}

/// How many batches of a tunnel may be unanswered, and how many are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Window {
    size: usize,
    size_max: usize,
    unanswered: usize,
    /// Whether the one advice that counts has been heard.
    advised: bool,
}

impl Window {
    /// As many batches as a sender may have unanswered before any advice.
    const INITIAL: usize = 3;

    /// Advice above `size_max` counts as `size_max`.
    pub(crate) fn new(size_max: usize) -> Self {
        Self {
            size: Self::INITIAL,
            size_max: size_max.max(Self::INITIAL),
            unanswered: 0,
            advised: false,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn has_room(&self) -> bool {
        self.unanswered < self.size
    }

    pub(crate) fn on_sent(&mut self) {
        self.unanswered += 1;
    }

    /// One batch is settled, whether or not it was answered.
    pub(crate) fn on_settled(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// The first advice of at least the initial size counts, and no other.
    pub(crate) fn on_credit(&mut self, credit: Credit) {
        let advice = usize::try_from(credit.0).unwrap_or(0);
        if !self.advised && advice >= Self::INITIAL {
            self.advised = true;
            self.size = advice.min(self.size_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credit(batches: i32) -> Credit {
        AckWithCredit {
            allowed_credit: Some(batches),
        }
        .into()
    }

    #[test]
    fn three_batches_may_be_unanswered_until_one_is_settled() {
        let mut window = Window::new(1024);
        for _ in 0..3 {
            assert!(window.has_room());
            window.on_sent();
        }
        assert!(!window.has_room());
        window.on_settled();
        assert!(window.has_room());
    }

    #[test]
    fn only_the_first_advice_of_at_least_three_counts() {
        let mut window = Window::new(1024);
        let mut sizes = Vec::new();
        for advice in [0, 1, 2, -1, 20, 50, 3, 0] {
            window.on_credit(credit(advice));
            sizes.push(window.size());
        }
        assert_eq!(sizes, [3, 3, 3, 3, 20, 20, 20, 20]);

        let mut kept = Window::new(1024);
        kept.on_credit(credit(3));
        kept.on_credit(credit(20));
        assert_eq!(kept.size(), 3, "three was the advice");
    }

    #[test]
    fn no_peer_makes_the_window_endless() {
        let mut window = Window::new(100);
        window.on_credit(credit(i32::MAX));
        assert_eq!(window.size(), 100);
    }

    #[test]
    fn an_absent_credit_is_no_advice_and_any_negative_one_a_refusal() {
        let absent = Credit::from(AckWithCredit::default());
        assert_eq!(absent, Credit::NO_ADVICE);
        assert!(credit(-7).is_refusal() && Credit::REFUSED.is_refusal());
        assert!(!absent.is_refusal() && !Credit::of_batches(20).is_refusal());
    }
}
