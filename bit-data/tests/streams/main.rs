//! Streams between nodes over real sockets.

mod basics;
mod support;
