//! Drill's RPC messages, the table of its calls, and total conversions.
//!
//! The messages are generated from the `.proto` files beside this crate; every module is one of Drill's packages.
//! They follow proto2: a scalar is an `Option`, and an enum is an `i32` with a typed getter. Code above the wire
//! converts them once, at the door, into total types such as [`id::QueryId`].
//!
//! [`calls`] answers every "which message is this" question: one row per RPC of the three planes.

pub mod body;
pub mod calls;
pub mod error;
pub mod id;
mod packages;
mod reflect;

pub use calls::{Call, OneWay, Plane, body_message, rpc_name};
pub use packages::{bit, bus, common, control, coord, data, rpc, shared, status, user};
pub use reflect::descriptors;

/// Version of the user plane's handshake.
// wire: drill@051b164 exec/java-exec/.../rpc/user/UserRpcConfig.java; golden/user/handshake
pub const USER_RPC_VERSION: i32 = 5;
/// Version of the control plane's handshake.
// wire: drill@051b164 exec/java-exec/.../rpc/control/ControlRpcConfig.java
pub const CONTROL_RPC_VERSION: i32 = 3;
/// Version of the data plane's handshake.
// wire: drill@051b164 exec/java-exec/.../rpc/data/DataRpcConfig.java
pub const DATA_RPC_VERSION: i32 = 4;
