//! Every call of the plane and who serves it: one way for those of other nodes and of this one.

use bytes::Bytes;
use membership::NodeAddress;
use protos::{
    Call,
    bit::FragmentHandle,
    calls::control as calls,
    error::ErrorType,
    id::{FragmentId, QueryId},
    shared,
};
use rpc_bus::RpcFailure;

use crate::{reply::ReplyTo, services::Services};

/// A call that a node serves.
pub trait Served: Call + Sized {
    /// Gives the request to whom it is for, without waiting. What lacks a field that it needs is refused.
    fn serve(
        services: &Services,
        from: &NodeAddress,
        request: Self::Request,
        dbody: Bytes,
        reply: ReplyTo<Self>,
    );
}

/// A message lacks something.
fn lacking(name: &str, what: &str) -> RpcFailure {
    RpcFailure::new(ErrorType::Validation, format!("{name} without {what}"))
}

/// The fragment that a handle names, whatever it says beside that.
pub(crate) fn fragment_id(handle: Option<FragmentHandle>) -> Option<FragmentId> {
    let handle = handle?;
    let query = QueryId::try_from(handle.query_id?).ok()?;
    Some(FragmentId::new(
        query,
        handle.major_fragment_id?,
        handle.minor_fragment_id?,
    ))
}

/// A handle as Drill's own: it is a map key there, and holds nothing else.
#[must_use]
pub fn fragment_handle(fragment: FragmentId) -> FragmentHandle {
    FragmentHandle {
        query_id: Some(fragment.query.into()),
        major_fragment_id: Some(fragment.major.0),
        minor_fragment_id: Some(fragment.minor.0),
        parent_query_id: None,
    }
}

/// Serves a call whose request is a handle.
macro_rules! of_fragment {
    ($call:ident, $method:ident) => {
        impl Served for calls::$call {
            fn serve(
                services: &Services,
                from: &NodeAddress,
                handle: FragmentHandle,
                _: Bytes,
                reply: ReplyTo<Self>,
            ) {
                match fragment_id(Some(handle)) {
                    Some(fragment) => services.fragments.$method(from, fragment, reply),
                    None => reply.fail(lacking(Self::name(), "a whole fragment handle")),
                }
            }
        }
    };
}

/// Serves a call whose request is the id of a query.
macro_rules! of_query {
    ($call:ident, $service:ident, $method:ident) => {
        impl Served for calls::$call {
            fn serve(
                services: &Services,
                from: &NodeAddress,
                query: shared::QueryId,
                _: Bytes,
                reply: ReplyTo<Self>,
            ) {
                match QueryId::try_from(query) {
                    Ok(query) => services.$service.$method(from, query, reply),
                    Err(_) => reply.fail(lacking(Self::name(), "a whole query id")),
                }
            }
        }
    };
}

/// Serves a call whose request goes on as it is.
macro_rules! as_it_is {
    ($call:ident, $service:ident, $method:ident) => {
        impl Served for calls::$call {
            fn serve(
                services: &Services,
                from: &NodeAddress,
                request: Self::Request,
                _: Bytes,
                reply: ReplyTo<Self>,
            ) {
                services.$service.$method(from, request, reply);
            }
        }
    };
}

of_fragment!(CancelFragment, cancel);
of_fragment!(UnpauseFragment, unpause);
of_query!(CancelFragments, fragments, cancel_query);
of_query!(QueryStatus, queries, status);
of_query!(QueryCancel, queries, cancel);
as_it_is!(InitializeFragments, fragments, initialize);
as_it_is!(FragmentStatuses, queries, fragment_statuses);

impl Served for calls::ReceiverFinished {
    fn serve(
        services: &Services,
        from: &NodeAddress,
        request: Self::Request,
        _: Bytes,
        reply: ReplyTo<Self>,
    ) {
        let (receiver, sender) = (fragment_id(request.receiver), fragment_id(request.sender));
        match (receiver, sender) {
            (Some(receiver), Some(sender)) => {
                let fragments = &services.fragments;
                fragments.receiver_finished(from, receiver, sender, reply);
            }
            _ => reply.fail(lacking(Self::name(), "the handles of receiver and sender")),
        }
    }
}

impl Served for calls::FragmentStatus {
    fn serve(
        services: &Services,
        from: &NodeAddress,
        request: Self::Request,
        _: Bytes,
        reply: ReplyTo<Self>,
    ) {
        match (fragment_id(request.handle), request.profile) {
            (Some(fragment), Some(profile)) => {
                let queries = &services.queries;
                queries.fragment_status(from, fragment, profile, reply);
            }
            _ => reply.fail(lacking(Self::name(), "a whole handle and a profile")),
        }
    }
}

impl Served for calls::Custom {
    fn serve(
        services: &Services,
        from: &NodeAddress,
        request: Self::Request,
        dbody: Bytes,
        reply: ReplyTo<Self>,
    ) {
        services.custom.handle(from, request, dbody, reply);
    }
}
