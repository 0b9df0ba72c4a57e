//! What the driver, the handlers and the callers of one connection share: the state machine behind its one lock.
//!
//! Whoever queues something wakes the driver, but only if it sleeps: it leaves its waker behind when it runs out of work.

use std::{
    cell::Cell,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protos::Plane;
use tokio::sync::{Semaphore, TryAcquireError, watch};

use crate::connection::{Completion, Deadline};
use crate::{
    connection::{Connection, Event, Outgoing},
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
        let mut events = Vec::new();
        let mut connection = self.lock();
        let driver = {
            let mut outbox = self.outbox();
            connection.take_replies(&mut outbox.replies);
            outbox.driver.take()
        };
        let result = step(&mut connection);
        connection.take_events(&mut events);
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
            wake(outbox);
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
        outbox.driver = (!take(&mut connection)).then(|| driver.clone());
        drop(outbox);
        connection
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request as soon as there is room for it.
    pub(crate) async fn start(
        &self,
        mut request: Outgoing<'_>,
        deadline: Option<Deadline>,
        completion: Completion,
    ) -> Result<CoordinationId, CallError> {
        let (room, waited) = self.acquire_room(&request).await?;
        (request.room, request.room_wait) = (room as usize, waited);
        self.with(|connection| connection.call(request, deadline, completion))
            .inspect_err(|_| self.room.add_permits(room as usize))
    }

    /// Queues a message that is never answered as soon as there is room for it.
    pub(crate) async fn post(&self, mut message: Outgoing<'_>) -> Result<(), CallError> {
        let (room, waited) = self.acquire_room(&message).await?;
        (message.room, message.room_wait) = (room as usize, waited);
        self.with(|connection| connection.post(message))
            .inspect_err(|_| self.room.add_permits(room as usize))
    }

    /// The room taken, and how long that had to wait for others to give it back, if it did.
    async fn acquire_room(
        &self,
        request: &Outgoing<'_>,
    ) -> Result<(u32, Option<Duration>), CallError> {
        let bytes = request.pbody.bytes_len() + request.dbody.iter().map(Bytes::len).sum::<usize>();
        // A frame that is larger than the whole room takes all of it.
        let room = u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .clamp(1, self.room_bytes);
        let (permit, waited) = match self.room.try_acquire_many(room) {
            Err(TryAcquireError::NoPermits) => {
                let since = now();
                let permit = self.room.acquire_many(room).await.ok();
                (permit, Some(now().saturating_duration_since(since)))
            }
            other => (other.ok(), None),
        };
        let permit = permit.ok_or_else(|| CallError::Lost(self.reason()))?;
        permit.forget();
        Ok((room, waited))
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
            wake(outbox);
        }
    }
}

fn wake(mut outbox: MutexGuard<'_, Outbox>) {
    let driver = outbox.driver.take();
    drop(outbox);
    if let Some(driver) = driver {
        driver.wake();
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
