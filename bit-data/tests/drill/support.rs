//! A data server with what a test wants to look at, and a peer by hand.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use bit_data::drill::{
    BatchStream, Credit, FragmentEvents, Fragments, FragmentsOptions, Input, Order, RuntimeFilter,
};
use bit_data::{DataServer, DataServerOptions, NoStreams};
use futures::StreamExt;
use prost::Message;
use protos::{
    calls::data::{Handshake, RecordBatch as BatchCall},
    data::{AckWithCredit, BitClientHandshake, FragmentRecordBatch},
    id::{FragmentId, MajorFragmentId, MinorFragmentId, QueryId},
    rpc::RpcMode,
};
use record_batch::Encoder;
use rpc_bus::{BusRuntime, Ledger, ledger::Limits};

use crate::peer::{Frame, Peer};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const QUERY: QueryId = QueryId { part1: 7, part2: 8 };
/// The stage that receives in these tests.
pub(crate) const RECEIVING: i32 = 1;
/// The stage that sends.
pub(crate) const SENDING: i32 = 2;

pub(crate) fn runtime() -> BusRuntime {
    let cpu = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    BusRuntime::current(Arc::new(cpu.unwrap()))
}

pub(crate) fn ledger() -> Ledger {
    Ledger::root("test", Limits::default())
}

/// What fragments have caused.
#[derive(Default)]
pub(crate) struct Events {
    /// Receiver and sender.
    pub(crate) finished: Mutex<Vec<(FragmentId, FragmentId)>>,
    pub(crate) filters: Mutex<Vec<RuntimeFilter>>,
}

impl FragmentEvents for Events {
    fn receiver_finished(&self, receiver: FragmentId, sender: FragmentId) {
        self.finished.lock().unwrap().push((receiver, sender));
    }

    fn runtime_filter(&self, filter: RuntimeFilter) {
        self.filters.lock().unwrap().push(filter);
    }
}

/// A data server on a free port.
pub(crate) struct Node {
    server: DataServer,
    pub(crate) fragments: Fragments,
    pub(crate) events: Arc<Events>,
    pub(crate) ledger: Ledger,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(DataServerOptions::default()).await
    }

    pub(crate) async fn with(options: DataServerOptions) -> Self {
        let (ledger, events) = (ledger(), Arc::new(Events::default()));
        let to_events = Arc::<Events>::clone(&events);
        let fragments = Fragments::new(FragmentsOptions::default(), &ledger, to_events);
        let server = DataServer::bind(
            SocketAddr::from(([127, 0, 0, 1], 0)),
            runtime(),
            options,
            ledger.clone(),
            fragments.clone(),
            Arc::new(NoStreams),
        );
        Self {
            server: server.await.unwrap(),
            fragments,
            events,
            ledger,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// One stream of what `senders` of the sending stage send to `receiver`.
    pub(crate) fn receive(&self, receiver: FragmentId, senders: &[i32]) -> BatchStream {
        let input = input(senders, Order::AsTheyCome);
        let inputs = self.fragments.register(receiver, vec![input], &self.ledger);
        inputs.unwrap().remove(0).remove(0)
    }

    /// A peer behind its handshake.
    pub(crate) async fn peer(&self) -> Peer {
        let mut peer = Peer::connect(self.address()).await;
        let hello = BitClientHandshake {
            rpc_version: Some(4),
            channel: Some(1),
            capabilities: None,
        };
        peer.request::<Handshake>(1, &hello).await;
        let reply = peer.frame().await.reply::<Handshake>();
        assert_eq!(reply.rpc_version, Some(4));
        peer
    }

    /// Ends the server; nothing may be left of it.
    pub(crate) async fn stop(self) {
        self.server.shutdown(PATIENCE).await;
        settled(&self.ledger).await;
    }
}

pub(crate) fn input(senders: &[i32], order: Order) -> Input {
    Input {
        sending_major: MajorFragmentId(SENDING),
        senders: minors(senders),
        order,
        credit: Credit::NO_ADVICE,
    }
}

pub(crate) fn receiver(minor: i32) -> FragmentId {
    FragmentId::new(QUERY, RECEIVING, minor)
}

pub(crate) fn sender(minor: i32) -> FragmentId {
    FragmentId::new(QUERY, SENDING, minor)
}

pub(crate) fn minors(minors: &[i32]) -> Vec<MinorFragmentId> {
    minors.iter().copied().map(MinorFragmentId).collect()
}

/// One column of numbers.
pub(crate) fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    RecordBatch::try_from_iter([("n", values)]).unwrap()
}

/// A request with one row, and its body.
pub(crate) fn request(from: i32, to: &[i32], value: i64) -> (FragmentRecordBatch, Vec<u8>) {
    let batch = numbers([value]);
    let encoded = Encoder::try_new(&batch.schema()).unwrap();
    let encoded = encoded.encode(&batch).unwrap();
    let body = encoded.joined().to_vec();
    (addressed(from, to, encoded.def), body)
}

/// The last batch, without columns.
pub(crate) fn last(from: i32, to: &[i32]) -> (FragmentRecordBatch, Vec<u8>) {
    let batch = FragmentRecordBatch {
        is_last_batch: Some(true),
        ..addressed(from, to, protos::shared::RecordBatchDef::default())
    };
    (batch, Vec::new())
}

fn addressed(from: i32, to: &[i32], def: protos::shared::RecordBatchDef) -> FragmentRecordBatch {
    FragmentRecordBatch {
        query_id: Some(QUERY.into()),
        receiving_major_fragment_id: Some(RECEIVING),
        receiving_minor_fragment_id: to.to_vec(),
        sending_major_fragment_id: Some(SENDING),
        sending_minor_fragment_id: Some(from),
        def: Some(def),
        is_last_batch: Some(false),
        stream: None,
    }
}

pub(crate) async fn send(peer: &mut Peer, id: i32, (batch, body): (FragmentRecordBatch, Vec<u8>)) {
    let pbody = batch.encode_to_vec();
    peer.send(RpcMode::Request, id, 3, &pbody, &body).await;
}

/// The next answer: its id, and the credit.
pub(crate) async fn answer(peer: &mut Peer) -> (i32, i32) {
    let frame = peer.frame().await;
    (frame.id, credit(&frame))
}

pub(crate) fn credit(frame: &Frame) -> i32 {
    let ack: AckWithCredit = frame.reply::<BatchCall>();
    ack.allowed_credit()
}

/// Whether everything that was sent has been handled, and nothing but `answers` came of it. PING is answered before
/// requests are started, so it does not tell; a request that is refused does.
pub(crate) async fn answers_so_far(peer: &mut Peer, id: i32) -> HashMap<i32, i32> {
    send(peer, id, request(0, &[], 0)).await;
    let mut answers = HashMap::new();
    loop {
        match answer(peer).await {
            (this, -1) if this == id => return answers,
            (other, credit) => assert_eq!(answers.insert(other, credit), None),
        }
    }
}

/// The numbers of the next batches, with their senders.
pub(crate) async fn next(stream: &mut BatchStream) -> (i32, Vec<i64>) {
    let next = tokio::time::timeout(PATIENCE, stream.next()).await;
    let (sender, batch) = next.expect("a batch in time").expect("no end").unwrap();
    (sender.0, values(&batch))
}

pub(crate) fn values(batch: &RecordBatch) -> Vec<i64> {
    use arrow::{array::AsArray, datatypes::Int64Type};
    batch
        .column(0)
        .as_primitive::<Int64Type>()
        .values()
        .to_vec()
}

/// Waits until nothing is charged any more.
pub(crate) async fn settled(ledger: &Ledger) {
    until(&format!("{ledger:?} is zero"), || ledger.is_zero()).await;
}

/// Waits for something that other tasks bring about.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"));
}
