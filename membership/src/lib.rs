//! Who is in the cluster: a registry of nodes with a watch, and where its members come from.

mod address;

pub use address::{AddressError, NodeAddress};
