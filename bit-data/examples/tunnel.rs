//! Two nodes in one process, and a stream of record batches from one to the other.

use std::{error::Error, sync::Arc};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use bit_data::{DataNode, NodeOptions, Origin, ReceiveOptions, SendOptions, StreamAddress};
use futures::{SinkExt, StreamExt};
use protos::id::QueryId;
use rpc_bus::{BusRuntime, Ledger, ledger::Limits};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime = BusRuntime::current(Arc::new(rayon::ThreadPoolBuilder::new().build()?));
    let ledger = Ledger::root("process", Limits::default());
    let node = || {
        let (runtime, ledger) = (runtime.clone(), ledger.clone());
        DataNode::bind(
            ([127, 0, 0, 1], 0).into(),
            runtime,
            NodeOptions::default(),
            ledger,
        )
    };
    let (there, here) = (node().await?, node().await?);

    // Both ends of a stream use the same address: from fragment 1:0 to fragment 0:0 of a query.
    let stream = StreamAddress::new(QueryId { part1: 1, part2: 1 }, (1, 0), (0, 0));

    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
    let batch = RecordBatch::try_from_iter([("n", numbers)])?;
    let mut sender = there.sender(stream, &batch.schema(), SendOptions::default())?;
    let sending = async move {
        for _ in 0..1_000 {
            sender.send(batch.clone()).await?;
        }
        sender.close().await?;
        Ok::<_, bit_data::SendError>(sender.stats())
    };

    let receiving = async {
        let from = Origin::Node(there.local_addr());
        let mut receiver = here
            .receiver(from, stream, &ReceiveOptions::default())
            .await?;
        let mut rows = 0;
        while let Some(batch) = receiver.next().await {
            rows += batch?.num_rows();
        }
        println!("{rows} rows received");
        Ok::<_, Box<dyn Error>>(receiver.stats())
    };
    let (sent, received) = tokio::join!(sending, receiving);
    println!("{:#?}\n{:#?}", sent?, received?);
    Ok(())
}
