//! Bytes that no peer should send, over real sockets, against a node in a process of its own: each
//! ends in a clear outcome, and the node goes on serving others in bounded memory.

use std::time::Duration;

use drillbit::node::NodeOptions;
use prost::Message;
use protos::rpc::RpcMode;
use protos::shared::{DrillPbError, QueryId};
use protos::user::RpcType;
use tests::data;
use tests::node::Node;
use tests::peer::{
    self, Peer, RawFrame, ack, frame, prefixed, put_part, put_varint, request, run_query,
};

use crate::nodes::{NODE, node};

/// A bad connection is closed at once, not by a timeout; the slack is for a busy machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
const MIB: usize = 1024 * 1024;

/// What must become of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Closed, without an answer or after one.
    Closed,
    /// `RESPONSE_FAILURE` for coordination id 2, and the connection goes on.
    Refused,
    /// The query with coordination id 2 is answered.
    Served,
}

#[test]
fn bytes_before_the_handshake() {
    let cases: [(&str, Vec<u8>); 14] = [
        (
            "HTTP",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        (
            "a TLS hello",
            [
                &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc][..],
                &[0x5a; 508],
            ]
            .concat(),
        ),
        ("zeros", vec![0; 64]),
        ("a frame of length 0", vec![0x00]),
        ("a frame of length -1", vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        (
            "a length of six bytes",
            vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
        ),
        ("a frame of 64 KiB and one byte", length_only(64 * 1024 + 1)),
        ("a frame of 2 GiB", length_only(i32::MAX as usize)),
        ("a query", run_query(1, "select 1 from (values(1))")),
        ("a cancel", request(1, RpcType::CancelQuery as i32, &[])),
        (
            "a response",
            frame(
                RpcMode::Response,
                1,
                RpcType::Ack as i32,
                &[0x08, 0x01],
                &[],
            ),
        ),
        (
            "a handshake that is no message",
            request(1, RpcType::Handshake as i32, &[0xff; 16]),
        ),
        (
            "a handshake of another version",
            request(1, 0, &peer::hello(4).encode_to_vec()),
        ),
        (
            "a mode that does not exist",
            prefixed(&parts(&[0x08, 0x09, 0x10, 0x01, 0x18, 0x00], &[], None)),
        ),
    ];
    for (what, bytes) in cases {
        let mut peer = Peer::connect(node().user()).unwrap();
        peer.send(&bytes).unwrap();
        peer.closed_within(CLOSED_WITHIN)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        still_serves(node());
    }
}

#[test]
fn frames_that_are_damaged() {
    let header = [0x08, 0x00, 0x10, 0x02, 0x18, 0x03];
    let query = protos::user::RunQuery {
        plan: Some(SELECT.to_owned()),
        ..Default::default()
    }
    .encode_to_vec();
    let whole = parts(&header, &query, None);
    let cases: [(&str, Vec<u8>); 12] = [
        ("a frame of length 0", vec![0x00]),
        ("a frame of length -1", vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        (
            "a length of six bytes",
            vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
        ),
        ("a frame above 16 MiB", length_only(16 * MIB + 1)),
        ("a frame of 2 GiB", length_only(i32::MAX as usize)),
        (
            "the body before the header",
            prefixed(&[&whole[8..], &whole[..8]].concat()),
        ),
        ("no body at all", prefixed(&whole[..8])),
        (
            "a header longer than its frame",
            prefixed(&[0x0a, 0x7f, 0x08, 0x00]),
        ),
        (
            "a raw body longer than its frame",
            prefixed(&[&whole[..], &[0x1a, 0x05, 0x01]].concat()),
        ),
        (
            "bytes behind the raw body",
            prefixed(&[&whole[..], &[0x1a, 0x01, 0x01, 0x01]].concat()),
        ),
        (
            "a field that no frame has",
            prefixed(&[&whole[..], &[0x22, 0x01, 0x01]].concat()),
        ),
        (
            "garbage",
            (0..4096_u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect(),
        ),
    ];
    for (what, bytes) in cases {
        assert_eq!(after_handshake(&bytes), Outcome::Closed, "{what}");
        still_serves(node());
    }
}

#[test]
fn requests_that_cannot_be_served() {
    let mut cases = vec![
        (
            "a type that does not exist",
            request(2, 99, &[]),
            Outcome::Refused,
        ),
        (
            "a query that is no message",
            request(2, RpcType::RunQuery as i32, &[0xff; 8]),
            Outcome::Refused,
        ),
        (
            "a second handshake",
            request(2, 0, &peer::hello(5).encode_to_vec()),
            Outcome::Closed,
        ),
        (
            "a statement above 1 MiB",
            run_query(2, &"x".repeat(MIB + 1)),
            Outcome::Refused,
        ),
    ];
    for refused in [
        RpcType::RequestResults,
        RpcType::QueryData,
        RpcType::QueryResult,
        RpcType::GetQueryPlanFragments,
        RpcType::GetCatalogs,
        RpcType::GetSchemas,
        RpcType::GetTables,
        RpcType::GetColumns,
        RpcType::CreatePreparedStatement,
        RpcType::SaslMessage,
    ] {
        cases.push((
            refused.as_str_name(),
            request(2, refused as i32, &[]),
            Outcome::Refused,
        ));
    }
    for (what, bytes, outcome) in cases {
        assert_eq!(after_handshake(&bytes), outcome, "{what}");
    }
    still_serves(node());
}

#[test]
fn a_refusal_names_what_was_refused() {
    let mut peer = Peer::open(node().user()).unwrap();
    peer.send(&request(2, RpcType::GetTables as i32, &[]))
        .unwrap();
    let refusal = peer.message().unwrap();
    let error = DrillPbError::decode(refusal.pbody).unwrap();
    assert!(
        error.message().contains("GET_TABLES"),
        "{}",
        error.message()
    );
    assert_eq!(error.error_id().len(), 36);
}

#[test]
fn answers_that_nobody_waits_for_end_the_connection() {
    let ok = [0x08, 0x01];
    for (what, answer) in [
        (
            "an unknown id",
            frame(RpcMode::Response, 77, RpcType::Ack as i32, &ok, &[]),
        ),
        (
            "a type that is no answer",
            frame(RpcMode::Response, 77, RpcType::RunQuery as i32, &ok, &[]),
        ),
    ] {
        assert_eq!(after_handshake(&answer), Outcome::Closed, "{what}");
    }
    // golden/raw: Drill ignores a failure of a call that it does not know.
    let unknown = frame(RpcMode::ResponseFailure, 77, 0, &[], &[]);
    assert_eq!(
        after_handshake(&[unknown, run_query(2, SELECT)].concat()),
        Outcome::Served
    );
    still_serves(node());
}

#[test]
fn odd_but_lawful_frames_are_served() {
    let query = protos::user::RunQuery {
        plan: Some(SELECT.to_owned()),
        ..Default::default()
    }
    .encode_to_vec();
    // golden/raw/raw_user.user17, user18 and user20: Drill serves these.
    for (what, header) in [
        ("no mode", vec![0x10, 0x02, 0x18, 0x03]),
        ("another order", vec![0x18, 0x03, 0x10, 0x02, 0x08, 0x00]),
        (
            "an unknown field",
            vec![0x08, 0x00, 0x10, 0x02, 0x18, 0x03, 0x50, 0x01],
        ),
    ] {
        assert_eq!(
            after_handshake(&prefixed(&parts(&header, &query, None))),
            Outcome::Served,
            "{what}"
        );
    }
    let raw = prefixed(&parts(
        &[0x08, 0x00, 0x10, 0x02, 0x18, 0x03],
        &query,
        Some(&[1, 2, 3]),
    ));
    assert_eq!(
        after_handshake(&raw),
        Outcome::Served,
        "a raw body that nobody asked for"
    );
}

#[test]
fn a_query_sent_byte_by_byte_is_served() {
    let mut peer = Peer::open(node().user()).unwrap();
    for byte in run_query(2, SELECT) {
        peer.send(&[byte]).unwrap();
    }
    assert_eq!(outcome(&mut peer), Outcome::Served);
}

#[test]
fn a_frame_cut_off_by_the_end_of_the_connection_hurts_nobody() {
    let query = run_query(2, SELECT);
    for cut in [1, query.len() / 2, query.len() - 1] {
        let mut peer = Peer::open(node().user()).unwrap();
        peer.send(&query[..cut]).unwrap();
        peer.finish().unwrap();
        peer.closed_within(CLOSED_WITHIN).unwrap();
    }
    still_serves(node());
}

#[test]
fn pings_are_answered_whatever_they_carry() {
    let mut peer = Peer::open(node().user()).unwrap();
    // golden/raw/raw_user: the C++ client sends another type, and nothing of it matters.
    for ping in [
        frame(RpcMode::Ping, 0, 0, &[0x08, 0x01], &[]),
        frame(RpcMode::Ping, 9, 7, &[], &[]),
    ] {
        peer.send(&ping).unwrap();
        let pong = peer.frame().unwrap().unwrap();
        assert_eq!(
            (pong.mode, pong.coordination_id, &pong.pbody[..]),
            (RpcMode::Pong as i32, 0, &[0x08, 0x01][..])
        );
    }
}

#[test]
fn a_cancel_of_an_unknown_query_is_acknowledged() {
    let mut peer = Peer::open(node().user()).unwrap();
    let unknown = QueryId {
        part1: Some(1),
        part2: Some(2),
    };
    peer.send(&request(
        2,
        RpcType::CancelQuery as i32,
        &unknown.encode_to_vec(),
    ))
    .unwrap();
    let answer = peer.message().unwrap();
    assert_eq!(
        (answer.mode, answer.rpc_type, &answer.pbody[..]),
        (
            RpcMode::Response as i32,
            RpcType::Ack as i32,
            &[0x08, 0x01][..]
        )
    );
}

#[test]
fn a_client_that_never_acknowledges_gets_eight_batches_and_no_more() {
    let mut peer = Peer::open(node().user()).unwrap();
    let million = data::million().unwrap();
    peer.send(&run_query(
        2,
        &format!("select * from dfs.`{}`", million.display()),
    ))
    .unwrap();
    let mut unacknowledged = Vec::new();
    while let Ok(Some(frame)) = peer.frame_within(Duration::from_secs(2)) {
        if frame.rpc_type == RpcType::QueryData as i32 {
            unacknowledged.push(frame.coordination_id);
        }
    }
    assert_eq!(unacknowledged.len(), 8);
    // One acknowledgement lets one more out.
    peer.send(&ack(unacknowledged[0])).unwrap();
    assert_eq!(peer.message().unwrap().rpc_type, RpcType::QueryData as i32);
    assert!(peer.frame_within(Duration::from_millis(500)).is_err());
}

#[test]
fn memory_stays_bounded_whatever_peers_announce_and_hold_back() {
    let node = Node::start(NODE).unwrap();
    still_serves(&node);
    let before = node.resident_bytes().unwrap();
    let mut held = Vec::new();
    for _ in 0..200 {
        // Just within the limit, and then nothing but a little of it.
        let mut peer = Peer::open(node.user()).unwrap();
        peer.send(&[length_only(16 * MIB - 1), vec![0x0a, 0x06, 0x08, 0x00]].concat())
            .unwrap();
        held.push(peer);
    }
    for _ in 0..20 {
        // Requests without end, whose answers nobody reads.
        let mut peer = Peer::open(node.user()).unwrap();
        let meta = request(2, RpcType::GetServerMeta as i32, &[]).repeat(2000);
        // The node may close a connection that it owes too much.
        let _ = peer.send(&meta);
        held.push(peer);
    }
    still_serves(&node);
    let grown = node.resident_bytes().unwrap().saturating_sub(before);
    assert!(grown < 100 * MIB as u64, "grown by {grown} bytes");
}

#[test]
fn silence_before_the_handshake_ends_the_connection() {
    let mut options = NodeOptions {
        user_addr: ([127, 0, 0, 1], 0).into(),
        ..NodeOptions::default()
    };
    options.user_server.connections.connection.handshake_timeout = Duration::from_millis(200);
    let node = drillbit::node::Node::start(&options).unwrap();
    let hello = request(1, 0, &peer::hello(5).encode_to_vec());
    for said in [
        &[][..],
        &hello[..1],
        &hello[..hello.len() / 2],
        &hello[..hello.len() - 1],
    ] {
        let mut peer = Peer::connect(node.user_addr()).unwrap();
        peer.send(said).unwrap();
        peer.closed_within(CLOSED_WITHIN).unwrap();
    }
    // Whoever shakes hands in time stays.
    let mut peer = Peer::open(node.user_addr()).unwrap();
    assert!(
        peer.closed_within(Duration::from_millis(400)).is_err(),
        "closed"
    );
    node.shutdown(Duration::ZERO);
}

const SELECT: &str = "select 1 from (values(1))";

/// Opens a connection, sends `bytes`, and tells what became of it.
fn after_handshake(bytes: &[u8]) -> Outcome {
    let mut peer = Peer::open(node().user()).unwrap();
    // Fails where the node has closed already, which is what the test is about.
    let _ = peer.send(bytes);
    let found = outcome(&mut peer);
    if found == Outcome::Refused {
        peer.send(&run_query(2, SELECT)).unwrap();
        assert_eq!(outcome(&mut peer), Outcome::Served, "after a refusal");
    }
    found
}

fn outcome(peer: &mut Peer) -> Outcome {
    let answer: Option<RawFrame> = peer.frame_within(CLOSED_WITHIN).unwrap();
    match answer {
        None => Outcome::Closed,
        Some(frame) if frame.coordination_id != 2 => panic!("answered {frame:?}"),
        Some(frame) if frame.mode == RpcMode::ResponseFailure as i32 => Outcome::Refused,
        Some(_) => finish_query(peer),
    }
}

/// Reads the rest of a query's answer; every batch is acknowledged.
fn finish_query(peer: &mut Peer) -> Outcome {
    loop {
        let frame = peer.message().unwrap();
        peer.send(&ack(frame.coordination_id)).unwrap();
        if frame.rpc_type == RpcType::QueryResult as i32 {
            return Outcome::Served;
        }
    }
}

fn still_serves(node: &Node) {
    let mut peer = Peer::open(node.user()).unwrap();
    peer.send(&run_query(2, SELECT)).unwrap();
    assert_eq!(outcome(&mut peer), Outcome::Served);
}

/// The length prefix of a frame, and nothing of the frame.
fn length_only(length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, length as u64);
    bytes
}

/// The inside of a frame.
fn parts(header: &[u8], pbody: &[u8], raw: Option<&[u8]>) -> Vec<u8> {
    let mut body = Vec::new();
    put_part(&mut body, 0x0a, header);
    put_part(&mut body, 0x12, pbody);
    if let Some(raw) = raw {
        put_part(&mut body, 0x1a, raw);
    }
    body
}
