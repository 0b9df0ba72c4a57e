//! The node among others: its control server, who is in the cluster, who is alive.

mod links;

use std::{fmt, fs::File, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bit_control::{
    ControlNode, ControlOptions, Services,
    heartbeat::{BeatAnswerer, BeatOptions, BeatOptionsError, Health, Heartbeats, NodeHealth},
};
use bit_data::DataPeers;
use membership::{
    Member, NodeAddress, NodeState, Provider, Registry, RegistryOptions, StaticProvider,
    ZooKeeperOptions, ZooKeeperProvider, ZooKeeperStats,
};
use protos::{
    coord::DrillbitEndpoint,
    status::{Beats, Node, node},
};
use rpc_bus::{
    BusRuntime, ConnectionOptions, Feature, Ledger, ServerOptions,
    auth::{Authenticator, Credentials, Login, Mechanism},
    ledger::BudgetExceeded,
    task::Tasks,
    tls::{TlsClient, TlsServer},
};
use tokio_util::sync::CancellationToken;

use links::Links;

use crate::{
    cli::first_line,
    engine::{self, DrillEngine},
    foreman::RunningQueries,
    version,
};

/// Where other Drillbits look for a control server.
pub const CONTROL_PORT: u16 = 31011;
/// How long another node may take to answer a handshake, which needs no more than its I/O thread. A socket that was
/// opened just before the network broke is given up after this, not after 10 s, so that nodes find each other again soon.
/// The side that accepts stays patient: it may have many passwords to check.
const HANDSHAKE_TIME: Duration = Duration::from_secs(3);
/// How long each step of leaving may take.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// How a node finds others.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Where its control server listens; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Limits of that server.
    pub server: ServerOptions,
    /// Limits of the connections that this node makes. Their handshake may take 3 s at most.
    pub connection: ConnectionOptions,
    /// Most memory that all of these connections may hold together, in bytes. Default `None`: an eighth of what all
    /// connections of the node may.
    pub bytes_max: Option<usize>,
    /// The other nodes, by the addresses of their control servers; this one may be among them.
    pub peers: Vec<NodeAddress>,
    /// Where the other nodes are found, in place of `peers`. Default `None`.
    pub zookeeper: Option<ZooKeeperOptions>,
    /// How often to beat, and how long silence may last.
    pub beats: BeatOptions,
    /// Name of the user to be there, and the file whose first line is its password. Default `None`.
    pub login: Option<(String, PathBuf)>,
    /// How to prove it. Default `None`: the strongest mechanism that is offered, and without TLS only SCRAM-SHA-256, as
    /// whoever sits on the way, or makes itself known as a node, could offer nothing but PLAIN.
    pub mechanism: Option<Mechanism>,
}

/// Why a node cannot be one of a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The address is in use, or not one of this machine.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// As asked for.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The password cannot be read.
    #[error("cannot read the password file {}: {source}", path.display())]
    Password {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Beats that cannot work.
    #[error(transparent)]
    Beats(#[from] BeatOptionsError),
    /// No room for the tasks.
    #[error(transparent)]
    Budget(#[from] BudgetExceeded),
}

impl ClusterOptions {
    /// The defaults, on `addr`: no other nodes, a beat a second.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        let control = ControlOptions::default();
        Self {
            addr,
            server: control.server,
            connection: control.connection,
            bytes_max: None,
            peers: Vec::new(),
            zookeeper: None,
            beats: BeatOptions::default(),
            login: None,
            mechanism: None,
        }
    }
}

/// What a node brings along.
pub(crate) struct Joining<'a> {
    pub(crate) bus: &'a BusRuntime,
    pub(crate) ledger: &'a Ledger,
    pub(crate) tls: Option<TlsServer>,
    /// What other nodes are connected to with.
    pub(crate) peer_tls: Option<TlsClient>,
    /// Of nodes.
    pub(crate) authenticator: Option<Arc<Authenticator>>,
    /// Without its control port.
    pub(crate) endpoint: DrillbitEndpoint,
    pub(crate) incarnation: u64,
    pub(crate) queries: RunningQueries,
    pub(crate) engine: Arc<DrillEngine>,
    /// Of its data plane, if it has one.
    pub(crate) data: Option<DataPeers>,
}

/// The node's part in the cluster; it ends when this is dropped.
pub(crate) struct Cluster {
    control: ControlNode,
    links: Arc<Links>,
    registry: Registry,
    heartbeats: Heartbeats,
    /// Where members come from, unless they come from a list.
    zookeeper: Option<Arc<ZooKeeperProvider>>,
    stop: CancellationToken,
    /// What ends in its own time: the provider takes back what it has made known.
    provider: Tasks,
    beating: Tasks,
}

impl Cluster {
    /// Listens, and begins to beat.
    pub(crate) async fn join(
        options: &ClusterOptions,
        joining: Joining<'_>,
    ) -> Result<Self, ClusterError> {
        let answerer = BeatAnswerer::default();
        let services = Services {
            queries: Arc::new(joining.queries.clone()),
            extensions: vec![Arc::new(answerer.clone())],
            ..Services::default()
        };
        let control = ControlNode::bind(
            options.addr,
            joining.endpoint.clone(),
            joining.bus.clone(),
            options.control(&joining)?,
            services,
            joining.ledger.clone(),
        )
        .await
        .map_err(|source| ClusterError::Listen {
            addr: options.addr,
            source,
        })?;
        let registry = Registry::of_node(joining.member(&control), RegistryOptions::default());
        let heartbeats = Heartbeats::new(registry.clone(), options.beats)?;
        answerer.serve(&heartbeats);
        let zookeeper = options.zookeeper.clone().map(ZooKeeperProvider::new);
        let cluster = Self {
            links: Arc::new(Links::new(
                control.clone(),
                registry.clone(),
                joining.incarnation,
                joining.data.clone(),
            )),
            control,
            registry,
            heartbeats,
            zookeeper: zookeeper.map(Arc::new),
            stop: CancellationToken::new(),
            provider: Tasks::default(),
            beating: Tasks::default(),
        };
        cluster.start(options, &joining)?;
        Ok(cluster)
    }

    fn start(&self, options: &ClusterOptions, joining: &Joining<'_>) -> Result<(), BudgetExceeded> {
        let (app, ledger) = (joining.bus.app(), joining.ledger);
        let (registry, stop) = (self.registry.clone(), self.stop.clone());
        let provider = self.provider(options);
        self.provider.spawn(app, ledger, async move {
            if let Err(error) = provider.run(&registry, &stop).await {
                tracing::error!(%error, "other nodes are not looked for any more");
            }
        })?;
        let (heartbeats, links) = (self.heartbeats.clone(), Arc::clone(&self.links));
        // Where queries do not keep it waiting.
        let io = joining.bus.next_io();
        self.beating
            .spawn(io, ledger, async move { heartbeats.run(links).await })?;
        let interval = options.beats.interval;
        let links = Arc::clone(&self.links);
        let connecting = links.connect_data(self.heartbeats.clone(), interval);
        self.beating.spawn(app, ledger, connecting)?;
        let failing = Arc::clone(&self.links).fail_streams(self.heartbeats.clone());
        self.beating.spawn(app, ledger, failing)?;
        let (registry, queries) = (self.registry.clone(), joining.queries.clone());
        let engine = Arc::clone(&joining.engine);
        self.beating.spawn(app, ledger, async move {
            loop {
                registry.set_local_load(queries.load(&engine));
                tokio::time::sleep(interval).await;
            }
        })?;
        Ok(())
    }

    /// Where the control server listens.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.control.local_addr()
    }

    /// What others are told of this node from now on.
    pub(crate) fn set_state(&self, state: NodeState) {
        self.registry.set_local_state(state);
        self.control.set_state(state);
    }

    /// How the others are.
    pub(crate) fn health(&self) -> Vec<NodeHealth> {
        self.heartbeats.nodes()
    }

    /// How much later than due the task ran that beats, together.
    pub(crate) fn stalled(&self) -> Duration {
        self.heartbeats.stalled()
    }

    /// How it goes with ZooKeeper, if members come from there.
    pub(crate) fn zookeeper(&self) -> Option<ZooKeeperStats> {
        Some(self.zookeeper.as_ref()?.stats())
    }

    /// This node first, then all others by address.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let health = self.heartbeats.nodes();
        let local = self.registry.local().map(|local| local.address.clone());
        let mut members = self.registry.members();
        let is_local = |member: &Member| Some(&member.address) == local.as_ref();
        members.sort_by_key(|member| !is_local(member));
        let seen = |member: &Member| {
            let known = |health: &&NodeHealth| health.address == member.address;
            match health.iter().find(known) {
                _ if is_local(member) => Seen::Local,
                Some(health) => Seen::Remote(health),
                None => Seen::NotYet,
            }
        };
        let nodes = members
            .iter()
            .map(|member| node_status(member, seen(member)));
        nodes.collect()
    }

    /// Leaves: the others are told, the provider takes back what it has made known, the connections end.
    pub(crate) async fn leave(&self) {
        self.stop.cancel();
        let links = Arc::clone(&self.links);
        self.heartbeats.announce(links, LEAVE_TIME).await;
        self.control.shutdown(LEAVE_TIME).await;
        self.provider.join(LEAVE_TIME).await;
    }
}

impl Cluster {
    fn provider(&self, options: &ClusterOptions) -> Arc<dyn Provider> {
        match &self.zookeeper {
            Some(zookeeper) => Arc::<ZooKeeperProvider>::clone(zookeeper),
            None => Arc::new(options.peers.iter().cloned().collect::<StaticProvider>()),
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("control", &self.control)
            .field("members", &self.registry.members().len())
            .finish_non_exhaustive()
    }
}

impl ClusterOptions {
    /// Who this node is to others, over `tls` or in clear.
    pub(crate) fn login(&self, tls: Option<&TlsClient>) -> Result<Option<Login>, ClusterError> {
        let Some((user, path)) = &self.login else {
            return Ok(None);
        };
        let password = File::open(path).and_then(first_line);
        let password = password.map_err(|source| ClusterError::Password {
            path: path.clone(),
            source,
        })?;
        Ok(Some(Login {
            mechanism: self.mechanism_over(tls),
            ..Login::new(Credentials::new(user, password))
        }))
    }

    fn mechanism_over(&self, tls: Option<&TlsClient>) -> Option<Mechanism> {
        let in_clear = tls.is_none().then_some(Mechanism::ScramSha256);
        self.mechanism.or(in_clear)
    }

    fn control(&self, joining: &Joining<'_>) -> Result<ControlOptions, ClusterError> {
        let default = ControlOptions::default();
        let mut server = self.server.clone();
        server.connection.capabilities = Some(version::capabilities().into());
        server.tls.clone_from(&joining.tls);
        Ok(ControlOptions {
            server,
            authenticator: joining.authenticator.clone(),
            connection: ConnectionOptions {
                handshake_timeout: self.connection.handshake_timeout.min(HANDSHAKE_TIME),
                ..self.connection.clone()
            },
            tls: joining.peer_tls.clone(),
            login: self.login(joining.peer_tls.as_ref())?,
            incarnation: Some(joining.incarnation),
            features: default.features.with(Feature::Beats),
            engine_version: engine::version(),
            ..default
        })
    }
}

impl Joining<'_> {
    /// This node, as others are told.
    fn member(&self, control: &ControlNode) -> Member {
        let mut endpoint = self.endpoint.clone();
        endpoint.control_port = Some(control.address().control_port().into());
        endpoint.set_state(NodeState::Startup);
        Member {
            endpoint: endpoint.into(),
            state: Some(NodeState::Startup),
            incarnation: Some(self.incarnation),
            software_version: Some(version::SOFTWARE.to_owned()),
            engine_version: Some(engine::version()),
            load: Some(self.queries.load(&self.engine)),
            ..Member::at(control.address().clone())
        }
    }
}

/// What the beats have found of a member.
#[derive(Clone, Copy)]
enum Seen<'a> {
    /// It is this node.
    Local,
    /// Not yet: it has become a member since the nodes were last looked after.
    NotYet,
    /// It is beaten to.
    Remote(&'a NodeHealth),
}

fn node_status(member: &Member, seen: Seen<'_>) -> Node {
    let (health, reason, beats) = match seen {
        Seen::Local => (node::Health::Up, "this node".to_owned(), None),
        Seen::NotYet => (node::Health::Unknown, "not looked at yet".to_owned(), None),
        Seen::Remote(health) => (health_status(health), why(health), Some(beats(health))),
    };
    Node {
        endpoint: Some(DrillbitEndpoint {
            // Where it is reached.
            address: Some(member.address.host().to_owned()),
            control_port: Some(member.address.control_port().into()),
            state: member.state.map(Into::into),
            ..member.endpoint.message().clone()
        }),
        health: Some(health.into()),
        reason: Some(reason),
        incarnation: member.incarnation,
        software_version: member.software_version.clone(),
        engine_version: member.engine_version.clone(),
        local: Some(matches!(seen, Seen::Local)),
        beats,
        queries_running: member.load.map(|load| load.queries),
        fragments_running: member.load.map(|load| load.fragments),
        memory_bytes: member.load.map(|load| load.memory_bytes),
        memory_bytes_max: member.load.map(|load| load.memory_bytes_max),
    }
}

fn health_status(health: &NodeHealth) -> node::Health {
    match health.health {
        Health::Up => node::Health::Up,
        Health::Suspect if health.counts.answered == 0 && health.counts.downs == 0 => {
            node::Health::Unknown
        }
        Health::Suspect => node::Health::Suspect,
        Health::Down => node::Health::Down,
    }
}

/// The reason, and another version if it has one.
fn why(health: &NodeHealth) -> String {
    let other = health.version_mismatch.as_ref().map(|versions| {
        let ((ours, our_engine), (theirs, their_engine)) = (&versions.ours, &versions.theirs);
        format!("; versions differ: {theirs} {their_engine}, here {ours} {our_engine}")
    });
    format!("{}{}", health.reason, other.unwrap_or_default())
}

fn beats(health: &NodeHealth) -> Beats {
    let (trips, data_trips) = (health.round_trips, health.data_round_trips);
    Beats {
        age_us: Some(micros(health.beat_age)),
        sent: Some(health.counts.sent),
        answered: Some(health.counts.answered),
        missed: Some(health.counts.failed),
        flaps: u32::try_from(health.counts.flaps).ok(),
        phi: Some(health.phi),
        rtt_p50_us: trips.map(|trips| micros(trips.p50)),
        rtt_p99_us: trips.map(|trips| micros(trips.p99)),
        data_rtt_p50_us: data_trips.map(|trips| micros(trips.p50)),
        data_rtt_p99_us: data_trips.map(|trips| micros(trips.p99)),
        recent_rtt_us: health
            .recent_round_trips
            .iter()
            .copied()
            .map(micros)
            .collect(),
        clock_skew_us: health.skew.map(|skew| skew.offset_us),
        clock_skew_error_us: health.skew.map(|skew| skew.error_us),
    }
}

/// What `status.proto` counts times in.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(seen: Seen<'_>) -> Node {
        let address = "node2:31011".parse().unwrap();
        node_status(&Member::at(address), seen)
    }

    #[test]
    fn a_member_that_nobody_has_looked_at_is_neither_up_nor_this_node() {
        let new = status_of(Seen::NotYet);
        assert_eq!(
            (new.health(), new.reason(), new.local()),
            (node::Health::Unknown, "not looked at yet", false)
        );
        let local = status_of(Seen::Local);
        assert_eq!(
            (local.health(), local.reason(), local.local()),
            (node::Health::Up, "this node", true)
        );
    }
}
