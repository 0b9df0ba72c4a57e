//! How to connect, and as whom.

use std::{fmt, sync::Arc, time::Duration};

use rpc_bus::{
    Beats, BusRuntime, Capabilities, ConnectionOptions, Feature, Features, Ledger,
    auth::{Credentials, Login, Mechanism, Password},
    tls::TlsClient,
};

/// Options of a client.
///
/// ```no_run
/// # use client::ClientOptions;
/// # fn example(runtime: rpc_bus::BusRuntime, ledger: rpc_bus::Ledger) {
/// let options = ClientOptions {
///     user: Some("alice".to_owned()),
///     schema: Some("dfs.tmp".to_owned()),
///     ..ClientOptions::new(runtime, ledger)
/// };
/// # }
/// ```
#[derive(Clone)]
pub struct ClientOptions {
    /// Whom to be. Default `None`, which Drill calls `anonymous`.
    pub user: Option<String>,
    /// Used only when the server asks for authentication.
    pub password: Option<Password>,
    /// The only way to authenticate. Default `None`: the strongest that the server offers. PLAIN
    /// shows the password to the server and, without TLS, to everybody on the way: so without TLS,
    /// and to another machine, it is used only if it is named here.
    pub mechanism: Option<Mechanism>,
    /// Schema in which unqualified names are looked up. Default `None`.
    pub schema: Option<String>,
    /// Further connection properties. Default none.
    pub properties: Vec<(String, String)>,
    /// Most rows of each result. Default `None`: all.
    pub autolimit_rows: Option<u32>,
    /// Whether maps and lists come as Arrow structs and lists, the default; otherwise a real Drill
    /// turns them into JSON text.
    pub complex_types: bool,
    /// Whether our own node sends results as Arrow bodies, the default: every Arrow type is kept. Otherwise they come as
    /// Drill's vectors, with Drill's types, as from a real Drill.
    pub arrow_bodies: bool,
    /// Bytes of one connection to a real Drill that may wait for their consumer; above, it is not
    /// read. Default 64 MiB.
    pub undelivered_bytes_max: usize,
    /// Connections to a real Drill at a time: one per result that streams. Default 64.
    pub connections_max: usize,
    /// How long a cancelled query may take to end before it is given up. Default 10 s.
    pub cancel_timeout: Duration,
    /// Regular PINGs to a server that has agreed to send them too, so that a dead one is soon found; a real Drill knows
    /// nothing of it, and is held to the times in `connection`. `None`: so are all. Default: one a second, and five may
    /// be missed.
    pub beats: Option<Beats>,
    /// TLS in front of everything. The server's certificate must be for the host that is connected
    /// to, unless these say otherwise. Default `None`.
    pub tls: Option<TlsClient>,
    /// Limits and times of each connection.
    pub connection: ConnectionOptions,
    /// Where the work runs.
    pub runtime: BusRuntime,
    /// What connections and results are charged to.
    pub ledger: Ledger,
}

impl ClientOptions {
    /// The defaults.
    #[must_use]
    pub fn new(runtime: BusRuntime, ledger: Ledger) -> Self {
        Self {
            user: None,
            password: None,
            mechanism: None,
            schema: None,
            properties: Vec::new(),
            autolimit_rows: None,
            complex_types: true,
            arrow_bodies: true,
            undelivered_bytes_max: 64 << 20,
            connections_max: 64,
            cancel_timeout: Duration::from_secs(10),
            beats: Some(Beats {
                interval: Duration::from_secs(1),
                missed_max: 5,
            }),
            tls: None,
            connection: ConnectionOptions {
                capabilities: Some(Arc::new(Capabilities::of_software(env!(
                    "CARGO_PKG_VERSION"
                )))),
                ..ConnectionOptions::user_client()
            },
            runtime,
            ledger,
        }
    }

    /// How to authenticate; `None` without user and password.
    pub(crate) fn login(&self) -> Option<Login> {
        let (user, password) = (self.user.clone()?, self.password.clone()?);
        Some(Login {
            mechanism: self.mechanism,
            step_timeout: self.connection.handshake_timeout,
            ..Login::new(Credentials { user, password })
        })
    }
}

impl ClientOptions {
    /// Those of a connection, which offers what these options want.
    pub(crate) fn connection(&self) -> ConnectionOptions {
        let mut options = self.connection.clone();
        if let Some(ours) = options.capabilities.take() {
            let mut ours = Arc::unwrap_or_clone(ours);
            ours.features = self.wanted(ours.features);
            options.capabilities = Some(Arc::new(ours));
        }
        options
    }

    fn wanted(&self, mut features: Features) -> Features {
        features = features.with(Feature::NodeStatus);
        if self.beats.is_some() {
            features = features.with(Feature::Beats);
        }
        if !self.arrow_bodies {
            features = features.without(Feature::ArrowBodies);
        }
        features
    }
}

/// Shows no values of properties: any may be a secret.
impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.properties.iter().map(|(key, _)| key).collect();
        f.debug_struct("ClientOptions")
            .field("user", &self.user)
            .field("schema", &self.schema)
            .field("properties", &keys)
            .field("autolimit_rows", &self.autolimit_rows)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rpc_bus::ledger::Limits;

    use super::*;

    #[test]
    fn beats_are_offered_and_never_forced_on_a_server_that_may_be_a_drill() {
        let cpu = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let pool = Arc::new(cpu.expect("a thread"));
        let threads = tokio::runtime::Builder::new_current_thread().build();
        let threads = threads.expect("a runtime");
        let _within = threads.enter();
        let ledger = Ledger::root("test", Limits::default());
        let mut options = ClientOptions::new(BusRuntime::current(pool), ledger);
        let offers = |options: &ClientOptions| {
            let connection = options.connection();
            assert_eq!(connection.beats, None);
            let ours = connection.capabilities.expect("an offer");
            ours.features.contains(Feature::Beats)
        };
        assert!(offers(&options));
        options.beats = None;
        assert!(!offers(&options));
    }
}
