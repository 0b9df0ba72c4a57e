//! From the driver to the handler: one mailbox per connection, emptied by one task on the app runtime.
//!
//! The driver appends whole read batches and wakes the task only if it sleeps. Requests start one at a time, in the order
//! in which they came. The mailbox is bounded by `requests_in_flight_max`: what waits here is in flight.

use std::{
    cell::Cell,
    collections::VecDeque,
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use protos::{OneWay, body, error::ErrorType};

use crate::{
    auth::{AuthError, Authenticator, Credentials, Identity},
    connection::IdleTimeout,
    entrance::{Entrance, enter},
    error::{CloseReason, PeerMisbehaved, ProtocolError, RpcFailure},
    link::{self, Link},
    metrics::Ticket,
    remote::RemoteConnection,
    reply::{InboundRequest, Responder},
    runtime::panic_message,
};

/// Requests that are started before other tasks get their turn.
const TURN_REQUESTS: usize = 64;
/// Time after which other tasks get their turn.
const TURN_TIME: Duration = Duration::from_micros(200);

/// Serves the requests of one connection, client and server side alike.
///
/// Calls come one at a time and in the order of the requests. They must not wait: what takes time goes on elsewhere
/// and takes the [`Responder`] along.
pub trait Handler: Send + Sync + 'static {
    /// Starts one request.
    fn handle(&self, request: InboundRequest);

    /// Whether requests of this type are started on the I/O thread, as soon as they are read: possibly before, and at
    /// the same time as, requests that came earlier. Only for types without order
    /// ([`protos::calls::unordered`]) whose handling takes microseconds and never waits, not even for a lock that is
    /// held for long: while it runs, no connection of that thread moves.
    fn runs_inline(&self, rpc_type: i32) -> bool {
        let _ = rpc_type;
        false
    }

    /// Takes a message that is never answered, on the I/O thread and in the order in which such messages come. Must
    /// not wait, as with [`Self::runs_inline`].
    ///
    /// # Errors
    ///
    /// The message breaks the rules. That ends the connection, because there is no other way to tell the peer.
    fn one_way(&self, message: OneWayMessage) -> Result<(), PeerMisbehaved> {
        Err(message.unexpected())
    }

    /// The messages that [`Self::one_way`] was given since the last call are all that came in one go. Said on the I/O
    /// thread, before it looks after other connections: whoever waits for such messages is woken once for many of them.
    fn turn_ended(&self) {}

    /// The connection has ended; the last call of all.
    fn closed(&self, reason: &CloseReason) {
        let _ = reason;
    }
}

/// A request that is never answered: one with coordination id 0, of a peer that has agreed on
/// [`Feature::Streams`](crate::Feature::Streams).
#[derive(PartialEq, Eq)]
pub struct OneWayMessage {
    /// Number from the plane's own `RpcType`; possibly one that does not exist.
    pub rpc_type: i32,
    /// The protobuf body.
    pub pbody: Bytes,
    /// The raw body.
    pub dbody: Bytes,
}

impl OneWayMessage {
    pub(crate) fn new(rpc_type: i32, pbody: Bytes, dbody: Bytes) -> Self {
        Self {
            rpc_type,
            pbody,
            dbody,
        }
    }

    /// The message of `M`, and the raw body.
    ///
    /// # Errors
    ///
    /// The body is no such message.
    pub fn decode<M: OneWay>(mut self) -> Result<(M::Message, Bytes), PeerMisbehaved> {
        match body::decode::<M::Message>(&mut self.pbody) {
            Ok(message) => Ok((message, self.dbody)),
            Err(error) => Err(PeerMisbehaved {
                reason: format!("malformed {}: {error}", M::name()),
            }),
        }
    }

    /// What is wrong with a message that nobody here takes.
    #[must_use]
    pub fn unexpected(&self) -> PeerMisbehaved {
        PeerMisbehaved {
            reason: "unexpected here".to_owned(),
        }
    }
}

/// Without the bodies, as requests are shown.
impl fmt::Debug for OneWayMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneWayMessage")
            .field("rpc_type", &self.rpc_type)
            .field("pbody_bytes", &self.pbody.len())
            .field("dbody_bytes", &self.dbody.len())
            .finish()
    }
}

/// Judges handshakes; one per server.
pub trait Acceptor: Send + Sync + 'static {
    /// Must not wait.
    fn accept(&self, hello: Hello) -> Verdict;
}

/// A handshake that came in: the first message of `rpc_type` 0, whatever its mode.
// wire: drill@051b164 exec/rpc/.../AbstractHandshakeHandler.java
pub struct Hello {
    /// The plane's own handshake message.
    pub pbody: Bytes,
    /// The connection that it came on. Calls on it wait in vain until the handshake is accepted.
    pub connection: RemoteConnection,
}

/// Without the message: it may hold a password.
impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("pbody_bytes", &self.pbody.len())
            .field("connection", &self.connection)
            .finish()
    }
}

/// What becomes of a connection.
pub enum Verdict {
    /// It is open.
    Open {
        /// Body of the handshake's response.
        reply: Bytes,
        /// Gets its requests.
        handler: Arc<dyn Handler>,
        /// Whether it must show signs of life.
        idle_timeout: IdleTimeout,
    },
    /// The peer has to prove who it is: only `SASL_MESSAGE` is taken until it has.
    Authenticate {
        /// Body of the handshake's response; it names the mechanisms that the authenticator offers.
        reply: Bytes,
        /// Judges the proof.
        authenticator: Arc<Authenticator>,
        /// Makes the handler of a peer that has proved who it is. Must not wait.
        admit: Box<dyn FnOnce(Identity) -> Arc<dyn Handler> + Send>,
        /// Whether it must show signs of life once it is let in.
        idle_timeout: IdleTimeout,
    },
    /// The handshake holds a password, which is to be checked before there is a verdict.
    Verify {
        /// From the handshake.
        credentials: Credentials,
        /// Checks them.
        authenticator: Arc<Authenticator>,
        /// Judges again, knowing what came of it. Must not wait.
        then: Box<dyn FnOnce(Result<Identity, AuthError>) -> Self + Send>,
    },
    /// It is closed, after `reply` is sent.
    Refuse {
        /// Body of the handshake's response, if there is to be one.
        reply: Option<Bytes>,
        /// For the log.
        reason: String,
    },
}

/// What the driver hands over.
pub(crate) enum Item {
    Hello {
        pbody: Bytes,
    },
    Request {
        rpc_type: i32,
        ticket: Ticket,
        pbody: Bytes,
        dbody: Bytes,
    },
}

impl Item {
    /// What it holds, roughly.
    fn bytes(&self) -> usize {
        let bodies = match self {
            Self::Hello { pbody } => pbody.len(),
            Self::Request { pbody, dbody, .. } => pbody.len() + dbody.len(),
        };
        size_of::<Self>() + bodies
    }
}

pub(crate) struct Mailbox {
    /// What may wait while reading goes on.
    bytes_max: Option<usize>,
    inner: Mutex<Inner>,
    /// Once requests are served: by whom.
    handler: OnceLock<Arc<dyn Handler>>,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    /// Bytes of `items`.
    bytes: usize,
    /// The task's waker, while it sleeps.
    drainer: Option<Waker>,
    /// The driver's waker, while it waits for room.
    reader: Option<Waker>,
    ended: Option<CloseReason>,
}

impl Mailbox {
    pub(crate) fn new(bytes_max: Option<usize>) -> Self {
        Self {
            bytes_max,
            inner: Mutex::default(),
            handler: OnceLock::new(),
        }
    }

    /// Gives a message that is never answered to the handler, which there is once the connection is open.
    pub(crate) fn take_one_way(&self, message: OneWayMessage) -> Result<(), ProtocolError> {
        let rpc_type = message.rpc_type;
        let taken = match self.handler.get() {
            Some(handler) => survive("one_way", || handler.one_way(message)).unwrap_or(Ok(())),
            None => Err(message.unexpected()),
        };
        taken.map_err(|PeerMisbehaved { reason }| ProtocolError::OneWay { rpc_type, reason })
    }

    /// Tells the handler that no more such messages come in this turn of the driver.
    pub(crate) fn end_turn(&self) {
        if let Some(handler) = self.handler.get() {
            survive("turn_ended", || handler.turn_ended());
        }
    }

    /// Who starts requests of this type on the I/O thread; nobody before the handshake is accepted.
    pub(crate) fn inline(&self, rpc_type: i32) -> Option<&dyn Handler> {
        let handler = self.handler.get()?;
        let inline = survive("runs_inline", || handler.runs_inline(rpc_type));
        (inline == Some(true)).then_some(&**handler)
    }

    /// From here on requests are served by `handler`: said before the peer may know that it is let in, so that not
    /// even its first message finds nobody.
    pub(crate) fn serve(&self, handler: &Arc<dyn Handler>) {
        self.handler.get_or_init(|| Arc::clone(handler));
    }

    /// Appends a read batch.
    pub(crate) fn deliver(&self, batch: impl Iterator<Item = Item>) {
        let mut inner = self.lock();
        for item in batch {
            inner.bytes += item.bytes();
            inner.items.push_back(item);
        }
        wake(inner);
    }

    /// Ready if more may be read. The task that empties the mailbox never waits for anything, so neither does this for
    /// long.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(bytes_max) = self.bytes_max else {
            return Poll::Ready(());
        };
        let mut inner = self.lock();
        if inner.bytes <= bytes_max {
            return Poll::Ready(());
        }
        inner.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nothing comes any more.
    pub(crate) fn end(&self, reason: CloseReason) {
        let mut inner = self.lock();
        inner.ended.get_or_insert(reason);
        wake(inner);
    }

    /// Everything that is there, or why nothing comes any more.
    async fn next_batch(&self) -> Result<VecDeque<Item>, CloseReason> {
        std::future::poll_fn(|cx| {
            let mut inner = self.lock();
            if !inner.items.is_empty() {
                inner.bytes = 0;
                let (batch, reader) = (mem::take(&mut inner.items), inner.reader.take());
                drop(inner);
                reader.into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(batch));
            }
            if let Some(reason) = &inner.ended {
                return Poll::Ready(Err(reason.clone()));
            }
            inner.drainer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let drainer = inner.drainer.take();
    drop(inner);
    if let Some(drainer) = drainer {
        drainer.wake();
    }
}

thread_local! {
    /// When this thread last answered a request.
    static ANSWERED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Notes that this thread answers a request at `now`.
pub(crate) fn answering(now: Instant) -> Instant {
    ANSWERED.set(Some(now));
    now
}

/// When the handler was done that has just returned and had started at `start`. Reading the clock is a good part of
/// what a small request costs, so the time of its answer serves.
fn ended(start: Instant) -> Instant {
    let answered = ANSWERED.take().filter(|&at| at >= start);
    answered.unwrap_or_else(link::now)
}

/// Who serves a connection.
pub(crate) enum Service {
    /// A server's, before the handshake is accepted.
    Acceptor(Arc<dyn Acceptor>),
    /// A server's, while the peer proves who it is.
    Entrance(Box<Entrance>),
    Handler(Arc<dyn Handler>),
    /// A server's, after the peer was refused.
    Nobody,
}

/// Starts the requests of one connection until it ends.
pub(crate) async fn drain(mailbox: Arc<Mailbox>, link: Arc<Link>, mut service: Service) {
    let reason = loop {
        match mailbox.next_batch().await {
            Ok(batch) => drain_batch(batch, (&link, &mailbox), &mut service).await,
            Err(reason) => break reason,
        }
    };
    if let Service::Handler(handler) = &service {
        survive("closed", || handler.closed(&reason));
    }
}

async fn drain_batch(
    batch: VecDeque<Item>,
    (link, mailbox): (&Arc<Link>, &Mailbox),
    service: &mut Service,
) {
    let mut batch = batch.into_iter();
    while batch.len() > 0 {
        if let Service::Handler(handler) = service {
            take_turn(&mut batch, link, &**handler);
            if batch.len() > 0 {
                tokio::task::yield_now().await;
            }
        } else if let Some(item) = batch.next() {
            let before = mem::replace(service, Service::Nobody);
            *service = enter(item, (link, mailbox), before).await;
        }
    }
}

/// Starts requests until other tasks should get their turn.
fn take_turn(batch: &mut impl Iterator<Item = Item>, link: &Arc<Link>, handler: &dyn Handler) {
    let _turn = link.turn();
    let began = link::now();
    let mut now = began;
    for item in batch.take(TURN_REQUESTS) {
        // A handshake comes only once.
        if let Item::Request {
            rpc_type,
            ticket,
            pbody,
            dbody,
        } = item
        {
            let ticket = ticket.started(now);
            start(handler, link, (rpc_type, ticket), (pbody, dbody));
            now = ended(now);
        }
        if now.saturating_duration_since(began) >= TURN_TIME {
            return;
        }
    }
}

/// Starts one request on this thread.
pub(crate) fn start(
    handler: &dyn Handler,
    link: &Arc<Link>,
    (rpc_type, ticket): (i32, Ticket),
    (pbody, dbody): (Bytes, Bytes),
) {
    let request = InboundRequest {
        rpc_type,
        coordination_id: ticket.id,
        pbody,
        dbody,
        responder: Responder::new(Arc::clone(link), ticket),
    };
    survive("handle", || handler.handle(request));
}

/// Runs foreign code; a panic ends neither the task nor the connection. A request that it held has answered by itself.
pub(crate) fn survive<R>(name: &'static str, foreign: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(foreign)) {
        Ok(result) => Some(result),
        Err(panic) => {
            tracing::error!(panic = panic_message(&*panic), "{name} panicked");
            None
        }
    }
}

impl RpcFailure {
    /// The answer to an `rpc_type` that a handler does not know.
    #[must_use]
    pub fn unknown_type(rpc_type: i32) -> Self {
        Self::new(
            ErrorType::UnsupportedOperation,
            format!("unknown rpc type {rpc_type}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use protos::Plane;

    use super::*;
    use crate::{frame::CoordinationId, metrics::Rpcs, tests::link_with_requests};

    fn request(bytes: usize) -> Item {
        let header = (6, CoordinationId(1));
        let ticket = Rpcs::default().on_request(Plane::User, header, bytes, Instant::now());
        Item::Request {
            rpc_type: 6,
            ticket,
            pbody: Bytes::new(),
            dbody: Bytes::from(vec![0; bytes]),
        }
    }

    #[tokio::test]
    async fn a_full_mailbox_stops_the_reader_until_it_is_emptied() {
        let mailbox = Mailbox::new(Some(1000));
        let mut room = pin!(poll_fn(|cx| mailbox.poll_room(cx)));
        assert!(poll_once(room.as_mut()).await.is_ready());
        mailbox.deliver([request(1000)].into_iter());
        assert!(poll_once(room.as_mut()).await.is_pending());
        let (batch, ()) = tokio::join!(mailbox.next_batch(), room);
        assert_eq!(batch.map_or(0, |batch| batch.len()), 1);
    }

    #[tokio::test]
    async fn a_mailbox_without_a_limit_never_stops_the_reader() {
        let mailbox = Mailbox::new(None);
        mailbox.deliver([request(1 << 20)].into_iter());
        poll_fn(|cx| mailbox.poll_room(cx)).await;
    }

    /// Polls once.
    async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
    }

    /// Counts what it is given.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Handler for Counting {
        fn handle(&self, _: InboundRequest) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_task_with_many_requests_leaves_turns_to_others() {
        let (link, tickets) = link_with_requests(200);
        let (mailbox, handler) = (Arc::new(Mailbox::new(None)), Arc::new(Counting::default()));
        mailbox.deliver(tickets.into_iter().map(|ticket| Item::Request {
            rpc_type: 6,
            ticket,
            pbody: Bytes::new(),
            dbody: Bytes::new(),
        }));
        let service = Service::Handler(Arc::clone(&handler) as Arc<dyn Handler>);
        let mut seen = vec![0];
        let others = async {
            while seen.last() < Some(&200) {
                tokio::task::yield_now().await;
                seen.push(handler.0.load(Ordering::Relaxed));
            }
            mailbox.end(CloseReason::Aborted);
        };
        tokio::join!(drain(Arc::clone(&mailbox), link, service), others);
        let steps = seen.windows(2).map(|pair| pair[1] - pair[0]);
        // `join!` looks after each of them first in turn, so that two turns may follow each other.
        assert!(steps.max() <= Some(2 * TURN_REQUESTS), "{seen:?}");
    }
}
