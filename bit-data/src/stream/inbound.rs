//! The receiving end of a stream as the I/O thread and the consumer share it: a queue of batches as they came.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, Weak},
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use bytes::Bytes;
use protos::{
    calls::Credit as CreditCall,
    data::{Credit, StreamFrame, close_stream},
};
use record_batch::arrow_body_bytes;
use rpc_bus::{BudgetExceeded, Charge, RemoteConnection, RpcFailure};

use super::{
    budget::QueryBudget,
    checksum::sealed,
    credit::{Growth, ReceiveWindow, WindowSizes, cost_bytes},
    error::{ReceiveError, SendError},
    intake::{Arrival, EncodedBatch, Intake, Terms},
    outbound::Outbound,
    receiver_side::close,
    spilling::{Encoded, Spilling, ToEncode},
    stats::{LOOKS_MAX, ReceiveStats, lock, lock_timed, look_again, now},
};
use crate::spill::{SpillDir, SpillError};

/// How long it takes about until a sender of this process has been woken, and its consumer again.
const ROUND_TRIP_HERE: Duration = Duration::from_micros(50);

/// Of less memory it is not worth the time to tell how much of it is shown.
const VALUE_BYTES_MIN: usize = 16 * 1024;

/// What waits for the consumer.
#[derive(Debug)]
pub(crate) enum Item {
    /// From another process.
    Encoded(EncodedBatch),
    /// From this one, and what it costs.
    Value(RecordBatch, u64),
}

impl Item {
    fn cost_bytes(&self) -> u64 {
        match self {
            Self::Encoded(batch) => batch.cost_bytes,
            Self::Value(_, cost_bytes) => *cost_bytes,
        }
    }
}

/// What the consumer has taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) item: Item,
    /// What the sender is to be told.
    pub(crate) limit_bytes: Option<u64>,
    pub(crate) at: Instant,
}

/// Open -> Ended (by the sender, or lost) | Failed (here) -> Closed; any -> Closed.
#[derive(Debug)]
enum Phase {
    Open,
    /// Nothing comes any more; said to the consumer after what is queued.
    Ended(Result<(), ReceiveError>),
    /// Failed on this side: what still comes is dropped.
    Failed(Option<ReceiveError>),
    /// The consumer wants nothing any more.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Inbound {
    state: Mutex<State>,
    piece_bytes: usize,
    /// Whom to tell what the consumer does not say itself.
    sender: OnceLock<(RemoteConnection, u64)>,
    /// The same of this process; it holds this end.
    sender_here: OnceLock<Weak<Outbound>>,
}

#[derive(Debug)]
struct State {
    intake: Intake,
    queue: VecDeque<Item>,
    /// Newer than all of `queue`.
    spilling: Option<Spilling>,
    phase: Phase,
    /// Holds what the window reserves.
    charge: Charge,
    consumer: Option<Waker>,
    /// How often the consumer has looked in vain since it got something.
    looks: u32,
    /// What the sender is to be told: before the consumer looks, which it may never do.
    failure: Option<RpcFailure>,
    stats: ReceiveStats,
}

impl Inbound {
    /// Reserves the first window.
    pub(crate) fn new(sizes: WindowSizes, terms: Terms, reserved: Charge) -> Self {
        let window = ReceiveWindow::new(sizes, now());
        debug_assert_eq!(
            reserved.amount(),
            as_usize(window.reserved_bytes()),
            "invariant: windows are reserved as they begin"
        );
        let state = State {
            intake: Intake::new(window, terms),
            queue: VecDeque::new(),
            spilling: None,
            phase: Phase::Open,
            charge: reserved,
            consumer: None,
            looks: 0,
            failure: None,
            stats: ReceiveStats::default(),
        };
        Self {
            state: Mutex::new(state),
            piece_bytes: as_usize(sizes.overrun_bytes),
            sender: OnceLock::new(),
            sender_here: OnceLock::new(),
        }
    }

    /// The sender is that of stream `stream` on `connection`.
    pub(crate) fn set_sender(&self, connection: &RemoteConnection, stream: u64) {
        self.sender.get_or_init(|| (connection.clone(), stream));
    }

    /// The sender is one of this process.
    pub(crate) fn set_sender_here(&self, outbound: &Arc<Outbound>) {
        self.sender_here.get_or_init(|| Arc::downgrade(outbound));
    }

    /// Spills from now on what has no room.
    pub(crate) fn spill_to(self: &Arc<Self>, dir: &SpillDir, query: QueryBudget) {
        let this = Arc::downgrade(self);
        let on_room = move || {
            if let Some(inbound) = this.upgrade() {
                inbound.spill_waiting();
            }
        };
        lock(&self.state).spilling = Some(Spilling::new(dir, query, on_room));
    }

    /// Spills what waited for room, and encodes what has to be before that: on the thread that writes.
    fn spill_waiting(&self) {
        self.make_room(|_| {});
        // One at a time: the next one has its turn after what others have to write and to read.
        if let Some(to_encode) = self.begin_encoding() {
            let encoded = to_encode.encode();
            self.make_room(|state| state.end_encoding(encoded));
        }
    }

    fn begin_encoding(&self) -> Option<ToEncode> {
        let mut state = lock(&self.state);
        let is_wanted = state.intake.window.is_used_up();
        let spilling = state.spilling.as_mut()?;
        if !is_wanted {
            spilling.call_off_encoding();
        }
        spilling.begin_encoding()
    }

    /// Takes a step that the consumer did not make, and sees what there is room for then.
    fn make_room(&self, step: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        step(&mut state);
        let limit_bytes = state.make_room();
        let consumer = self.finish_step(state, limit_bytes);
        consumer.into_iter().for_each(Waker::wake);
    }

    /// Ends a step that the consumer did not make: the sender is told what came of it, the consumer is the caller's to wake.
    fn finish_step(
        &self,
        mut state: MutexGuard<'_, State>,
        limit_bytes: Option<u64>,
    ) -> Option<Waker> {
        let (consumer, failure) = (state.consumer.take(), state.failure.take());
        drop(state);
        self.tell_sender(limit_bytes, failure);
        consumer
    }

    fn tell_sender(&self, limit_bytes: Option<u64>, failure: Option<RpcFailure>) {
        if limit_bytes.is_none() && failure.is_none() {
            return;
        }
        let Some((connection, stream)) = self.sender.get() else {
            return self.tell_sender_here(limit_bytes, failure);
        };
        if let Some(limit_bytes) = limit_bytes {
            grant(connection, *stream, limit_bytes);
        }
        if let Some(failure) = failure {
            let kind = close_stream::Kind::Failed;
            close(connection, *stream, kind, Some(failure.error));
        }
    }

    fn tell_sender_here(&self, limit_bytes: Option<u64>, failure: Option<RpcFailure>) {
        let Some(outbound) = self.sender_here.get().and_then(Weak::upgrade) else {
            return;
        };
        if let Some(limit_bytes) = limit_bytes {
            outbound.raise(limit_bytes);
        }
        if let Some(failure) = failure {
            outbound.stop(SendError::ReceiverFailed(failure.into()));
        }
    }

    /// What batches are to be split to: the budget holds what one of them overruns the credit by.
    pub(crate) fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// The limit to open the stream with.
    pub(crate) fn limit_bytes(&self) -> u64 {
        lock(&self.state).intake.window.granted_bytes()
    }

    /// Takes a frame, on the I/O thread. Its consumer, if it sleeps, is the caller's to wake.
    ///
    /// # Errors
    ///
    /// The peer breaks the protocol; the stream has failed.
    pub(crate) fn accept(
        &self,
        frame: StreamFrame,
        body: Bytes,
    ) -> (Result<(), ReceiveError>, Option<Waker>) {
        let began = now();
        let (mut state, waited) = lock_timed(&self.state);
        state.stats.wait_lock_time += waited;
        let accepted = state.accept(frame, body, began);
        if let Err(error) = &accepted {
            state.fail(error.clone());
        }
        let limit_bytes = state.make_room();
        state.stats.receiver_process_total_time += now().saturating_duration_since(began);
        (accepted, self.finish_step(state, limit_bytes))
    }

    /// Takes a batch from a sender of this process, which has credit: a piece of [`Self::piece_bytes`], or a row.
    pub(crate) fn push_value(&self, batch: RecordBatch, cost_bytes: u64) {
        let (mut state, waited) = lock_timed(&self.state);
        state.stats.wait_lock_time += waited;
        if !matches!(state.phase, Phase::Open) {
            return;
        }
        // The sender has looked at its credit.
        let within_credit = state.intake.window.on_received(cost_bytes, now());
        debug_assert!(
            within_credit.is_ok(),
            "invariant: senders of this process have credit"
        );
        state.queue_up(Item::Value(batch, cost_bytes));
        let limit_bytes = state.make_room();
        state.charge_beyond();
        let consumer = self.finish_step(state, limit_bytes);
        consumer.into_iter().for_each(Waker::wake);
    }

    /// The sender has ended; what is queued comes first.
    pub(crate) fn end(&self, outcome: Result<(), ReceiveError>) {
        self.change(|state| {
            if matches!(state.phase, Phase::Open) {
                state.phase = Phase::Ended(outcome);
            }
        });
    }

    /// The stream fails at once: what is queued is dropped.
    pub(crate) fn fail(&self, error: ReceiveError) {
        self.change(|state| {
            if matches!(state.phase, Phase::Open) {
                state.fail(error);
            }
        });
    }

    /// The consumer has gone: all memory is given back.
    pub(crate) fn close(&self) {
        self.change(|state| {
            state.clear();
            state.phase = Phase::Closed;
        });
    }

    fn change(&self, step: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        step(&mut state);
        let consumer = state.consumer.take();
        drop(state);
        consumer.into_iter().for_each(Waker::wake);
    }

    /// The next batch; `None` after the last.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Taken, ReceiveError>>> {
        let (mut state, waited) = lock_timed(&self.state);
        state.stats.wait_lock_time += waited;
        let taken = state.poll_take(cx, || self.round_trip());
        if taken.is_ready() {
            state.looks = 0;
        } else if self.sender.get().is_none() && state.looks < LOOKS_MAX {
            state.looks += 1;
            drop(state);
            look_again(cx);
            return taken;
        }
        let is_asleep = |waker: &Waker| waker.will_wake(cx.waker());
        if taken.is_pending() && !state.consumer.as_ref().is_some_and(is_asleep) {
            state.consumer = Some(cx.waker().clone());
        }
        taken
    }

    /// How long it takes to the sender and back, if that is known; not how long one waits for busy ends.
    fn round_trip(&self) -> Option<Duration> {
        let Some((connection, _)) = self.sender.get() else {
            return Some(ROUND_TRIP_HERE);
        };
        Some(connection.stats().round_trips?.min)
    }

    /// The consumer has decoded a body.
    pub(crate) fn on_decoded(&self, took: Duration, has_batch: bool) {
        let mut state = lock(&self.state);
        state.stats.deserialize_chunk_time += took;
        state.stats.batches += u64::from(has_batch);
    }

    /// What the sender may send now, in bytes, as far as is known here; and whether the consumer waits.
    pub(crate) fn credit_now(&self) -> (u64, bool) {
        let state = lock(&self.state);
        match state.phase {
            Phase::Open => (state.intake.window.left_bytes(), state.consumer.is_some()),
            _ => (0, false),
        }
    }

    /// Counters, with what waits now.
    pub(crate) fn stats(&self) -> ReceiveStats {
        let state = lock(&self.state);
        // Else all has been given back.
        let open = matches!(state.phase, Phase::Open | Phase::Ended(_));
        ReceiveStats {
            buffer_memory_bytes: if open {
                state.intake.window.queued_bytes()
            } else {
                0
            },
            bytes_spilled: state.stats.bytes_spilled,
            window_bytes: if open {
                state.intake.window.window_bytes()
            } else {
                0
            },
            ..state.stats
        }
    }
}

impl State {
    fn accept(
        &mut self,
        frame: StreamFrame,
        body: Bytes,
        now: Instant,
    ) -> Result<(), ReceiveError> {
        match &self.phase {
            Phase::Open => {}
            Phase::Ended(_) => {
                return Err(ReceiveError::Protocol("a frame behind the end".to_owned()));
            }
            Phase::Failed(_) | Phase::Closed => return Ok(()),
        }
        let bytes = body.len() as u64;
        let arrival = self.intake.accept(frame, body, now)?;
        self.stats.bytes_received += bytes;
        match arrival {
            Arrival::Batch(batch) => self.queue_up(Item::Encoded(batch)),
            Arrival::Part => {}
            Arrival::End(outcome) => self.phase = Phase::Ended(outcome),
        }
        Ok(())
    }

    /// Charges what has come. A sender that waits is let go on where there is room for what it sends: in the budget, or
    /// else on disk. Returns the limit that it is to be told.
    ///
    /// Without spilling, all that waits is charged to the budget. With it, one row may be beyond that until it is handed to
    /// the spill files, as far as it has come: it has used up the credit, so that no other can follow. Its memory is charged to
    /// the connection that it came on; that of a row of this process, see [`Self::charge_beyond`], to the query.
    fn make_room(&mut self) -> Option<u64> {
        if !matches!(self.phase, Phase::Open | Phase::Ended(_)) {
            return None;
        }
        let Some(spilling) = &self.spilling else {
            if let Err(spent) = self.recharge() {
                self.fail(spent.into());
            }
            return None;
        };
        // Whether or not the sender waits: nothing may be taken from behind what is lost.
        if let Err(error) = spilling.expect_intact() {
            self.fail(error.into());
            return None;
        }
        if !self.intake.window.is_used_up() {
            return None;
        }
        let in_window = self.intake.window.raise_at_once();
        let in_budget = in_window.or_else(|| self.widen());
        let limit_bytes = in_budget.or_else(|| self.spill());
        if self.spilling.is_some() {
            // Else it waits for the disk, see above.
            let _ = self.recharge();
        }
        limit_bytes
    }

    /// Behind what is spilled, if anything is.
    fn queue_up(&mut self, item: Item) {
        match &mut self.spilling {
            Some(spilling) if !spilling.is_empty() => spilling.push(item),
            _ => self.queue.push_back(item),
        }
        let queued = self.intake.window.queued_bytes();
        self.stats.peak_buffer_memory_bytes = self.stats.peak_buffer_memory_bytes.max(queued);
    }

    /// Takes more of the budget, as far as it reaches, and leaves some to receivers that are still to be opened.
    fn widen(&mut self) -> Option<u64> {
        let (window, charge) = (&mut self.intake.window, &mut self.charge);
        let spilling = &self.spilling;
        window.widen(|reserved_bytes| {
            let reserved = as_usize(reserved_bytes);
            let more_bytes = reserved.saturating_sub(charge.amount());
            let has_to_spare = |spilling: &Spilling| spilling.query.has_to_spare(more_bytes);
            spilling.as_ref().is_none_or(has_to_spare) && charge.resize(reserved).is_ok()
        })
    }

    /// Hands to the spill files all that waits, but for the oldest batches in memory; returns the limit that the sender is
    /// to be told.
    fn spill(&mut self) -> Option<u64> {
        let (one, several) = self.intake.window.kept_bytes_max();
        let spilling = self.spilling.as_mut()?;
        if spilling.is_empty() {
            let mut kept_bytes = 0;
            let stays = |(at, item): &(usize, &Item)| {
                kept_bytes += item.cost_bytes();
                kept_bytes <= if *at == 0 { one } else { several }
            };
            let kept = self.queue.iter().enumerate().take_while(stays).count();
            for newer in self.queue.split_off(kept) {
                spilling.push(newer);
            }
        }
        if matches!(self.phase, Phase::Ended(_)) {
            // Its consumer may take its time: no sender waits for it.
            spilling.is_not_stuck();
        }
        let (cost_bytes, refused) = spilling.write();
        // So has the queue if nobody writes any more.
        let refused = refused.or_else(|| spilling.expect_intact().err());
        self.stats.bytes_spilled = spilling.spilled_bytes();
        let limit_bytes = self.intake.window.on_spilled(cost_bytes);
        self.settle();
        let Some(error) = refused else {
            return limit_bytes;
        };
        // What is too long for the spill files may wait in memory, as it would without them.
        let is_too_long = matches!(error, SpillError::TooLong { .. });
        if !is_too_long || self.recharge().is_err() {
            self.fail(error.into());
        }
        limit_bytes
    }

    fn end_encoding(&mut self, encoded: Result<Encoded, ReceiveError>) {
        // Without it, the stream has ended meanwhile.
        let Some(spilling) = &mut self.spilling else {
            return;
        };
        match encoded {
            Ok(encoded) => spilling.end_encoding(encoded),
            Err(error) => self.fail(error),
        }
    }

    fn poll_spilled(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Item>, ReceiveError>> {
        match &mut self.spilling {
            Some(spilling) => spilling.poll_pop(cx),
            None => Poll::Ready(Ok(None)),
        }
    }

    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        round_trip: impl FnOnce() -> Option<Duration>,
    ) -> Poll<Option<Result<Taken, ReceiveError>>> {
        if let Some(item) = self.queue.pop_front() {
            self.spilling.iter().for_each(Spilling::is_not_stuck);
            return Poll::Ready(Some(Ok(self.take(item, now(), round_trip))));
        }
        if let Some(item) = ready!(self.poll_spilled(cx)).transpose() {
            let taken = item.map(|item| self.take(item, now(), round_trip));
            return Poll::Ready(Some(taken));
        }
        match &mut self.phase {
            Phase::Open => {
                self.intake.window.on_starved(now());
                Poll::Pending
            }
            Phase::Ended(outcome) => {
                let outcome = std::mem::replace(outcome, Ok(()));
                Poll::Ready(outcome.err().map(Err))
            }
            Phase::Failed(error) => Poll::Ready(error.take().map(Err)),
            Phase::Closed => Poll::Ready(None),
        }
    }

    fn take(
        &mut self,
        item: Item,
        now: Instant,
        round_trip: impl FnOnce() -> Option<Duration>,
    ) -> Taken {
        let charge = &mut self.charge;
        let grow = |growth: Growth| {
            round_trip().is_none_or(|round_trip| growth.helps(round_trip))
                && charge.grow(as_usize(growth.more_bytes)).is_ok()
        };
        let cost_bytes = item.cost_bytes();
        let limit_bytes = self.intake.window.on_taken(cost_bytes, now, grow);
        if let Item::Value(..) = item {
            self.stats.batches += 1;
            self.stats.bytes_pass_through += cost_bytes;
        }
        self.settle();
        Taken {
            item,
            limit_bytes,
            at: now,
        }
    }

    /// Gives back what a batch of a single row reserved beyond the window, or a window that has shrunk.
    fn settle(&mut self) {
        let reserved = as_usize(self.intake.window.reserved_bytes());
        self.charge
            .shrink(self.charge.amount().saturating_sub(reserved));
        if let Some(spilling) = &mut self.spilling {
            spilling.query.keep_beyond(reserved - self.charge.amount());
        }
    }

    /// Charges what the window reserves now.
    fn recharge(&mut self) -> Result<(), BudgetExceeded> {
        let reserved = as_usize(self.intake.window.reserved_bytes());
        if reserved == self.charge.amount() {
            return Ok(());
        }
        self.charge.resize(reserved)?;
        self.settle();
        Ok(())
    }

    /// Charges to the query what the budget does not hold of a row of this process: whatever becomes of the disk, what waits
    /// is charged somewhere, and what is charged for a stream is never less than what its window reserves. A batch of several
    /// rows is always within the budget.
    fn charge_beyond(&mut self) {
        // Without it, all is charged to the budget, or the stream has ended.
        let Some(spilling) = &mut self.spilling else {
            return;
        };
        let reserved = as_usize(self.intake.window.reserved_bytes());
        let beyond = reserved.saturating_sub(self.charge.amount());
        if let Err(spent) = spilling.query.charge_beyond(beyond) {
            self.fail(spent.into());
        }
    }

    fn fail(&mut self, error: ReceiveError) {
        self.clear();
        self.failure = Some(error.to_failure());
        self.phase = Phase::Failed(Some(error));
    }

    fn clear(&mut self) {
        self.queue = VecDeque::new();
        self.spilling = None;
        self.intake.drop_partial();
        self.charge.shrink(usize::MAX);
    }
}

/// Tells the sender of a stream what it may send.
pub(crate) fn grant(connection: &RemoteConnection, stream: u64, limit_bytes: u64) {
    let credit = sealed(Credit {
        stream: Some(stream),
        limit_bytes: Some(limit_bytes),
        crc: None,
    });
    // A connection that has ended ends the stream too.
    let _ = connection.post_urgent::<CreditCall>(&credit);
}

/// What a batch of this process costs: what is shown of its memory, about. Whoever made it may show the rest elsewhere.
pub(crate) fn value_cost_bytes(batch: &RecordBatch) -> u64 {
    let there = batch.get_array_memory_size();
    let shown = if there <= VALUE_BYTES_MIN {
        there
    } else {
        arrow_body_bytes(batch).min(there)
    };
    cost_bytes(0, shown as u64)
}

pub(crate) fn as_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod spills;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the test waits for the thread that it spawns"
)]
mod tests {
    use std::{sync::mpsc, thread};

    use arrow::datatypes::Schema;
    use rpc_bus::{Ledger, ledger::Limits};

    use super::*;
    use crate::stream::{frame::Codecs, options::window_sizes};

    fn inbound() -> Inbound {
        let ledger = Ledger::root("test", Limits::default());
        let terms = Terms {
            has_checksums: false,
            batch_bytes_max: 1 << 20,
            codecs: Codecs::default(),
        };
        let sizes = window_sizes(64 << 10, 64 << 10);
        Inbound::new(sizes, terms, sizes.reserve(&ledger).expect("there is room"))
    }

    /// Takes `step` while the lock is held, and lets go of it when that is probably waited for.
    fn step_while_locked(inbound: &Inbound, step: impl FnOnce(&Inbound) + Send) {
        let (begins, begun) = mpsc::channel();
        let held = lock(&inbound.state);
        thread::scope(|scope| {
            scope.spawn(move || {
                begins.send(()).expect("somebody waits");
                step(inbound);
            });
            begun.recv().expect("it begins");
            for _ in 0..100 {
                thread::yield_now();
            }
            drop(held);
        });
    }

    #[test]
    fn waiting_for_the_lock_is_counted_wherever_it_may_take_long() {
        let value = || RecordBatch::new_empty(Arc::new(Schema::empty()));
        let steps: [fn(&Inbound, RecordBatch); 3] = [
            |inbound, value| inbound.push_value(value, 1),
            |inbound, _| drop(inbound.poll_take(&mut Context::from_waker(Waker::noop()))),
            |inbound, _| drop(inbound.accept(StreamFrame::default(), Bytes::from_static(b"x"))),
        ];
        for step in steps {
            let waits = || {
                let inbound = inbound();
                // So that there is no need to look again.
                inbound.push_value(value(), 1);
                assert!(inbound.stats().wait_lock_time.is_zero());
                step_while_locked(&inbound, |inbound| step(inbound, value()));
                !inbound.stats().wait_lock_time.is_zero()
            };
            // Whether the other thread was there in time is up to the scheduler.
            assert!((0..1_000).any(|_| waits()));
        }
    }
}
