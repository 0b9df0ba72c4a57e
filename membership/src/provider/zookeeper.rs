//! Members from a ZooKeeper, in Drill's own layout: `/ROOT/CLUSTER_ID/UUID`, an ephemeral node for each Drillbit.
//!
//! Java clients find a node that registers here; an observer only looks. One task does one thing at a time: it connects,
//! registers, reads all members, and then waits for events of watched nodes. Whenever it connects, it reads everything
//! again. While there is no connection the members are those that were there before.
//!
//! The protocol is spoken here (`connection`), because what there is of clients brings a reactor of its own and some
//! fifty crates.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use rand::Rng;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Provider, ProviderError};
use crate::{
    member::{Member, NodeState},
    registry::{Registry, Watch},
};

mod connection;
mod error;
mod instances;
mod jute;
mod path;

pub use path::{ZooKeeperPath, ZooKeeperPathError};

use connection::{Connection, Event, Lifetime, Owner, Session};
use error::Error;
use instances::{Instance, members, registration};

/// A session that has to be kept alive more often only costs.
const SESSION_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// Registrations that are looked at; those beyond are left out.
const INSTANCES_MAX: usize = 4096;

/// How a cluster in ZooKeeper is found, and whether this node becomes a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperOptions {
    /// Where it is.
    pub path: ZooKeeperPath,
    /// Whether this node registers, once it is no longer starting. A cluster of real Drillbits would then hand it
    /// fragments that it cannot run. Default: no, it only looks.
    pub register: bool,
    /// How long the session is to live without a sign of life; the server may choose otherwise. After that a node that
    /// has died is gone for others. Default 5 s, as Drill's; less than 1 s counts as 1 s.
    // wire: drill@051b164 exec/java-exec/.../drill-module.conf: drill.exec.zk.timeout
    pub session_timeout: Duration,
    /// Longest wait before connecting again; the first is up to 100 ms, and it doubles. It is never longer than a third
    /// of what the session may be silent, so that a server that is back in time finds the session alive. Default 5 s.
    pub backoff_max: Duration,
}

impl ZooKeeperOptions {
    /// An observer of the cluster at `path`.
    #[must_use]
    pub fn observer(path: ZooKeeperPath) -> Self {
        Self {
            path,
            register: false,
            session_timeout: Duration::from_secs(5),
            backoff_max: Duration::from_secs(5),
        }
    }

    /// A part of the cluster at `path`.
    #[must_use]
    pub fn registered(path: ZooKeeperPath) -> Self {
        Self {
            register: true,
            ..Self::observer(path)
        }
    }
}

/// How it goes with a ZooKeeper.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZooKeeperStats {
    /// Whether there is a connection.
    pub is_connected: bool,
    /// Whether this node is registered, as far as is known.
    pub is_registered: bool,
    /// Connections that there were.
    pub connections: u64,
    /// Sessions that there were: each after the first means that this node was gone for others for a while.
    pub sessions: u64,
    /// Registrations that could not be read, each counted whenever it was.
    pub unusable_registrations: u64,
    /// Why the last connection ended, or could not be made.
    pub last_error: Option<String>,
}

/// Members from a ZooKeeper.
pub struct ZooKeeperProvider {
    options: ZooKeeperOptions,
    /// Name of this node's registration.
    name: String,
    stats: Mutex<ZooKeeperStats>,
}

impl ZooKeeperProvider {
    /// Nothing is connected before it runs.
    #[must_use]
    pub fn new(options: ZooKeeperOptions) -> Self {
        Self {
            options,
            name: Uuid::new_v4().to_string(),
            stats: Mutex::default(),
        }
    }

    /// How it goes.
    #[must_use]
    pub fn stats(&self) -> ZooKeeperStats {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ZooKeeperStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to one server after the other, with longer and longer waits, until one will have us.
    async fn connect(&self, kept: &mut Kept) -> Connection {
        let hosts = self.options.path.hosts();
        loop {
            let (host, port) = &hosts[kept.next_host % hosts.len()];
            let asked = self.session_timeout();
            let server = (host.as_str(), *port);
            let (session, granted) = (kept.session.as_ref(), kept.granted);
            match Connection::open(server, session, asked, granted).await {
                Ok(connection) => {
                    self.on_connected(kept, &connection);
                    return connection;
                }
                // There will be a new one.
                Err(Error::SessionExpired) if kept.session.is_some() => kept.session = None,
                Err(error) => {
                    self.on_failed(&error, &format!("{host}:{port}"));
                    kept.next_host = kept.next_host.wrapping_add(1);
                    tokio::time::sleep(self.wait(kept)).await;
                }
            }
        }
    }

    fn on_connected(&self, kept: &mut Kept, connection: &Connection) {
        let is_new = kept.session.as_ref() != Some(connection.session());
        kept.is_confirmed = false;
        if is_new {
            kept.registered = None;
        }
        kept.session = Some(connection.session().clone());
        kept.granted = Some(connection.session_timeout());
        let mut stats = self.lock();
        stats.is_connected = true;
        stats.connections += 1;
        stats.sessions += u64::from(is_new);
    }

    fn on_failed(&self, error: &Error, with: &str) {
        tracing::warn!(%error, zookeeper = with, "ZooKeeper");
        let mut stats = self.lock();
        (stats.is_connected, stats.is_registered) = (false, false);
        stats.last_error = Some(error.to_string());
    }

    fn session_timeout(&self) -> Duration {
        self.options.session_timeout.max(SESSION_TIMEOUT_MIN)
    }

    // Full jitter: nodes that have lost the same server do not come back together.
    fn wait(&self, kept: &mut Kept) -> Duration {
        let doubled = Duration::from_millis(100) * 2_u32.pow(kept.failures.min(10));
        kept.failures = kept.failures.saturating_add(1);
        let session = kept.granted.unwrap_or_else(|| self.session_timeout());
        let longest = doubled.min(self.options.backoff_max).min(session / 3);
        longest.mul_f64(rand::rng().random_range(0.0..=1.0))
    }

    /// Serves one connection until it fails, or until it is to stop.
    async fn serve(
        &self,
        connection: &mut Connection,
        (registry, watch): (&Registry, &mut Watch),
        kept: &mut Kept,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        self.publish(connection, registry, kept).await?;
        let mut view = View::new(self.options.path.cluster());
        self.read(&mut view, connection, registry).await?;
        kept.failures = 0;
        loop {
            tokio::select! {
                event = connection.next_event() => {
                    self.on_event(&event?, &mut view, connection, registry).await?;
                }
                changed = watch.next() => {
                    if registry.local().is_some_and(|local| &local.address == changed.address()) {
                        self.publish(connection, registry, kept).await?;
                    }
                }
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn read(
        &self,
        view: &mut View,
        connection: &mut Connection,
        registry: &Registry,
    ) -> Result<(), Error> {
        self.list(view, connection).await?;
        view.tell(registry);
        Ok(())
    }

    async fn on_event(
        &self,
        event: &Event,
        view: &mut View,
        connection: &mut Connection,
        registry: &Registry,
    ) -> Result<(), Error> {
        match view.name_in(&event.path) {
            Some(name) => self.look(&name, view, connection).await?,
            None => self.list(view, connection).await?,
        }
        view.tell(registry);
        Ok(())
    }

    /// Reads which registrations there are, and those that are new.
    async fn list(&self, view: &mut View, connection: &mut Connection) -> Result<(), Error> {
        let names = loop {
            if let Some(names) = connection.children(&view.cluster).await? {
                break names;
            }
            // Nobody has registered yet: an event tells when somebody does, unless that was just now.
            if connection.owner(&view.cluster).await?.is_none() {
                break Vec::new();
            }
        };
        if names.len() > INSTANCES_MAX {
            tracing::warn!(
                found = names.len(),
                "only {INSTANCES_MAX} registrations are looked at"
            );
        }
        let names: Vec<_> = names.into_iter().take(INSTANCES_MAX).collect();
        view.instances.retain(|name, _| names.contains(name));
        for name in names {
            if !view.instances.contains_key(&name) {
                self.look(&name, view, connection).await?;
            }
        }
        Ok(())
    }

    /// Reads one registration.
    async fn look(
        &self,
        name: &str,
        view: &mut View,
        connection: &mut Connection,
    ) -> Result<(), Error> {
        let Some(payload) = connection.data(&view.path_of(name)).await? else {
            view.instances.remove(name);
            return Ok(());
        };
        let instance = Instance::decode(name, payload).inspect_err(|error| {
            tracing::warn!(%error, name, cluster = view.cluster, "a registration is of no use");
            self.lock().unusable_registrations += 1;
        });
        view.instances.insert(name.to_owned(), instance.ok());
        Ok(())
    }

    /// Registers this node, or writes what has changed of it.
    async fn publish(
        &self,
        connection: &mut Connection,
        registry: &Registry,
        kept: &mut Kept,
    ) -> Result<(), Error> {
        let Some(local) = registry.local().filter(|_| self.options.register) else {
            return Ok(());
        };
        if local.state == Some(NodeState::Startup) {
            return Ok(());
        }
        let payload = registration(&self.name, kept.registered_ms, &local.endpoint);
        // A session that goes on over another connection still has its node, unless somebody has deleted it.
        if !kept.is_confirmed || kept.registered.as_ref() != Some(&payload) {
            self.write(connection, &payload, kept.registered.is_some())
                .await?;
            (kept.registered, kept.is_confirmed) = (Some(payload), true);
            self.lock().is_registered = true;
        }
        Ok(())
    }

    async fn write(
        &self,
        connection: &mut Connection,
        payload: &[u8],
        is_there: bool,
    ) -> Result<(), Error> {
        let path = format!("{}/{}", self.options.path.cluster(), self.name);
        if is_there && connection.set(&path, payload).await? {
            return Ok(());
        }
        for ancestor in self.options.path.ancestors() {
            connection
                .create(&ancestor, &[], Lifetime::Persistent)
                .await?;
        }
        while !connection
            .create(&path, payload, Lifetime::Ephemeral)
            .await?
        {
            // Written on a connection that was lost before the answer came; or of a session that is not over yet.
            match connection.owner(&path).await? {
                Some(Owner::This) if connection.set(&path, payload).await? => return Ok(()),
                _ => connection.delete(&path).await?,
            };
        }
        Ok(())
    }

    /// Tells others that this node goes, and takes it away.
    async fn retire(&self, mut connection: Connection, registry: &Registry, kept: &Kept) {
        let path = format!("{}/{}", self.options.path.cluster(), self.name);
        let farewell = async {
            if let Some(local) = registry.local().filter(|_| kept.registered.is_some()) {
                let mut last = Member::clone(&local);
                last.set_state(NodeState::Offline);
                let payload = registration(&self.name, kept.registered_ms, &last.endpoint);
                connection.set(&path, &payload).await?;
                connection.delete(&path).await?;
            }
            connection.close().await
        };
        // Without it the session ends by itself.
        if let Err(error) = farewell.await {
            tracing::warn!(%error, "ZooKeeper was not told that this node goes");
        }
        let mut stats = self.lock();
        (stats.is_connected, stats.is_registered) = (false, false);
    }
}

#[async_trait]
impl Provider for ZooKeeperProvider {
    async fn run(
        &self,
        registry: &Registry,
        stop: &CancellationToken,
    ) -> Result<(), ProviderError> {
        if self.options.register && registry.local().is_none() {
            return Err(ProviderError::NoNode);
        }
        let mut kept = Kept::new(self.options.path.hosts().len());
        let (_, mut watch) = registry.watch();
        loop {
            let connecting = stop.run_until_cancelled(self.connect(&mut kept));
            let Some(mut connection) = connecting.await else {
                return Ok(());
            };
            let served = self.serve(&mut connection, (registry, &mut watch), &mut kept, stop);
            match served.await {
                Ok(()) => {
                    self.retire(connection, registry, &kept).await;
                    return Ok(());
                }
                Err(error) => {
                    self.on_failed(&error, &self.options.path.to_string());
                    // The others first: a server that says nothing takes connections, too.
                    kept.next_host = kept.next_host.wrapping_add(1);
                    if error.is_final() {
                        return Err(ProviderError::Refused {
                            coordinator: format!("ZooKeeper at {}", self.options.path),
                            reason: error.to_string(),
                        });
                    }
                    let wait = self.wait(&mut kept);
                    if stop
                        .run_until_cancelled(tokio::time::sleep(wait))
                        .await
                        .is_none()
                    {
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl fmt::Debug for ZooKeeperProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperProvider")
            .field("options", &self.options)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What outlives a connection.
struct Kept {
    session: Option<Session>,
    /// How long the last session may be silent.
    granted: Option<Duration>,
    /// What this node was last registered with in this session.
    registered: Option<Bytes>,
    /// Since it was connected last.
    is_confirmed: bool,
    registered_ms: i64,
    next_host: usize,
    failures: u32,
}

impl Kept {
    /// Nodes begin with different servers.
    fn new(hosts: usize) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since.unwrap_or_default().as_millis();
        Self {
            session: None,
            granted: None,
            registered: None,
            is_confirmed: false,
            registered_ms: i64::try_from(millis).unwrap_or(i64::MAX),
            next_host: rand::rng().random_range(0..hosts.max(1)),
            failures: 0,
        }
    }
}

/// The registrations as they were read last on one connection.
struct View {
    cluster: String,
    /// By name; `None` where there is something else.
    instances: BTreeMap<String, Option<Instance>>,
    refused: usize,
}

impl View {
    fn new(cluster: String) -> Self {
        Self {
            cluster,
            instances: BTreeMap::new(),
            refused: 0,
        }
    }

    fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.cluster)
    }

    /// The name of the registration at `path`; `None` if that is the cluster's own.
    fn name_in(&self, path: &str) -> Option<String> {
        let below = path.strip_prefix(&self.cluster)?;
        Some(below.strip_prefix('/')?.to_owned())
    }

    /// Makes members of them.
    fn tell(&mut self, registry: &Registry) {
        let full = registry.replace(members(self.instances.values().flatten()));
        let refused = full.err().map_or(0, |full| full.refused);
        if refused > 0 && refused != self.refused {
            tracing::warn!(
                refused,
                cluster = self.cluster,
                "more registrations than members"
            );
        }
        self.refused = refused;
    }
}

#[cfg(test)]
mod tests;
