//! Answers as obligations: a request is answered exactly once, because sending takes the obligation away and dropping
//! it answers too.

use std::{fmt, marker::PhantomData, sync::Arc, thread};

use bytes::Bytes;
use prost::Message;
use protos::{Call, body, error::ErrorType};

use crate::{
    dispatch,
    error::{CloseReason, RpcFailure},
    frame::CoordinationId,
    lanes::Pbody,
    link::{self, Link},
    metrics::Ticket,
    remote::RemoteConnection,
};

/// A request as it came in. Dropping it answers with `RESPONSE_FAILURE`.
pub struct InboundRequest {
    /// Number from the plane's own `RpcType`; possibly one that does not exist.
    pub rpc_type: i32,
    /// Chosen by the peer, and not necessarily unique.
    pub coordination_id: CoordinationId,
    /// The protobuf body.
    pub pbody: Bytes,
    /// The raw body.
    pub dbody: Bytes,
    /// The obligation to answer.
    pub responder: Responder,
}

impl InboundRequest {
    /// The message of `C`, the raw body, and where the reply goes. A body that is no such message is answered with
    /// `RESPONSE_FAILURE` here; then there is nothing left to do.
    #[must_use]
    pub fn decode<C: Call>(mut self) -> Option<(C::Request, Bytes, Reply<C>)> {
        match body::decode::<C::Request>(&mut self.pbody) {
            Ok(message) => Some((message, self.dbody, Reply::new(self.responder))),
            Err(error) => {
                let message = format!("malformed {} request: {error}", C::name());
                self.responder
                    .fail(RpcFailure::new(ErrorType::System, message));
                None
            }
        }
    }

    /// Answers with `RESPONSE_FAILURE`.
    pub fn refuse(self, error: RpcFailure) {
        self.responder.fail(error);
    }

    /// The connection that it came on. The handle does not keep that open.
    #[must_use]
    #[allow(clippy::missing_panics_doc, reason = "it cannot")]
    pub fn connection(&self) -> RemoteConnection {
        let link = self.responder.link.as_ref();
        let link = link.expect("invariant: answering takes the request");
        RemoteConnection::of_server(Arc::clone(link))
    }
}

/// Without the bodies: they may hold a password.
impl fmt::Debug for InboundRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundRequest")
            .field("rpc_type", &self.rpc_type)
            .field("coordination_id", &self.coordination_id)
            .field("pbody_bytes", &self.pbody.len())
            .field("dbody_bytes", &self.dbody.len())
            .finish_non_exhaustive()
    }
}

/// The obligation to answer one request; dropped, it answers that the request was dropped.
#[must_use = "a peer is waiting for this answer"]
pub struct Responder {
    // `None` once answered.
    link: Option<Arc<Link>>,
    ticket: Ticket,
}

impl Responder {
    pub(crate) fn new(link: Arc<Link>, ticket: Ticket) -> Self {
        Self {
            link: Some(link),
            ticket,
        }
    }

    /// Answers with RESPONSE. Never waits; what cannot be written yet is queued.
    pub fn send(self, rpc_type: i32, pbody: Bytes, dbody: Vec<Bytes>) {
        self.respond(rpc_type, pbody.into(), dbody);
    }

    /// Answers with `RESPONSE_FAILURE`.
    #[allow(clippy::needless_pass_by_value, reason = "callers make it for this")]
    pub fn fail(mut self, error: RpcFailure) {
        self.send_failure(&error);
    }

    /// The same, and closes the connection in one step: so that its end is that of this side also where the peer closes
    /// it as soon as it has read the answer.
    pub(crate) fn fail_and_close(mut self, error: &RpcFailure, reason: CloseReason) {
        if let Some(link) = self.link.take() {
            let now = dispatch::answering(link::now());
            link.with(|connection| {
                connection.fail(&self.ticket, error, now);
                connection.close(reason, now);
            });
        }
    }

    fn send_message(self, rpc_type: i32, message: &impl Message) {
        self.respond(rpc_type, Pbody::of(message), Vec::new());
    }

    fn respond(mut self, rpc_type: i32, pbody: Pbody<'_>, dbody: Vec<Bytes>) {
        if let Some(link) = self.link.take() {
            let now = dispatch::answering(link::now());
            let answer = (pbody, dbody);
            link.reply(self.ticket, rpc_type, answer, now);
        }
    }

    fn send_failure(&mut self, error: &RpcFailure) {
        if let Some(link) = self.link.take() {
            let now = dispatch::answering(link::now());
            link.with(|connection| connection.fail(&self.ticket, error, now));
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.link.is_some() {
            let message = if thread::panicking() {
                "the handler panicked"
            } else {
                "the request was dropped"
            };
            self.send_failure(&RpcFailure::new(ErrorType::System, message));
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("id", &self.ticket.id)
            .finish_non_exhaustive()
    }
}

/// A [`Responder`] that knows which message is due.
#[must_use = "a peer is waiting for this answer"]
pub struct Reply<C: Call> {
    responder: Responder,
    call: PhantomData<fn() -> C>,
}

impl<C: Call> Reply<C> {
    fn new(responder: Responder) -> Self {
        Self {
            responder,
            call: PhantomData,
        }
    }

    /// Answers with the reply message of the call.
    pub fn send(self, reply: &C::Reply) {
        self.responder.send_message(C::RESPONSE, reply);
    }

    /// Answers with the reply message of the call and a raw body.
    pub fn send_with_body(self, reply: &C::Reply, dbody: Vec<Bytes>) {
        self.responder.respond(C::RESPONSE, Pbody::of(reply), dbody);
    }

    /// Answers with `RESPONSE_FAILURE`.
    pub fn fail(self, error: RpcFailure) {
        self.responder.fail(error);
    }
}

impl<C: Call> fmt::Debug for Reply<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("call", &C::name())
            .field("id", &self.responder.ticket.id)
            .finish()
    }
}
