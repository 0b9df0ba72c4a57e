//! Drill's way of moving batches, over real sockets: a peer by hand, recorded conversations, and both of our own sides.
#![allow(missing_docs, clippy::unwrap_used)]

#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the user server's tests"
)]
#[path = "../../../user-server/tests/support/peer.rs"]
mod peer;
mod support;

mod between;
mod receiving;
mod replay;
mod sending;
