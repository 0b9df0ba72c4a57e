//! The program `drillbit`: a Drillbit in Rust on `DataFusion`, a SQL shell and a wire inspector.
//!
//! - [`cli::run`] is the whole program, for `main` and for other packages that need it under
//!   another name;
//! - [`node::Node`] is a running node, to be embedded;
//! - [`engine`] runs SQL on `DataFusion` behind the user plane.

pub mod cli;
mod connector;
pub mod engine;
mod inspect;
pub mod node;
mod output;
mod progress;
mod query;
mod shell;
mod signals;
mod statement;
mod threads;

pub use threads::{ThreadOptions, Threads};
