//! Who is in the cluster: a registry of nodes with a watch, and where its members come from.
//!
//! A [`Provider`] says which nodes there are; what a node says of itself over the bus is [learned](Registry::learn).
//! Both end up in the [`Registry`], which everybody else reads, or [watches](Registry::watch).
//!
//! ```
//! use membership::{Event, Member, NodeAddress, NodeState, Registry, RegistryOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let here: NodeAddress = "node1:31011".parse()?;
//! let registry = Registry::of_node(Member::at(here), RegistryOptions::default());
//! let (members, mut watch) = registry.watch();
//! assert_eq!(members.len(), 1);
//!
//! registry.join(Member::at("node2:31011".parse()?))?;
//! registry.set_local_state(NodeState::Online);
//! assert!(matches!(watch.try_next(), Some(Event::Joined(node2)) if node2.address.host() == "node2"));
//! assert!(matches!(watch.try_next(), Some(Event::Changed { after, .. }) if after.is_in(NodeState::Online)));
//! # Ok(())
//! # }
//! ```

mod address;
mod endpoint;
mod member;
mod provider;
mod registry;

pub use address::{AddressError, NodeAddress};
pub use endpoint::{ENDPOINT_BYTES_MAX, EndpointError, NodeEndpoint};
pub use member::{Learned, Load, Member, NodeState, Role};
pub use provider::{
    Provider, ProviderError, StaticProvider, ZooKeeperOptions, ZooKeeperPath, ZooKeeperPathError,
    ZooKeeperProvider, ZooKeeperStats,
};
pub use registry::{Event, Registry, RegistryFull, RegistryOptions, Watch};
