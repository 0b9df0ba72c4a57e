//! Calls: answered once, failed once, given up.

use std::time::Duration;

use bytes::Bytes;
use protos::{body::BodyError, error::ErrorType, rpc::RpcMode};

use super::pair::{Pair, REQUEST, RESPONSE, outcome};
use crate::{
    error::{CallError, CloseReason, ProtocolError, RpcFailure},
    frame::{CoordinationId, Header, encode},
};

const DEADLINE: Duration = Duration::from_secs(5);

#[test]
fn an_idle_connection_gives_back_what_a_burst_of_calls_took() {
    let mut pair = Pair::default();
    let calls: Vec<_> = (0..64).map(|_| pair.call("burst")).collect();
    pair.drive();
    (0..64).for_each(|_| pair.echo());
    pair.drive();
    assert_eq!(pair.client.connection.call_places(), 128);
    pair.advance(Duration::from_secs(15));
    assert_eq!(pair.client.connection.call_places(), 0);
    drop(calls);
}

#[test]
fn answers_may_come_in_any_order() {
    let mut pair = Pair::default();
    let mut calls = [pair.call("a"), pair.call("b"), pair.call("c")];
    pair.drive();
    pair.server.requests.make_contiguous().reverse();
    (0..3).for_each(|_| pair.echo());
    pair.drive();
    let bodies = calls.each_mut().map(|call| outcome(call).unwrap());
    assert_eq!(bodies, [&b"a"[..], b"b", b"c"]);
}

#[test]
fn requests_start_in_the_order_of_their_calls() {
    let mut pair = Pair::default();
    let _calls = [pair.call("a"), pair.call("b"), pair.call("c")];
    pair.drive();
    let bodies: Vec<_> = pair
        .server
        .requests
        .iter()
        .map(|(_, _, body)| body.clone())
        .collect();
    assert_eq!(bodies, [&b"a"[..], b"b", b"c"]);
}

#[test]
fn a_failure_reaches_its_call_and_the_connection_goes_on() {
    let mut pair = Pair::default();
    let mut call = pair.call("a");
    pair.drive();
    let failure = RpcFailure::new(ErrorType::Parse, "no such thing");
    let (ticket, ..) = pair.server.requests.pop_front().unwrap();
    pair.server.connection.fail(&ticket, &failure, pair.now);
    pair.drive();
    assert_eq!(
        outcome(&mut call),
        Err(CallError::Remote(Box::new(failure)))
    );
    assert_eq!(
        (
            pair.client.reason(),
            pair.client.connection.stats().calls_failed
        ),
        (None, 1)
    );
}

#[test]
fn a_response_to_nothing_ends_the_connection() {
    // golden/raw/raw_user: "RESPONSE with unknown coordination id -> EOF"
    let mut pair = Pair::default();
    let mut call = pair.call("a");
    pair.client
        .receive_frame(RpcMode::Response, 99, RESPONSE, pair.now);
    let unknown = ProtocolError::UnknownResponse {
        id: CoordinationId(99),
    };
    assert_eq!(outcome(&mut call), Err(CallError::Lost(unknown.into())));
}

#[test]
fn a_second_response_ends_the_connection() {
    let mut pair = Pair::default();
    let _call = pair.call("a");
    for _ in 0..2 {
        pair.client
            .receive_frame(RpcMode::Response, 2, RESPONSE, pair.now);
    }
    assert!(matches!(
        pair.client.reason(),
        Some(CloseReason::Protocol(_))
    ));
}

#[test]
fn a_failure_of_nothing_is_ignored() {
    let mut pair = Pair::default();
    pair.client
        .receive_frame(RpcMode::ResponseFailure, 99, 0, pair.now);
    assert_eq!(pair.client.reason(), None);
}

#[test]
fn a_failure_that_is_no_protobuf_fails_its_call_only() {
    let mut pair = Pair::default();
    let mut call = pair.call("a");
    let wire = [0x0c, 0x0a, 6, 8, 2, 0x10, 2, 0x18, 0, 0x12, 2, 0x0a, 9];
    pair.client.receive(&wire, pair.now);
    assert!(matches!(
        outcome(&mut call),
        Err(CallError::MalformedAnswer(_))
    ));
    assert_eq!(pair.client.reason(), None);
}

#[test]
fn a_failure_with_a_trace_of_empty_elements_is_not_decoded() {
    let mut pair = Pair::default();
    let mut call = pair.call("a");
    // Field `exception`, and within it nothing but elements of `stack_trace`.
    let trace = [0x1a, 0].repeat(100_000);
    let mut body = vec![0x2a];
    prost::encoding::encode_varint(trace.len() as u64, &mut body);
    body.extend(trace);
    let header = Header {
        coordination_id: CoordinationId(2),
        ..Header::bare(RpcMode::ResponseFailure)
    };
    let mut wire = Vec::new();
    encode(&header, &body, &[], &mut wire);
    pair.client.receive(&wire, pair.now);
    assert!(matches!(
        outcome(&mut call),
        Err(CallError::MalformedAnswer(BodyError::Weight { bytes, .. })) if bytes == body.len()
    ));
    assert_eq!(pair.client.reason(), None);
}

#[test]
fn a_late_answer_to_a_timed_out_call_is_dropped() {
    let mut pair = Pair::default();
    let (_, mut call) = pair.try_call("slow", Some(DEADLINE)).unwrap();
    pair.drive();
    pair.advance(DEADLINE);
    assert_eq!(outcome(&mut call), Err(CallError::Timeout(DEADLINE)));
    assert_eq!(pair.client.connection.stats().calls_in_flight, 1);
    pair.echo();
    pair.drive();
    let stats = pair.client.connection.stats();
    assert_eq!(
        (
            stats.late_answers,
            stats.calls_timed_out,
            stats.calls_in_flight
        ),
        (1, 1, 0)
    );
    assert_eq!(pair.client.reason(), None);
    assert!(pair.client.ledger.is_zero());
}

#[test]
fn a_late_answer_to_a_call_that_was_given_up_is_dropped() {
    let mut pair = Pair::default();
    let (id, _) = pair.try_call("slow", Some(DEADLINE)).unwrap();
    pair.drive();
    pair.client.connection.give_up(id);
    pair.advance(DEADLINE);
    pair.echo();
    pair.drive();
    let stats = pair.client.connection.stats();
    assert_eq!((stats.late_answers, stats.calls_timed_out), (1, 0));
    assert!(pair.client.ledger.is_zero());
}

#[test]
fn equal_ids_of_a_peer_are_both_answered() {
    // golden/raw/raw_user: "same coordination id twice" gets two responses
    let mut pair = Pair::default();
    for _ in 0..2 {
        pair.server
            .receive_frame(RpcMode::Request, 7, REQUEST, pair.now);
    }
    pair.echo();
    pair.echo();
    let wire = pair.server.send(pair.now);
    let ids: Vec<_> = crate::frame::Walk::new(&wire, 1024)
        .map(|frame| frame.unwrap().header.coordination_id.0)
        .collect();
    assert_eq!(ids, [7, 7]);
    assert!(pair.server.ledger.is_zero());
}

#[test]
fn the_end_of_a_connection_fails_every_call_at_once_and_leaves_nothing() {
    let mut pair = Pair::default();
    let mut calls: Vec<_> = (0..10).map(|_| pair.call("x")).collect();
    pair.drive();
    pair.echo();
    pair.drive();
    let reason = CloseReason::PeerClosed { mid_frame: false };
    pair.client.close(reason.clone(), pair.now);
    pair.server.close(reason.clone(), pair.now);
    assert_eq!(outcome(&mut calls[0]), Ok(Bytes::from_static(b"x")));
    for call in &mut calls[1..] {
        let error = outcome(call).unwrap_err();
        assert!(error.is_retryable());
        assert_eq!(error, CallError::Lost(reason.clone()));
    }
    // Handlers that answer now answer nobody.
    (0..9).for_each(|_| pair.echo());
    assert!(pair.server.send(pair.now).is_empty());
    assert!(pair.client.ledger.is_zero() && pair.server.ledger.is_zero());
    assert_eq!(
        pair.try_call("x", None).unwrap_err(),
        CallError::Lost(reason)
    );
}

#[test]
fn what_is_queued_is_still_sent_after_a_close_of_this_side() {
    let mut pair = Pair::default();
    let _call = pair.call("last words");
    pair.client.close(CloseReason::ClosedHere, pair.now);
    pair.drive();
    assert_eq!(pair.server.requests.len(), 1);
    pair.advance(Duration::from_secs(1));
    assert_eq!(pair.client.connection.poll_timeout(), None);
}
