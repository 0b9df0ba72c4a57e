//! Every key of the configuration, declared once: section, name, type, default, text.
//!
//! A name ends in its unit where it has one (`_mib`, `_s`, `_ms`), and in `_max` where it is a limit.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::PathBuf,
};

use membership::{NodeAddress, ZooKeeperPath, ZooKeeperPathError};
use serde::{Deserialize, Serialize};

use crate::{
    node::{CONTROL_PORT, DATA_PORT, USER_PORT},
    threads::ThreadOptions,
};

/// A section of the file.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    /// Lines of text, each with a space in front.
    pub(crate) text: &'static [&'static str],
    pub(crate) keys: &'static [Key],
}

/// A key of a section.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// Lines of text, each with a space in front.
    pub(crate) text: &'static [&'static str],
}

/// Takes the sections as they are written below, those that end in `+ connections {…}` with the keys of every plane, and
/// declares them.
macro_rules! sections {
    (@ [$($done:tt)*]
        $(#[doc = $section_text:literal])+
        $section:ident: $Section:ident { $($keys:tt)* }
        + connections { $frame_mib_max:expr, $requests_in_flight_max:expr, $idle_timeout_s:expr }
        $($rest:tt)*
    ) => {
        impl $Section {
            /// Those of the keys that every plane has.
            pub(crate) fn connections(&self) -> PlaneKeys {
                PlaneKeys {
                    handshake_frame_kib_max: self.handshake_frame_kib_max,
                    frame_mib_max: self.frame_mib_max,
                    connections_max: self.connections_max,
                    connections_per_peer_max: self.connections_per_peer_max,
                    connects_per_peer_second_max: self.connects_per_peer_second_max,
                    backlog: self.backlog,
                    memory_mib_max: self.memory_mib_max,
                    requests_in_flight_max: self.requests_in_flight_max,
                    calls_in_flight_max: self.calls_in_flight_max,
                    write_queue_kib_max: self.write_queue_kib_max,
                    reply_queue_mib_max: self.reply_queue_mib_max,
                    send_buffer_kib: self.send_buffer_kib,
                    handshake_timeout_ms: self.handshake_timeout_ms,
                    idle_timeout_s: self.idle_timeout_s,
                    linger_timeout_ms: self.linger_timeout_ms,
                }
            }
        }

        sections! { @ [$($done)*
            $(#[doc = $section_text])+
            $section: $Section {
                $($keys)*
                /// Largest frame before the handshake is done, in KiB.
                handshake_frame_kib_max: NonZeroUsize = positive!(NonZeroUsize, 64),
                /// Largest frame afterwards, in MiB.
                frame_mib_max: NonZeroUsize = positive!(NonZeroUsize, $frame_mib_max),
                /// Connections at a time; one more is closed at once.
                connections_max: NonZeroUsize = positive!(NonZeroUsize, 10_000),
                /// Connections at a time from one address; one more is closed at once. As many as
                /// `connections_max` where all come through one proxy. Unset: 1,000, or all if they are fewer.
                connections_per_peer_max: Option<NonZeroUsize> = None,
                /// Connections of one address that are served a second; after a second's worth at once,
                /// those that come faster wait for their turn.
                connects_per_peer_second_max: NonZeroU32 = positive!(NonZeroU32, 500),
                /// Connections that the system may hold before they are accepted.
                backlog: u32 = 1024,
                /// Most memory for all connections of the plane together, in MiB: a part of the half of
                /// `memory_mib` of the section node that connections have. Unset: an eighth of that half for
                /// cluster, three eighths for data, the rest for user; nothing for what is not enabled.
                memory_mib_max: Option<NonZeroU32> = None,
                /// Requests of one connection that may wait for their answer; one more fails at once.
                requests_in_flight_max: NonZeroUsize = positive!(NonZeroUsize, $requests_in_flight_max),
                /// Calls to one peer that may wait for their answer.
                calls_in_flight_max: NonZeroUsize = positive!(NonZeroUsize, 65_536),
                /// Bytes of one connection that may wait to be written before senders wait, in KiB.
                write_queue_kib_max: NonZeroUsize = positive!(NonZeroUsize, 1024),
                /// Bytes of replies that may wait for a peer that does not read, in MiB; with more it is
                /// closed.
                reply_queue_mib_max: NonZeroUsize = positive!(NonZeroUsize, 16),
                /// Send buffer of a socket, in KiB. More helps only on long, fast links.
                send_buffer_kib: NonZeroUsize = positive!(NonZeroUsize, 512),
                /// How long a peer that connects may take for the handshake, in milliseconds.
                handshake_timeout_ms: NonZeroU64 = positive!(NonZeroU64, 10_000),
                /// How long nothing may come from a peer that is able to send PING, in seconds.
                idle_timeout_s: NonZeroU64 = positive!(NonZeroU64, $idle_timeout_s),
                /// How long a closing connection may take to write what is queued, in milliseconds.
                linger_timeout_ms: u64 = 1000,
            }
        ] $($rest)* }
    };
    (@ [$($done:tt)*]
        $(#[doc = $section_text:literal])+
        $section:ident: $Section:ident { $($keys:tt)* }
        $($rest:tt)*
    ) => {
        sections! { @ [$($done)*
            $(#[doc = $section_text])+
            $section: $Section { $($keys)* }
        ] $($rest)* }
    };
    (@ [$(
        $(#[doc = $section_text:literal])+
        $section:ident: $Section:ident {
            $($(#[doc = $text:literal])+ $key:ident: $Type:ty = $default:expr,)+
        }
    )+]) => {
        $(
            $(#[doc = $section_text])+
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub(crate) struct $Section {
                $($(#[doc = $text])+ pub(crate) $key: $Type,)+
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($key: $default,)+ }
                }
            }
        )+

        /// The values of all keys.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(crate) struct Config {
            $($(#[doc = $section_text])+ pub(crate) $section: $Section,)+
        }

        /// The sections in the order of the file.
        pub(crate) const SECTIONS: &[Section] = &[$(Section {
            name: stringify!($section),
            text: &[$($section_text),+],
            keys: &[$(Key { name: stringify!($key), text: &[$($text),+] },)+],
        },)+];
    };
    (# $($sections:tt)+) => {
        sections! { @ [] # $($sections)+ }
    };
}

/// The keys that every plane has: limits and times of its connections. Each plane's section declares them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlaneKeys {
    pub(crate) handshake_frame_kib_max: NonZeroUsize,
    pub(crate) frame_mib_max: NonZeroUsize,
    pub(crate) connections_max: NonZeroUsize,
    pub(crate) connections_per_peer_max: Option<NonZeroUsize>,
    pub(crate) connects_per_peer_second_max: NonZeroU32,
    pub(crate) backlog: u32,
    pub(crate) memory_mib_max: Option<NonZeroU32>,
    pub(crate) requests_in_flight_max: NonZeroUsize,
    pub(crate) calls_in_flight_max: NonZeroUsize,
    pub(crate) write_queue_kib_max: NonZeroUsize,
    pub(crate) reply_queue_mib_max: NonZeroUsize,
    pub(crate) send_buffer_kib: NonZeroUsize,
    pub(crate) handshake_timeout_ms: NonZeroU64,
    pub(crate) idle_timeout_s: NonZeroU64,
    pub(crate) linger_timeout_ms: u64,
}

/// A number that is not zero.
macro_rules! positive {
    ($Type:ident, $value:expr) => {
        const { $Type::new($value).expect("invariant: not zero") }
    };
}

sections! {
    /// The node: where it listens, its threads, its memory.
    node: NodeSection {
        /// Address to listen on for clients. Off the loopback interface, clients must authenticate:
        /// see the section auth.
        bind: IpAddr = Ipv4Addr::LOCALHOST.into(),
        /// Port for clients; 0 takes a free one.
        user_port: u16 = USER_PORT,
        /// Host that this node is known by, to clients and to the other nodes of its cluster: one of its own, and the
        /// one that their `peers` have. Unset: to clients the address that they connected to, to other nodes `bind`
        /// of the section cluster.
        advertised_host: Option<String> = None,
        /// Threads that only move bytes between sockets and memory. The default fits the machine.
        io_threads: NonZeroUsize = at_least_one(ThreadOptions::default().io),
        /// Threads for handlers and queries. The default fits the machine.
        app_threads: NonZeroUsize = at_least_one(ThreadOptions::default().app),
        /// Threads for encoding and decoding. The default fits the machine.
        cpu_threads: NonZeroUsize = at_least_one(ThreadOptions::default().cpu),
        /// Most memory for connections and queries, half of it for each, in MiB.
        memory_mib: NonZeroU32 = positive!(NonZeroU32, 4096),
        /// How often the files of certificates and users are looked at for changes, in seconds. SIGHUP
        /// has them read at once.
        reload_interval_s: NonZeroU64 = positive!(NonZeroU64, 10),
        /// How long running queries may go on once the node is drained, in seconds: by SIGTERM, Ctrl-C or
        /// `drillbit drain`.
        grace_s: u32 = 30,
    }

    /// The engine: how queries are planned and run.
    engine: EngineSection {
        /// Folder for data that does not fit into memory. Unset: the system's folder for temporary
        /// files.
        spill_folder: Option<PathBuf> = None,
        /// Most bytes of it, in MiB.
        spill_mib_max: u64 = 64 * 1024,
        /// Statements planned at a time.
        planning_threads_max: NonZeroUsize = positive!(NonZeroUsize, 8),
        /// Longest planning of a statement, reading of schemas included, in seconds.
        planning_timeout_s: NonZeroU64 = positive!(NonZeroU64, 60),
        /// Partitions of a plan. Unset: one a core.
        partitions: Option<NonZeroUsize> = None,
        /// The folders behind dfs.NAME.
        workspaces: BTreeMap<String, PathBuf> = crate::engine::EngineOptions::default().workspaces,
    }

    /// Limits and times of the connections of clients.
    user: UserSection {
        /// Time between two PINGs of the node to a client, in milliseconds. Unset: the node sends
        /// none, as Drill's; clients do.
        heartbeat_interval_ms: Option<NonZeroU64> = None,
        /// How long a client may leave PINGs unanswered, in milliseconds; at least three intervals.
        /// Unset: three intervals.
        heartbeat_timeout_ms: Option<NonZeroU64> = None,
        /// Time between two PINGs of the node to a client of our own kind, in milliseconds; it is closed
        /// after five without a sign of life. Drill's clients get none. 0: neither does ours.
        beat_interval_ms: u64 = 1000,
        /// Batches of one query that may be sent before the client acknowledged them.
        unacked_batches_max: NonZeroUsize = positive!(NonZeroUsize, 8),
        /// Bytes of these batches, in MiB.
        unacked_mib_max: NonZeroUsize = positive!(NonZeroUsize, 16),
        /// Most rows of a batch; Drill's clients take at most 65536.
        batch_rows_max: NonZeroUsize = positive!(NonZeroUsize, 32 * 1024),
        /// Bytes that a batch should have, in KiB.
        batch_kib_target: NonZeroUsize = positive!(NonZeroUsize, 1024),
        /// Longest statement, in KiB.
        statement_kib_max: NonZeroUsize = positive!(NonZeroUsize, 1024),
        /// Queries of one connection that may run at once; one more is refused.
        queries_per_connection_max: NonZeroUsize = positive!(NonZeroUsize, 64),
    } + connections { 16, 1024, 30 }

    /// The data plane: batches of other Drillbits. TLS and users are those of the sections tls and auth; a real
    /// Drill knows neither here, so leave them unset for one. Of the users only nodes come in: see `node_users` of
    /// the section cluster.
    data: DataSection {
        /// Whether other Drillbits may send batches.
        enabled: bool = false,
        /// Address to listen on. Off the loopback interface, peers must authenticate: see the section
        /// auth.
        bind: IpAddr = Ipv4Addr::LOCALHOST.into(),
        /// Port; 0 takes a free one.
        port: u16 = DATA_PORT,
        /// Bytes that may wait for a fragment that has not begun yet, in KiB; a single larger batch may,
        /// too.
        early_fragment_kib_max: NonZeroUsize = positive!(NonZeroUsize, 1024),
        /// Bytes of one connection that may wait so, in MiB.
        early_connection_mib_max: NonZeroUsize = positive!(NonZeroUsize, 16),
        /// How long they may before they are refused, in milliseconds.
        early_timeout_ms: NonZeroU64 = positive!(NonZeroU64, 10_000),
        /// Fragments that have ended and whose late batches are taken and dropped; beyond, the oldest
        /// are forgotten.
        tombstones_max: NonZeroUsize = positive!(NonZeroUsize, 65_536),
        /// For how long, in seconds.
        tombstone_time_s: NonZeroU64 = positive!(NonZeroU64, 600),
    } + connections { 256, 16 * 1024, 300 }

    /// The control plane: the other nodes of the cluster, and who is alive. TLS and users are those of the sections tls
    /// and auth.
    cluster: ClusterSection {
        /// Whether other nodes may connect, and this one beats to them.
        enabled: bool = false,
        /// Address to listen on. Off the loopback interface, peers must authenticate: see the section
        /// auth.
        bind: IpAddr = Ipv4Addr::LOCALHOST.into(),
        /// Port; 0 takes a free one.
        port: u16 = CONTROL_PORT,
        /// The other nodes, as HOST:PORT of the control plane; this one may be among them.
        peers: Vec<Peer> = Vec::new(),
        /// ZooKeeper that knows the other nodes, in place of `peers`: HOST:PORT,... and perhaps /ROOT/ID of
        /// the cluster behind them, as in the JDBC driver's URL.
        zookeeper: Option<ZooKeeper> = None,
        /// Whether this node registers there, so that drivers find it. In a cluster of real Drillbits it would be
        /// handed fragments that it cannot run.
        register: bool = false,
        /// Time between two beats, in milliseconds. A node that answers none is suspect within three, and
        /// down a second (or one interval, if that is longer) later.
        beat_interval_ms: NonZeroU64 = positive!(NonZeroU64, 1000),
        /// PEM file of the authorities that issued the certificates of the other nodes. Unset:
        /// `client_authorities` of the section tls. Other nodes are spoken to over TLS if this one has a certificate,
        /// which it shows.
        tls_ca: Option<PathBuf> = None,
        /// Whether certificates of other nodes must be for the hosts that they are reached by.
        tls_verify_host_name: bool = true,
        /// Name of the user to be at the other nodes, where they authenticate.
        user: Option<String> = None,
        /// File whose first line is that user's password.
        password_file: Option<PathBuf> = None,
        /// Users that are nodes: with users in the section auth, only these may speak on the control and data planes,
        /// whoever else may run queries. Unset: the one that this node is at the other nodes, `user`; and nobody, if
        /// there is none. Without users there is nobody to tell apart: then a certificate, if one is asked for, is enough.
        node_users: Vec<String> = Vec::new(),
        /// How to authenticate at the other nodes: SCRAM-SHA-256, or PLAIN, which shows them the password. Unset: the
        /// strongest that is offered over TLS, and without TLS only SCRAM-SHA-256.
        mechanism: Option<MechanismName> = None,
    } + connections { 64, 1024, 300 }

    /// TLS for clients and other nodes. Certificates are read again when their files change.
    tls: TlsSection {
        /// PEM file of the node's certificate, followed by those that it was issued by. Unset: no
        /// TLS.
        certificates: Option<PathBuf> = None,
        /// PEM file of its private key, without a password.
        key: Option<PathBuf> = None,
        /// PEM file of authorities: whoever connects must then show a certificate that one of them issued.
        /// It lets in, and says nothing about the name: without users in the section auth, each holder of a
        /// certificate is the user that they say they are.
        client_authorities: Option<PathBuf> = None,
        /// Oldest version that is spoken: 1.2 or 1.3.
        min_version: TlsVersion = TlsVersion::V12,
    }

    /// Who may come in. Users are read again when their file changes.
    auth: AuthSection {
        /// File of users, as htpasswd and `drillbit password` write it. Unset: everybody may come in.
        users: Option<PathBuf> = None,
        /// How users may authenticate: SCRAM-SHA-256 (offered if all users have its scheme), PLAIN.
        mechanisms: Vec<MechanismName> = vec![MechanismName::ScramSha256, MechanismName::Plain],
        /// Failures of one address within the window; then it is refused until the window has passed.
        failures_per_peer_max: NonZeroU32 = positive!(NonZeroU32, 10),
        /// The window, in seconds.
        failure_window_s: NonZeroU64 = positive!(NonZeroU64, 60),
        /// Lets everybody in although the node can be reached from other machines.
        insecure_no_auth: bool = false,
    }

    /// The HTTP server: /healthz and /metrics.
    http: HttpSection {
        /// Whether there is one.
        enabled: bool = false,
        /// Address to listen on. Off the loopback interface, readers must authenticate (see the section
        /// auth), and as there is no TLS here, `insecure_plain` must be set.
        bind: IpAddr = Ipv4Addr::LOCALHOST.into(),
        /// Lets other machines authenticate although their passwords travel in clear. Without it, put a
        /// proxy that speaks TLS in front.
        insecure_plain: bool = false,
        /// Port; 0 takes a free one.
        port: u16 = 8047,
        /// Connections at a time; one more is closed at once.
        connections_max: NonZeroUsize = positive!(NonZeroUsize, 64),
        /// How long the head of a request may take, in milliseconds; also how long a connection may
        /// be idle.
        header_timeout_ms: NonZeroU64 = positive!(NonZeroU64, 10_000),
        /// How long a reader may take nothing of its answer, in milliseconds.
        write_timeout_ms: NonZeroU64 = positive!(NonZeroU64, 10_000),
        /// Largest body of a request, in KiB.
        body_kib_max: NonZeroUsize = positive!(NonZeroUsize, 64),
    }

    /// What `drillbit sql` connects to, and as whom.
    client: ClientSection {
        /// User address of the Drillbit, or of several, with commas in between: the first that answers is
        /// taken. The port may be left out.
        connect: String = format!("127.0.0.1:{USER_PORT}"),
        /// Name of the user to be.
        user: Option<String> = None,
        /// File whose first line is the password. Unset: the variable
        /// `DRILLBIT_PASSWORD`.
        password_file: Option<PathBuf> = None,
        /// How to authenticate: SCRAM-SHA-256, or PLAIN, which shows the password to the Drillbit and, without
        /// TLS, to everybody on the way. Unset: the strongest that is offered, but without TLS never PLAIN
        /// to another machine.
        mechanism: Option<MechanismName> = None,
        /// Schema in which tables are looked up, such as dfs.tmp.
        schema: Option<String> = None,
        /// Time between two PINGs to a node of our own kind, in milliseconds; it is given up after five
        /// without a sign of life. A real Drill gets a PING only when nothing comes from it. 0: so does ours.
        beat_interval_ms: u64 = 1000,
        /// Whether to speak TLS.
        tls: bool = false,
        /// PEM file of the authorities to trust. Unset: those of the system.
        tls_ca: Option<PathBuf> = None,
        /// PEM file of a certificate to show to servers that want one.
        tls_certificates: Option<PathBuf> = None,
        /// PEM file of its private key, without a password.
        tls_key: Option<PathBuf> = None,
        /// Host that the server's certificate must be for. Unset: the one that is connected to.
        tls_server_name: Option<String> = None,
        /// Whether that is checked at all.
        tls_verify_host_name: bool = true,
    }
}

impl ClusterSection {
    /// Whether this node looks for others.
    pub(super) fn has_others(&self) -> bool {
        self.enabled && (!self.peers.is_empty() || self.zookeeper.is_some())
    }
}

/// The address of another node, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Peer(pub(crate) NodeAddress);

impl TryFrom<String> for Peer {
    type Error = membership::AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<Peer> for String {
    fn from(Peer(address): Peer) -> Self {
        address.to_string()
    }
}

/// A cluster in ZooKeeper, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ZooKeeper(pub(crate) ZooKeeperPath);

impl TryFrom<String> for ZooKeeper {
    type Error = ZooKeeperPathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<ZooKeeper> for String {
    fn from(ZooKeeper(path): ZooKeeper) -> Self {
        path.to_string()
    }
}

/// Versions of TLS by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TlsVersion {
    #[serde(rename = "1.2")]
    V12,
    #[serde(rename = "1.3")]
    V13,
}

/// Mechanisms of SASL by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MechanismName {
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "PLAIN")]
    Plain,
}

fn at_least_one(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}
