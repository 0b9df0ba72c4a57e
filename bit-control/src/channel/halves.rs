//! What the users of a channel hold.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Sink, Stream, StreamExt, future::BoxFuture};
use membership::NodeAddress;
use prost::Message;
use rpc_bus::RpcFailure;

use super::{end::End, error::ChannelError};

/// Both directions of a channel.
#[derive(Debug)]
pub struct Channel {
    /// Who is at the other end.
    pub peer: NodeAddress,
    /// To the other side.
    pub sender: ChannelSender,
    /// From the other side.
    pub receiver: ChannelReceiver,
}

impl Channel {
    pub(crate) fn new(peer: NodeAddress, end: Arc<End>) -> Self {
        Self {
            peer,
            sender: ChannelSender(Arc::clone(&end)),
            receiver: ChannelReceiver(end),
        }
    }
}

/// Sends messages. Dropped before [`Self::finish`], it has failed.
pub struct ChannelSender(Arc<End>);

impl ChannelSender {
    /// Sends one message, after waiting for credit and for room to write it.
    ///
    /// # Errors
    ///
    /// The other side wants no more, the connection has ended, or the message is longer than
    /// [`MESSAGE_BYTES_MAX`](super::MESSAGE_BYTES_MAX).
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing was sent.
    pub async fn send(&mut self, message: Bytes) -> Result<(), ChannelError> {
        poll_fn(|cx| self.0.poll_ready(cx)).await?;
        self.0.send(message).await
    }

    /// As [`Self::send`], for a message of its own type.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn send_message(&mut self, message: &impl Message) -> Result<(), ChannelError> {
        self.send(message.encode_to_vec().into()).await
    }

    /// Says that this was all.
    ///
    /// # Errors
    ///
    /// The other side has wanted no more before, or the connection has ended.
    pub async fn finish(self) -> Result<(), ChannelError> {
        self.0.finish(None).await
    }

    /// Says that this was not all, and why.
    ///
    /// # Errors
    ///
    /// As [`Self::finish`].
    pub async fn fail(self, failure: RpcFailure) -> Result<(), ChannelError> {
        self.0.finish(Some(failure)).await
    }

    /// As a sink, which finishes when it is closed.
    pub fn into_sink(self) -> ChannelSink {
        ChannelSink {
            sender: Some(self),
            busy: None,
        }
    }
}

/// A [`ChannelSender`] as a sink.
#[must_use = "dropped before it is closed, the channel has failed"]
pub struct ChannelSink {
    /// While nothing is under way.
    sender: Option<ChannelSender>,
    busy: Option<BoxFuture<'static, Done>>,
}

/// A sender that can go on, and what came of what it did.
type Done = (Option<ChannelSender>, Result<(), ChannelError>);

impl ChannelSink {
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        let Some(busy) = &mut self.busy else {
            return Poll::Ready(Ok(()));
        };
        let (sender, result) = ready!(busy.as_mut().poll(cx));
        (self.sender, self.busy) = (sender, None);
        Poll::Ready(result)
    }
}

impl Sink<Bytes> for ChannelSink {
    type Error = ChannelError;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ChannelError>> {
        self.poll_idle(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Bytes) -> Result<(), ChannelError> {
        let sender = self.sender.take();
        let mut sender = sender.ok_or(ChannelError::Cancelled(None))?;
        self.busy = Some(Box::pin(async move {
            let result = sender.send(message).await;
            (Some(sender), result)
        }));
        Ok(())
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ChannelError>> {
        self.poll_idle(cx)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ChannelError>> {
        ready!(self.poll_idle(cx))?;
        if let Some(sender) = self.sender.take() {
            self.busy = Some(Box::pin(async move { (None, sender.finish().await) }));
        }
        self.poll_idle(cx)
    }
}

impl fmt::Debug for ChannelSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelSink").finish_non_exhaustive()
    }
}

impl Drop for ChannelSender {
    fn drop(&mut self) {
        self.0.drop_sender();
    }
}

impl fmt::Debug for ChannelSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelSender").finish_non_exhaustive()
    }
}

/// Receives messages, in order. Dropped before the end, it wants no more.
pub struct ChannelReceiver(Arc<End>);

impl ChannelReceiver {
    /// The next message, as one of type `M`; `None` at the end.
    ///
    /// # Errors
    ///
    /// The channel has ended with an error, or the message is no `M`.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing is lost.
    pub async fn next_message<M: Message + Default>(&mut self) -> Result<Option<M>, ChannelError> {
        match self.next().await {
            Some(message) => Ok(Some(M::decode(message?)?)),
            None => Ok(None),
        }
    }
}

/// Messages, then possibly one error, then nothing.
impl Stream for ChannelReceiver {
    type Item = Result<Bytes, ChannelError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(cx)
    }
}

impl Drop for ChannelReceiver {
    fn drop(&mut self) {
        self.0.drop_receiver();
    }
}

impl fmt::Debug for ChannelReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelReceiver").finish_non_exhaustive()
    }
}
