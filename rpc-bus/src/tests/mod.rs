//! Two connections, a clock that is turned by hand, and no sockets.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod calls;
mod capabilities;
mod driver;
mod handshake;
mod heartbeat;
mod limits;
mod link;
mod metrics;
mod one_way;
mod pair;
mod simulation;
mod wakes;

pub(crate) use link::{call_on, link_with_requests};
