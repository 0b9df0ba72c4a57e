//! What the tests of both sides of the user plane share.

pub mod engine;
pub mod golden;
pub mod peer;
pub mod users;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rpc_bus::{BusRuntime, Ledger, ledger::Limits};
use user_server::{UserServer, UserServerOptions};

use engine::FakeEngine;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn runtime() -> BusRuntime {
    let cpu = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a thread");
    BusRuntime::current(Arc::new(cpu))
}

pub fn ledger() -> Ledger {
    Ledger::root("test", Limits::default())
}

/// A server on a free port, with what a test wants to look at.
pub struct TestServer {
    pub server: UserServer,
    pub engine: Arc<FakeEngine>,
    pub ledger: Ledger,
}

impl TestServer {
    pub async fn start(options: UserServerOptions) -> Self {
        let (engine, ledger) = (Arc::new(FakeEngine::default()), ledger());
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = UserServer::bind(
            here,
            runtime(),
            options,
            ledger.clone(),
            Arc::<FakeEngine>::clone(&engine),
        );
        Self {
            server: server.await.expect("a free port"),
            engine,
            ledger,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Waits until the engine computes nothing.
    pub async fn idle(&self) {
        until("the engine is idle", || {
            self.engine.computing.load(Ordering::SeqCst) == 0
        })
        .await;
    }

    /// Ends the server; nothing may be left of it.
    pub async fn stop(self) {
        self.server.shutdown(PATIENCE).await;
        settled(&self.ledger).await;
    }
}

/// Waits until nothing is charged any more.
pub async fn settled(ledger: &Ledger) {
    until(&format!("{ledger:?} is zero"), || ledger.is_zero()).await;
}

/// Waits for something that other threads bring about.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}
