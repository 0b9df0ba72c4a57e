//! TLS and mTLS over real sockets: who is let in, who is not, and what both sides say about it.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod common;

use common::{Scene, certificates::Authority, plan, run};
use rpc_bus::tls::{TlsInfo, TlsServer, TlsVersion, TlsVersions};

async fn scene(tls: &TlsServer) -> Scene {
    let tls = tls.clone();
    Scene::with(|options| options.tls = Some(tls)).await
}

#[tokio::test(start_paused = true)]
async fn both_versions_carry_calls() {
    let authority = Authority::new("ours");
    let scene = scene(&authority.server()).await;
    for (versions, version) in [
        (TlsVersions::Tls12, TlsVersion::Tls12),
        (TlsVersions::Tls13, TlsVersion::Tls13),
        (TlsVersions::Both, TlsVersion::Tls13),
    ] {
        let tls = authority.client_with(|options| options.versions = versions);
        let client = scene.connect_tls(&tls).await.unwrap();
        assert!(run(&client, plan::ECHO).await.is_ok());
        let info = TlsInfo {
            version,
            peer_has_certificate: true,
        };
        assert_eq!(client.tls(), Some(info));
        client.close();
        client.closed().await;
    }
    scene.finish().await;
}
