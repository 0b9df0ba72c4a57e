//! The control plane: fragments, custom messages, heartbeats.
