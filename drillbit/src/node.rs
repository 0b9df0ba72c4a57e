//! A node: threads, ledger, engine and servers, put together.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bit_data::{DataNode, DataPeers, DataServerOptions, drill::FragmentsOptions};
use protos::coord::DrillbitEndpoint;
use rpc_bus::{
    BusRuntime, ConnectionOptions,
    ledger::{Ledger, Limits},
    task::Tasks,
};
use user_server::{NodeAdmin, UserServer, UserServerOptions};

use crate::{
    admin::Admin,
    cluster::{Cluster, Joining},
    engine::{DrillEngine, EngineError, EngineOptions},
    foreman::RunningQueries,
    http::{HttpServer, Readers},
    metrics::Watched,
    security::Security,
    threads::{ThreadOptions, Threads},
    version,
};

pub use crate::{
    cluster::{CONTROL_PORT, ClusterError, ClusterOptions},
    http::HttpOptions,
    security::{SecurityError, SecurityOptions},
};

/// Where clients of Drill look for a Drillbit.
pub const USER_PORT: u16 = 31010;
/// What a call may hold that the ledger does not count as bytes: two bodies of 4 KiB.
const CALL_BYTES_MAX: usize = 8 << 10;
/// Where other Drillbits look for its data server.
pub const DATA_PORT: u16 = 31012;

/// How a node receives the batches of others.
#[derive(Debug, Clone)]
pub struct DataOptions {
    /// Where it listens; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Limits of the connections that others make.
    pub server: DataServerOptions,
    /// Limits of the connections that this node makes.
    pub connection: ConnectionOptions,
    /// Most memory that all of these connections may hold together, in bytes. Default `None`: three eighths of what all
    /// connections of the node may.
    pub bytes_max: Option<usize>,
    /// Limits of what comes for fragments that are not there.
    pub fragments: FragmentsOptions,
}

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Where it listens for clients; port 0 takes a free one. Default 127.0.0.1:31010.
    pub user_addr: SocketAddr,
    /// Most memory that connections may hold together, in bytes: frames on their way in and out.
    /// Default 2 GiB. It also bounds the calls in flight, at one for 8 KiB. What queries may hold is
    /// the engine's option. Each plane has a part of it, so that whoever fills one leaves the others alone, beats above
    /// all; the parts should not add up to more.
    pub connection_bytes_max: usize,
    /// The part of the clients' connections, in bytes. Default `None`: what the other planes leave.
    pub user_bytes_max: Option<usize>,
    /// How many threads.
    pub threads: ThreadOptions,
    /// How clients are served.
    pub user_server: UserServerOptions,
    /// How queries run.
    pub engine: EngineOptions,
    /// How batches of other nodes are received. Default `None`: they are not.
    pub data: Option<DataOptions>,
    /// How the node finds others. Default `None`: it is alone.
    pub cluster: Option<ClusterOptions>,
    /// How the node is watched over HTTP. Default `None`: it is not.
    pub http: Option<HttpOptions>,
    /// Certificates and users. Default: none. They take the place of those in `user_server` and `data`.
    pub security: SecurityOptions,
    /// How often their files are looked at for changes. Default 10 s.
    pub reload_interval: Duration,
}

impl NodeOptions {
    /// Most bytes for each plane.
    pub(crate) fn plane_bytes(&self) -> PlaneBytes {
        let eighth = self.connection_bytes_max / 8;
        let data = self.data.as_ref();
        let data = data.map_or(0, |data| data.bytes_max.unwrap_or(3 * eighth));
        let control = self.cluster.as_ref();
        let control = control.map_or(0, |cluster| cluster.bytes_max.unwrap_or(eighth));
        let left = self.connection_bytes_max.saturating_sub(data);
        let left = left.saturating_sub(control);
        PlaneBytes {
            user: self.user_bytes_max.unwrap_or(left),
            data,
            control,
        }
    }

    /// The user that this node is at the others.
    fn user_at_nodes(&self) -> Option<&str> {
        let (user, _) = self.cluster.as_ref()?.login.as_ref()?;
        Some(user)
    }

    /// What an operator should know of a configuration that is valid: which nodes come in, if any can.
    pub(crate) fn notes(&self) -> Vec<String> {
        let is_met = self.cluster.is_some() || self.data.is_some();
        if is_met {
            self.security.notes(self.user_at_nodes())
        } else {
            Vec::new()
        }
    }

    /// What other nodes know this one by, and clients that were told of it.
    fn host(&self) -> String {
        let bound = self.cluster.as_ref().map(|cluster| cluster.addr);
        let ip = || bound.unwrap_or(self.user_addr).ip().to_string();
        let advertised = self.user_server.advertised_host.clone();
        advertised.unwrap_or_else(ip)
    }

    /// What other nodes and clients find this one by.
    fn endpoint(
        &self,
        user: &UserServer,
        data: Option<&DataNode>,
        http: Option<&HttpServer>,
    ) -> DrillbitEndpoint {
        let port = |addr: SocketAddr| i32::from(addr.port());
        DrillbitEndpoint {
            address: Some(self.host()),
            user_port: Some(port(user.local_addr())),
            data_port: data.map(DataNode::local_addr).map(port),
            http_port: http.map(HttpServer::local_addr).map(port),
            version: Some(version::SOFTWARE.to_owned()),
            ..DrillbitEndpoint::default()
        }
    }
}

/// How many bytes the connections of each plane may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaneBytes {
    pub(crate) user: usize,
    pub(crate) data: usize,
    pub(crate) control: usize,
}

/// The parts of the planes in the node's ledger.
pub(crate) struct PlaneLedgers {
    user: Ledger,
    data: Ledger,
    control: Ledger,
}

impl PlaneLedgers {
    fn of(process: &Ledger, bytes: PlaneBytes) -> Self {
        let part = |name, bytes| process.child(name, limits(bytes));
        Self {
            user: part("user connections", bytes.user),
            data: part("data connections", bytes.data),
            control: part("control connections", bytes.control),
        }
    }

    /// In the order of the planes.
    pub(crate) fn all(&self) -> [&Ledger; 3] {
        [&self.user, &self.control, &self.data]
    }
}

/// Of connections that may hold so many bytes.
fn limits(bytes: usize) -> Limits {
    Limits {
        bytes: Some(bytes),
        calls: Some(bytes / CALL_BYTES_MAX),
        ..Limits::default()
    }
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            user_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), USER_PORT),
            connection_bytes_max: 2 << 30,
            user_bytes_max: None,
            threads: ThreadOptions::default(),
            user_server: UserServerOptions::default(),
            engine: EngineOptions::default(),
            data: None,
            cluster: None,
            http: None,
            security: SecurityOptions::default(),
            reload_interval: Duration::from_secs(10),
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
    /// Certificates or users cannot be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// It cannot be one of a cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
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
    // Fields drop in this order: the servers' tasks run on the threads.
    _watching: Tasks,
    http: Option<HttpServer>,
    cluster: Option<Arc<Cluster>>,
    data: Option<Arc<DataNode>>,
    server: UserServer,
    admin: Arc<Admin>,
    ledger: Ledger,
    security: Arc<Security>,
    threads: Threads,
}

impl Node {
    /// Starts everything; clients can connect when it returns. Must not be called on a tokio
    /// thread.
    ///
    /// # Errors
    /// [`NodeError`] says which part failed.
    pub fn start(options: &NodeOptions) -> Result<Self, NodeError> {
        let started = Instant::now();
        let threads = Threads::start(&options.threads).map_err(NodeError::Threads)?;
        let engine = DrillEngine::try_new(&options.engine).map_err(NodeError::Engine)?;
        let ledger = Ledger::root("process", limits(options.connection_bytes_max));
        let parts = Parts {
            bus: threads.bus(),
            planes: Arc::new(PlaneLedgers::of(&ledger, options.plane_bytes())),
            ledger,
            engine: Arc::new(engine),
            security: Arc::new(Security::open(
                &options.security,
                options.user_at_nodes(),
                threads.bus(),
            )?),
            admin: Arc::new(Admin::new()),
            started,
        };
        let (server, data, http, cluster) = threads.block_on(async {
            let server = parts.user_server(options).await?;
            let data = parts.data_node(options).await?;
            let http = parts.http_server(options).await?;
            let endpoint = options.endpoint(&server, data.as_deref(), http.as_ref());
            let peers = data.as_deref().map(DataNode::peers);
            let cluster = parts.cluster(options, endpoint.clone(), peers).await?;
            parts.admin.online(endpoint);
            Ok::<_, NodeError>((server, data, http, cluster))
        })?;
        for note in options.notes() {
            tracing::warn!("{note}");
        }
        let watching = parts.watch_files(options.reload_interval);
        let Parts {
            ledger,
            security,
            admin,
            ..
        } = parts;
        Ok(Self {
            _watching: watching,
            http,
            cluster,
            data,
            server,
            admin,
            ledger,
            security,
            threads,
        })
    }

    /// Reads the files of certificates and users again, for the connections that come from now on;
    /// logs how that went. What cannot be read stays as it was.
    pub fn reload(&self) {
        self.security.reload();
    }

    /// Where clients connect to, with the real port.
    #[must_use]
    pub fn user_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Where other nodes send batches to, with the real port; `None` if they cannot.
    #[must_use]
    pub fn data_addr(&self) -> Option<SocketAddr> {
        self.data.as_deref().map(DataNode::local_addr)
    }

    /// Its part in the data plane, for whoever runs fragments in this process: what they send and receive is counted and
    /// shown with the node. `None` if it has none.
    #[must_use]
    pub fn data(&self) -> Option<&DataNode> {
        self.data.as_deref()
    }

    /// Where other nodes find its control server, with the real port; `None` if it is alone.
    #[must_use]
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.cluster.as_deref().map(Cluster::local_addr)
    }

    /// Where it is watched, with the real port; `None` if it is not.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpServer::local_addr)
    }

    /// Completes when somebody has asked the node to leave; see [`Self::shutdown`].
    pub async fn draining(&self) {
        self.admin.draining().await;
    }

    /// The node's threads, for clients in the same process.
    #[must_use]
    pub fn bus(&self) -> &BusRuntime {
        self.threads.bus()
    }

    /// What the node holds for its connections. With nobody connected, all that is left are the tasks
    /// that accept, and the one that looks at files of certificates and users if there are any.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Drains the node: refuses new queries with the advice to try another node, gives running ones `grace` to end,
    /// then closes all connections and ends the threads. Until then it can be watched.
    pub fn shutdown(self, grace: Duration) {
        let Self {
            http,
            cluster,
            data,
            server,
            admin,
            threads,
            ..
        } = self;
        admin.drain();
        threads.block_on(async {
            server.shutdown(grace).await;
            admin.offline();
            if let Some(data) = data.and_then(Arc::into_inner) {
                data.shutdown(Duration::ZERO).await;
            }
            if let Some(cluster) = cluster {
                cluster.leave().await;
            }
        });
        // Watched to the end.
        drop(http);
    }
}

/// What the servers of a node share.
struct Parts<'a> {
    bus: &'a BusRuntime,
    ledger: Ledger,
    planes: Arc<PlaneLedgers>,
    engine: Arc<DrillEngine>,
    security: Arc<Security>,
    admin: Arc<Admin>,
    started: Instant,
}

impl Parts<'_> {
    async fn user_server(&self, options: &NodeOptions) -> Result<UserServer, NodeError> {
        let addr = options.user_addr;
        let mut options = options.user_server.clone();
        options.connections.tls = self.security.tls.clone();
        options.authenticator = self.security.authenticator.clone();
        options.queries = self.admin.queries.clone();
        options.admin = Some(Arc::<Admin>::clone(&self.admin));
        let (ledger, engine) = (self.planes.user.clone(), Arc::clone(&self.engine));
        UserServer::bind(addr, self.bus.clone(), options, ledger, engine)
            .await
            .map_err(|source| NodeError::Listen { addr, source })
    }

    async fn data_node(&self, options: &NodeOptions) -> Result<Option<Arc<DataNode>>, NodeError> {
        let Some(DataOptions {
            addr,
            mut server,
            connection,
            fragments,
            ..
        }) = options.data.clone()
        else {
            return Ok(None);
        };
        server.connections.tls = self.security.tls.clone();
        server.authenticator = self.security.nodes.clone();
        let mut data = bit_data::NodeOptions {
            server,
            // Nothing here runs fragments yet: what comes waits for one, and is refused then.
            fragments,
            connection,
            // What has come is charged twice: to its receiver, and as memory of its connection.
            plane_bytes_max: Some(options.plane_bytes().data / 2),
            incarnation: Some(self.admin.incarnation()),
            ..bit_data::NodeOptions::default()
        };
        data.connection.capabilities = Some(version::capabilities().into());
        if let Some(cluster) = &options.cluster {
            data.tls.clone_from(&self.security.peers);
            data.login = cluster.login(data.tls.as_ref())?;
        }
        let bound = DataNode::bind(addr, self.bus.clone(), data, self.planes.data.clone()).await;
        let node = Arc::new(bound.map_err(|source| NodeError::Listen { addr, source })?);
        self.admin.set_data(&node);
        Ok(Some(node))
    }

    async fn cluster(
        &self,
        options: &NodeOptions,
        endpoint: DrillbitEndpoint,
        data: Option<DataPeers>,
    ) -> Result<Option<Arc<Cluster>>, NodeError> {
        let Some(options) = &options.cluster else {
            return Ok(None);
        };
        let joining = Joining {
            bus: self.bus,
            ledger: &self.planes.control,
            tls: self.security.tls.clone(),
            peer_tls: self.security.peers.clone(),
            authenticator: self.security.nodes.clone(),
            endpoint,
            incarnation: self.admin.incarnation(),
            queries: RunningQueries(self.admin.queries.clone()),
            engine: Arc::clone(&self.engine),
            data,
        };
        let cluster = Arc::new(Cluster::join(options, joining).await?);
        self.admin.set_cluster(&cluster);
        Ok(Some(cluster))
    }

    async fn http_server(&self, options: &NodeOptions) -> Result<Option<HttpServer>, NodeError> {
        let advertised = options.user_server.advertised_host.as_deref();
        let Some(options) = &options.http else {
            return Ok(None);
        };
        let watched = Watched {
            bus: self.bus.clone(),
            ledger: self.ledger.clone(),
            planes: Arc::clone(&self.planes),
            admin: Arc::clone(&self.admin),
            engine: Arc::clone(&self.engine),
            started: self.started,
        };
        let readers = match &self.security.authenticator {
            Some(users) => Readers::Users(Arc::clone(users)),
            None => Readers::Everybody {
                advertised_host: advertised.map(Into::into),
            },
        };
        let watched = Arc::new(watched);
        let bound = HttpServer::bind(options, self.bus, &self.ledger, watched, readers).await;
        bound.map(Some).map_err(|source| NodeError::Listen {
            addr: options.addr,
            source,
        })
    }

    /// Has changed files read again, on the cpu pool: deriving keys takes its time.
    fn watch_files(&self, interval: Duration) -> Tasks {
        let (bus, security) = (self.bus.clone(), Arc::clone(&self.security));
        let watch = async move {
            loop {
                tokio::time::sleep(interval).await;
                let security = Arc::clone(&security);
                if let Err(error) = bus.compute(move || security.reload_changed()).await {
                    tracing::warn!(%error, "files cannot be read again");
                }
            }
        };
        let watching = Tasks::default();
        if !self.security.has_files() {
            return watching;
        }
        if let Err(error) = watching.spawn(self.bus.app(), &self.ledger, watch) {
            tracing::warn!(%error, "files are not looked at for changes");
        }
        watching
    }
}

#[cfg(test)]
mod tests {
    use rpc_bus::ledger::Kind;

    use super::*;

    fn options() -> NodeOptions {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let data = bit_data::NodeOptions::default();
        NodeOptions {
            connection_bytes_max: 800,
            data: Some(DataOptions {
                addr,
                server: data.server,
                connection: data.connection,
                bytes_max: None,
                fragments: data.fragments,
            }),
            cluster: Some(ClusterOptions::new(addr)),
            ..NodeOptions::default()
        }
    }

    #[test]
    fn clients_that_fill_their_plane_leave_the_others_theirs() {
        let options = options();
        let process = Ledger::root("process", limits(options.connection_bytes_max));
        let planes = PlaneLedgers::of(&process, options.plane_bytes());
        let _held = planes.user.charge(Kind::Bytes, 400).unwrap();
        let refused = planes.user.charge(Kind::Bytes, 1).unwrap_err();
        assert_eq!((&*refused.ledger, refused.limit), ("user connections", 400));
        let _data = planes.data.charge(Kind::Bytes, 300).unwrap();
        let _control = planes.control.charge(Kind::Bytes, 100).unwrap();
        assert_eq!(process.used(Kind::Bytes), 800);
    }

    #[test]
    fn other_nodes_know_this_one_by_the_address_that_they_reach() {
        let mut options = options();
        options.user_addr = SocketAddr::from(([0, 0, 0, 0], 0));
        assert_eq!(options.host(), "127.0.0.1", "its control server's");
        options.cluster = None;
        assert_eq!(options.host(), "0.0.0.0", "there are no others");
        options.user_server.advertised_host = Some("node1".to_owned());
        assert_eq!(options.host(), "node1");
    }

    #[test]
    fn a_plane_that_there_is_not_has_no_part() {
        let mut options = options();
        options.data = None;
        let alone = NodeOptions {
            cluster: None,
            ..options.clone()
        };
        let of = |options: &NodeOptions| {
            let PlaneBytes {
                user,
                data,
                control,
            } = options.plane_bytes();
            (user, data, control)
        };
        assert_eq!(of(&options), (700, 0, 100));
        assert_eq!(of(&alone), (800, 0, 0));
    }
}
