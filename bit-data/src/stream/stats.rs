//! What streams count: plain values, with the names and meaning that `StarRocks` gives them in its profiles.

use std::{
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Context,
    time::{Duration, Instant},
};

use record_batch::Codec;

/// Why a sender uses the codec that it uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum CodecReason {
    /// The options say so.
    #[default]
    Fixed,
    /// The receiver does not take the codec that the options name.
    NotTaken,
    /// Nothing has been measured yet.
    Unmeasured,
    /// The link takes bytes faster than any codec makes them fewer.
    FastLink {
        /// Bytes a second that it takes at least.
        bytes_per_s: f64,
    },
    /// It brings most over the link.
    Pays {
        /// Bytes before for one after.
        ratio: f64,
        /// Bytes a second that the link takes.
        bytes_per_s: f64,
    },
    /// No codec makes the batches small enough to be worth its time.
    DoesNotPay {
        /// Bytes a second that the link takes.
        bytes_per_s: f64,
    },
}

/// Counters of a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SendStats {
    /// Batches handed to the connection or passed through; pieces of split ones count each.
    pub batches: u64,
    /// `SerializeChunkTime`: encoding and compressing.
    pub serialize_chunk_time: Duration,
    /// `BytesSent`: bytes of bodies on the wire.
    pub bytes_sent: u64,
    /// The same before compression.
    pub bytes_uncompressed: u64,
    /// `BytesPassThrough`: what the rows of batches take that were handed over within the process, about.
    pub bytes_pass_through: u64,
    /// `WaitResponseTime`: until the receiver opened the stream, and for its credit.
    pub wait_response_time: Duration,
    /// The part of it that was waiting for credit.
    pub credit_wait_time: Duration,
    /// `SendRequestTime`: handing frames to the connection, which includes their checksums and waiting for room in its
    /// queue.
    pub send_request_time: Duration,
    /// What the last batch was compressed with.
    pub codec: Codec,
    /// Why.
    pub codec_reason: CodecReason,
    /// Since when it waits for credit, if it does; not counted above yet.
    pub(crate) waits_since: Option<Instant>,
}

impl SendStats {
    /// With what it has waited so far: who waits for long is seen to wait meanwhile.
    pub(crate) fn until(self, now: Instant) -> Self {
        let mut stats = self;
        if let Some(since) = stats.waits_since.take() {
            stats.waited_for_credit(now.saturating_duration_since(since));
        }
        stats
    }

    pub(crate) fn waited_for_credit(&mut self, waited: Duration) {
        self.wait_response_time += waited;
        self.credit_wait_time += waited;
    }

    /// Adds the counters of another stream, and takes over its codec.
    pub(crate) fn add(&mut self, other: &Self) {
        self.batches += other.batches;
        self.serialize_chunk_time += other.serialize_chunk_time;
        self.bytes_sent += other.bytes_sent;
        self.bytes_uncompressed += other.bytes_uncompressed;
        self.bytes_pass_through += other.bytes_pass_through;
        self.wait_response_time += other.wait_response_time;
        self.credit_wait_time += other.credit_wait_time;
        self.send_request_time += other.send_request_time;
        (self.codec, self.codec_reason) = (other.codec, other.codec_reason);
    }
}

/// Counters of a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiveStats {
    /// Batches given to the consumer.
    pub batches: u64,
    /// Bytes of their bodies on the wire.
    pub bytes_received: u64,
    /// `BytesPassThrough`: what the rows of batches take that were handed over within the process, about.
    pub bytes_pass_through: u64,
    /// `DeserializeChunkTime`: checking, decompressing and decoding.
    pub deserialize_chunk_time: Duration,
    /// `ReceiverProcessTotalTime`: on the I/O thread, from frame to queue.
    pub receiver_process_total_time: Duration,
    /// `WaitLockTime`: of the consumer and the I/O thread for each other.
    pub wait_lock_time: Duration,
    /// `PeakBufferMemoryBytes`: most that ever waited for the consumer.
    pub peak_buffer_memory_bytes: u64,
    /// Waits now.
    pub buffer_memory_bytes: u64,
    /// What was handed to spill files.
    pub bytes_spilled: u64,
    /// What the sender may send before the consumer takes something.
    pub window_bytes: u64,
}

impl ReceiveStats {
    /// Adds the counters of another stream; peaks are summed too, because streams fill at the same time.
    pub(crate) fn add(&mut self, other: &Self) {
        self.batches += other.batches;
        self.bytes_received += other.bytes_received;
        self.bytes_pass_through += other.bytes_pass_through;
        self.deserialize_chunk_time += other.deserialize_chunk_time;
        self.receiver_process_total_time += other.receiver_process_total_time;
        self.wait_lock_time += other.wait_lock_time;
        self.peak_buffer_memory_bytes += other.peak_buffer_memory_bytes;
        self.buffer_memory_bytes += other.buffer_memory_bytes;
        self.bytes_spilled += other.bytes_spilled;
        self.window_bytes += other.window_bytes;
    }
}

/// The clock of everything that is not sans-io; tests can turn it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How often a task looks again before it sleeps, if it waits for another one of this process that is probably at work.
pub(crate) const LOOKS_MAX: u32 = 8;

/// Lets others on this thread go on, then polls the task again: sleeping, and being woken by another thread, takes many
/// times as long.
pub(crate) fn look_again(cx: &mut Context<'_>) {
    // Never ready when it is asked first.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// Locks, and says how long that had to wait for somebody else.
pub(crate) fn lock_timed<T>(mutex: &Mutex<T>) -> (MutexGuard<'_, T>, Duration) {
    if let Ok(guard) = mutex.try_lock() {
        return (guard, Duration::ZERO);
    }
    let since = now();
    let guard = lock(mutex);
    (guard, now().saturating_duration_since(since))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
