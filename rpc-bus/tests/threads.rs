//! Which thread does what, on runtimes of their own. Nothing here measures time: what must not wait would wait for ever.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Barrier},
    thread::ThreadId,
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
    IdleTimeout, InboundRequest, Ledger, RemoteConnection, Server, ServerOptions, Verdict, connect,
    ledger::Limits,
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

fn one_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Whether it was handled on the I/O thread.
async fn cancel(connection: &RemoteConnection, query: QueryId) -> Result<bool, CallError> {
    let options = CallOptions::default();
    let answer = connection.call::<CancelQuery>(&query, vec![], options);
    Ok(answer.await?.message.ok())
}

#[test]
fn pings_and_requests_without_order_are_answered_while_every_worker_is_busy() {
    let (io, app, client) = (one_thread(), one_thread(), one_thread());
    let cpu = Arc::new(
        rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap(),
    );
    let io_thread = io
        .block_on(io.spawn(async { std::thread::current().id() }))
        .unwrap();
    let stuck = Stuck {
        barrier: Arc::new(Barrier::new(2)),
        io_thread,
    };
    let barrier = Arc::clone(&stuck.barrier);
    let server_runtime = BusRuntime::new(
        vec![io.handle().clone()],
        app.handle().clone(),
        Arc::clone(&cpu),
    );
    let here = client.handle().clone();
    let client_runtime = BusRuntime::new(vec![here.clone()], here, cpu);
    client.block_on(async {
        let ledger = Ledger::root("test", Limits::default());
        let options = ServerOptions::new(ConnectionOptions::user_server());
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::bind(
            addr,
            Plane::User,
            server_runtime,
            options,
            ledger.clone(),
            Arc::new(stuck.clone()),
        );
        let server = server.await.unwrap();
        let to = Endpoint::new(server.local_addr(), Plane::User);
        let connection = connect(
            &to,
            &client_runtime,
            ConnectionOptions::user_client(),
            ledger.clone(),
            Bytes::new(),
            Arc::new(stuck),
        );
        let (connection, _) = connection.await.unwrap();
        let request = pb::RunQuery::default();
        let call = connection.start::<RunQuery>(&request, vec![], CallOptions::default());
        let call = call.await.unwrap();
        // The only worker of the server is inside the handler from here to the second wait.
        barrier.wait();
        for _ in 0..10 {
            assert!(connection.ping().await.is_ok());
            assert_eq!(cancel(&connection, QueryId::default()).await, Ok(true));
        }
        let failure = cancel(&connection, panicking()).await.unwrap_err();
        assert!(failure.to_string().contains("the handler panicked"));
        assert_eq!(cancel(&connection, QueryId::default()).await, Ok(true));
        barrier.wait();
        assert!(call.await.is_ok());
    });
}
