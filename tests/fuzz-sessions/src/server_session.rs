//! A client by script, and a user server that must bear it.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use protos::{
    Call,
    calls::user::{QueryData, QueryResult, RunQuery},
    id::QueryId,
    rpc::{Ack, RpcMode},
    shared::{self, query_result::QueryState},
};
use rpc_bus::{Ledger, ServerOptions, ledger::Limits};
use tokio::net::TcpStream;
use user_server::{UserServer, UserServerOptions};

use crate::{
    PATIENCE, Tally, block_on, bus_runtime,
    engine::Scripted,
    seeds, settled,
    wire::{Frame, Peer, frame, frames},
};

/// Most frames that a script waits for; an endless result is not waited for to its end.
const FRAMES_MAX: usize = 200;

/// How a client by script behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerMode {
    /// A good handshake comes before the script.
    pub greets: bool,
    /// Batches are acknowledged; responses in the script are left out.
    pub acknowledges: bool,
    /// As many queries, and as much of their results, as hardly anything.
    pub narrow: bool,
}

impl From<u8> for ServerMode {
    fn from(byte: u8) -> Self {
        Self {
            greets: byte & 1 > 0,
            acknowledges: byte & 2 > 0,
            narrow: byte & 4 > 0,
        }
    }
}

/// A user server survives `bytes`: a [`ServerMode`], and all that its client sends.
///
/// What it sends is whole frames; every request is answered once at most, every query that was named ends once at most,
/// and its batches come in between; nothing is left when it has shut down.
///
/// # Panics
///
/// One of these does not hold.
#[allow(
    clippy::must_use_candidate,
    reason = "fuzz targets have no use for the tally"
)]
pub fn user_server(bytes: &[u8]) -> Tally {
    let (mode, script) = bytes.split_first().unwrap_or((&0, &[]));
    block_on(play(ServerMode::from(*mode), script))
}

async fn play(mode: ServerMode, script: &[u8]) -> Tally {
    let ledger = Ledger::root("fuzzing", Limits::default());
    let server = UserServer::bind(
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        bus_runtime(),
        options(mode),
        ledger.clone(),
        Arc::new(Scripted),
    );
    let server = server.await.expect("a free port");
    let socket = TcpStream::connect(server.local_addr()).await;
    let mut session = Session {
        mode,
        peer: Peer::new(socket.expect("somebody listens")),
        seen: Seen::default(),
    };
    let scripted = session.run(script);
    let in_time = tokio::time::timeout(PATIENCE, scripted).await;
    assert!(in_time.is_ok(), "the server does not close");
    server.shutdown(PATIENCE).await;
    settled(&ledger).await;
    session.seen.tally
}

fn options(mode: ServerMode) -> UserServerOptions {
    let mut options = UserServerOptions::default();
    if mode.narrow {
        options.unacked_batches_max = 1;
        options.queries_per_connection_max = 1;
        options.batch_bytes_target = 4096;
        options.connections = ServerOptions {
            connections_max: 1,
            ..options.connections
        };
        options.connections.connection.requests_in_flight_max = 2;
    }
    options
}

struct Session {
    mode: ServerMode,
    peer: Peer,
    seen: Seen,
}

impl Session {
    async fn run(&mut self, script: &[u8]) {
        if self.mode.greets {
            self.send(&seeds::hello()).await;
        }
        let (frames, rest) = frames(script);
        for (header, bytes) in frames {
            let response = !matches!(header.mode, RpcMode::Request | RpcMode::Ping);
            if !(self.mode.acknowledges && response) {
                self.send(bytes).await;
            }
        }
        self.send(rest).await;
        self.listen().await;
        self.peer.shutdown().await;
        for frame in self.peer.rest().await {
            self.seen.sees(&frame);
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.seen.sent(bytes);
        self.peer.send(bytes).await;
    }

    /// Until nothing comes any more.
    async fn listen(&mut self) {
        for _ in 0..FRAMES_MAX {
            let Some(came) = self.peer.next().await else {
                return;
            };
            self.seen.sees(&came);
            let request = came.header.mode == RpcMode::Request;
            if request && self.mode.acknowledges {
                let ack = Ack { ok: Some(true) };
                let ack = frame(RpcMode::Response, came.id(), 1, &ack);
                self.peer.send(&ack).await;
            }
        }
    }
}

/// What was said so far, and what follows from it.
#[derive(Default)]
struct Seen {
    /// How often an id may still be answered.
    unanswered: HashMap<i32, u32>,
    named: HashSet<QueryId>,
    ended: HashSet<QueryId>,
    last_request: i32,
    tally: Tally,
}

impl Seen {
    fn sent(&mut self, bytes: &[u8]) {
        for (header, _) in frames(bytes).0 {
            *self.unanswered.entry(header.coordination_id.0).or_default() += 1;
        }
    }

    fn sees(&mut self, frame: &Frame) {
        match frame.header.mode {
            RpcMode::Response | RpcMode::ResponseFailure => self.answered(frame),
            RpcMode::Request => self.asked(frame),
            RpcMode::Ping | RpcMode::Pong => {}
        }
    }

    fn answered(&mut self, frame: &Frame) {
        let id = frame.id();
        let left = self.unanswered.get_mut(&id).filter(|left| **left > 0);
        let left = left.unwrap_or_else(|| panic!("{id} is answered, but nobody asked"));
        *left -= 1;
        let handle = frame.header.rpc_type == RunQuery::RESPONSE;
        match frame.header.mode {
            RpcMode::Response if handle => {
                let named = self
                    .named
                    .insert(query_id(&frame.message::<shared::QueryId>()));
                assert!(named, "a name was given twice");
                self.tally.queries += 1;
            }
            RpcMode::Response if frame.header.rpc_type == 0 => self.tally.sessions = 1,
            _ => {}
        }
    }

    fn asked(&mut self, frame: &Frame) {
        assert!(frame.id() > self.last_request, "ids go up");
        self.last_request = frame.id();
        match frame.header.rpc_type {
            QueryData::REQUEST => {
                let data: shared::QueryData = frame.message();
                let id = query_id(&data.query_id.unwrap_or_default());
                assert!(self.is_running(id), "a batch of {id:?}");
                self.tally.batches += 1;
            }
            QueryResult::REQUEST => {
                let result: shared::QueryResult = frame.message();
                let id = query_id(&result.query_id.unwrap_or_default());
                assert!(self.is_running(id), "an end of {id:?}");
                let state = result.query_state();
                if !matches!(state, QueryState::Starting | QueryState::Running) {
                    self.ended.insert(id);
                }
            }
            other => panic!("a request of type {other}"),
        }
    }

    fn is_running(&self, id: QueryId) -> bool {
        self.named.contains(&id) && !self.ended.contains(&id)
    }
}

fn query_id(id: &shared::QueryId) -> QueryId {
    QueryId::try_from(*id).expect("invariant: the server names its queries")
}
