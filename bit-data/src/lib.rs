//! The data plane: record batches from fragment to fragment, under credits, within budgets.

mod connect;
mod dispatch;
mod drill;
mod handshake;
mod server;
mod stream;

pub use connect::{DataClient, DataTarget, connect};
pub use dispatch::{NoStreams, StreamHost, StreamSink};
pub use drill::{
    BatchStream, Credit, DataTunnel, FragmentEvents, Fragments, FragmentsOptions, Input, NoEvents,
    Order, ReceiveError, Receivers, RegisterError, RuntimeFilter, TunnelError, TunnelOptions,
    TunnelStats,
};
pub use server::{DataServer, DataServerOptions};
pub use stream::{
    Checksums, CodecReason, Compression, DataNode, NodeOptions, OpenError, Origin, ReceiveError,
    ReceiveOptions, ReceiveStats, Receivers, SendError, SendOptions, SendStats, StreamAddress,
    StreamReceiver, StreamSender, TunnelStats, Unordered,
};
