//! Every call, from node to node, in both directions of one connection, and within a node.

use std::sync::{Arc, Mutex};

use bit_control::{
    ControlTunnel, CustomReply, FragmentService, NumberTaken, QueryService, ReplyTo, Services,
};
use bytes::Bytes;
use membership::NodeAddress;
use protos::{
    calls::control as calls,
    control::{FragmentStatuses, InitializeFragments, PlanFragment, QueryStatuses, StatusesTaken},
    error::ErrorType,
    id::{FragmentId, QueryId},
    rpc::{Ack, RpcMode},
    shared::{self, MinorFragmentProfile, QueryProfile},
};
use rpc_bus::{CallError, RpcFailure};

use crate::support::{Node, QUERY, fragment};

/// Writes down what it is asked.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn note(&self, from: &NodeAddress, what: impl Into<String>) {
        self.0
            .lock()
            .unwrap()
            .push(format!("{from} {}", what.into()));
    }

    /// What was asked since the last time, by `from`.
    fn take(&self, from: &NodeAddress) -> Vec<String> {
        let notes = std::mem::take(&mut *self.0.lock().unwrap());
        let of_caller = |note: String| {
            let rest = note.strip_prefix(&format!("{from} "));
            rest.unwrap_or_else(|| panic!("{note} is not of {from}"))
                .to_owned()
        };
        notes.into_iter().map(of_caller).collect()
    }
}

impl FragmentService for Notes {
    fn initialize(
        &self,
        from: &NodeAddress,
        request: InitializeFragments,
        reply: ReplyTo<calls::InitializeFragments>,
    ) {
        self.note(from, format!("initialize {}", request.fragment.len()));
        reply.acknowledge(true);
    }

    fn cancel(
        &self,
        from: &NodeAddress,
        fragment: FragmentId,
        reply: ReplyTo<calls::CancelFragment>,
    ) {
        self.note(from, format!("cancel {fragment}"));
        reply.acknowledge(true);
    }

    fn cancel_query(
        &self,
        from: &NodeAddress,
        query: QueryId,
        reply: ReplyTo<calls::CancelFragments>,
    ) {
        self.note(from, format!("cancel all of {query}"));
        reply.acknowledge(true);
    }

    fn unpause(
        &self,
        from: &NodeAddress,
        fragment: FragmentId,
        reply: ReplyTo<calls::UnpauseFragment>,
    ) {
        self.note(from, format!("unpause {fragment}"));
        reply.acknowledge(true);
    }

    fn receiver_finished(
        &self,
        from: &NodeAddress,
        receiver: FragmentId,
        sender: FragmentId,
        reply: ReplyTo<calls::ReceiverFinished>,
    ) {
        self.note(from, format!("{receiver} needs no more of {sender}"));
        reply.acknowledge(true);
    }
}

impl QueryService for Notes {
    fn fragment_status(
        &self,
        from: &NodeAddress,
        fragment: FragmentId,
        profile: MinorFragmentProfile,
        reply: ReplyTo<calls::FragmentStatus>,
    ) {
        self.note(from, format!("{fragment} is {:?}", profile.state()));
        reply.acknowledge(true);
    }

    fn fragment_statuses(
        &self,
        from: &NodeAddress,
        statuses: FragmentStatuses,
        reply: ReplyTo<calls::FragmentStatuses>,
    ) {
        self.note(from, format!("{} queries", statuses.query.len()));
        let unknown = vec![QUERY.into()];
        reply.send(StatusesTaken { unknown });
    }

    fn status(&self, from: &NodeAddress, query: QueryId, reply: ReplyTo<calls::QueryStatus>) {
        self.note(from, format!("status of {query}"));
        if query != QUERY {
            return reply.fail(RpcFailure::new(ErrorType::Validation, "no such query"));
        }
        reply.send(QueryProfile {
            id: Some(query.into()),
            ..QueryProfile::default()
        });
    }

    fn cancel(&self, from: &NodeAddress, query: QueryId, reply: ReplyTo<calls::QueryCancel>) {
        self.note(from, format!("cancel {query}"));
        reply.acknowledge(query == QUERY);
    }
}

fn noting() -> (Arc<Notes>, Services) {
    let notes = Arc::new(Notes::default());
    let services = Services {
        fragments: Arc::<Notes>::clone(&notes),
        queries: Arc::<Notes>::clone(&notes),
        ..Services::default()
    };
    (notes, services)
}

/// Makes all calls; what is noted must be what was asked.
async fn make_all_calls(tunnel: &ControlTunnel, from: &NodeAddress, notes: &Notes) {
    let (one, two) = (fragment(1, 0), fragment(2, 0));
    let other = QueryId { part1: 9, part2: 9 };
    let request = InitializeFragments {
        fragment: vec![PlanFragment::default(); 3],
    };
    tunnel.initialize_fragments(request).await.unwrap();
    tunnel.cancel_fragment(one).await.unwrap();
    tunnel.cancel_fragments(QUERY).await.unwrap();
    tunnel.unpause_fragment(one).await.unwrap();
    tunnel.receiver_finished(one, two).await.unwrap();
    let finished = MinorFragmentProfile {
        state: Some(3),
        ..MinorFragmentProfile::default()
    };
    tunnel.fragment_status(two, finished).await.unwrap();
    let statuses = FragmentStatuses {
        query: vec![QueryStatuses::default()],
    };
    let unknown = tunnel.fragment_statuses(statuses).await.unwrap();
    assert_eq!(unknown, [QUERY]);
    let profile = tunnel.query_status(QUERY).await.unwrap();
    assert_eq!(profile.id, Some(QUERY.into()));
    let error = tunnel.query_status(other).await.unwrap_err();
    assert_eq!(error.to_string(), "no such query");
    assert!(tunnel.cancel_query(QUERY).await.unwrap());
    assert!(!tunnel.cancel_query(other).await.unwrap());
    let expected = [
        "initialize 3".to_owned(),
        format!("cancel {one}"),
        format!("cancel all of {QUERY}"),
        format!("unpause {one}"),
        format!("{one} needs no more of {two}"),
        format!("{two} is Finished"),
        "1 queries".to_owned(),
        format!("status of {QUERY}"),
        format!("status of {other}"),
        format!("cancel {QUERY}"),
        format!("cancel {other}"),
    ];
    assert_eq!(notes.take(from), expected);
}

#[tokio::test]
async fn every_call_works_both_ways_on_one_connection_and_within_a_node() {
    let ((notes_a, a), (notes_b, b)) = (noting(), noting());
    let (a, b) = (Node::with(a).await, Node::with(b).await);
    let there = a.control.tunnel(b.address());
    make_all_calls(&there, a.address(), &notes_b).await;
    let back = b.control.tunnel(a.address());
    make_all_calls(&back, b.address(), &notes_a).await;
    for tunnel in [&there, &back] {
        let peer = tunnel.peer().unwrap();
        assert_eq!(peer.connections.len(), 1, "{peer:?}");
        let said = peer.endpoint.unwrap();
        assert_eq!(NodeAddress::of(&said).unwrap(), *tunnel.address());
    }
    let here = a.control.tunnel(a.address());
    make_all_calls(&here, a.address(), &notes_a).await;
    assert!(here.peer().is_none(), "no socket to oneself");
    drop((there, back, here));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn custom_messages_find_their_handlers_by_number_raw_bodies_included() {
    let services = Services::default();
    let custom = services.custom.clone();
    let echo = |_: &NodeAddress, message: Bytes, dbody: Bytes, reply: CustomReply| {
        reply.send(message, vec![dbody.clone(), dbody]);
    };
    custom.register(1, echo).unwrap();
    let taken = custom.register(1, echo).unwrap_err();
    assert_eq!(taken, NumberTaken { number: 1 });
    let negate = |_: &NodeAddress, ack: Ack, _: Bytes, reply: CustomReply| {
        reply.send_message(&Ack {
            ok: Some(!ack.ok()),
        });
    };
    custom.register_typed(2, negate).unwrap();
    custom
        .register(3, |_: &NodeAddress, _: Bytes, _: Bytes, _: CustomReply| {
            panic!("a handler may panic")
        })
        .unwrap();
    custom
        .register(
            4,
            |_: &NodeAddress, _: Bytes, _: Bytes, reply: CustomReply| drop(reply),
        )
        .unwrap();
    let (a, b) = (Node::start().await, Node::with(services).await);
    for tunnel in [a.control.tunnel(b.address()), b.control.tunnel(b.address())] {
        let (message, body) = (Bytes::from_static(b"hello"), Bytes::from(vec![7; 10_000]));
        let answer = tunnel.custom(1, message.clone(), vec![body.clone()]).await;
        let answer = answer.unwrap();
        assert_eq!(answer.message, message);
        assert_eq!(answer.dbody, [&body[..], &body[..]].concat());
        let no: Ack = tunnel
            .custom_message(2, &Ack { ok: Some(true) })
            .await
            .unwrap();
        assert_eq!(no.ok, Some(false));
        for (number, message, said) in [
            (99, &b""[..], "nobody here takes custom messages of type 99"),
            (2, b"\xff", "malformed custom message of type 2"),
            (4, b"", "the request was dropped"),
        ] {
            let failed = tunnel
                .custom(number, Bytes::from_static(message), vec![])
                .await;
            let error = failed.unwrap_err();
            assert!(error.to_string().starts_with(said), "{error}");
        }
    }
    let here = b.control.tunnel(b.address());
    let panics = here.custom(3, Bytes::new(), vec![]);
    assert_eq!(
        panics.await.unwrap_err().to_string(),
        "the request was dropped"
    );
    let tunnel = a.control.tunnel(b.address());
    let panics = tunnel.custom(3, Bytes::new(), vec![]);
    assert_eq!(
        panics.await.unwrap_err().to_string(),
        "the handler panicked"
    );
    assert!(custom.unregister(4) && !custom.unregister(4));
    a.stop().await;
    b.stop().await;
}

/// A Drillbit would end the connection; ours says what is wrong, and the next call is answered.
#[tokio::test]
async fn bad_calls_are_refused_by_name_and_the_connection_lives_on() {
    let node = Node::start().await;
    let mut peer = node.peer(2).await;
    let query = [0x09, 1, 0, 0, 0, 0, 0, 0, 0];
    let cases: [(i32, &[u8], &str); 9] = [
        (3, b"\xff\xff", "malformed REQ_INITIALIZE_FRAGMENTS request"),
        (3, b"\x0a\x00", "no fragments are run here"),
        (4, b"", "unknown rpc type 4"),
        (
            6,
            b"",
            "REQ_CANCEL_FRAGMENT without a whole fragment handle",
        ),
        (7, b"", "REQ_RECEIVER_FINISHED without the handles"),
        (8, b"\x0a\x00", "REQ_FRAGMENT_STATUS without a whole handle"),
        (9, b"", "REQ_BIT_STATUS is not served here"),
        (10, &query, "REQ_QUERY_STATUS without a whole query id"),
        (1000, b"", "channels were not agreed on"),
    ];
    for (id, (rpc_type, body, said)) in (2..).zip(cases) {
        peer.send(RpcMode::Request, id, rpc_type, body, &[]).await;
        let found = peer.frame().await;
        assert_eq!((found.mode, found.id), (RpcMode::ResponseFailure, id));
        let error = found.message::<shared::DrillPbError>();
        assert!(error.message().starts_with(said), "{error:?}");
    }
    peer.send(RpcMode::Request, 99, 3, b"", &[]).await;
    assert_eq!(peer.frame().await.id, 99);
    drop(peer);
    node.stop().await;
}

#[tokio::test]
async fn what_only_our_own_nodes_know_is_not_sent_to_a_drillbit() {
    let (node, drill) = (Node::start().await, Node::plain().await);
    let tunnel = node.control.tunnel(drill.address());
    assert!(!tunnel.cancel_query(QUERY).await.unwrap());
    for error in [
        tunnel.cancel_fragments(QUERY).await.unwrap_err(),
        tunnel
            .fragment_statuses(FragmentStatuses::default())
            .await
            .unwrap_err(),
    ] {
        assert!(matches!(error, CallError::NotOffered(_)), "{error}");
    }
    let peer = tunnel.peer().unwrap();
    assert_eq!((peer.capabilities, peer.endpoint), (None, None));
    node.stop().await;
    drill.stop().await;
}
