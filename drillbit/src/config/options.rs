//! The configuration as the options of what the program is made of.

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use bit_control::heartbeat::BeatOptions;
use bit_data::DataServerOptions;
use bit_data::drill::FragmentsOptions;
use membership::ZooKeeperOptions;
use rpc_bus::{
    Beats, ConnectionOptions, ServerOptions,
    auth::{AuthOptions, Mechanism},
    tls::{IdentityFiles, Roots, TlsClientOptions, TlsServerFiles, TlsVersions},
};
use user_server::UserServerOptions;

use super::{
    ClientSection, Config,
    keys::{MechanismName, Peer, PlaneKeys, TlsVersion, ZooKeeper},
};
use crate::{
    connector,
    engine::EngineOptions,
    node::{ClusterOptions, DataOptions, HttpOptions, NodeOptions},
    security::SecurityOptions,
    threads::ThreadOptions,
    version,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

impl Config {
    /// All of a node.
    pub(crate) fn node_options(&self) -> NodeOptions {
        let half = usize::try_from(u64::from(self.node.memory_mib.get()) << 19);
        let half = half.unwrap_or(usize::MAX);
        NodeOptions {
            user_addr: SocketAddr::new(self.node.bind, self.node.user_port),
            connection_bytes_max: half,
            user_bytes_max: self.user.connections().memory_bytes_max(),
            threads: self.threads(),
            user_server: self.user_server(),
            engine: self.engine(half),
            data: self.data.enabled.then(|| self.data()),
            cluster: self.cluster.enabled.then(|| self.cluster()),
            http: self.http.enabled.then(|| self.http()),
            security: self.security(),
            reload_interval: Duration::from_secs(self.node.reload_interval_s.get()),
        }
    }

    /// How many threads of each kind.
    pub(crate) fn threads(&self) -> ThreadOptions {
        ThreadOptions {
            io: self.node.io_threads.get(),
            app: self.node.app_threads.get(),
            cpu: self.node.cpu_threads.get(),
            ..ThreadOptions::default()
        }
    }

    fn engine(&self, memory_bytes_max: usize) -> EngineOptions {
        let engine = &self.engine;
        EngineOptions {
            memory_bytes_max,
            spill_folder: engine.spill_folder.clone(),
            spill_bytes_max: engine.spill_mib_max.saturating_mul(MIB as u64),
            planning_threads_max: engine.planning_threads_max,
            planning_time_max: Duration::from_secs(engine.planning_timeout_s.get()),
            partitions: engine.partitions,
            workspaces: engine.workspaces.clone(),
        }
    }

    /// Certificates and users of the node.
    pub(crate) fn security(&self) -> SecurityOptions {
        let (tls, auth) = (&self.tls, &self.auth);
        let files = |(certificates, key)| TlsServerFiles {
            certificates,
            key,
            client_authorities: tls.client_authorities.clone(),
        };
        SecurityOptions {
            tls: tls.certificates.clone().zip(tls.key.clone()).map(files),
            tls_versions: match tls.min_version {
                TlsVersion::V12 => TlsVersions::Both,
                TlsVersion::V13 => TlsVersions::Tls13,
            },
            peers: self.peer_tls(),
            users: auth.users.clone(),
            node_users: self.cluster.node_users.clone(),
            auth: AuthOptions {
                mechanisms: auth.mechanisms.iter().map(|&name| name.into()).collect(),
                failures_per_peer_max: auth.failures_per_peer_max.get(),
                failure_window: Duration::from_secs(auth.failure_window_s.get()),
                ..AuthOptions::default()
            },
        }
    }

    fn data(&self) -> DataOptions {
        let data = &self.data;
        let defaults = bit_data::NodeOptions::default();
        let keys = data.connections();
        let server = DataServerOptions {
            connections: keys.server(defaults.server.connections),
            ..defaults.server
        };
        let (fragment, connection) = (data.early_fragment_kib_max, data.early_connection_mib_max);
        DataOptions {
            addr: SocketAddr::new(data.bind, data.port),
            server,
            connection: keys.connection(&defaults.connection),
            bytes_max: keys.memory_bytes_max(),
            fragments: FragmentsOptions {
                early_bytes_per_fragment_max: fragment.get().saturating_mul(KIB),
                early_bytes_per_connection_max: connection.get().saturating_mul(MIB),
                early_timeout: Duration::from_millis(data.early_timeout_ms.get()),
                tombstones_max: data.tombstones_max.get(),
                tombstone_time: Duration::from_secs(data.tombstone_time_s.get()),
            },
        }
    }

    fn cluster(&self) -> ClusterOptions {
        let cluster = &self.cluster;
        let interval = Duration::from_millis(cluster.beat_interval_ms.get());
        let defaults = ClusterOptions::new(SocketAddr::new(cluster.bind, cluster.port));
        let keys = cluster.connections();
        ClusterOptions {
            server: keys.server(defaults.server),
            connection: keys.connection(&defaults.connection),
            bytes_max: keys.memory_bytes_max(),
            peers: cluster
                .peers
                .iter()
                .map(|Peer(peer)| peer.clone())
                .collect(),
            zookeeper: cluster
                .zookeeper
                .as_ref()
                .map(|ZooKeeper(path)| ZooKeeperOptions {
                    register: cluster.register,
                    ..ZooKeeperOptions::observer(path.clone())
                }),
            beats: BeatOptions {
                interval,
                down_grace: interval.max(defaults.beats.down_grace),
                ..defaults.beats
            },
            login: cluster.user.clone().zip(cluster.password_file.clone()),
            mechanism: cluster.mechanism.map(Into::into),
            ..defaults
        }
    }

    /// Nodes that have certificates trust those that the same authorities issued to others.
    fn peer_tls(&self) -> Option<TlsClientOptions> {
        let (tls, cluster) = (&self.tls, &self.cluster);
        if !cluster.enabled {
            return None;
        }
        let (certificates, key) = tls.certificates.clone().zip(tls.key.clone())?;
        let authorities = cluster
            .tls_ca
            .as_ref()
            .or(tls.client_authorities.as_ref())?;
        Some(TlsClientOptions {
            identity: Some(IdentityFiles { certificates, key }),
            verify_host_name: cluster.tls_verify_host_name,
            ..TlsClientOptions::new(Roots::PemFile(authorities.clone()))
        })
    }

    fn http(&self) -> HttpOptions {
        let http = &self.http;
        HttpOptions {
            addr: SocketAddr::new(http.bind, http.port),
            connections_max: http.connections_max,
            header_timeout: Duration::from_millis(http.header_timeout_ms.get()),
            write_timeout: Duration::from_millis(http.write_timeout_ms.get()),
            body_bytes_max: http.body_kib_max.get().saturating_mul(KIB),
        }
    }

    fn user_server(&self) -> UserServerOptions {
        let user = &self.user;
        UserServerOptions {
            connections: self.user_connections(),
            beats: connector::beats(interval(user.beat_interval_ms)),
            advertised_host: self.node.advertised_host.clone(),
            unacked_batches_max: user.unacked_batches_max.get(),
            unacked_bytes_max: user.unacked_mib_max.get().saturating_mul(MIB),
            batch_rows_max: user.batch_rows_max.get(),
            batch_bytes_target: user.batch_kib_target.get().saturating_mul(KIB),
            statement_bytes_max: user.statement_kib_max.get().saturating_mul(KIB),
            queries_per_connection_max: user.queries_per_connection_max.get(),
            ..UserServerOptions::default()
        }
    }

    /// Limits of the connections of clients.
    pub(super) fn user_connections(&self) -> ServerOptions {
        let defaults = ServerOptions::new(ConnectionOptions::user_server());
        let mut connections = self.user.connections().server(defaults);
        connections.connection.beats = self.heartbeats();
        connections
    }

    /// The sections of the planes, and the keys that all of them have.
    pub(super) fn planes(&self) -> [(&'static str, PlaneKeys); 3] {
        [
            ("user", self.user.connections()),
            ("data", self.data.connections()),
            ("cluster", self.cluster.connections()),
        ]
    }

    fn heartbeats(&self) -> Option<Beats> {
        let interval = self.user.heartbeat_interval_ms?.get();
        let missed_max = match self.user.heartbeat_timeout_ms {
            Some(timeout) => u32::try_from(timeout.get() / interval).unwrap_or(u32::MAX),
            None => Beats::MISSED_MIN,
        };
        Some(Beats {
            interval: Duration::from_millis(interval),
            missed_max,
        })
    }
}

impl PlaneKeys {
    /// Of all connections of the plane.
    fn memory_bytes_max(self) -> Option<usize> {
        let mib = usize::try_from(self.memory_mib_max?.get());
        Some(mib.unwrap_or(usize::MAX).saturating_mul(MIB))
    }

    /// Those of a server, in place of its defaults.
    fn server(self, defaults: ServerOptions) -> ServerOptions {
        let of_peer = self.connections_per_peer_max.map(NonZeroUsize::get);
        ServerOptions {
            connection: self.connection(&defaults.connection),
            connections_max: self.connections_max.get(),
            connections_per_peer_max: of_peer.or(defaults.connections_per_peer_max),
            connects_per_peer_second_max: Some(self.connects_per_peer_second_max),
            backlog: self.backlog,
            tls: defaults.tls,
        }
    }

    /// Those of one connection, in place of its defaults.
    pub(super) fn connection(self, defaults: &ConnectionOptions) -> ConnectionOptions {
        let idle_timeout = Duration::from_secs(self.idle_timeout_s.get());
        ConnectionOptions {
            handshake_frame_bytes_max: self.handshake_frame_kib_max.get().saturating_mul(KIB),
            frame_bytes_max: self.frame_mib_max.get().saturating_mul(MIB),
            handshake_timeout: Duration::from_millis(self.handshake_timeout_ms.get()),
            idle_timeout: Some(idle_timeout),
            // The side that asks for a sign of life does so in time.
            ping_interval: defaults.ping_interval.map(|_| idle_timeout / 2),
            requests_in_flight_max: self.requests_in_flight_max.get(),
            calls_in_flight_max: self.calls_in_flight_max.get(),
            write_queue_bytes_max: self.write_queue_kib_max.get().saturating_mul(KIB),
            reply_queue_bytes_max: self.reply_queue_mib_max.get().saturating_mul(MIB),
            send_buffer_bytes: Some(self.send_buffer_kib.get().saturating_mul(KIB)),
            linger_timeout: Duration::from_millis(self.linger_timeout_ms),
            capabilities: Some(version::capabilities().into()),
            ..defaults.clone()
        }
    }
}

impl ClientSection {
    /// How often to PING one of our own nodes.
    pub(crate) fn beat_interval(&self) -> Option<Duration> {
        interval(self.beat_interval_ms)
    }
}

/// 0 is none.
fn interval(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

impl From<MechanismName> for Mechanism {
    fn from(name: MechanismName) -> Self {
        match name {
            MechanismName::ScramSha256 => Self::ScramSha256,
            MechanismName::Plain => Self::Plain,
        }
    }
}
