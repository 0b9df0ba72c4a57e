//! Fragments that run on this node for the foremen of queries, here or elsewhere.
//!
//! ```text
//! REQ_INITIALIZE_FRAGMENTS -> worker.rs -> table.rs (who is in which state) -> FragmentRunner::start, run
//!                                      -> reports.rs (what whose foreman does not know yet) -> FRAGMENT_STATUSES
//! ```
//!
//! `table.rs` and `reports.rs` are pure: no task, no clock, no socket. `worker.rs` does what they say.

pub(crate) mod delta;
pub(crate) mod reports;
pub(crate) mod table;

mod runner;
mod worker;

pub use runner::{FragmentControl, FragmentRunner, FragmentTask, Started};
pub use worker::{FragmentInfo, Fragments, FragmentsOptions};
