//! Who is alive: beats between our own nodes, and what their answers, or their absence, say.
//!
//! ```text
//! driver.rs (a task: sends beats, reads clocks) -> monitor.rs (all nodes; time is an argument)
//!        -> node.rs (one node: health, counts) -> detector.rs (one silence against its limits), skew.rs (clocks)
//! ```
//!
//! A beat is a request that the peer answers on its I/O thread. Whatever else comes from the peer, on any connection,
//! counts as life too. A node that is silent is first `suspect`, by what its answers have been like (phi accrual) and
//! at the latest after three beats, and then `down`, at the latest a second later. How long *this* process has not run
//! is no silence of its peers.
//!
//! What runs on a node that goes down is failed at once by whoever runs it: [`Heartbeats::on_down`] (`downs.rs`).

mod answer;
mod beat;
mod detector;
mod downs;
mod driver;
mod monitor;
mod node;
mod options;
mod skew;
mod status;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use answer::BeatAnswerer;
pub use driver::{HealthWatch, Heartbeats, MissedEvents, PeerLinks, Signs};
pub use monitor::{Due, HealthEvent, Monitor};
pub use node::{BeatCounts, Health, NodeHealth, Reason, Rule, VersionMismatch};
pub use options::{BeatOptions, BeatOptionsError};
pub use skew::{Exchange, Skew};
