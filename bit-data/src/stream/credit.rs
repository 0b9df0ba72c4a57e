//! Byte credits of one stream, from both ends. No clock, no socket: time comes in as an argument.
//!
//! A limit is absolute: the bytes that the sender may ever have sent. So it may come twice, late, or not at all if a
//! later one does. A sender goes on while its limit is above what it has sent, so that the last batch may overrun.
//!
//! What a receiver has promised room for is at most its window, and one batch beyond it. It raises the limit when the
//! consumer has taken half of the window: not for each batch, and not so late that the sender waits for it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What a frame costs at least, in bytes: about what an empty one takes in the receiver's memory.
pub(crate) const COST_BYTES_MIN: u64 = 256;
/// Less waiting for credit than this within half a window is no reason for a larger one.
pub(crate) const STARVED_MIN: Duration = Duration::from_micros(500);
/// The same where no link is between both ends: then it is waking each other that takes time.
pub(crate) const STARVED_MIN_HERE: Duration = Duration::from_micros(5);
/// After so many raises without any waiting, a window that has grown is halved.
const CALM_RAISES: u32 = 64;

/// What a batch costs: its bytes on the wire or in memory, whichever is more.
pub(crate) fn cost_bytes(wire_bytes: u64, decoded_bytes: u64) -> u64 {
    wire_bytes.max(decoded_bytes).max(COST_BYTES_MIN)
}

/// The sender's end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SendCredit {
    limit_bytes: u64,
    sent_bytes: u64,
}

impl SendCredit {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            sent_bytes: 0,
        }
    }

    /// Whether one more batch may be sent, whatever it costs.
    pub(crate) fn may_send(&self) -> bool {
        self.left_bytes() > 0
    }

    /// What is left of the limit.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.sent_bytes)
    }

    pub(crate) fn on_sent(&mut self, cost_bytes: u64) {
        self.sent_bytes = self.sent_bytes.saturating_add(cost_bytes);
    }

    /// Takes a new limit; one that is not above the old says nothing.
    pub(crate) fn raise(&mut self, limit_bytes: u64) {
        self.limit_bytes = self.limit_bytes.max(limit_bytes);
    }
}

/// How large the window of a stream may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WindowSizes {
    /// What is always granted to a stream of which nothing is queued or in flight.
    pub(crate) bytes_min: u64,
    /// At first.
    pub(crate) bytes: u64,
    /// After growing.
    pub(crate) bytes_max: u64,
    /// What a batch may overrun the limit by without being charged: no batch of a sender that keeps to the rules does
    /// more, except for one of a single row.
    pub(crate) overrun_bytes: u64,
    /// Less waiting within half a window is no reason to grow.
    pub(crate) starved_min: Duration,
}

/// What a window is to grow by, because the consumer waits, and what came in since that was looked at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    pub(crate) more_bytes: u64,
    window_bytes: u64,
    received_bytes: u64,
    span: Duration,
}

impl Growth {
    /// Whether it is the window that holds the sender back, on a link with such a round trip: then half of a window, the
    /// least that comes in before it is looked at again, takes one. Where it takes more than four, both ends are only
    /// busy, and a larger window would just hold more.
    pub(crate) fn helps(&self, round_trip: Duration) -> bool {
        let area = |bytes: u64, time: Duration| u128::from(bytes).saturating_mul(time.as_nanos());
        area(self.received_bytes, round_trip) >= area(self.window_bytes / 8, self.span)
    }
}

/// A peer has sent without credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a batch beyond the credit: {received_bytes} bytes came, the limit is {limit_bytes}")]
pub(crate) struct BeyondCredit {
    pub(crate) received_bytes: u64,
    pub(crate) limit_bytes: u64,
}

/// The receiver's end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReceiveWindow {
    sizes: WindowSizes,
    window_bytes: u64,
    /// The limit that the peer was told last.
    granted_bytes: u64,
    received_bytes: u64,
    taken_bytes: u64,
    link: LinkWatch,
}

impl ReceiveWindow {
    pub(crate) fn new(sizes: WindowSizes, now: Instant) -> Self {
        Self {
            sizes,
            window_bytes: sizes.bytes,
            granted_bytes: sizes.bytes,
            received_bytes: 0,
            taken_bytes: 0,
            link: LinkWatch::new(sizes.starved_min, now),
        }
    }

    /// The limit that the peer was told last; at first, the one to open the stream with.
    pub(crate) fn granted_bytes(&self) -> u64 {
        self.granted_bytes
    }

    pub(crate) fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    pub(crate) fn queued_bytes(&self) -> u64 {
        self.received_bytes - self.taken_bytes
    }

    /// What is left of the limit that the peer was told last.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.granted_bytes.saturating_sub(self.received_bytes)
    }

    /// What is promised to the peer and not yet given back by the consumer, with what a batch may overrun it by: what
    /// the budget has to hold.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        let outstanding = self.granted_bytes.max(self.received_bytes) - self.taken_bytes;
        outstanding.max(self.window_bytes + self.sizes.overrun_bytes)
    }

    /// Whether the sender waits, for all that this side knows.
    pub(crate) fn is_used_up(&self) -> bool {
        self.received_bytes >= self.granted_bytes
    }

    /// A batch has come.
    pub(crate) fn on_received(
        &mut self,
        cost_bytes: u64,
        now: Instant,
    ) -> Result<(), BeyondCredit> {
        let (received_bytes, limit_bytes) = (self.received_bytes, self.granted_bytes);
        if received_bytes >= limit_bytes {
            return Err(BeyondCredit {
                received_bytes,
                limit_bytes,
            });
        }
        self.link.on_received(received_bytes, now);
        self.received_bytes = received_bytes.saturating_add(cost_bytes);
        Ok(())
    }

    /// The consumer waits, and nothing is here.
    pub(crate) fn on_starved(&mut self, now: Instant) {
        self.link.on_starved(self.received_bytes, now);
    }

    /// The consumer has taken a batch. Returns the limit that the peer is to be told, if it is time for one. `grow` is
    /// asked whether the window may grow, if that looks as if it would help.
    pub(crate) fn on_taken(
        &mut self,
        cost_bytes: u64,
        now: Instant,
        grow: impl FnOnce(Growth) -> bool,
    ) -> Option<u64> {
        self.taken_bytes += cost_bytes.min(self.queued_bytes());
        let left = self.granted_bytes.saturating_sub(self.taken_bytes);
        let due = left < (self.window_bytes / 2).max(self.sizes.bytes_min);
        let target = self.taken_bytes + self.window_bytes;
        if !due || target <= self.granted_bytes {
            return None;
        }
        self.adapt(now, grow);
        let target = self.taken_bytes + self.window_bytes;
        if target <= self.granted_bytes {
            return None;
        }
        self.link.on_raised(self.granted_bytes);
        self.granted_bytes = target;
        Some(target)
    }

    /// The sender waits, because the consumer has not taken what is queued, which is to go to disk where there is no room
    /// in memory: takes more room, if the window may be so large and `reserve` has what is reserved then. Returns the
    /// limit that the sender is to be told.
    pub(crate) fn widen(&mut self, mut reserve: impl FnMut(u64) -> bool) -> Option<u64> {
        // What gives the sender its least credit.
        let least_bytes = self.queued_bytes() + self.sizes.bytes_min;
        let doubled = self.window_bytes.saturating_mul(2);
        let sizes = [doubled, self.window_bytes + self.sizes.overrun_bytes].map(|bytes| {
            let bytes = bytes.max(least_bytes).min(self.sizes.bytes_max);
            (bytes, bytes + self.sizes.overrun_bytes)
        });
        let (window_bytes, _) = sizes.into_iter().find(|&(bytes, reserved_bytes)| {
            bytes >= least_bytes && bytes > self.window_bytes && reserve(reserved_bytes)
        })?;
        self.window_bytes = window_bytes;
        self.raise_at_once()
    }

    /// How much the oldest batches may take that stay in memory when newer ones are spilled: a single one, and several.
    /// Less than the window by the least credit, so that its sender can go on.
    pub(crate) fn kept_bytes_max(&self) -> (u64, u64) {
        let one = self.window_bytes - self.sizes.bytes_min;
        (one, one.min(self.window_bytes / 4))
    }

    /// So much of what is queued was spilled, while the sender waits. Returns the limit that it is to be told, as soon as
    /// that is the least credit: when no more is queued than what [`Self::kept_bytes_max`] says, it is.
    pub(crate) fn on_spilled(&mut self, cost_bytes: u64) -> Option<u64> {
        self.taken_bytes += cost_bytes.min(self.queued_bytes());
        self.raise_at_once()
    }

    /// Raises the limit, not only when half of the window is free: by the least credit or more, or not at all.
    pub(crate) fn raise_at_once(&mut self) -> Option<u64> {
        let known = self.granted_bytes.max(self.received_bytes);
        let target = self.taken_bytes + self.window_bytes;
        if target < known + self.sizes.bytes_min {
            return None;
        }
        self.link.on_raised(self.granted_bytes);
        self.granted_bytes = target;
        Some(target)
    }

    fn adapt(&mut self, now: Instant, grow: impl FnOnce(Growth) -> bool) {
        let larger = self
            .window_bytes
            .saturating_mul(2)
            .min(self.sizes.bytes_max);
        let (verdict, received_bytes, span) = self.link.judge(self.received_bytes, now);
        let growth = Growth {
            more_bytes: larger - self.window_bytes,
            window_bytes: self.window_bytes,
            received_bytes,
            span,
        };
        match verdict {
            Verdict::TooSmall if growth.more_bytes > 0 && grow(growth) => {
                self.window_bytes = larger;
            }
            // What is granted already stays granted: shrinking is not raising.
            Verdict::Ample => self.window_bytes = (self.window_bytes / 2).max(self.sizes.bytes),
            _ => {}
        }
    }
}

/// Whether the consumer waits because credits take long to the sender: only then a larger window helps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LinkWatch {
    /// Limits before the raises that no batch has answered yet.
    unanswered: VecDeque<u64>,
    starved_since: Option<Instant>,
    starved: Duration,
    starved_min: Duration,
    /// When it was last looked at, and what had come until then.
    judged: (Instant, u64),
    calm_raises: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    TooSmall,
    Fits,
    Ample,
}

impl LinkWatch {
    fn new(starved_min: Duration, now: Instant) -> Self {
        Self {
            unanswered: VecDeque::new(),
            starved_since: None,
            starved: Duration::ZERO,
            starved_min,
            judged: (now, 0),
            calm_raises: 0,
        }
    }

    fn on_raised(&mut self, limit_before: u64) {
        self.unanswered.push_back(limit_before);
    }

    /// A batch behind `received_bytes` answers the raises without which it could not have been sent.
    fn on_received(&mut self, received_bytes: u64, now: Instant) {
        if let Some(since) = self.starved_since.take() {
            self.starved += now.saturating_duration_since(since);
        }
        while self
            .unanswered
            .front()
            .is_some_and(|&limit| limit <= received_bytes)
        {
            self.unanswered.pop_front();
        }
    }

    /// Nothing is here. The sender may have nothing; but if it has used all that it can know of, it waits for credit.
    fn on_starved(&mut self, received_bytes: u64, now: Instant) {
        let used_up = self
            .unanswered
            .front()
            .is_some_and(|&limit| limit <= received_bytes);
        if used_up && self.starved_since.is_none() {
            self.starved_since = Some(now);
        }
    }

    /// What to think of the window, and what has come since that was asked last.
    fn judge(&mut self, received_bytes: u64, now: Instant) -> (Verdict, u64, Duration) {
        let (since, before) = std::mem::replace(&mut self.judged, (now, received_bytes));
        let span = now.saturating_duration_since(since);
        (self.verdict(span), received_bytes - before, span)
    }

    fn verdict(&mut self, span: Duration) -> Verdict {
        let starved = std::mem::take(&mut self.starved);
        if starved >= self.starved_min && starved * 4 >= span {
            self.calm_raises = 0;
            return Verdict::TooSmall;
        }
        self.calm_raises = if starved.is_zero() {
            self.calm_raises + 1
        } else {
            0
        };
        if self.calm_raises < CALM_RAISES {
            return Verdict::Fits;
        }
        self.calm_raises = 0;
        Verdict::Ample
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
