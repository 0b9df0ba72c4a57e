//! Two nodes, batches that know who they are, and ledgers that must read 0 in the end.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arrow::{
    array::{ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
};
use bit_data::{
    DataNode, NodeOptions, Origin, ReceiveError, ReceiveOptions, SendError, SendOptions,
    StreamAddress, StreamReceiver, StreamSender,
};
use futures::{SinkExt, Stream, StreamExt};
use protos::id::QueryId;
use rpc_bus::{
    BusRuntime, Ledger,
    ledger::{Kind, Limits},
};

/// A node with a ledger of its own.
pub(crate) struct Node {
    pub(crate) node: DataNode,
    pub(crate) ledger: Ledger,
}

pub(crate) fn runtime() -> BusRuntime {
    static POOL: OnceLock<Arc<rayon::ThreadPool>> = OnceLock::new();
    let pool = || rayon::ThreadPoolBuilder::new().num_threads(2).build();
    let pool = POOL.get_or_init(|| Arc::new(pool().expect("a pool")));
    BusRuntime::current(Arc::clone(pool))
}

impl Node {
    pub(crate) async fn start(options: NodeOptions) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), options).await
    }

    pub(crate) async fn start_at(address: SocketAddr, options: NodeOptions) -> Self {
        let ledger = Ledger::root("node", Limits::default());
        let node = DataNode::bind(address, runtime(), options, ledger.clone()).await;
        let node = node.expect("a port");
        Self { node, ledger }
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::Node(self.node.local_addr())
    }

    pub(crate) fn sender(&self, stream: StreamAddress) -> StreamSender {
        self.sender_with(stream, SendOptions::default())
    }

    pub(crate) fn sender_with(&self, stream: StreamAddress, options: SendOptions) -> StreamSender {
        let sender = self.node.sender(stream, &schema(), options);
        sender.expect("the only sender of its stream")
    }

    pub(crate) async fn receiver(&self, from: Origin, stream: StreamAddress) -> StreamReceiver {
        let options = ReceiveOptions::default();
        let receiver = self.node.receiver(from, stream, &options).await;
        receiver.expect("a sender is there")
    }

    /// Ends the node; everything that it held is given back.
    pub(crate) async fn stop(self) {
        self.node.shutdown(Duration::from_secs(10)).await;
        settled(&self.ledger).await;
    }
}

/// Waits until the ledger reads 0.
pub(crate) async fn settled(ledger: &Ledger) {
    settled_at(ledger, [0; 4]).await;
}

/// What is in use, by kind.
pub(crate) fn used(ledger: &Ledger) -> [usize; 4] {
    Kind::ALL.map(|kind| ledger.used(kind))
}

/// Waits until no more is in use than before: connections of the runtime end in their own time.
pub(crate) async fn settled_at(ledger: &Ledger, before: [usize; 4]) {
    for _ in 0..10_000 {
        if used(ledger) == before {
            return;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{ledger:?}, not {before:?}");
}

pub(crate) async fn pair() -> (Node, Node) {
    (
        Node::start(NodeOptions::default()).await,
        Node::start(NodeOptions::default()).await,
    )
}

/// The stream of sender `minor` to the one receiver.
pub(crate) fn stream(minor: i32) -> StreamAddress {
    StreamAddress::new(QueryId { part1: 1, part2: 2 }, (1, minor), (0, 0))
}

pub(crate) fn schema() -> SchemaRef {
    batch(0, 0, 0).schema()
}

/// Batch `number` of `sender`: says so in every row, beside `payload_bytes` in the first.
pub(crate) fn batch(sender: i64, number: i64, payload_bytes: usize) -> RecordBatch {
    let payload = vec![number.to_le_bytes()[0]; payload_bytes];
    let columns: [(&str, ArrayRef); 3] = [
        ("sender", Arc::new(Int64Array::from(vec![sender]))),
        ("number", Arc::new(Int64Array::from(vec![number]))),
        (
            "payload",
            Arc::new(BinaryArray::from(vec![payload.as_slice()])),
        ),
    ];
    RecordBatch::try_from_iter(columns).expect("three columns")
}

/// Sender and number of a batch; its payload must be its own.
pub(crate) fn identity(batch: &RecordBatch) -> (i64, i64) {
    let value = |column: usize| batch.column(column).as_primitive::<Int64Type>().value(0);
    let payload = batch.column(2).as_binary::<i32>().value(0);
    let number = value(1);
    assert!(payload.iter().all(|&byte| byte == number.to_le_bytes()[0]));
    (value(0), number)
}

/// Sends batches 0 to `count` and ends the stream.
pub(crate) async fn send_all(
    mut sender: StreamSender,
    id: i64,
    count: i64,
    payload_bytes: usize,
) -> Result<(), SendError> {
    for number in 0..count {
        sender.feed(batch(id, number, payload_bytes)).await?;
    }
    sender.close().await
}

/// Numbers of what came, and how it ended.
pub(crate) async fn receive_all(
    mut receiver: impl Stream<Item = Result<RecordBatch, ReceiveError>> + Unpin,
) -> (Vec<(i64, i64)>, Result<(), ReceiveError>) {
    let mut seen = Vec::new();
    while let Some(next) = receiver.next().await {
        match next {
            Ok(batch) => seen.push(identity(&batch)),
            Err(error) => return (seen, Err(error)),
        }
    }
    (seen, Ok(()))
}

/// What `sender` sent, in order.
pub(crate) fn expected(sender: i64, count: i64) -> Vec<(i64, i64)> {
    (0..count).map(|number| (sender, number)).collect()
}
