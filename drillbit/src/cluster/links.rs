//! The ways to other nodes, of both planes: beats travel on control connections, and what data connections tell counts too.
//!
//! Each node keeps a data connection to each other one that is up, so that what is measured there is known before the
//! first stream needs it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bit_control::{
    ControlNode,
    heartbeat::{Health, Heartbeats, PeerLinks, Signs},
};
use bit_data::{DataPeers, OpenError};
use futures::future::join_all;
use membership::{Member, NodeAddress, Registry};
use rpc_bus::{CallError, RemoteConnection};

/// How long a node may take for a data connection before others are looked after again.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// The ways to other nodes.
pub(super) struct Links {
    control: ControlNode,
    registry: Registry,
    /// Of this node.
    incarnation: u64,
    data: Option<DataPeers>,
    /// Where data servers listen, as far as they were connected to.
    data_servers: Mutex<HashMap<NodeAddress, DataServer>>,
}

#[derive(Clone, Copy)]
struct DataServer {
    address: SocketAddr,
    /// Of its node: another one may listen there since.
    incarnation: u64,
}

impl Links {
    pub(super) fn new(
        control: ControlNode,
        registry: Registry,
        incarnation: u64,
        data: Option<DataPeers>,
    ) -> Self {
        Self {
            control,
            registry,
            incarnation,
            data,
            data_servers: Mutex::default(),
        }
    }

    /// Sees to it that there is a data connection to every node that is up and has a data server.
    pub(super) async fn connect_data(
        self: Arc<Self>,
        registry: Registry,
        heartbeats: Heartbeats,
        interval: Duration,
    ) {
        let Some(data) = &self.data else { return };
        loop {
            let members = registry.members();
            let is_member =
                |node: &NodeAddress| members.iter().any(|member| &member.address == node);
            self.data_servers().retain(|node, _| is_member(node));
            let up = members
                .iter()
                .filter(|member| heartbeats.health(&member.address) == Some(Health::Up));
            let missing = up.filter(|member| self.data_connections(&member.address).is_empty());
            join_all(missing.map(|member| self.connect(data, member))).await;
            tokio::time::sleep(interval).await;
        }
    }

    async fn connect(&self, data: &DataPeers, member: &Member) {
        // Only a node of ours has an incarnation.
        let (Some(port), Some(incarnation)) = (data_port(member), member.incarnation) else {
            return;
        };
        let (node, host) = (&member.address, member.address.host());
        let connecting = async {
            let mut last: Result<_, DataError> = Ok(());
            for address in tokio::net::lookup_host((host, port)).await? {
                match data.connect(address, host).await {
                    Ok(()) => {
                        let server = DataServer {
                            address,
                            incarnation,
                        };
                        self.data_servers().insert(node.clone(), server);
                        return Ok(());
                    }
                    Err(error) => last = Err(error.into()),
                }
            }
            last
        };
        match tokio::time::timeout(CONNECT_TIME, connecting).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%node, port, %error, "no data connection"),
            Err(_) => tracing::debug!(%node, port, "no data connection in time"),
        }
    }

    fn data_connections(&self, node: &NodeAddress) -> Vec<RemoteConnection> {
        let server = self.data_servers().get(node).copied();
        let Some((data, server)) = self.data.as_ref().zip(server) else {
            return Vec::new();
        };
        let mut connections = data.connections(server.address);
        connections.retain(|connection| {
            let peer = connection.peer_capabilities();
            peer.and_then(|peer| peer.incarnation) == Some(server.incarnation)
        });
        connections
    }

    /// This node itself answers at `node`: it is listed by another name than its own.
    fn leave_out(&self, node: &NodeAddress) {
        let own = self.control.address();
        tracing::warn!(listed = %node, %own, "this node is listed by another name, which is left out");
        self.registry.leave(node);
        self.control.disconnect(node);
    }

    fn data_servers(&self) -> MutexGuard<'_, HashMap<NodeAddress, DataServer>> {
        let servers = self.data_servers.lock();
        servers.unwrap_or_else(PoisonError::into_inner)
    }
}

fn data_port(member: &Member) -> Option<u16> {
    let port = member.endpoint.message().data_port?;
    u16::try_from(port).ok().filter(|&port| port > 0)
}

#[derive(Debug, thiserror::Error)]
enum DataError {
    #[error(transparent)]
    Name(#[from] std::io::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
}

#[async_trait]
impl PeerLinks for Links {
    async fn connection(&self, to: &NodeAddress) -> Result<RemoteConnection, CallError> {
        let connection = self.control.connection(to).await?;
        let peer = connection.peer_capabilities();
        if peer.and_then(|peer| peer.incarnation) == Some(self.incarnation) {
            self.leave_out(to);
        }
        Ok(connection)
    }

    fn open(&self, to: &NodeAddress) -> Option<RemoteConnection> {
        self.control.open(to)
    }

    fn disconnect(&self, node: &NodeAddress) {
        self.control.disconnect(node);
        for connection in self.data_connections(node) {
            connection.close();
        }
    }

    fn signs(&self, node: &NodeAddress) -> Option<Signs> {
        let connections = self.data_connections(node);
        Some(Signs {
            last_received: connections
                .iter()
                .map(RemoteConnection::last_received)
                .max()?,
            round_trips: connections.iter().find_map(|one| one.stats().round_trips),
        })
    }
}
