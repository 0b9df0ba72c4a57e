//! Who serves the calls of other nodes, and of this one: one trait per concern, in terms of queries and fragments.

use std::{fmt, ops::RangeInclusive, sync::Arc};

use membership::NodeAddress;
use protos::{
    calls::control as calls,
    control::{FragmentStatuses, InitializeFragments, StatusesTaken},
    error::ErrorType,
    id::{FragmentId, QueryId},
    shared::MinorFragmentProfile,
};
use rpc_bus::{CloseReason, InboundRequest, OneWayMessage, PeerMisbehaved, RpcFailure};

use crate::{channel::ChannelServices, custom::CustomHandlers, reply::ReplyTo};

/// Runs fragments for the foremen of other nodes. Methods are called in the order in which a connection brings them,
/// and must not wait: what takes time goes on elsewhere and takes the reply along.
///
/// The defaults answer as a Drillbit does that runs nothing.
// wire: golden/raw/raw_control.control7, control9, control10 and control13
pub trait FragmentService: Send + Sync + 'static {
    /// Starts fragments; acknowledged once all of them can receive data.
    fn initialize(
        &self,
        from: &NodeAddress,
        request: InitializeFragments,
        reply: ReplyTo<calls::InitializeFragments>,
    ) {
        let _ = from;
        if request.fragment.is_empty() {
            return reply.acknowledge(true);
        }
        let message = "no fragments are run here";
        reply.fail(RpcFailure::new(ErrorType::UnsupportedOperation, message));
    }

    /// Ends a fragment; one that is not here has ended, or is never to start.
    fn cancel(
        &self,
        from: &NodeAddress,
        fragment: FragmentId,
        reply: ReplyTo<calls::CancelFragment>,
    ) {
        let _ = (from, fragment);
        reply.acknowledge(true);
    }

    /// Ends all fragments of a query; those that are still to come are never to start. `ok` is false if none is left
    /// whose end is still to be reported.
    fn cancel_query(
        &self,
        from: &NodeAddress,
        query: QueryId,
        reply: ReplyTo<calls::CancelFragments>,
    ) {
        let _ = (from, query);
        reply.acknowledge(false);
    }

    /// Lets a fragment go on that a test has paused.
    fn unpause(
        &self,
        from: &NodeAddress,
        fragment: FragmentId,
        reply: ReplyTo<calls::UnpauseFragment>,
    ) {
        let _ = (from, fragment);
        reply.acknowledge(true);
    }

    /// `sender`, a fragment of this node, need not send to `receiver` any more.
    fn receiver_finished(
        &self,
        from: &NodeAddress,
        receiver: FragmentId,
        sender: FragmentId,
        reply: ReplyTo<calls::ReceiverFinished>,
    ) {
        let _ = (from, receiver, sender);
        reply.acknowledge(true);
    }
}

/// Answers for the queries whose foreman is this node. The same rules as for [`FragmentService`].
// wire: golden/raw/raw_control.control8 and control11; a query that is not known ends the connection at a Drillbit
// (control6), here it is refused
pub trait QueryService: Send + Sync + 'static {
    /// A fragment reports, Drill's way.
    fn fragment_status(
        &self,
        from: &NodeAddress,
        fragment: FragmentId,
        profile: MinorFragmentProfile,
        reply: ReplyTo<calls::FragmentStatus>,
    ) {
        let _ = (from, fragment, profile);
        reply.acknowledge(true);
    }

    /// A node reports what has changed of all fragments that it runs for this one; it is told of which queries there
    /// are none here.
    fn fragment_statuses(
        &self,
        from: &NodeAddress,
        statuses: FragmentStatuses,
        reply: ReplyTo<calls::FragmentStatuses>,
    ) {
        let _ = from;
        let unknown = statuses.query.into_iter();
        reply.send(StatusesTaken {
            unknown: unknown.filter_map(|query| query.query_id).collect(),
        });
    }

    /// Answers with the profile of a query.
    fn status(&self, from: &NodeAddress, query: QueryId, reply: ReplyTo<calls::QueryStatus>) {
        let _ = from;
        reply.fail(unknown_query(query));
    }

    /// Cancels a query; `ok` is false if it is not known here.
    fn cancel(&self, from: &NodeAddress, query: QueryId, reply: ReplyTo<calls::QueryCancel>) {
        let _ = (from, query);
        reply.acknowledge(false);
    }
}

/// The answer to a question about a query that is not known here.
#[must_use]
pub fn unknown_query(query: QueryId) -> RpcFailure {
    let message = format!("the query {query} is not run here");
    RpcFailure::new(ErrorType::Validation, message)
}

/// Runs no fragments.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFragments;

impl FragmentService for NoFragments {}

/// Is nobody's foreman.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoQueries;

impl QueryService for NoQueries {}

/// Serves rpc types of its own, between our nodes.
pub trait Extension: Send + Sync + 'static {
    /// Which ones; they are given to no other.
    fn rpc_types(&self) -> RangeInclusive<i32>;

    /// Starts a request, in the order in which they come, without waiting.
    fn request(&self, from: &NodeAddress, request: InboundRequest) {
        let _ = from;
        let unknown = RpcFailure::unknown_type(request.rpc_type);
        request.refuse(unknown);
    }

    /// Whether requests of this type are started on the I/O thread, in no order: see [`rpc_bus::Handler::runs_inline`].
    fn runs_inline(&self, rpc_type: i32) -> bool {
        let _ = rpc_type;
        false
    }

    /// Takes a message that is never answered, on the I/O thread, without waiting.
    ///
    /// # Errors
    ///
    /// The message breaks the rules. That ends the connection.
    fn one_way(&self, from: &NodeAddress, message: OneWayMessage) -> Result<(), PeerMisbehaved> {
        let _ = from;
        Err(message.unexpected())
    }

    /// A connection with `from` has ended; there may be others.
    fn closed(&self, from: &NodeAddress, reason: &CloseReason) {
        let _ = (from, reason);
    }
}

/// All that a node serves.
#[derive(Clone)]
pub struct Services {
    /// Default: [`NoFragments`].
    pub fragments: Arc<dyn FragmentService>,
    /// Default: [`NoQueries`].
    pub queries: Arc<dyn QueryService>,
    /// Default: none; they may be registered at any time.
    pub custom: CustomHandlers,
    /// Default: none; they may be registered at any time.
    pub channels: ChannelServices,
    /// Default: none.
    pub extensions: Vec<Arc<dyn Extension>>,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            fragments: Arc::new(NoFragments),
            queries: Arc::new(NoQueries),
            custom: CustomHandlers::default(),
            channels: ChannelServices::default(),
            extensions: Vec::new(),
        }
    }
}

impl Services {
    /// Who serves an rpc type that is not Drill's.
    pub(crate) fn extension(&self, rpc_type: i32) -> Option<&dyn Extension> {
        let serves = |extension: &&Arc<dyn Extension>| extension.rpc_types().contains(&rpc_type);
        Some(&**self.extensions.iter().find(serves)?)
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("custom", &self.custom)
            .field("channels", &self.channels)
            .field("extensions", &self.extensions.len())
            .finish_non_exhaustive()
    }
}
