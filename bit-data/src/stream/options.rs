//! What streams may take, and how long they wait.

use std::time::Duration;

use record_batch::Codec;

use super::{
    credit::{STARVED_MIN, WindowSizes},
    error::OpenError,
};
use crate::spill::SpillDir;
#[cfg(doc)]
use crate::{NodeOptions, SpillOptions};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Batches are split by rows to this, where the receiver's window is not smaller: a MiB of values, and their validity.
pub(crate) const PIECE_BYTES_MAX: usize = MIB + MIB / 8;
/// What a stream holds at least while it is open, in bytes of credit.
pub(crate) const STREAM_CREDIT_BYTES_MIN: usize = 64 * KIB;

/// What a sender compresses with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// One codec for all batches, if the receiver takes it; else none.
    Fixed(Codec),
    /// Measured for each stream: what brings most rows over, which on a fast link is none.
    Adaptive,
}

/// How a sender sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendOptions {
    /// Default: [`Codec::None`], fixed.
    pub compression: Compression,
    /// How long to wait for a receiver; `None`: as long as the sender is not dropped. Default 10 min.
    pub receiver_timeout: Option<Duration>,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Fixed(Codec::None),
            receiver_timeout: Some(Duration::from_mins(10)),
        }
    }
}

/// Whether frames are secured by a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// CRC-32C over head and body; what comes from this process has none.
    On,
    /// What TCP's own checksum lets through goes unnoticed.
    Off,
}

/// How a receiver receives.
#[derive(Clone, Debug)]
pub struct ReceiveOptions {
    /// Most bytes that wait for the consumer, of all senders together: beyond it, senders wait. Hard, but for `spill`: then
    /// one row of each sender may be beyond it until it is on its way to disk: of senders elsewhere none longer than
    /// [`NodeOptions::batch_bytes_max`], of those of this process within [`NodeOptions::query_bytes_max`], or the stream
    /// fails. A batch of this process counts with the dictionaries that the one before did not have, up to what batches are
    /// cut to: about a MiB, or the first window if that is smaller. Default 16 MiB.
    pub budget_bytes: usize,
    /// What each sender is granted at first, in bytes, as far as the budget reaches. Default 4 MiB.
    pub window_bytes: usize,
    /// What it may grow to where the link is long, as far as the budget reaches. Default 16 MiB.
    pub window_bytes_max: usize,
    /// Default [`Checksums::On`].
    pub checksums: Checksums,
    /// Codecs that senders may use beside none. Default: all.
    pub codecs: Vec<Codec>,
    /// Where batches go that have no room in the budget, or beyond `window_bytes_max`, so that their senders can go on. They
    /// wait there too, for what [`SpillOptions::unwritten_bytes_max`] and [`SpillOptions::disk_bytes_max`] have no room for
    /// yet, of all receivers together; after [`SpillOptions::room_timeout`] in which a stream got none, and nothing of it was
    /// taken, it fails, unless its sender has ended. Batches of this process come back in pieces of about a MiB. A row that
    /// is longer than the budget goes there too. Default `None`: senders wait, as long as it takes.
    pub spill: Option<SpillDir>,
    /// How long a sender may take to be there. Default 15 s.
    pub open_timeout: Duration,
}

impl Default for ReceiveOptions {
    fn default() -> Self {
        Self {
            budget_bytes: 16 * MIB,
            window_bytes: 4 * MIB,
            window_bytes_max: 16 * MIB,
            checksums: Checksums::On,
            codecs: Codec::ALL[1..].to_vec(),
            spill: None,
            open_timeout: Duration::from_secs(15),
        }
    }
}

impl ReceiveOptions {
    /// What `streams` streams need at least: for each the least credit, 64 KiB, and as much that one batch may overrun it
    /// by, which has to be held too: 128 KiB a stream.
    #[must_use]
    pub fn budget_bytes_min(streams: usize) -> usize {
        streams.saturating_mul(2 * STREAM_CREDIT_BYTES_MIN)
    }

    /// Windows of each of `streams` streams.
    pub(crate) fn windows(&self, streams: usize) -> Result<WindowSizes, OpenError> {
        if self.window_bytes_max < STREAM_CREDIT_BYTES_MIN {
            return Err(OpenError::Options {
                name: "window_bytes_max",
                actual: self.window_bytes_max,
                expected: "at least 64 KiB",
            });
        }
        let needed_bytes = Self::budget_bytes_min(streams);
        if needed_bytes > self.budget_bytes {
            return Err(OpenError::TooManyStreams {
                streams,
                needed_bytes,
                budget_bytes: self.budget_bytes,
            });
        }
        // What spills is to find room in memory first: so much of the budget is for those that fall behind.
        let parts = if self.spill.is_some() { 3 } else { 2 };
        let share = self.budget_bytes / streams.max(1) / parts;
        let first = share.min(self.window_bytes).min(self.window_bytes_max);
        Ok(window_sizes(first, self.window_bytes_max))
    }
}

pub(crate) fn window_sizes(first: usize, largest: usize) -> WindowSizes {
    let first = first.max(STREAM_CREDIT_BYTES_MIN);
    WindowSizes {
        bytes_min: STREAM_CREDIT_BYTES_MIN as u64,
        bytes: first as u64,
        bytes_max: largest.max(first) as u64,
        overrun_bytes: piece_bytes(first as u64) as u64,
        starved_min: STARVED_MIN,
    }
}

/// What a sender splits batches to, whose first limit is `limit_bytes`; the receiver reckons with it.
pub(crate) fn piece_bytes(limit_bytes: u64) -> usize {
    let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
    limit.clamp(STREAM_CREDIT_BYTES_MIN, PIECE_BYTES_MAX)
}

/// How much of the largest batch that a peer takes the rows of a piece may be: its head and its padding come on top.
pub(crate) fn piece_of(batch_bytes_max: usize) -> usize {
    batch_bytes_max - batch_bytes_max / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(budget_bytes: usize, streams: usize) -> Result<WindowSizes, OpenError> {
        let options = ReceiveOptions {
            budget_bytes,
            ..ReceiveOptions::default()
        };
        options.windows(streams)
    }

    #[test]
    fn senders_share_the_budget() {
        let alone = windows(16 * MIB, 1).expect("there is room");
        assert_eq!((alone.bytes, alone.overrun_bytes), (4 << 20, 9 << 17));
        let many = windows(16 * MIB, 64).expect("there is room");
        assert_eq!((many.bytes, many.overrun_bytes), (128 << 10, 128 << 10));
        for streams in 1..=128 {
            let sizes = windows(16 * MIB, streams).expect("there is room");
            let all = streams as u64 * (sizes.bytes + sizes.overrun_bytes);
            assert!(all <= 16 << 20, "{streams}");
        }
    }

    #[test]
    fn too_many_senders_for_a_budget_are_refused() {
        let least = ReceiveOptions::budget_bytes_min(64);
        assert!(windows(least, 64).is_ok());
        let refused = windows(least - 1, 64);
        assert!(matches!(
            refused,
            Err(OpenError::TooManyStreams { streams: 64, .. })
        ));
        assert!(windows(16 * MIB, usize::MAX).is_err());
    }
}
