//! The handle on a connection: calls to the peer.

use std::{
    fmt,
    marker::PhantomData,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::{Message, Name};
use protos::{Call, OneWay, Plane, body};
use tokio::sync::oneshot;

use crate::{
    capabilities::{Capabilities, Feature},
    connection::{Connection, Outcome, Outgoing, Response, Unsent},
    error::{CallError, CloseReason},
    frame::CoordinationId,
    lanes::{Pbody, StreamKey},
    link::{self, Link, Room},
    metrics::{InboundRpc, OutboundRpc},
    options::{Beats, OptionsError},
    stats::ConnectionStats,
    tls::TlsInfo,
};

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallOptions {
    /// How long the answer may take, the wait for room to write the request included; `None`: until the connection
    /// ends. Default 60 s.
    pub deadline: Option<Duration>,
    /// Requests of one stream leave in order; streams take turns.
    pub stream: StreamKey,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            deadline: Some(Duration::from_mins(1)),
            stream: StreamKey::default(),
        }
    }
}

impl CallOptions {
    /// For calls that may rightly wait: for a planner, or for a consumer that takes its time to acknowledge.
    #[must_use]
    pub fn without_deadline() -> Self {
        Self {
            deadline: None,
            ..Self::default()
        }
    }
}

/// What a peer answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<M> {
    /// The protobuf body.
    pub message: M,
    /// The raw body, possibly empty.
    pub dbody: Bytes,
}

/// Cheap handle on one connection. A client's connection is closed when its last handle is dropped; a server's lives
/// until it is closed.
#[derive(Clone)]
pub struct RemoteConnection(Arc<Owner>);

struct Owner {
    link: Arc<Link>,
    closes_on_drop: bool,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.closes_on_drop {
            self.link.close(CloseReason::ClosedHere);
        }
    }
}

impl RemoteConnection {
    pub(crate) fn of_client(link: Arc<Link>) -> Self {
        Self(Arc::new(Owner {
            link,
            closes_on_drop: true,
        }))
    }

    pub(crate) fn of_server(link: Arc<Link>) -> Self {
        Self(Arc::new(Owner {
            link,
            closes_on_drop: false,
        }))
    }

    /// Sends one request and waits for its answer, after waiting for room to write it.
    ///
    /// # Errors
    ///
    /// The peer refused, the deadline passed, the connection ended, or a limit of this side was met.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the call up: it may or may not have been sent, and its answer is dropped.
    pub async fn call<C: Call>(
        &self,
        request: &C::Request,
        dbody: Vec<Bytes>,
        options: CallOptions,
    ) -> Result<Answer<C::Reply>, CallError> {
        // As `start` does; a future within this one would be moved around with every call.
        let began = link::now();
        let room = self
            .call_room::<C>(request, &dbody, (began, &options))
            .await?;
        self.send::<C>(request, dbody, &options, (room, began))?
            .await
    }

    /// Sends one request, waiting only for room to write it; the answer is a future of its own.
    ///
    /// # Errors
    ///
    /// The connection has ended, the deadline passed before there was room, or a limit of this side was met.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing was sent.
    pub async fn start<C: Call>(
        &self,
        request: &C::Request,
        dbody: Vec<Bytes>,
        options: CallOptions,
    ) -> Result<PendingAnswer<C::Reply>, CallError> {
        let began = link::now();
        let room = self
            .call_room::<C>(request, &dbody, (began, &options))
            .await?;
        self.send::<C>(request, dbody, &options, (room, began))
    }

    /// Queues one request.
    #[inline]
    fn send<C: Call>(
        &self,
        request: &C::Request,
        dbody: Vec<Bytes>,
        options: &CallOptions,
        (room, began): (Room, Instant),
    ) -> Result<PendingAnswer<C::Reply>, CallError> {
        let link = &self.0.link;
        let request = Outgoing {
            rpc_type: C::REQUEST,
            pbody: Pbody::of(request),
            dbody,
            stream: options.stream,
            room,
            began,
        };
        let (completion, outcome) = oneshot::channel();
        let id = link.call(request, options.deadline, completion)?;
        Ok(PendingAnswer {
            link: Arc::clone(link),
            id,
            expected: C::RESPONSE,
            outcome,
            ended: false,
            message: PhantomData,
        })
    }

    /// Sends a message that is never answered, after waiting for room to write it. Messages of one stream leave in
    /// order; streams take turns.
    ///
    /// # Errors
    ///
    /// The connection has ended, or the peer has not offered [`Feature::Streams`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing was sent.
    pub async fn post<M: OneWay>(
        &self,
        message: &M::Message,
        dbody: Vec<Bytes>,
        stream: StreamKey,
    ) -> Result<(), CallError> {
        let began = link::now();
        let room = self.post_room(message, &dbody).await?;
        self.0.link.post(Outgoing {
            rpc_type: M::RPC_TYPE,
            pbody: Pbody::of(message),
            dbody,
            stream,
            room,
            began,
        })
    }

    /// Sends the last message of a stream, behind all that it has queued: as [`Self::post`] does, but without a wait for
    /// room, for whoever cannot wait any more. It must be short. What is queued grows beyond its limit by one of them
    /// for each stream.
    ///
    /// # Errors
    ///
    /// The connection has ended, or the peer has not offered [`Feature::Streams`].
    pub fn post_last<M: OneWay>(
        &self,
        message: &M::Message,
        stream: StreamKey,
    ) -> Result<(), CallError> {
        self.0.link.post(Outgoing {
            rpc_type: M::RPC_TYPE,
            pbody: Pbody::of(message),
            dbody: Vec::new(),
            stream,
            room: Room::default(),
            began: link::now(),
        })
    }

    /// Room to write a request, which must be queued at once.
    async fn call_room<C: Call>(
        &self,
        request: &C::Request,
        dbody: &[Bytes],
        (began, options): (Instant, &CallOptions),
    ) -> Result<Room, CallError> {
        let bytes = bytes_len(request, dbody);
        if let Some(room) = self.0.link.try_room(bytes)? {
            return Ok(room);
        }
        let call = Unsent {
            rpc_type: C::REQUEST,
            bytes,
            began,
        };
        // Boxed: few calls wait, and all would hold space for it.
        let waiting = self.0.link.wait_for_call_room(call, options.deadline);
        Box::pin(waiting).await
    }

    /// Room to write a message that is never answered, which must be queued at once.
    async fn post_room(&self, message: &impl Message, dbody: &[Bytes]) -> Result<Room, CallError> {
        let bytes = bytes_len(message, dbody);
        match self.0.link.try_room(bytes)? {
            Some(room) => Ok(room),
            None => self.0.link.wait_for_room(bytes).await,
        }
    }

    /// Sends a short message that is never answered, ahead of all requests and batches. Never waits; a peer that does
    /// not read is closed once too many of them are queued.
    ///
    /// # Errors
    ///
    /// The connection has ended, or the peer has not offered [`Feature::Streams`].
    pub fn post_urgent<M: OneWay>(&self, message: &M::Message) -> Result<(), CallError> {
        let now = link::now();
        let pbody = Pbody::of(message);
        let post = |connection: &mut Connection| connection.post_urgent(M::RPC_TYPE, pbody, now);
        self.0.link.with(post)
    }

    /// Stops reading. Only for the client of a real Drill, which sends results without limit: a pause stops
    /// everything else on the connection too.
    pub fn pause_reading(&self) {
        let now = link::now();
        self.0.link.with(|connection| connection.pause_reading(now));
    }

    /// Goes on reading.
    pub fn resume_reading(&self) {
        let now = link::now();
        self.0
            .link
            .with(|connection| connection.resume_reading(now));
    }

    /// Sends PING and measures the round trip to its PONG.
    ///
    /// # Errors
    ///
    /// The connection ended first.
    pub async fn ping(&self) -> Result<Duration, CallError> {
        let (completion, outcome) = oneshot::channel();
        let now = link::now();
        self.0
            .link
            .with(|connection| connection.ping(completion, now));
        let lost = |_| Err(CloseReason::Aborted);
        Ok(outcome.await.unwrap_or_else(lost)?)
    }

    /// Regular PINGs from now on, in place of the idle timeout: for the side that connects, which finds out only by the
    /// answer to its handshake whether the peer is one to beat with. Beats that have begun are replaced.
    ///
    /// # Errors
    ///
    /// Beats that cannot work; nothing has changed.
    pub fn begin_beats(&self, beats: Beats) -> Result<(), OptionsError> {
        beats.validate()?;
        let begin = |connection: &mut Connection| connection.begin_beats(beats);
        self.0.link.with(begin);
        Ok(())
    }

    /// Closes the connection: calls fail at once, what is queued is still written for a short time.
    pub fn close(&self) {
        self.0.link.close(CloseReason::ClosedHere);
    }

    /// Waits until the socket is closed, and says why.
    pub async fn closed(&self) -> CloseReason {
        self.0.link.ended().await
    }

    /// Whether calls are no longer possible.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.link.is_closed()
    }

    /// Unique in this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.link.ends.id
    }

    /// What it carries.
    #[must_use]
    pub fn plane(&self) -> Plane {
        self.0.link.ends.plane
    }

    /// Address of the other end.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.0.link.ends.peer
    }

    /// Address of this end.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.link.ends.local
    }

    /// What the peer can do beside Drill's protocol, as far as this side can too; `None` before the handshake, and for
    /// a real Drill.
    #[must_use]
    pub fn peer_capabilities(&self) -> Option<Arc<Capabilities>> {
        self.0.link.lock().agreed().cloned()
    }

    /// Whether `feature` was agreed on.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        let peer = self.peer_capabilities();
        peer.is_some_and(|peer| peer.features.contains(feature))
    }

    /// What was agreed on in the TLS handshake; `None` if the bytes go over the wire as they are.
    #[must_use]
    pub fn tls(&self) -> Option<TlsInfo> {
        self.0.link.ends.tls
    }

    /// When anything came from the peer last, or the connection began.
    #[must_use]
    pub fn last_received(&self) -> Instant {
        self.0.link.lock().last_received()
    }

    /// A copy of the counters.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        self.0.link.lock().stats()
    }

    /// Requests of the peer on this connection, by type.
    #[must_use]
    pub fn inbound_rpcs(&self) -> Vec<InboundRpc> {
        let plane = self.0.link.ends.plane;
        self.0.link.counters().rpcs.inbound(plane)
    }

    /// Calls on this connection, by type.
    #[must_use]
    pub fn outbound_rpcs(&self) -> Vec<OutboundRpc> {
        let plane = self.0.link.ends.plane;
        self.0.link.counters().rpcs.outbound(plane)
    }
}

fn bytes_len(message: &impl Message, dbody: &[Bytes]) -> usize {
    message.encoded_len() + dbody.iter().map(Bytes::len).sum::<usize>()
}

impl fmt::Debug for RemoteConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteConnection")
            .field(&self.0.link.ends)
            .finish()
    }
}

/// The answer to a request that was sent. Dropping it gives the call up.
#[must_use = "dropping it gives the call up"]
pub struct PendingAnswer<M> {
    link: Arc<Link>,
    id: CoordinationId,
    /// `rpc_type` that the answer must have.
    expected: i32,
    outcome: oneshot::Receiver<Outcome>,
    ended: bool,
    message: PhantomData<fn() -> M>,
}

impl<M: Message + Default + Name> PendingAnswer<M> {
    // wire: drill@051b164 exec/rpc/.../RequestIdMap.java compares the classes of both messages
    fn decode(&self, mut response: Response) -> Result<Answer<M>, CallError> {
        if response.rpc_type != self.expected {
            let (expected, actual) = (self.expected, response.rpc_type);
            return Err(CallError::UnexpectedAnswer { expected, actual });
        }
        Ok(Answer {
            message: body::decode(&mut response.pbody)?,
            dbody: response.dbody,
        })
    }

    fn note_unusable(&self, _: &CallError) {
        self.link.with(Connection::note_unusable_answer);
    }
}

impl<M: Message + Default + Name> Future for PendingAnswer<M> {
    type Output = Result<Answer<M>, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.outcome).poll(cx));
        self.ended = true;
        Poll::Ready(match outcome {
            Ok(Ok(response)) => self
                .decode(response)
                .inspect_err(|error| self.note_unusable(error)),
            Ok(Err(error)) => Err(error),
            // The sending half is only dropped unused when the whole connection is.
            Err(_) => Err(CallError::Lost(CloseReason::Aborted)),
        })
    }
}

impl<M> Drop for PendingAnswer<M> {
    fn drop(&mut self) {
        if !self.ended {
            self.link.with(|connection| connection.give_up(self.id));
        }
    }
}

impl<M> fmt::Debug for PendingAnswer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAnswer")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
