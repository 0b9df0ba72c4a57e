//! Spill files: what waits for a consumer and has no room in memory waits on disk.
//!
//! ```text
//! SpillWriter::push --> index --> SpillReader::pop           neither ever waits for a disk
//!                        |  ^
//!                        v  |     one thread moves bytes to files and back, a read and a write in turn
//!                      segments
//! ```
//!
//! A [`SpillDir`] belongs to one run of a process: it is locked as long as that run lives, and opening one deletes those
//! that nobody has locked. A queue is a first-in-first-out list of encoded records. They are written behind the caller's
//! back, and a record whose turn comes before it is written never touches the disk. Files are cut into segments, each of
//! which is deleted when its last record was taken, so that a queue that never runs empty does not grow for ever.
//!
//! Everything is bounded: bytes that wait to be written or to be taken after they were read by a [`Ledger`], bytes on
//! disk by [`SpillOptions::disk_bytes_max`], segments as open files by the same ledger. What is read is compared with
//! the checksum that was taken when it was written; lengths and checksums never leave memory.

mod dir;
mod error;
mod index;
mod queue;
mod room;
mod segment;
#[cfg(test)]
mod tests;
mod watch;
mod worker;

use std::time::Duration;

use bytes::Bytes;

pub use dir::SpillDir;
pub use error::{SpillError, SpillOpenError};
pub use queue::{SpillReader, SpillWriter};

#[cfg(doc)]
use rpc_bus::Ledger;

/// Limits of all spill files of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpillOptions {
    /// Most bytes of all files together. Default 16 GiB. Where that is spent, records find no room until others are taken:
    /// senders wait, as those of streams that are not spilled do, for [`Self::room_timeout`].
    pub disk_bytes_max: usize,
    /// Most bytes in memory that wait to be written, of all queues together. Default 64 MiB. Credit for what is spilled
    /// is to be given within this.
    pub unwritten_bytes_max: usize,
    /// How long a record that is to be read back waits for memory, if others hold all of it, before its queue fails.
    /// Default 30 s.
    pub memory_timeout: Duration,
    /// How long a queue waits for room on disk, or for what is to be written, while none of its records is taken, before it
    /// fails; up to a quarter longer. Default 30 s. What one consumer does not take may be what another one waits for.
    pub room_timeout: Duration,
}

impl Default for SpillOptions {
    fn default() -> Self {
        Self {
            disk_bytes_max: 16 << 30,
            unwritten_bytes_max: 64 << 20,
            memory_timeout: Duration::from_secs(30),
            room_timeout: Duration::from_secs(30),
        }
    }
}

/// One encoded batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpillRecord {
    /// What the body is.
    pub header: Bytes,
    /// The body, in pieces that follow each other. After it was on disk it is one piece, at a multiple of 64 bytes in
    /// memory.
    pub body: Vec<Bytes>,
}

impl SpillRecord {
    pub(crate) fn bytes(&self) -> usize {
        self.header.len() + self.body_bytes()
    }

    fn body_bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }
}
