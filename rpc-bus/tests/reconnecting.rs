//! A client that outlives its connections.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Raw, Scene, plan, query, until};
use protos::{Plane, calls::user::RunQuery, rpc::RpcMode};
use rpc_bus::{
    CallError, CallOptions, CloseReason, ConnectError, ConnectionOptions, Greeter, Handler,
    InboundRequest, ReconnectingClient, RetryOptions, RetryPolicy, Target,
};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, timeout},
};

struct Hello(&'static str);

impl Greeter for Hello {
    fn hello(&self) -> Bytes {
        Bytes::from_static(self.0.as_bytes())
    }

    fn judge(&self, reply: Bytes) -> Result<Vec<String>, String> {
        if reply == "welcome" {
            Ok(Vec::new())
        } else {
            Err(format!("answered {reply:?}"))
        }
    }

    fn handler(&self) -> Arc<dyn Handler> {
        Arc::new(Nothing)
    }
}

struct Nothing;

impl Handler for Nothing {
    fn handle(&self, request: InboundRequest) {
        drop(request);
    }
}

fn client(scene: &Scene, hello: &'static str, endpoints: Vec<SocketAddr>) -> ReconnectingClient {
    let target = Target {
        endpoints,
        plane: Plane::User,
        tls: None,
        login: None,
        options: ConnectionOptions::user_client(),
        ledger: scene.client_ledger.clone(),
        greeter: Arc::new(Hello(hello)),
    };
    let policy = RetryPolicy::try_new(RetryOptions::default()).unwrap();
    ReconnectingClient::try_new(target, scene.runtime.clone(), policy).unwrap()
}

/// Within so many seconds.
async fn echo_within(client: &ReconnectingClient, seconds: u64) -> Result<(), CallError> {
    let options = CallOptions {
        deadline: Some(Duration::from_secs(seconds)),
        ..CallOptions::default()
    };
    client
        .call::<RunQuery>(&query(plan::ECHO), vec![], options)
        .await
        .map(drop)
}

async fn echo(client: &ReconnectingClient) -> Result<(), CallError> {
    let options = CallOptions::default();
    client
        .call::<RunQuery>(&query(plan::ECHO), vec![], options)
        .await
        .map(drop)
}

async fn dead_endpoint() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn calls_share_one_connection_and_a_lost_one_is_made_again() {
    let scene = Scene::new().await;
    let client = client(&scene, "hello", vec![scene.server.local_addr()]);
    let (first, second) = tokio::join!(echo(&client), echo(&client));
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(scene.server.connections().len(), 1);
    scene.server.connections()[0].close();
    until(|| scene.server.connections().is_empty().then_some(())).await;
    assert_eq!(echo(&client).await, Ok(()));
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_in_flight_on_a_lost_connection_is_made_again() {
    let scene = Scene::new().await;
    let client = client(&scene, "hello", vec![scene.server.local_addr()]);
    let request = query(plan::KEEP);
    let call = client.call::<RunQuery>(&request, vec![], CallOptions::default());
    let cut = async {
        let kept = |count| (scene.script.kept.lock().unwrap().len() == count).then_some(());
        until(|| kept(1)).await;
        scene.server.connections()[0].close();
        until(|| kept(2)).await;
        let kept = std::mem::take(&mut *scene.script.kept.lock().unwrap());
        for responder in kept {
            responder.send(common::QUERY_HANDLE, Bytes::new(), vec![]);
        }
    };
    let (answer, ()) = tokio::join!(call, cut);
    assert!(answer.is_ok());
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_is_followed_by_the_next() {
    let scene = Scene::new().await;
    let client = client(
        &scene,
        "hello",
        vec![dead_endpoint().await, scene.server.local_addr()],
    );
    assert_eq!(echo(&client).await, Ok(()));
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_cannot_be_reached_is_given_up_after_five_tries() {
    let scene = Scene::new().await;
    let client = client(&scene, "hello", vec![dead_endpoint().await]);
    let started = Instant::now();
    let error = echo(&client).await.unwrap_err();
    assert!(
        matches!(error, CallError::Connect(ConnectError::Io(_))),
        "{error:?}"
    );
    // At most 100 + 200 + 400 + 800 ms of waiting.
    assert!(started.elapsed() < Duration::from_secs(2));
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final() {
    let scene = Scene::new().await;
    let client = client(&scene, "refuse", vec![scene.server.local_addr()]);
    let error = client.connection().await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Lost(CloseReason::HandshakeRefused { .. })
        ),
        "{error:?}"
    );
    scene.finish().await;
}

/// Nobody accepts here: the kernel connects, and nothing comes after that.
async fn mute_endpoint() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_get_the_outcome_of_one_attempt() {
    let scene = Scene::new().await;
    let (listener, addr) = mute_endpoint().await;
    let client = client(&scene, "hello", vec![addr]);
    let started = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        calls.spawn(async move { echo_within(&client, 10 + 1).await });
    }
    while let Some(call) = calls.join_next().await {
        let error = call.unwrap().unwrap_err();
        let timeout = CloseReason::HandshakeTimeout(Duration::from_secs(10));
        let deadline = CallError::Timeout(Duration::from_secs(11));
        let of_the_attempt = CallError::Connect(ConnectError::Lost(timeout));
        assert!(error == of_the_attempt || error == deadline, "{error:?}");
    }
    assert!(
        started.elapsed() <= Duration::from_secs(11),
        "{:?}",
        started.elapsed()
    );
    // The first try of all of them, and the second.
    for _ in 0..2 {
        assert!(listener.accept().await.is_ok());
    }
    let third = timeout(Duration::from_secs(1), listener.accept()).await;
    assert!(third.is_err(), "{third:?}");
    drop((client, calls));
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_bounds_the_wait_for_a_connection_and_the_attempt_goes_on() {
    let scene = Scene::new().await;
    let (listener, addr) = mute_endpoint().await;
    let client = client(&scene, "hello", vec![addr]);
    let late = echo_within(&client, 1).await;
    assert_eq!(late, Err(CallError::Timeout(Duration::from_secs(1))));
    let mut raw = Raw::new(listener.accept().await.unwrap().0);
    let (hello, ..) = raw.next().await.unwrap();
    let (id, welcome) = (hello.coordination_id.0, b"welcome");
    raw.send(RpcMode::Response, id, 0, welcome).await;
    let connection = client.connection().await.unwrap();
    assert_eq!(connection.local_addr(), raw.peer_addr());
    drop((client, connection));
    assert!(raw.next().await.is_none());
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_with_its_client() {
    let scene = Scene::new().await;
    let (listener, addr) = mute_endpoint().await;
    let client = client(&scene, "hello", vec![addr]);
    assert!(echo_within(&client, 1).await.is_err());
    let mut raw = Raw::new(listener.accept().await.unwrap().0);
    assert!(raw.next().await.is_some());
    let started = Instant::now();
    drop(client);
    assert!(raw.next().await.is_none());
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_that_of_all_tries_together() {
    let scene = Scene::new().await;
    let client = client(&scene, "hello", vec![dead_endpoint().await]);
    let started = Instant::now();
    let options = CallOptions {
        deadline: Some(Duration::from_millis(1)),
        ..CallOptions::default()
    };
    let error = client
        .call::<RunQuery>(&query(plan::ECHO), vec![], options)
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        CallError::Connect(ConnectError::Io(_)) | CallError::Timeout(_)
    ));
    assert!(
        started.elapsed() <= Duration::from_millis(2),
        "{:?}",
        started.elapsed()
    );
    scene.finish().await;
}
