//! The client against a server by hand, and against our own server with an engine by hand.
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the support is shared with the server's tests"
)]

mod ours;
mod scripted;
mod tls;

#[path = "../../../user-server/tests/support/mod.rs"]
mod support;
