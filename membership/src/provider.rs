//! Where members come from.

mod zookeeper;

use async_trait::async_trait;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{address::NodeAddress, member::Member, registry::Registry};

pub use zookeeper::{
    ZooKeeperOptions, ZooKeeperPath, ZooKeeperPathError, ZooKeeperProvider, ZooKeeperStats,
};

/// Names the nodes of a cluster.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Keeps the members of `registry` as this provider knows them, and this node known to others where the provider
    /// can do that, until `stop` is cancelled and what has to be undone is undone.
    ///
    /// What goes wrong for a while is logged, counted and tried again.
    ///
    /// # Errors
    /// It can never work.
    async fn run(&self, registry: &Registry, stop: &CancellationToken)
    -> Result<(), ProviderError>;
}

/// Why a provider can never work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// To make a program known that is no node.
    #[error("nothing to register: the program is no node")]
    NoNode,
    /// The coordinator does not let this program do what it must.
    #[error("{coordinator} refuses: {reason}")]
    Refused {
        /// Who refuses.
        coordinator: String,
        /// What it says.
        reason: String,
    },
}

/// Nodes from a list, which never changes. Their ports and versions are learned from their first beats.
#[derive(Clone, Debug, Default)]
pub struct StaticProvider {
    members: Vec<Member>,
}

impl StaticProvider {
    /// The nodes of the list.
    #[must_use]
    pub fn new(members: Vec<Member>) -> Self {
        Self { members }
    }
}

impl FromIterator<NodeAddress> for StaticProvider {
    fn from_iter<I: IntoIterator<Item = NodeAddress>>(addresses: I) -> Self {
        Self::new(addresses.into_iter().map(Member::at).collect())
    }
}

#[async_trait]
impl Provider for StaticProvider {
    async fn run(
        &self,
        registry: &Registry,
        stop: &CancellationToken,
    ) -> Result<(), ProviderError> {
        if let Err(full) = registry.replace(self.members.clone()) {
            tracing::warn!(%full, "not all nodes of the list are members");
        }
        stop.cancelled().await;
        Ok(())
    }
}
