//! The live ring: the real JDBC driver against our node, our client against a real Drill, and our
//! client against our node.

pub(crate) mod client_suite;
mod client_to_drill;
mod client_to_node;
mod control_plane;
mod data_plane;
mod driver_on_both;
mod driver_to_node;
mod harness;
mod killed;
mod nested_files;
mod prepared;
mod secured;
mod stalled;
mod vectors_to_driver;
mod versions;
mod zookeeper;
