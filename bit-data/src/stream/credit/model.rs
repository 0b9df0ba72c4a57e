//! Every state that two ends and the wire between them can reach, with small numbers.
//!
//! Batches arrive in order, as TCP brings them; credits in any order, or never if a later one does. The consumer takes
//! when it likes; the budget lets the window grow, or does not.

use std::collections::HashSet;

use super::*;

const COSTS: [u64; 2] = [1, 4];
/// What may be sent altogether.
const TOTAL: u64 = 10;

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    sender: SendCredit,
    receiver: ReceiveWindow,
    batches: Vec<u64>,
    credits: Vec<u64>,
    queue: Vec<u64>,
    now: Instant,
}

impl State {
    fn new(sizes: WindowSizes, now: Instant) -> Self {
        let receiver = ReceiveWindow::new(sizes, now);
        Self {
            sender: SendCredit::new(receiver.granted_bytes()),
            receiver,
            batches: Vec::new(),
            credits: Vec::new(),
            queue: Vec::new(),
            now,
        }
    }

    fn successors(&self) -> Vec<Self> {
        let mut next = Vec::new();
        self.sends(&mut next);
        self.arrivals(&mut next);
        self.takes(&mut next);
        self.makes_room(&mut next);
        next
    }

    fn sends(&self, next: &mut Vec<Self>) {
        if !self.sender.may_send() || self.sender.sent_bytes >= TOTAL {
            return;
        }
        for cost in COSTS {
            let mut state = self.clone();
            state.sender.on_sent(cost);
            state.batches.push(cost);
            next.push(state);
        }
    }

    fn arrivals(&self, next: &mut Vec<Self>) {
        if let Some(&cost) = self.batches.first() {
            let mut state = self.clone();
            state.batches.remove(0);
            let taken = state.receiver.on_received(cost, state.now);
            assert_eq!(taken, Ok(()), "a sender that keeps to the rules is let in");
            state.queue.push(cost);
            next.push(state);
        }
        for at in 0..self.credits.len() {
            let mut state = self.clone();
            let limit = state.credits.remove(at);
            state.sender.raise(limit);
            next.push(state);
        }
        // The wire may forget all but the last.
        if self.credits.len() > 1 {
            let mut state = self.clone();
            state.credits.remove(0);
            next.push(state);
        }
    }

    fn takes(&self, next: &mut Vec<Self>) {
        if self.queue.is_empty() {
            let mut state = self.clone();
            state.receiver.on_starved(state.now);
            next.push(state);
            return;
        }
        for grows in [true, false] {
            let mut state = self.clone();
            let cost = state.queue.remove(0);
            let now = state.now;
            let raised = state.receiver.on_taken(cost, now, |_| grows);
            state.credits.extend(raised);
            next.push(state);
        }
    }

    /// What is queued goes to disk, where the sender would have to wait for the consumer; the budget comes first.
    fn makes_room(&self, next: &mut Vec<Self>) {
        if !self.receiver.is_used_up() {
            return;
        }
        let raises: [fn(&mut ReceiveWindow) -> Option<u64>; 2] =
            [ReceiveWindow::raise_at_once, |receiver| {
                receiver.widen(|_| true)
            }];
        for raise in raises {
            let mut state = self.clone();
            if let Some(limit) = raise(&mut state.receiver) {
                assert!(!state.receiver.is_used_up(), "room is for the sender");
                state.credits.push(limit);
                next.push(state);
            }
        }
        let mut state = self.clone();
        let (one, several) = state.receiver.kept_bytes_max();
        let kept_max = |kept: usize| if kept == 0 { one } else { several };
        let mut kept = 0;
        while state.queue.get(kept).is_some()
            && state.queue[..=kept].iter().sum::<u64>() <= kept_max(kept)
        {
            kept += 1;
        }
        let spilled: Vec<_> = state.queue.drain(kept..).collect();
        state
            .credits
            .extend(state.receiver.on_spilled(spilled.iter().sum()));
        assert!(!state.receiver.is_used_up(), "there is always room on disk");
        next.push(state);
    }

    fn check(&self, sizes: WindowSizes) {
        let in_flight: u64 = self.batches.iter().sum();
        let queued: u64 = self.queue.iter().sum();
        assert_eq!(self.receiver.queued_bytes(), queued);
        // Never more in memory than what the budget holds.
        assert!(queued + in_flight <= self.receiver.reserved_bytes());
        assert!(queued + in_flight < self.receiver.window_bytes.max(sizes.bytes_max) + 4);
        // Nobody waits for ever: when all has arrived and was taken, the sender may send.
        if self.batches.is_empty() && self.queue.is_empty() && self.credits.is_empty() {
            assert!(self.sender.may_send(), "a deadlock");
            let credit = self.sender.limit_bytes - self.sender.sent_bytes;
            assert!(credit >= sizes.bytes_min, "less than the least credit");
        }
    }
}

/// Returns how many states there are.
fn explore(sizes: WindowSizes) -> usize {
    let first = State::new(sizes, Instant::now());
    let mut seen = HashSet::from([first.clone()]);
    let mut open = vec![first];
    while let Some(state) = open.pop() {
        state.check(sizes);
        for next in state.successors() {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    seen.len()
}

#[test]
fn no_reachable_state_deadlocks_or_holds_more_than_is_reserved() {
    let sizes = |bytes_min, bytes, bytes_max| WindowSizes {
        bytes_min,
        bytes,
        bytes_max,
        overrun_bytes: 4,
        starved_min: STARVED_MIN,
    };
    let all = [(1, 1, 1), (2, 2, 2), (2, 4, 4), (2, 4, 8), (4, 4, 8)];
    let states = all.map(|(min, first, max)| explore(sizes(min, first, max)));
    assert!(states.iter().sum::<usize>() > 10_000, "{states:?}");
}

/// Streams that share one budget, of which a merging consumer takes in an order that the rows decide, and holds one
/// batch of each before it takes the next of any.
#[test]
fn a_merge_over_the_smallest_windows_never_waits_for_ever() {
    const STREAMS: usize = 3;
    let sizes = WindowSizes {
        bytes_min: 2,
        bytes: 2,
        bytes_max: 2,
        overrun_bytes: 4,
        starved_min: STARVED_MIN,
    };
    // Which stream has the next row, in every order there is.
    for order in 0..STREAMS.pow(8) {
        let now = Instant::now();
        let mut streams = vec![State::new(sizes, now); STREAMS];
        let mut order = order;
        for _ in 0..8 {
            let next = order % STREAMS;
            order /= STREAMS;
            // All others are full and nobody takes from them.
            for stream in &mut streams {
                fill(stream);
            }
            let stream = &mut streams[next];
            let cost = stream.queue.remove(0);
            if let Some(limit) = stream.receiver.on_taken(cost, now, |_| false) {
                stream.sender.raise(limit);
            }
            stream.check(sizes);
        }
    }
}

fn fill(stream: &mut State) {
    while stream.sender.may_send() {
        stream.sender.on_sent(4);
        let taken = stream.receiver.on_received(4, stream.now);
        assert_eq!(taken, Ok(()));
        stream.queue.push(4);
    }
    assert!(
        !stream.queue.is_empty(),
        "a stream that may not send and has nothing queued"
    );
}
