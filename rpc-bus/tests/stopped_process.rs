//! A peer whose process is stopped: its sockets stay open and its kernel takes what is sent, but nobody is there.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod common;

use std::{
    env,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{Scene, plan, query};
use protos::{Plane, calls::user::RunQuery};
use rpc_bus::{
    Beats, CallError, CallOptions, CloseReason, ConnectionOptions, Endpoint, ServerOptions,
};
use tokio::time::timeout;

const TEST: &str = "a_stopped_process_is_found_by_its_client_and_by_its_server";
/// Set in the peer's process: where the other process listens.
const SERVER: &str = "STOPPED_PROCESS_SERVER";

const BEATS: Beats = Beats {
    interval: Duration::from_millis(200),
    missed_max: Beats::MISSED_MIN,
};
/// What the beats say is looked at; this only keeps a failing test from hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both directions at once: each process serves the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stopped_process_is_found_by_its_client_and_by_its_server() {
    if let Ok(server) = env::var(SERVER) {
        return be_the_peer(server.parse().unwrap()).await;
    }
    let scene = Scene::with(beat).await;
    let (mut peer, peer_addr) = start_peer(scene.server.local_addr());
    let client = scene
        .try_connect_to(&endpoint(peer_addr), beating(), "hello")
        .await;
    let (client, _) = client.unwrap();
    let server = scene.server.connections().remove(0);
    let (request, mut calls) = (query(plan::KEEP), Vec::new());
    for connection in [&client, &server] {
        for _ in 0..10 {
            let call = connection.start::<RunQuery>(&request, vec![], CallOptions::default());
            calls.push(call.await.unwrap());
        }
    }
    signal(&peer, "STOP");
    let dead = CloseReason::PongTimeout(BEATS.interval * BEATS.missed_max);
    for call in calls {
        let error = timeout(PATIENCE, call).await.unwrap().unwrap_err();
        assert_eq!(error, CallError::Lost(dead.clone()));
        assert!(error.is_retryable());
    }
    assert_eq!(
        (client.closed().await, server.closed().await),
        (dead.clone(), dead)
    );
    peer.kill().unwrap();
    peer.wait().unwrap();
    scene.finish().await;
}

/// Serves, is a client, says where it listens, and goes on until it is killed.
async fn be_the_peer(server: SocketAddr) {
    let scene = Scene::with(beat).await;
    let client = scene
        .try_connect_to(&endpoint(server), beating(), "hello")
        .await;
    let (client, _) = client.unwrap();
    println!("\nready {}", scene.server.local_addr());
    client.closed().await;
}

/// The same program, which sees from its environment what it is to be.
fn start_peer(server: SocketAddr) -> (Child, SocketAddr) {
    let mut peer = Command::new(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(SERVER, server.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(peer.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).find_map(|line| {
        line.strip_prefix("ready ")
            .map(|addr| addr.parse().unwrap())
    });
    (peer, ready.unwrap())
}

fn signal(process: &Child, name: &str) {
    let kill = Command::new("kill")
        .args([&format!("-{name}"), &process.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
}

fn endpoint(addr: SocketAddr) -> Endpoint {
    Endpoint::new(addr, Plane::User)
}

fn beat(options: &mut ServerOptions) {
    options.connection.beats = Some(BEATS);
}

fn beating() -> ConnectionOptions {
    ConnectionOptions {
        beats: Some(BEATS),
        ..ConnectionOptions::user_client()
    }
}
