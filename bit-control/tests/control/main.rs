//! The control plane over real sockets: a peer by hand, recorded conversations, and several of our own nodes.
#![allow(missing_docs, clippy::unwrap_used)]

#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the user server's tests"
)]
#[path = "../../../user-server/tests/support/peer.rs"]
mod peer;
mod support;

mod calls;
mod channels;
mod connections;
mod queries;
mod replay;
mod security;
