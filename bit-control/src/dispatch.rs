//! Which request of a control connection goes to whom; both sides of a connection ask. Nothing here waits.

use std::sync::{Arc, Weak};

use membership::NodeAddress;
use protos::{Plane, calls::control as calls, control::RpcType, error::ErrorType, rpc_name};
use rpc_bus::{CloseReason, Handler, InboundRequest, OneWayMessage, PeerMisbehaved, RpcFailure};

use crate::{
    channel::ChannelSide, peers::Peers, reply::ReplyTo, served::Served, services::Services,
};

/// Serves one connection, whichever side has opened it.
pub(crate) struct ConnectionHandler {
    /// The node at the other end.
    pub(crate) from: NodeAddress,
    pub(crate) services: Arc<Services>,
    pub(crate) channels: Arc<ChannelSide>,
    /// Told when the connection has ended.
    pub(crate) peers: Weak<Peers>,
}

impl ConnectionHandler {
    fn serve<C: Served>(&self, request: InboundRequest) {
        if let Some((message, dbody, reply)) = request.decode::<C>() {
            let reply = ReplyTo::peer(reply);
            C::serve(&self.services, &self.from, message, dbody, reply);
        }
    }

    fn serve_other(&self, request: InboundRequest) {
        match self.services.extension(request.rpc_type) {
            Some(extension) => extension.request(&self.from, request),
            None => refuse(request),
        }
    }
}

impl Handler for ConnectionHandler {
    fn handle(&self, request: InboundRequest) {
        match RpcType::try_from(request.rpc_type) {
            Ok(RpcType::ReqInitializeFragments) => {
                self.serve::<calls::InitializeFragments>(request);
            }
            Ok(RpcType::ReqCancelFragment) => self.serve::<calls::CancelFragment>(request),
            Ok(RpcType::CancelFragments) => self.serve::<calls::CancelFragments>(request),
            Ok(RpcType::ReqUnpauseFragment) => self.serve::<calls::UnpauseFragment>(request),
            Ok(RpcType::ReqReceiverFinished) => self.serve::<calls::ReceiverFinished>(request),
            Ok(RpcType::ReqFragmentStatus) => self.serve::<calls::FragmentStatus>(request),
            Ok(RpcType::FragmentStatuses) => self.serve::<calls::FragmentStatuses>(request),
            Ok(RpcType::ReqQueryStatus) => self.serve::<calls::QueryStatus>(request),
            Ok(RpcType::ReqQueryCancel) => self.serve::<calls::QueryCancel>(request),
            Ok(RpcType::ReqCustom) => self.serve::<calls::Custom>(request),
            Ok(RpcType::OpenChannel) => self.channels.on_request(request),
            _ => self.serve_other(request),
        }
    }

    fn runs_inline(&self, rpc_type: i32) -> bool {
        let extension = self.services.extension(rpc_type);
        extension.is_some_and(|extension| extension.runs_inline(rpc_type))
    }

    fn one_way(&self, message: OneWayMessage) -> Result<(), PeerMisbehaved> {
        match self.services.extension(message.rpc_type) {
            Some(extension) => extension.one_way(&self.from, message),
            None => self.channels.one_way(message),
        }
    }

    fn closed(&self, reason: &CloseReason) {
        self.channels.on_closed(reason);
        if let Some(peers) = self.peers.upgrade() {
            peers.forget_closed(&self.from);
        }
        for extension in &self.services.extensions {
            extension.closed(&self.from, reason);
        }
    }
}

// wire: golden/raw/raw_control.control14: a Drillbit ends the connection, here it is refused
fn refuse(request: InboundRequest) {
    let failure = match rpc_name(Plane::Control, request.rpc_type) {
        Some(name) => {
            let message = format!("{name} is not served here");
            RpcFailure::new(ErrorType::UnsupportedOperation, message)
        }
        None => RpcFailure::unknown_type(request.rpc_type),
    };
    request.refuse(failure);
}
