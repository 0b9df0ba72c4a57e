//! What the driver, the handlers and the callers of one connection share: the state machine behind its one lock.
//!
//! Whoever queues something wakes the driver, but only if it sleeps: it leaves its waker behind when it runs out of work.

use std::{
    cell::Cell,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protos::Plane;
use tokio::sync::{Semaphore, TryAcquireError, watch};

use crate::{
    connection::{Completion, Connection, Event, Outgoing, Unsent},
    error::{CallError, CloseReason},
    frame::CoordinationId,
    lanes::Pbody,
    metrics::{Counters, Ticket},
    replies::Replies,
    tls::TlsInfo,
};

/// Names of both ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// Unique in this process.
    pub(crate) id: u64,
    pub(crate) plane: Plane,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) tls: Option<TlsInfo>,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) ends: Ends,
    state: Mutex<Connection>,
    /// Locked after `state`, or alone.
    outbox: Mutex<Outbox>,
    /// Whether the outbox holds the driver's waker. Set with both locked, so that whoever holds `state` knows from this
    /// whether there is anybody to wake.
    driver_sleeps: AtomicBool,
    /// One permit per byte that may be queued for writing.
    room: Semaphore,
    room_bytes: u32,
    /// Copied from the connection, so that decoding needs no lock.
    frame_bytes_max: AtomicUsize,
    /// Set once the socket is closed.
    ended: watch::Sender<Option<CloseReason>>,
}

/// What is left for the driver.
#[derive(Debug, Default)]
struct Outbox {
    /// Apart from the connection, so that handlers and the driver do not wait for each other.
    replies: Replies,
    /// The driver's waker, while it sleeps.
    driver: Option<Waker>,
    /// Nobody takes replies any more.
    closed: bool,
}

/// Write room that a message takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    /// Until it is handed to the socket.
    pub(crate) bytes: usize,
    /// How long it had to wait for others to give it back, if it did.
    pub(crate) waited: Option<Duration>,
}

thread_local! {
    /// The link whose requests this thread starts: replies to them wake the driver at the end of the turn.
    static TURN: Cell<Option<u64>> = const { Cell::new(None) };
}

impl Link {
    pub(crate) fn new(
        ends: Ends,
        connection: Connection,
        write_queue_bytes_max: usize,
    ) -> Arc<Self> {
        let room_bytes = u32::try_from(write_queue_bytes_max)
            .unwrap_or(u32::MAX)
            .min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Arc::new(Self {
            ends,
            frame_bytes_max: AtomicUsize::new(connection.frame_bytes_max()),
            state: Mutex::new(connection),
            outbox: Mutex::default(),
            driver_sleeps: AtomicBool::new(false),
            room: Semaphore::new(room_bytes as usize),
            room_bytes,
            ended: watch::Sender::new(None),
        })
    }

    /// The connection, without the replies on their way to it, for whoever does not change it: taking them is for those
    /// who see to it that the driver writes them, as [`Self::with`] does.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the connection, then tells whom it concerns: callers whose calls ended, and the driver.
    pub(crate) fn with<R>(&self, step: impl FnOnce(&mut Connection) -> R) -> R {
        let (result, events, driver) = self.step(step);
        events.into_iter().for_each(finish);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Does something to the connection. What it brings is the caller's to pass on; so is the driver's waker.
    pub(crate) fn step<R>(
        &self,
        step: impl FnOnce(&mut Connection) -> R,
    ) -> (R, Vec<Event>, Option<Waker>) {
        let mut connection = self.lock();
        let driver = {
            let mut outbox = self.outbox();
            connection.take_replies(&mut outbox.replies);
            self.take_driver(&mut outbox)
        };
        let result = step(&mut connection);
        let events = connection.take_events();
        self.frame_bytes_max
            .store(connection.frame_bytes_max(), Ordering::Relaxed);
        if connection.is_closed() {
            self.room.close();
            self.outbox().closed = true;
        }
        (result, events, driver)
    }

    /// Answers a request; on a turn of this link the driver learns of it at its end.
    pub(crate) fn reply(
        &self,
        ticket: Ticket,
        rpc_type: i32,
        answer: (Pbody<'_>, Vec<Bytes>),
        now: Instant,
    ) {
        let mut outbox = self.outbox();
        if outbox.closed {
            return;
        }
        outbox.replies.push(ticket, rpc_type, answer, now);
        if TURN.get() != Some(self.ends.id) {
            self.wake(outbox);
        }
    }

    /// Begins a turn of this thread: until it ends, replies do not wake the driver.
    pub(crate) fn turn(&self) -> Turn<'_> {
        TURN.set(Some(self.ends.id));
        Turn(self)
    }

    /// Gives what is queued to `take`, which says whether it took anything. If not, the next one to queue something
    /// wakes `driver`.
    pub(crate) fn drain(
        &self,
        driver: &Waker,
        take: impl FnOnce(&mut Connection) -> bool,
    ) -> MutexGuard<'_, Connection> {
        let mut connection = self.lock();
        let mut outbox = self.outbox();
        connection.take_replies(&mut outbox.replies);
        let sleeps = !take(&mut connection);
        outbox.driver = sleeps.then(|| driver.clone());
        self.driver_sleeps.store(sleeps, Ordering::Relaxed);
        drop(outbox);
        connection
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver's waker, if it sleeps.
    fn take_driver(&self, outbox: &mut Outbox) -> Option<Waker> {
        self.driver_sleeps.store(false, Ordering::Relaxed);
        outbox.driver.take()
    }

    fn wake(&self, mut outbox: MutexGuard<'_, Outbox>) {
        let driver = self.take_driver(&mut outbox);
        drop(outbox);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Queues a request, for which there is room.
    pub(crate) fn call(
        &self,
        request: Outgoing<'_>,
        timeout: Option<Duration>,
        completion: Completion,
    ) -> Result<CoordinationId, CallError> {
        let room = request.room.bytes;
        self.queue(|connection| connection.call(request, timeout, completion))
            .inspect_err(|_| self.room.add_permits(room))
    }

    /// Queues a message that is never answered, for which there is room.
    pub(crate) fn post(&self, message: Outgoing<'_>) -> Result<(), CallError> {
        let room = message.room.bytes;
        self.queue(|connection| connection.post(message))
            .inspect_err(|_| self.room.add_permits(room))
    }

    /// Does something to the connection that concerns nobody but the driver.
    fn queue<R>(&self, step: impl FnOnce(&mut Connection) -> R) -> R {
        let mut connection = self.lock();
        let result = step(&mut connection);
        let driver_sleeps = self.driver_sleeps.load(Ordering::Relaxed);
        drop(connection);
        if driver_sleeps {
            self.wake(self.outbox());
        }
        result
    }

    /// Room for a message of so many bytes, if there is any just now.
    pub(crate) fn try_room(&self, bytes: usize) -> Result<Option<Room>, CallError> {
        let bytes = self.room_of(bytes);
        match self.room.try_acquire_many(bytes) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::NoPermits) => return Ok(None),
            Err(TryAcquireError::Closed) => return Err(CallError::Lost(self.reason())),
        }
        Ok(Some(Room {
            bytes: bytes as usize,
            waited: None,
        }))
    }

    /// Room for a message of so many bytes, as soon as others have given it back.
    pub(crate) async fn wait_for_room(&self, bytes: usize) -> Result<Room, CallError> {
        let (bytes, since) = (self.room_of(bytes), now());
        let permit = self.room.acquire_many(bytes).await;
        permit.map_err(|_| CallError::Lost(self.reason()))?.forget();
        Ok(Room {
            bytes: bytes as usize,
            waited: Some(now().saturating_duration_since(since)),
        })
    }

    /// The same for a call, which ends if it gets no room within `timeout` of its beginning.
    pub(crate) async fn wait_for_call_room(
        &self,
        call: Unsent,
        timeout: Option<Duration>,
    ) -> Result<Room, CallError> {
        let (since, room) = (now(), self.wait_for_room(call.bytes));
        let Some((timeout, at)) = timeout.and_then(|t| Some((t, call.began.checked_add(t)?)))
        else {
            return room.await;
        };
        let in_time = tokio::time::timeout_at(at.into(), room).await;
        in_time.unwrap_or_else(|_| {
            let waited = now().saturating_duration_since(since);
            self.lock().note_unsent(&call, waited);
            Err(CallError::Timeout(timeout))
        })
    }

    /// A frame that is larger than the whole room takes all of it.
    fn room_of(&self, bytes: usize) -> u32 {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        bytes.clamp(1, self.room_bytes)
    }

    /// Gives write room back.
    pub(crate) fn release_room(&self, bytes: usize) {
        if bytes > 0 {
            self.room.add_permits(bytes);
        }
    }

    /// A copy of all that the connection counts.
    pub(crate) fn counters(&self) -> Counters {
        self.lock().counters()
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        let now = now();
        self.with(|connection| connection.close(reason, now));
    }

    /// Why it is closed; meaningful only if it is.
    pub(crate) fn reason(&self) -> CloseReason {
        self.lock()
            .close_reason()
            .cloned()
            .unwrap_or(CloseReason::Aborted)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    pub(crate) fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max.load(Ordering::Relaxed)
    }

    /// The socket is closed: tells whoever waits for that.
    pub(crate) fn end(&self, reason: CloseReason) {
        self.ended.send_replace(Some(reason));
    }

    pub(crate) async fn ended(&self) -> CloseReason {
        let mut ended = self.ended.subscribe();
        let reason = ended
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        reason.unwrap_or(CloseReason::Aborted)
    }
}

/// A turn of [`Link::turn`]; it ends when this is dropped.
pub(crate) struct Turn<'a>(&'a Link);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        TURN.set(None);
        let outbox = self.0.outbox();
        if !outbox.replies.is_empty() {
            self.0.wake(outbox);
        }
    }
}

/// Tells a caller how its call or PING ended. Requests are the driver's matter and never come here.
pub(crate) fn finish(event: Event) {
    // A caller that has gone away wants no answer.
    match event {
        Event::Outcome(completion, outcome) => drop(completion.send(outcome)),
        Event::Pinged(completion, outcome) => drop(completion.send(outcome)),
        Event::Hello { .. } | Event::Request { .. } | Event::OneWay(_) => {
            debug_assert!(
                false,
                "invariant: only frames bring requests, and the driver takes them"
            );
        }
    }
}

/// The clock of everything that is not sans-io; tests can turn it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU64, task::Wake};

    use protos::rpc::RpcMode;

    use super::*;
    use crate::{
        frame::Walk,
        lanes::Transmit,
        tests::{call_on, link_with_requests},
    };

    #[derive(Default)]
    struct Wakes(AtomicU64);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A server's link with requests 1 to 3 in flight, its driver asleep.
    struct Asleep {
        link: Arc<Link>,
        wakes: Arc<Wakes>,
        tickets: Vec<Ticket>,
    }

    impl Asleep {
        fn new() -> Self {
            let (link, tickets) = link_with_requests(3);
            let asleep = Self {
                link,
                wakes: Arc::default(),
                tickets,
            };
            asleep.drain(|_| false);
            asleep
        }

        fn drain(&self, take: impl FnOnce(&mut Connection) -> bool) {
            drop(self.link.drain(&Arc::clone(&self.wakes).into(), take));
        }

        fn reply(&self, id: usize) {
            let answer = (Bytes::new().into(), Vec::new());
            self.link
                .reply(self.tickets[id - 1], 1, answer, Instant::now());
        }

        fn wakes(&self) -> u64 {
            self.wakes.0.load(Ordering::Relaxed)
        }

        /// Mode and id of what leaves now.
        fn sent(&self) -> Vec<(RpcMode, i32)> {
            let mut out = Transmit::default();
            self.drain(|connection| {
                connection.transmit(&mut out);
                !out.is_empty()
            });
            Walk::new(&out.take_bytes(), 1 << 20)
                .filter_map(Result::ok)
                .map(|frame| (frame.header.mode, frame.header.coordination_id.0))
                .collect()
        }
    }

    #[test]
    fn replies_of_a_turn_wake_the_driver_once_at_its_end() {
        let server = Asleep::new();
        let turn = server.link.turn();
        server.reply(2);
        server.reply(1);
        assert_eq!(server.link.lock().stats().requests_in_flight, 3);
        assert_eq!(server.wakes(), 0);
        drop(turn);
        assert_eq!(server.wakes(), 1);
        assert_eq!(
            server.sent(),
            [(RpcMode::Response, 2), (RpcMode::Response, 1)]
        );
        drop(server.link.turn());
        assert_eq!(server.wakes(), 1, "a turn without replies wakes nobody");
    }

    #[test]
    fn a_reply_outside_of_a_turn_wakes_the_driver_at_once() {
        let (server, other) = (Asleep::new(), Asleep::new());
        server.reply(1);
        assert_eq!(server.wakes(), 1);
        server.reply(2);
        assert_eq!(server.wakes(), 1, "it is awake already");
        let _turn = other.link.turn();
        std::thread::scope(|scope| scope.spawn(|| other.reply(1)).join().is_ok());
        assert_eq!(other.wakes(), 1, "the turn is that of another thread");
    }

    #[test]
    fn a_reply_leaves_before_what_is_sent_after_it() {
        let server = Asleep::new();
        let _turn = server.link.turn();
        server.reply(3);
        call_on(&server.link);
        assert_eq!(
            server.sent(),
            [(RpcMode::Response, 3), (RpcMode::Request, 1)]
        );
    }

    #[test]
    fn replies_after_the_end_are_dropped() {
        let server = Asleep::new();
        server.link.close(CloseReason::Aborted);
        server.reply(1);
        assert!(server.link.outbox().replies.is_empty());
    }
}
