//! TLS and mTLS over real sockets: who is let in, who is not, and what both sides say about it.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod common;

use std::{
    cell::RefCell,
    fs, io,
    sync::{Arc, Once},
    time::Duration,
};

use bytes::Bytes;
use common::{
    Scene,
    certificates::{Authority, server},
    plan, query, run, until,
};
use protos::{calls::user::RunQuery, rpc::RpcMode};
use rpc_bus::{
    CallOptions, CloseReason, ConnectError, ConnectionOptions, Greeter, Handler, InboundRequest,
    ReconnectingClient, RemoteConnection, RetryOptions, RetryPolicy, ServerOptions, Target,
    frame::{DecodeError, FrameErrorKind},
    tls::{Roots, TlsClient, TlsError, TlsInfo, TlsServer, TlsVersion, TlsVersions},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

async fn scene(tls: &TlsServer) -> Scene {
    let tls = tls.clone();
    scene_with(|options| options.tls = Some(tls)).await
}

async fn scene_with(change: impl FnOnce(&mut ServerOptions)) -> Scene {
    listen_to_log();
    Scene::with(change).await
}

/// Why an attempt that must fail because of TLS did.
async fn refusal(scene: &Scene, tls: &TlsClient) -> TlsError {
    match scene.connect_tls(tls).await {
        Err(ConnectError::Tls(error)) => error,
        other => panic!("expected a TLS error, found {other:?}"),
    }
}

/// Connects, calls, and closes.
async fn exchange(scene: &Scene, tls: &TlsClient) -> Option<TlsInfo> {
    let client = scene.connect_tls(tls).await.unwrap();
    assert!(run(&client, plan::ECHO).await.is_ok());
    client.close();
    assert_eq!(client.closed().await, CloseReason::ClosedHere);
    client.tls()
}

// ---- who is let in ----

#[tokio::test]
async fn both_versions_carry_calls() {
    let authority = Authority::new("ours");
    let scene = scene(&authority.server()).await;
    for (versions, version) in [
        (TlsVersions::Tls12, TlsVersion::Tls12),
        (TlsVersions::Tls13, TlsVersion::Tls13),
        (TlsVersions::Both, TlsVersion::Tls13),
    ] {
        let tls = authority.client_with(|options| options.versions = versions);
        let agreed = exchange(&scene, &tls).await.unwrap();
        assert_eq!(
            (agreed.version, agreed.peer_has_certificate),
            (version, true)
        );
    }
    scene.finish().await;
}

#[tokio::test]
async fn versions_that_do_not_meet_are_an_error_of_both_sides() {
    let authority = Authority::new("ours");
    let scene = scene(&authority.server_of_version(TlsVersions::Tls13)).await;
    let old = authority.client_with(|options| options.versions = TlsVersions::Tls12);
    let error = refusal(&scene, &old).await;
    assert!(matches!(error, TlsError::Incompatible { .. }), "{error:?}");
    assert!(!error.is_retryable());
    scene.finish().await;
}

#[tokio::test]
async fn a_client_with_a_certificate_of_the_right_authority_is_let_in() {
    let (ours, clients) = (Authority::new("ours"), Authority::new("clients"));
    let tls = server(&ours.issue("server", &["127.0.0.1"]), Some(&clients));
    assert!(tls.requires_client_certificate());
    let scene = scene(&tls).await;
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        let client = ours.client_with(|options| {
            options.identity = Some(clients.issue("alice", &["alice"]));
            options.versions = versions;
        });
        exchange(&scene, &client).await;
    }
    scene.finish().await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_told_that_one_is_required() {
    let ours = Authority::new("ours");
    let scene = scene(&server(&ours.issue("server", &["127.0.0.1"]), Some(&ours))).await;
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        let client = ours.client_with(|options| options.versions = versions);
        assert_eq!(
            refusal(&scene, &client).await,
            TlsError::CertificateRequired
        );
    }
    logged("the peer has shown no certificate, which this side requires").await;
    scene.finish().await;
}

#[tokio::test]
async fn a_client_with_a_certificate_of_another_authority_is_refused() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let scene = scene(&server(&ours.issue("server", &["127.0.0.1"]), Some(&ours))).await;
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        let client = ours.client_with(|options| {
            options.identity = Some(others.issue("mallory", &["mallory"]));
            options.versions = versions;
        });
        let error = refusal(&scene, &client).await;
        assert_eq!(
            error,
            TlsError::Refused {
                alert: "UnknownCA".to_owned()
            }
        );
        assert!(!error.is_retryable());
    }
    logged("not issued by an authority that this side trusts").await;
    scene.finish().await;
}

// ---- whom a client trusts ----

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_refused_whatever_its_name() {
    let scene = scene(&Authority::new("ours").server()).await;
    for verify_host_name in [true, false] {
        let client = Authority::new("others").client_with(|options| {
            options.verify_host_name = verify_host_name;
        });
        let error = refusal(&scene, &client).await;
        assert_eq!(error, TlsError::UnknownIssuer);
        assert!(!ConnectError::Tls(error).is_retryable());
    }
    scene.finish().await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused_whatever_its_name() {
    let ours = Authority::new("ours");
    let old = ours.issue_with("old", &["127.0.0.1"], |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let scene = scene(&server(&old, None)).await;
    for verify_host_name in [true, false] {
        let client = ours.client_with(|options| options.verify_host_name = verify_host_name);
        assert_eq!(refusal(&scene, &client).await, TlsError::Expired);
    }
    scene.finish().await;
}

#[tokio::test]
async fn a_certificate_of_the_future_is_refused() {
    let ours = Authority::new("ours");
    let early = ours.issue_with("early", &["127.0.0.1"], |params| {
        params.not_before = rcgen::date_time_ymd(4001, 1, 1);
        params.not_after = rcgen::date_time_ymd(4002, 1, 1);
    });
    let scene = scene(&server(&early, None)).await;
    assert_eq!(refusal(&scene, &ours.client()).await, TlsError::NotValidYet);
    scene.finish().await;
}

#[tokio::test]
async fn a_certificate_must_be_for_the_host_unless_that_is_switched_off() {
    let ours = Authority::new("ours");
    let scene = scene(&server(&ours.issue("server", &["drill.example"]), None)).await;
    let error = refusal(&scene, &ours.client()).await;
    let TlsError::NameMismatch {
        expected,
        presented,
    } = &error
    else {
        panic!("expected another name, found {error:?}");
    };
    assert_eq!(expected, "127.0.0.1");
    assert!(
        presented.iter().any(|name| name.contains("drill.example")),
        "{presented:?}"
    );
    assert!(!error.is_retryable());
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        let trusting = ours.client_with(|options| {
            options.verify_host_name = false;
            options.versions = versions;
        });
        exchange(&scene, &trusting).await;
    }
    scene.finish().await;
}

#[tokio::test]
async fn the_name_of_the_options_goes_before_that_of_the_host() {
    let ours = Authority::new("ours");
    let scene = scene(&server(&ours.issue("server", &["drill.example"]), None)).await;
    exchange(&scene, &ours.client().for_host("drill.example").unwrap()).await;
    let named = ours.client_with(|options| options.server_name = Some("drill.example".to_owned()));
    exchange(&scene, &named.for_host("localhost").unwrap()).await;
    let wrong = ours.client().for_host("localhost").unwrap();
    assert!(matches!(
        refusal(&scene, &wrong).await,
        TlsError::NameMismatch { .. }
    ));
    scene.finish().await;
}

#[tokio::test]
async fn roots_may_be_given_as_certificates() {
    let ours = Authority::new("ours");
    let scene = scene(&ours.server()).await;
    let roots = Roots::Certificates(vec![ours.der()]);
    exchange(&scene, &ours.client_with(|options| options.roots = roots)).await;
    scene.finish().await;
}

// ---- reload ----

#[tokio::test]
async fn a_reload_is_for_new_connections_only() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = old.issue("server", &["127.0.0.1"]);
    let tls = server(&files, None);
    let scene = scene(&tls).await;
    let before = scene.connect_tls(&old.client()).await.unwrap();

    let issued = new.issue("server", &["127.0.0.1"]);
    fs::copy(&issued.certificates, &files.certificates).unwrap();
    fs::copy(&issued.key, &files.key).unwrap();
    tls.reload().unwrap();

    assert_eq!(
        refusal(&scene, &old.client()).await,
        TlsError::UnknownIssuer
    );
    exchange(&scene, &new.client()).await;
    assert!(run(&before, plan::ECHO).await.is_ok());
    before.close();
    scene.finish().await;
}

#[tokio::test]
async fn a_reload_that_fails_says_why_and_changes_nothing() {
    let ours = Authority::new("ours");
    let files = ours.issue("server", &["127.0.0.1"]);
    let tls = server(&files, None);
    let scene = scene(&tls).await;
    fs::write(&files.key, "no key").unwrap();
    let error = tls.reload().unwrap_err().to_string();
    assert!(error.contains("server-key.pem"), "{error}");
    exchange(&scene, &ours.client()).await;
    scene.finish().await;
}

#[tokio::test]
async fn a_client_reloads_whom_it_trusts() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let scene = scene(&new.server()).await;
    let client = old.client();
    assert_eq!(refusal(&scene, &client).await, TlsError::UnknownIssuer);
    fs::write(old.roots(), "nothing").unwrap();
    assert!(client.reload().is_err());
    fs::copy(new.roots(), old.roots()).unwrap();
    client.reload().unwrap();
    exchange(&scene, &client).await;
    scene.finish().await;
}

// ---- peers that speak something else, or nothing ----

#[tokio::test]
async fn a_plain_client_at_a_tls_port_learns_that_the_peer_speaks_tls() {
    let scene = scene(&Authority::new("ours").server()).await;
    let options = ConnectionOptions::user_client();
    let error = scene.try_connect(options, "hello").await.unwrap_err();
    let ConnectError::Lost(CloseReason::Decode(DecodeError::Frame(frame))) = &error else {
        panic!("expected a TLS record, found {error:?}");
    };
    assert_eq!(frame.kind, FrameErrorKind::TlsRecord);
    assert!(!error.is_retryable());
    logged("TLS: the peer speaks no TLS").await;
    scene.finish().await;
}

#[tokio::test]
async fn a_tls_client_at_a_plain_port_is_recognised() {
    let scene = scene_with(|_| ()).await;
    let error = refusal(&scene, &Authority::new("ours").client()).await;
    assert_eq!(error, TlsError::ClosedInHandshake);
    assert!(error.is_retryable());
    logged("found a TLS record: the peer speaks TLS, and this side does not").await;
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn both_handshakes_share_one_deadline() {
    let ours = Authority::new("ours");
    let scene = scene(&ours.server()).await;
    let connected = Instant::now();
    let mut silent = scene.raw().await.into_socket();
    let late = scene.raw().await.into_socket();
    tokio::time::sleep(Duration::from_secs(6)).await;
    // TLS is through, and then nothing comes.
    let mut late = tls_over(&ours, late).await;
    assert_eq!(silent.read(&mut [0; 64]).await.unwrap(), 0);
    logged("no handshake within 10s").await;
    assert_eq!(late.read(&mut [0; 64]).await.unwrap_or(0), 0);
    let elapsed = connected.elapsed();
    assert!(
        elapsed >= Duration::from_secs(10) && elapsed < Duration::from_secs(11),
        "{elapsed:?}"
    );
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_shake_hands_is_given_up_at_the_deadline() {
    let scene = scene_with(|_| ()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut to = scene.endpoint_with(&Authority::new("ours").client());
    to.addr = listener.local_addr().unwrap();
    let options = ConnectionOptions::user_client();
    let error = scene
        .try_connect_to(&to, options, "hello")
        .await
        .unwrap_err();
    let reason = CloseReason::HandshakeTimeout(Duration::from_secs(10));
    assert_eq!(error, ConnectError::Lost(reason));
    scene.finish().await;
}

#[tokio::test]
async fn connections_in_their_tls_handshake_count() {
    let tls = Authority::new("ours").server();
    let scene = scene_with(|options| {
        options.tls = Some(tls);
        options.connections_max = 1;
    })
    .await;
    let _silent = scene.raw().await;
    let mut refused = scene.raw().await.into_socket();
    assert_eq!(refused.read(&mut [0; 64]).await.unwrap_or(0), 0);
    assert_eq!(scene.server.connections_refused(), 1);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_tls_handshakes() {
    let scene = scene(&Authority::new("ours").server()).await;
    let mut silent = scene.raw().await.into_socket();
    until(|| (scene.server_ledger.used(rpc_bus::ledger::Kind::Files) == 1).then_some(())).await;
    let started = Instant::now();
    scene.finish().await;
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(silent.read(&mut [0; 64]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_peer_that_vanishes_without_taking_leave_has_closed() {
    let ours = Authority::new("ours");
    for (bytes, mid_frame) in [(Vec::new(), false), (vec![100, 0x0a], true)] {
        let scene = scene(&ours.server()).await;
        let mut peer = tls_over(&ours, scene.raw().await.into_socket()).await;
        let hello = common::frame(RpcMode::Request, 1, 0, b"hello", &[]);
        peer.write_all(&hello).await.unwrap();
        assert!(peer.read(&mut [0; 64]).await.unwrap() > 0);
        peer.write_all(&bytes).await.unwrap();
        peer.flush().await.unwrap();
        // The socket alone: no alert says that there is no more.
        let mut socket = peer.into_inner().0;
        socket.shutdown().await.unwrap();
        assert_eq!(
            scene.close_reason().await,
            CloseReason::PeerClosed { mid_frame }
        );
        drop(socket);
        scene.finish().await;
    }
}

/// A TLS client of the test's own.
async fn tls_over(
    authority: &Authority,
    socket: TcpStream,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("127.0.0.1").unwrap();
    connector.connect(name, socket).await.unwrap()
}

// ---- what goes over it ----

async fn upload(connection: &RemoteConnection, body: &Bytes) {
    let options = CallOptions::default();
    let (request, body_piece) = (query(plan::ECHO), vec![body.clone()]);
    let answer = connection
        .call::<RunQuery>(&request, body_piece, options)
        .await;
    let bytes = answer.unwrap().message.part2;
    assert_eq!(bytes, Some(i64::try_from(body.len()).unwrap()));
}

#[tokio::test]
async fn large_bodies_go_both_ways_at_once() {
    let ours = Authority::new("ours");
    let scene = scene(&ours.server()).await;
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        let tls = ours.client_with(|options| options.versions = versions);
        let client = scene.connect_tls(&tls).await.unwrap();
        let server = scene.server.connections().remove(0);
        let body = Bytes::from(vec![7; 8 << 20]);
        let both = async { tokio::join!(upload(&client, &body), upload(&server, &body)) };
        tokio::join!(both, async {
            tokio::join!(upload(&server, &body), upload(&client, &body))
        });
        client.close();
        client.closed().await;
        until(|| scene.server.connections().is_empty().then_some(())).await;
    }
    scene.finish().await;
}

#[tokio::test]
async fn a_close_writes_what_is_queued_first() {
    let ours = Authority::new("ours");
    let scene = scene(&ours.server()).await;
    let client = scene.connect_tls(&ours.client()).await.unwrap();
    let (body, options) = (Bytes::from(vec![7; 1 << 20]), CallOptions::default());
    let request = query(plan::KEEP);
    let kept = client
        .start::<RunQuery>(&request, vec![body], options)
        .await
        .unwrap();
    client.close();
    drop(kept);
    assert_eq!(client.closed().await, CloseReason::ClosedHere);
    let reason = scene.close_reason().await;
    assert_eq!(reason, CloseReason::PeerClosed { mid_frame: false });
    assert_eq!(scene.script.started.lock().unwrap().len(), 1);
    scene.finish().await;
}

/// Lengths of which at least one fills the kernel's buffers and then ends in those of TLS, which take 64 KiB.
fn body_lengths() -> impl Iterator<Item = usize> {
    (1..20).map(|step| step * 48 * 1024)
}

/// A peer that does not read, and the server's end of its connection, which has queued one request of `bytes`.
async fn stalled(
    authority: &Authority,
    bytes: usize,
) -> (
    Scene,
    tokio_rustls::client::TlsStream<TcpStream>,
    RemoteConnection,
) {
    let tls = authority.server();
    let scene = scene_with(|options| {
        options.tls = Some(tls);
        options.connection.write_queue_bytes_max = 4 << 20;
        options.connection.send_buffer_bytes = Some(16 << 10);
        options.connection.linger_timeout = Duration::from_secs(20);
    })
    .await;
    let mut peer = tls_over(authority, scene.raw().await.into_socket()).await;
    let hello = common::frame(RpcMode::Request, 1, 0, b"hello", &[]);
    peer.write_all(&hello).await.unwrap();
    assert!(peer.read(&mut [0; 64]).await.unwrap() > 0);
    let server = scene.server.connections().remove(0);
    queue(&server, bytes).await;
    (scene, peer, server)
}

/// Queues a request whose answer nobody waits for, and lets the driver write until it sleeps.
async fn queue(connection: &RemoteConnection, bytes: usize) {
    let (request, options) = (query(plan::KEEP), CallOptions::default());
    let body = vec![Bytes::from(vec![7; bytes])];
    drop(connection.start::<RunQuery>(&request, body, options).await);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_tls_holds_back_leaves_once_the_peer_reads() {
    let ours = Authority::new("ours");
    for bytes in body_lengths() {
        let (scene, mut peer, _server) = stalled(&ours, bytes).await;
        let mut body = vec![0; bytes];
        let read = tokio::time::timeout(Duration::from_secs(20), peer.read_exact(&mut body));
        assert!(read.await.is_ok(), "{bytes} bytes did not arrive");
        drop(peer);
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_close_also_writes_what_waits_behind_tls() {
    let ours = Authority::new("ours");
    for bytes in body_lengths() {
        let (scene, mut peer, server) = stalled(&ours, bytes).await;
        queue(&server, 100).await;
        server.close();
        let mut read = Vec::new();
        peer.read_to_end(&mut read).await.unwrap();
        assert!(read.len() > bytes + 100, "{} of {bytes} bytes", read.len());
        drop(peer);
        scene.finish().await;
    }
}

#[tokio::test]
async fn a_lost_connection_is_made_again_with_tls() {
    let ours = Authority::new("ours");
    let scene = scene(&ours.server()).await;
    let client = reconnecting(&scene, ours.client());
    for _ in 0..2 {
        let connection = client.connection().await.unwrap();
        assert!(connection.tls().is_some());
        let options = CallOptions::default();
        let request = query(plan::ECHO);
        let answer = client.call::<RunQuery>(&request, vec![], options).await;
        assert!(answer.is_ok());
        scene.server.connections()[0].close();
        connection.closed().await;
        until(|| scene.server.connections().is_empty().then_some(())).await;
    }
    drop(client);
    scene.finish().await;
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_tried_once() {
    let scene = scene(&Authority::new("ours").server()).await;
    let client = reconnecting(&scene, Authority::new("others").client());
    let error = client.connection().await.unwrap_err();
    assert_eq!(error, ConnectError::Tls(TlsError::UnknownIssuer));
    assert_eq!(logged("with the TLS alert UnknownCA").await, 1);
    scene.finish().await;
}

fn reconnecting(scene: &Scene, tls: TlsClient) -> ReconnectingClient {
    let target = Target {
        endpoints: vec![scene.server.local_addr()],
        plane: protos::Plane::User,
        tls: Some(tls),
        login: None,
        options: ConnectionOptions::user_client(),
        ledger: scene.client_ledger.clone(),
        greeter: Arc::new(Hello),
    };
    let policy = RetryPolicy::try_new(RetryOptions::default()).unwrap();
    ReconnectingClient::try_new(target, scene.runtime.clone(), policy).unwrap()
}

struct Hello;

impl Greeter for Hello {
    fn hello(&self) -> Bytes {
        Bytes::from_static(b"hello")
    }

    fn judge(&self, reply: Bytes) -> Result<Vec<String>, String> {
        (reply == "welcome")
            .then(Vec::new)
            .ok_or_else(|| format!("answered {reply:?}"))
    }

    fn handler(&self) -> Arc<dyn Handler> {
        Arc::new(Self)
    }
}

impl Handler for Hello {
    fn handle(&self, request: InboundRequest) {
        drop(request);
    }
}

// ---- the log ----

thread_local! {
    /// What this thread has logged. Each test has a thread of its own, on which everything of it runs.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct ToThisThread;

impl io::Write for ToThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Before anything else in every test: whether an event is wanted is asked once for all threads.
fn listen_to_log() {
    static SUBSCRIBER: Once = Once::new();
    SUBSCRIBER.call_once(|| {
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(|| ToThisThread)
            .init();
    });
}

/// Waits until a connection was closed for this reason; returns how many were.
async fn logged(reason: &str) -> usize {
    until(|| {
        let lines = LOGGED.with_borrow(|logged| String::from_utf8_lossy(logged).into_owned());
        let closed = lines
            .lines()
            .filter(|line| line.contains("connection closed"));
        let count = closed.filter(|line| line.contains(reason)).count();
        (count > 0).then_some(count)
    })
    .await
}
