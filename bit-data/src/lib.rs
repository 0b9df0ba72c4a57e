//! The data plane: record batches from fragment to fragment, under credits, within budgets.
//!
//! Between our own nodes batches travel in streams: a [`DataNode`] gives out [`StreamSender`]s, and [`Receivers`] for
//! the streams that others send. Both are named by a [`StreamAddress`]. Towards and from a real Drill they travel
//! Drill's way, which is [`drill`].
//!
//! ```
//! # use std::{error::Error, sync::Arc};
//! # use arrow::array::{ArrayRef, Int64Array, RecordBatch};
//! # use bit_data::{DataNode, NodeOptions, Origin, ReceiveOptions, SendOptions, StreamAddress};
//! # use futures::{SinkExt, TryStreamExt};
//! # use protos::id::QueryId;
//! # use rpc_bus::{BusRuntime, Ledger, ledger::Limits};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn Error>> {
//! # let runtime = BusRuntime::current(Arc::new(rayon::ThreadPoolBuilder::new().build()?));
//! # let ledger = Ledger::root("process", Limits::default());
//! # let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
//! # let batch = RecordBatch::try_from_iter([("n", numbers)])?;
//! # let any = ([127, 0, 0, 1], 0).into();
//! # let sent = batch.clone();
//! # let query = QueryId { part1: 1, part2: 1 };
//! # let there = DataNode::bind(any, runtime.clone(), NodeOptions::default(), ledger.clone()).await?;
//! let here = DataNode::bind(any, runtime, NodeOptions::default(), ledger).await?;
//!
//! // Fragment 1:0 of a query sends to 0:0; on its node:
//! let stream = StreamAddress::new(query, (1, 0), (0, 0));
//! let mut sender = there.sender(stream, &batch.schema(), SendOptions::default())?;
//! tokio::spawn(async move {
//!     sender.send(batch).await?;
//!     sender.close().await
//! });
//!
//! // On the node of 0:0:
//! let senders = [(Origin::Node(there.local_addr()), stream)];
//! let receivers = here.receivers(&senders, &ReceiveOptions::default()).await?;
//! let received: Vec<RecordBatch> = receivers.unordered().try_collect().await?;
//! # assert_eq!(received, [sent]);
//! # Ok(())
//! # }
//! ```

pub mod drill;

mod connect;
mod dispatch;
mod handshake;
mod merge;
mod server;
#[cfg(test)]
mod simulation;
mod spill;
mod stream;

pub use connect::{DataClient, DataTarget, connect};
pub use dispatch::{NoStreams, StreamHost, StreamSink};
pub use merge::{Merge, MergeError, MergeKeyError, MergeOptions, SortKey};
pub use server::{DataServer, DataServerOptions};
pub use spill::{
    SpillDir, SpillError, SpillOpenError, SpillOptions, SpillReader, SpillRecord, SpillWriter,
};
pub use stream::{
    Checksums, CodecReason, Compression, DataNode, DataPeers, NodeDown, NodeOptions, OpenError,
    Origin, PeerFailure, ReceiveError, ReceiveOptions, ReceiveStats, Receivers, SendError,
    SendOptions, SendStats, StreamAddress, StreamEnd, StreamReceiver, StreamSender, StreamStats,
    TunnelPeer, TunnelStats, Unordered,
};
