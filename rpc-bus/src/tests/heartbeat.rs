//! Signs of life.

use std::time::{Duration, Instant};

use protos::rpc::RpcMode;
use tokio::sync::oneshot;

use super::pair::Pair;
use crate::{
    connection::IdleTimeout,
    error::CloseReason,
    options::{Beats, ConnectionOptions},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_idle_client_pings_after_half_the_timeout_and_both_sides_live_on() {
    let mut pair = Pair::default();
    pair.advance(14 * SECOND);
    assert_eq!(pair.client.connection.stats().pings_sent, 0);
    pair.advance(SECOND);
    let stats = pair.client.connection.stats();
    assert_eq!((stats.pings_sent, stats.pongs_received), (1, 1));
    pair.advance(600 * SECOND);
    assert_eq!((pair.client.reason(), pair.server.reason()), (None, None));
    assert_eq!(pair.client.connection.stats().pongs_received, 41);
}

#[test]
fn a_ping_that_is_not_answered_ends_the_client_after_the_other_half() {
    let mut pair = Pair::default();
    pair.cut();
    pair.advance(Duration::from_millis(29_999));
    assert_eq!(pair.client.reason(), None);
    pair.advance(Duration::from_millis(1));
    assert_eq!(
        pair.client.reason(),
        Some(&CloseReason::PongTimeout(15 * SECOND))
    );
}

#[test]
fn without_an_idle_timeout_a_ping_may_take_its_interval() {
    let endless = |options| ConnectionOptions {
        idle_timeout: None,
        ..options
    };
    let client = endless(ConnectionOptions::user_client());
    let mut pair = Pair::open_with(client, endless(ConnectionOptions::user_server()));
    pair.advance(600 * SECOND);
    assert_eq!(pair.client.connection.stats().pongs_received, 40);
    pair.cut();
    pair.advance(30 * SECOND);
    let reason = CloseReason::PongTimeout(15 * SECOND);
    assert_eq!(pair.client.reason(), Some(&reason));
}

#[test]
fn a_silent_client_ends_the_server_after_the_timeout() {
    let mut pair = Pair::default();
    pair.cut();
    pair.advance(30 * SECOND);
    assert_eq!(
        pair.server.reason(),
        Some(&CloseReason::IdleTimeout(30 * SECOND))
    );
}

#[test]
fn a_client_that_cannot_ping_is_never_idle() {
    let mut pair = Pair::before_handshake();
    pair.drive();
    pair.server
        .connection
        .open(bytes::Bytes::new(), IdleTimeout::Off);
    pair.advance(3600 * SECOND);
    assert_eq!(pair.server.reason(), None);
    assert_eq!(pair.server.connection.poll_timeout(), None);
}

#[test]
fn bytes_of_an_unfinished_frame_are_signs_of_life() {
    let mut pair = Pair::default();
    pair.cut();
    // A frame of 100 bytes, one byte every 10 s.
    let mut wire = Vec::new();
    crate::frame::encode(
        &crate::frame::Header::bare(RpcMode::Ping),
        &[0; 90],
        &[],
        &mut wire,
    );
    for byte in wire.iter().take(50) {
        pair.advance(10 * SECOND);
        pair.client.receive(&[*byte], pair.now);
        pair.server.receive(&[*byte], pair.now);
    }
    assert_eq!((pair.client.reason(), pair.server.reason()), (None, None));
    assert_eq!(pair.client.connection.stats().pings_sent, 0);
}

#[test]
fn the_time_of_a_pong_starts_when_its_ping_has_left_and_again_with_every_progress() {
    let mut pair = Pair::default();
    let at = |pair: &Pair, seconds: u32| pair.now + seconds * SECOND;
    let start = pair.now;
    // Due at 15 s; the socket is full until 25 s.
    pair.client.timeout(at(&pair, 15));
    pair.client.send_blocked();
    pair.client.unblock(at(&pair, 25));
    pair.client.timeout(at(&pair, 39));
    assert_eq!(pair.client.reason(), None);
    // Another full socket that begins to move at 39 s.
    pair.client.connection.handle_write_progress(at(&pair, 39));
    assert_eq!(
        pair.client.connection.poll_timeout(),
        Some(start + 54 * SECOND)
    );
    pair.client.timeout(at(&pair, 54));
    assert_eq!(
        pair.client.reason(),
        Some(&CloseReason::PongTimeout(15 * SECOND))
    );
}

#[test]
fn a_ping_that_never_leaves_ends_the_connection_too() {
    let mut pair = Pair::default();
    let after = |seconds: u32| pair.now + seconds * SECOND;
    let times: Vec<Instant> = [15, 29, 30].map(after).into();
    pair.client.timeout(times[0]);
    pair.client.send_blocked();
    pair.client.timeout(times[1]);
    assert_eq!(pair.client.reason(), None);
    pair.client.timeout(times[2]);
    assert!(matches!(
        pair.client.reason(),
        Some(CloseReason::PongTimeout(_))
    ));
}

#[test]
fn a_paused_client_goes_on_pinging_and_asks_for_no_pong() {
    let mut pair = Pair::default();
    pair.client.connection.pause_reading(pair.now);
    let mut to_client = Vec::new();
    for _ in 0..12 {
        pair.now += 10 * SECOND;
        pair.client.timeout(pair.now);
        let wire = pair.client.send(pair.now);
        pair.server.receive(&wire, pair.now);
        pair.server.timeout(pair.now);
        to_client.extend(pair.server.send(pair.now));
    }
    assert_eq!((pair.client.reason(), pair.server.reason()), (None, None));
    assert_eq!(pair.client.connection.stats().pings_sent, 12);
    pair.client.connection.resume_reading(pair.now);
    pair.client.receive(&to_client, pair.now);
    assert_eq!(pair.client.connection.stats().pongs_received, 12);
    pair.advance(60 * SECOND);
    assert_eq!((pair.client.reason(), pair.server.reason()), (None, None));
}

#[test]
fn resuming_gives_the_peer_a_whole_timeout_again() {
    let mut pair = Pair::default();
    pair.client.connection.pause_reading(pair.now);
    pair.now += 300 * SECOND;
    pair.client.connection.resume_reading(pair.now);
    pair.client.timeout(pair.now);
    assert_eq!(pair.client.reason(), None);
}

#[test]
fn a_long_pause_with_beats_never_wants_to_be_called_at_once_again() {
    let beats = ConnectionOptions {
        beats: Some(Beats::default()),
        ..ConnectionOptions::bit()
    };
    let mut pair = Pair::open_with(beats, ConnectionOptions::bit_server());
    pair.client.connection.pause_reading(pair.now);
    for _ in 0..200 {
        pair.now += 10 * SECOND;
        pair.client.timeout(pair.now);
        let next = pair.client.connection.poll_timeout();
        assert!(next.is_some_and(|next| next > pair.now));
    }
}

#[test]
fn a_ping_on_demand_measures_the_round_trip_from_when_it_left() {
    let mut pair = Pair::default();
    let (completion, mut round_trip) = oneshot::channel();
    pair.client.connection.ping(completion, pair.now);
    pair.client.send_blocked();
    pair.now += 5 * SECOND;
    let wire = pair.client.unblock(pair.now);
    pair.now += SECOND;
    pair.server.receive(&wire, pair.now);
    pair.drive();
    assert_eq!(round_trip.try_recv().unwrap(), Ok(SECOND));
    let round_trips = pair.client.connection.stats().round_trips.unwrap();
    assert_eq!((round_trips.last, round_trips.max), (SECOND, SECOND));
}

#[test]
fn a_ping_on_a_connection_that_ends_fails_once() {
    let mut pair = Pair::default();
    pair.cut();
    let (completion, mut pinged) = oneshot::channel();
    pair.client.connection.ping(completion, pair.now);
    pair.client.close(CloseReason::ClosedHere, pair.now);
    assert_eq!(pinged.try_recv().unwrap(), Err(CloseReason::ClosedHere));
    let (completion, mut pinged) = oneshot::channel();
    pair.client.connection.ping(completion, pair.now);
    pair.client.take_events();
    assert_eq!(pinged.try_recv().unwrap(), Err(CloseReason::ClosedHere));
}

#[test]
fn a_pong_to_nothing_is_ignored() {
    let mut pair = Pair::default();
    pair.client.receive_frame(RpcMode::Pong, 0, 0, pair.now);
    let stats = pair.client.connection.stats();
    assert_eq!((pair.client.reason(), stats.pongs_received), (None, 0));
}

#[test]
fn a_server_may_ping_too() {
    let server = ConnectionOptions {
        ping_interval: Some(SECOND),
        idle_timeout: Some(4 * SECOND),
        ..ConnectionOptions::bit_server()
    };
    let mut pair = Pair::open_with(ConnectionOptions::bit(), server);
    pair.advance(10 * SECOND);
    assert_eq!(pair.server.connection.stats().pongs_received, 10);
    pair.cut();
    pair.advance(4 * SECOND);
    assert_eq!(
        pair.server.reason(),
        Some(&CloseReason::PongTimeout(3 * SECOND))
    );
}

fn beating() -> Pair {
    let options = |base| ConnectionOptions {
        beats: Some(Beats::default()),
        ..base
    };
    Pair::open_with(
        options(ConnectionOptions::bit()),
        options(ConnectionOptions::bit_server()),
    )
}

#[test]
fn beats_go_both_ways_and_measure_round_trips() {
    let mut pair = beating();
    pair.advance(60 * SECOND);
    for end in [&pair.client, &pair.server] {
        let stats = end.connection.stats();
        assert!((60..=61).contains(&stats.pongs_received), "{stats:?}");
        assert_eq!((stats.beats_missed, end.reason()), (0, None));
        assert!(stats.round_trips.is_some());
    }
}

#[test]
fn a_server_may_begin_to_beat_once_it_knows_the_peer() {
    let mut pair = Pair::with(ConnectionOptions::bit(), ConnectionOptions::bit_server());
    pair.drive();
    let beats = IdleTimeout::Beats(Beats::default());
    pair.server.connection.open(bytes::Bytes::new(), beats);
    pair.advance(10 * SECOND);
    let pings = pair.client.connection.stats().pings_received;
    assert!((10..=11).contains(&pings), "{pings}");
    pair.cut();
    pair.advance(4 * SECOND);
    assert_eq!(
        pair.server.reason(),
        Some(&CloseReason::PongTimeout(3 * SECOND))
    );
}

#[test]
fn a_client_may_begin_to_beat_once_it_knows_the_peer() {
    let mut pair = Pair::default();
    pair.drive();
    pair.advance(10 * SECOND);
    assert_eq!(pair.server.connection.stats().pings_received, 0);
    pair.client.connection.begin_beats(Beats::default());
    pair.advance(10 * SECOND);
    let pings = pair.server.connection.stats().pings_received;
    assert!((10..=11).contains(&pings), "{pings}");
    pair.cut();
    pair.advance(4 * SECOND);
    assert_eq!(
        pair.client.reason(),
        Some(&CloseReason::PongTimeout(3 * SECOND))
    );
}

#[test]
fn beats_that_cannot_work_are_refused() {
    assert_eq!(Beats::default().validate(), Ok(()));
    let hasty = Beats {
        missed_max: 2,
        ..Beats::default()
    };
    let endless = Beats {
        interval: Duration::ZERO,
        ..Beats::default()
    };
    assert!(hasty.validate().is_err() && endless.validate().is_err());
}

#[test]
fn a_half_open_peer_is_found_within_three_beats_and_every_call_fails_at_once() {
    let mut pair = beating();
    pair.advance(10 * SECOND);
    let mut calls = [pair.call("a"), pair.call("b")];
    pair.cut();
    pair.advance(4 * SECOND);
    assert_eq!(
        pair.server.reason(),
        Some(&CloseReason::PongTimeout(3 * SECOND))
    );
    for call in &mut calls {
        let error = super::pair::outcome(call).unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
    }
    // Sent at 11 s and unanswered at 12 s; at 13 s the peer is dead.
    assert_eq!(pair.client.connection.stats().beats_missed, 1);
}

#[test]
fn a_frame_that_takes_longer_than_three_beats_to_arrive_is_no_death() {
    let mut pair = beating();
    pair.cut();
    let mut wire = Vec::new();
    let header = crate::frame::Header {
        rpc_type: 6,
        ..crate::frame::Header::bare(RpcMode::Request)
    };
    crate::frame::encode(&header, &vec![0; 60_000], &[], &mut wire);
    for piece in wire.chunks(500) {
        pair.server.receive(piece, pair.now);
        pair.client.connection.handle_write_progress(pair.now);
        pair.advance(2 * SECOND);
    }
    assert_eq!((pair.client.reason(), pair.server.reason()), (None, None));
    assert_eq!(pair.server.requests.len(), 1);
    // Nor do unanswered PINGs pile up.
    assert!(pair.server.connection.stats().pings_sent <= 65);
}
