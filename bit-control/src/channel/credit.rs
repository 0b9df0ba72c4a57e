//! Credits of one direction, from both ends, in bytes. A limit is absolute: what the sender may ever have sent. So it
//! may come twice, late, or not at all if a later one does.

/// What a message costs at least, in bytes: about what an empty one takes in memory.
pub(crate) const COST_BYTES_MIN: u64 = 256;

/// What a message costs.
pub(crate) fn cost_bytes(message_bytes: usize) -> u64 {
    (message_bytes as u64).max(COST_BYTES_MIN)
}

/// The sender's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SendCredit {
    limit_bytes: u64,
    sent_bytes: u64,
}

impl SendCredit {
    /// Whether one more message may be sent, whatever it costs.
    pub(crate) fn may_send(self) -> bool {
        self.limit_bytes > self.sent_bytes
    }

    pub(crate) fn on_sent(&mut self, cost_bytes: u64) {
        self.sent_bytes = self.sent_bytes.saturating_add(cost_bytes);
    }

    /// Takes a new limit; one that is not above the old says nothing.
    pub(crate) fn raise(&mut self, limit_bytes: u64) {
        self.limit_bytes = self.limit_bytes.max(limit_bytes);
    }
}

/// A peer has sent without credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message beyond the credit: {received_bytes} bytes came, the limit is {granted_bytes}")]
pub(crate) struct BeyondCredit {
    received_bytes: u64,
    granted_bytes: u64,
}

/// The receiver's end; all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReceiveWindow {
    window: u64,
    granted: u64,
    received: u64,
    taken: u64,
}

impl ReceiveWindow {
    pub(crate) fn new(window_bytes: u64) -> Self {
        Self {
            window: window_bytes,
            granted: window_bytes,
            received: 0,
            taken: 0,
        }
    }

    /// The limit that the peer was told last; at first, the one to open the channel with.
    pub(crate) fn granted_bytes(self) -> u64 {
        self.granted
    }

    pub(crate) fn on_received(&mut self, cost_bytes: u64) -> Result<(), BeyondCredit> {
        if self.received >= self.granted {
            return Err(BeyondCredit {
                received_bytes: self.received,
                granted_bytes: self.granted,
            });
        }
        self.received = self.received.saturating_add(cost_bytes);
        Ok(())
    }

    /// A message was taken; returns the limit that the peer is to be told, once half of the window is free.
    pub(crate) fn on_taken(&mut self, cost_bytes: u64) -> Option<u64> {
        self.taken = self.taken.saturating_add(cost_bytes);
        let target = self.taken.saturating_add(self.window);
        let is_due = target.saturating_sub(self.granted) >= self.window.div_ceil(2);
        if !is_due {
            return None;
        }
        self.granted = target;
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    /// Whatever is sent and taken in whatever order: a sender that waits for credit gets it once all was taken, and what
    /// waits is never more than the window and one message.
    #[test]
    fn a_sender_never_waits_for_a_receiver_that_has_taken_all() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let window = random.random_range(1..5000);
            let mut here = ReceiveWindow::new(window);
            let mut there = SendCredit::default();
            there.raise(here.granted_bytes());
            let (mut queue, mut credits) = (Vec::new(), Vec::new());
            for _ in 0..2000 {
                match random.random_range(0..3) {
                    0 if there.may_send() => {
                        let cost = cost_bytes(random.random_range(0..1000));
                        there.on_sent(cost);
                        here.on_received(cost).expect("within the credit");
                        queue.push(cost);
                    }
                    1 if !queue.is_empty() => credits.extend(here.on_taken(queue.remove(0))),
                    // In any order, as often as one likes.
                    2 if !credits.is_empty() => {
                        there.raise(credits[random.random_range(0..credits.len())]);
                    }
                    _ => {}
                }
                assert!(queue.iter().sum::<u64>() < window + 1000);
                if queue.is_empty() {
                    for &limit in &credits {
                        there.raise(limit);
                    }
                    assert!(there.may_send(), "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn a_message_beyond_the_credit_is_seen() {
        let mut window = ReceiveWindow::new(300);
        assert!(window.on_received(cost_bytes(0)).is_ok());
        assert!(
            window.on_received(cost_bytes(1000)).is_ok(),
            "it may overrun"
        );
        let error = window.on_received(1).expect_err("no credit is left");
        let expected = "a message beyond the credit: 1256 bytes came, the limit is 300";
        assert_eq!(error.to_string(), expected);
    }
}
