//! Every limit of a connection, tripped.

use std::time::Duration;

use protos::{Call, calls::user::CancelQuery, error::ErrorType, rpc::RpcMode};

use super::pair::{Pair, REQUEST, outcome};
use crate::{
    error::{CallError, CloseReason},
    frame::{CoordinationId, DecodeError, FrameErrorKind, Header, encode},
    options::ConnectionOptions,
};

fn server(change: impl FnOnce(&mut ConnectionOptions)) -> Pair {
    let mut options = ConnectionOptions::user_server();
    change(&mut options);
    Pair::open_with(ConnectionOptions::user_client(), options)
}

fn frame(pbody_len: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    encode(
        &Header::bare(RpcMode::Request),
        &vec![0; pbody_len],
        &[],
        &mut wire,
    );
    wire
}

fn too_long(end: &super::pair::End) -> Option<usize> {
    match end.reason()? {
        CloseReason::Decode(DecodeError::Frame(error)) => match error.kind {
            FrameErrorKind::TooLong { expected_max, .. } => Some(expected_max),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn frames_before_the_handshake_are_limited_to_64_kib() {
    let mut pair = Pair::before_handshake();
    pair.server.receive(&frame(64 * 1024), pair.now);
    assert_eq!(too_long(&pair.server), Some(64 * 1024));
}

#[test]
fn frames_after_the_handshake_have_a_limit_of_their_own() {
    let mut pair = server(|options| options.frame_bytes_max = 100_000);
    let mut request = Vec::new();
    let header = Header {
        rpc_type: REQUEST,
        ..Header::bare(RpcMode::Request)
    };
    encode(&header, &vec![0; 90_000], &[], &mut request);
    pair.server.receive(&request, pair.now);
    assert_eq!(
        (pair.server.requests.len(), pair.server.reason()),
        (1, None)
    );
    pair.server.receive(&frame(100_000), pair.now);
    assert_eq!(too_long(&pair.server), Some(100_000));
}

#[test]
fn pings_beyond_any_measure_wait_to_be_read() {
    let mut pair = server(|_| {});
    let pings = [12, 10, 6, 8, 3, 16, 0, 24, 0, 18, 2, 8, 1].repeat(1000);
    while !pair.server.connection.reading_is_paused() {
        pair.server.receive(&pings, pair.now);
        pair.server.send(pair.now);
        let received = pair.server.connection.stats().pings_received;
        assert!(received <= 102_000, "{received}");
    }
    let due = pair.server.connection.poll_timeout().unwrap();
    assert!(due <= pair.now + Duration::from_millis(10));
    pair.server.timeout(due);
    assert!(!pair.server.connection.reading_is_paused());
    assert_eq!(pair.server.reason(), None);
}

#[test]
fn cancels_beyond_any_measure_wait_to_be_read() {
    let mut pair = server(|_| {});
    let mut cancel = Vec::new();
    let header = Header {
        mode: RpcMode::Request,
        coordination_id: CoordinationId(7),
        rpc_type: CancelQuery::REQUEST,
    };
    encode(&header, &[], &[], &mut cancel);
    let cancels = cancel.repeat(1000);
    while !pair.server.connection.reading_is_paused() {
        pair.server.receive(&cancels, pair.now);
        pair.server.send(pair.now);
        let received = pair.server.connection.stats().requests_received;
        assert!(received <= 12_000, "{received}");
    }
    let due = pair.server.connection.poll_timeout().unwrap();
    assert!(due <= pair.now + Duration::from_millis(100));
    pair.server.timeout(due);
    assert!(!pair.server.connection.reading_is_paused());
    assert_eq!(pair.server.reason(), None);
}

#[test]
fn requests_with_an_order_may_come_as_fast_as_they_like() {
    let mut pair = server(|options| options.requests_in_flight_max = 1);
    let (now, requests) = (pair.now, 20_000);
    for id in 1..=requests {
        pair.server
            .receive_frame(RpcMode::Request, id, REQUEST, now);
        pair.server.send(now);
    }
    assert!(!pair.server.connection.reading_is_paused());
    assert_eq!(pair.server.connection.stats().requests_received, 20_000);
}

#[test]
fn one_request_too_many_fails_at_once_and_the_others_are_answered() {
    let mut pair = server(|options| options.requests_in_flight_max = 2);
    let mut calls = [pair.call("a"), pair.call("b"), pair.call("c")];
    pair.drive();
    let Err(CallError::Remote(failure)) = outcome(&mut calls[2]) else {
        panic!("not refused")
    };
    assert_eq!(failure.error.error_type(), ErrorType::Resource);
    pair.echo();
    pair.echo();
    pair.drive();
    assert!(outcome(&mut calls[0]).is_ok() && outcome(&mut calls[1]).is_ok());
    let mut next = pair.call("d");
    pair.drive();
    pair.echo();
    pair.drive();
    assert!(outcome(&mut next).is_ok());
    assert_eq!(pair.server.connection.stats().requests_refused, 1);
    assert!(pair.server.ledger.is_zero());
}

#[test]
fn one_call_too_many_is_refused_here_and_given_up_calls_count() {
    let client = ConnectionOptions {
        calls_in_flight_max: 2,
        ..ConnectionOptions::user_client()
    };
    let mut pair = Pair::open_with(client, ConnectionOptions::user_server());
    let (given_up, _) = pair.try_call("a", None).unwrap();
    pair.client.connection.give_up(given_up);
    let _second = pair.call("b");
    let refused = pair.try_call("c", None).unwrap_err();
    assert_eq!(refused, CallError::TooManyCalls { calls_max: 2 });
    assert!(refused.is_retryable());
    pair.drive();
    pair.echo();
    pair.drive();
    assert!(pair.try_call("c", None).is_ok());
}

#[test]
fn a_peer_that_pings_without_reading_is_closed() {
    let mut pair = server(|options| options.reply_queue_bytes_max = 1000);
    for _ in 0..100 {
        pair.server.receive_frame(RpcMode::Ping, 0, 0, pair.now);
    }
    let reason = pair.server.reason().cloned();
    assert!(
        matches!(
            reason,
            Some(CloseReason::RepliesNotRead {
                bytes: 1001..=1013,
                bytes_max: 1000
            })
        ),
        "{reason:?}"
    );
    assert!(pair.server.send(pair.now).is_empty());
}

#[test]
fn a_peer_that_reads_may_ping_as_often_as_it_likes() {
    let mut pair = server(|options| options.reply_queue_bytes_max = 1000);
    for _ in 0..10_000 {
        pair.server.receive_frame(RpcMode::Ping, 0, 0, pair.now);
        assert_eq!(pair.server.send(pair.now).len(), 13);
    }
    assert_eq!(pair.server.reason(), None);
}

#[test]
fn a_peer_that_makes_requests_without_reading_is_closed() {
    let mut pair = server(|options| options.reply_queue_bytes_max = 1000);
    for id in 1..200 {
        pair.server.receive_frame(RpcMode::Request, id, 3, pair.now);
        if pair.server.reason().is_none() {
            pair.echo();
        }
    }
    assert!(matches!(
        pair.server.reason(),
        Some(CloseReason::RepliesNotRead { .. })
    ));
    assert!(pair.server.ledger.is_zero());
}

#[test]
fn replies_to_a_peer_that_has_fallen_silent_are_charged_and_bounded() {
    let mut pair = server(|options| options.reply_queue_bytes_max = 100_000);
    for id in 1..=20 {
        pair.server.receive_frame(RpcMode::Request, id, 3, pair.now);
    }
    let tickets: Vec<_> = pair.server.requests.drain(..).collect();
    let mut charged = 0;
    for (ticket, ..) in tickets {
        let answer = (bytes::Bytes::from(vec![0; 20_000]), Vec::new());
        let connection = &mut pair.server.connection;
        connection.respond(&ticket, 4, answer, pair.now);
        charged = charged.max(pair.server.ledger.used(crate::ledger::Kind::Bytes));
    }
    // Nothing more has come from it.
    assert!(matches!(
        pair.server.reason(),
        Some(CloseReason::RepliesNotRead {
            bytes: 100_000..=120_200,
            ..
        })
    ));
    assert!(charged > 90_000, "{charged}");
    assert!(pair.server.ledger.is_zero());
}

#[test]
fn a_peer_that_is_not_let_in_yet_is_owed_little() {
    let mut pair = Pair::before_handshake();
    let hello = bytes::Bytes::new();
    pair.server
        .receive_frame(RpcMode::Request, 0, crate::connection::HANDSHAKE, pair.now);
    pair.server.connection.authenticate(hello);
    for id in 1..100_000 {
        pair.server.receive_frame(RpcMode::Request, id, 3, pair.now);
    }
    let reason = pair.server.reason().cloned();
    let bounded = matches!(
        reason,
        Some(CloseReason::RepliesNotRead {
            bytes_max: 65_536,
            ..
        })
    );
    assert!(bounded, "{reason:?}");
}

#[test]
fn a_spent_budget_of_calls_refuses_both_ways() {
    use crate::ledger::{Kind, Ledger, Limits};
    let ledger = Ledger::root(
        "plane",
        Limits {
            calls: Some(0),
            ..Limits::default()
        },
    );
    assert!(ledger.charge(Kind::Calls, 1).is_err());
    let mut connection = crate::connection::Connection::server(
        protos::Plane::Data,
        ConnectionOptions::bit_server(),
        &ledger,
        std::time::Instant::now(),
    );
    let (completion, _outcome) = tokio::sync::oneshot::channel();
    let request = crate::connection::Outgoing {
        rpc_type: REQUEST,
        pbody: bytes::Bytes::new().into(),
        dbody: Vec::new(),
        stream: crate::lanes::StreamKey(0),
        room: crate::link::Room::default(),
        began: std::time::Instant::now(),
    };
    assert!(matches!(
        connection.call(request, None, completion),
        Err(CallError::Budget(_))
    ));
}
