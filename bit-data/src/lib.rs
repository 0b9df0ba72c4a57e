//! The data plane: record batches from fragment to fragment, under credits, within budgets.

mod connect;
mod dispatch;
mod handshake;
mod server;

pub use connect::{DataClient, DataTarget, connect};
pub use dispatch::{NoStreams, StreamHost, StreamSink};
pub use server::{DataServer, DataServerOptions};
