//! SASL over real sockets: who is let in, who is not, and what it may cost.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use common::{Raw, runtime, until};
use prost::Message;
use protos::{
    Call, Plane,
    calls::{
        control::QueryCancel,
        data::RecordBatch,
        user::{CancelQuery, SaslMessage as UserSasl},
    },
    error::ErrorType,
    rpc::RpcMode,
    shared::{DrillPbError, QueryId, SaslMessage, SaslStatus},
};
use rpc_bus::{
    Acceptor, BusRuntime, CallError, CallOptions, CloseReason, ConnectError, ConnectionOptions,
    Endpoint, Greeter, Handler, Hello, IdleTimeout, InboundRequest, Ledger, ProtocolError,
    ReconnectingClient, RemoteConnection, RetryOptions, RetryPolicy, Server, ServerOptions, Target,
    Verdict,
    auth::{
        AuthError, AuthOptions, Authenticator, Credentials, Identity, Login, LoginError, Mechanism,
        Users, authenticate,
    },
    connect,
    ledger::Limits,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// No log may hold it.
const PASSWORD: &str = "correct-horse-battery";
const WRONG: &str = "staple-horse-battery";
/// `ann` knows [`PASSWORD`].
const SCRAM_USERS: &str = "ann:SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==$eYkIrwlo2T0d6Ca9d6/xzsgUUbZwOdz0/X0v8MioG9w=:TNz7/wgi5sczC08YCovXDhkXvBBmBt7YYvSKSkQAFg8=";
const BCRYPT_USERS: &str = "ann:$2y$04$abcdefghijklmnopqrstuupOWRSKKNe562z1DsLEArFuJDHVyRIMa";
const SASL: i32 = UserSasl::REQUEST;

/// Everything that this process logs.
fn logged() -> &'static Mutex<Vec<u8>> {
    static LOG: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
        log.with_ansi(false).with_writer(|| Log).init();
        Mutex::default()
    })
}

struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        logged().lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log_text() -> String {
    String::from_utf8_lossy(&logged().lock().unwrap()).into_owned()
}

/// Answers every request of `C`, which stands for the plane's work.
struct Answers<C>(std::marker::PhantomData<fn() -> C>);

impl<C: Call> Handler for Answers<C> {
    fn handle(&self, request: InboundRequest) {
        if let Some((_, _, reply)) = request.decode::<C>() {
            reply.send(&C::Reply::default());
        }
    }
}

/// Asks everybody who they are; a handshake of `user:password` is a client without SASL.
struct Gate<C> {
    authenticator: Arc<Authenticator>,
    admitted: Arc<Mutex<Vec<Identity>>>,
    handler: Arc<Answers<C>>,
}

impl<C: Call> Acceptor for Gate<C> {
    fn accept(&self, hello: Hello) -> Verdict {
        let handler: Arc<dyn Handler> = Arc::<Answers<C>>::clone(&self.handler);
        let admitted = Arc::clone(&self.admitted);
        let authenticator = Arc::clone(&self.authenticator);
        let (reply, idle_timeout) = (Bytes::from_static(b"who"), IdleTimeout::Keep);
        match std::str::from_utf8(&hello.pbody).unwrap().split_once(':') {
            None => Verdict::Authenticate {
                reply,
                authenticator,
                idle_timeout,
                admit: Box::new(move |identity| {
                    admitted.lock().unwrap().push(identity);
                    handler
                }),
            },
            Some((user, password)) => Verdict::Verify {
                credentials: Credentials::new(user, password),
                authenticator,
                then: Box::new(move |verified| match verified {
                    Ok(_) => Verdict::Open {
                        reply,
                        handler,
                        idle_timeout,
                    },
                    Err(error) => Verdict::Refuse {
                        reply: Some(Bytes::from_static(b"no")),
                        reason: error.to_string(),
                    },
                }),
            },
        }
    }
}

/// A server that asks for authentication.
struct Scene {
    server: Server,
    authenticator: Arc<Authenticator>,
    admitted: Arc<Mutex<Vec<Identity>>>,
    runtime: BusRuntime,
    ledger: Ledger,
    file: tempfile::NamedTempFile,
}

impl Scene {
    async fn new(users: &str) -> Self {
        Self::with::<CancelQuery>(users, AuthOptions::default()).await
    }

    async fn with<C: Call>(users: &str, options: AuthOptions) -> Self {
        Self::changed::<C>(users, options, |authenticator| authenticator).await
    }

    async fn changed<C: Call>(
        users: &str,
        options: AuthOptions,
        change: impl FnOnce(Authenticator) -> Authenticator,
    ) -> Self {
        logged();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, users).unwrap();
        let (runtime, admitted) = (runtime(), Arc::<Mutex<_>>::default());
        let users = Arc::new(Users::from_file(file.path()).unwrap());
        let authenticator = Authenticator::new(users, options, runtime.clone()).unwrap();
        let authenticator = Arc::new(change(authenticator));
        let gate = Gate::<C> {
            authenticator: Arc::clone(&authenticator),
            admitted: Arc::clone(&admitted),
            handler: Arc::new(Answers(std::marker::PhantomData)),
        };
        let options = ServerOptions::new(ConnectionOptions::user_server());
        let ledger = Ledger::root("test", Limits::default());
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let gate = Arc::new(gate);
        let server = Server::bind(
            here,
            C::PLANE,
            runtime.clone(),
            options,
            ledger.clone(),
            gate,
        );
        Self {
            server: server.await.unwrap(),
            authenticator,
            admitted,
            runtime,
            ledger,
            file,
        }
    }

    /// Shakes hands as a client, and no more.
    async fn connect(&self, plane: Plane) -> RemoteConnection {
        dial(self.server.local_addr(), plane, &self.runtime, &self.ledger).await
    }

    async fn login(
        &self,
        plane: Plane,
        login: &Login,
    ) -> (RemoteConnection, Result<Identity, LoginError>) {
        let connection = self.connect(plane).await;
        let offered = self.authenticator.mechanisms();
        let offered: Vec<_> = offered.iter().map(ToString::to_string).collect();
        let identity = authenticate(&connection, &self.runtime, login, &offered).await;
        (connection, identity)
    }

    async fn raw(&self) -> Raw {
        self.raw_from([127, 0, 0, 1]).await
    }

    /// A raw peer with an address of its own, whose handshake is done.
    async fn raw_from(&self, address: [u8; 4]) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        let socket = socket.connect(self.server.local_addr()).await.unwrap();
        let mut raw = Raw::new(socket);
        raw.send(RpcMode::Request, 1, 0, b"hello").await;
        assert_eq!(raw.next().await.unwrap().1, b"who");
        raw
    }

    /// The server's end of the only connection.
    fn connection(&self) -> RemoteConnection {
        self.server.connections().pop().unwrap()
    }

    async fn finish(self) {
        self.server.shutdown(Duration::from_secs(5)).await;
        until(|| self.ledger.is_zero().then_some(())).await;
        let log = log_text();
        assert!(!log.contains(PASSWORD) && !log.contains(WRONG));
    }
}

/// Says hello as a client that can prove who it is.
struct Greets(Vec<String>);

impl Greeter for Greets {
    fn hello(&self) -> Bytes {
        Bytes::from_static(b"hello")
    }

    fn judge(&self, _reply: Bytes) -> Result<Vec<String>, String> {
        Ok(self.0.clone())
    }

    fn handler(&self) -> Arc<dyn Handler> {
        Arc::new(Answers::<CancelQuery>(std::marker::PhantomData))
    }
}

fn reconnecting(scene: &Scene, login: Option<Login>) -> ReconnectingClient {
    let mechanisms = scene.authenticator.mechanisms();
    let target = Target {
        endpoints: vec![scene.server.local_addr()],
        plane: Plane::User,
        tls: None,
        login,
        options: ConnectionOptions::user_client(),
        ledger: scene.ledger.clone(),
        greeter: Arc::new(Greets(mechanisms.iter().map(ToString::to_string).collect())),
    };
    let policy = RetryPolicy::try_new(RetryOptions::default()).unwrap();
    ReconnectingClient::try_new(target, scene.runtime.clone(), policy).unwrap()
}

#[tokio::test]
async fn a_reconnecting_client_proves_who_it_is_on_every_connection() {
    let scene = Scene::new(SCRAM_USERS).await;
    let login = Login::new(Credentials::new("ann", PASSWORD));
    let client = reconnecting(&scene, Some(login));
    let query = QueryId::default();
    for logins in 1..=2 {
        let cancel = client.call::<CancelQuery>(&query, vec![], CallOptions::default());
        cancel.await.unwrap();
        assert_eq!(scene.admitted.lock().unwrap().len(), logins);
        client.close();
    }
    scene.finish().await;
}

#[tokio::test]
async fn a_reconnecting_client_that_is_not_let_in_tries_once() {
    let scene = Scene::new(SCRAM_USERS).await;
    let login = Login::new(Credentials::new("ann", WRONG));
    let refused = reconnecting(&scene, Some(login)).connection().await;
    let rejected = ConnectError::Login(Box::new(LoginError::Rejected));
    assert_eq!(refused.map(|_| ()), Err(rejected));
    let nobody = reconnecting(&scene, None).connection().await;
    assert_eq!(nobody.map(|_| ()), Err(ConnectError::NoLogin));
    scene.finish().await;
}

async fn dial(
    address: SocketAddr,
    plane: Plane,
    runtime: &BusRuntime,
    ledger: &Ledger,
) -> RemoteConnection {
    let (options, hello) = (
        ConnectionOptions::user_client(),
        Bytes::from_static(b"hello"),
    );
    let handler = Arc::new(Answers::<CancelQuery>(std::marker::PhantomData));
    let ledger = ledger.clone();
    let to = Endpoint::new(address, plane);
    let opened = connect(&to, runtime, options, ledger, hello, handler);
    opened.await.unwrap().0
}

fn login(password: &str, mechanism: Option<Mechanism>) -> Login {
    Login {
        mechanism,
        ..Login::new(Credentials::new("ann", password))
    }
}

fn start(mechanism: &str, data: &[u8]) -> Vec<u8> {
    step(SaslStatus::SaslStart, Some(mechanism), data)
}

fn step(status: SaslStatus, mechanism: Option<&str>, data: &[u8]) -> Vec<u8> {
    let message = SaslMessage {
        mechanism: mechanism.map(str::to_owned),
        data: Some(Bytes::copy_from_slice(data)),
        status: Some(status.into()),
    };
    message.encode_to_vec()
}

fn plain(password: &str) -> Vec<u8> {
    plain_of("ann", password)
}

fn plain_of(user: &str, password: &str) -> Vec<u8> {
    start("PLAIN", format!("\0{user}\0{password}").as_bytes())
}

/// What a raw peer is told; `None` if the connection ends first.
async fn answer(raw: &mut Raw, message: &[u8]) -> Option<SaslStatus> {
    raw.send(RpcMode::Request, 2, SASL, message).await;
    let (header, pbody, _) = raw.next().await?;
    assert_eq!((header.coordination_id.0, header.rpc_type), (2, SASL));
    Some(SaslMessage::decode(&*pbody).unwrap().status())
}

/// Who logs in on a plane can work there; who does not know the password cannot.
async fn comes_in_on<C: Call>(users: &str, mechanism: Mechanism) {
    let scene = Scene::with::<C>(users, AuthOptions::default()).await;
    let right = login(PASSWORD, Some(mechanism));
    let (connection, identity) = scene.login(C::PLANE, &right).await;
    let ann = Identity {
        user: "ann".to_owned(),
        mechanism,
    };
    assert_eq!(identity, Ok(ann.clone()));
    assert_eq!(*scene.admitted.lock().unwrap(), [ann]);
    let request = C::Request::default();
    connection
        .call::<C>(&request, vec![], CallOptions::default())
        .await
        .unwrap();
    connection.close();
    for wrong in [WRONG, ""] {
        let wrong = login(wrong, Some(mechanism));
        let (connection, identity) = scene.login(C::PLANE, &wrong).await;
        assert_eq!(identity, Err(LoginError::Rejected));
        let ended = connection.closed().await;
        assert_eq!(ended, CloseReason::PeerClosed { mid_frame: false });
    }
    assert_eq!(scene.admitted.lock().unwrap().len(), 1);
    scene.finish().await;
}

#[tokio::test]
async fn both_mechanisms_work_on_every_plane() {
    for (users, mechanism) in [
        (SCRAM_USERS, Mechanism::ScramSha256),
        (SCRAM_USERS, Mechanism::Plain),
        (BCRYPT_USERS, Mechanism::Plain),
    ] {
        comes_in_on::<CancelQuery>(users, mechanism).await;
        comes_in_on::<QueryCancel>(users, mechanism).await;
        comes_in_on::<RecordBatch>(users, mechanism).await;
    }
}

#[tokio::test]
async fn scram_is_offered_if_everybody_has_keys_for_it_and_taken_first() {
    let scene = Scene::new(SCRAM_USERS).await;
    let (_connection, identity) = scene.login(Plane::User, &login(PASSWORD, None)).await;
    assert_eq!(identity.unwrap().mechanism, Mechanism::ScramSha256);
    scene.finish().await;
    let mixed = format!("{SCRAM_USERS}\n{}", BCRYPT_USERS.replace("ann", "bob"));
    let scene = Scene::new(&mixed).await;
    assert_eq!(scene.authenticator.mechanisms(), [Mechanism::Plain]);
    let mut raw = scene.raw().await;
    let message = start("SCRAM-SHA-256", b"n,,n=ann,r=abc");
    assert_eq!(
        answer(&mut raw, &message).await,
        Some(SaslStatus::SaslFailed)
    );
    scene.finish().await;
}

#[tokio::test]
async fn unknown_users_are_told_the_same_as_known_ones() {
    for users in [SCRAM_USERS, BCRYPT_USERS] {
        let scene = Scene::new(users).await;
        for mechanism in scene.authenticator.mechanisms() {
            let mut nobody = login(PASSWORD, Some(mechanism));
            nobody.credentials.user = "nobody".to_owned();
            let (_connection, identity) = scene.login(Plane::User, &nobody).await;
            assert_eq!(identity, Err(LoginError::Rejected), "{mechanism}");
        }
        scene.finish().await;
    }
}

#[tokio::test]
async fn users_are_read_again_while_connections_stay() {
    let scene = Scene::new(BCRYPT_USERS).await;
    let (connection, identity) = scene.login(Plane::User, &login(PASSWORD, None)).await;
    identity.unwrap();
    std::fs::write(&scene.file, BCRYPT_USERS.replace("ann", "bob")).unwrap();
    scene.authenticator.users().reload().unwrap();
    let (_connection, identity) = scene.login(Plane::User, &login(PASSWORD, None)).await;
    assert_eq!(identity, Err(LoginError::Rejected));
    assert!(!connection.is_closed());
    scene.finish().await;
}

#[tokio::test]
async fn what_is_no_exchange_is_failed_and_the_connection_closed() {
    let scene = Scene::new(SCRAM_USERS).await;
    let first = b"n,,n=ann,r=abc".as_slice();
    for message in [
        start("KERBEROS", b""),
        start("GSSAPI", b""),
        start("", b""),
        start("PLAIN", b""),
        start("PLAIN", b"\0ann"),
        start("PLAIN", format!("bob\0ann\0{PASSWORD}").as_bytes()),
        start("SCRAM-SHA-256", b"n,,n=ann"),
        start("SCRAM-SHA-256-PLUS", first),
        step(SaslStatus::SaslInProgress, Some("PLAIN"), b"\0ann\0x"),
        step(SaslStatus::SaslSuccess, None, b""),
        step(SaslStatus::SaslUnknown, None, b""),
        step(SaslStatus::SaslFailed, None, b""),
        b"\xff\xff".to_vec(),
    ] {
        let mut raw = scene.raw().await;
        assert_eq!(
            answer(&mut raw, &message).await,
            Some(SaslStatus::SaslFailed)
        );
        assert_eq!(raw.next().await, None, "{message:?}");
    }
    assert!(log_text().contains(r#"the mechanism "KERBEROS" is not offered"#));
    scene.finish().await;
}

#[tokio::test]
async fn the_authorization_id_may_be_the_user_itself() {
    let scene = Scene::new(BCRYPT_USERS).await;
    let message = start("plain", format!("ann\0ann\0{PASSWORD}").as_bytes());
    let told = answer(&mut scene.raw().await, &message).await;
    assert_eq!(told, Some(SaslStatus::SaslSuccess));
    scene.finish().await;
}

#[tokio::test]
async fn a_second_start_is_failed() {
    let scene = Scene::new(SCRAM_USERS).await;
    let mut raw = scene.raw().await;
    let message = start("SCRAM-SHA-256", b"n,,n=ann,r=abc");
    assert_eq!(
        answer(&mut raw, &message).await,
        Some(SaslStatus::SaslInProgress)
    );
    assert_eq!(
        answer(&mut raw, &plain(PASSWORD)).await,
        Some(SaslStatus::SaslFailed)
    );
    assert_eq!(raw.next().await, None);
    scene.finish().await;
}

#[tokio::test]
async fn a_request_before_authentication_ends_the_connection_without_an_answer() {
    let scene = Scene::new(BCRYPT_USERS).await;
    let mut raw = scene.raw().await;
    let connection = scene.connection();
    raw.send(RpcMode::Request, 2, CancelQuery::REQUEST, &[])
        .await;
    assert_eq!(raw.next().await, None);
    let actual = CancelQuery::REQUEST;
    let reason = ProtocolError::NotAuthenticated { actual }.into();
    assert_eq!(connection.closed().await, reason);
    scene.finish().await;
}

#[tokio::test]
async fn a_ping_before_authentication_is_answered() {
    let scene = Scene::new(SCRAM_USERS).await;
    let mut raw = scene.raw().await;
    raw.send(RpcMode::Ping, 0, 0, &[]).await;
    assert_eq!(raw.next().await.unwrap().0.mode, RpcMode::Pong);
    assert_eq!(
        answer(&mut raw, &plain(PASSWORD)).await,
        Some(SaslStatus::SaslSuccess)
    );
    scene.finish().await;
}

#[tokio::test]
async fn frames_stay_small_until_authenticated() {
    let scene = Scene::new(BCRYPT_USERS).await;
    let mut raw = scene.raw().await;
    let connection = scene.connection();
    let _ = raw
        .try_send_bytes(&common::frame(
            RpcMode::Request,
            2,
            SASL,
            &vec![0; 65_537],
            &[],
        ))
        .await;
    assert_eq!(raw.next().await, None);
    assert!(matches!(connection.closed().await, CloseReason::Decode(_)));
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_authenticate_in_time_is_closed() {
    let scene = Scene::new(SCRAM_USERS).await;
    let mut raw = scene.raw().await;
    let message = start("SCRAM-SHA-256", b"n,,n=ann,r=abc");
    assert_eq!(
        answer(&mut raw, &message).await,
        Some(SaslStatus::SaslInProgress)
    );
    let connection = scene.connection();
    assert_eq!(raw.next().await, None);
    let patience = Duration::from_secs(10);
    assert_eq!(
        connection.closed().await,
        CloseReason::HandshakeTimeout(patience)
    );
    scene.finish().await;
}

#[tokio::test]
async fn the_old_way_with_the_password_in_the_handshake_is_checked_too() {
    let scene = Scene::new(BCRYPT_USERS).await;
    for (hello, reply) in [
        (format!("ann:{PASSWORD}"), b"who".as_slice()),
        (format!("ann:{WRONG}"), b"no"),
        (format!("bob:{PASSWORD}"), b"no"),
    ] {
        let mut raw = Raw::new(TcpStream::connect(scene.server.local_addr()).await.unwrap());
        raw.send(RpcMode::Request, 1, 0, hello.as_bytes()).await;
        assert_eq!(raw.next().await.unwrap().1, reply);
        if reply == b"no" {
            assert_eq!(raw.next().await, None);
        }
    }
    scene.finish().await;
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_refused_and_others_are_not() {
    let options = AuthOptions {
        failures_per_peer_max: 3,
        ..AuthOptions::default()
    };
    let scene = Scene::with::<CancelQuery>(BCRYPT_USERS, options).await;
    for _ in 0..3 {
        let told = answer(&mut scene.raw().await, &plain(WRONG)).await;
        assert_eq!(told, Some(SaslStatus::SaslFailed));
    }
    let (_connection, refused) = scene.login(Plane::User, &login(PASSWORD, None)).await;
    let Err(LoginError::Call(CallError::Remote(failure))) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(failure.error.error_type(), ErrorType::Resource);
    assert!(
        failure
            .error
            .message()
            .starts_with("too many failed logins")
    );
    let told = answer(&mut scene.raw_from([127, 0, 0, 2]).await, &plain(PASSWORD)).await;
    assert_eq!(told, Some(SaslStatus::SaslSuccess));
    assert!(log_text().contains("too many failed logins from this address"));
    scene.finish().await;
}

const NODES: &str = "a node of this test";

/// `ann` proves who she is, but only `bob` may come in: a peer at an address of its own is told so, as often as it tries.
async fn is_not_admitted<C: Call>(users: &str, mechanism: Mechanism) {
    let options = AuthOptions {
        failures_per_peer_max: 2,
        ..AuthOptions::default()
    };
    let only_bob = |all: Authenticator| all.only(["bob".to_owned()], NODES);
    let scene = Scene::changed::<C>(users, options, only_bob).await;
    let right = login(PASSWORD, Some(mechanism));
    for _ in 0..4 {
        let (connection, refused) = scene.login(C::PLANE, &right).await;
        let Err(LoginError::Call(CallError::Remote(failure))) = refused else {
            panic!("{refused:?}")
        };
        let error = &failure.error;
        assert_eq!(error.error_type(), ErrorType::Permission);
        let told = format!("the user \"ann\" may not come in here, expected {NODES}");
        assert_eq!(error.message(), told);
        assert!(!rpc_bus::is_retryable(&CallError::Remote(failure)));
        let ended = connection.closed().await;
        assert_eq!(ended, CloseReason::PeerClosed { mid_frame: false });
    }
    assert!(scene.admitted.lock().unwrap().is_empty());
    let wrong = login(WRONG, Some(mechanism));
    let (_connection, refused) = scene.login(C::PLANE, &wrong).await;
    assert_eq!(refused, Err(LoginError::Rejected), "she is told no more");
    let runtime = scene.runtime.clone();
    scene.finish().await;
    let metrics = runtime.metrics().snapshot();
    let plane = metrics.iter().find(|plane| plane.plane == C::PLANE);
    let closed = &plane.unwrap().connections.closed;
    assert_eq!(closed.get("not_admitted"), Some(&4), "{closed:?}");
}

#[tokio::test]
async fn who_is_not_one_of_those_that_may_come_in_is_told_and_not_kept_out_for_it() {
    for (users, mechanism) in [
        (SCRAM_USERS, Mechanism::ScramSha256),
        (SCRAM_USERS, Mechanism::Plain),
        (BCRYPT_USERS, Mechanism::Plain),
    ] {
        is_not_admitted::<QueryCancel>(users, mechanism).await;
        is_not_admitted::<RecordBatch>(users, mechanism).await;
    }
}

#[tokio::test]
async fn a_refusal_of_who_may_not_come_in_is_a_warning_once_for_each_user_of_an_address() {
    const HERE: &str = "a node of the test of the log";
    let only_bob = |all: Authenticator| all.only(["bob".to_owned()], HERE);
    let hash = BCRYPT_USERS.split_once(':').unwrap().1;
    let users = format!("ann:{hash}\ncarl:{hash}");
    let scene = Scene::changed::<CancelQuery>(&users, AuthOptions::default(), only_bob).await;
    for user in ["ann", "ann", "ann", "carl"] {
        let mut raw = scene.raw().await;
        let message = plain_of(user, PASSWORD);
        raw.send(RpcMode::Request, 2, SASL, &message).await;
        let (header, ..) = raw.next().await.unwrap();
        assert_eq!(header.mode, RpcMode::ResponseFailure);
        assert_eq!(raw.next().await, None);
    }
    let log = log_text();
    let told = |what: &str, user: &str| {
        let told = log
            .lines()
            .filter(|line| [what, user, HERE].iter().all(|part| line.contains(part)));
        told.count()
    };
    assert_eq!(told(" WARN ", "ann"), 1, "{log}");
    assert_eq!(told(" WARN ", "carl"), 1, "{log}");
    assert_eq!(told("refused again", "ann"), 2, "{log}");
    scene.finish().await;
}

/// Typed with a combining accent, or with a no-break space, a name is the same.
#[tokio::test]
async fn who_may_come_in_does_whichever_way_the_name_is_written() {
    let hash = BCRYPT_USERS.split_once(':').unwrap().1;
    let users = format!("jos\u{e9} a:{hash}");
    let scene = Scene::new(&users).await;
    let here = [127, 0, 0, 9].into();
    let ways = ["jos\u{e9} a", "jose\u{301} a", "jos\u{e9}\u{a0}a"];
    for configured in ways {
        assert!(scene.authenticator.users().contains(configured));
        let only = scene.authenticator.only([configured.to_owned()], NODES);
        for typed in ways {
            let identity = only.verify(here, Credentials::new(typed, PASSWORD)).await;
            assert_eq!(identity.unwrap().user, ways[0]);
        }
    }
    assert!(!scene.authenticator.users().contains("jos\u{e9}"));
    scene.finish().await;
}

#[tokio::test]
async fn who_may_come_in_does_and_all_count_under_the_same_limits() {
    let scene = Scene::new(BCRYPT_USERS).await;
    let only_ann = scene.authenticator.only(["ann".to_owned()], NODES);
    let (here, ann) = ([127, 0, 0, 9].into(), Credentials::new("ann", PASSWORD));
    assert!(only_ann.verify(here, ann.clone()).await.is_ok());
    for _ in 0..AuthOptions::default().failures_per_peer_max {
        let wrong = Credentials::new("ann", WRONG);
        let refused = scene.authenticator.verify(here, wrong).await;
        assert_eq!(refused, Err(AuthError::Rejected));
    }
    let refused = only_ann.verify(here, ann).await;
    assert!(
        matches!(refused, Err(AuthError::TooManyFailures { .. })),
        "{refused:?}"
    );
    scene.finish().await;
}

#[tokio::test]
async fn a_flood_of_bad_logins_costs_a_bounded_amount_and_others_come_in() {
    const PEERS: usize = 200;
    let options = AuthOptions::default();
    let checks_max = options.failures_per_peer_max as usize + options.waiting_per_peer_max;
    let scene = Scene::with::<CancelQuery>(BCRYPT_USERS, options).await;
    let mut flood = Vec::new();
    for _ in 0..PEERS {
        flood.push(scene.raw().await);
    }
    for raw in &mut flood {
        raw.send(RpcMode::Request, 2, SASL, &plain(WRONG)).await;
    }
    let told = answer(&mut scene.raw_from([127, 0, 0, 2]).await, &plain(PASSWORD)).await;
    assert_eq!(told, Some(SaslStatus::SaslSuccess));
    let (mut checked, mut refused) = (0, 0);
    for raw in &mut flood {
        let (header, pbody, _) = raw.next().await.unwrap();
        match header.mode {
            RpcMode::ResponseFailure => {
                let error = DrillPbError::decode(&*pbody).unwrap();
                assert_eq!(error.error_type(), ErrorType::Resource);
                refused += 1;
            }
            _ => checked += 1,
        }
        assert_eq!(raw.next().await, None);
    }
    assert!(checked <= checks_max, "{checked} passwords were checked");
    assert_eq!(checked + refused, PEERS);
    scene.finish().await;
}

#[tokio::test]
async fn logins_are_logged_with_user_and_peer_and_never_with_a_password() {
    let scene = Scene::new(SCRAM_USERS).await;
    for password in [PASSWORD, WRONG] {
        for mechanism in Mechanism::ALL {
            let _ended = scene
                .login(Plane::User, &login(password, Some(mechanism)))
                .await;
        }
    }
    let log = log_text();
    for line in [
        r#"login user="ann" peer=127.0.0.1 mechanism="SCRAM-SHA-256""#,
        r#"login user="ann" peer=127.0.0.1 mechanism="PLAIN""#,
        r#"login failed user="ann" peer=127.0.0.1 mechanism="PLAIN""#,
        "reason=authentication failed: user or password are wrong",
    ] {
        assert!(log.contains(line), "{line} is not in\n{log}");
    }
    scene.finish().await;
}

#[tokio::test]
async fn no_debug_form_shows_a_password() {
    let scene = Scene::new(BCRYPT_USERS).await;
    let shown = format!("{:?} {:?}", login(PASSWORD, None), scene.authenticator);
    assert!(
        !shown.contains(PASSWORD) && !shown.contains("$2y$"),
        "{shown}"
    );
    scene.finish().await;
}

/// Answers the handshake and then, one by one, SASL messages as it likes.
async fn impostor(answers: Vec<(SaslStatus, &'static str)>) -> LoginError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let mut raw = Raw::new(listener.accept().await.unwrap().0);
        raw.next().await.unwrap();
        raw.send(RpcMode::Response, 1, 0, b"who").await;
        for (status, data) in answers {
            let (header, pbody, _) = raw.next().await.unwrap();
            // The client's nonce is the last part of its first message.
            let said = SaslMessage::decode(&*pbody).unwrap();
            let said = String::from_utf8_lossy(said.data()).into_owned();
            let nonce = said.rsplit_once("r=").map_or("", |(_, nonce)| nonce);
            let message = step(status, None, data.replace("NONCE", nonce).as_bytes());
            let id = header.coordination_id.0;
            raw.send(RpcMode::Response, id, SASL, &message).await;
        }
        raw
    };
    let (runtime, ledger) = (runtime(), Ledger::root("test", Limits::default()));
    let come_in = async {
        let connection = dial(address, Plane::User, &runtime, &ledger).await;
        let login = login(PASSWORD, Some(Mechanism::ScramSha256));
        let offered = ["SCRAM-SHA-256".to_owned()];
        authenticate(&connection, &runtime, &login, &offered).await
    };
    let (_raw, outcome) = tokio::join!(serve, come_in);
    until(|| ledger.is_zero().then_some(())).await;
    outcome.unwrap_err()
}

#[tokio::test]
async fn a_server_that_only_says_success_is_not_believed() {
    const CHALLENGE: &str = "r=NONCEmore,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    let challenge = (SaslStatus::SaslInProgress, CHALLENGE);
    let at_once = impostor(vec![(SaslStatus::SaslSuccess, "")]).await;
    assert_eq!(at_once, LoginError::NotGenuine);
    for signature in ["", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "e=no"] {
        let error = impostor(vec![challenge, (SaslStatus::SaslSuccess, signature)]).await;
        assert_eq!(error, LoginError::NotGenuine, "{signature}");
    }
    let other = (
        SaslStatus::SaslInProgress,
        "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    );
    let error = impostor(vec![other]).await;
    assert_eq!(error, LoginError::Server("a nonce that is not ours"));
}

#[test]
fn errors_that_another_try_may_mend_say_so() {
    assert!(AuthError::Busy.is_retryable() && !AuthError::Rejected.is_retryable());
    assert!(!LoginError::Rejected.is_retryable() && !LoginError::NotGenuine.is_retryable());
}
