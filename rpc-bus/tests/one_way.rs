//! Messages that are never answered, over real sockets.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod common;

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use common::{runtime, until};
use protos::{
    OneWay, Plane,
    calls::{CloseStream, Credit, StreamBatch},
    data,
};
use rpc_bus::{
    Acceptor, BusRuntime, Capabilities, CloseReason, ConnectionOptions, Endpoint, Feature,
    Features, Handler, Hello, IdleTimeout, InboundRequest, Ledger, OneWayMessage, PeerMisbehaved,
    ProtocolError, RemoteConnection, Server, ServerOptions, StreamKey, Verdict, connect,
    ledger::Limits,
};
use tokio::task::JoinSet;

/// Keeps what comes; nobody may close a stream.
#[derive(Default)]
struct Kept {
    limits: Mutex<Vec<u64>>,
    body_bytes: Mutex<usize>,
    /// How many limits had come when a turn ended.
    turns: Mutex<Vec<usize>>,
    closed: Mutex<Option<CloseReason>>,
}

impl Handler for Kept {
    fn handle(&self, request: InboundRequest) {
        drop(request);
    }

    fn one_way(&self, message: OneWayMessage) -> Result<(), PeerMisbehaved> {
        match message.rpc_type {
            Credit::RPC_TYPE => {
                let (credit, _) = message.decode::<Credit>()?;
                self.limits.lock().unwrap().push(credit.limit_bytes());
                Ok(())
            }
            StreamBatch::RPC_TYPE => {
                *self.body_bytes.lock().unwrap() += message.decode::<StreamBatch>()?.1.len();
                Ok(())
            }
            _ => Err(message.unexpected()),
        }
    }

    fn turn_ended(&self) {
        let limits = self.limits.lock().unwrap().len();
        self.turns.lock().unwrap().push(limits);
    }

    fn closed(&self, reason: &CloseReason) {
        *self.closed.lock().unwrap() = Some(reason.clone());
    }
}

/// Lets everybody in, and sends a message right behind that.
struct Greeter {
    kept: Arc<Kept>,
    greetings: Mutex<JoinSet<()>>,
}

impl Acceptor for Greeter {
    fn accept(&self, hello: Hello) -> Verdict {
        let greeting = async move {
            // Until the verdict is known there is nothing to be sent.
            while hello.connection.post_urgent::<Credit>(&credit(77)).is_err() {
                tokio::task::yield_now().await;
            }
        };
        self.greetings.lock().unwrap().spawn(greeting);
        Verdict::Open {
            reply: Bytes::new(),
            handler: Arc::clone(&self.kept) as Arc<dyn Handler>,
            idle_timeout: IdleTimeout::Keep,
        }
    }
}

fn credit(limit_bytes: u64) -> data::Credit {
    data::Credit {
        stream: Some(1),
        limit_bytes: Some(limit_bytes),
        crc: None,
    }
}

fn streaming(mut options: ConnectionOptions) -> ConnectionOptions {
    let ours = Capabilities {
        features: Features::of_any_plane().with(Feature::Streams),
        ..Capabilities::of_software("1.0")
    };
    options.capabilities = Some(Arc::new(ours));
    options
}

struct Scene {
    server: Server,
    taken: Arc<Kept>,
    runtime: BusRuntime,
    ledger: Ledger,
}

impl Scene {
    async fn new() -> Self {
        let (runtime, taken) = (runtime(), Arc::new(Kept::default()));
        let ledger = Ledger::root("test", Limits::default());
        let server = Server::bind(
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            Plane::Data,
            runtime.clone(),
            ServerOptions::new(streaming(ConnectionOptions::bit_server())),
            ledger.clone(),
            Arc::new(Greeter {
                kept: Arc::clone(&taken),
                greetings: Mutex::default(),
            }),
        );
        Self {
            server: server.await.unwrap(),
            taken,
            runtime,
            ledger,
        }
    }

    async fn connect(&self) -> (RemoteConnection, Arc<Kept>) {
        let kept = Arc::new(Kept::default());
        let to = Endpoint::new(self.server.local_addr(), Plane::Data);
        let connecting = connect(
            &to,
            &self.runtime,
            streaming(ConnectionOptions::bit()),
            self.ledger.clone(),
            Bytes::new(),
            Arc::clone(&kept) as Arc<dyn Handler>,
        );
        (connecting.await.unwrap().0, kept)
    }

    async fn finish(self) {
        self.server.shutdown(Duration::from_secs(5)).await;
        until(|| self.ledger.is_zero().then_some(())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_taken_in_their_order_and_nothing_is_left() {
    let scene = Scene::new().await;
    let (client, _) = scene.connect().await;
    let limits: Vec<u64> = (0..1000).collect();
    for &limit in &limits {
        let (message, stream) = (credit(limit), StreamKey(1));
        client
            .post::<Credit>(&message, vec![], stream)
            .await
            .unwrap();
    }
    let batch = data::FragmentRecordBatch::default();
    for _ in 0..10 {
        let body = vec![Bytes::from(vec![7; 1 << 20])];
        client
            .post::<StreamBatch>(&batch, body, StreamKey(2))
            .await
            .unwrap();
    }
    until(|| (*scene.taken.body_bytes.lock().unwrap() == 10 << 20).then_some(())).await;
    assert_eq!(*scene.taken.limits.lock().unwrap(), limits);
    assert_eq!(client.stats().calls_in_flight, 0);
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_message_of_a_stream_waits_for_no_room_and_comes_behind_the_others() {
    let scene = Scene::new().await;
    let (client, _) = scene.connect().await;
    let (batch, stream) = (data::FragmentRecordBatch::default(), StreamKey(1));
    let mut posted = 0;
    // The driver of the connection does not run meanwhile.
    loop {
        let body = vec![Bytes::from(vec![7; 1 << 20])];
        let post = pin!(client.post::<StreamBatch>(&batch, body, stream));
        match post.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => done.unwrap(),
            Poll::Pending => break,
        }
        posted += 1 << 20;
    }
    client.post_last::<Credit>(&credit(5), stream).unwrap();
    until(|| (*scene.taken.limits.lock().unwrap() == [5]).then_some(())).await;
    assert_eq!(*scene.taken.body_bytes.lock().unwrap(), posted);
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_come_together_are_one_turn_which_ends_after_the_last() {
    let scene = Scene::new().await;
    let (client, _) = scene.connect().await;
    for limit in 0..100 {
        client.post_urgent::<Credit>(&credit(limit)).unwrap();
    }
    let turns = || scene.taken.turns.lock().unwrap().clone();
    until(|| (turns().last() == Some(&100)).then_some(())).await;
    assert!(turns().len() < 10, "{:?}", turns());
    drop(client);
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_message_behind_the_handshake_finds_its_handler() {
    let scene = Scene::new().await;
    for _ in 0..50 {
        let (client, kept) = scene.connect().await;
        until(|| (*kept.limits.lock().unwrap() == [77]).then_some(())).await;
        drop(client);
    }
    scene.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_breaks_the_rules_ends_the_connection_with_its_reason() {
    let scene = Scene::new().await;
    let (client, _) = scene.connect().await;
    let message = data::CloseStream::default();
    client.post_urgent::<CloseStream>(&message).unwrap();
    client.closed().await;
    let reason = until(|| scene.taken.closed.lock().unwrap().clone()).await;
    let expected = ProtocolError::OneWay {
        rpc_type: CloseStream::RPC_TYPE,
        reason: "unexpected here".to_owned(),
    };
    assert_eq!(reason, expected.into());
    drop(client);
    scene.finish().await;
}
