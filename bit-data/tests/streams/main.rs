//! Streams between nodes over real sockets.

mod basics;
mod faults;
mod spilling;
mod support;
