//! What an operator finds in the counters after real conversations.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod common;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Scene, Unknown, plan, query, run, until};
use protos::{Plane, calls::user::RunQuery, shared::QueryId};
use rpc_bus::{
    CallOptions, ConnectionOptions, Ledger, PlaneSnapshot, RemoteConnection, RpcCounts, StreamKey,
    ledger::Limits,
};
use tokio::net::TcpListener;

/// The plane of the scene, once so many connections have ended.
async fn after_closed(scene: &Scene, connections: u64) -> PlaneSnapshot {
    let metrics = Arc::clone(scene.runtime.metrics());
    until(|| {
        let user = metrics
            .snapshot()
            .into_iter()
            .find(|of| of.plane == Plane::User)?;
        let closed: u64 = user.connections.closed.values().sum();
        (closed == connections).then_some(user)
    })
    .await
}

fn ended(counts: &RpcCounts, kind: &str) -> u64 {
    let found = counts.ended.iter().find(|(of, _)| *of == kind);
    found.unwrap().1
}

async fn refuse_one(client: &RemoteConnection) {
    let options = CallOptions::default();
    assert!(
        client
            .call::<Unknown>(&QueryId::default(), vec![], options)
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn both_sides_of_a_conversation_are_counted() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    for _ in 0..3 {
        run(&client, plan::ECHO).await.unwrap();
    }
    refuse_one(&client).await;
    client.ping().await.unwrap();
    let open = &scene.runtime.metrics().snapshot()[Plane::User as usize];
    assert_eq!((open.connections.opened, open.connections.open), (2, 2));
    assert_eq!(client.outbound_rpcs()[0].counts.requests, 3);
    drop(client);

    let user = after_closed(&scene, 2).await;
    let kinds = BTreeMap::from([("closed_here", 1), ("peer_closed", 1)]);
    assert_eq!(
        (user.connections.open, &user.connections.closed),
        (0, &kinds)
    );
    // Both ends are in this process.
    assert_eq!(user.totals.bytes_received, user.totals.bytes_sent);
    assert_eq!(user.totals.frames_received, user.totals.frames_sent);
    assert_eq!(user.ping_round_trip.count, 1);
    let inbound = user.inbound.iter().map(|rpc| &rpc.counts);
    let outbound = user.outbound.iter().map(|rpc| &rpc.counts);
    for counts in [inbound.collect::<Vec<_>>(), outbound.collect()] {
        let [queries, cancels] = counts[..] else {
            panic!("{counts:?}")
        };
        assert_eq!(
            (queries.name, queries.requests, queries.in_flight),
            ("RUN_QUERY", 3, 0)
        );
        assert_eq!(
            (ended(queries, "answered"), ended(queries, "failed")),
            (3, 0)
        );
        assert_eq!(
            (cancels.name, ended(cancels, "failed")),
            ("CANCEL_QUERY", 1)
        );
    }
    let (served, called) = (&user.inbound[0], &user.outbound[0]);
    assert_eq!((served.queue_time.count, served.handler_time.count), (3, 3));
    assert_eq!((called.round_trip.count, called.room_wait.count), (3, 0));
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_at_the_end_is_lost_on_both_sides() {
    let scene = Scene::new().await;
    let client = scene.connect().await;
    let options = CallOptions::default();
    let pending = client
        .start::<RunQuery>(&query(plan::KEEP), vec![], options)
        .await
        .unwrap();
    until(|| (scene.script.kept.lock().unwrap().len() == 1).then_some(())).await;
    client.close();
    assert!(pending.await.is_err());
    let user = after_closed(&scene, 2).await;
    for counts in [&user.inbound[0].counts, &user.outbound[0].counts] {
        assert_eq!((ended(counts, "lost"), counts.in_flight), (1, 0));
    }
    scene.finish().await;
}

#[tokio::test]
async fn senders_that_wait_for_room_are_counted_with_their_time() {
    let scene = Scene::new().await;
    let options = ConnectionOptions {
        write_queue_bytes_max: 100_000,
        ..ConnectionOptions::user_client()
    };
    let client = scene.connect_with(options).await;
    let body = Bytes::from(vec![7; 100_000]);
    let request = query(plan::ECHO);
    let call = |stream| {
        let options = CallOptions {
            stream: StreamKey(stream),
            ..CallOptions::default()
        };
        client.call::<RunQuery>(&request, vec![body.clone()], options)
    };
    let (first, second) = tokio::join!(call(1), call(2));
    assert!(first.is_ok() && second.is_ok());
    let stats = client.stats();
    assert_eq!(stats.room_waits, 1);
    assert!(stats.room_wait_time > Duration::ZERO && stats.write_queue_bytes_peak >= 100_000);
    assert_eq!(client.outbound_rpcs()[0].room_wait.count, 1);
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn connections_that_never_were_are_counted_too() {
    let ledger = Ledger::root("server", Limits::default());
    let scene = Scene::with_ledger(ledger, |options| options.connections_max = 1).await;
    let client = scene.connect().await;
    assert!(
        scene
            .try_connect(ConnectionOptions::user_client(), "hello")
            .await
            .is_err()
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = rpc_bus::Endpoint::new(listener.local_addr().unwrap(), Plane::User);
    drop(listener);
    let options = ConnectionOptions::user_client();
    let ledger = scene.client_ledger.clone();
    let handler = Arc::new(Nothing);
    let refused = rpc_bus::connect(
        &nobody,
        &scene.runtime,
        options,
        ledger,
        Bytes::new(),
        handler,
    )
    .await;
    assert!(refused.is_err());
    drop(client);
    let user = after_closed(&scene, 3).await;
    assert_eq!(user.connections.refused, 1);
    let not_connected = BTreeMap::from([("io", 1), ("lost", 1)]);
    assert_eq!(user.connections.not_connected, not_connected);
    scene.finish().await;
}

struct Nothing;

impl rpc_bus::Handler for Nothing {
    fn handle(&self, request: rpc_bus::InboundRequest) {
        drop(request);
    }
}
