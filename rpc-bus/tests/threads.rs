//! Which thread does what, on runtimes of their own. Nothing here measures time: what must not wait would wait for ever.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Barrier, Mutex},
    thread::ThreadId,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protos::{
    Call, Plane,
    calls::{
        unordered,
        user::{CancelQuery, RunQuery},
    },
    rpc::Ack,
    shared::QueryId,
    user as pb,
};
use rpc_bus::{
    Acceptor, BusRuntime, CallError, CallOptions, ConnectionOptions, Endpoint, Handler, Hello,
    IdleTimeout, InboundRequest, Ledger, PendingAnswer, RemoteConnection, Server, ServerOptions,
    Verdict, connect, ledger::Limits,
};
use tokio::runtime::{Builder, Runtime};

/// `RUN_QUERY` waits at the barrier, which no handler may do; `CANCEL_QUERY` is started on the I/O thread, and panics
/// where the query is that of [`panicking`].
#[derive(Clone)]
struct Stuck {
    barrier: Arc<Barrier>,
    io_thread: ThreadId,
}

impl Stuck {
    fn is_on_io_thread(&self) -> bool {
        std::thread::current().id() == self.io_thread
    }
}

impl Handler for Stuck {
    fn runs_inline(&self, rpc_type: i32) -> bool {
        unordered(Plane::User, rpc_type)
    }

    fn handle(&self, request: InboundRequest) {
        if request.rpc_type == CancelQuery::REQUEST {
            let (query, _, reply) = request.decode::<CancelQuery>().unwrap();
            assert_ne!(query, panicking());
            reply.send(&Ack {
                ok: Some(self.is_on_io_thread()),
            });
            return;
        }
        assert!(!self.is_on_io_thread());
        self.barrier.wait();
        self.barrier.wait();
        let (_, _, reply) = request.decode::<RunQuery>().unwrap();
        reply.send(&QueryId::default());
    }
}

/// Notes what is started. The first `RUN_QUERY` waits at the barrier twice; all of them compute for longer than a turn.
#[derive(Clone)]
struct Slow {
    barrier: Arc<Barrier>,
    started: Arc<Mutex<Vec<i32>>>,
}

impl Handler for Slow {
    fn handle(&self, request: InboundRequest) {
        let first = {
            let mut started = self.started.lock().unwrap();
            started.push(request.rpc_type);
            started.len() == 1
        };
        if request.rpc_type == CancelQuery::REQUEST {
            let (_, _, reply) = request.decode::<CancelQuery>().unwrap();
            return reply.send(&Ack { ok: Some(true) });
        }
        if first {
            self.barrier.wait();
            self.barrier.wait();
        }
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        let (_, _, reply) = request.decode::<RunQuery>().unwrap();
        reply.send(&QueryId::default());
    }
}

impl Acceptor for Slow {
    fn accept(&self, _: Hello) -> Verdict {
        let handler = Arc::new(self.clone());
        Verdict::Open {
            reply: Bytes::new(),
            handler,
            idle_timeout: IdleTimeout::Keep,
        }
    }
}

fn panicking() -> QueryId {
    QueryId {
        part1: Some(13),
        ..QueryId::default()
    }
}

impl Acceptor for Stuck {
    fn accept(&self, _: Hello) -> Verdict {
        let handler = Arc::new(self.clone());
        Verdict::Open {
            reply: Bytes::new(),
            handler,
            idle_timeout: IdleTimeout::Keep,
        }
    }
}

fn threads(count: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(count)
        .enable_all()
        .build()
        .unwrap()
}

/// A server with an I/O thread and some workers of its own, and a client with one thread.
struct Bench {
    io: Runtime,
    app: Runtime,
    client: Runtime,
    /// Keeps the connections of the client.
    client_bus: BusRuntime,
    cpu: Arc<rayon::ThreadPool>,
    ledger: Ledger,
}

impl Bench {
    fn new(workers: usize) -> Self {
        let cpu = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let (cpu, client) = (Arc::new(cpu.unwrap()), threads(1));
        let here = client.handle().clone();
        Self {
            io: threads(1),
            app: threads(workers),
            client_bus: BusRuntime::new(vec![here.clone()], here, Arc::clone(&cpu)),
            client,
            cpu,
            ledger: Ledger::root("test", Limits::default()),
        }
    }

    fn stuck(&self) -> Stuck {
        let id = self.io.spawn(async { std::thread::current().id() });
        Stuck {
            barrier: Arc::new(Barrier::new(2)),
            io_thread: self.io.block_on(id).unwrap(),
        }
    }

    async fn serve(&self, acceptor: &(impl Acceptor + Clone)) -> Server {
        let (io, app) = (self.io.handle().clone(), self.app.handle().clone());
        let server = Server::bind(
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            Plane::User,
            BusRuntime::new(vec![io], app, Arc::clone(&self.cpu)),
            ServerOptions::new(ConnectionOptions::user_server()),
            self.ledger.clone(),
            Arc::new(acceptor.clone()),
        );
        server.await.unwrap()
    }

    async fn connect(&self, server: &Server, handler: &(impl Handler + Clone)) -> RemoteConnection {
        let to = Endpoint::new(server.local_addr(), Plane::User);
        let connection = connect(
            &to,
            &self.client_bus,
            ConnectionOptions::user_client(),
            self.ledger.clone(),
            Bytes::new(),
            Arc::new(handler.clone()),
        );
        connection.await.unwrap().0
    }
}

async fn run_query(connection: &RemoteConnection) -> PendingAnswer<QueryId> {
    let request = pb::RunQuery::default();
    let call = connection.start::<RunQuery>(&request, vec![], CallOptions::default());
    call.await.unwrap()
}

/// Whether it was handled on the I/O thread.
async fn cancel(connection: &RemoteConnection, query: QueryId) -> Result<bool, CallError> {
    let options = CallOptions::default();
    let answer = connection.call::<CancelQuery>(&query, vec![], options);
    Ok(answer.await?.message.ok())
}

#[test]
fn pings_and_requests_without_order_are_answered_while_every_worker_is_busy() {
    let bench = Bench::new(1);
    let stuck = bench.stuck();
    bench.client.block_on(async {
        let server = bench.serve(&stuck).await;
        let connection = bench.connect(&server, &stuck).await;
        let call = run_query(&connection).await;
        // The only worker of the server is inside the handler from here to the second wait.
        stuck.barrier.wait();
        for _ in 0..10 {
            assert!(connection.ping().await.is_ok());
            assert_eq!(cancel(&connection, QueryId::default()).await, Ok(true));
        }
        let failure = cancel(&connection, panicking()).await.unwrap_err();
        assert!(failure.to_string().contains("the handler panicked"));
        assert_eq!(cancel(&connection, QueryId::default()).await, Ok(true));
        stuck.barrier.wait();
        assert!(call.await.is_ok());
    });
}

#[test]
fn handlers_of_two_connections_run_at_the_same_time() {
    let bench = Bench::new(2);
    let stuck = bench.stuck();
    bench.client.block_on(async {
        let server = bench.serve(&stuck).await;
        let one = bench.connect(&server, &stuck).await;
        let other = bench.connect(&server, &stuck).await;
        // Their handlers wait for each other.
        let calls = [run_query(&one).await, run_query(&other).await];
        for call in calls {
            assert!(call.await.is_ok());
        }
    });
}

#[test]
fn a_connection_with_64_slow_requests_leaves_an_idle_one_its_turn() {
    let bench = Bench::new(1);
    let slow = Slow {
        barrier: Arc::new(Barrier::new(2)),
        started: Arc::default(),
    };
    bench.client.block_on(async {
        let server = bench.serve(&slow).await;
        let (busy, idle) = (
            bench.connect(&server, &slow).await,
            bench.connect(&server, &slow).await,
        );
        let mut calls = Vec::new();
        for _ in 0..64 {
            calls.push(run_query(&busy).await);
        }
        // The only worker is inside the first of them until the other connection's request is there.
        slow.barrier.wait();
        let (query, options) = (QueryId::default(), CallOptions::default());
        let other = idle.start::<CancelQuery>(&query, vec![], options);
        let other = other.await.unwrap();
        received(&server, 65).await;
        slow.barrier.wait();
        assert!(other.await.is_ok());
        for call in calls {
            assert!(call.await.is_ok());
        }
    });
    let started = slow.started.lock().unwrap();
    let turn = started.iter().position(|&rpc| rpc == CancelQuery::REQUEST);
    // At most one more turn of the busy connection is in between, and each of its requests takes a whole one.
    assert!(turn.is_some_and(|turn| turn <= 3), "{started:?}");
}

/// Waits until the server has read so many requests.
async fn received(server: &Server, requests: u64) {
    loop {
        let connections = server.connections();
        let read = connections.iter().map(|c| c.stats().requests_received);
        if read.sum::<u64>() >= requests {
            return;
        }
        tokio::task::yield_now().await;
    }
}
