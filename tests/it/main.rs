//! The integration tests, one binary.
//!
//! - `golden`: the recorded bytes of a real Drill through our codec, our server and our client;
//! - `hostile`: bytes that no peer should send, against a running node;
//! - `interop`: the live ring with a real Drillbit and the real JDBC driver. Skipped, loudly, where
//!   Java or Maven is missing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod golden;
mod hostile;
mod interop;
mod nodes;
