//! A client and a server of the bus, as two nodes would be, in one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use protos::calls::control::Custom;
use protos::control::CustomMessage;
use protos::{Call, Plane};
use rpc_bus::ledger::Limits;
use rpc_bus::{
    Acceptor, CallOptions, ConnectionOptions, Endpoint, Handler, Hello, IdleTimeout,
    InboundRequest, Ledger, RemoteConnection, RpcFailure, Server, ServerOptions, Verdict, connect,
};
use tokio::task::JoinSet;

use super::threads::{ThreadOptions, Threads};
use super::{Latencies, MESSAGE_BYTES, Window};

/// One connection between two sets of threads.
pub(super) struct Pair {
    connection: RemoteConnection,
    // What follows only has to live as long: server before its threads.
    _server: Server,
    client_threads: Threads,
    _server_threads: Threads,
}

/// Answers every custom message with itself, and nothing else.
struct Echo;

impl Acceptor for Echo {
    fn accept(&self, _: Hello) -> Verdict {
        Verdict::Open {
            reply: Bytes::new(),
            handler: Arc::new(Self),
            idle_timeout: IdleTimeout::Keep,
        }
    }
}

impl Handler for Echo {
    fn handle(&self, request: InboundRequest) {
        if request.rpc_type != Custom::REQUEST {
            let unknown = RpcFailure::unknown_type(request.rpc_type);
            return request.refuse(unknown);
        }
        if let Some((message, _, reply)) = request.decode::<Custom>() {
            reply.send(&message);
        }
    }
}

impl Pair {
    pub(super) fn start(options: ThreadOptions) -> Result<Self> {
        let server_threads = Threads::start(options)?;
        let server = server_threads.app().block_on(serve(&server_threads))?;
        let client_threads = Threads::start(options)?;
        let connection = client_threads
            .app()
            .block_on(open(&client_threads, server.local_addr()))?;
        Ok(Self {
            connection,
            _server: server,
            client_threads,
            _server_threads: server_threads,
        })
    }

    pub(super) fn run(&self, in_flight: usize) -> Result<Latencies> {
        self.client_threads.app().block_on(async {
            let window = Window::now();
            let mut callers = JoinSet::new();
            for _ in 0..in_flight {
                callers.spawn_on(
                    call_until(self.connection.clone(), window),
                    self.client_threads.bus().app(),
                );
            }
            let mut latencies = Latencies::default();
            while let Some(caller) = callers.join_next().await {
                latencies.append(caller.context("a caller panicked")??);
            }
            Ok(latencies)
        })
    }
}

async fn serve(threads: &Threads) -> Result<Server> {
    let options = ServerOptions::new(ConnectionOptions::bit_server());
    let (any_port, bus) = (
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        threads.bus().clone(),
    );
    Ok(Server::bind(
        any_port,
        Plane::Control,
        bus,
        options,
        ledger("server"),
        Arc::new(Echo),
    )
    .await?)
}

async fn open(threads: &Threads, server: SocketAddr) -> Result<RemoteConnection> {
    let (options, hello) = (ConnectionOptions::bit(), Bytes::new());
    let (ledger, nobody) = (ledger("client"), Arc::new(Echo));
    let (connection, _) = connect(
        &Endpoint::new(server, Plane::Control),
        threads.bus(),
        options,
        ledger,
        hello,
        nobody,
    )
    .await?;
    Ok(connection)
}

fn ledger(name: &str) -> Ledger {
    Ledger::root(name, Limits::default())
}

async fn call_until(connection: RemoteConnection, window: Window) -> Result<Latencies> {
    let message = Bytes::from(vec![7; MESSAGE_BYTES]);
    let request = CustomMessage {
        message: Some(message.clone()),
        ..Default::default()
    };
    let mut latencies = Latencies::default();
    loop {
        let begun = Instant::now();
        let answer = connection
            .call::<Custom>(&request, Vec::new(), CallOptions::default())
            .await?;
        ensure!(
            answer.message.message.as_ref() == Some(&message),
            "an echo of something else"
        );
        if !latencies.record(begun, 1, window) {
            return Ok(latencies);
        }
    }
}
