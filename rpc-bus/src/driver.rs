//! The only code that awaits a socket: one task per connection, reading and writing independently.
//!
//! Everything that was queued since the last wake-up is written at once. The reader never stops for a writer that waits:
//! two peers that both did would wait for each other.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    thread::LocalKey,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncWrite, ReadBuf},
    time::Sleep,
};

use crate::{
    connection::{Connection, Event, Stage},
    dispatch::{self, Item, Mailbox},
    error::CloseReason,
    frame::{Frame, FrameDecoder},
    lanes::{SLICES_MAX, Transmit},
    link::{self, Link},
    lookout::{Lookout, busy_now},
    vectored::ReadVectored,
};

/// Most bytes of small frames that are read at once, into a buffer that all connections of a thread share.
const STAGING_BYTES: usize = 64 * 1024;
/// What is read at once after a large body: if another one follows, most of what is read here is copied in vain.
const STAGING_BYTES_MIN: usize = 4 * 1024;
/// Answers to more than half of the calls under way are handed on in two halves, so that the peer has something to do
/// while this side works on the second; but in no smaller and no larger shares than these.
const SHARE_FRAMES_MIN: usize = 32;
const SHARE_FRAMES_MAX: usize = 256;
/// Of what is read at once, so many frames and a few more are held as such, which takes up to ten times the bytes that they
/// had on the wire; the rest waits as it came.
const INBOX_FRAMES_ENOUGH: usize = 1024;
/// How often a write is put off while the queue still grows.
const SETTLE_ROUNDS_MAX: u32 = 8;
/// A queue of this many frames is written at once.
const SETTLE_FRAMES_MAX: usize = 256;

/// How often a closing connection is read from before others on the thread get their turn.
const DISCARDING_READS_MAX: u32 = 16;
/// After so long a time others on the thread get their turn, however much there is to read and to write.
const TURN_TIME: Duration = Duration::from_micros(50);

const _: () = assert!(STAGING_BYTES_MIN <= STAGING_BYTES);

thread_local! {
    static STAGING: RefCell<Vec<u8>> = RefCell::new(vec![0; STAGING_BYTES]);
    /// Empty vectors for the next read, so that no read has to grow its own and no idle connection holds any.
    static SPARE_FRAMES: Cell<Vec<Frame>> = const { Cell::new(Vec::new()) };
    static SPARE_EVENTS: Cell<Vec<Event>> = const { Cell::new(Vec::new()) };
    /// The connection that this thread has last read from.
    static LAST_READ: Cell<u64> = const { Cell::new(0) };
}

/// Longer vectors are not kept.
const SPARE_MAX: usize = 1024;

fn keep<T>(spare: &'static LocalKey<Cell<Vec<T>>>, vec: Vec<T>) {
    debug_assert!(vec.is_empty(), "invariant: what is kept holds nothing");
    if vec.capacity() <= SPARE_MAX {
        spare.set(vec);
    }
}

/// Moves the bytes of one connection; ends when the socket may be closed.
pub(crate) struct Driver<S> {
    socket: S,
    link: Arc<Link>,
    mailbox: Arc<Mailbox>,
    decoder: FrameDecoder,
    /// How much to read at once when no large body is coming in.
    staging_bytes: usize,
    inbox: Inbox,
    lookout: Lookout,
    transmit: Transmit,
    write: WriteState,
    timer: Timer,
    seen: Seen,
    /// Whether whoever queues something will wake the driver, or it has woken itself.
    wakes: bool,
    /// Whether the handler got messages in this turn that are never answered.
    gave_one_ways: bool,
    closing: Closing,
}

/// What was read and is not handed on yet.
#[derive(Default)]
struct Inbox {
    frames: Vec<Frame>,
    /// How many of them at a time.
    share: usize,
    /// Bytes of the last read, until the connection knows of them.
    bytes: usize,
    /// What else was read, not decoded yet.
    rest: Vec<u8>,
    /// What is wrong with what came behind them.
    broken: Option<CloseReason>,
}

impl Inbox {
    fn decode(&mut self, bytes: &[u8], decoder: &mut FrameDecoder) {
        match decoder.feed_some(bytes, &mut self.frames, INBOX_FRAMES_ENOUGH) {
            Ok(used) => self.rest.extend_from_slice(&bytes[used..]),
            Err(error) => self.broken = Some(error.into()),
        }
    }

    fn decode_rest(&mut self, decoder: &mut FrameDecoder) {
        let rest = mem::take(&mut self.rest);
        self.decode(&rest, decoder);
    }
}

/// The connection as it was when its lock was last held.
#[derive(Clone, Copy)]
struct Seen {
    stage: Stage,
    reading_is_paused: bool,
    calls_in_flight: usize,
}

impl Seen {
    /// Also says when the connection wants to be called.
    fn of(connection: &Connection) -> (Self, Option<Instant>) {
        let seen = Self {
            stage: connection.stage(),
            reading_is_paused: connection.reading_is_paused(),
            calls_in_flight: connection.calls_in_flight(),
        };
        (seen, connection.poll_timeout())
    }
}

#[derive(Default)]
struct WriteState {
    /// Bytes written since the connection was told, and in how many writes.
    sent: usize,
    writes: u64,
    /// The socket took nothing the last time.
    blocked: bool,
    settle_rounds: u32,
    /// Frames that waited in the last round.
    settle_frames: usize,
    /// Callers that were told an outcome since something was taken: they are likely to call again.
    told: usize,
    /// Some were just now.
    told_now: bool,
    /// More is expected in a moment, so that nothing was taken.
    settles: bool,
}

#[derive(Default)]
struct Timer {
    /// When the connection wants to be called.
    due: Option<Instant>,
    /// When `sleep` ends; possibly earlier than due, since re-arming costs more than waking for nothing.
    armed: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// What a closing driver is at.
#[derive(PartialEq, Eq)]
enum Closing {
    /// Writing what is left.
    Writing,
    /// Waiting for the peer's end.
    Draining,
}

impl<S: ReadVectored + AsyncWrite> Driver<S> {
    pub(crate) fn new(
        socket: S,
        link: Arc<Link>,
        mailbox: Arc<Mailbox>,
        decoder: FrameDecoder,
    ) -> Self {
        Self {
            socket,
            link,
            mailbox,
            decoder,
            staging_bytes: STAGING_BYTES_MIN,
            inbox: Inbox::default(),
            lookout: Lookout::default(),
            transmit: Transmit::default(),
            write: WriteState::default(),
            timer: Timer::default(),
            seen: Seen {
                stage: Stage::Running,
                reading_is_paused: false,
                calls_in_flight: 0,
            },
            wakes: false,
            gave_one_ways: false,
            closing: Closing::Writing,
        }
    }

    // ---- reading ----

    /// Hands on a share of what was read, after reading if nothing is left; an error is the end of the connection.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        if self.inbox.frames.is_empty() {
            if let Some(reason) = self.inbox.broken.take() {
                return Poll::Ready(Err(reason));
            }
            self.inbox.frames = SPARE_FRAMES.take();
            let filled = self.poll_fill_inbox(cx);
            self.give_back_inbox();
            ready!(filled)?;
        }
        self.deliver();
        Poll::Ready(Ok(()))
    }

    /// Reads once.
    fn poll_fill_inbox(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        self.decoder
            .set_frame_bytes_max(self.link.frame_bytes_max());
        if !self.inbox.rest.is_empty() {
            self.inbox.decode_rest(&mut self.decoder);
            return Poll::Ready(Ok(()));
        }
        self.inbox.bytes = ready!(self.poll_read_socket(cx))?;
        if self.inbox.bytes == 0 {
            let mid_frame = !self.decoder.is_between_frames();
            return Poll::Ready(Err(CloseReason::PeerClosed { mid_frame }));
        }
        // A peer of several busy connections has something to do anyway.
        self.inbox.share = if self.is_last_to_read() {
            share_of(self.seen.calls_in_flight)
        } else {
            SHARE_FRAMES_MAX
        };
        LAST_READ.set(self.link.ends.id);
        Poll::Ready(Ok(()))
    }

    /// Reads the rest of a large body into its place, and behind it what follows, which mostly is the head of another one;
    /// else small frames. Returns how many bytes came.
    fn poll_read_socket(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, CloseReason>> {
        let Self {
            socket,
            decoder,
            staging_bytes,
            inbox,
            ..
        } = self;
        STAGING.with_borrow_mut(|staging| {
            let Some(target) = decoder.body_target()? else {
                let mut target = ReadBuf::new(&mut staging[..*staging_bytes]);
                ready!(Pin::new(socket).poll_read(cx, &mut target))?;
                let bytes = target.filled();
                inbox.decode(bytes, decoder);
                if bytes.len() == *staging_bytes {
                    // More is there, and it is not a large body.
                    *staging_bytes = (2 * *staging_bytes).min(STAGING_BYTES);
                }
                return Poll::Ready(Ok(bytes.len()));
            };
            let (body_bytes, next) = (target.len(), &mut staging[..STAGING_BYTES_MIN]);
            let bytes = ready!(socket.poll_read_vectored(cx, target, next))?;
            decoder.body_filled(bytes.min(body_bytes), &mut inbox.frames);
            inbox.decode(&next[..bytes.saturating_sub(body_bytes)], decoder);
            *staging_bytes = STAGING_BYTES_MIN;
            Poll::Ready(Ok(bytes))
        })
    }

    fn is_last_to_read(&self) -> bool {
        LAST_READ.get() == self.link.ends.id
    }

    /// Hands the next frames to the connection, and what they mean to callers and handlers.
    fn deliver(&mut self) {
        let now = link::now();
        let Inbox {
            frames,
            share,
            bytes,
            ..
        } = &mut self.inbox;
        let (bytes, share) = (mem::take(bytes), frames.len().min(*share));
        self.lookout.on_batch(share);
        let (frames, lent) = (frames.drain(..share), SPARE_EVENTS.take());
        self.wakes = false;
        let (seen, events, _) = self.link.step(|connection| {
            connection.lend_events(lent);
            if bytes > 0 {
                connection.handle_received(bytes, now);
            }
            for frame in frames {
                connection.handle_frame(frame, now);
            }
            // A driver that always has something to read may never get to its timer.
            if connection.poll_timeout().is_some_and(|due| due <= now) {
                connection.handle_timeout(now);
            }
            Seen::of(connection)
        });
        self.give_back_inbox();
        self.see(seen);
        self.pass_on(events);
    }

    fn deliver_all(&mut self) {
        loop {
            while !self.inbox.frames.is_empty() {
                self.deliver();
            }
            if self.inbox.rest.is_empty() {
                return;
            }
            self.inbox.decode_rest(&mut self.decoder);
        }
    }

    fn give_back_inbox(&mut self) {
        if self.inbox.frames.is_empty() {
            keep(&SPARE_FRAMES, mem::take(&mut self.inbox.frames));
        }
    }

    /// Changes the connection. The driver is awake, so that nobody needs to wake it before it sleeps again.
    fn step(&mut self, step: impl FnOnce(&mut Connection)) -> Vec<Event> {
        self.wakes = false;
        let link = Arc::clone(&self.link);
        let (seen, events, _) = link.step(|connection| {
            step(connection);
            Seen::of(connection)
        });
        self.see(seen);
        events
    }

    fn see(&mut self, (seen, due): (Seen, Option<Instant>)) {
        self.seen = seen;
        self.timer.due = due;
    }

    /// Callers first, then handlers on this thread, then the mailbox.
    fn pass_on(&mut self, mut events: Vec<Event>) {
        let (mut requests, mut broken) = (Vec::new(), None);
        for event in events.drain(..) {
            match event {
                Event::Hello { pbody } => requests.push(Item::Hello { pbody }),
                Event::Request {
                    rpc_type,
                    ticket,
                    pbody,
                    dbody,
                } => match self.mailbox.inline(rpc_type) {
                    Some(handler) => {
                        dispatch::start(handler, &self.link, (rpc_type, ticket), (pbody, dbody));
                    }
                    None => requests.push(Item::Request {
                        rpc_type,
                        ticket,
                        pbody,
                        dbody,
                    }),
                },
                Event::OneWay(message) => {
                    self.gave_one_ways = true;
                    let taken = self.mailbox.take_one_way(message);
                    broken = broken.or_else(|| taken.err());
                }
                Event::Outcome(..) | Event::Pinged(..) => {
                    self.write.told += 1;
                    self.write.told_now = true;
                    link::finish(event);
                }
            }
        }
        keep(&SPARE_EVENTS, events);
        if !requests.is_empty() {
            // Now it is others' turn, perhaps on this processor.
            self.lookout.rest();
            self.mailbox.deliver(requests.into_iter());
        }
        if let Some(error) = broken {
            self.close(error.into());
        }
    }

    // ---- writing ----

    /// Writes what is queued; ready if the socket took something, or failed.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        if self.transmit.is_empty() {
            // TLS may hold back what it was given. Nothing else is taken until that is out, so that what is urgent does
            // not queue behind it.
            let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx) else {
                self.write.blocked = true;
                return Poll::Pending;
            };
            flushed?;
            self.on_progress();
            self.fill(cx);
        }
        let mut progress = Poll::Pending;
        while !self.transmit.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.transmit.slices(&mut slices);
            let written = Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..count]);
            let Poll::Ready(written) = written else {
                self.write.blocked = true;
                return progress;
            };
            match written? {
                0 => return Poll::Ready(Err(CloseReason::Io(io::ErrorKind::WriteZero))),
                bytes => self.on_written(bytes),
            }
            progress = Poll::Ready(Ok(()));
        }
        progress
    }

    fn on_written(&mut self, bytes: usize) {
        self.transmit.advance(bytes);
        self.write.sent += bytes;
        self.write.writes += 1;
        self.on_progress();
    }

    fn on_progress(&mut self) {
        if mem::take(&mut self.write.blocked) {
            let now = link::now();
            self.link.lock().handle_write_progress(now);
        }
    }

    /// Takes what is queued, unless more is expected in a moment; leaves the waker behind if there is nothing.
    fn fill(&mut self, cx: &mut Context<'_>) {
        let link = Arc::clone(&self.link);
        let Self {
            write, transmit, ..
        } = self;
        let connection = link.drain(cx.waker(), |connection| {
            write.report(connection);
            write.settles = write.should_settle(connection);
            if write.settles {
                return true;
            }
            connection.transmit(transmit);
            write.told = 0;
            !transmit.is_empty()
        });
        let seen = Seen::of(&connection);
        drop(connection);
        self.wakes = self.transmit.is_empty();
        self.see_drained(seen);
        link.release_room(self.transmit.take_room());
    }

    /// Taking the replies may have closed the connection.
    fn see_drained(&mut self, seen: (Seen, Option<Instant>)) {
        let closed = self.seen.stage == Stage::Running && seen.0.stage != Stage::Running;
        self.see(seen);
        if closed {
            let events = self.step(|_| {});
            self.pass_on(events);
        }
    }

    /// Leaves the waker behind while the socket takes nothing.
    fn wait_blocked(&mut self, cx: &mut Context<'_>) {
        let link = Arc::clone(&self.link);
        let seen = Seen::of(&link.drain(cx.waker(), |_| false));
        self.wakes = true;
        self.see_drained(seen);
    }

    // ---- time ----

    /// Sleeps until the connection wants to be called.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.timer.poll(cx));
        self.on_time();
        Poll::Ready(())
    }

    fn on_time(&mut self) {
        let now = link::now();
        let events = self.step(|connection| connection.handle_timeout(now));
        self.pass_on(events);
    }

    /// A turn; ready once the connection is closed.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut turn = Turn::default();
        while self.seen.stage == Stage::Running {
            // What was read is answered, and what is queued is written, before more is read.
            let write = self.poll_write(cx);
            if mem::take(&mut self.write.settles) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let paused = self.seen.reading_is_paused;
            let read = if paused || self.mailbox.poll_room(cx).is_pending() {
                Poll::Pending
            } else {
                self.poll_read(cx)
            };
            for end in [&write, &read] {
                if let Poll::Ready(Err(reason)) = end {
                    // Answers that are here already count.
                    self.deliver_all();
                    self.close(reason.clone());
                }
            }
            if mem::take(&mut self.write.told_now) {
                // Those who were told run first, so that what they have to say is written at once.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if read.is_ready() || write.is_ready() {
                if turn.is_over() {
                    give_way(cx);
                    return Poll::Pending;
                }
                continue;
            }
            if !self.wakes {
                self.wait_blocked(cx);
            }
            // Whatever changes from here on wakes the driver; what has changed before is looked at now.
            let seen = self.seen;
            let unchanged = seen.stage == Stage::Running && seen.reading_is_paused == paused;
            if self.poll_time(cx).is_pending() && unchanged {
                // One that stays awake is enough for a thread.
                if self.is_last_to_read() && self.lookout.goes_on() {
                    give_way(cx);
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    // ---- the end ----

    fn close(&mut self, reason: CloseReason) {
        let now = link::now();
        let events = self.step(|connection| connection.close(reason, now));
        self.pass_on(events);
    }

    /// Writes what is left, says that there is no more, and waits for the peer to do the same, all within the time that
    /// the connection allows: a socket closed with unread bytes would take what was just written with it.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.seen.stage == Stage::Lingering {
            if self.closing == Closing::Writing {
                match self.poll_write(cx) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
                if self.transmit.is_empty() && !self.write.blocked {
                    match Pin::new(&mut self.socket).poll_shutdown(cx) {
                        Poll::Ready(Ok(())) => self.closing = Closing::Draining,
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        // TLS still has to say so, and the peer may never read it.
                        Poll::Pending => {}
                    }
                }
            }
            if self.poll_discard(cx).is_ready() {
                return Poll::Ready(());
            }
            // Reading may have used up what the runtime allows a task in one go, timers included.
            if self.timer.is_due() {
                self.on_time();
            } else {
                ready!(self.poll_time(cx));
            }
        }
        Poll::Ready(())
    }

    /// Reads and forgets; ready at the peer's end.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        STAGING.with_borrow_mut(|staging| {
            for _ in 0..DISCARDING_READS_MAX {
                let mut target = ReadBuf::new(staging);
                let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut target));
                if read.is_err() || target.filled().is_empty() {
                    return Poll::Ready(());
                }
            }
            give_way(cx);
            Poll::Pending
        })
    }
}

impl<S: ReadVectored + AsyncWrite> Future for Driver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = &mut *self;
        // Being polled may mean that the waker was used up.
        driver.wakes = false;
        let running = driver.poll_running(cx);
        if mem::take(&mut driver.gave_one_ways) {
            driver.mailbox.end_turn();
        }
        ready!(running);
        driver.poll_close(cx)
    }
}

/// How many frames are handed on at a time, with so many calls under way.
fn share_of(calls_in_flight: usize) -> usize {
    match calls_in_flight.div_ceil(2) {
        0 => SHARE_FRAMES_MAX,
        half => half.clamp(SHARE_FRAMES_MIN, SHARE_FRAMES_MAX),
    }
}

/// Wakes the task again once all others had their turn and the runtime has looked at its sockets. It does so by itself
/// only after dozens of turns, and until then nothing that arrives is seen.
fn give_way(cx: &mut Context<'_>) {
    // Never ready when it is asked first.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// How long a driver has kept its thread busy.
#[derive(Default)]
struct Turn {
    began: Option<Instant>,
}

impl Turn {
    fn is_over(&mut self) -> bool {
        // A driver that has just one thing to do never looks at the clock twice.
        let began = *self.began.get_or_insert_with(busy_now);
        busy_now().saturating_duration_since(began) >= TURN_TIME
    }
}

impl WriteState {
    /// Tells the connection what was written.
    fn report(&mut self, connection: &mut Connection) {
        if self.sent > 0 {
            let (bytes, writes) = (mem::take(&mut self.sent), mem::take(&mut self.writes));
            connection.handle_sent(bytes, writes, link::now());
        }
    }

    /// Whether to wait a moment for more. Flushing every frame on its own wakes the peer every time; with one exchange
    /// at a time there is nothing to wait for.
    fn should_settle(&mut self, connection: &Connection) -> bool {
        let frames = connection.queued_frames();
        let grows = frames > self.settle_frames;
        let all_spoke = self.told > 0 && frames >= self.told;
        let settle = frames > 0
            && grows
            && !all_spoke
            && frames < SETTLE_FRAMES_MAX
            && self.settle_rounds < SETTLE_ROUNDS_MAX
            && connection.expects_more();
        (self.settle_rounds, self.settle_frames) = if settle {
            (self.settle_rounds + 1, frames)
        } else {
            (0, 0)
        };
        settle
    }
}

impl Timer {
    fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= link::now())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else {
            return Poll::Pending;
        };
        if self.armed.is_none_or(|armed| due < armed) {
            self.arm(due);
        }
        while let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            if due <= link::now() {
                self.armed = None;
                return Poll::Ready(());
            }
            self.arm(due);
        }
        Poll::Pending
    }

    fn arm(&mut self, due: Instant) {
        let at = tokio::time::Instant::from_std(due);
        self.armed = Some(due);
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }
}
