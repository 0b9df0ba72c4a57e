//! The program `drillbit`: a Drillbit in Rust on `DataFusion`, a SQL shell and a wire inspector.
//!
//! - [`cli::run`] is the whole program, for `main` and for other packages that need it under
//!   another name;
//! - [`node::Node`] is a running node, to be embedded;
//! - [`engine`] runs SQL on `DataFusion` behind the user plane.
//!
//! `config` is the one file that configures all of it, `http` and `metrics` how it is watched.

mod admin;
pub mod cli;
mod cluster;
mod config;
mod connector;
pub mod engine;
mod foreman;
mod http;
mod inspect;
mod metrics;
pub mod node;
mod output;
mod progress;
mod query;
mod security;
mod shell;
mod signals;
mod statement;
mod status;
mod threads;
mod version;

pub use threads::{ThreadOptions, Threads};
