//! The program as its users meet it: spawned, with arguments, standard streams and signals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod api;
mod certificates;
mod cluster;
mod config;
mod data;
mod drain;
mod http;
mod program;
mod script;
mod security;
mod serve;
mod streams;
mod usage;
mod wire;
