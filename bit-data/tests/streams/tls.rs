//! Streams between nodes that prove to each other who they are.

use std::{fs, path::Path};

use bit_data::{NodeOptions, OpenError, ReceiveOptions};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rpc_bus::tls::{
    IdentityFiles, Roots, TlsClient, TlsClientOptions, TlsServer, TlsServerFiles, TlsVersions,
};

use crate::support::{Node, expected, receive_all, send_all, stream};

/// An authority in `dir`, and a certificate of it for the nodes of this machine.
fn issue(dir: &Path) -> IdentityFiles {
    issue_to(dir, "127.0.0.1")
}

/// The same, for nodes of that name or address.
fn issue_to(dir: &Path, host: &str) -> IdentityFiles {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority");
    let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = key();
    let certificate = params.signed_by(&key, &authority).expect("a signature");
    let files = IdentityFiles {
        certificates: dir.join("node.pem"),
        key: dir.join("node-key.pem"),
    };
    let contents = [
        (dir.join("roots.pem"), authority.pem()),
        (files.certificates.clone(), certificate.pem()),
        (files.key.clone(), key.serialize_pem()),
    ];
    for (path, pem) in contents {
        fs::write(path, pem).expect("room");
    }
    files
}

/// A node that shows `identity`, and asks others for theirs.
fn mutual(dir: &Path, identity: &IdentityFiles) -> NodeOptions {
    let roots = dir.join("roots.pem");
    let server = TlsServerFiles {
        certificates: identity.certificates.clone(),
        key: identity.key.clone(),
        client_authorities: Some(roots.clone()),
    };
    let mut client = TlsClientOptions::new(Roots::PemFile(roots));
    client.identity = Some(identity.clone());
    let mut options = NodeOptions {
        tls: Some(TlsClient::new(client).expect("valid files")),
        ..NodeOptions::default()
    };
    let server = TlsServer::from_files(server, TlsVersions::Both);
    options.server.connections.tls = Some(server.expect("valid files"));
    options
}

#[tokio::test]
async fn streams_go_over_mutual_tls() {
    let dir = tempfile::tempdir().expect("room");
    let identity = issue(dir.path());
    let there = Node::start(mutual(dir.path(), &identity)).await;
    let here = Node::start(mutual(dir.path(), &identity)).await;
    let sending = tokio::spawn(send_all(there.sender(stream(1)), 1, 200, 50_000));
    let receiver = here.receiver(there.origin(), stream(1)).await;
    let (seen, end) = receive_all(receiver).await;
    assert!(end.is_ok() && seen == expected(1, 200));
    assert!(sending.await.expect("no panic").is_ok());
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_node_without_a_certificate_or_without_tls_gets_no_stream() {
    let dir = tempfile::tempdir().expect("room");
    let identity = issue(dir.path());
    let there = Node::start(mutual(dir.path(), &identity)).await;
    let nameless = TlsClientOptions::new(Roots::PemFile(dir.path().join("roots.pem")));
    let nameless = TlsClient::new(nameless).expect("valid files");
    for tls in [None, Some(nameless)] {
        let here = Node::start(NodeOptions {
            tls,
            ..NodeOptions::default()
        })
        .await;
        let options = ReceiveOptions::default();
        let receiver = here
            .node
            .receiver(there.origin(), stream(1), &options)
            .await;
        let refused = receiver.expect_err("nobody may come in like that");
        assert!(
            matches!(refused, OpenError::Connect(_) | OpenError::Call(_)),
            "{refused}"
        );
        here.stop().await;
    }
    there.stop().await;
}

#[tokio::test]
async fn streams_know_their_peer_by_the_name_that_it_was_connected_to_by() {
    let dir = tempfile::tempdir().expect("room");
    let identity = issue_to(dir.path(), "sender.example");
    let there = Node::start(mutual(dir.path(), &identity)).await;
    let here = Node::start(NodeOptions {
        connections_per_peer: 2,
        ..mutual(dir.path(), &identity)
    })
    .await;
    let (peers, address) = (here.node.peers(), there.node.local_addr());
    assert!(peers.connect(address, "127.0.0.1").await.is_err());
    let connected = peers.connect(address, "sender.example").await;
    connected.expect("that is its name");
    for round in 0..4 {
        let sending = tokio::spawn(send_all(there.sender(stream(1)), 1, 3, 100));
        let (seen, end) = receive_all(here.receiver(there.origin(), stream(1)).await).await;
        assert!(end.is_ok() && seen == expected(1, 3));
        assert!(sending.await.expect("no panic").is_ok());
        if round == 1 {
            assert_eq!(peers.connections(address).len(), 2, "both places");
            for connection in peers.connections(address) {
                connection.close();
            }
        }
    }
    here.stop().await;
    there.stop().await;
}
