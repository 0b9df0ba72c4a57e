//! A server against peers that do not play by the rules. Time is paused: it passes when nobody has anything to do.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod common;

use std::time::Duration;

use common::{QUERY_HANDLE, RUN_QUERY, Scene, frame, plan, query, run, until};
use prost::Message;
use protos::{error::ErrorType, rpc::RpcMode, shared::DrillPbError};
use rpc_bus::{
    CloseReason, CoordinationId, Ledger, ProtocolError,
    frame::{DecodeError, FrameErrorKind},
    ledger::{Kind, Limits},
};

fn decode_kind(reason: CloseReason) -> FrameErrorKind {
    match reason {
        CloseReason::Decode(DecodeError::Frame(error)) => error.kind,
        other => panic!("closed for another reason: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_is_closed_before_and_after_the_handshake() {
    let scene = Scene::new().await;
    for mut raw in [scene.raw().await, scene.raw_open().await] {
        raw.send_bytes(b"GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(raw.next().await, None);
    }
    assert!(matches!(
        decode_kind(scene.close_reason().await),
        FrameErrorKind::Key { .. }
    ));
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_of_length_0_is_closed() {
    let scene = Scene::new().await;
    let mut raw = scene.raw_open().await;
    raw.send_bytes(&[0]).await;
    assert_eq!(raw.next().await, None);
    assert_eq!(
        decode_kind(scene.close_reason().await),
        FrameErrorKind::Length { actual: 0 }
    );
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_and_then_the_end_is_told_apart_from_a_clean_end() {
    for (bytes, mid_frame) in [(&[0x0c, 0x0a][..], true), (&[], false)] {
        let scene = Scene::new().await;
        let mut raw = scene.raw_open().await;
        raw.send_bytes(bytes).await;
        drop(raw);
        assert_eq!(
            scene.close_reason().await,
            CloseReason::PeerClosed { mid_frame }
        );
        scene.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn silence_before_the_handshake_is_closed_after_ten_seconds() {
    let scene = Scene::new().await;
    let started = tokio::time::Instant::now();
    // One is silent, one sends half a handshake.
    let mut silent = scene.raw().await;
    let mut half = scene.raw().await;
    half.send_bytes(&[0x0c, 0x0a, 0x06]).await;
    assert_eq!((silent.next().await, half.next().await), (None, None));
    let took = started.elapsed();
    assert!((10..11).contains(&took.as_secs()), "{took:?}");
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn frames_over_the_limit_are_closed_at_their_length() {
    let scene = Scene::new().await;
    let mut early = scene.raw().await;
    early.send_bytes(&[0x81, 0x80, 0x04]).await;
    assert_eq!(early.next().await, None);
    let mut raw = scene.raw_open().await;
    // 16 MiB and one byte
    raw.send_bytes(&[0x81, 0x80, 0x80, 0x08]).await;
    assert_eq!(raw.next().await, None);
    let expected_max = 16 * 1024 * 1024;
    let kind = FrameErrorKind::TooLong {
        actual: expected_max + 1,
        expected_max,
    };
    assert_eq!(decode_kind(scene.close_reason().await), kind);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn announced_frames_of_two_gib_allocate_nothing() {
    let scene = Scene::with(|options| options.connection.frame_bytes_max = i32::MAX as usize).await;
    let mut raws = Vec::new();
    for _ in 0..100 {
        let mut raw = scene.raw_open().await;
        raw.send_bytes(&[0xff, 0xff, 0xff, 0xff, 0x07, 0x0a, 0x06, 0x08])
            .await;
        raws.push(raw);
    }
    let received = || {
        scene
            .server
            .connections()
            .iter()
            .all(|c| c.stats().bytes_received >= 20)
    };
    until(|| received().then_some(())).await;
    assert_eq!(scene.server.connections().len(), 100);
    assert_eq!(scene.server_ledger.used(Kind::Bytes), 0);
    drop(raws);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_announced_body_gets_memory_only_as_its_bytes_arrive() {
    let scene = Scene::with(|options| options.connection.frame_bytes_max = i32::MAX as usize).await;
    let mut raw = scene.raw_open().await;
    // A frame of 2^30 bytes; behind its length come a header, an empty body, and 8 bytes of a raw body.
    raw.send_bytes(&[0x80, 0x80, 0x80, 0x80, 0x04]).await;
    raw.send_bytes(&[0x0a, 6, 8, 0, 0x10, 2, 0x18, 3, 0x12, 0])
        .await;
    // 2^30 - 10 bytes of header and body - 6 bytes of its own key and length
    raw.send_bytes(&[0x1a, 0xf0, 0xff, 0xff, 0xff, 0x03]).await;
    raw.send_bytes(&[7; 8]).await;
    until(|| (scene.server_ledger.used(Kind::Bytes) > 0).then_some(())).await;
    assert!(scene.server_ledger.used(Kind::Bytes) <= 2 * 1024 * 1024);
    drop(raw);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_ping_before_the_handshake_is_closed() {
    let scene = Scene::new().await;
    let mut raw = scene.raw().await;
    raw.send(RpcMode::Ping, 0, 0, &[8, 1]).await;
    assert_eq!(raw.next().await, None);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_handshake_is_closed() {
    let scene = Scene::new().await;
    let mut raw = scene.raw_open().await;
    raw.send(RpcMode::Request, 2, 0, b"hello").await;
    assert_eq!(raw.next().await, None);
    let reason = CloseReason::Protocol(ProtocolError::DuplicateHandshake);
    assert_eq!(scene.close_reason().await, reason);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_response_to_nothing_is_closed_and_a_failure_of_nothing_is_not() {
    let scene = Scene::new().await;
    let mut raw = scene.raw_open().await;
    raw.send(RpcMode::ResponseFailure, 5, 0, &[]).await;
    raw.send(RpcMode::Ping, 0, 0, &[8, 1]).await;
    assert_eq!(raw.next().await.unwrap().0.mode, RpcMode::Pong);
    raw.send(RpcMode::Response, 5, 1, &[]).await;
    assert_eq!(raw.next().await, None);
    let unknown = ProtocolError::UnknownResponse {
        id: CoordinationId(5),
    };
    assert_eq!(scene.close_reason().await, CloseReason::Protocol(unknown));
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_is_refused_with_its_reply_and_then_closed() {
    let scene = Scene::new().await;
    let mut raw = scene.raw().await;
    raw.send(RpcMode::Request, 1, 0, b"refuse").await;
    assert_eq!(raw.next().await.unwrap().1, b"no");
    assert_eq!(raw.next().await, None);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_acceptor_that_panics_refuses() {
    let scene = Scene::new().await;
    let mut raw = scene.raw().await;
    raw.send(RpcMode::Request, 1, 0, b"panic").await;
    assert_eq!(raw.next().await, None);
    scene.raw_open().await;
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn pings_of_any_type_and_id_are_answered_one_by_one() {
    // golden/raw/raw_user: "PING coord 9 type 7 empty body -> PONG 0 0"
    let scene = Scene::new().await;
    let mut raw = scene.raw_open().await;
    raw.send(RpcMode::Ping, 9, 7, &[]).await;
    let (header, pbody, _) = raw.next().await.unwrap();
    assert_eq!(
        (header.mode, header.coordination_id.0, header.rpc_type),
        (RpcMode::Pong, 0, 0)
    );
    assert_eq!(pbody, [8, 1]);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_panicking_and_a_forgetful_handler_answer_and_the_connection_lives_on() {
    let scene = Scene::new().await;
    let mut raw = scene.raw_open().await;
    for (id, plan, text) in [(2, plan::PANIC, "panicked"), (3, plan::DROP, "dropped")] {
        raw.send(
            RpcMode::Request,
            id,
            RUN_QUERY,
            &query(plan).encode_to_vec(),
        )
        .await;
        let (header, pbody, _) = raw.next().await.unwrap();
        assert_eq!(header.mode, RpcMode::ResponseFailure);
        assert_eq!((header.coordination_id.0, header.rpc_type), (id, 0));
        let error = DrillPbError::decode(&pbody[..]).unwrap();
        assert_eq!(error.error_type(), ErrorType::System);
        assert!(error.message().contains(text), "{error:?}");
    }
    raw.send(
        RpcMode::Request,
        4,
        RUN_QUERY,
        &query(plan::ECHO).encode_to_vec(),
    )
    .await;
    assert_eq!(raw.next().await.unwrap().0.rpc_type, QUERY_HANDLE);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_malformed_body_and_an_unknown_type_are_failures_and_the_connection_lives_on() {
    let scene = Scene::new().await;
    let mut raw = scene.raw_open().await;
    for (id, rpc_type, pbody) in [(2, RUN_QUERY, &[0xff, 0xff][..]), (3, 99, &[])] {
        raw.send(RpcMode::Request, id, rpc_type, pbody).await;
        let (header, ..) = raw.next().await.unwrap();
        assert_eq!(
            (header.mode, header.coordination_id.0),
            (RpcMode::ResponseFailure, id)
        );
    }
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn requests_start_in_the_order_in_which_they_came() {
    let scene = Scene::new().await;
    let mut raw = scene.raw_open().await;
    let body = query(plan::KEEP).encode_to_vec();
    let wire: Vec<u8> = (2..1000)
        .flat_map(|id| frame(RpcMode::Request, id, RUN_QUERY, &body, &[]))
        .collect();
    raw.send_bytes(&wire).await;
    until(|| (scene.script.started.lock().unwrap().len() == 998).then_some(())).await;
    assert!(scene.script.started.lock().unwrap().is_sorted());
    drop(raw);
    scene.close_reason().await;
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn requests_above_the_limit_fail_at_once() {
    let scene = Scene::with(|options| options.connection.requests_in_flight_max = 10).await;
    let mut raw = scene.raw_open().await;
    let body = query(plan::KEEP).encode_to_vec();
    for id in 2..=12 {
        raw.send(RpcMode::Request, id, RUN_QUERY, &body).await;
    }
    let (header, pbody, _) = raw.next().await.unwrap();
    assert_eq!(
        (header.mode, header.coordination_id.0),
        (RpcMode::ResponseFailure, 12)
    );
    let error = DrillPbError::decode(&pbody[..]).unwrap();
    assert_eq!(error.error_type(), ErrorType::Resource);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_spent_byte_budget_of_the_plane_closes_who_asks_for_more() {
    let limits = Limits {
        bytes: Some(100_000),
        ..Limits::default()
    };
    let scene = Scene::with_ledger(Ledger::root("server", limits), |_| {}).await;
    let (mut first, mut second) = (scene.raw_open().await, scene.raw_open().await);
    // Half of a frame of 60,000 bytes each.
    let half = &frame(RpcMode::Request, 2, RUN_QUERY, &vec![0; 60_000], &[])[..59_000];
    first.send_bytes(half).await;
    until(|| (scene.server_ledger.used(Kind::Bytes) > 50_000).then_some(())).await;
    second.send_bytes(half).await;
    assert_eq!(second.next().await, None);
    assert!(matches!(
        scene.close_reason().await,
        CloseReason::Decode(DecodeError::Budget(_))
    ));
    drop(first);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn connections_above_the_limits_are_closed_and_others_served() {
    let scene = Scene::with(|options| {
        options.connections_max = 3;
        options.connections_per_peer_max = Some(2);
    })
    .await;
    let (first, second) = (scene.raw_open().await, scene.raw_open().await);
    let mut third = scene.raw().await;
    assert_eq!(third.next().await, None);
    assert_eq!(scene.server.connections_refused(), 1);
    drop(first);
    until(|| (scene.server.connections().len() == 1).then_some(())).await;
    scene.raw_open().await;
    drop(second);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn requests_of_all_connections_together_are_limited_by_the_ledger() {
    let limits = Limits {
        calls: Some(3),
        ..Limits::default()
    };
    let scene = Scene::with_ledger(Ledger::root("server", limits), |_| {}).await;
    let (mut first, mut second) = (scene.raw_open().await, scene.raw_open().await);
    let body = query(plan::KEEP).encode_to_vec();
    for id in 2..5 {
        first.send(RpcMode::Request, id, RUN_QUERY, &body).await;
    }
    until(|| (scene.server_ledger.used(Kind::Calls) == 3).then_some(())).await;
    second.send(RpcMode::Request, 2, RUN_QUERY, &body).await;
    let (header, pbody, _) = second.next().await.unwrap();
    assert_eq!(header.mode, RpcMode::ResponseFailure);
    let error = DrillPbError::decode(&pbody[..]).unwrap();
    assert_eq!(error.error_type(), ErrorType::Resource);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_peer_is_closed_after_the_idle_timeout() {
    let scene = Scene::new().await;
    let mut raw = scene.raw_open().await;
    assert_eq!(raw.next().await, None);
    let reason = CloseReason::IdleTimeout(Duration::from_secs(30));
    assert_eq!(scene.close_reason().await, reason);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn goodbye_is_a_clean_end() {
    let scene = Scene::new().await;
    let mut raw = scene.raw_open().await;
    raw.send(RpcMode::Request, 2, 2, &[]).await;
    assert_eq!(raw.next().await, None);
    assert_eq!(scene.close_reason().await, CloseReason::Goodbye);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_good_client_is_served_beside_all_of_them() {
    let scene = Scene::new().await;
    let _silent = [scene.raw().await, scene.raw().await];
    let client = scene.connect().await;
    assert!(run(&client, plan::ECHO).await.is_ok());
    drop(client);
    scene.finish().await;
}
