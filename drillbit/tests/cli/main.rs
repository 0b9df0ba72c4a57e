//! The program as its users meet it: spawned, with arguments, standard streams and signals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod program;
mod script;
mod serve;
mod usage;
mod wire;
