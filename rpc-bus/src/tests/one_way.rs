//! Messages that are never answered: only between peers that have agreed on them.

use std::sync::Arc;

use bytes::Bytes;
use protos::{Plane, rpc::RpcMode};

use super::pair::{Pair, REQUEST};
use crate::{
    capabilities::{Capabilities, Feature, Features},
    error::{CallError, CloseReason},
    options::ConnectionOptions,
};

fn offering(features: Features) -> ConnectionOptions {
    let ours = Capabilities {
        features,
        ..Capabilities::of_software("1.0")
    };
    ConnectionOptions {
        capabilities: Some(Arc::new(ours)),
        ..ConnectionOptions::bit()
    }
}

fn agreed() -> Pair {
    let all = offering(Features::all());
    Pair::open_with(all.clone(), all)
}

fn bodies(pair: &Pair) -> Vec<&[u8]> {
    let messages = pair.client.one_way.iter();
    messages.map(|message| &*message.pbody).collect()
}

#[test]
fn a_message_is_taken_and_nothing_comes_back() {
    let mut pair = agreed();
    pair.post("a").unwrap();
    pair.post("b").unwrap();
    pair.drive();
    assert_eq!(bodies(&pair), [b"a", b"b"]);
    assert!(pair.client.requests.is_empty());
    let (client, server) = (
        pair.client.connection.stats(),
        pair.server.connection.stats(),
    );
    assert_eq!((client.requests_in_flight, server.calls_in_flight), (0, 0));
    let rpcs = pair.client.connection.counters().rpcs.inbound(Plane::User);
    let one_way = rpcs[0]
        .counts
        .ended
        .iter()
        .find(|(kind, _)| *kind == "one_way");
    assert_eq!(one_way, Some(&("one_way", 2)));
    pair.client.close(CloseReason::ClosedHere, pair.now);
    pair.server.close(CloseReason::ClosedHere, pair.now);
    pair.assert_all_requests_counted();
    assert!(pair.client.ledger.is_zero() && pair.server.ledger.is_zero());
}

#[test]
fn an_urgent_message_passes_queued_ones() {
    let mut pair = agreed();
    pair.post("later").unwrap();
    let body = Bytes::from_static(b"now");
    let server = &mut pair.server.connection;
    server.post_urgent(REQUEST, body.into(), pair.now).unwrap();
    pair.drive();
    assert_eq!(bodies(&pair), [&b"now"[..], b"later"]);
}

#[test]
fn a_peer_that_has_not_agreed_is_sent_none() {
    let without = Features::all().without(Feature::Streams);
    let mut pair = Pair::open_with(offering(without), offering(Features::all()));
    let refused = pair.post("a");
    assert!(matches!(
        refused,
        Err(CallError::NotOffered(Feature::Streams))
    ));
    pair.drive();
    assert!(pair.client.one_way.is_empty());
}

#[test]
fn without_agreement_id_0_is_a_request_like_any_other() {
    let mut pair = Pair::default();
    pair.server
        .receive_frame(RpcMode::Request, 0, REQUEST, pair.now);
    assert!(pair.server.one_way.is_empty());
    assert_eq!(pair.server.requests.len(), 1);
}

/// A flipped bit of its header makes any of them of a message that nobody would miss.
#[test]
fn a_message_that_has_become_a_heartbeat_or_a_failure_ends_the_connection() {
    for mode in [RpcMode::Ping, RpcMode::Pong, RpcMode::ResponseFailure] {
        let mut damaged = agreed();
        damaged.server.receive_frame(mode, 0, REQUEST, damaged.now);
        let reason = damaged.server.reason();
        assert!(
            matches!(reason, Some(CloseReason::Protocol(_))),
            "{mode:?}: {reason:?}"
        );
        // Towards Drill, which may send what it wants there.
        let mut other = Pair::default();
        other.server.receive_frame(mode, 0, REQUEST, other.now);
        assert_eq!(other.server.reason(), None, "{mode:?}");
    }
}

#[test]
fn messages_to_a_peer_that_does_not_read_end_the_connection() {
    let mut pair = agreed();
    let body = || Bytes::from(vec![0; 1 << 20]);
    let server = &mut pair.server.connection;
    let posted = (0..20).map(|_| server.post_urgent(REQUEST, body().into(), pair.now));
    let lost = posted.filter(Result::is_err).last();
    let reason = CloseReason::RepliesNotRead {
        bytes: 0,
        bytes_max: 0,
    };
    match lost {
        Some(Err(CallError::Lost(lost))) => assert_eq!(lost.kind(), reason.kind()),
        other => panic!("{other:?}"),
    }
}
