//! The control plane: fragments, custom messages, heartbeats.

pub mod heartbeat;
