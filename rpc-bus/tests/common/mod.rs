//! A bus server with a scripted handler, and a raw peer that may send anything.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part"
)]

pub(crate) mod certificates;

use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use protos::{
    Plane,
    calls::user::{CancelQuery, RunQuery},
    rpc::RpcMode,
    shared::QueryId,
    user as pb,
};
use rpc_bus::{
    Acceptor, BusRuntime, CallOptions, CloseReason, ConnectionOptions, CoordinationId, Endpoint,
    Handler, Hello, IdleTimeout, InboundRequest, Ledger, RemoteConnection, Responder, Server,
    ServerOptions, Verdict, connect,
    frame::{Header, Walk, encode},
    ledger::Limits,
    tls::TlsClient,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) const RUN_QUERY: i32 = 3;
pub(crate) const QUERY_HANDLE: i32 = 7;

pub(crate) fn runtime() -> BusRuntime {
    static CPU: OnceLock<Arc<rayon::ThreadPool>> = OnceLock::new();
    let cpu = CPU.get_or_init(|| {
        Arc::new(
            rayon::ThreadPoolBuilder::new()
                .num_threads(1)
                .build()
                .unwrap(),
        )
    });
    BusRuntime::current(Arc::clone(cpu))
}

/// What the handler of [`Scene`] does with a `RUN_QUERY`, by the plan's text.
pub(crate) mod plan {
    /// Answers with the length of the raw body in `part2`.
    pub(crate) const ECHO: &str = "echo";
    /// Forgets the request.
    pub(crate) const DROP: &str = "drop";
    pub(crate) const PANIC: &str = "panic";
    /// Keeps the request unanswered.
    pub(crate) const KEEP: &str = "keep";
    /// Answers, and everything that was kept as well.
    pub(crate) const RELEASE: &str = "release";
}

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) kept: Mutex<Vec<Responder>>,
    pub(crate) started: Mutex<Vec<i32>>,
    pub(crate) closed: Mutex<Vec<CloseReason>>,
}

impl Script {
    fn run(&self, request: InboundRequest) {
        self.started.lock().unwrap().push(request.coordination_id.0);
        if request.rpc_type != RUN_QUERY {
            let failure = rpc_bus::RpcFailure::unknown_type(request.rpc_type);
            return request.refuse(failure);
        }
        let id = request.coordination_id.0;
        let plan = pb_plan(&request.pbody);
        match plan.as_deref() {
            Some(plan::DROP) => drop(request),
            Some(plan::PANIC) => panic!("as asked"),
            Some(plan::KEEP) => self.kept.lock().unwrap().push(request.responder),
            Some(plan::RELEASE) => {
                let kept = std::mem::take(&mut *self.kept.lock().unwrap());
                for responder in kept {
                    responder.send(QUERY_HANDLE, query_id(0, 0), Vec::new());
                }
                request
                    .responder
                    .send(QUERY_HANDLE, query_id(0, 0), Vec::new());
            }
            _ => {
                let Some((_, dbody, reply)) = request.decode::<RunQuery>() else {
                    return;
                };
                let part2 = i64::try_from(dbody.len()).unwrap();
                reply.send(&QueryId {
                    part1: Some(i64::from(id)),
                    part2: Some(part2),
                });
            }
        }
    }
}

fn query_id(part1: i64, part2: i64) -> Bytes {
    QueryId {
        part1: Some(part1),
        part2: Some(part2),
    }
    .encode_to_vec()
    .into()
}

fn pb_plan(pbody: &Bytes) -> Option<String> {
    pb::RunQuery::decode(pbody.clone()).ok()?.plan
}

struct Scripted(Arc<Script>);

impl Handler for Scripted {
    fn handle(&self, request: InboundRequest) {
        self.0.run(request);
    }

    fn closed(&self, reason: &CloseReason) {
        self.0.closed.lock().unwrap().push(reason.clone());
    }
}

struct Welcome(Arc<Script>);

impl Acceptor for Welcome {
    fn accept(&self, hello: Hello) -> Verdict {
        match &hello.pbody[..] {
            b"refuse" => Verdict::Refuse {
                reply: Some(Bytes::from_static(b"no")),
                reason: "asked".into(),
            },
            b"panic" => panic!("as asked"),
            _ => Verdict::Open {
                reply: Bytes::from_static(b"welcome"),
                handler: Arc::new(Scripted(Arc::clone(&self.0))),
                idle_timeout: IdleTimeout::Keep,
            },
        }
    }
}

/// A server, what its handler saw, and the ledgers of both sides.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) script: Arc<Script>,
    pub(crate) server_ledger: Ledger,
    pub(crate) client_ledger: Ledger,
    pub(crate) runtime: BusRuntime,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        Self::with_ledger(Ledger::root("server", Limits::default()), change).await
    }

    pub(crate) async fn with_ledger(
        server_ledger: Ledger,
        change: impl FnOnce(&mut ServerOptions),
    ) -> Self {
        let mut options = ServerOptions::new(ConnectionOptions::user_server());
        change(&mut options);
        let (runtime, script) = (runtime(), Arc::new(Script::default()));
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let acceptor = Arc::new(Welcome(Arc::clone(&script)));
        let ledger = server_ledger.clone();
        let server = Server::bind(
            addr,
            Plane::User,
            runtime.clone(),
            options,
            ledger,
            acceptor,
        );
        Self {
            server: server.await.unwrap(),
            script,
            server_ledger,
            client_ledger: Ledger::root("client", Limits::default()),
            runtime,
        }
    }

    pub(crate) async fn connect(&self) -> RemoteConnection {
        self.connect_with(ConnectionOptions::user_client()).await
    }

    pub(crate) async fn connect_with(&self, options: ConnectionOptions) -> RemoteConnection {
        self.try_connect(options, "hello").await.unwrap().0
    }

    pub(crate) async fn try_connect(
        &self,
        options: ConnectionOptions,
        hello: &'static str,
    ) -> Result<(RemoteConnection, Bytes), rpc_bus::ConnectError> {
        self.try_connect_to(&self.endpoint(), options, hello).await
    }

    /// Connects by another endpoint, such as a proxy.
    pub(crate) async fn try_connect_to(
        &self,
        to: &Endpoint,
        options: ConnectionOptions,
        hello: &'static str,
    ) -> Result<(RemoteConnection, Bytes), rpc_bus::ConnectError> {
        let handler = Arc::new(Scripted(Arc::default()));
        let ledger = self.client_ledger.clone();
        let hello = Bytes::from_static(hello.as_bytes());
        connect(to, &self.runtime, options, ledger, hello, handler).await
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.server.local_addr(), Plane::User)
    }

    pub(crate) async fn raw(&self) -> Raw {
        Raw::new(TcpStream::connect(self.server.local_addr()).await.unwrap())
    }

    /// A raw peer whose handshake is done.
    pub(crate) async fn raw_open(&self) -> Raw {
        let mut raw = self.raw().await;
        raw.send(RpcMode::Request, 1, 0, b"hello").await;
        assert_eq!(raw.next().await.unwrap().1, b"welcome");
        raw
    }

    /// Why the only connection that has ended so far did.
    pub(crate) async fn close_reason(&self) -> CloseReason {
        until(|| self.script.closed.lock().unwrap().first().cloned()).await
    }

    pub(crate) fn endpoint_with(&self, tls: &TlsClient) -> Endpoint {
        self.endpoint().with_tls(tls.clone())
    }

    /// Connects with TLS.
    pub(crate) async fn connect_tls(
        &self,
        tls: &TlsClient,
    ) -> Result<RemoteConnection, rpc_bus::ConnectError> {
        let (to, options) = (self.endpoint_with(tls), ConnectionOptions::user_client());
        let (connection, reply) = self.try_connect_to(&to, options, "hello").await?;
        assert_eq!(reply, "welcome");
        Ok(connection)
    }

    /// Ends everything; nothing may be left.
    pub(crate) async fn finish(self) {
        self.finish_within(Duration::from_secs(5)).await;
    }

    pub(crate) async fn finish_within(self, grace: Duration) {
        self.server.shutdown(grace).await;
        drop(self.script);
        for ledger in [&self.server_ledger, &self.client_ledger] {
            until(|| ledger.is_zero().then_some(())).await;
        }
    }
}

/// Waits until something is there, by letting everybody else go on.
pub(crate) async fn until<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = probe() {
            return found;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) fn query(plan: &str) -> pb::RunQuery {
    pb::RunQuery {
        plan: Some(plan.into()),
        ..Default::default()
    }
}

pub(crate) async fn run(
    connection: &RemoteConnection,
    plan: &str,
) -> Result<QueryId, rpc_bus::CallError> {
    let answer = connection
        .call::<RunQuery>(&query(plan), vec![], CallOptions::default())
        .await?;
    Ok(answer.message)
}

/// An RPC that the script does not know.
pub(crate) type Unknown = CancelQuery;

/// A peer that sends bytes as it likes.
pub(crate) struct Raw {
    socket: TcpStream,
    unread: Vec<u8>,
}

pub(crate) type RawFrame = (Header, Vec<u8>, Vec<u8>);

impl Raw {
    pub(crate) fn new(socket: TcpStream) -> Self {
        // The second of two small writes must not wait for real time while the clock stands still.
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            unread: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, mode: RpcMode, id: i32, rpc_type: i32, pbody: &[u8]) {
        self.send_bytes(&frame(mode, id, rpc_type, pbody, &[]))
            .await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// Sends as much as the other side takes before it closes.
    pub(crate) async fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// The next frame; `None` at the end of the stream, however it ends.
    pub(crate) async fn next(&mut self) -> Option<RawFrame> {
        loop {
            if let Some(Ok(frame)) = Walk::new(&self.unread, 1 << 30).next() {
                let found = (frame.header, frame.pbody.to_vec(), frame.dbody.to_vec());
                let prefix = if frame.length < 128 { 1 } else { 2 };
                assert!(frame.length < 1 << 14, "raw peers get short frames");
                self.unread.drain(..prefix + frame.length);
                return Some(found);
            }
            let mut bytes = [0; 4096];
            match self.socket.read(&mut bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.unread.extend_from_slice(&bytes[..count]),
            }
        }
    }

    /// Keeps the connection open without doing anything.
    pub(crate) async fn hold(self) {
        let _socket = self.socket;
        pending::<()>().await;
    }

    pub(crate) fn peer_addr(&self) -> SocketAddr {
        self.socket.peer_addr().unwrap()
    }

    pub(crate) fn into_socket(self) -> TcpStream {
        self.socket
    }
}

pub(crate) fn frame(mode: RpcMode, id: i32, rpc_type: i32, pbody: &[u8], dbody: &[u8]) -> Vec<u8> {
    let header = Header {
        mode,
        coordination_id: CoordinationId(id),
        rpc_type,
    };
    let mut wire = Vec::new();
    encode(&header, pbody, dbody, &mut wire);
    wire
}
