//! Our client and our server over real sockets.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Raw, Scene, Unknown, plan, query, run, until};
use prost::Message;
use protos::{Plane, calls::user::RunQuery, error::ErrorType, rpc::RpcMode, shared::QueryId};
use rpc_bus::{
    CallError, CallOptions, CloseReason, ConnectError, ConnectionOptions, Endpoint, Handler,
    InboundRequest, PendingAnswer, StreamKey, connect, ledger::Kind,
};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

fn deadline(seconds: u64) -> CallOptions {
    CallOptions {
        deadline: Some(Duration::from_secs(seconds)),
        ..CallOptions::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_answered_and_everything_is_given_back() {
    let scene = Scene::new().await;
    let (client, reply) = scene
        .try_connect(ConnectionOptions::user_client(), "hello")
        .await
        .unwrap();
    assert_eq!(&reply[..], b"welcome");
    assert_eq!(run(&client, plan::ECHO).await.unwrap().part1, Some(2));
    assert!(client.ping().await.is_ok());
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn bodies_of_every_size_arrive_whole() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    for len in [
        0,
        1,
        1023,
        1024,
        4096,
        65_000,
        65_536,
        70_000,
        1 << 20,
        5_000_000,
    ] {
        let dbody = vec![
            Bytes::from(vec![1; len / 2]),
            Bytes::from(vec![2; len - len / 2]),
        ];
        let answer = client
            .call::<RunQuery>(&query(plan::ECHO), dbody, CallOptions::default())
            .await
            .unwrap();
        assert_eq!(answer.message.part2, Some(i64::try_from(len).unwrap()));
    }
    until(|| (scene.server_ledger.used(Kind::Bytes) == 0).then_some(())).await;
    drop(client);
    scene.finish().await;
}

/// Callers, both drivers and the handlers share one thread here, so that how they follow each other is known.
#[tokio::test]
async fn what_the_callers_of_a_thread_have_to_say_leaves_together() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    let before = client.stats();
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let client = client.clone();
        callers.spawn(async move {
            for _ in 0..50 {
                run(&client, plan::ECHO).await.unwrap();
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let (frames, writes) = (
        client.stats().frames_sent - before.frames_sent,
        client.stats().writes - before.writes,
    );
    assert_eq!(frames, 64 * 50);
    assert!(writes < frames / 16, "{writes} writes of {frames} frames");
    drop((client, callers));
    scene.finish().await;
}

#[tokio::test]
async fn many_calls_at_once_are_each_answered_once() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    let mut calls = Vec::new();
    for _ in 0..1000 {
        let pending = start(&client, plan::ECHO).await;
        calls.push(pending);
    }
    let mut ids = Vec::new();
    for call in calls {
        ids.push(call.await.unwrap().message.part1.unwrap());
    }
    assert_eq!(ids, (2..1002).collect::<Vec<_>>());
    drop(client);
    scene.finish().await;
}

#[tokio::test]
async fn senders_wait_for_room_and_memory_stays_bounded() {
    let scene = Scene::new().await;
    let options = ConnectionOptions {
        write_queue_bytes_max: 256 * 1024,
        ..ConnectionOptions::user_client()
    };
    let client = scene.connect_with(options).await;
    let body = Bytes::from(vec![7; 100_000]);
    let mut tasks = JoinSet::new();
    for stream in 0..100 {
        let (client, body) = (client.clone(), body.clone());
        tasks.spawn(async move {
            let options = CallOptions {
                stream: StreamKey(stream),
                ..CallOptions::default()
            };
            let answer = client
                .call::<RunQuery>(&query(plan::ECHO), vec![body], options)
                .await
                .unwrap();
            (answer.message.part2, client.stats().write_queue_bytes)
        });
    }
    while let Some(result) = tasks.join_next().await {
        let (len, queued) = result.unwrap();
        assert_eq!(len, Some(100_000));
        assert!(queued <= 256 * 1024 + 4096, "{queued}");
    }
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_error_of_the_call_only() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    let refused = client
        .call::<Unknown>(&QueryId::default(), vec![], CallOptions::default())
        .await;
    let Err(CallError::Remote(failure)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(failure.error.error_type(), ErrorType::UnsupportedOperation);
    assert!(run(&client, plan::ECHO).await.is_ok());
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_call_and_its_late_answer_is_dropped() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    let late = client
        .call::<RunQuery>(&query(plan::KEEP), vec![], deadline(5))
        .await;
    assert_eq!(late, Err(CallError::Timeout(Duration::from_secs(5))));
    assert!(run(&client, plan::RELEASE).await.is_ok());
    until(|| (client.stats().late_answers == 1).then_some(())).await;
    assert!(!client.is_closed());
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_given_up_and_its_late_answer_is_dropped() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    let pending = start(&client, plan::KEEP).await;
    drop(pending);
    assert!(run(&client, plan::RELEASE).await.is_ok());
    assert_eq!(client.stats().late_answers, 1);
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_server_fails_every_pending_call() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    let mut calls = Vec::new();
    for _ in 0..100 {
        let pending = start(&client, plan::KEEP).await;
        calls.push(pending);
    }
    until(|| (scene.script.kept.lock().unwrap().len() == 100).then_some(())).await;
    scene.finish().await;
    for call in calls {
        let error = call.await.unwrap_err();
        assert!(
            matches!(error, CallError::Lost(CloseReason::PeerClosed { .. })),
            "{error:?}"
        );
        assert!(error.is_retryable());
    }
    assert!(matches!(
        client.closed().await,
        CloseReason::PeerClosed { .. }
    ));
    assert!(matches!(
        run(&client, plan::ECHO).await,
        Err(CallError::Lost(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_is_still_written_without_any_grace() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    let pending = start(&client, plan::KEEP).await;
    let kept = until(|| scene.script.kept.lock().unwrap().pop()).await;
    let body = Bytes::from(vec![7; 10_000_000]);
    kept.send(common::QUERY_HANDLE, Bytes::new(), vec![body]);
    let bytes = async { pending.await.map(|answer| answer.dbody.len()) };
    let (bytes, ()) = tokio::join!(bytes, scene.finish_within(Duration::ZERO));
    assert_eq!(bytes, Ok(10_000_000));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_holds_no_shutdown_up() {
    let scene = Scene::new().await;
    let (mut raw, begun) = (scene.raw_open().await, Instant::now());
    raw.send(
        RpcMode::Request,
        2,
        common::RUN_QUERY,
        &query(plan::KEEP).encode_to_vec(),
    )
    .await;
    let kept = until(|| scene.script.kept.lock().unwrap().pop()).await;
    let body = Bytes::from(vec![7; 10_000_000]);
    kept.send(common::QUERY_HANDLE, Bytes::new(), vec![body]);
    scene.finish_within(Duration::ZERO).await;
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    drop(raw);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_waits_for_its_turn_holds_no_shutdown_up() {
    let one = std::num::NonZeroU32::new(1);
    let scene = Scene::with(|options| options.connects_per_peer_second_max = one).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(scene.raw().await);
    }
    until(|| (scene.server_ledger.used(Kind::Files) == 2).then_some(())).await;
    let begun = Instant::now();
    scene.finish_within(Duration::from_secs(8)).await;
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    for mut raw in waiting {
        assert!(raw.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn closing_fails_calls_at_once_and_ends_the_server_side() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    let pending = start(&client, plan::KEEP).await;
    client.close();
    assert_eq!(
        pending.await.unwrap_err(),
        CallError::Lost(CloseReason::ClosedHere)
    );
    assert_eq!(client.closed().await, CloseReason::ClosedHere);
    assert_eq!(
        scene.close_reason().await,
        CloseReason::PeerClosed { mid_frame: false }
    );
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_connection_lives_as_long_as_its_last_handle() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    let other = client.clone();
    drop(client);
    assert!(run(&other, plan::ECHO).await.is_ok());
    drop(other);
    scene.close_reason().await;
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn senders_that_wait_for_room_are_told_of_the_end() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = ConnectionOptions::user_client();
    options.write_queue_bytes_max = 1000;
    let (client, mut raw) = connect_raw(&scene, &listener, options).await;
    let body = Bytes::from(vec![0; 20_000_000]);
    let options = CallOptions::default();
    // The socket takes some of the first; the second is queued; the third waits.
    let _first = client
        .start::<RunQuery>(&query("a"), vec![body.clone()], options)
        .await
        .unwrap();
    let _second = client
        .start::<RunQuery>(&query("b"), vec![body.clone()], options)
        .await
        .unwrap();
    let request = query("c");
    let third = client.call::<RunQuery>(&request, vec![body], options);
    let close = async {
        tokio::task::yield_now().await;
        raw.send_bytes(&[0]).await;
    };
    let (third, ()) = tokio::join!(third, close);
    assert!(
        matches!(third, Err(CallError::Lost(CloseReason::Decode(_)))),
        "{third:?}"
    );
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_close_ends_a_connection_whose_peer_reads_nothing() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, raw) = connect_raw(&scene, &listener, ConnectionOptions::user_client()).await;
    let body = Bytes::from(vec![0; 20_000_000]);
    let options = CallOptions::default();
    let _first = client
        .start::<RunQuery>(&query("a"), vec![body], options)
        .await
        .unwrap();
    until(|| (client.stats().write_queue_bytes == 0).then_some(())).await;
    let started = Instant::now();
    client.close();
    assert_eq!(client.closed().await, CloseReason::ClosedHere);
    assert!(
        started.elapsed() <= Duration::from_millis(1100),
        "{:?}",
        started.elapsed()
    );
    drop(raw);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_passes_while_the_peer_reads_nothing() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, raw) = connect_raw(&scene, &listener, ConnectionOptions::user_client()).await;
    let body = Bytes::from(vec![0; 20_000_000]);
    let options = CallOptions::default();
    let _first = client
        .start::<RunQuery>(&query("a"), vec![body], options)
        .await
        .unwrap();
    until(|| (client.stats().write_queue_bytes == 0).then_some(())).await;
    let late = client
        .call::<RunQuery>(&query("b"), vec![], deadline(3))
        .await;
    assert_eq!(late, Err(CallError::Timeout(Duration::from_secs(3))));
    drop((client, raw));
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_passes_while_a_call_waits_for_room() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, mut raw) = connect_raw(&scene, &listener, ConnectionOptions::user_client()).await;
    let body = Bytes::from(vec![0; 20_000_000]);
    let options = CallOptions::default();
    // The socket takes some of the first; the second is queued, and takes all the room.
    let _first = client
        .start::<RunQuery>(&query("a"), vec![body.clone()], options)
        .await
        .unwrap();
    let _second = client
        .start::<RunQuery>(&query("b"), vec![body], options)
        .await
        .unwrap();
    // It reads nothing, but shows that it lives.
    let alive = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            raw.send(RpcMode::Ping, 0, 0, &[]).await;
        }
    };
    let request = query("c");
    let calls = async {
        let late = client
            .call::<RunQuery>(&request, vec![], deadline(50))
            .await;
        let unsent = client
            .start::<RunQuery>(&request, vec![], deadline(1))
            .await;
        (late, unsent.map(drop))
    };
    let (late, unsent) = tokio::select! {
        ended = calls => ended,
        () = alive => unreachable!("it goes on for ever"),
    };
    assert_eq!(late, Err(CallError::Timeout(Duration::from_secs(50))));
    assert_eq!(unsent, Err(CallError::Timeout(Duration::from_secs(1))));
    let stats = client.stats();
    assert_eq!((stats.calls_timed_out, stats.calls_in_flight), (2, 2));
    assert_eq!(stats.room_wait_time, Duration::from_secs(51));
    drop((client, raw));
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_longest_deadline_is_none() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    let endless = CallOptions {
        deadline: Some(Duration::MAX),
        ..CallOptions::default()
    };
    let answer = client
        .call::<RunQuery>(&query(plan::ECHO), vec![], endless)
        .await;
    assert!(answer.is_ok(), "{answer:?}");
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_not_answered_ends_the_attempt() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = Endpoint::new(listener.local_addr().unwrap(), Plane::User);
    let options = ConnectionOptions::user_client();
    let handler = Arc::new(Nothing);
    let ledger = scene.client_ledger.clone();
    let attempt = connect(&to, &scene.runtime, options, ledger, Bytes::new(), handler);
    let reason = CloseReason::HandshakeTimeout(Duration::from_secs(10));
    assert_eq!(attempt.await.unwrap_err(), ConnectError::Lost(reason));
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_port_where_nobody_listens_is_an_io_error() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = Endpoint::new(listener.local_addr().unwrap(), Plane::User);
    drop(listener);
    let options = ConnectionOptions::user_client();
    let handler = Arc::new(Nothing);
    let ledger = scene.client_ledger.clone();
    let attempt = connect(&to, &scene.runtime, options, ledger, Bytes::new(), handler);
    let error = attempt.await.unwrap_err();
    assert_eq!(
        error,
        ConnectError::Io(std::io::ErrorKind::ConnectionRefused)
    );
    assert!(error.is_retryable());
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_alive_by_heartbeats() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    let stats = client.stats();
    assert!(stats.pongs_received >= 19, "{stats:?}");
    assert!(run(&client, plan::ECHO).await.is_ok());
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_answering_is_found_out() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, raw) = connect_raw(&scene, &listener, ConnectionOptions::user_client()).await;
    let call = run(&client, plan::ECHO).await;
    let reason = CloseReason::PongTimeout(Duration::from_secs(15));
    assert_eq!(call, Err(CallError::Lost(reason)));
    drop(raw);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_client_reads_nothing_and_pings_by_timer() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, mut raw) = connect_raw(&scene, &listener, ConnectionOptions::user_client()).await;
    client.pause_reading();
    raw.send(RpcMode::Request, 1, 6, &[]).await;
    for _ in 0..10 {
        assert_eq!(raw.next().await.unwrap().0.mode, RpcMode::Ping);
    }
    assert_eq!(
        (client.stats().requests_received, client.is_closed()),
        (0, false)
    );
    client.resume_reading();
    assert_eq!(raw.next().await.unwrap().0.mode, RpcMode::ResponseFailure);
    drop((client, raw));
    scene.finish().await;
}

async fn start(client: &rpc_bus::RemoteConnection, plan: &str) -> PendingAnswer<QueryId> {
    client
        .start::<RunQuery>(&query(plan), vec![], CallOptions::default())
        .await
        .unwrap()
}

struct Nothing;

impl Handler for Nothing {
    fn handle(&self, request: InboundRequest) {
        drop(request);
    }
}

/// Our client with a raw server that has answered the handshake.
async fn connect_raw(
    scene: &Scene,
    listener: &TcpListener,
    options: ConnectionOptions,
) -> (rpc_bus::RemoteConnection, Raw) {
    let to = Endpoint::new(listener.local_addr().unwrap(), Plane::User);
    let (ledger, handler) = (scene.client_ledger.clone(), Arc::new(Nothing));
    let client = connect(&to, &scene.runtime, options, ledger, Bytes::new(), handler);
    let server = async {
        let mut raw = Raw::new(listener.accept().await.unwrap().0);
        let (hello, ..) = raw.next().await.unwrap();
        raw.send(RpcMode::Response, hello.coordination_id.0, 0, b"welcome")
            .await;
        raw
    };
    let (client, raw) = tokio::join!(client, server);
    (client.unwrap().0, raw)
}
