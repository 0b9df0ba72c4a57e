//! What can go wrong with spill files.

use std::{io, path::PathBuf, sync::Arc};

use protos::error::Retry;
use rpc_bus::ledger::BudgetExceeded;
use thiserror::Error;

/// Why there is no directory for spill files.
#[derive(Debug, Error)]
#[error("cannot {action} {}", path.display())]
pub struct SpillOpenError {
    pub(super) action: &'static str,
    /// Of the file or directory.
    pub path: PathBuf,
    pub(super) source: io::Error,
}

/// Why a queue cannot be spilled or read back, or why a record has no room. It concerns this queue only.
///
/// After [`SpillError::NoRoomYet`] and [`SpillError::TooLong`] the queue is as it was before. After all others it has
/// failed: it has lost all of its records, and says so from then on.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum SpillError {
    /// The record alone is longer than all that may wait to be written, or than all files together may be.
    #[error("a record of {requested} bytes does not fit into the {limit} bytes of {ledger}")]
    TooLong {
        /// What it does not fit into.
        ledger: Arc<str>,
        /// Bytes that were to be spilled.
        requested: usize,
        /// Bytes that all may take together.
        limit: usize,
    },
    /// There was no room on disk for [`SpillOptions::room_timeout`](crate::SpillOptions::room_timeout).
    #[error(
        "no room on disk for {requested} bytes in all the time that is allowed for: {used} of {limit} are in use"
    )]
    DiskLimit {
        /// Bytes that were to be spilled.
        requested: usize,
        /// Bytes on disk.
        used: usize,
        /// Bytes that may be.
        limit: usize,
    },
    /// Others hold the room in memory for what waits to be written, or on disk, now.
    #[error("no room to spill yet")]
    NoRoomYet,
    /// There was no memory in time, for what was to be written or read, or too many files are open.
    #[error("no room to spill: {0}")]
    Budget(#[from] BudgetExceeded),
    /// The file system refused, for example because it is full.
    #[error("cannot {action} spill file {}: {source}", path.display())]
    File {
        /// What was tried: create, write or read.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// A record is not what was written.
    #[error("spill file {} is damaged: checksum {actual:#010x} at byte {offset}, expected {expected:#010x}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// Checksum when it was written.
        expected: u32,
        /// Checksum of what was read.
        actual: u32,
    },
    /// Whoever was to take the records is gone.
    #[error("nobody takes what is spilled any more")]
    ReaderGone,
    /// The runtime whose threads move the bytes has ended.
    #[error("the runtime for spill files has ended")]
    RuntimeEnded,
}

impl SpillError {
    /// Whether another try can help: another node has another disk, and memory comes and goes.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::TooLong { .. }
            | Self::DiskLimit { .. }
            | Self::File { .. }
            | Self::Damaged { .. } => Retry::OtherNode,
            Self::Budget(_) | Self::NoRoomYet => Retry::SameNode,
            Self::ReaderGone | Self::RuntimeEnded => Retry::Never,
        }
    }
}
