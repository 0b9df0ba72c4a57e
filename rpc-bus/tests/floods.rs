//! Many bytes, many connections, many handshakes: what is held stays bounded, and others are served. The full numbers
//! are those of `examples/floods`.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod common;

use std::time::Duration;

use common::{Scene, frame, plan, run, until};
use protos::rpc::RpcMode;
use rpc_bus::{
    CloseReason, ConnectionOptions, Ledger,
    ledger::{Kind, Limits},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_flood_of_pings_from_a_peer_that_reads_is_answered() {
    let scene = Scene::new().await;
    let (mut read, mut write) = scene.raw_open().await.into_socket().into_split();
    let flood = frame(RpcMode::Ping, 0, 0, &[8, 1], &[]).repeat(50_000);
    let mut answers = vec![0; flood.len()];
    let (written, got) = tokio::join!(write.write_all(&flood), read.read_exact(&mut answers));
    written.unwrap();
    assert_eq!(got.unwrap(), flood.len());
    assert!(answers == frame(RpcMode::Pong, 0, 0, &[8, 1], &[]).repeat(50_000));
    drop((read, write));
    scene.finish().await;
}

#[tokio::test]
async fn a_flood_of_pings_from_a_peer_that_never_reads_is_bounded() {
    let scene = Scene::with(|o| o.connection.reply_queue_bytes_max = 100_000).await;
    let mut raw = scene.raw_open().await;
    let pings = frame(RpcMode::Ping, 0, 0, &[8, 1], &[]).repeat(10_000);
    while raw.try_send_bytes(&pings).await.is_ok() {}
    assert!(matches!(
        scene.close_reason().await,
        CloseReason::RepliesNotRead {
            bytes: 100_001..=100_100,
            bytes_max: 100_000
        }
    ));
    scene.finish().await;
}

#[tokio::test]
async fn what_peers_do_not_read_counts_against_the_budget_of_the_plane() {
    let limits = Limits {
        bytes: Some(1_000_000),
        ..Limits::default()
    };
    let scene = Scene::with_ledger(Ledger::root("server", limits), |_| {}).await;
    let (mut raw, mut held) = (scene.raw_open().await, Vec::new());
    let pings = frame(RpcMode::Ping, 0, 0, &[8, 1], &[]).repeat(10_000);
    while raw.try_send_bytes(&pings).await.is_ok() {
        // Others are in the same position, with less.
        if held.len() < 5 {
            let mut other = scene.raw_open().await;
            other.send_bytes(&pings[..1000]).await;
            held.push(other);
        }
    }
    assert!(matches!(
        scene.close_reason().await,
        CloseReason::Budget(exceeded) if exceeded.kind == Kind::Bytes
    ));
    assert_eq!(scene.server.connections().len(), held.len());
    drop(held);
    scene.finish().await;
}

#[tokio::test]
async fn a_flood_of_requests_from_a_peer_that_never_reads_is_bounded_and_others_are_served() {
    let scene = Scene::with(|o| o.connection.reply_queue_bytes_max = 100_000).await;
    let mut raw = scene.raw_open().await;
    let other = scene.connect().await;
    let cancels = frame(RpcMode::Request, 2, 99, &[], &[]).repeat(10_000);
    while raw.try_send_bytes(&cancels).await.is_ok() {
        assert!(run(&other, plan::ECHO).await.is_ok());
    }
    assert!(matches!(
        scene.close_reason().await,
        CloseReason::RepliesNotRead {
            bytes: 100_001..=101_000,
            bytes_max: 100_000
        }
    ));
    drop(other);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_refused_handshakes_holds_its_places_for_a_moment_only() {
    let scene = Scene::with(|options| options.connections_max = 5).await;
    let mut flood = Vec::new();
    for _ in 0..50 {
        let mut raw = scene.raw().await;
        // Those above the limit are closed before they can say anything.
        let _ = raw
            .try_send_bytes(&frame(RpcMode::Request, 1, 0, b"refuse", &[]))
            .await;
        flood.push(raw);
    }
    until(|| (scene.server.connections_refused() == 45).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.raw_open().await;
    drop(flood);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn slow_handshakes_are_closed_in_time_and_others_are_served_meanwhile() {
    let scene = Scene::new().await;
    let started = tokio::time::Instant::now();
    let mut slow = Vec::new();
    for _ in 0..300 {
        slow.push(scene.raw().await);
    }
    let hello = frame(RpcMode::Request, 1, 0, &[0; 100], &[]);
    for byte in hello {
        for raw in &mut slow {
            // Fails once the connection is closed.
            let _ = raw.try_send_bytes(&[byte]).await;
        }
        let client = scene.connect().await;
        assert!(run(&client, plan::ECHO).await.is_ok());
        drop(client);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if scene.server.connections().is_empty() {
            break;
        }
    }
    let took = started.elapsed();
    assert!((10..12).contains(&took.as_secs()), "{took:?}");
    for mut raw in slow {
        assert_eq!(raw.next().await, None);
    }
    scene.finish().await;
}

#[tokio::test]
async fn a_flood_of_refused_handshakes_leaves_nothing_and_others_are_served() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    for _ in 0..500 {
        let refused = scene.try_connect(ConnectionOptions::user_client(), "refuse");
        // Refusing is answered, and judged by whoever asked.
        let (refused, reply) = refused.await.unwrap();
        assert_eq!(&reply[..], b"no");
        drop(refused);
        assert!(run(&client, plan::ECHO).await.is_ok());
    }
    until(|| (scene.server.connections().len() == 1).then_some(())).await;
    drop(client);
    scene.finish().await;
}

#[tokio::test]
async fn peers_that_flood_leave_others_their_turn() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    let mut floods = Vec::new();
    for _ in 0..8 {
        floods.push(scene.raw_open().await.into_socket());
    }
    // The server gets no time to read before all of it is there.
    let pings = frame(RpcMode::Ping, 0, 0, &[8, 1], &[]).repeat(80_000);
    let sent: usize = floods.iter().map(|s| s.try_write(&pings).unwrap()).sum();
    assert!(run(&client, plan::ECHO).await.is_ok());
    let connections = scene.server.connections();
    let read: u64 = connections.iter().map(|c| c.stats().bytes_received).sum();
    // A few turns of each, and not the dozens that a runtime leaves between two looks at its sockets.
    assert!(read < sent as u64 / 16, "{read} of {sent}");
    drop((floods, client));
    scene.finish().await;
}
