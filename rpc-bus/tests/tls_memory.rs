//! What an idle TLS connection costs. A process of its own: it looks at the memory of all of it.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod common;

use std::fs;

use common::{Scene, certificates::Authority, plan, run};
use rpc_bus::{RemoteConnection, tls::TlsClient};

const CONNECTIONS: usize = 200;
/// Of one end, in bytes, under the system's allocator.
const BYTES_MAX: usize = 32 << 10;

fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Connections that have carried a call and are idle again.
async fn open(scene: &Scene, tls: &TlsClient, count: usize) -> Vec<RemoteConnection> {
    let mut all = Vec::new();
    for _ in 0..count {
        let client = scene.connect_tls(tls).await.unwrap();
        run(&client, plan::ECHO).await.unwrap();
        all.push(client);
    }
    all
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_idle_connection_is_small() {
    let ours = Authority::new("ours");
    let tls = ours.server();
    let scene = Scene::with(|options| options.tls = Some(tls)).await;
    let client = ours.client();
    // What is shared by all is there before the count begins.
    let warm = open(&scene, &client, 20).await;
    let before = resident_bytes();
    let idle = open(&scene, &client, CONNECTIONS).await;
    let bytes = resident_bytes().saturating_sub(before) / (2 * CONNECTIONS);
    println!("{bytes} bytes for one end of an idle TLS connection");
    assert!(
        bytes <= BYTES_MAX,
        "{bytes} bytes for one end, at most {BYTES_MAX}"
    );
    drop((warm, idle));
    scene.finish().await;
}
