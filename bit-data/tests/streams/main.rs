//! Streams between nodes over real sockets.

#![allow(
    clippy::disallowed_methods,
    reason = "every test waits for what it spawns"
)]

mod basics;
mod faults;
mod features;
mod identity;
mod killed;
mod local;
mod merging;
mod opening;
mod shutdown;
mod spilling;
mod support;
mod tls;
