//! This node's part in the control plane: a server, and one connection for each node that it has to do with.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::Duration,
};

use membership::NodeAddress;
use protos::{
    Plane,
    coord::{DrillbitEndpoint, drillbit_endpoint::State},
};
use rpc_bus::{
    BusRuntime, Capabilities, ConnectionOptions, Feature, Features, Ledger, ServerOptions,
    auth::{Authenticator, Login},
    ledger::Limits,
    tls::TlsClient,
};

use crate::{
    channel::{Around, ChannelOptions},
    connect::Dialing,
    lock,
    peers::{Here, PeerInfo, PeerLimits, Peers},
    server::{ControlServer, Host},
    services::Services,
    tunnel::ControlTunnel,
};

/// How a node takes part in the control plane.
#[derive(Clone)]
pub struct ControlOptions {
    /// Limits of the side that accepts, and its TLS; what this node can do is added. Default: Drill's times.
    pub server: ServerOptions,
    /// Lets peers in. Default `None`: everybody may come in.
    pub authenticator: Option<Arc<Authenticator>>,
    /// Limits of the connections that this node opens; what this node can do is added. Default: Drill's times, so that
    /// whether a node is alive is for heartbeats of their own to find out.
    pub connection: ConnectionOptions,
    /// TLS of the nodes that this one connects to. Default `None`.
    pub tls: Option<TlsClient>,
    /// Who to be there. Default `None`.
    pub login: Option<Login>,
    /// How long the answer to a call may take. Default 10 s.
    pub call_timeout: Duration,
    /// Nodes that this one may be connected with at a time. Default 1,024.
    pub nodes_max: usize,
    /// Connections with each of them; one more of the peer's is refused. Two nodes that connect to each other at the
    /// same time have two. Default 4.
    pub connections_per_node_max: usize,
    /// Limits of channels.
    pub channels: ChannelOptions,
    /// Drawn anew at every start of the node: tells a restarted one from the one before. Default `None`.
    pub incarnation: Option<u64>,
    /// What this node offers to peers of our own kind. Default: all that this crate has. Nothing at all: it speaks as a
    /// Drillbit does, and has no incarnation and no version.
    pub features: Features,
    /// Name and version of the engine that runs fragments, empty where there is none.
    pub engine_version: String,
}

impl Default for ControlOptions {
    fn default() -> Self {
        Self {
            server: ServerOptions::new(ConnectionOptions::server(Plane::Control)),
            authenticator: None,
            connection: ConnectionOptions::client(Plane::Control),
            tls: None,
            login: None,
            call_timeout: Duration::from_secs(10),
            nodes_max: 1024,
            connections_per_node_max: 4,
            channels: ChannelOptions::default(),
            incarnation: None,
            features: Features::of_any_plane()
                .with(Feature::Streams)
                .with(Feature::ControlStreams),
            engine_version: String::new(),
        }
    }
}

impl ControlOptions {
    /// What this node offers, with the rest of what `options` say.
    fn capabilities(&self, options: &ConnectionOptions) -> Option<Arc<Capabilities>> {
        if self.features == Features::default() {
            return None;
        }
        let software = || Capabilities::of_software(env!("CARGO_PKG_VERSION"));
        let ours = options.capabilities.as_deref().cloned();
        let ours = ours.unwrap_or_else(software);
        Some(Arc::new(Capabilities {
            features: self.features,
            incarnation: self.incarnation.or(ours.incarnation),
            engine_version: self.engine_version.clone(),
            ..ours
        }))
    }

    fn server(&self) -> ServerOptions {
        let mut server = self.server.clone();
        server.connection.capabilities = self.capabilities(&server.connection);
        server
    }

    fn dialing(&self, runtime: &BusRuntime, ledger: &Ledger) -> Dialing {
        let capabilities = self.capabilities(&self.connection);
        Dialing {
            runtime: runtime.clone(),
            tls: self.tls.clone(),
            login: self.login.clone(),
            options: ConnectionOptions {
                capabilities,
                ..self.connection.clone()
            },
            ledger: ledger.clone(),
        }
    }

    fn around(&self, services: &Services, ledger: &Ledger) -> Around {
        let limits = Limits {
            bytes: Some(self.channels.queued_bytes_max),
            ..Limits::default()
        };
        Around {
            services: services.channels.clone(),
            options: self.channels,
            ledger: ledger.child("channels", limits),
        }
    }

    fn limits(&self) -> PeerLimits {
        PeerLimits {
            nodes_max: self.nodes_max,
            connections_per_node_max: self.connections_per_node_max,
            calls_drill_back: self.authenticator.is_none() && self.login.is_none(),
        }
    }
}

/// This node's part in the control plane. Clones are the same; the last one ends all connections.
#[derive(Clone)]
pub struct ControlNode(Arc<Inner>);

struct Inner {
    peers: Arc<Peers>,
    /// `None` once it was shut down.
    server: Mutex<Option<ControlServer>>,
    local: SocketAddr,
    call_timeout: Duration,
}

impl ControlNode {
    /// Listens on `address`; port 0 takes a free one. To others this node is `endpoint`, whose control port is the one
    /// that it listens on if it names none. All that the node holds is charged to `ledger`.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, the options contradict each other, or `endpoint` has no address.
    pub async fn bind(
        address: SocketAddr,
        endpoint: DrillbitEndpoint,
        runtime: BusRuntime,
        options: ControlOptions,
        services: Services,
        ledger: Ledger,
    ) -> io::Result<Self> {
        let here = Here {
            endpoint: Mutex::new(endpoint),
            address: OnceLock::new(),
        };
        // Where the port is left to the system, nobody can know this node before it is known here.
        if here.port() != 0 {
            here.settle()?;
        }
        let dialing = options.dialing(&runtime, &ledger);
        let around = options.around(&services, &ledger);
        let services = Arc::new(services);
        let peers = Peers::new(here, services, around, dialing, options.limits());
        let host = Arc::clone(&peers);
        let (limits, authenticator) = (options.server(), options.authenticator);
        let server =
            ControlServer::bind(address, runtime, limits, authenticator, &ledger, host).await?;
        let local = server.local_addr();
        peers.here.listens_on(local.port())?;
        Ok(Self(Arc::new(Inner {
            peers,
            server: Mutex::new(Some(server)),
            local,
            call_timeout: options.call_timeout,
        })))
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// What others know this node by.
    #[must_use]
    pub fn address(&self) -> &NodeAddress {
        self.0.peers.address()
    }

    /// What this node says of itself when it is connected with another.
    #[must_use]
    pub fn endpoint(&self) -> DrillbitEndpoint {
        self.0.peers.endpoint()
    }

    /// What this node says of its state from now on, in new connections.
    pub fn set_state(&self, state: State) {
        lock(&self.0.peers.here.endpoint).set_state(state);
    }

    /// The way to a node. Nothing is connected before it is needed.
    #[must_use]
    pub fn tunnel(&self, node: &NodeAddress) -> ControlTunnel {
        ControlTunnel::new(self.clone(), node.clone())
    }

    /// What is known of the nodes that this one is connected with, by address.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.0.peers.infos()
    }

    /// Ends all connections with a node, and with them the calls on them: for a node that is down.
    pub fn disconnect(&self, node: &NodeAddress) {
        self.0.peers.disconnect(node);
    }

    /// Ends all connections, and waits until they have ended, at most `grace`.
    pub async fn shutdown(&self, grace: Duration) {
        self.0.peers.close();
        let server = lock(&self.0.server).take();
        if let Some(server) = server {
            server.shutdown(grace).await;
        }
    }

    /// For whom the node serves, so that it does not keep the node.
    pub(crate) fn downgrade(&self) -> WeakControlNode {
        WeakControlNode(Arc::downgrade(&self.0))
    }

    pub(crate) fn inner_peers(&self) -> &Arc<Peers> {
        &self.0.peers
    }

    pub(crate) fn call_timeout(&self) -> Duration {
        self.0.call_timeout
    }
}

/// A node that may be gone.
#[derive(Clone)]
pub(crate) struct WeakControlNode(Weak<Inner>);

impl WeakControlNode {
    pub(crate) fn upgrade(&self) -> Option<ControlNode> {
        self.0.upgrade().map(ControlNode)
    }
}

impl Here {
    fn port(&self) -> i32 {
        lock(&self.endpoint).control_port()
    }

    fn listens_on(&self, port: u16) -> io::Result<()> {
        if self.port() == 0 {
            lock(&self.endpoint).control_port = Some(i32::from(port));
        }
        self.settle()
    }

    /// From here on the address is known.
    fn settle(&self) -> io::Result<()> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let address = NodeAddress::of(&lock(&self.endpoint)).map_err(invalid)?;
        self.address.get_or_init(|| address);
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.peers.close();
    }
}

impl fmt::Debug for ControlNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlNode")
            .field("address", self.address())
            .field("local_addr", &self.0.local)
            .finish_non_exhaustive()
    }
}
