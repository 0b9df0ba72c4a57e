//! Bodies of fuzz targets: whole sessions of the user plane, over real sockets. Any bytes in, invariants out; they panic
//! if one does not hold.
//!
//! [`user_server()`] plays a client to a server with an engine of its own, [`client()`] plays a server to a client. The first
//! byte of an input says how ([`ServerMode`], [`ClientMode`]); the rest is what the peer sends. The same functions run as
//! cargo-fuzz targets (`fuzz/`) and over seeded mutations of [`seeds`] in the test suite.

mod client_session;
mod engine;
pub mod seeds;
mod server_session;
mod wire;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use rpc_bus::{BusRuntime, Ledger};

pub use client_session::{ClientMode, client};
pub use server_session::{ServerMode, user_server};

/// How long the other side may say nothing before the script goes on without it. No invariant hangs on it, only how far
/// sessions get.
const QUIET: Duration = Duration::from_millis(3);
/// How long anything may take that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a run has seen, to be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sessions that got beyond their handshake.
    pub sessions: u64,
    /// Queries that were named.
    pub queries: u64,
    /// Batches that the client got.
    pub batches: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.queries += other.queries;
        self.batches += other.batches;
    }
}

/// Runs a session on a runtime of its own.
fn block_on<T>(session: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(session)
}

/// Everything on the caller's runtime, but for the computations.
fn bus_runtime() -> BusRuntime {
    static CPU: OnceLock<Arc<rayon::ThreadPool>> = OnceLock::new();
    let cpu = CPU.get_or_init(|| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        Arc::new(pool.expect("a thread"))
    });
    BusRuntime::current(Arc::clone(cpu))
}

/// Nothing may be left.
async fn settled(ledger: &Ledger) {
    let zero = async {
        while !ledger.is_zero() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, zero).await;
    assert!(in_time.is_ok(), "left over: {ledger:?}");
}
