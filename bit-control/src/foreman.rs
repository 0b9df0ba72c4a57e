//! Queries whose foreman is this node: their fragments are spread over nodes, watched, and ended everywhere, once.
//!
//! `run.rs` is pure: no task, no clock, no socket. `foremen.rs` does what it says.

mod foremen;
pub(crate) mod run;

pub use foremen::{Foremen, ForemenOptions, QueryRun};
pub use run::{Assignment, Outcome, QueryPlan};
