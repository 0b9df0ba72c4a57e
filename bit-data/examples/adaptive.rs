//! What compression brings: the same batches with each codec and with the adaptive choice, over loopback and through a
//! proxy that lets 100 MB/s through. Rates are of bytes before compression, medians of interleaved rounds.
//!
//! `cargo run --release -p bit-data --example adaptive [ROUNDS]`

use std::{
    error::Error,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use bit_data::{
    CodecReason, Compression, DataNode, NodeOptions, Origin, ReceiveOptions, SendOptions,
    StreamAddress,
};
use fault_proxy::{Faults, Proxy};
use futures::{SinkExt, StreamExt};
use protos::id::QueryId;
use record_batch::Codec;
use rpc_bus::{BusRuntime, Ledger, ledger::Limits};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const WAYS: [Compression; 5] = [
    Compression::Fixed(Codec::None),
    Compression::Fixed(Codec::Lz4),
    Compression::Fixed(Codec::Zstd),
    Compression::Fixed(Codec::Snappy),
    Compression::Adaptive,
];

#[tokio::main]
async fn main() -> Outcome<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    let (there, here) = (node().await?, node().await?);
    let proxy = Proxy::start(there.local_addr(), 1).await?;
    proxy.set_both(|to| {
        *to = Faults {
            bytes_per_s: Some(100_000_000),
            piece_bytes_max: 256 * 1024,
            ..Faults::default()
        };
    });
    let links = [
        ("loopback", there.local_addr(), Duration::from_millis(400)),
        ("100 MB/s", proxy.addr(), Duration::from_secs(2)),
    ];
    let batch = batch();
    let mut minor = 0;
    for (name, address, span) in links {
        let mut rates = WAYS.map(|_| Vec::new());
        let mut reasons = WAYS.map(|_| CodecReason::default());
        for _ in 0..rounds {
            for (way, compression) in WAYS.into_iter().enumerate() {
                minor += 1;
                let stream = StreamAddress::new(QueryId::default(), (1, minor), (0, 0));
                let sending = send(&there, stream, &batch, compression, span);
                let receiving = receive(&here, address, stream);
                let ((sent, reason), took) = tokio::try_join!(sending, receiving)?;
                rates[way].push(sent / took.as_secs_f64() / 1e6);
                reasons[way] = reason;
            }
        }
        for (way, compression) in WAYS.into_iter().enumerate() {
            rates[way].sort_by(f64::total_cmp);
            let (rate, reason) = (rates[way][rounds / 2], reasons[way]);
            println!("{name:<9} {rate:>8.1} MB/s  {compression:?} {reason:?}");
        }
    }
    Ok(())
}

async fn node() -> Outcome<DataNode> {
    let runtime = BusRuntime::current(Arc::new(rayon::ThreadPoolBuilder::new().build()?));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let ledger = Ledger::root("process", Limits::default());
    Ok(DataNode::bind(any, runtime, NodeOptions::default(), ledger).await?)
}

/// Numbers that grow slowly, and words: about a MiB.
fn batch() -> RecordBatch {
    let words = ["shipped", "pending", "returned", "in transit", "lost"];
    let texts = (0..30_000_usize).map(|row| words[row * row % 5]);
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(
        (0..30_000).map(|row| row * 7 + row % 13),
    ));
    let hashes =
        (0..30_000_i64).map(|row| row.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed()));
    let hashes: ArrayRef = Arc::new(Int64Array::from_iter_values(hashes));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    RecordBatch::try_from_iter([("n", numbers), ("h", hashes), ("t", texts)])
        .expect("three columns")
}

/// Sends for `span`; bytes before compression, and what was thought of the last batch.
async fn send(
    node: &DataNode,
    stream: StreamAddress,
    batch: &RecordBatch,
    compression: Compression,
    span: Duration,
) -> Outcome<(f64, CodecReason)> {
    let options = SendOptions {
        compression,
        ..SendOptions::default()
    };
    let mut sender = node.sender(stream, &batch.schema(), options)?;
    let began = Instant::now();
    while began.elapsed() < span {
        sender.feed(batch.clone()).await?;
    }
    sender.close().await?;
    let stats = sender.stats();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    Ok((stats.bytes_uncompressed as f64, stats.codec_reason))
}

async fn receive(node: &DataNode, from: SocketAddr, stream: StreamAddress) -> Outcome<Duration> {
    let options = ReceiveOptions::default();
    let mut receiver = node.receiver(Origin::Node(from), stream, &options).await?;
    let began = Instant::now();
    while let Some(batch) = receiver.next().await {
        batch?;
    }
    Ok(began.elapsed())
}
