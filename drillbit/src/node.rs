//! A node: threads, ledger, engine and user server, put together.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rpc_bus::{
    BusRuntime,
    ledger::{Ledger, Limits},
};
use user_server::{UserServer, UserServerOptions};

use crate::{
    engine::{DrillEngine, EngineError, EngineOptions},
    threads::{ThreadOptions, Threads},
};

/// Where clients of Drill look for a Drillbit.
pub const USER_PORT: u16 = 31010;

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Where it listens for clients; port 0 takes a free one. Default 127.0.0.1:31010.
    pub user_addr: SocketAddr,
    /// Most memory that connections may hold together, in bytes: frames on their way in and out.
    /// Default 2 GiB. What queries may hold is the engine's option.
    pub connection_bytes_max: usize,
    /// How many threads.
    pub threads: ThreadOptions,
    /// How clients are served.
    pub user_server: UserServerOptions,
    /// How queries run.
    pub engine: EngineOptions,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            user_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), USER_PORT),
            connection_bytes_max: 2 << 30,
            threads: ThreadOptions::default(),
            user_server: UserServerOptions::default(),
            engine: EngineOptions::default(),
        }
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(#[source] io::Error),
    /// The engine refuses its options.
    #[error("cannot set up the engine: {0}")]
    Engine(#[source] EngineError),
    /// The address is in use, or not one of this machine.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// As asked for.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// A running node. Dropping it ends it at once; [`Node::shutdown`] lets queries finish.
pub struct Node {
    // Fields drop in this order: the server's tasks run on the threads.
    server: UserServer,
    ledger: Ledger,
    threads: Threads,
}

impl Node {
    /// Starts everything; clients can connect when it returns. Must not be called on a tokio
    /// thread.
    ///
    /// # Errors
    /// [`NodeError`] says which part failed.
    pub fn start(options: &NodeOptions) -> Result<Self, NodeError> {
        let threads = Threads::start(&options.threads).map_err(NodeError::Threads)?;
        let engine = DrillEngine::try_new(&options.engine).map_err(NodeError::Engine)?;
        let limits = Limits {
            bytes: Some(options.connection_bytes_max),
            ..Limits::default()
        };
        let ledger = Ledger::root("process", limits);
        let server = threads.block_on(UserServer::bind(
            options.user_addr,
            threads.bus().clone(),
            options.user_server.clone(),
            ledger.clone(),
            Arc::new(engine),
        ));
        let server = server.map_err(|source| NodeError::Listen {
            addr: options.user_addr,
            source,
        })?;
        Ok(Self {
            server,
            ledger,
            threads,
        })
    }

    /// Where clients connect to, with the real port.
    #[must_use]
    pub fn user_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// The node's threads, for clients in the same process.
    #[must_use]
    pub fn bus(&self) -> &BusRuntime {
        self.threads.bus()
    }

    /// What the node holds for its connections. With nobody connected, all that is left is the one task that accepts.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Accepts nobody any more, gives running queries `grace` to end, closes all connections, ends
    /// the threads.
    pub fn shutdown(self, grace: Duration) {
        let Self {
            server, threads, ..
        } = self;
        threads.block_on(server.shutdown(grace));
    }
}
