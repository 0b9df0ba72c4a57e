//! Who is let in, as Drill's clients ask for it.
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the support is shared with the client's tests"
)]

mod support;

use protos::{
    Call,
    calls::user::{Handshake, RunQuery, SaslMessage},
    rpc::RpcMode,
    shared::{self, SaslStatus, UserCredentials},
    user::{
        self, BitToUserHandshake, HandshakeStatus, Property, SaslSupport, UserProperties,
        UserToBitHandshake,
    },
};
use rpc_bus::auth::{AuthOptions, Mechanism};

use support::{
    TestServer,
    golden::{Recorded, recording},
    peer::Peer,
    until,
    users::{BCRYPT, PASSWORD, SCRAM, only, only_with},
};

fn hello(password: &str, sasl_support: Option<SaslSupport>) -> UserToBitHandshake {
    let property = |key: &str, value: &str| Property {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let properties = vec![
        property("PassWord", password),
        property("trustStorePassword", password),
        property("schema", "dfs"),
    ];
    UserToBitHandshake {
        rpc_version: Some(5),
        support_timeout: Some(true),
        credentials: Some(UserCredentials {
            user_name: Some("alice".to_owned()),
        }),
        properties: Some(UserProperties { properties }),
        sasl_support: sasl_support.map(i32::from),
        ..UserToBitHandshake::default()
    }
}

/// A client, and what its handshake was answered with.
async fn greeted(server: &TestServer, hello: &UserToBitHandshake) -> (Peer, BitToUserHandshake) {
    let mut peer = Peer::connect(server.address()).await;
    peer.request::<Handshake>(1, hello).await;
    let reply = peer.frame().await.reply::<Handshake>();
    (peer, reply)
}

async fn sasl(peer: &mut Peer, mechanism: &str, data: String) -> SaslStatus {
    let start = shared::SaslMessage {
        mechanism: Some(mechanism.to_owned()),
        data: Some(data.into()),
        status: Some(SaslStatus::SaslStart.into()),
    };
    peer.request::<SaslMessage>(2, &start).await;
    peer.frame().await.reply::<SaslMessage>().status()
}

/// Runs a query, so that the session is opened.
async fn query(peer: &mut Peer) {
    let query = user::RunQuery {
        plan: Some("rows 0".to_owned()),
        ..user::RunQuery::default()
    };
    peer.request::<RunQuery>(3, &query).await;
    loop {
        let frame = peer.frame().await;
        if frame.mode == RpcMode::Request {
            peer.acknowledge(frame.id, true).await;
        } else {
            frame.reply::<RunQuery>();
            return;
        }
    }
}

/// The user of the only session; nothing of its properties is a password.
async fn session_user(server: &TestServer) -> String {
    let sessions = || server.engine.sessions.lock().unwrap().clone();
    until("a session is open", || !sessions().is_empty()).await;
    let session = sessions().remove(0);
    assert_eq!(session.schema.as_deref(), Some("dfs"));
    let mut values = session.properties.values();
    assert!(values.all(|value| value != PASSWORD));
    session.user
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_how_to_authenticate_and_is_who_it_has_proved_to_be() {
    let server = TestServer::start(only(SCRAM)).await;
    let mut hello = hello(PASSWORD, Some(SaslSupport::SaslAuth));
    hello.credentials = Some(UserCredentials {
        user_name: Some("root".to_owned()),
    });
    let (mut peer, reply) = greeted(&server, &hello).await;
    assert_eq!(reply.status(), HandshakeStatus::AuthRequired);
    assert_eq!(reply.authentication_mechanisms, ["PLAIN", "SCRAM-SHA-256"]);
    assert_eq!((reply.encrypted, reply.rpc_version()), (Some(false), 5));
    let status = sasl(&mut peer, "PLAIN", format!("\0alice\0{PASSWORD}")).await;
    assert_eq!(status, SaslStatus::SaslSuccess);
    query(&mut peer).await;
    assert_eq!(session_user(&server).await, "alice");
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_a_client_without_sasl_is_taken_from_its_handshake() {
    let server = TestServer::start(only(BCRYPT)).await;
    let (mut peer, reply) = greeted(&server, &hello(PASSWORD, None)).await;
    assert_eq!(reply.status(), HandshakeStatus::Success);
    assert!(reply.authentication_mechanisms.is_empty());
    query(&mut peer).await;
    assert_eq!(session_user(&server).await, "alice");
    drop(peer);
    let (mut peer, reply) = greeted(&server, &hello("nope", None)).await;
    assert_eq!(reply.status(), HandshakeStatus::AuthFailed);
    assert_eq!(
        reply.error_message(),
        "htpasswd auth failed for user 'alice'"
    );
    assert_eq!(reply.error_id().len(), 36);
    assert!(peer.next().await.is_none());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_sasl_needs_plain() {
    let options = AuthOptions {
        mechanisms: vec![Mechanism::ScramSha256],
        ..AuthOptions::default()
    };
    let server = TestServer::start(only_with(SCRAM, options)).await;
    let (mut peer, reply) = greeted(&server, &hello(PASSWORD, None)).await;
    assert_eq!(reply.status(), HandshakeStatus::AuthFailed);
    assert!(peer.next().await.is_none());
    let (mut peer, reply) = greeted(&server, &hello(PASSWORD, Some(SaslSupport::SaslAuth))).await;
    assert_eq!(reply.authentication_mechanisms, ["SCRAM-SHA-256"]);
    let status = sasl(&mut peer, "PLAIN", format!("\0alice\0{PASSWORD}")).await;
    assert_eq!(status, SaslStatus::SaslFailed);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_is_looked_at_first_and_without_authentication_nothing_is_asked() {
    let server = TestServer::start(only(SCRAM)).await;
    let old = UserToBitHandshake {
        rpc_version: Some(4),
        ..hello(PASSWORD, None)
    };
    let (_peer, reply) = greeted(&server, &old).await;
    assert_eq!(reply.status(), HandshakeStatus::RpcVersionMismatch);
    server.stop().await;
    let server = TestServer::start(user_server::UserServerOptions::default()).await;
    let (mut peer, reply) = greeted(&server, &hello(PASSWORD, Some(SaslSupport::SaslAuth))).await;
    assert_eq!(reply.status(), HandshakeStatus::Success);
    query(&mut peer).await;
    assert_eq!(session_user(&server).await, "alice");
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_before_authentication_ends_the_connection() {
    let server = TestServer::start(only(SCRAM)).await;
    let (mut peer, _) = greeted(&server, &hello(PASSWORD, Some(SaslSupport::SaslAuth))).await;
    peer.request::<RunQuery>(2, &user::RunQuery::default())
        .await;
    assert!(peer.next().await.is_none());
    assert!(server.engine.sessions.lock().unwrap().is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_logins_end_as_they_did_with_drill() {
    for name in ["auth_ok", "auth_bad", "auth_none", "auth_nopw"] {
        let server = TestServer::start(only(SCRAM)).await;
        let mut peer = Peer::connect(server.address()).await;
        let frames = recording(&format!("auth/{name}.user1"));
        // Behind the login comes a query that this engine does not know.
        for frame in frames.iter().take(4) {
            replay(&mut peer, frame, name).await;
        }
        if name == "auth_bad" {
            assert!(peer.next().await.is_none(), "Drill closes");
        }
        drop(peer);
        server.stop().await;
    }
}

async fn replay(peer: &mut Peer, recorded: &Recorded, name: &str) {
    if recorded.from_client {
        return peer.send_bytes(&recorded.bytes).await;
    }
    let found = peer.frame().await;
    assert_eq!((found.id, found.rpc_type), (recorded.id, recorded.rpc_type));
    if recorded.rpc_type == SaslMessage::RESPONSE {
        assert_eq!(&found.pbody[..], recorded.pbody, "{name}");
    } else {
        let status = found.reply::<Handshake>().status();
        assert_eq!(status, HandshakeStatus::AuthRequired, "{name}");
    }
}
