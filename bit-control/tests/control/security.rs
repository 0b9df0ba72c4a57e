//! Nodes that prove to each other who they are: by certificates, and by a password that neither shows.

use std::{fs, path::Path, sync::Arc};

use bit_control::{ControlOptions, CustomReply, Direction, Services};
use bytes::Bytes;
use membership::NodeAddress;
use protos::coord::DrillbitEndpoint;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rpc_bus::{
    CallError, ConnectError,
    auth::{AuthOptions, Authenticator, Credentials, Login, Mechanism, ScramKeys, Users},
    tls::{
        IdentityFiles, Roots, TlsClient, TlsClientOptions, TlsServer, TlsServerFiles, TlsVersions,
    },
};

use crate::support::{Node, QUERY, endpoint, runtime};

/// An authority in `dir`, and a certificate of it for the nodes of `host`.
fn issue(dir: &Path, host: &str) -> IdentityFiles {
    let key = || KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, key()).unwrap();
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = key();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let files = IdentityFiles {
        certificates: dir.join("node.pem"),
        key: dir.join("node-key.pem"),
    };
    fs::write(dir.join("roots.pem"), authority.pem()).unwrap();
    fs::write(&files.certificates, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

/// What a node connects with: trusts the authority in `dir`, and shows `identity`.
fn client(dir: &Path, identity: Option<IdentityFiles>) -> TlsClient {
    let mut options = TlsClientOptions::new(Roots::PemFile(dir.join("roots.pem")));
    options.identity = identity;
    TlsClient::new(options).unwrap()
}

/// A node that shows `identity`, and asks others for theirs.
fn mutual(dir: &Path, identity: &IdentityFiles) -> ControlOptions {
    let files = TlsServerFiles {
        certificates: identity.certificates.clone(),
        key: identity.key.clone(),
        client_authorities: Some(dir.join("roots.pem")),
    };
    let mut options = ControlOptions {
        tls: Some(client(dir, Some(identity.clone()))),
        ..ControlOptions::default()
    };
    options.server.tls = Some(TlsServer::from_files(files, TlsVersions::Both).unwrap());
    options
}

fn echo() -> Services {
    let services = Services::default();
    let echo = |_: &NodeAddress, message: Bytes, body: Bytes, reply: CustomReply| {
        reply.send(message, vec![body]);
    };
    services.custom.register(1, echo).unwrap();
    services
}

/// Both call the other one, over one connection, with large bodies too.
async fn call_each_other(a: &Node, b: &Node) {
    let (there, back) = (a.control.tunnel(b.address()), b.control.tunnel(a.address()));
    for length in [0, 100, 3_000_000] {
        let body = Bytes::from(vec![7; length]);
        for tunnel in [&there, &back] {
            let (message, body) = (Bytes::from_static(b"who is there"), body.clone());
            let answer = tunnel.custom(1, message.clone(), vec![body.clone()]).await;
            let answer = answer.unwrap();
            assert!(answer.message == message && answer.dbody == body);
        }
    }
    let connections = back.peer().unwrap().connections;
    assert_eq!(connections.len(), 1);
    assert_eq!(connections[0].0, Direction::Inbound);
}

/// A node that others know by the name of this machine.
async fn named(options: ControlOptions) -> Node {
    let endpoint = DrillbitEndpoint {
        address: Some("localhost".to_owned()),
        ..endpoint(0)
    };
    Node::known_as(endpoint, options, echo()).await
}

async fn is_refused(node: &Node, by: &Node) {
    let refused = node.control.tunnel(by.address()).cancel_query(QUERY).await;
    let lost = matches!(refused, Err(CallError::Connect(_) | CallError::Lost(_)));
    assert!(lost, "{refused:?}");
    assert!(by.control.tunnel(node.address()).peer().is_none());
}

#[tokio::test]
async fn nodes_call_each_other_over_mutual_tls() {
    let dir = tempfile::tempdir().unwrap();
    let identity = issue(dir.path(), "127.0.0.1");
    let start = |options| Node::with_options(options, echo());
    let a = start(mutual(dir.path(), &identity)).await;
    let b = start(mutual(dir.path(), &identity)).await;
    call_each_other(&a, &b).await;
    for node in [&a, &b] {
        let peers = node.control.peers();
        let tls = peers[0].connections[0].1.tls();
        assert!(tls.is_some_and(|tls| tls.peer_has_certificate), "{tls:?}");
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn certificates_are_for_the_hosts_that_nodes_are_known_by() {
    let dir = tempfile::tempdir().unwrap();
    let identity = issue(dir.path(), "localhost");
    let a = named(mutual(dir.path(), &identity)).await;
    let b = named(mutual(dir.path(), &identity)).await;
    call_each_other(&a, &b).await;
    // By its address it might be another one.
    let by_address = NodeAddress::new("127.0.0.1", b.address().control_port()).unwrap();
    let refused = a.control.tunnel(&by_address).cancel_query(QUERY).await;
    let untrusted = matches!(refused, Err(CallError::Connect(ConnectError::Tls(_))));
    assert!(untrusted, "{refused:?}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_node_without_a_certificate_or_without_tls_is_not_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let identity = issue(dir.path(), "127.0.0.1");
    let there = Node::with_options(mutual(dir.path(), &identity), echo()).await;
    for tls in [None, Some(client(dir.path(), None))] {
        let options = ControlOptions {
            tls,
            ..ControlOptions::default()
        };
        let stranger = Node::with_options(options, Services::default()).await;
        is_refused(&stranger, &there).await;
        stranger.stop().await;
    }
    there.stop().await;
}

/// Knows alice by keys that do not tell her password, and is alice to others.
fn scram(password: &str) -> ControlOptions {
    let file = tempfile::NamedTempFile::new().unwrap();
    let keys = ScramKeys::derive(&"wonder".into()).unwrap();
    fs::write(file.path(), format!("alice:{keys}\n")).unwrap();
    let users = Arc::new(Users::from_file(file.path()).unwrap());
    let only_scram = AuthOptions {
        mechanisms: vec![Mechanism::ScramSha256],
        ..AuthOptions::default()
    };
    let authenticator = Authenticator::new(users, only_scram, runtime()).unwrap();
    let mut login = Login::new(Credentials::new("alice", password));
    login.mechanism = Some(Mechanism::ScramSha256);
    ControlOptions {
        authenticator: Some(Arc::new(authenticator)),
        login: Some(login),
        ..ControlOptions::default()
    }
}

#[tokio::test]
async fn nodes_prove_who_they_are_without_showing_a_password() {
    // Connections live no longer than their runtime.
    let _bus = runtime();
    let a = Node::with_options(scram("wonder"), echo()).await;
    let b = Node::with_options(scram("wonder"), echo()).await;
    call_each_other(&a, &b).await;
    let stranger = Node::with_options(scram("wander"), echo()).await;
    is_refused(&stranger, &b).await;
    for node in [a, b, stranger] {
        node.stop().await;
    }
}
