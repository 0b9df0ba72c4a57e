//! The nodes under test, and clients of ours.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use client::{Client, ClientError, ClientOptions};
use rpc_bus::BusRuntime;
use rpc_bus::ledger::{Ledger, Limits};
use tests::node::Node;

/// The program that a node is started with.
pub(crate) const NODE: &str = env!("CARGO_BIN_EXE_test-node");

static CPU: LazyLock<Arc<rayon::ThreadPool>> = LazyLock::new(|| {
    Arc::new(
        rayon::ThreadPoolBuilder::new()
            .num_threads(2)
            .build()
            .unwrap(),
    )
});

/// The node that all tests share, in a process of its own.
pub(crate) fn node() -> &'static Node {
    static SHARED: OnceLock<Node> = OnceLock::new();
    SHARED.get_or_init(|| Node::start(NODE).unwrap())
}

/// A client of ours with a ledger of its own, which must read zero in the end.
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) ledger: Ledger,
}

impl Connected {
    /// Connects with default options.
    pub(crate) async fn to(node: SocketAddr) -> Self {
        Self::with(node, |options| options).await.unwrap()
    }

    /// Connects with changed options.
    pub(crate) async fn with(
        node: SocketAddr,
        change: impl FnOnce(ClientOptions) -> ClientOptions,
    ) -> Result<Self, ClientError> {
        let ledger = Ledger::root("test", Limits::default());
        let options = change(ClientOptions::new(bus(), ledger.clone()));
        let client = Client::connect(&node.to_string(), options).await?;
        Ok(Self { client, ledger })
    }

    /// Closes the client; nothing of it may be left.
    pub(crate) async fn close(self) {
        self.client.close().await;
        eventually_zero(&self.ledger).await;
    }
}

/// All roles on the test's own runtime.
pub(crate) fn bus() -> BusRuntime {
    BusRuntime::current(Arc::clone(&CPU))
}

/// Waits until everything charged to `ledger` has been given back.
pub(crate) async fn eventually_zero(ledger: &Ledger) {
    eventually("the ledger reads zero", || ledger.is_zero()).await;
}

/// Polls `condition`; a test that waits for something never waits for longer than this.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    within(Duration::from_secs(10), what, &mut condition).await;
}

/// Polls `condition` until it holds or `limit` is over.
pub(crate) async fn within(limit: Duration, what: &str, condition: &mut impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
