//! `drillbit serve`: a node until a signal ends it.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
    process, thread,
    time::Duration,
};

use clap::Args;
use tokio::runtime::Handle;

use super::{
    Exit, Failure,
    config::{ConfigArguments, text},
};
use crate::{
    config::Flags,
    node::{ClusterError, Node, NodeError},
    signals::{Hangups, Signal, Signals},
};

const AFTER_HELP: &str = "\
Prints one line on standard output when it accepts connections: ready user=HOST:PORT, followed by
control=HOST:PORT, data=HOST:PORT and http=HOST:PORT if it listens there, too.
The first SIGTERM or Ctrl-C drains the node, as `drillbit drain` does: it refuses new queries with
the advice to try another node, and lets running ones end. A second signal ends it at once.
SIGHUP has certificates and users read again; so has a change of their files, within 10 s.

A cluster is a list of control ports, the same for all of its nodes:
  drillbit serve --user-port 31010 --control-port 31011 --peers 127.0.0.1:31011,127.0.0.1:32011
  drillbit serve --user-port 32010 --control-port 32011 --peers 127.0.0.1:31011,127.0.0.1:32011
  drillbit status

Other machines are let in only with users to authenticate, or when asked for by name:
  drillbit serve --bind 0.0.0.0 --tls-cert node.pem --tls-key node-key.pem --users users

Nodes of a cluster know each other by their hosts; off one machine each needs one of its own:
  drillbit serve --bind 0.0.0.0 --advertised-host node1 --peers node1:31011,node2:31011 …";

/// Arguments of `serve`. What is not given is as the configuration says.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ServeArguments {
    /// Address to listen on for clients and other nodes; monitors have a key of their own, http.bind
    /// [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<IpAddr>,
    /// Host that this node is known by [default: to clients the address that they connected to, to other
    /// nodes ADDRESS]
    #[arg(long, value_name = "HOST")]
    advertised_host: Option<String>,
    /// Port for clients; 0 takes a free one [default: 31010]
    #[arg(long, value_name = "PORT")]
    user_port: Option<u16>,
    /// Port for other Drillbits to send batches to; 0 takes a free one [default: none]
    #[arg(long, value_name = "PORT")]
    data_port: Option<u16>,
    /// Port for other nodes to find this one by (control plane); 0 takes a free one [default: none, or
    /// 31011 with --peers or --zookeeper]
    #[arg(long, value_name = "PORT")]
    control_port: Option<u16>,
    /// The other nodes of the cluster, by their control ports; this one may be among them
    #[arg(long, value_name = "HOST:CONTROL_PORT,…", value_delimiter = ',')]
    peers: Vec<String>,
    /// Find the other nodes in ZooKeeper, as the JDBC driver does
    #[arg(
        long,
        value_name = "HOST:PORT,…[/ROOT/CLUSTER_ID]",
        conflicts_with = "peers"
    )]
    zookeeper: Option<String>,
    /// Register there, so that drivers find this node
    #[arg(long, requires = "zookeeper")]
    register: bool,
    /// Port for monitors: /healthz, /readyz, /metrics and /api/v1; 0 takes a free one [default: none]
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Most memory for connections and queries, half of it for each, in MiB [default: 4096]
    #[arg(long, value_name = "MIB")]
    #[arg(value_parser = clap::value_parser!(u32).range(64..))]
    memory: Option<u32>,
    /// How long running queries may go on once the node is drained, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u32>,
    /// Speak TLS with this certificate (PEM), followed by those that it was issued by
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Let only those in who show a certificate of these authorities (PEM)
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Let only the users of this file in; see `drillbit password`
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Of these users, those that are nodes: only they may speak on control and data ports
    /// [default: the user that this node is at the others, cluster.user]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    node_users: Vec<String>,
    /// Let everybody in although other machines can reach the node
    #[arg(long)]
    insecure_no_auth: bool,
}

/// Runs the node.
pub(super) fn run(arguments: &ServeArguments, config: &ConfigArguments) -> Result<(), Failure> {
    let config = config.load(arguments.flags())?.config;
    let node = Node::start(&config.node_options()).map_err(|error| explain(&error))?;
    // Before anybody is told that we are ready, so that a quick SIGTERM ends us well, too.
    let app = node.bus().app().clone();
    let (mut signals, mut hangups) = listen(&app)?;
    if config.auth.insecure_no_auth {
        tracing::warn!("anyone who reaches this node can run queries");
    }
    if config.auth.users.is_some() && config.tls.certificates.is_none() {
        tracing::warn!("without TLS, results travel in clear, and so do passwords with PLAIN");
    }
    announce(&node);
    let end = loop {
        let event = app.block_on(async {
            tokio::select! {
                signal = signals.next() => Some(End::Signal(signal)),
                () = node.draining() => Some(End::Drain),
                () = hangups.next() => None,
            }
        });
        match event {
            Some(end) => break end,
            None => node.reload(),
        }
    };
    tracing::info!(
        because = ?end,
        grace_s = config.node.grace_s,
        "draining; a signal ends it at once"
    );
    let grace = Duration::from_secs(config.node.grace_s.into());
    end_at_next(signals, app)?;
    node.shutdown(grace);
    tracing::info!("ended");
    Ok(())
}

/// Why a node leaves.
#[derive(Debug)]
enum End {
    Signal(#[expect(dead_code, reason = "shown in the log")] Signal),
    /// `drillbit drain`, or the same over HTTP.
    Drain,
}

fn listen(app: &Handle) -> Result<(Signals, Hangups), Failure> {
    let _entered = app.enter();
    let both = Signals::listen().and_then(|signals| Ok((signals, Hangups::listen()?)));
    both.map_err(|error| {
        Failure::new(
            Exit::Failed,
            format_args!("cannot listen for signals: {error}"),
        )
    })
}

/// Ends the process by the next signal, from a thread of its own: the app threads may be what
/// hangs.
fn end_at_next(mut signals: Signals, app: Handle) -> Result<(), Failure> {
    let wait = move || {
        let signal = app.block_on(signals.next());
        process::exit(i32::from(signal.exit() as u8));
    };
    let thread = thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait);
    thread
        .map(drop)
        .map_err(|error| Failure::new(Exit::Failed, error))
}

impl ServeArguments {
    fn flags(&self) -> Flags {
        self.cluster_flags(self.node_flags())
    }

    fn cluster_flags(&self, flags: Flags) -> Flags {
        let enabled =
            self.control_port.is_some() || !self.peers.is_empty() || self.zookeeper.is_some();
        let port = self.control_port.map(i64::from);
        let peers = (!self.peers.is_empty()).then(|| self.peers.clone());
        let node_users = (!self.node_users.is_empty()).then(|| self.node_users.clone());
        let (zookeeper, register) = (self.zookeeper.clone(), self.register.then_some(true));
        flags
            .with(
                "--control-port",
                ("cluster", "enabled"),
                enabled.then_some(true),
            )
            .with("--control-port", ("cluster", "port"), port)
            .with("--peers", ("cluster", "peers"), peers)
            .with("--node-users", ("cluster", "node_users"), node_users)
            .with("--zookeeper", ("cluster", "zookeeper"), zookeeper)
            .with("--register", ("cluster", "register"), register)
    }

    fn node_flags(&self) -> Flags {
        let no_auth = self.insecure_no_auth.then_some(true);
        let (certificate, key) = (text(self.tls_cert.as_ref()), text(self.tls_key.as_ref()));
        let authorities = text(self.tls_client_ca.as_ref());
        let bind = self.bind.map(|bind| bind.to_string());
        Flags::default()
            .with("--tls-cert", ("tls", "certificates"), certificate)
            .with("--tls-key", ("tls", "key"), key)
            .with(
                "--tls-client-ca",
                ("tls", "client_authorities"),
                authorities,
            )
            .with("--users", ("auth", "users"), text(self.users.as_ref()))
            .with("--bind", ("node", "bind"), bind.clone())
            .with("--bind", ("data", "bind"), bind.clone())
            .with("--bind", ("cluster", "bind"), bind)
            .with(
                "--advertised-host",
                ("node", "advertised_host"),
                self.advertised_host.clone(),
            )
            .with(
                "--user-port",
                ("node", "user_port"),
                self.user_port.map(i64::from),
            )
            .with(
                "--data-port",
                ("data", "enabled"),
                self.data_port.map(|_| true),
            )
            .with(
                "--data-port",
                ("data", "port"),
                self.data_port.map(i64::from),
            )
            .with(
                "--http-port",
                ("http", "enabled"),
                self.http_port.map(|_| true),
            )
            .with(
                "--http-port",
                ("http", "port"),
                self.http_port.map(i64::from),
            )
            .with(
                "--memory",
                ("node", "memory_mib"),
                self.memory.map(i64::from),
            )
            .with("--grace", ("node", "grace_s"), self.grace.map(i64::from))
            .with("--insecure-no-auth", ("auth", "insecure_no_auth"), no_auth)
    }
}

fn announce(node: &Node) {
    let more = [
        ("control", node.control_addr()),
        ("data", node.data_addr()),
        ("http", node.http_addr()),
    ];
    let more = more.map(|(name, addr)| addr.map(|addr| format!(" {name}={addr}")));
    let more = more.into_iter().flatten().collect::<Vec<_>>().concat();
    let line = format!("ready user={}{more}\n", node.user_addr());
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush())
    {
        tracing::warn!(%error, "cannot print the ready line");
    }
    let (data, http) = (node.data_addr(), node.http_addr());
    tracing::info!(user = %node.user_addr(), ?data, ?http, "accepting connections");
}

fn explain(error: &NodeError) -> Failure {
    let of_socket = match error {
        NodeError::Listen { source, .. }
        | NodeError::Cluster(ClusterError::Listen { source, .. }) => Some(source),
        _ => None,
    };
    let in_use = of_socket.is_some_and(|source| source.kind() == io::ErrorKind::AddrInUse);
    let exit = match error {
        _ if of_socket.is_some() => Exit::NoConnection,
        NodeError::Security(_) | NodeError::Cluster(_) => Exit::Usage,
        _ => Exit::Failed,
    };
    let way_out = if in_use {
        "; is another Drillbit running? Port 0 takes a free one: --user-port 0, and the same of --control-port, \
         --data-port and --http-port"
    } else {
        ""
    };
    Failure::new(exit, format_args!("{error}{way_out}"))
}
