//! The way to one node: calls over whatever connection there is, made where there is none.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use bytes::Bytes;
use membership::NodeAddress;
use prost::Message;
use protos::{
    bit::FragmentHandle,
    body::BodyError,
    calls::control as calls,
    control::{
        CustomMessage, FinishedReceiver, FragmentStatus, FragmentStatuses, InitializeFragments,
    },
    id::{FragmentId, QueryId},
    rpc::Ack,
    shared::{MinorFragmentProfile, QueryProfile},
};
use rpc_bus::{Answer, CallError, CallOptions, CloseReason, Feature, RemoteConnection};

use crate::{
    channel::Channel,
    node::ControlNode,
    peers::PeerInfo,
    reply::ReplyTo,
    served::{Served, fragment_handle},
};

/// The way to one node. Cheap; calls to this node itself go to its services without a socket.
///
/// A call is made once: one whose connection ends first fails, and may or may not have been run. The next one connects
/// anew.
#[derive(Clone, Debug)]
pub struct ControlTunnel {
    node: ControlNode,
    to: NodeAddress,
}

impl ControlTunnel {
    pub(crate) fn new(node: ControlNode, to: NodeAddress) -> Self {
        Self { node, to }
    }

    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> &NodeAddress {
        &self.to
    }

    /// Whether it leads to this very node.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.to == *self.node.address()
    }

    /// What is known of the node; `None` while it is not connected.
    #[must_use]
    pub fn peer(&self) -> Option<PeerInfo> {
        self.node.inner_peers().info(&self.to)
    }

    /// The connection that calls take now, made if there is none. To this node itself it is one with two ends here,
    /// which calls do without.
    ///
    /// # Errors
    ///
    /// None could be made.
    pub async fn connection(&self) -> Result<RemoteConnection, CallError> {
        Ok(self.node.inner_peers().line(&self.to).await?.connection)
    }

    /// Makes any call of the plane that a node serves.
    ///
    /// # Errors
    ///
    /// There is no connection, the peer refused, or has not answered in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the call up: it may or may not have been sent.
    pub async fn call<C: Served>(
        &self,
        request: C::Request,
        dbody: Vec<Bytes>,
        options: CallOptions,
    ) -> Result<Answer<C::Reply>, CallError> {
        if self.is_local() {
            return self
                .call_here::<C>(request, dbody.concat().into(), options)
                .await;
        }
        let connection = self.connection().await?;
        connection.call::<C>(&request, dbody, options).await
    }

    async fn call_here<C: Served>(
        &self,
        request: C::Request,
        dbody: Bytes,
        options: CallOptions,
    ) -> Result<Answer<C::Reply>, CallError> {
        let services = &self.node.inner_peers().services;
        let (reply, pending) = ReplyTo::here();
        let serve = || C::serve(services, &self.to, request, dbody, reply);
        // As on a connection: a service that panics has dropped the request.
        if catch_unwind(AssertUnwindSafe(serve)).is_err() {
            tracing::error!("{} panicked", C::name());
        }
        let patience = options.deadline.unwrap_or(Duration::MAX);
        match tokio::time::timeout(patience, pending.answer()).await {
            Ok(answer) => answer.map_err(CallError::Remote),
            Err(_) => Err(CallError::Timeout(patience)),
        }
    }

    async fn ask<C: Served>(&self, request: C::Request) -> Result<C::Reply, CallError> {
        let options = CallOptions {
            deadline: Some(self.node.call_timeout()),
            ..CallOptions::default()
        };
        Ok(self.call::<C>(request, Vec::new(), options).await?.message)
    }

    /// Starts fragments; done once all of them can receive data.
    ///
    /// # Errors
    ///
    /// As [`Self::call`]. None of the fragments runs then, as far as the peer is one of ours.
    pub async fn initialize_fragments(
        &self,
        request: InitializeFragments,
    ) -> Result<(), CallError> {
        done(self.ask::<calls::InitializeFragments>(request).await)
    }

    /// Ends a fragment. One that is not there is no error.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn cancel_fragment(&self, fragment: FragmentId) -> Result<(), CallError> {
        done(
            self.ask::<calls::CancelFragment>(fragment_handle(fragment))
                .await,
        )
    }

    /// Ends all fragments of a query there, also those that are still to come; says whether any is left whose end is
    /// still to be reported. Only for our own nodes.
    ///
    /// # Errors
    ///
    /// As [`Self::call`]; or the peer does not know of it, and nothing was sent.
    pub async fn cancel_fragments(&self, query: QueryId) -> Result<bool, CallError> {
        self.expect_control_streams().await?;
        let answer = self.ask::<calls::CancelFragments>(query.into()).await?;
        // Only whoever says so has nothing left.
        Ok(answer.ok != Some(false))
    }

    /// Lets a fragment go on that a test has paused.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn unpause_fragment(&self, fragment: FragmentId) -> Result<(), CallError> {
        done(
            self.ask::<calls::UnpauseFragment>(fragment_handle(fragment))
                .await,
        )
    }

    /// Tells `sender`, a fragment of the peer, that `receiver` wants no more.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn receiver_finished(
        &self,
        receiver: FragmentId,
        sender: FragmentId,
    ) -> Result<(), CallError> {
        let request = FinishedReceiver {
            receiver: Some(fragment_handle(receiver)),
            sender: Some(fragment_handle(sender)),
        };
        done(self.ask::<calls::ReceiverFinished>(request).await)
    }

    /// Reports on a fragment to its foreman, Drill's way.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn fragment_status(
        &self,
        fragment: FragmentId,
        profile: MinorFragmentProfile,
    ) -> Result<(), CallError> {
        let handle: FragmentHandle = fragment_handle(fragment);
        let request = FragmentStatus {
            profile: Some(profile),
            handle: Some(handle),
        };
        done(self.ask::<calls::FragmentStatus>(request).await)
    }

    /// Reports what has changed of fragments to their foreman; returns the queries that it does not know. Only for our
    /// own nodes.
    ///
    /// # Errors
    ///
    /// As [`Self::call`]; or the peer does not know of it, and nothing was sent.
    pub async fn fragment_statuses(
        &self,
        statuses: FragmentStatuses,
    ) -> Result<Vec<QueryId>, CallError> {
        self.expect_control_streams().await?;
        let taken = self.ask::<calls::FragmentStatuses>(statuses).await?;
        let unknown = taken.unknown.into_iter();
        Ok(unknown.filter_map(|query| query.try_into().ok()).collect())
    }

    /// The profile of a query whose foreman is the peer.
    ///
    /// # Errors
    ///
    /// As [`Self::call`]. A real Drill closes the connection over a query that it does not know.
    pub async fn query_status(&self, query: QueryId) -> Result<QueryProfile, CallError> {
        self.ask::<calls::QueryStatus>(query.into()).await
    }

    /// Cancels a query whose foreman is the peer; says whether it is known there.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn cancel_query(&self, query: QueryId) -> Result<bool, CallError> {
        Ok(self.ask::<calls::QueryCancel>(query.into()).await?.ok())
    }

    /// Sends a custom message and a raw body, in pieces, to whoever takes those of `number` there.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn custom(
        &self,
        number: i32,
        message: Bytes,
        dbody: Vec<Bytes>,
    ) -> Result<Answer<Bytes>, CallError> {
        let request = CustomMessage {
            r#type: Some(number),
            message: Some(message),
        };
        let options = CallOptions {
            deadline: Some(self.node.call_timeout()),
            ..CallOptions::default()
        };
        let answer = self.call::<calls::Custom>(request, dbody, options).await?;
        Ok(Answer {
            message: answer.message.message.unwrap_or_default(),
            dbody: answer.dbody,
        })
    }

    /// As [`Self::custom`], for messages of known types without raw bodies.
    ///
    /// # Errors
    ///
    /// As [`Self::call`]; or the answer is no `R`.
    pub async fn custom_message<R: Message + Default>(
        &self,
        number: i32,
        message: &impl Message,
    ) -> Result<R, CallError> {
        let message = message.encode_to_vec().into();
        let answer = self.custom(number, message, Vec::new()).await?;
        Ok(R::decode(answer.message).map_err(BodyError::from)?)
    }

    /// Opens a channel to a service of the peer, which gets `argument` with it. Only for our own nodes.
    ///
    /// # Errors
    ///
    /// There is no connection, the peer does not know of channels, has no such service, or has refused.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the channel up.
    pub async fn open_channel(&self, service: &str, argument: Bytes) -> Result<Channel, CallError> {
        let patience = self.node.call_timeout();
        if self.is_local() {
            return self.open_here(service, argument, patience).await;
        }
        let options = CallOptions {
            deadline: Some(patience),
            ..CallOptions::default()
        };
        let line = self.node.inner_peers().line(&self.to).await?;
        let (channels, connection) = (&line.channels, &line.connection);
        channels.open(connection, service, argument, options).await
    }

    async fn open_here(
        &self,
        service: &str,
        argument: Bytes,
        patience: Duration,
    ) -> Result<Channel, CallError> {
        let around = &self.node.inner_peers().around;
        let service = around.services.find(service).map_err(CallError::Remote)?;
        let (request, channel, opened) = around.here(&self.to, argument);
        service.open(request);
        match tokio::time::timeout(patience, opened).await {
            Ok(Ok(Ok(()))) => Ok(channel),
            Ok(Ok(Err(failure))) => Err(CallError::Remote(failure)),
            Ok(Err(_)) => Err(CallError::Lost(CloseReason::Aborted)),
            Err(_) => Err(CallError::Timeout(patience)),
        }
    }

    /// Connects, and looks whether the peer knows what only our own nodes know.
    pub(crate) async fn expect_control_streams(&self) -> Result<(), CallError> {
        let feature = Feature::ControlStreams;
        if self.is_local() || self.connection().await?.has(feature) {
            return Ok(());
        }
        Err(CallError::NotOffered(feature))
    }
}

/// Drill's acknowledgements say `ok` always, and mean nothing by it.
fn done(acknowledged: Result<Ack, CallError>) -> Result<(), CallError> {
    acknowledged.map(|_| ())
}
