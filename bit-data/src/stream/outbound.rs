//! The sending end of a stream as its sender and the I/O thread share it: where batches go, and how many may.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use record_batch::Codec;
use rpc_bus::{CallError, RemoteConnection};

use super::{
    credit::SendCredit,
    error::SendError,
    inbound::Inbound,
    sender_side::SenderSide,
    stats::{LOOKS_MAX, lock, look_again},
    tunnel::node_address,
};

/// Where the batches of a stream go.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    /// To a receiver of this process.
    Local(Arc<Inbound>),
    Remote(Arc<RemoteRoute>),
}

/// A stream on a connection, and what its receiver asked for.
#[derive(Debug)]
pub(crate) struct RemoteRoute {
    /// Where the stream is listed.
    pub(crate) side: Arc<SenderSide>,
    pub(crate) connection: RemoteConnection,
    pub(crate) stream: u64,
    pub(crate) has_checksums: bool,
    /// Codecs that the receiver takes beside none.
    pub(crate) codecs: Vec<Codec>,
    /// Batches are split to this.
    pub(crate) piece_bytes: usize,
    pub(crate) batch_bytes_max: usize,
}

impl RemoteRoute {
    /// Why nothing can be posted on it.
    pub(crate) fn failed(&self, error: CallError) -> SendError {
        match error {
            CallError::Lost(reason) => SendError::Lost {
                peer: node_address(&self.connection),
                reason,
            },
            other => SendError::Call(other),
        }
    }
}

/// Under its lock, a sender is found to be gone either by the receiver that comes, which is refused, or by its own drop,
/// which then finds the receiver and tells it. There is no third case, in which one would wait for the other for ever.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Once a receiver has opened the stream.
    attached: Option<(Route, SendCredit)>,
    stopped: Option<SendError>,
    /// Nobody is left who could send, or count anything.
    has_ended: bool,
    sender: Option<Waker>,
}

/// The sender of a stream has gone before its receiver came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SenderGone;

impl Outbound {
    /// A receiver, the only one, has opened the stream. The sender, if it waits, is the caller's to wake.
    pub(crate) fn attach(
        &self,
        route: Route,
        limit_bytes: u64,
    ) -> Result<Option<Waker>, SenderGone> {
        let mut state = lock(&self.state);
        if state.stopped.is_some() {
            return Err(SenderGone);
        }
        debug_assert!(
            state.attached.is_none(),
            "invariant: who has a receiver is not free"
        );
        state.attached = Some((route, SendCredit::new(limit_bytes)));
        Ok(state.sender.take())
    }

    /// The receiver grants more.
    pub(crate) fn raise(&self, limit_bytes: u64) {
        self.change(|state| {
            if let Some((_, credit)) = &mut state.attached {
                credit.raise(limit_bytes);
            }
        });
    }

    /// Nothing is sent any more; the first reason counts.
    pub(crate) fn stop(&self, reason: SendError) {
        self.change(|state| {
            state.stopped.get_or_insert(reason);
        });
    }

    /// What sends is dropped, at the latest with its sender: where its receiver is, if there is one, and what has stopped
    /// the stream before.
    pub(crate) fn end(&self) -> (Option<Route>, Option<SendError>) {
        self.change(|state| {
            let route = state.attached.as_ref().map(|(route, _)| route.clone());
            let before = state.stopped.clone();
            state.stopped.get_or_insert(SendError::Ended);
            state.has_ended = true;
            (route, before)
        })
    }

    fn change<R>(&self, step: impl FnOnce(&mut State) -> R) -> R {
        let mut state = lock(&self.state);
        let result = step(&mut state);
        let sender = state.sender.take();
        drop(state);
        sender.into_iter().for_each(Waker::wake);
        result
    }

    /// Why nothing is sent any more, if so.
    pub(crate) fn stopped(&self) -> Option<SendError> {
        lock(&self.state).stopped.clone()
    }

    /// Whether what sends is dropped, after which nothing of it is counted any more.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.state).has_ended
    }

    /// Where batches go, if a receiver has opened the stream.
    pub(crate) fn route(&self) -> Option<Route> {
        let state = lock(&self.state);
        state.attached.as_ref().map(|(route, _)| route.clone())
    }

    /// Waits for a receiver.
    pub(crate) async fn attached(&self) -> Result<Route, SendError> {
        std::future::poll_fn(|cx| {
            self.poll(cx, |state| {
                state.attached.as_ref().map(|(route, _)| route.clone())
            })
        })
        .await
    }

    /// Waits until a batch may be sent.
    pub(crate) async fn credit(&self) -> Result<(), SendError> {
        let is_here = matches!(self.route(), Some(Route::Local(_)));
        let mut looks = if is_here { LOOKS_MAX } else { 0 };
        std::future::poll_fn(|cx| {
            if looks > 0 && !self.has_credit() && self.stopped().is_none() {
                looks -= 1;
                look_again(cx);
                return Poll::Pending;
            }
            self.poll(cx, |state| {
                let (_, credit) = state.attached.as_ref()?;
                credit.may_send().then_some(())
            })
        })
        .await
    }

    /// Whether a batch may be sent now.
    pub(crate) fn has_credit(&self) -> bool {
        let state = lock(&self.state);
        let may_send = |(_, credit): &(Route, SendCredit)| credit.may_send();
        state.stopped.is_none() && state.attached.as_ref().is_some_and(may_send)
    }

    /// What may be sent now, in bytes, and whether the sender waits for more.
    pub(crate) fn credit_now(&self) -> (u64, bool) {
        let state = lock(&self.state);
        match &state.attached {
            Some((_, credit)) if state.stopped.is_none() => {
                let left_bytes = credit.left_bytes();
                (left_bytes, left_bytes == 0 && state.sender.is_some())
            }
            _ => (0, false),
        }
    }

    /// Counts a batch that is sent.
    pub(crate) fn on_sent(&self, cost_bytes: u64) {
        if let Some((_, credit)) = &mut lock(&self.state).attached {
            credit.on_sent(cost_bytes);
        }
    }

    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        ready: impl FnOnce(&State) -> Option<T>,
    ) -> Poll<Result<T, SendError>> {
        let mut state = lock(&self.state);
        if let Some(reason) = &state.stopped {
            return Poll::Ready(Err(reason.clone()));
        }
        if let Some(value) = ready(&state) {
            return Poll::Ready(Ok(value));
        }
        if !state
            .sender
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            state.sender = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}
