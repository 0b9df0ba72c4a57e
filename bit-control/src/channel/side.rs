//! The channels of one connection.
//!
//! Ids are chosen by the side that opens: odd ones by the side that has connected, even ones by the other. They only
//! ever grow, so that what comes late for a channel that has ended is told from what was never opened.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use bytes::Bytes;
use membership::NodeAddress;
use protos::{
    OneWay,
    calls::{
        ChannelCredit as CreditCall, ChannelMessage as MessageCall, CloseChannel as CloseCall,
        control::OpenChannel as OpenCall,
    },
    control::{CloseChannel, OpenChannel, close_channel::Kind},
    error::{ErrorType, Retry},
};
use rpc_bus::{
    CallError, CallOptions, CloseReason, Feature, InboundRequest, OneWayMessage, PeerMisbehaved,
    RemoteConnection, Reply, RpcFailure,
};

use super::{
    Around,
    end::{End, Route, close_message},
    given_up::GivenUp,
    halves::Channel,
    request::{Answer, ChannelRequest, ChannelService},
};
use crate::{lock, peers::Direction};

#[derive(Debug)]
pub(crate) struct ChannelSide {
    this: Weak<Self>,
    /// The node at the other end.
    peer: NodeAddress,
    around: Arc<Around>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    open: HashMap<u64, Arc<End>>,
    /// Of those in `open`, the ones that the peer has opened.
    of_peer: usize,
    /// Next id of this side.
    next: u64,
    /// Highest id that the peer has used; at first, one that it cannot use.
    highest: u64,
    given_up: GivenUp,
    ended: Option<CloseReason>,
}

impl State {
    fn is_mine(&self, id: u64) -> bool {
        id % 2 == self.next % 2
    }

    /// Whether a channel with this id has been there.
    fn has_been(&self, id: u64) -> bool {
        if id == 0 {
            false
        } else if self.is_mine(id) {
            id < self.next
        } else {
            id <= self.highest
        }
    }
}

impl ChannelSide {
    pub(crate) fn new(peer: &NodeAddress, direction: Direction, around: &Arc<Around>) -> Arc<Self> {
        // Neither 0, which is the key of calls.
        let (next, highest) = match direction {
            Direction::Outbound => (1, 0),
            Direction::Inbound => (2, 0),
        };
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            peer: peer.clone(),
            around: Arc::clone(around),
            state: Mutex::new(State {
                open: HashMap::new(),
                of_peer: 0,
                next,
                highest,
                given_up: GivenUp::new(around.options.channels_max),
                ended: None,
            }),
        })
    }

    /// Opens a channel to a service of the peer.
    ///
    /// # Errors
    ///
    /// The peer does not know of channels, has no such service, or has refused; or the connection has ended.
    pub(crate) async fn open(
        &self,
        connection: &RemoteConnection,
        service: &str,
        argument: Bytes,
        options: CallOptions,
    ) -> Result<Channel, CallError> {
        if !connection.has(Feature::ControlStreams) {
            return Err(CallError::NotOffered(Feature::ControlStreams));
        }
        let (id, end) = self.add_mine(connection)?;
        let mut opening = Opening {
            side: self,
            connection,
            id: Some(id),
        };
        let request = OpenChannel {
            channel: Some(id),
            service: Some(service.to_owned()),
            limit_bytes: Some(end.granted_bytes()),
            argument: Some(argument),
        };
        let opened = connection
            .call::<OpenCall>(&request, Vec::new(), options)
            .await;
        if let Err(CallError::Remote(_)) = &opened {
            // Nothing is left of it there.
            opening.id = None;
            self.forget(id);
        }
        let opened = opened?.message;
        opening.id = None;
        end.on_credit(opened.limit_bytes());
        Ok(Channel::new(self.peer.clone(), end))
    }

    fn add_mine(&self, connection: &RemoteConnection) -> Result<(u64, Arc<End>), CallError> {
        let mut state = lock(&self.state);
        if let Some(reason) = &state.ended {
            return Err(reason.clone().into());
        }
        let id = state.next;
        state.next += 2;
        let end = Arc::new(self.end(id, connection));
        state.open.insert(id, Arc::clone(&end));
        Ok((id, end))
    }

    fn end(&self, channel: u64, connection: &RemoteConnection) -> End {
        let route = Route::Peer {
            connection: connection.clone(),
            side: self.this.clone(),
            channel,
        };
        let around = &self.around;
        End::new(route, around.options.window_bytes, &around.ledger)
    }

    /// The peer opens a channel.
    pub(crate) fn on_request(&self, request: InboundRequest) {
        let connection = request.connection();
        let Some((open, _, reply)) = request.decode::<OpenCall>() else {
            return;
        };
        match self.take(&open, &connection) {
            Ok((service, end)) => service.open(self.request(open, end, reply)),
            Err(failure) => reply.fail(*failure),
        }
    }

    fn request(&self, open: OpenChannel, end: Arc<End>, reply: Reply<OpenCall>) -> ChannelRequest {
        end.on_credit(open.limit_bytes());
        ChannelRequest {
            from: self.peer.clone(),
            argument: open.argument.unwrap_or_default(),
            end,
            answer: Some(Answer::Peer(reply)),
        }
    }

    /// Takes note of a channel of the peer.
    fn take(
        &self,
        open: &OpenChannel,
        connection: &RemoteConnection,
    ) -> Result<Taken, Box<RpcFailure>> {
        let refused = |kind, message: String| Box::new(RpcFailure::new(kind, message));
        if !connection.has(Feature::ControlStreams) {
            let message = "channels were not agreed on in the handshake".to_owned();
            return Err(refused(ErrorType::UnsupportedOperation, message));
        }
        let mut state = lock(&self.state);
        let (id, highest) = (open.channel(), state.highest);
        if id == 0 || state.is_mine(id) || id <= highest {
            let message =
                format!("channel id {id}, expected one above {highest} of the side that opens");
            return Err(refused(ErrorType::Validation, message));
        }
        state.highest = id;
        if state.given_up.take(id) {
            let message = format!("channel {id} was given up, or one of many about it was");
            let failure = RpcFailure::new(ErrorType::System, message);
            return Err(Box::new(failure.with_retry(Retry::SameNode)));
        }
        let max = self.around.options.channels_max;
        if state.of_peer >= max {
            let message = format!("{max} channels of this connection are open already");
            let failure = RpcFailure::new(ErrorType::Resource, message);
            return Err(Box::new(failure.with_retry(Retry::SameNode)));
        }
        let service = self.around.services.find(open.service())?;
        let end = Arc::new(self.end(id, connection));
        state.open.insert(id, Arc::clone(&end));
        state.of_peer += 1;
        Ok((service, end))
    }

    /// Takes a message that is never answered, if it is one of channels.
    pub(crate) fn one_way(&self, message: OneWayMessage) -> Result<(), PeerMisbehaved> {
        match message.rpc_type {
            MessageCall::RPC_TYPE => {
                let (head, body) = message.decode::<MessageCall>()?;
                let end = self.known(head.channel())?;
                end.map_or(Ok(()), |end| end.on_message(body))
                    .map_err(|reason| PeerMisbehaved { reason })
            }
            CreditCall::RPC_TYPE => {
                let (credit, _) = message.decode::<CreditCall>()?;
                if let Some(end) = self.known(credit.channel())? {
                    end.on_credit(credit.limit_bytes());
                }
                Ok(())
            }
            CloseCall::RPC_TYPE => {
                let (close, _) = message.decode::<CloseCall>()?;
                self.on_close(close)
            }
            _ => Err(message.unexpected()),
        }
    }

    /// The end of a channel; `None` if it has ended.
    fn known(&self, id: u64) -> Result<Option<Arc<End>>, PeerMisbehaved> {
        let state = lock(&self.state);
        match state.open.get(&id) {
            Some(end) => Ok(Some(Arc::clone(end))),
            None if state.has_been(id) => Ok(None),
            None => Err(never_opened(id)),
        }
    }

    fn on_close(&self, close: CloseChannel) -> Result<(), PeerMisbehaved> {
        let (id, kind) = (close.channel(), close.kind());
        let mut state = lock(&self.state);
        let end = match state.open.get(&id) {
            Some(end) => Arc::clone(end),
            None if state.has_been(id) => return Ok(()),
            // It may overtake its request, which waits its turn.
            None if id != 0 && !state.is_mine(id) => {
                state.given_up.add(id);
                return Ok(());
            }
            None => return Err(never_opened(id)),
        };
        drop(state);
        end.on_close(kind, close.error.map(|error| Box::new(error.into())));
        Ok(())
    }

    /// The connection has ended.
    pub(crate) fn on_closed(&self, reason: &CloseReason) {
        let open = {
            let mut state = lock(&self.state);
            state.ended = Some(reason.clone());
            state.of_peer = 0;
            std::mem::take(&mut state.open)
        };
        for end in open.into_values() {
            end.on_lost(reason);
        }
    }

    /// A channel is over.
    pub(crate) fn forget(&self, id: u64) {
        let mut state = lock(&self.state);
        if state.open.remove(&id).is_some() && !state.is_mine(id) {
            state.of_peer -= 1;
        }
    }

    /// Channels that are open.
    pub(crate) fn count(&self) -> usize {
        lock(&self.state).open.len()
    }
}

/// Whom a channel is for, and this side of it.
type Taken = (Arc<dyn ChannelService>, Arc<End>);

fn never_opened(id: u64) -> PeerMisbehaved {
    PeerMisbehaved {
        reason: format!("channel {id} was never opened"),
    }
}

/// A channel whose request is not answered yet. Dropped, it is given up, whether or not the peer opens it.
struct Opening<'a> {
    side: &'a ChannelSide,
    connection: &'a RemoteConnection,
    id: Option<u64>,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        self.side.forget(id);
        for kind in [Kind::Failed, Kind::Cancelled] {
            let failure = RpcFailure::new(ErrorType::System, "the channel was given up");
            let message = close_message(id, kind, Some(failure.error));
            // A connection that has ended tells it by itself.
            let _ = self.connection.post_urgent::<CloseCall>(&message);
        }
    }
}
