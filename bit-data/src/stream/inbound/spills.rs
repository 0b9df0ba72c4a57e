//! What goes to disk and when: frames and takes by hand, files on a thread of the test's runtime.

use std::{path::Path, sync::mpsc};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use record_batch::{ArrowDecodeOptions, ArrowDecoder};
use rpc_bus::{
    Ledger,
    ledger::{Kind, Limits},
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle, Runtime};

use super::*;
use crate::{
    spill::SpillOptions,
    stream::{
        frame::Codecs,
        options::{ReceiveOptions, piece_bytes},
    },
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A stream that spills, and its sender.
struct ByHand {
    inbound: Arc<Inbound>,
    query: Ledger,
    budget: Ledger,
    dir: SpillDir,
    parent: Arc<TempDir>,
    next_sequence: u64,
}

impl ByHand {
    /// One of `streams` that share a budget.
    fn new(budget_bytes: usize, streams: usize, spill: &SpillOptions) -> Self {
        Self::with(budget_bytes, streams, spill, Limits::default())
    }

    /// The same with `limits` of the spill files.
    fn with(budget_bytes: usize, streams: usize, spill: &SpillOptions, limits: Limits) -> Self {
        let parent = Arc::new(tempfile::tempdir().expect("a directory"));
        let dir = open(parent.path(), spill, limits);
        let query = Ledger::root("query", Limits::default());
        Self::of_query(&query, (budget_bytes, streams), &dir, &parent)
    }

    /// Of one more receiver.
    fn of_query(
        query: &Ledger,
        (budget_bytes, streams): (usize, usize),
        dir: &SpillDir,
        parent: &Arc<TempDir>,
    ) -> Self {
        let budget = query.child("budget", bytes(budget_bytes));
        let inbound = inbound((query, &budget), budget_bytes, streams, dir);
        Self {
            inbound,
            query: query.clone(),
            budget,
            dir: dir.clone(),
            parent: Arc::clone(parent),
            next_sequence: 0,
        }
    }

    fn send(&mut self, frame: StreamFrame, body_bytes: usize) {
        let frame = StreamFrame {
            sequence: Some(self.next_sequence),
            ..frame
        };
        self.next_sequence += 1;
        let (accepted, _) = self.inbound.accept(frame, body(body_bytes));
        accepted.expect("it keeps to the protocol");
    }

    fn send_batch(&mut self, bytes: usize) {
        self.send(StreamFrame::default(), bytes);
    }

    /// A single row, in chunks of a MiB.
    fn send_row(&mut self, bytes: usize) {
        let first = StreamFrame {
            chunked_bytes: Some(bytes as u64),
            ..StreamFrame::default()
        };
        self.send(first, MIB);
        assert!(!self.has_credit(), "all of the row counts");
        for _ in 1..bytes / MIB {
            self.send_batch(MIB);
        }
    }

    /// Whether the sender has credit.
    fn has_credit(&self) -> bool {
        !lock(&self.inbound.state).intake.window.is_used_up()
    }

    /// Bytes of the next batch.
    async fn take(&self) -> usize {
        let taken = std::future::poll_fn(|cx| self.inbound.poll_take(cx)).await;
        match taken.expect("a batch").expect("no error").item {
            Item::Encoded(batch) => batch.frames.iter().map(|(_, body)| body.len()).sum(),
            Item::Value(batch, _) => batch.get_array_memory_size(),
        }
    }
}

/// Batch `number`, of so many rows of eight bytes.
fn value(number: i64, rows: i64) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(
        number * rows..(number + 1) * rows,
    ));
    RecordBatch::try_from_iter([("number", column)]).expect("one column")
}

fn open(parent: &Path, options: &SpillOptions, limits: Limits) -> SpillDir {
    let ledger = Ledger::root("spilling", limits);
    let dir = SpillDir::open(parent, options, &ledger, Handle::current());
    dir.expect("a directory")
}

fn inbound(
    (query, budget): (&Ledger, &Ledger),
    budget_bytes: usize,
    streams: usize,
    dir: &SpillDir,
) -> Arc<Inbound> {
    let options = ReceiveOptions {
        budget_bytes,
        spill: Some(dir.clone()),
        ..ReceiveOptions::default()
    };
    let terms = Terms {
        has_checksums: false,
        batch_bytes_max: 64 * MIB,
        codecs: Codecs::default(),
    };
    let sizes = options.windows(streams).expect("there is room");
    let reserved = sizes.reserve(budget).expect("there is room");
    let inbound = Arc::new(Inbound::new(sizes, terms, reserved));
    inbound.spill_to(dir, QueryBudget::new(query));
    inbound
}

fn bytes(limit: usize) -> Limits {
    Limits {
        bytes: Some(limit),
        ..Limits::default()
    }
}

fn body(bytes: usize) -> Bytes {
    Bytes::from(vec![7; bytes])
}

#[tokio::test]
async fn a_row_longer_than_the_budget_goes_to_disk_and_comes_back() {
    let mut stream = ByHand::new(MIB, 1, &SpillOptions::default());
    for _ in 0..3 {
        stream.send_row(2 * MIB);
        assert!(stream.has_credit(), "there is room on disk");
    }
    stream.dir.idle().await;
    for _ in 0..3 {
        assert_eq!(stream.take().await, 2 * MIB);
    }
    assert!(stream.budget.used(Kind::Bytes) <= MIB && stream.has_credit());
    stream.inbound.close();
    assert!(stream.budget.is_zero());
}

#[tokio::test]
async fn the_budget_is_filled_before_the_disk() {
    let mut stream = ByHand::new(16 * MIB, 1, &SpillOptions::default());
    for _ in 0..14 {
        stream.send_batch(MIB);
        assert!(stream.has_credit());
    }
    assert_eq!(stream.inbound.stats().bytes_spilled, 0);
    for _ in 0..100 {
        stream.send_batch(MIB);
        stream.dir.idle().await;
        assert!(stream.has_credit() && stream.budget.used(Kind::Bytes) <= 16 * MIB);
    }
    let stats = stream.inbound.stats();
    assert!(stats.bytes_spilled > 90 << 20, "{stats:?}");
    assert!(stats.buffer_memory_bytes > 3 << 20, "{stats:?}");
    for _ in 0..114 {
        assert_eq!(stream.take().await, MIB);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_ended_waits_for_its_consumer_though_the_disk_stays_full() {
    let mut stream = with_little_disk();
    let mut sent = 0;
    while stream.has_credit() {
        stream.send_batch(200 * KIB);
        stream.dir.idle().await;
        sent += 1;
    }
    stream.inbound.end(Ok(()));
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    for _ in 0..sent {
        assert_eq!(stream.take().await, 200 * KIB);
    }
}

fn with_little_disk() -> ByHand {
    let options = SpillOptions {
        disk_bytes_max: MIB,
        ..SpillOptions::default()
    };
    ByHand::new(MIB, 1, &options)
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_fails_when_the_disk_stays_full() {
    let mut stream = with_little_disk();
    let seconds = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
    for _ in 0..3 {
        while stream.has_credit() {
            stream.send_batch(200 * KIB);
            stream.dir.idle().await;
        }
        // Whoever takes something every now and then is waited for, though what it takes was not on disk.
        seconds(25).await;
        assert_eq!(stream.take().await, 200 * KIB);
    }
    while stream.has_credit() {
        stream.send_batch(200 * KIB);
        stream.dir.idle().await;
    }
    seconds(25).await;
    assert!(stream.budget.used(Kind::Bytes) > 0);
    seconds(15).await;
    let error = std::future::poll_fn(|cx| stream.inbound.poll_take(cx)).await;
    let error = error.expect("an error").expect_err("the disk is full");
    assert!(error.to_string().contains("no room on disk"), "{error}");
    assert!(stream.budget.is_zero());
}

/// A stream whose first spill file cannot be made, after it was told to be.
fn without_files() -> ByHand {
    let limits = Limits {
        files: Some(0),
        ..Limits::default()
    };
    let mut stream = ByHand::with(MIB, 1, &SpillOptions::default(), limits);
    while stream.inbound.stats().bytes_spilled == 0 {
        stream.send_batch(200 * KIB);
    }
    assert!(stream.has_credit(), "there is room on disk");
    stream
}

#[tokio::test]
async fn a_spill_file_that_fails_fails_the_stream_though_its_sender_has_credit() {
    let stream = without_files();
    stream.dir.idle().await;
    assert!(matches!(
        lock(&stream.inbound.state).phase,
        Phase::Failed(_)
    ));
    let taken = std::future::poll_fn(|cx| stream.inbound.poll_take(cx)).await;
    let error = taken.expect("an error").expect_err("lost batches");
    assert!(matches!(error, ReceiveError::Spill(_)), "{error}");
    assert!(stream.budget.is_zero());
}

#[test]
fn nothing_is_taken_from_behind_what_is_lost() {
    let (runtime, go) = with_busy_thread();
    let _entered = runtime.enter();
    let stream = without_files();
    // Locked before the thread writes: it can fail the queue, and not tell the stream.
    let mut state = lock(&stream.inbound.state);
    go.send(()).expect("it waits");
    let is_intact = |state: &State| {
        let spilling = state.spilling.as_ref().expect("it spills");
        spilling.expect_intact().is_ok()
    };
    while is_intact(&state) {
        std::thread::yield_now();
    }
    state.queue_up(Item::Value(value(7, 1), 64));
    let mut cx = Context::from_waker(Waker::noop());
    let error = loop {
        match state.poll_take(&mut cx, || None) {
            Poll::Ready(Some(Ok(taken))) => assert!(matches!(taken.item, Item::Encoded(_))),
            Poll::Ready(Some(Err(error))) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(error, ReceiveError::Spill(_)), "{error}");
}

/// A runtime whose only thread for files has something else to do until it is told.
fn with_busy_thread() -> (Runtime, mpsc::Sender<()>) {
    let runtime = Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_time()
        .build()
        .expect("a runtime");
    let (go, wait) = mpsc::channel::<()>();
    drop(runtime.spawn_blocking(move || wait.recv()));
    (runtime, go)
}

#[tokio::test]
async fn receivers_that_stand_still_leave_room_for_those_that_are_opened_after_them() {
    let parent = Arc::new(tempfile::tempdir().expect("a directory"));
    let dir = open(parent.path(), &SpillOptions::default(), Limits::default());
    let query = Ledger::root("query", bytes(64 * MIB));
    let open_next = || ByHand::of_query(&query, (4 * MIB, 1), &dir, &parent);
    let mut standing = Vec::new();
    // Of about 4 MiB each, if all of them took what they can.
    for _ in 0..18 {
        let mut stream = open_next();
        while stream.inbound.stats().bytes_spilled == 0 {
            stream.send_batch(MIB);
            dir.idle().await;
            assert!(stream.has_credit());
        }
        standing.push(stream);
    }
    let windows: Vec<_> = standing
        .iter()
        .map(|stream| stream.inbound.stats().window_bytes)
        .collect();
    assert!(windows[0] > 2 << 20, "there was room: {windows:?}");
    assert!(windows[17] < 2 << 20, "it was for others: {windows:?}");
    drop(standing);
    dir.idle().await;
    assert!(query.is_zero());
}

#[tokio::test]
async fn the_oldest_batch_stays_in_memory() {
    let mut stream = ByHand::new(MIB, 1, &SpillOptions::default());
    for _ in 0..10 {
        stream.send_batch(200 * KIB);
    }
    stream.dir.idle().await;
    assert!(stream.inbound.stats().bytes_spilled > MIB as u64);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(stream.inbound.poll_take(&mut cx).is_ready());
}

#[tokio::test]
async fn of_many_streams_none_spills_whose_consumer_is_one_frame_late() {
    let first = ByHand::new(16 * MIB, 64, &SpillOptions::default());
    let others = (1..64).map(|_| ByHand {
        inbound: inbound((&first.query, &first.budget), 16 * MIB, 64, &first.dir),
        query: first.query.clone(),
        budget: first.budget.clone(),
        dir: first.dir.clone(),
        parent: Arc::clone(&first.parent),
        next_sequence: 0,
    });
    let others: Vec<_> = others.collect();
    for stream in others.into_iter().chain([first]) {
        let mut stream = stream;
        // A piece, with its head.
        let piece = piece_bytes(stream.inbound.limit_bytes());
        stream.send_batch(piece + KIB);
        assert!(stream.has_credit());
        assert_eq!(stream.inbound.stats().bytes_spilled, 0);
    }
}

/// Pushes batches of 200 KB, which do not fit into a budget of 1 MiB.
fn push_values(inbound: &Inbound, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let batch = value(number, 25_000);
        let cost_bytes = value_cost_bytes(&batch);
        assert_eq!(cost_bytes, 200_000);
        inbound.push_value(batch, cost_bytes);
    }
}

#[tokio::test]
async fn values_are_spilled_one_by_one_and_come_back_in_order() {
    let stream = ByHand::new(MIB, 1, &SpillOptions::default());
    let mut decoder = ArrowDecoder::new(ArrowDecodeOptions::default());
    for number in 0..30 {
        assert!(stream.has_credit());
        push_values(&stream.inbound, number..number + 1);
        // Encoded and written: each gives back what it cost.
        stream.dir.idle().await;
    }
    let stats = stream.inbound.stats();
    assert!(stats.bytes_spilled > 5_000_000, "{stats:?}");
    assert!(stats.buffer_memory_bytes < MIB as u64, "{stats:?}");
    for number in 0..30 {
        let taken = std::future::poll_fn(|cx| stream.inbound.poll_take(cx)).await;
        let batch = match taken.expect("a batch").expect("no error").item {
            Item::Value(batch, _) => batch,
            Item::Encoded(batch) => {
                let body = &batch.frames[0].1;
                decoder.decode(body).expect("our own").expect("a batch")
            }
        };
        assert_eq!(batch, value(number, 25_000));
    }
}

#[test]
fn who_hands_over_a_value_does_not_encode_it() {
    let (runtime, go) = with_busy_thread();
    runtime.block_on(async {
        let stream = ByHand::new(MIB, 1, &SpillOptions::default());
        let mut number = 0;
        while stream.has_credit() {
            push_values(&stream.inbound, number..number + 1);
            number += 1;
        }
        let is_value = || {
            let taken = stream
                .inbound
                .poll_take(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Some(Ok(taken))) = taken else {
                panic!("{taken:?}");
            };
            matches!(taken.item, Item::Value(..))
        };
        assert!(is_value() && is_value(), "nothing is encoded yet");
        assert_eq!(stream.inbound.stats().bytes_spilled, 0);
        go.send(()).expect("it waits");
        while stream.has_credit() {
            push_values(&stream.inbound, number..number + 1);
            number += 1;
        }
        stream.dir.idle().await;
        assert!(stream.inbound.stats().bytes_spilled > 0 && stream.has_credit());
    });
}

/// Pushes a row of so many bytes.
fn push_row(inbound: &Inbound, bytes: usize) {
    let column: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(bytes)]));
    let row = RecordBatch::try_from_iter([("text", column)]).expect("one column");
    let cost_bytes = value_cost_bytes(&row);
    inbound.push_value(row, cost_bytes);
}

#[test]
fn a_row_of_this_process_is_charged_to_the_query_until_it_is_spilled() {
    // Nothing is encoded or written yet.
    let (runtime, go) = with_busy_thread();
    runtime.block_on(async {
        let parent = Arc::new(tempfile::tempdir().expect("a directory"));
        let dir = open(parent.path(), &SpillOptions::default(), Limits::default());
        let query = Ledger::root("query", bytes(8 * MIB));
        let streams = [0, 1].map(|_| ByHand::of_query(&query, (MIB, 1), &dir, &parent));
        let [one, other] = &streams;
        push_row(&one.inbound, 5 * MIB);
        let charged = query.used(Kind::Bytes);
        assert!((5 * MIB..6 * MIB + 2 * KIB).contains(&charged), "{charged}");
        assert!(one.budget.used(Kind::Bytes) <= MIB && !one.has_credit());
        push_row(&other.inbound, 5 * MIB);
        let mut cx = Context::from_waker(Waker::noop());
        let refused = other.inbound.poll_take(&mut cx);
        let Poll::Ready(Some(Err(ReceiveError::Budget(spent)))) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(&*spent.ledger, "query");
        assert!(query.used(Kind::Bytes) <= charged, "nothing is left of it");
        go.send(()).expect("it waits");
        dir.idle().await;
        assert!(one.has_credit() && query.used(Kind::Bytes) <= MIB);
        assert!(one.take().await > 5 * MIB);
        one.inbound.close();
        assert!(query.is_zero());
    });
}

#[test]
fn a_row_of_this_process_that_is_taken_before_it_is_spilled_is_given_back() {
    let (runtime, go) = with_busy_thread();
    runtime.block_on(async {
        let stream = ByHand::new(MIB, 1, &SpillOptions::default());
        push_row(&stream.inbound, 5 * MIB);
        assert!(stream.query.used(Kind::Bytes) >= 5 * MIB);
        assert!(stream.take().await > 5 * MIB);
        assert!(stream.query.used(Kind::Bytes) <= MIB && stream.has_credit());
        push_row(&stream.inbound, 5 * MIB);
        stream.inbound.close();
        assert!(stream.query.is_zero());
        go.send(()).expect("it waits");
    });
}

#[tokio::test]
async fn the_peak_is_what_waited_wherever_it_waited() {
    let mut stream = ByHand::new(MIB, 1, &SpillOptions::default());
    while stream.inbound.stats().bytes_spilled == 0 {
        stream.send_batch(300 * KIB);
    }
    // Behind what is spilled.
    stream.send_row(3 * MIB);
    stream.dir.idle().await;
    let stats = stream.inbound.stats();
    assert!(stats.buffer_memory_bytes < MIB as u64, "{stats:?}");
    let peak = 3 * MIB as u64..4 * MIB as u64;
    assert!(peak.contains(&stats.peak_buffer_memory_bytes), "{stats:?}");
}

#[tokio::test]
async fn compressed_batches_count_as_spilled_with_the_bytes_that_they_take_there() {
    let mut stream = ByHand::new(MIB, 1, &SpillOptions::default());
    for _ in 0..20 {
        // Cost what they are decoded.
        let frame = StreamFrame {
            decoded_bytes: Some(300 * KIB as u64),
            ..StreamFrame::default()
        };
        stream.send(frame, KIB);
    }
    stream.dir.idle().await;
    let (spilled, on_disk) = (
        stream.inbound.stats().bytes_spilled,
        stream.dir.disk_bytes(),
    );
    assert!(
        spilled > 0 && spilled <= on_disk as u64,
        "{spilled} of {on_disk}"
    );
}
