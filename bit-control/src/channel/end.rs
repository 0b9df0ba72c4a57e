//! One side of one channel: what it may send, and what has come.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use protos::{
    calls::{
        ChannelCredit as CreditCall, ChannelMessage as MessageCall, CloseChannel as CloseCall,
    },
    control::{ChannelCredit, ChannelMessage, CloseChannel, close_channel::Kind},
    error::ErrorType,
};
use rpc_bus::{
    Charge, CloseReason, Ledger, RemoteConnection, RpcFailure, StreamKey,
    ledger::Kind as LedgerKind,
};

use super::{
    MESSAGE_BYTES_MAX,
    credit::{ReceiveWindow, SendCredit, cost_bytes},
    error::ChannelError,
    side::ChannelSide,
};
use crate::lock;

/// Where the other side is.
#[derive(Debug)]
pub(crate) enum Route {
    Peer {
        connection: RemoteConnection,
        side: Weak<ChannelSide>,
        channel: u64,
    },
    /// In this process.
    Here(Weak<End>),
}

#[derive(Debug)]
pub(crate) struct End {
    route: Route,
    ledger: Ledger,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    credit: SendCredit,
    sending: Sending,
    window: ReceiveWindow,
    queue: VecDeque<(Bytes, Charge)>,
    receiving: Receiving,
    /// Who waits for credit.
    sender: Option<Waker>,
    /// Who waits for a message.
    receiver: Option<Waker>,
}

#[derive(Debug)]
enum Sending {
    Open,
    /// This side has sent all.
    Done,
    Stopped(ChannelError),
}

#[derive(Debug)]
enum Receiving {
    Open,
    /// The peer has sent all.
    Finished,
    /// Nothing comes after what is queued but this error, until it was said.
    Failed(Option<ChannelError>),
    /// Nobody wants it.
    Unwanted,
}

impl End {
    /// An end that may send once it has credit.
    pub(crate) fn new(route: Route, window_bytes: u64, ledger: &Ledger) -> Self {
        Self {
            route,
            ledger: ledger.clone(),
            state: Mutex::new(State {
                credit: SendCredit::default(),
                sending: Sending::Open,
                window: ReceiveWindow::new(window_bytes),
                queue: VecDeque::new(),
                receiving: Receiving::Open,
                sender: None,
                receiver: None,
            }),
        }
    }

    /// Both ends of a channel within this process.
    pub(crate) fn pair(windows: [u64; 2], ledger: &Ledger) -> [Arc<Self>; 2] {
        let mut other = None;
        let one = Arc::new_cyclic(|this: &Weak<Self>| {
            let there = Arc::new(Self::new(Route::Here(this.clone()), windows[1], ledger));
            let route = Route::Here(Arc::downgrade(&there));
            other = Some(there);
            Self::new(route, windows[0], ledger)
        });
        let other = other.expect("invariant: it was made with the first");
        one.on_credit(windows[1]);
        other.on_credit(windows[0]);
        [one, other]
    }

    /// What the other side may send at first.
    pub(crate) fn granted_bytes(&self) -> u64 {
        lock(&self.state).window.granted_bytes()
    }

    /// Ready once one message may be sent, or none any more.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        let mut state = lock(&self.state);
        match &state.sending {
            Sending::Stopped(error) => Poll::Ready(Err(error.clone())),
            Sending::Done => Poll::Ready(Err(ChannelError::Cancelled(None))),
            Sending::Open if state.credit.may_send() => Poll::Ready(Ok(())),
            Sending::Open => {
                state.sender = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Sends one message, for which there is credit, after waiting for room to write it.
    pub(crate) async fn send(&self, message: Bytes) -> Result<(), ChannelError> {
        let bytes = message.len();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(ChannelError::TooLong {
                bytes,
                bytes_max: MESSAGE_BYTES_MAX,
            });
        }
        match &self.route {
            Route::Peer {
                connection,
                channel,
                ..
            } => {
                let head = ChannelMessage {
                    channel: Some(*channel),
                };
                let post =
                    connection.post::<MessageCall>(&head, vec![message], StreamKey(*channel));
                post.await?;
            }
            Route::Here(other) => {
                let other = other.upgrade().ok_or(ChannelError::Cancelled(None))?;
                // There is credit: it cannot be beyond it.
                let _ = other.on_message(message);
            }
        }
        lock(&self.state).credit.on_sent(cost_bytes(bytes));
        Ok(())
    }

    /// Says, behind all messages, that they were all, or why they were not.
    pub(crate) async fn finish(&self, failure: Option<RpcFailure>) -> Result<(), ChannelError> {
        let kind = if failure.is_some() {
            Kind::Failed
        } else {
            Kind::Finished
        };
        if let Sending::Stopped(error) = &lock(&self.state).sending {
            return Err(error.clone());
        }
        let error = failure.map(|failure| failure.error);
        match &self.route {
            Route::Peer {
                connection,
                channel,
                ..
            } => {
                let message = close_message(*channel, kind, error);
                let post = connection.post::<CloseCall>(&message, Vec::new(), StreamKey(*channel));
                post.await?;
            }
            Route::Here(_) => self.close(kind, error.map(RpcFailure::from)),
        }
        lock(&self.state).sending = Sending::Done;
        self.forget_if_over();
        Ok(())
    }

    /// Nobody sends any more.
    pub(crate) fn drop_sender(&self) {
        let was_open = {
            let mut state = lock(&self.state);
            let was_open = matches!(state.sending, Sending::Open);
            if was_open {
                state.sending = Sending::Done;
            }
            was_open
        };
        if was_open {
            let message = "the sender was dropped before its end";
            self.close(
                Kind::Failed,
                Some(RpcFailure::new(ErrorType::System, message)),
            );
            self.forget_if_over();
        }
    }

    /// Nobody receives any more.
    pub(crate) fn drop_receiver(&self) {
        let (was_open, queue) = {
            let mut state = lock(&self.state);
            let before = std::mem::replace(&mut state.receiving, Receiving::Unwanted);
            let was_open = matches!(before, Receiving::Open);
            (was_open, std::mem::take(&mut state.queue))
        };
        drop(queue);
        if was_open {
            self.close(Kind::Cancelled, None);
            self.forget_if_over();
        }
    }

    /// The next message, `None` at the end.
    pub(crate) fn poll_next(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ChannelError>>> {
        let (message, limit_bytes) = {
            let mut state = lock(&self.state);
            let Some((message, _charge)) = state.queue.pop_front() else {
                return state.poll_end(cx);
            };
            let limit_bytes = state.window.on_taken(cost_bytes(message.len()));
            let is_open = matches!(state.receiving, Receiving::Open);
            (message, limit_bytes.filter(|_| is_open))
        };
        if let Some(limit_bytes) = limit_bytes {
            self.grant(limit_bytes);
        }
        Poll::Ready(Some(Ok(message)))
    }

    /// A message has come.
    ///
    /// # Errors
    ///
    /// The peer breaks the rules.
    pub(crate) fn on_message(&self, message: Bytes) -> Result<(), String> {
        let bytes = message.len();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(format!(
                "a message of {bytes} bytes, at most {MESSAGE_BYTES_MAX} fit"
            ));
        }
        let (waker, exceeded) = {
            let mut state = lock(&self.state);
            match state.receiving {
                Receiving::Open => {}
                Receiving::Unwanted | Receiving::Failed(_) => return Ok(()),
                Receiving::Finished => return Err("a message after the end".to_owned()),
            }
            let received = state.window.on_received(cost_bytes(bytes));
            received.map_err(|error| error.to_string())?;
            let exceeded = match self.ledger.charge(LedgerKind::Bytes, bytes) {
                Ok(charge) => {
                    state.queue.push_back((message, charge));
                    None
                }
                Err(exceeded) => {
                    let error = ChannelError::Budget(exceeded.clone());
                    state.receiving = Receiving::Failed(Some(error));
                    Some(exceeded)
                }
            };
            (state.receiver.take(), exceeded)
        };
        wake(waker);
        if let Some(exceeded) = exceeded {
            let failure = RpcFailure::new(ErrorType::Resource, exceeded.to_string());
            self.close(Kind::Cancelled, Some(failure));
            self.forget_if_over();
        }
        Ok(())
    }

    /// The other side has raised the limit.
    pub(crate) fn on_credit(&self, limit_bytes: u64) {
        let waker = {
            let mut state = lock(&self.state);
            state.credit.raise(limit_bytes);
            state.sender.take()
        };
        wake(waker);
    }

    /// The other side has ended a direction.
    pub(crate) fn on_close(&self, kind: Kind, failure: Option<Box<RpcFailure>>) {
        match kind {
            Kind::Finished => self.end_receiving(Receiving::Finished),
            Kind::Failed => {
                let unsaid = || Box::new(RpcFailure::new(ErrorType::System, "no reason was given"));
                let failure = failure.unwrap_or_else(unsaid);
                let error = ChannelError::Failed(failure);
                self.end_receiving(Receiving::Failed(Some(error)));
            }
            Kind::Cancelled => self.end_sending(ChannelError::Cancelled(failure)),
        }
        self.forget_if_over();
    }

    /// Both directions have ended with the connection.
    pub(crate) fn on_lost(&self, reason: &CloseReason) {
        let lost = ChannelError::Lost(reason.clone());
        self.end_receiving(Receiving::Failed(Some(lost)));
        self.end_sending(ChannelError::Lost(reason.clone()));
    }

    fn end_receiving(&self, how: Receiving) {
        let waker = {
            let mut state = lock(&self.state);
            if let Receiving::Open = state.receiving {
                state.receiving = how;
            }
            state.receiver.take()
        };
        wake(waker);
    }

    fn end_sending(&self, error: ChannelError) {
        let waker = {
            let mut state = lock(&self.state);
            if let Sending::Open = state.sending {
                state.sending = Sending::Stopped(error);
            }
            state.sender.take()
        };
        wake(waker);
    }

    /// Tells the other side at once. A connection that has ended tells it by itself.
    fn close(&self, kind: Kind, failure: Option<RpcFailure>) {
        match &self.route {
            Route::Peer {
                connection,
                channel,
                ..
            } => {
                let message = close_message(*channel, kind, failure.map(|it| it.error));
                let _ = connection.post_urgent::<CloseCall>(&message);
            }
            Route::Here(other) => {
                if let Some(other) = other.upgrade() {
                    other.on_close(kind, failure.map(Box::new));
                }
            }
        }
    }

    fn grant(&self, limit_bytes: u64) {
        match &self.route {
            Route::Peer {
                connection,
                channel,
                ..
            } => {
                let message = ChannelCredit {
                    channel: Some(*channel),
                    limit_bytes: Some(limit_bytes),
                };
                // A connection that has ended needs none.
                let _ = connection.post_urgent::<CreditCall>(&message);
            }
            Route::Here(other) => {
                if let Some(other) = other.upgrade() {
                    other.on_credit(limit_bytes);
                }
            }
        }
    }

    /// Takes the channel off its connection's list once both directions have ended.
    pub(crate) fn forget_if_over(&self) {
        let is_over = {
            let state = lock(&self.state);
            !matches!(state.sending, Sending::Open) && !matches!(state.receiving, Receiving::Open)
        };
        if let Route::Peer { side, channel, .. } = &self.route
            && is_over
            && let Some(side) = side.upgrade()
        {
            side.forget(*channel);
        }
    }
}

impl State {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ChannelError>>> {
        match &mut self.receiving {
            Receiving::Open => {
                self.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
            // An error is said once.
            Receiving::Failed(error) => Poll::Ready(error.take().map(Err)),
            Receiving::Finished | Receiving::Unwanted => Poll::Ready(None),
        }
    }
}

pub(crate) fn close_message(
    channel: u64,
    kind: Kind,
    error: Option<protos::shared::DrillPbError>,
) -> CloseChannel {
    CloseChannel {
        channel: Some(channel),
        kind: Some(kind.into()),
        error,
    }
}

fn wake(waker: Option<Waker>) {
    waker.into_iter().for_each(Waker::wake);
}
