//! What the integration, golden and interop tests stand on: recordings, raw peers, child processes,
//! a real Drillbit and the real JDBC driver. The tests themselves are in `it/`.

pub mod cache;
pub mod data;
pub mod golden;
pub mod interop;
pub mod nested;
pub mod node;
pub mod peer;
pub mod process;
pub mod transcript;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
