//! Connecting to a control server: our own, or a real Drill's.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use membership::NodeAddress;
use protos::{Plane, coord::DrillbitEndpoint};
use rpc_bus::{
    BusRuntime, ConnectError, ConnectionOptions, Greeter, Handler, Ledger, ReconnectingClient,
    RemoteConnection, RetryOptions, RetryPolicy, Target, auth::Login, tls::TlsClient,
};

use crate::{handshake::judge_welcome, lock};

/// How to connect to any node.
#[derive(Clone)]
pub(crate) struct Dialing {
    pub(crate) runtime: BusRuntime,
    pub(crate) tls: Option<TlsClient>,
    pub(crate) login: Option<Login>,
    pub(crate) options: ConnectionOptions,
    pub(crate) ledger: Ledger,
}

/// A connection, and who is at its other end, if it says so.
pub(crate) type Greeted = (RemoteConnection, Option<DrillbitEndpoint>);

impl Dialing {
    /// One try to connect to `node`, at each of its addresses.
    ///
    /// # Errors
    ///
    /// That of the last address.
    pub(crate) async fn connect(
        &self,
        node: &NodeAddress,
        hello: Bytes,
        handler: Arc<dyn Handler>,
    ) -> Result<Greeted, ConnectError> {
        let mut last = ConnectError::NoEndpoint;
        for endpoint in resolve(node).await? {
            let greeter = Arc::new(ControlGreeter {
                hello: hello.clone(),
                handler: Arc::clone(&handler),
                endpoint: Mutex::default(),
            });
            match self.connect_to(node, endpoint, Arc::clone(&greeter)).await {
                Ok(connection) => return Ok((connection, lock(&greeter.endpoint).take())),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(
        &self,
        node: &NodeAddress,
        endpoint: SocketAddr,
        greeter: Arc<ControlGreeter>,
    ) -> Result<RemoteConnection, ConnectError> {
        let tls = self.tls.as_ref();
        let target = Target {
            endpoints: vec![endpoint],
            plane: Plane::Control,
            // A host that no certificate can name is known by its IP address.
            tls: tls.map(|tls| tls.for_host(node.host()).unwrap_or_else(|_| tls.clone())),
            login: self.login.clone(),
            options: self.options.clone(),
            ledger: self.ledger.clone(),
            greeter,
        };
        // Whoever beats tries again at the next beat, and who calls knows whether its request may run twice.
        let once = RetryOptions {
            attempts_max: 1,
            ..RetryOptions::default()
        };
        let policy = RetryPolicy::try_new(once).expect("invariant: one attempt may be made");
        let client = ReconnectingClient::try_new(target, self.runtime.clone(), policy)?;
        client.connection().await
    }
}

async fn resolve(node: &NodeAddress) -> io::Result<Vec<SocketAddr>> {
    let named = (node.host(), node.control_port());
    Ok(tokio::net::lookup_host(named).await?.collect())
}

/// The control plane's part in connecting.
struct ControlGreeter {
    hello: Bytes,
    handler: Arc<dyn Handler>,
    endpoint: Mutex<Option<DrillbitEndpoint>>,
}

impl Greeter for ControlGreeter {
    fn hello(&self) -> Bytes {
        self.hello.clone()
    }

    fn judge(&self, reply: Bytes) -> Result<Vec<String>, String> {
        let welcome = judge_welcome(reply).map_err(|error| error.to_string())?;
        *lock(&self.endpoint) = welcome.endpoint;
        Ok(welcome.mechanisms)
    }

    fn handler(&self) -> Arc<dyn Handler> {
        Arc::clone(&self.handler)
    }
}
