//! Whom a channel is opened to: services by name, and the requests that they get.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use membership::NodeAddress;
use protos::{calls::control::OpenChannel as OpenCall, control::ChannelOpened, error::ErrorType};
use rpc_bus::{CloseReason, Reply, RpcFailure};
use thiserror::Error;
use tokio::sync::oneshot;

use super::{end::End, halves::Channel};

/// Takes the channels that are opened to a name. Must not wait: what takes time goes on elsewhere and takes the request
/// along.
pub trait ChannelService: Send + Sync + 'static {
    /// A peer, or this node itself, opens a channel.
    fn open(&self, request: ChannelRequest);
}

impl<F: Fn(ChannelRequest) + Send + Sync + 'static> ChannelService for F {
    fn open(&self, request: ChannelRequest) {
        self(request);
    }
}

/// A channel that somebody wants to open. Dropped, it is refused.
#[must_use = "a peer is waiting for this answer"]
pub struct ChannelRequest {
    pub(crate) from: NodeAddress,
    pub(crate) argument: Bytes,
    pub(crate) end: Arc<End>,
    pub(crate) answer: Option<Answer>,
}

/// Whom to answer.
pub(crate) enum Answer {
    Peer(Reply<OpenCall>),
    Here(oneshot::Sender<Result<(), Box<RpcFailure>>>),
}

impl ChannelRequest {
    /// Who opens it.
    #[must_use]
    pub fn from(&self) -> &NodeAddress {
        &self.from
    }

    /// What the opening side has to say.
    #[must_use]
    pub fn argument(&self) -> &Bytes {
        &self.argument
    }

    /// Opens the channel.
    #[must_use = "a channel that is dropped has failed"]
    pub fn accept(mut self) -> Channel {
        let (end, from) = (Arc::clone(&self.end), self.from.clone());
        match self.answer.take() {
            Some(Answer::Peer(reply)) => reply.send(&ChannelOpened {
                limit_bytes: Some(end.granted_bytes()),
            }),
            // Nobody may be waiting any more; then the other end says so.
            Some(Answer::Here(opened)) => drop(opened.send(Ok(()))),
            None => {}
        }
        Channel::new(from, end)
    }

    /// Refuses it.
    pub fn refuse(mut self, failure: RpcFailure) {
        self.answer_no(failure);
    }

    fn answer_no(&mut self, failure: RpcFailure) {
        let Some(answer) = self.answer.take() else {
            return;
        };
        // Nothing can come of it any more.
        self.end.on_lost(&CloseReason::ClosedHere);
        self.end.forget_if_over();
        match answer {
            Answer::Peer(reply) => reply.fail(failure),
            Answer::Here(opened) => drop(opened.send(Err(Box::new(failure)))),
        }
    }
}

impl Drop for ChannelRequest {
    fn drop(&mut self) {
        self.answer_no(RpcFailure::new(
            ErrorType::System,
            "the request was dropped",
        ));
    }
}

impl fmt::Debug for ChannelRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelRequest")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// A name has a service already.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("channels to {name:?} have a service already")]
pub struct NameTaken {
    /// The name.
    pub name: String,
}

/// Services that channels may be opened to, by name. Clones are the same.
#[derive(Clone, Default)]
pub struct ChannelServices(Arc<RwLock<HashMap<String, Arc<dyn ChannelService>>>>);

impl ChannelServices {
    /// Gives the channels to `name` to `service`.
    ///
    /// # Errors
    ///
    /// They have one already.
    pub fn register(
        &self,
        name: impl Into<String>,
        service: impl ChannelService,
    ) -> Result<(), NameTaken> {
        let name = name.into();
        let mut services = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if services.contains_key(&name) {
            return Err(NameTaken { name });
        }
        services.insert(name, Arc::new(service));
        Ok(())
    }

    /// Takes the service of `name` away; says whether there was one. Channels that are open stay so.
    pub fn unregister(&self, name: &str) -> bool {
        let mut services = self.0.write().unwrap_or_else(PoisonError::into_inner);
        services.remove(name).is_some()
    }

    /// The service of a name.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<dyn ChannelService>, Box<RpcFailure>> {
        let services = self.0.read().unwrap_or_else(PoisonError::into_inner);
        services.get(name).cloned().ok_or_else(|| {
            // The name is the peer's: only its start is repeated.
            let start: String = name.chars().take(100).collect();
            let message = format!("no service {start:?} takes channels here");
            Box::new(RpcFailure::new(ErrorType::UnsupportedOperation, message))
        })
    }
}

impl fmt::Debug for ChannelServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services = self.0.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_tuple("ChannelServices")
            .field(&services.keys())
            .finish()
    }
}
