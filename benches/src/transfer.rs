//! What benchmarks of record batches between two ends have in common: the batches, and who takes them.

pub(crate) mod bus;
#[cfg(feature = "peers")]
pub(crate) mod flight;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use bit_data::{Checksums, Compression, ReceiveStats};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use record_batch::Codec;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::bus::Way;
use crate::rpc::threads::ThreadOptions;

/// Both ends of a variant, connected: the batches of stream `n` are taken by consumer `n`.
pub(crate) trait Link {
    /// Where senders run.
    fn runtime(&self) -> &Handle;

    /// Sends `batches` as stream `number`; what its consumer has seen, when it has seen all of them.
    fn send(
        &self,
        number: usize,
        batches: BoxStream<'static, RecordBatch>,
    ) -> BoxFuture<'static, Result<Seen>>;

    /// Bytes that receivers have promised to hold, where they do.
    fn reserved_bytes(&self) -> Option<usize> {
        None
    }
}

/// The variant of this name, with as many streams as there are consumers.
pub(crate) fn link(
    name: &str,
    threads: ThreadOptions,
    consumers: Arc<[Consumer]>,
) -> Result<Box<dyn Link>> {
    let streams = |checksums, codec| Way::Streams {
        checksums,
        compression: Compression::Fixed(codec),
    };
    let way = match name {
        "bus" => streams(Checksums::On, Codec::None),
        "bus-checksum-off" => streams(Checksums::Off, Codec::None),
        "bus-lz4" => streams(Checksums::On, Codec::Lz4),
        "bus-drill" => Way::Drill,
        "pass-through" => Way::PassThrough,
        _ => return peer(name, threads, consumers),
    };
    Ok(Box::new(bus::Bus::start(way, threads, consumers)?))
}

#[cfg(feature = "peers")]
fn peer(name: &str, threads: ThreadOptions, consumers: Arc<[Consumer]>) -> Result<Box<dyn Link>> {
    let tuning = match name {
        "flight-tuned" => flight::Tuning::Tuned,
        "flight-send-buffer" => flight::Tuning::SendBuffer,
        _ => flight::Tuning::Default,
    };
    let flight = flight::Flight::start(tuning, threads.all(), consumers)?;
    Ok(Box::new(flight))
}

#[cfg(not(feature = "peers"))]
fn peer(_: &str, _: ThreadOptions, _: Arc<[Consumer]>) -> Result<Box<dyn Link>> {
    anyhow::bail!("built without feature `peers`")
}

/// Bytes of values of a row.
pub(crate) const ROW_BYTES: usize = 8 * COLUMNS;
pub(crate) const COLUMNS: usize = 8;
/// Batches that a sender sends again and again: enough that none is the one before.
const DISTINCT: usize = 4;

/// Batches to be sent, always the same ones: eight columns of eight bytes, integers and floats in turn, of which the
/// second four have one null in eight rows.
#[derive(Clone, Debug)]
pub(crate) struct Batches {
    distinct: Arc<[RecordBatch]>,
}

/// What a receiver has seen, so that nothing can be lost, doubled or damaged unnoticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) rows: u64,
    /// Rows that are null, of all columns.
    pub(crate) nulls: u64,
    /// All values as numbers of eight bytes, nulls included.
    pub(crate) sum: u64,
}

impl Batches {
    /// Batches with about `bytes` bytes of values.
    pub(crate) fn of_bytes(bytes: usize) -> Self {
        Self::of(bytes, |column, row| spread(column, row) >> 12)
    }

    /// Of any eight bytes: no codec makes them smaller.
    pub(crate) fn random(bytes: usize) -> Self {
        Self::of(bytes, spread)
    }

    /// What tables are full of: numbers that grow, few that repeat, and some that could be any.
    #[expect(clippy::cast_precision_loss, reason = "any number will do")]
    pub(crate) fn compressible(bytes: usize) -> Self {
        let number = move |column: usize, row| match column % COLUMNS {
            0 | 3 => (column / COLUMNS * bytes + row) as u64,
            1 => spread(column, row) % 10_000,
            2 => spread(column, row) % 1_000,
            5 | 6 => spread(column, row) % 50,
            _ => spread(column, row) >> 12,
        };
        Self::of(bytes, move |column, row| {
            let number = number(column, row);
            if is_whole(column) {
                number
            } else {
                (number as f64 / 7.0).to_bits()
            }
        })
    }

    /// Of values with these bits, by column and row.
    fn of(bytes: usize, bits: impl Fn(usize, usize) -> u64 + Copy) -> Self {
        let distinct = (0..DISTINCT).map(|at| batch(at, bytes / ROW_BYTES, bits));
        Self {
            distinct: distinct.collect(),
        }
    }

    /// The batch that is sent as number `at`.
    pub(crate) fn get(&self, at: usize) -> &RecordBatch {
        &self.distinct[at % DISTINCT]
    }

    /// The first `count` batches, as a stream.
    pub(crate) fn stream(&self, count: usize) -> BoxStream<'static, RecordBatch> {
        futures::stream::iter(self.first(count)).boxed()
    }

    /// The first `count` batches.
    pub(crate) fn first(&self, count: usize) -> impl Iterator<Item = RecordBatch> + Send + 'static {
        let distinct = Arc::clone(&self.distinct);
        (0..count).map(move |at| distinct[at % DISTINCT].clone())
    }

    /// What a receiver sees of the first `count` batches.
    pub(crate) fn expected(&self, count: usize, look: Look) -> Seen {
        let once = |at: usize| Seen::default().and(&self.distinct[at], look);
        let seen = [0, 1, 2, 3].map(once);
        let all = (0..count).map(|at| seen[at % DISTINCT]);
        all.fold(Seen::default(), Seen::plus)
    }
}

impl Seen {
    /// After `batch`.
    pub(crate) fn and(self, batch: &RecordBatch, look: Look) -> Self {
        let mut seen = Self {
            rows: batch.num_rows() as u64,
            ..Self::default()
        };
        for column in batch.columns() {
            if look == Look::Values {
                seen.nulls += column.nulls().map_or(0, nulls);
            }
            let values = values(column);
            let number = match look {
                Look::Values => sum(values),
                Look::Places => places(values),
            };
            seen.sum = seen.sum.wrapping_add(number);
        }
        self.plus(seen)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            nulls: self.nulls + other.nulls,
            sum: self.sum.wrapping_add(other.sum),
        }
    }

    pub(crate) fn verify(self, expected: Self) -> Result<()> {
        ensure!(self == expected, "received {self:?}, expected {expected:?}");
        Ok(())
    }
}

/// The addresses of all values together, however they are cut.
fn places(values: &[u8]) -> u64 {
    let (first, count) = (values.as_ptr().addr() as u64, (values.len() / 8) as u64);
    let offsets = 4_u64.wrapping_mul(count.wrapping_mul(count.wrapping_sub(1)));
    first.wrapping_mul(count).wrapping_add(offsets)
}

/// Counted anew: the number that Arrow keeps would not be reading.
fn nulls(nulls: &NullBuffer) -> u64 {
    (nulls.len() - nulls.inner().count_set_bits()) as u64
}

/// The values of a column, nulls included.
pub(crate) fn values(column: &ArrayRef) -> &[u8] {
    match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().values().inner(),
        _ => column.as_primitive::<Float64Type>().values().inner(),
    }
}

/// The sum of `bytes` as numbers of eight bytes.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().fold(0, |sum: u64, word| {
        sum.wrapping_add(u64::from_le_bytes(*word))
    })
}

/// Numbers of which no two that are close are alike.
fn spread(column: usize, row: usize) -> u64 {
    ((column * 1_000_003 + row) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether the numbers of a column are integers.
fn is_whole(column: usize) -> bool {
    column.is_multiple_of(2)
}

fn batch(seed: usize, rows: usize, bits: impl Fn(usize, usize) -> u64 + Copy) -> RecordBatch {
    let (fields, columns): (Vec<_>, Vec<_>) = (0..COLUMNS)
        .map(|at| {
            let bits = move |row| bits(seed * COLUMNS + at, row);
            let column = column(at, rows, bits);
            let data_type = column.data_type().clone();
            let field = Field::new(format!("column{at}"), data_type, at >= COLUMNS / 2);
            (field, column)
        })
        .unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .expect("invariant: columns of one length")
}

fn column(at: usize, rows: usize, bits: impl Fn(usize) -> u64) -> ArrayRef {
    let valid = |row| !(spread(at, row) >> 12).is_multiple_of(8);
    let nulls = (at >= COLUMNS / 2).then(|| (0..rows).map(valid).collect());
    if is_whole(at) {
        let values = (0..rows).map(|row| bits(row).cast_signed()).collect();
        Arc::new(Int64Array::new(values, nulls))
    } else {
        let values = (0..rows).map(|row| f64::from_bits(bits(row))).collect();
        Arc::new(Float64Array::new(values, nulls))
    }
}

/// Whoever takes the batches of one stream: reads all values, and can be told to stop for a while.
#[derive(Debug)]
pub(crate) struct Consumer {
    look: Look,
    rows: AtomicU64,
    may_go_on: watch::Sender<bool>,
    /// What its stream had counted when it went on after a stop.
    stopped: Mutex<Option<ReceiveStats>>,
}

/// How closely batches are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// All values are read.
    Values,
    /// Where the values are, which is where the sender has them: for batches that are handed over and not moved.
    Places,
}

impl Default for Consumer {
    fn default() -> Self {
        Self::new(Look::Values)
    }
}

impl Consumer {
    pub(crate) fn new(look: Look) -> Self {
        Self {
            look,
            rows: AtomicU64::new(0),
            may_go_on: watch::Sender::new(true),
            stopped: Mutex::default(),
        }
    }

    /// Takes all of `batches`.
    pub(crate) async fn take<E>(
        &self,
        batches: impl Stream<Item = Result<RecordBatch, E>>,
    ) -> Result<Seen, E> {
        self.take_counted(batches, |_| None).await
    }

    /// The same, where `stats` says what a stream has counted.
    pub(crate) async fn take_counted<S, E>(
        &self,
        batches: S,
        stats: impl Fn(&S) -> Option<ReceiveStats>,
    ) -> Result<Seen, E>
    where
        S: Stream<Item = Result<RecordBatch, E>>,
    {
        let (mut seen, mut batches) = (Seen::default(), std::pin::pin!(batches));
        let mut may_go_on = self.may_go_on.subscribe();
        while let Some(batch) = batches.try_next().await? {
            seen = seen.and(&batch, self.look);
            self.rows
                .fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            if *may_go_on.borrow() {
                continue;
            }
            // The sender lives as long as `self`.
            let _ = may_go_on.wait_for(|may| *may).await;
            *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = stats(&batches);
        }
        Ok(seen)
    }

    /// Takes no more than the next batch until it is resumed.
    pub(crate) fn stop(&self) {
        self.may_go_on.send_replace(false);
    }

    pub(crate) fn resume(&self) {
        self.may_go_on.send_replace(true);
    }

    /// What its stream had counted at the end of its last stop.
    pub(crate) fn stopped(&self) -> Option<ReceiveStats> {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows that were taken, of all streams.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

/// Streams that go on until they are told to end.
pub(crate) struct EndlessStreams {
    is_over: Arc<AtomicBool>,
    running: JoinSet<Result<(Seen, Endless)>>,
}

impl EndlessStreams {
    /// Starts the first `count` streams of `link`, each with `batches` again and again.
    pub(crate) fn start(link: &dyn Link, count: usize, batches: &Batches) -> Self {
        let (is_over, mut running) = (Arc::<AtomicBool>::default(), JoinSet::new());
        for number in 0..count {
            let endless = Endless::new(batches.clone(), Arc::clone(&is_over));
            let sending = link.send(number, endless.stream());
            let all = async move { Ok((sending.await?, endless)) };
            running.spawn_on(all, link.runtime());
        }
        Self { is_over, running }
    }

    /// Ends them all. Every receiver has to have seen what its sender has sent.
    pub(crate) fn end(mut self, link: &dyn Link) -> Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(stream) = link.runtime().block_on(self.running.join_next()) {
            let (seen, sent) = stream.context("a stream panicked")??;
            seen.verify(sent.expected())?;
        }
        Ok(())
    }
}

/// What is sent by one of them.
#[derive(Clone, Debug)]
struct Endless {
    batches: Batches,
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Endless {
    fn new(batches: Batches, is_over: Arc<AtomicBool>) -> Self {
        Self {
            batches,
            is_over,
            sent: Arc::default(),
        }
    }

    /// The batches of one stream.
    fn stream(&self) -> BoxStream<'static, RecordBatch> {
        let this = self.clone();
        let all = std::iter::from_fn(move || {
            let next = || this.batches.get(count(&this.sent)).clone();
            (!this.is_over.load(Ordering::Relaxed)).then(next)
        });
        futures::stream::iter(all).boxed()
    }

    /// What the receiver has seen when the stream has ended.
    fn expected(&self) -> Seen {
        let sent = self.sent.load(Ordering::Relaxed);
        self.batches
            .expected(usize::try_from(sent).unwrap_or(usize::MAX), Look::Values)
    }
}

fn count(counter: &AtomicU64) -> usize {
    let before = counter.fetch_add(1, Ordering::Relaxed);
    usize::try_from(before).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_same_however_a_batch_is_cut() {
        let batch = Batches::of_bytes(4096).get(0).clone();
        let whole = Seen::default().and(&batch, Look::Places);
        let pieces = [(0, 1), (1, 20), (21, 43)].map(|(at, rows)| batch.slice(at, rows));
        let cut = pieces
            .iter()
            .fold(Seen::default(), |seen, piece| seen.and(piece, Look::Places));
        assert_eq!((cut, batch.num_rows()), (whole, 64));
        let moved = pieces[..2].iter().chain(&pieces[1..2]);
        let other = moved.fold(Seen::default(), |seen, piece| seen.and(piece, Look::Places));
        assert_ne!(other, whole);
    }

    #[test]
    fn what_is_expected_is_what_a_receiver_sees() {
        let batches = Batches::of_bytes(4096);
        let seen = batches.first(7).fold(Seen::default(), |seen, batch| {
            seen.and(&batch, Look::Values)
        });
        assert_eq!(seen, batches.expected(7, Look::Values));
        assert_eq!(seen.rows, 7 * 64);
        assert!(seen.nulls > 0 && seen.verify(batches.expected(6, Look::Values)).is_err());
    }
}
