//! Answers to calls of other nodes and of this one alike.

use std::fmt;

use bytes::Bytes;
use protos::{Call, error::ErrorType, rpc::Ack};
use rpc_bus::{Answer, Reply, RpcFailure};
use tokio::sync::oneshot;

/// The obligation to answer a call, wherever it came from; dropped, it answers that the request was dropped.
#[must_use = "a caller is waiting for this answer"]
pub struct ReplyTo<C: Call>(To<C>);

enum To<C: Call> {
    Peer(Reply<C>),
    Here(oneshot::Sender<LocalAnswer<C>>),
}

type LocalAnswer<C> = Result<Answer<<C as Call>::Reply>, Box<RpcFailure>>;

impl<C: Call> ReplyTo<C> {
    pub(crate) fn peer(reply: Reply<C>) -> Self {
        Self(To::Peer(reply))
    }

    /// An obligation towards this process, and what comes of it.
    pub(crate) fn here() -> (Self, PendingHere<C>) {
        let (sender, receiver) = oneshot::channel();
        (Self(To::Here(sender)), PendingHere(receiver))
    }

    /// Answers with the reply message of the call.
    pub fn send(self, reply: C::Reply) {
        self.send_with_body(reply, Vec::new());
    }

    /// Answers with the reply message of the call and a raw body, given in pieces.
    pub fn send_with_body(self, message: C::Reply, dbody: Vec<Bytes>) {
        match self.0 {
            To::Peer(reply) => reply.send_with_body(&message, dbody),
            To::Here(sender) => {
                let dbody = joined(dbody);
                // Nobody may be waiting any more.
                drop(sender.send(Ok(Answer { message, dbody })));
            }
        }
    }

    /// Answers with `RESPONSE_FAILURE`.
    pub fn fail(self, failure: RpcFailure) {
        match self.0 {
            To::Peer(reply) => reply.fail(failure),
            To::Here(sender) => drop(sender.send(Err(Box::new(failure)))),
        }
    }
}

impl<C: Call<Reply = Ack>> ReplyTo<C> {
    /// Answers with `Ack`.
    pub fn acknowledge(self, ok: bool) {
        self.send(Ack { ok: Some(ok) });
    }
}

impl<C: Call> fmt::Debug for ReplyTo<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReplyTo").field(&C::name()).finish()
    }
}

/// The answer to a call of this process.
pub(crate) struct PendingHere<C: Call>(oneshot::Receiver<LocalAnswer<C>>);

impl<C: Call> PendingHere<C> {
    pub(crate) async fn answer(self) -> LocalAnswer<C> {
        let dropped = |_| {
            let message = "the request was dropped";
            Err(Box::new(RpcFailure::new(ErrorType::System, message)))
        };
        self.0.await.unwrap_or_else(dropped)
    }
}

fn joined(pieces: Vec<Bytes>) -> Bytes {
    match <[Bytes; 1]>::try_from(pieces) {
        Ok([only]) => only,
        Err(pieces) => pieces.concat().into(),
    }
}
