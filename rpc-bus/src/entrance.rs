//! From the handshake to the handler: the verdict on a connection, and the authentication that it may ask for.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use protos::{
    Call, Plane,
    calls::{control, data, user},
    error::{ErrorType, Retry},
};

use crate::{
    auth::{AuthError, Exchange, Identity, Step, failed},
    connection::IdleTimeout,
    dispatch::{Acceptor, Handler, Hello, Item, Mailbox, Service, Verdict, survive},
    error::{CloseReason, ProtocolError, RpcFailure},
    link::{self, Link},
    remote::RemoteConnection,
    reply::Responder,
};

/// A peer whose handshake is answered, and who has to prove who it is.
pub(crate) struct Entrance {
    exchange: Exchange,
    admit: Box<dyn FnOnce(Identity) -> Arc<dyn Handler> + Send>,
    idle_timeout: IdleTimeout,
}

/// Takes what comes before there is a handler; returns who takes the next. Boxed inside: the task of a connection holds
/// room for this as long as it lives.
pub(crate) async fn enter(item: Item, at: (&Arc<Link>, &Mailbox), service: Service) -> Service {
    let (link, _) = at;
    match (item, service) {
        (Item::Hello { pbody }, Service::Acceptor(acceptor)) => {
            Box::pin(judge(pbody, at, &acceptor)).await
        }
        (
            Item::Request {
                rpc_type,
                ticket,
                pbody,
                ..
            },
            Service::Entrance(entrance),
        ) => {
            let responder = Responder::new(Arc::clone(link), ticket.started(link::now()));
            Box::pin(entrance.step((rpc_type, pbody), responder, at)).await
        }
        // The connection is closing.
        (_, service) => service,
    }
}

async fn judge(
    pbody: Bytes,
    (link, mailbox): (&Arc<Link>, &Mailbox),
    acceptor: &Arc<dyn Acceptor>,
) -> Service {
    let hello = Hello {
        pbody,
        connection: RemoteConnection::of_server(Arc::clone(link)),
    };
    let mut verdict = survive("accept", || acceptor.accept(hello));
    while let Some(Verdict::Verify {
        credentials,
        authenticator,
        then,
    }) = verdict
    {
        let peer = link.ends.peer.ip();
        let verified = unless_ended(link, authenticator.verify(peer, credentials)).await;
        let Some(verified) = verified else {
            return Service::Nobody;
        };
        verdict = survive("accept", || then(verified));
    }
    apply(verdict, link, mailbox)
}

fn apply(verdict: Option<Verdict>, link: &Link, mailbox: &Mailbox) -> Service {
    match verdict {
        Some(Verdict::Open {
            reply,
            handler,
            idle_timeout,
        }) => {
            mailbox.serve(&handler);
            link.with(|connection| connection.open(reply, idle_timeout));
            Service::Handler(handler)
        }
        Some(Verdict::Authenticate {
            reply,
            authenticator,
            admit,
            idle_timeout,
        }) => {
            link.with(|connection| connection.authenticate(reply));
            Service::Entrance(Box::new(Entrance {
                exchange: Exchange::new(authenticator, link.ends.peer.ip()),
                admit,
                idle_timeout,
            }))
        }
        Some(Verdict::Refuse { reply, reason }) => refuse(link, reply, reason),
        Some(Verdict::Verify { .. }) | None => {
            refuse(link, None, "the acceptor panicked".to_owned())
        }
    }
}

fn refuse(link: &Link, reply: Option<Bytes>, reason: String) -> Service {
    let now = link::now();
    link.with(|connection| connection.refuse(reply, reason, now));
    Service::Nobody
}

impl Entrance {
    // wire: drill@051b164 exec/rpc/.../ServerAuthenticationHandler.java: any other request ends the connection, unanswered
    async fn step(
        mut self: Box<Self>,
        (rpc_type, pbody): (i32, Bytes),
        responder: Responder,
        (link, mailbox): (&Arc<Link>, &Mailbox),
    ) -> Service {
        if rpc_type != sasl_message(link.ends.plane) {
            let reason = ProtocolError::NotAuthenticated { actual: rpc_type };
            link.close(reason.into());
            return Service::Nobody;
        }
        match unless_ended(link, self.exchange.step(pbody)).await {
            Some(Step::Continue(message)) => {
                responder.send(rpc_type, message.encode_to_vec().into(), Vec::new());
                Service::Entrance(self)
            }
            Some(Step::Success(message, identity)) => {
                let Self {
                    admit,
                    idle_timeout,
                    ..
                } = *self;
                let Some(handler) = survive("admit", move || admit(identity)) else {
                    return deny(responder, rpc_type, AuthError::Broken, link);
                };
                mailbox.serve(&handler);
                link.with(|connection| connection.admit(idle_timeout));
                responder.send(rpc_type, message.encode_to_vec().into(), Vec::new());
                Service::Handler(handler)
            }
            Some(Step::Failure(error)) => deny(responder, rpc_type, error, link),
            None => Service::Nobody,
        }
    }
}

/// One failure ends the connection, as with Drill: who wants to try again has to connect again.
// wire: golden/auth/auth_bad
fn deny(responder: Responder, rpc_type: i32, error: AuthError, link: &Link) -> Service {
    let failure = match &error {
        error if error.is_retryable() => {
            let failure = RpcFailure::new(ErrorType::Resource, error.to_string());
            Some(failure.with_retry(Retry::SameNode))
        }
        // Who has proved who they are may know why that is not enough.
        AuthError::NotAdmitted { .. } => {
            Some(RpcFailure::new(ErrorType::Permission, error.to_string()))
        }
        _ => None,
    };
    let reason = CloseReason::Authentication(error);
    if let Some(failure) = failure {
        responder.fail_and_close(&failure, reason);
    } else {
        responder.send(rpc_type, failed().encode_to_vec().into(), Vec::new());
        link.close(reason);
    }
    Service::Nobody
}

fn sasl_message(plane: Plane) -> i32 {
    match plane {
        Plane::User => user::SaslMessage::REQUEST,
        Plane::Control => control::SaslMessage::REQUEST,
        Plane::Data => data::SaslMessage::REQUEST,
    }
}

/// Waits no longer than the connection lives.
async fn unless_ended<T>(link: &Link, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        _ = link.ended() => None,
    }
}
