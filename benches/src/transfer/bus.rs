//! The bus: two nodes, or one that both sends and receives.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use bit_data::drill::{Credit, DataTunnel, Input, Order, TunnelOptions};
use bit_data::{
    Checksums, Compression, DataClient, DataNode, DataTarget, NodeOptions, Origin, ReceiveOptions,
    SendOptions, SendStats, StreamAddress, StreamReceiver,
};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, Peekable};
use futures::{FutureExt, StreamExt, TryStreamExt};
use protos::id::{FragmentId, MajorFragmentId, MinorFragmentId, QueryId};
use record_batch::Codec;
use rpc_bus::ledger::{Kind, Limits};
use rpc_bus::{BusRuntime, Ledger, RetryOptions, RetryPolicy};
use tokio::runtime::Handle;

use super::{Consumer, Link, Seen};
use crate::rpc::threads::{ThreadOptions, Threads};

/// Of all sockets but those of a peer as it comes.
pub(crate) const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// The stages that send and receive.
const SENDING: i32 = 1;
const RECEIVING: i32 = 0;
/// What a receiver lets a sender have unanswered, Drill's way.
const DRILL_CREDIT_BATCHES: u16 = 64;
/// Holds so many of the largest: a receiver without room refuses batches, which ends the query, Drill's way.
const DRILL_BUDGET_BYTES: usize = DRILL_CREDIT_BATCHES as usize * (5 << 20);

/// How batches travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From node to node, as Arrow bodies.
    Streams {
        checksums: Checksums,
        compression: Compression,
    },
    /// From node to node, as a real Drill does it.
    Drill,
    /// Within one node.
    PassThrough,
}

/// Both ends.
pub(crate) struct Bus {
    way: Way,
    // Nodes before their threads.
    there: Arc<DataNode>,
    here: Arc<DataNode>,
    tunnels: DataClient,
    queries: AtomicI64,
    consumers: Arc<[Consumer]>,
    /// Where receivers connect to.
    origin: SocketAddr,
    /// What the stream that has ended last had counted.
    sent: Arc<Mutex<SendStats>>,
    sending: Threads,
    receiving: Threads,
}

impl Bus {
    pub(crate) fn start(
        way: Way,
        threads: ThreadOptions,
        consumers: Arc<[Consumer]>,
    ) -> Result<Self> {
        let (sending, receiving) = (Threads::start(threads)?, Threads::start(threads)?);
        let here = Arc::new(node(&receiving)?);
        let there = match way {
            Way::PassThrough => Arc::clone(&here),
            Way::Streams { .. } | Way::Drill => Arc::new(node(&sending)?),
        };
        Ok(Self {
            way,
            tunnels: tunnels(here.local_addr(), sending.bus())?,
            origin: there.local_addr(),
            sent: Arc::default(),
            there,
            here,
            queries: AtomicI64::new(1),
            consumers,
            sending,
            receiving,
        })
    }

    /// Where the end that sends runs, and the one that receives: what else these two nodes do, they do there.
    pub(crate) fn ends(&self) -> [&Threads; 2] {
        [&self.sending, &self.receiving]
    }

    /// Where the end that sends listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.there.local_addr()
    }

    /// From now on receivers connect to `origin`, behind which is [`Self::address`].
    pub(crate) fn go_through(&mut self, origin: SocketAddr) {
        self.origin = origin;
    }

    /// From now on streams go that way.
    pub(crate) fn go(&mut self, way: Way) {
        self.way = way;
    }

    /// What the stream that has ended last had counted at its sender.
    pub(crate) fn sent(&self) -> SendStats {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids of a new query.
    fn query(&self) -> QueryId {
        QueryId {
            part1: self.queries.fetch_add(1, Ordering::Relaxed),
            part2: 1,
        }
    }

    fn stream(&self, minor: i32, batches: BoxStream<'static, RecordBatch>) -> (Sending, Receiving) {
        let stream = StreamAddress::new(self.query(), (SENDING, minor), (RECEIVING, minor));
        let (send, mut receive) = self.way.options();
        // All receive for one fragment, whose budget they share.
        receive.budget_bytes /= self.consumers.len();
        let (there, here) = (Arc::clone(&self.there), Arc::clone(&self.here));
        let origin = match self.way {
            Way::PassThrough => Origin::Here,
            Way::Streams { .. } | Way::Drill => Origin::Node(self.origin),
        };
        let counted = Arc::clone(&self.sent);
        let sending = async move {
            let mut batches = batches.peekable();
            let schema = first(&mut batches).await?.schema();
            let mut sender = there.sender(stream, &schema, send)?;
            batches.map(Ok).forward(&mut sender).await?;
            *counted.lock().unwrap_or_else(PoisonError::into_inner) = sender.stats();
            Ok(())
        };
        let consumers = Arc::clone(&self.consumers);
        let receiving = async move {
            let receiver = here.receiver(origin, stream, &receive).await?;
            let consumer = &consumers[usize::try_from(minor)?];
            let stats = |receiver: &StreamReceiver| Some(receiver.stats());
            Ok(consumer.take_counted(receiver, stats).await?)
        };
        (sending.boxed(), receiving.boxed())
    }

    fn tunnel(&self, minor: i32, batches: BoxStream<'static, RecordBatch>) -> (Sending, Receiving) {
        let query = self.query();
        let fragment = move |major, minor| FragmentId {
            query,
            major: MajorFragmentId(major),
            minor: MinorFragmentId(minor),
        };
        let mut tunnel = DataTunnel::new(
            self.tunnels.clone(),
            self.sending.bus().clone(),
            fragment(SENDING, minor),
            MajorFragmentId(RECEIVING),
            TunnelOptions::default(),
        );
        let consumers = Arc::clone(&self.consumers);
        // Before anything is sent: of what comes earlier only a little is kept.
        let (input, budget) = (input(minor), ledger(Some(DRILL_BUDGET_BYTES)));
        let fragments = self.here.fragments();
        let registered = fragments.register(fragment(RECEIVING, minor), input, &budget);
        let receiving = async move {
            let stream = registered?.into_iter().flatten().next();
            let stream = stream.context("one input has one stream")?;
            let batches = stream.map_ok(|(_, batch)| batch);
            Ok(consumers[usize::try_from(minor)?].take(batches).await?)
        };
        let sending = async move {
            let (mut batches, to) = (batches, [MinorFragmentId(minor)]);
            while let Some(batch) = batches.next().await {
                tunnel.send(&batch, &to).await?;
            }
            tunnel.end(&to).await?;
            tunnel.flush().await?;
            Ok(())
        };
        (sending.boxed(), receiving.boxed())
    }
}

type Sending = BoxFuture<'static, Result<()>>;
type Receiving = BoxFuture<'static, Result<Seen>>;

impl Link for Bus {
    fn runtime(&self) -> &Handle {
        self.sending.app()
    }

    fn send(
        &self,
        number: usize,
        batches: BoxStream<'static, RecordBatch>,
    ) -> BoxFuture<'static, Result<Seen>> {
        let minor = i32::try_from(number).unwrap_or(i32::MAX);
        let (sending, receiving) = match self.way {
            Way::Drill => self.tunnel(minor, batches),
            Way::Streams { .. } | Way::PassThrough => self.stream(minor, batches),
        };
        let received = self.receiving.app().spawn(receiving);
        let both = async move {
            sending.await?;
            received.await.context("a receiver panicked")?
        };
        both.boxed()
    }

    fn reserved_bytes(&self) -> Option<usize> {
        Some(self.here.reserved().used(Kind::Bytes))
    }
}

impl Way {
    fn options(self) -> (SendOptions, ReceiveOptions) {
        let (checksums, compression) = match self {
            Self::Streams {
                checksums,
                compression,
            } => (checksums, compression),
            Self::Drill | Self::PassThrough => (Checksums::On, Compression::Fixed(Codec::None)),
        };
        let send = SendOptions {
            compression,
            ..SendOptions::default()
        };
        let receive = ReceiveOptions {
            checksums,
            ..ReceiveOptions::default()
        };
        (send, receive)
    }
}

fn node(threads: &Threads) -> Result<DataNode> {
    let mut options = NodeOptions::default();
    let send_buffer = Some(SEND_BUFFER_BYTES);
    options.connection.send_buffer_bytes = send_buffer;
    options.server.connections.connection.send_buffer_bytes = send_buffer;
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let node = DataNode::bind(any_port, threads.bus().clone(), options, ledger(None));
    Ok(threads.app().block_on(node)?)
}

fn tunnels(to: SocketAddr, runtime: &BusRuntime) -> Result<DataClient> {
    let mut target = DataTarget::new(to, ledger(None));
    target.options.send_buffer_bytes = Some(SEND_BUFFER_BYTES);
    let policy = RetryPolicy::try_new(RetryOptions::default())?;
    Ok(DataClient::try_new(target, runtime.clone(), policy)?)
}

fn input(minor: i32) -> Vec<Input> {
    vec![Input {
        sending_major: MajorFragmentId(SENDING),
        senders: vec![MinorFragmentId(minor)],
        order: Order::AsTheyCome,
        credit: Credit::of_batches(DRILL_CREDIT_BATCHES),
    }]
}

fn ledger(bytes: Option<usize>) -> Ledger {
    Ledger::root(
        "benches",
        Limits {
            bytes,
            ..Limits::default()
        },
    )
}

async fn first(batches: &mut Peekable<BoxStream<'static, RecordBatch>>) -> Result<RecordBatch> {
    let first = Pin::new(batches).peek().await.cloned();
    first.context("a stream without batches")
}
