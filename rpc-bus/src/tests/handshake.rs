//! Before a connection is open, and its end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use protos::{Plane, rpc::RpcMode};
use tokio::sync::oneshot;

use super::pair::{HELLO, Pair, REQUEST, outcome};
use crate::{
    connection::{Connection, Event, IdleTimeout, Response, Stage},
    error::{CallError, CloseReason, ProtocolError},
    frame::{CoordinationId, Frame, Header},
    ledger::{Ledger, Limits},
    options::ConnectionOptions,
};

#[test]
fn both_sides_are_open_after_one_round_trip() {
    let mut pair = Pair::before_handshake();
    pair.drive();
    assert_eq!(pair.server.hellos, [HELLO]);
    pair.server
        .connection
        .open(Bytes::from_static(b"welcome"), IdleTimeout::Keep);
    pair.drive();
    assert_eq!(outcome(&mut pair.hello), Ok(Bytes::from_static(b"welcome")));
    let mut call = pair.call("first");
    pair.drive();
    // The handshake took id 1.
    assert_eq!(pair.server.requests[0].0.id.0, 2);
    pair.echo();
    pair.drive();
    assert_eq!(outcome(&mut call), Ok(Bytes::from_static(b"first")));
}

#[test]
fn what_is_shown_of_a_connection_has_no_body_in_it() {
    // The text of them, and the numbers of their bytes.
    let secrets = ["secret", "115, 101, 99, 114, 101, 116"];
    let assert_hidden = |shown: String| {
        let leaks = secrets.iter().any(|secret| shown.contains(secret));
        assert!(!leaks && shown.contains("bytes"), "{shown}");
    };
    let (hello, ledger) = (
        Bytes::from_static(b"secret"),
        Ledger::root("test", Limits::default()),
    );
    let (now, completion) = (Instant::now(), oneshot::channel().0);
    let options = ConnectionOptions::user_client();
    let (of_client, of_hello) = (options.clone(), hello.clone());
    let client = Connection::client(Plane::User, of_client, of_hello, completion, &ledger, now);
    assert_hidden(format!("{client:?}"));
    let frame = Frame {
        header: Header {
            mode: RpcMode::Request,
            coordination_id: CoordinationId(1),
            rpc_type: 0,
        },
        pbody: hello.clone(),
        dbody: hello.clone(),
    };
    assert_hidden(format!("{frame:?}"));
    let mut server = Connection::server(Plane::User, options, &ledger, now);
    server.handle_frame(frame, now);
    assert_hidden(format!("{server:?}"));
    let outcome = Event::Outcome(
        oneshot::channel().0,
        Ok(Response {
            rpc_type: 0,
            pbody: hello.clone(),
            dbody: hello,
        }),
    );
    assert_hidden(format!("{outcome:?}"));
}

#[test]
fn a_refused_handshake_is_answered_and_then_closed() {
    let mut pair = Pair::before_handshake();
    pair.drive();
    let reason = "version 4".to_owned();
    pair.server
        .connection
        .refuse(Some(Bytes::from_static(b"no")), reason.clone(), pair.now);
    assert_eq!(pair.server.connection.stage(), Stage::Lingering);
    pair.drive();
    assert_eq!(outcome(&mut pair.hello), Ok(Bytes::from_static(b"no")));
    assert_eq!(
        pair.server.reason(),
        Some(&CloseReason::HandshakeRefused { reason })
    );
    pair.advance(Duration::from_secs(1));
    assert_eq!(pair.server.connection.stage(), Stage::Over);
}

#[test]
fn requests_sent_behind_the_handshake_wait_for_the_verdict() {
    let mut pair = Pair::before_handshake();
    pair.drive();
    pair.server
        .receive_frame(RpcMode::Request, 2, REQUEST, pair.now);
    assert_eq!(
        (pair.server.requests.len(), pair.server.reason()),
        (1, None)
    );
}

#[test]
fn nothing_is_sent_before_the_answer_to_the_handshake() {
    let mut pair = Pair::before_handshake();
    pair.drive();
    let (completion, _pinged) = oneshot::channel();
    pair.server.connection.ping(completion, pair.now);
    assert!(pair.server.send(pair.now).is_empty());
    pair.server.connection.open(Bytes::new(), IdleTimeout::Keep);
    let wire = pair.server.send(pair.now);
    let modes: Vec<_> = crate::frame::Walk::new(&wire, 1024)
        .map(|frame| frame.unwrap().header.mode)
        .collect();
    assert_eq!(modes, [RpcMode::Response, RpcMode::Ping]);
}

#[test]
fn a_server_that_closes_before_its_verdict_says_nothing() {
    let mut pair = Pair::before_handshake();
    pair.drive();
    let (completion, _pinged) = oneshot::channel();
    pair.server.connection.ping(completion, pair.now);
    pair.server.close(CloseReason::ClosedHere, pair.now);
    assert!(pair.server.send(pair.now).is_empty());
}

#[test]
fn a_handshake_of_any_mode_is_taken() {
    // wire: Drill compares the type only
    let mut pair = Pair::before_handshake();
    pair.server.receive_frame(RpcMode::Response, 1, 0, pair.now);
    assert_eq!(pair.server.hellos.len(), 1);
}

#[test]
fn a_heartbeat_before_the_handshake_ends_the_connection() {
    let reason = CloseReason::Protocol(ProtocolError::HeartbeatBeforeHandshake);
    let mut pair = Pair::before_handshake();
    pair.server.receive_frame(RpcMode::Ping, 0, 0, pair.now);
    assert_eq!(pair.server.reason(), Some(&reason));
    let mut pair = Pair::before_handshake();
    pair.drive();
    pair.server.receive_frame(RpcMode::Ping, 0, 0, pair.now);
    assert_eq!(pair.server.reason(), Some(&reason));
    let mut pair = Pair::before_handshake();
    pair.client.receive_frame(RpcMode::Pong, 0, 0, pair.now);
    assert_eq!(pair.client.reason(), Some(&reason));
}

#[test]
fn the_first_message_must_be_the_handshake() {
    let mut pair = Pair::before_handshake();
    pair.server.receive_frame(RpcMode::Request, 1, 3, pair.now);
    let reason = CloseReason::Protocol(ProtocolError::NotAHandshake { actual: 3 });
    assert_eq!(pair.server.reason(), Some(&reason));
}

#[test]
fn a_failure_in_place_of_the_handshake_reply_ends_the_connection() {
    let mut pair = Pair::before_handshake();
    pair.client
        .receive_frame(RpcMode::ResponseFailure, 1, 0, pair.now);
    let reason = CloseReason::Protocol(ProtocolError::HandshakeFailed);
    assert_eq!(outcome(&mut pair.hello), Err(CallError::Lost(reason)));
}

#[test]
fn a_second_handshake_ends_the_connection() {
    // golden/raw/raw_user: "second HANDSHAKE -> EOF"
    let mut pair = Pair::default();
    pair.server.receive_frame(RpcMode::Request, 9, 0, pair.now);
    let reason = CloseReason::Protocol(ProtocolError::DuplicateHandshake);
    assert_eq!(pair.server.reason(), Some(&reason));
}

#[test]
fn silence_before_the_handshake_ends_the_connection_on_both_sides() {
    let mut pair = Pair::before_handshake();
    pair.cut();
    pair.advance(Duration::from_millis(9_999));
    assert_eq!((pair.client.reason(), pair.server.reason()), (None, None));
    pair.advance(Duration::from_millis(1));
    let reason = CloseReason::HandshakeTimeout(Duration::from_secs(10));
    assert_eq!(pair.server.reason(), Some(&reason));
    assert_eq!(outcome(&mut pair.hello), Err(CallError::Lost(reason)));
}

#[test]
fn an_acceptor_that_takes_too_long_ends_the_connection() {
    let mut pair = Pair::before_handshake();
    pair.drive();
    pair.advance(Duration::from_secs(10));
    assert!(matches!(
        pair.server.reason(),
        Some(CloseReason::HandshakeTimeout(_))
    ));
}

#[test]
fn goodbye_ends_the_connection_cleanly() {
    let mut pair = Pair::default();
    pair.server.receive_frame(RpcMode::Request, 2, 2, pair.now);
    assert_eq!(pair.server.reason(), Some(&CloseReason::Goodbye));
}

#[test]
fn only_the_first_reason_counts() {
    let mut pair = Pair::default();
    pair.client.close(CloseReason::ClosedHere, pair.now);
    pair.client.close(CloseReason::Aborted, pair.now);
    assert_eq!(pair.client.reason(), Some(&CloseReason::ClosedHere));
}
