//! How values must relate to each other.

use std::{net::IpAddr, path::PathBuf};

use rpc_bus::{ConnectionOptions, OptionsError};

use super::{
    KeyName, Problem, Settings,
    keys::{ClusterSection, Peer, PlaneKeys, ZooKeeper},
};
use crate::node::PlaneBytes;

/// Most rows of a batch that Drill's clients take.
const CLIENT_ROWS_MAX: usize = 65_536;
/// Beats that may be missed before a peer counts as dead.
const BEATS_MIN: u64 = 3;
/// Timers are no more exact than that.
const BEAT_MS_MIN: u64 = 10;
/// With less, nothing runs.
const MEMORY_MIB_MIN: u32 = 64;

/// All contradictions.
pub(super) fn check(settings: &Settings) -> Vec<Problem> {
    let mut check = Check {
        settings,
        problems: Vec::new(),
    };
    check.node();
    check.cluster();
    check.host();
    check.beats();
    check.sizes();
    check.heartbeat();
    check.connections();
    check.memory();
    check.certificates();
    check.exposure();
    check.problems
}

struct Check<'a> {
    settings: &'a Settings,
    problems: Vec<Problem>,
}

impl Check<'_> {
    /// Notes that the value of a key is wrong, unless `holds`.
    fn require(&mut self, holds: bool, section: &'static str, key: &'static str, message: &str) {
        if holds {
            return;
        }
        let name = KeyName { section, key };
        let origin = self.settings.origin(name);
        self.problems.push(Problem {
            place: origin.map(ToString::to_string).unwrap_or_default(),
            message: format!("{name} {message}"),
        });
    }

    fn node(&mut self) {
        let config = &self.settings.config;
        let (node, http, data) = (&config.node, &config.http, &config.data);
        self.require(
            node.memory_mib.get() >= MEMORY_MIB_MIN,
            "node",
            "memory_mib",
            &format!(
                "is {}, at least {MEMORY_MIB_MIN} are needed",
                node.memory_mib
            ),
        );
        let same = http.enabled && http.port != 0 && http.port == node.user_port;
        self.require(
            !(same && http.bind == node.bind),
            "http",
            "port",
            &format!("is {}, which is node.user_port already", http.port),
        );
        let taken = [
            (true, node.bind, node.user_port, "node.user_port"),
            (http.enabled, http.bind, http.port, "http.port"),
            (data.enabled, data.bind, data.port, "data.port"),
        ];
        let cluster = &config.cluster;
        for (is_used, bind, port, name) in taken {
            let message = format!("is {port}, which is {name} already");
            let same = is_used && port != 0;
            let of_data = same && data.enabled && (data.bind, data.port) == (bind, port);
            self.require(!of_data || name == "data.port", "data", "port", &message);
            let of_cluster =
                same && cluster.enabled && (cluster.bind, cluster.port) == (bind, port);
            self.require(!of_cluster, "cluster", "port", &message);
        }
    }

    fn cluster(&mut self) {
        let config = &self.settings.config;
        let (cluster, tls) = (&config.cluster, &config.tls);
        let is_listed = !cluster.peers.is_empty();
        self.require(
            !is_listed || cluster.enabled,
            "cluster",
            "peers",
            "is set, but cluster.enabled is not",
        );
        self.require(
            cluster.zookeeper.is_none() || cluster.enabled,
            "cluster",
            "zookeeper",
            "is set, but cluster.enabled is not",
        );
        self.require(
            cluster.zookeeper.is_none() || !is_listed,
            "cluster",
            "zookeeper",
            "is set, but so is cluster.peers: nodes are found in one way",
        );
        self.require(
            !cluster.register || cluster.zookeeper.is_some(),
            "cluster",
            "register",
            "is set, but no cluster.zookeeper",
        );
        let trusts = cluster.tls_ca.is_some() || tls.client_authorities.is_some();
        self.require(
            !cluster.has_others() || tls.certificates.is_none() || trusts,
            "cluster",
            "tls_ca",
            "is not set: with tls.certificates, other nodes are spoken to over TLS, and nothing says whom to trust",
        );
        self.require(
            cluster.node_users.is_empty() || config.auth.users.is_some(),
            "cluster",
            "node_users",
            "is set, but no auth.users: nobody has to say who they are",
        );
        self.require(
            cluster
                .node_users
                .iter()
                .all(|name| !name.trim().is_empty()),
            "cluster",
            "node_users",
            "has an empty name, expected names of users",
        );
        let both = cluster.user.is_some() == cluster.password_file.is_some();
        self.require(
            both || cluster.user.is_none(),
            "cluster",
            "user",
            "is set, but no cluster.password_file",
        );
        self.require(
            both || cluster.user.is_some(),
            "cluster",
            "password_file",
            "is set, but no cluster.user",
        );
    }

    /// Others know this node by its host: two of the same are taken for one that was started again.
    fn host(&mut self) {
        let config = &self.settings.config;
        if let Some(host) = &config.node.advertised_host {
            let message = format!("is {host:?}, expected the host that others reach this node by");
            return self.require(is_host(host), "node", "advertised_host", &message);
        }
        let (cluster, bind) = (&config.cluster, config.cluster.bind);
        let (is_known, why) = if bind.is_loopback() {
            let advice = "no other machine reaches: listen where the other nodes reach this one (--bind ADDRESS)";
            (is_on_this_machine(cluster), advice)
        } else {
            let advice = "is every address of this machine: name the host by which the other nodes reach this one \
                          and tell it from others (--advertised-host HOST, or advertised_host in [node])";
            (!bind.is_unspecified(), advice)
        };
        let message = format!("is {bind}, which {why}");
        self.require(
            !cluster.has_others() || is_known,
            "cluster",
            "bind",
            &message,
        );
    }

    fn beats(&mut self) {
        let config = &self.settings.config;
        let cluster = config.cluster.beat_interval_ms.get();
        let (user, client) = (config.user.beat_interval_ms, config.client.beat_interval_ms);
        for (section, ms, is_none) in [
            ("cluster", cluster, false),
            ("user", user, user == 0),
            ("client", client, client == 0),
        ] {
            let message = format!("is {ms}, at least {BEAT_MS_MIN} are needed");
            self.require(
                is_none || ms >= BEAT_MS_MIN,
                section,
                "beat_interval_ms",
                &message,
            );
        }
    }

    fn sizes(&mut self) {
        let user = &self.settings.config.user;
        self.require(
            user.batch_rows_max.get() <= CLIENT_ROWS_MAX,
            "user",
            "batch_rows_max",
            &format!(
                "is {}, Drill's clients take at most {CLIENT_ROWS_MAX}",
                user.batch_rows_max
            ),
        );
        self.require(
            user.statement_kib_max.get() <= user.frame_mib_max.get().saturating_mul(1024),
            "user",
            "statement_kib_max",
            &format!(
                "is {}, more than user.frame_mib_max lets through",
                user.statement_kib_max
            ),
        );
        self.require(
            user.batch_kib_target.get() <= user.unacked_mib_max.get().saturating_mul(1024),
            "user",
            "batch_kib_target",
            &format!(
                "is {}, more than user.unacked_mib_max",
                user.batch_kib_target
            ),
        );
    }

    fn heartbeat(&mut self) {
        let user = &self.settings.config.user;
        let Some(timeout) = user.heartbeat_timeout_ms else {
            return;
        };
        let name = "heartbeat_timeout_ms";
        let Some(interval) = user.heartbeat_interval_ms else {
            self.require(
                false,
                "user",
                name,
                "is set, but no user.heartbeat_interval_ms",
            );
            return;
        };
        let least = interval.get().saturating_mul(BEATS_MIN);
        self.require(
            timeout.get() >= least,
            "user",
            name,
            &format!("is {timeout}, below {BEATS_MIN} beats of {interval} ms, that is {least}"),
        );
    }

    /// What every plane has.
    fn connections(&mut self) {
        for (section, keys) in self.settings.config.planes() {
            let of_peer = keys.connections_per_peer_max;
            self.require(
                of_peer.is_none_or(|max| max <= keys.connections_max),
                section,
                "connections_per_peer_max",
                &format!("is above {section}.connections_max"),
            );
            if let Err(error) = keys.connection(&ConnectionOptions::bit()).validate() {
                self.connection(section, &keys, &error);
            }
        }
    }

    /// What the bus itself asks of the options of a connection, in words of the keys.
    fn connection(&mut self, section: &'static str, keys: &PlaneKeys, error: &OptionsError) {
        let (key, message) = match error {
            OptionsError::FrameBytes { max, actual, .. } if actual > max => {
                let most = max >> 20;
                let message = format!("is {}, expected at most {most}", keys.frame_mib_max);
                ("frame_mib_max", message)
            }
            OptionsError::FrameBytes { .. } => {
                let (own, other) = (keys.handshake_frame_kib_max, keys.frame_mib_max);
                let message =
                    format!("is {own}, expected at most {section}.frame_mib_max, {other} MiB");
                ("handshake_frame_kib_max", message)
            }
            // No key can have such a value.
            other => (
                "frame_mib_max",
                format!("or another limit does not fit: {other}"),
            ),
        };
        self.require(false, section, key, &message);
    }

    /// Planes do not have more memory than there is for all.
    fn memory(&mut self) {
        let options = self.settings.config.node_options();
        let PlaneBytes {
            user,
            data,
            control,
        } = options.plane_bytes();
        let all = options.connection_bytes_max;
        let others = data.saturating_add(control);
        let mib = |bytes: usize| bytes >> 20;
        let message = |what: String| {
            format!(
                "{what} of {} MiB for all connections, half of node.memory_mib",
                mib(all)
            )
        };
        if others >= all {
            let is_data = self.settings.config.data.memory_mib_max.is_some() && data >= control;
            let section = if is_data { "data" } else { "cluster" };
            let what = format!(
                "is too much: data has {} MiB and cluster {}, which leaves user nothing",
                mib(data),
                mib(control)
            );
            self.require(false, section, "memory_mib_max", &message(what));
            return;
        }
        let what = format!(
            "is {}: beside data with {} MiB and cluster with {}, that is more than there is",
            mib(user),
            mib(data),
            mib(control)
        );
        let fits = user.saturating_add(others) <= all;
        self.require(fits, "user", "memory_mib_max", &message(what));
    }

    /// Of certificate and key, each needs the other.
    fn certificates(&mut self) {
        let (tls, auth) = (&self.settings.config.tls, &self.settings.config.auth);
        self.pair(
            "tls",
            ["certificates", "key"],
            [&tls.certificates, &tls.key],
        );
        let client = &self.settings.config.client;
        let (names, files) = (
            ["tls_certificates", "tls_key"],
            [&client.tls_certificates, &client.tls_key],
        );
        self.pair("client", names, files);
        self.require(
            tls.client_authorities.is_none() || tls.certificates.is_some(),
            "tls",
            "client_authorities",
            "is set, but no tls.certificates",
        );
        self.require(
            !auth.mechanisms.is_empty(),
            "auth",
            "mechanisms",
            "is empty: nobody could come in",
        );
        self.require(
            auth.users.is_none() || !auth.insecure_no_auth,
            "auth",
            "insecure_no_auth",
            "is set, but so is auth.users",
        );
    }

    fn pair(
        &mut self,
        section: &'static str,
        [one, other]: [&'static str; 2],
        [first, second]: [&Option<PathBuf>; 2],
    ) {
        let message = |missing| format!("is set, but no {section}.{missing}");
        let both = first.is_some() == second.is_some();
        self.require(both || first.is_none(), section, one, &message(other));
        self.require(both || second.is_none(), section, other, &message(one));
    }

    /// A node that other machines reach knows who comes, or was told not to care.
    fn exposure(&mut self) {
        let config = &self.settings.config;
        self.passwords_in_clear();
        if config.auth.users.is_some() || config.auth.insecure_no_auth {
            return;
        }
        // Whoever has a certificate has authenticated; the HTTP server does not ask for one.
        if config.tls.client_authorities.is_none() {
            self.exposed("node", config.node.bind);
            if config.data.enabled {
                self.exposed("data", config.data.bind);
            }
            if config.cluster.enabled {
                self.exposed("cluster", config.cluster.bind);
            }
        }
        if config.http.enabled {
            self.exposed("http", config.http.bind);
        }
    }

    fn passwords_in_clear(&mut self) {
        let (auth, http) = (&self.settings.config.auth, &self.settings.config.http);
        let message = format!(
            "is {}, which other machines reach, and there is no TLS: passwords would travel in clear; \
             put a proxy that speaks TLS in front, or set http.insecure_plain",
            http.bind
        );
        let asked = !http.enabled || auth.users.is_none() || http.insecure_plain;
        self.require(asked || http.bind.is_loopback(), "http", "bind", &message);
    }

    fn exposed(&mut self, section: &'static str, bind: IpAddr) {
        let message = format!(
            "is {bind}, which other machines reach, and nobody would have to authenticate: name \
             the users (--users FILE, or users in [auth]), or let everybody in (--insecure-no-auth)"
        );
        self.require(bind.is_loopback(), section, "bind", &message);
    }
}

/// Whether `host` may be that of one node.
fn is_host(host: &str) -> bool {
    let ip = host.parse::<IpAddr>();
    !host.is_empty() && !ip.is_ok_and(|ip| ip.is_unspecified())
}

/// Whether all that a node needs to find the others is on its own machine. A name could be that of any machine.
fn is_on_this_machine(cluster: &ClusterSection) -> bool {
    let is_here = |host: &str| {
        let ip = host.parse::<IpAddr>();
        host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
    };
    let mut peers = cluster.peers.iter();
    let zookeeper = cluster.zookeeper.as_ref();
    let mut servers = zookeeper
        .map_or(&[][..], |ZooKeeper(path)| path.hosts())
        .iter();
    peers.all(|Peer(peer)| is_here(peer.host())) && servers.all(|(host, _)| is_here(host))
}
