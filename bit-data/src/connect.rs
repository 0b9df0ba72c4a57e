//! Connecting to a data server: our own, or a real Drill's.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use protos::Plane;
use rpc_bus::{
    BusRuntime, Capabilities, ConnectError, ConnectionOptions, Greeter, Handler, Ledger,
    ReconnectingClient, RemoteConnection, RetryOptions, RetryPolicy, StreamKey, Target,
    auth::Login, tls::TlsClient,
};

use crate::{
    dispatch::{ClientHandler, NoStreams, StreamSink},
    handshake::{hello, judge_welcome},
};

/// Where a data server is, and how to connect.
#[derive(Clone)]
pub struct DataTarget {
    /// Its addresses, tried in turn, beginning with the one that worked last.
    pub endpoints: Vec<SocketAddr>,
    /// TLS, if it speaks it. Default `None`.
    pub tls: Option<TlsClient>,
    /// Who to be, where it asks. Default `None`.
    pub login: Option<Login>,
    /// Limits of each connection. Default: those of the data plane.
    pub options: ConnectionOptions,
    /// Where connections are charged.
    pub ledger: Ledger,
}

impl DataTarget {
    /// The server at `address`, with the defaults.
    #[must_use]
    pub fn new(address: SocketAddr, ledger: Ledger) -> Self {
        let ours = Capabilities::of_software(env!("CARGO_PKG_VERSION"));
        Self {
            endpoints: vec![address],
            tls: None,
            login: None,
            options: ConnectionOptions {
                capabilities: Some(Arc::new(ours)),
                ..ConnectionOptions::client(Plane::Data)
            },
            ledger,
        }
    }

    fn client(
        self,
        runtime: BusRuntime,
        policy: RetryPolicy,
        streams: Arc<dyn StreamSink>,
    ) -> Result<ReconnectingClient, ConnectError> {
        let target = Target {
            endpoints: self.endpoints,
            plane: Plane::Data,
            tls: self.tls,
            login: self.login,
            options: self.options,
            ledger: self.ledger,
            greeter: Arc::new(DataGreeter(streams)),
        };
        ReconnectingClient::try_new(target, runtime, policy)
    }
}

/// Makes one connection, whose messages of streams go to `streams`. It is closed when its last handle is dropped.
///
/// # Errors
///
/// There is no connection to be had, or the peer is no data server of our version.
#[allow(clippy::missing_panics_doc, reason = "the policy is a valid one")]
pub async fn connect(
    target: DataTarget,
    runtime: &BusRuntime,
    streams: Arc<dyn StreamSink>,
) -> Result<RemoteConnection, ConnectError> {
    // A node looks after its connections again and again, for as long as the other one is up.
    let once = RetryOptions {
        attempts_max: 1,
        ..RetryOptions::default()
    };
    let policy = RetryPolicy::try_new(once).expect("invariant: one attempt may be made");
    let client = target.client(runtime.clone(), policy, streams)?;
    client.connection().await
}

/// A data server that batches are sent to as to a real Drill: one connection, made when it is needed, and again when it
/// was lost; shared by all fragments that send there. Clones are the same.
#[derive(Clone, Debug)]
pub struct DataClient {
    client: ReconnectingClient,
    streams: Arc<AtomicU64>,
}

impl DataClient {
    /// Nothing is connected before it is needed.
    ///
    /// # Errors
    ///
    /// There is no address, or the options contradict each other.
    pub fn try_new(
        target: DataTarget,
        runtime: BusRuntime,
        policy: RetryPolicy,
    ) -> Result<Self, ConnectError> {
        let client = target.client(runtime, policy, Arc::new(NoStreams))?;
        Ok(Self {
            client,
            streams: Arc::default(),
        })
    }

    /// The connection that there is, or a new one.
    ///
    /// # Errors
    ///
    /// That of the last try.
    pub async fn connection(&self) -> Result<RemoteConnection, ConnectError> {
        self.client.connection().await
    }

    /// Closes the connection that there is, which breaks the tunnels that use it. The next tunnel makes a new one.
    pub fn close(&self) {
        self.client.close();
    }

    /// A key under which the batches of one tunnel leave in order.
    pub(crate) fn next_stream(&self) -> StreamKey {
        StreamKey(self.streams.fetch_add(1, Ordering::Relaxed))
    }
}

/// The data plane's part in connecting.
struct DataGreeter(Arc<dyn StreamSink>);

impl Greeter for DataGreeter {
    fn hello(&self) -> Bytes {
        hello()
    }

    fn judge(&self, reply: Bytes) -> Result<Vec<String>, String> {
        judge_welcome(reply).map_err(|error| error.to_string())
    }

    fn handler(&self) -> Arc<dyn Handler> {
        Arc::new(ClientHandler(Arc::clone(&self.0)))
    }
}
