//! What the driver, the handlers and the callers of one connection share: the state machine behind its one lock.
//!
//! Whoever queues something wakes the driver, but only if it sleeps: it leaves its waker behind when it runs out of work.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use protos::Plane;
use tokio::sync::{Semaphore, TryAcquireError, watch};

use crate::connection::{Completion, Deadline};
use crate::{
    connection::{Connection, Event, Outgoing},
    error::{CallError, CloseReason},
    frame::CoordinationId,
    lanes::Pbody,
    metrics::Counters,
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
    state: Mutex<State>,
    /// One permit per byte that may be queued for writing.
    room: Semaphore,
    room_bytes: u32,
    /// Copied from the connection, so that decoding needs no lock.
    frame_bytes_max: AtomicUsize,
    /// Set once the socket is closed.
    ended: watch::Sender<Option<CloseReason>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) connection: Connection,
    /// The driver's waker, while it sleeps.
    pub(crate) driver: Option<Waker>,
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
            state: Mutex::new(State {
                connection,
                driver: None,
            }),
            room: Semaphore::new(room_bytes as usize),
            room_bytes,
            ended: watch::Sender::new(None),
        })
    }

    /// The lock, for the driver; everybody else uses [`Self::with`].
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the connection, then tells whom it concerns: callers whose calls ended, and the driver.
    pub(crate) fn with<R>(&self, step: impl FnOnce(&mut Connection) -> R) -> R {
        let mut events = Vec::new();
        let (result, driver) = {
            let mut state = self.lock();
            let result = step(&mut state.connection);
            state.connection.take_events(&mut events);
            self.after_step(&state.connection);
            (result, state.driver.take())
        };
        events.into_iter().for_each(finish);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Keeps in step what is kept outside of the lock. To be called under it after every change.
    pub(crate) fn after_step(&self, connection: &Connection) {
        self.frame_bytes_max
            .store(connection.frame_bytes_max(), Ordering::Relaxed);
        if connection.is_closed() {
            self.room.close();
        }
    }

    /// Queues a request as soon as there is room for it.
    pub(crate) async fn start(
        &self,
        mut request: Outgoing<impl Pbody>,
        deadline: Option<Deadline>,
        completion: Completion,
    ) -> Result<CoordinationId, CallError> {
        let (room, waited) = self.acquire_room(&request).await?;
        (request.room, request.room_wait) = (room as usize, waited);
        self.with(|connection| connection.call(request, deadline, completion))
            .inspect_err(|_| self.room.add_permits(room as usize))
    }

    /// The room taken, and how long that had to wait for others to give it back, if it did.
    async fn acquire_room(
        &self,
        request: &Outgoing<impl Pbody>,
    ) -> Result<(u32, Option<Duration>), CallError> {
        let bytes =
            request.pbody.bytes_len() + request.dbody.iter().map(bytes::Bytes::len).sum::<usize>();
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
        self.lock().connection.counters()
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        let now = now();
        self.with(|connection| connection.close(reason, now));
    }

    /// Why it is closed; meaningful only if it is.
    pub(crate) fn reason(&self) -> CloseReason {
        self.lock()
            .connection
            .close_reason()
            .cloned()
            .unwrap_or(CloseReason::Aborted)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().connection.is_closed()
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

/// Tells a caller how its call or PING ended. Requests are the driver's matter and never come here.
pub(crate) fn finish(event: Event) {
    // A caller that has gone away wants no answer.
    match event {
        Event::Outcome(completion, outcome) => drop(completion.send(outcome)),
        Event::Pinged(completion, outcome) => drop(completion.send(outcome)),
        Event::Hello { .. } | Event::Request { .. } => {
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
