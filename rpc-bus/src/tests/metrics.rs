//! What a conversation leaves in the counters.

use std::time::Duration;

use protos::{Plane, error::ErrorType, rpc::RpcMode};

use super::pair::{End, Pair, REQUEST};
use crate::{
    error::{CloseReason, RpcFailure},
    metrics::{InboundRpc, OutboundRpc, RpcCounts},
    options::ConnectionOptions,
};

const MS: Duration = Duration::from_millis(1);

fn inbound(end: &End) -> Vec<InboundRpc> {
    end.connection.counters().rpcs.inbound(Plane::User)
}

fn outbound(end: &End) -> OutboundRpc {
    let all = end.connection.counters().rpcs.outbound(Plane::User);
    all.into_iter().next().unwrap()
}

/// The kinds of ends that occurred.
fn ended(counts: &RpcCounts) -> Vec<(&'static str, u64)> {
    let ended = counts.ended.iter().copied();
    ended.filter(|(_, count)| *count > 0).collect()
}

fn close_both(pair: &mut Pair) {
    let reason = CloseReason::PeerClosed { mid_frame: false };
    pair.client.close(reason.clone(), pair.now);
    pair.server.close(reason, pair.now);
}

#[test]
fn every_call_ends_in_one_kind() {
    let mut pair = Pair::default();
    let _answered = pair.call("answered");
    let _failed = pair.call("failed");
    let (given_up, _) = pair.try_call("given up", None).unwrap();
    let _timed_out = pair.try_call("timed out", Some(5 * MS)).unwrap();
    let _lost = pair.call("lost");
    assert_eq!(outbound(&pair.client).counts.in_flight, 5);
    pair.drive();
    pair.echo();
    let (ticket, ..) = pair.server.requests.pop_front().unwrap();
    let no = RpcFailure::new(ErrorType::System, "no");
    pair.server.connection.fail(&ticket, &no, pair.now);
    // A second time, as when its handle goes, is not counted again.
    pair.client.connection.give_up(given_up);
    pair.client.connection.give_up(given_up);
    pair.drive();
    pair.advance(6 * MS);
    let counts = outbound(&pair.client).counts;
    assert_eq!((counts.requests, counts.in_flight), (5, 1));
    close_both(&mut pair);
    let counts = outbound(&pair.client).counts;
    let expected = ["answered", "failed", "timed_out", "given_up", "lost"];
    assert_eq!(ended(&counts), expected.map(|kind| (kind, 1)));
    assert_eq!(
        counts.request_bytes,
        "answeredfailedgiven uptimed outlost".len() as u64
    );
    assert_eq!(counts.answer_bytes, "answered".len() as u64);
    let [requests] = &inbound(&pair.server)[..] else {
        panic!("one type")
    };
    assert_eq!(
        ended(&requests.counts),
        [("answered", 1), ("failed", 1), ("lost", 3)]
    );
    pair.assert_all_requests_counted();
}

#[test]
fn times_are_those_of_queue_handler_and_round_trip() {
    let mut pair = Pair::default();
    let _call = pair.call("x");
    pair.now += 2 * MS;
    pair.drive();
    let (ticket, rpc_type, body) = pair.server.requests.pop_front().unwrap();
    let ticket = ticket.started(pair.now + 4 * MS);
    pair.server.requests.push_front((ticket, rpc_type, body));
    pair.now += 20 * MS;
    pair.echo();
    pair.drive();
    let [served] = &inbound(&pair.server)[..] else {
        panic!("one type")
    };
    let near = |sum: f64, ms: f64| (sum * 1e3 - ms).abs() < 1e-6;
    assert!(near(served.queue_time.sum_s, 4.0), "{served:?}");
    assert!(near(served.handler_time.sum_s, 16.0), "{served:?}");
    let call = outbound(&pair.client);
    assert!(near(call.round_trip.sum_s, 22.0), "{call:?}");
    assert_eq!((call.round_trip.count, call.room_wait.count), (1, 0));
}

#[test]
fn requests_over_the_limit_are_counted_as_refused() {
    let server = ConnectionOptions {
        requests_in_flight_max: 1,
        ..ConnectionOptions::user_server()
    };
    let mut pair = Pair::open_with(ConnectionOptions::user_client(), server);
    let _calls = [pair.call("a"), pair.call("b"), pair.call("c")];
    pair.drive();
    let [requests] = &inbound(&pair.server)[..] else {
        panic!("one type")
    };
    assert_eq!(ended(&requests.counts), [("refused", 2)]);
    assert_eq!(
        (requests.counts.in_flight, requests.queue_time.count),
        (1, 0)
    );
    let calls = outbound(&pair.client).counts;
    assert_eq!((ended(&calls), calls.in_flight), (vec![("failed", 2)], 1));
}

#[test]
fn calls_over_a_limit_of_this_side_are_counted_by_it() {
    let client = ConnectionOptions {
        calls_in_flight_max: 1,
        ..ConnectionOptions::user_client()
    };
    let mut pair = Pair::open_with(client, ConnectionOptions::user_server());
    let _call = pair.call("a");
    assert!(pair.try_call("b", None).is_err());
    let calls = outbound(&pair.client).counts;
    assert_eq!(
        (ended(&calls), calls.in_flight),
        (vec![("too_many_calls", 1)], 1)
    );
}

#[test]
fn types_outside_of_the_table_share_one_place() {
    let mut pair = Pair::default();
    for rpc_type in [REQUEST, 900, -1, i32::MAX, i32::MIN, 2_000, REQUEST] {
        pair.server
            .receive_frame(RpcMode::Request, 7, rpc_type, pair.now);
    }
    let found = inbound(&pair.server).into_iter().map(|rpc| rpc.counts);
    let found: Vec<_> = found.map(|c| (c.name, c.rpc_type, c.requests)).collect();
    assert_eq!(
        found,
        [("QUERY_DATA", Some(REQUEST), 2), ("unknown", None, 5)]
    );
}

#[test]
fn what_comes_after_the_end_changes_nothing() {
    let mut pair = Pair::default();
    let (id, _) = pair.try_call("x", None).unwrap();
    pair.drive();
    close_both(&mut pair);
    pair.echo();
    pair.client.connection.give_up(id);
    assert!(pair.try_call("y", None).is_err());
    assert_eq!(ended(&outbound(&pair.client).counts), [("lost", 1)]);
    pair.assert_all_requests_counted();
}

#[test]
fn the_longest_queues_are_remembered() {
    let mut pair = Pair::default();
    let _calls = [pair.call("a"), pair.call("b")];
    let queued = pair.client.connection.stats().write_queue_bytes;
    pair.drive();
    let stats = pair.client.connection.stats();
    assert_eq!(
        (stats.write_queue_bytes, stats.write_queue_bytes_peak),
        (0, queued)
    );
    assert!(queued > 0);
}
