//! Where each record of a queue is, and what is to be moved next. No I/O.
//!
//! ```text
//!          taken |  read back  |   on disk   |  being written, or waiting for it | pushed
//! entries        ^ front                     ^ unwritten                         ^ back
//! ```

use std::{
    collections::VecDeque,
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use super::{
    SpillError, SpillRecord,
    segment::{Segment, Span},
};

/// Most bytes that one write takes from one queue, unless it is a single record.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// Most bytes that one read brings ahead of what is asked for.
const READ_BYTES_MAX: usize = 256 << 10;
/// A segment that has this many bytes gets no more records.
pub(super) const SEGMENT_BYTES: u64 = 16 << 20;

/// The records of one queue, from the next one to be taken to the last one pushed.
///
/// `M` stands for a record's room in memory, and on disk.
#[derive(Debug)]
pub(super) struct Index<M> {
    entries: VecDeque<Entry<M>>,
    /// How many records were taken: the number of the first entry.
    taken: u64,
    /// Number of the next record to be written.
    unwritten: u64,
    segments: VecDeque<Extent<M>>,
    /// Whether somebody is told to write, or to read.
    is_writing: bool,
    is_reading: bool,
    /// Who waits for the first record.
    waiting: Option<Waker>,
    /// Since when there has been no memory to read into.
    lacks_memory_since: Option<Instant>,
    /// Since when there has been no room for a record more, and none was taken.
    lacks_room_since: Option<Instant>,
    /// Why there will be nothing more.
    failed: Option<SpillError>,
}

#[derive(Debug)]
enum Entry<M> {
    /// In memory, with what it is charged for there and reserved on disk.
    Unwritten {
        record: SpillRecord,
        /// Given back when the record is taken or written.
        _memory: M,
        /// `None`: it is being written, and counts there.
        disk: Option<M>,
    },
    OnDisk(Span),
    ReadBack(SpillRecord),
}

/// A segment, and what of it is in use.
#[derive(Debug)]
struct Extent<M> {
    segment: Arc<Segment>,
    bytes: u64,
    /// Records that were not taken.
    records: usize,
    disk: Option<M>,
}

/// What became of taking a record.
#[derive(Debug)]
pub(super) enum Taken {
    Record(SpillRecord),
    /// There is no record.
    Nothing,
    /// It is on disk; whether somebody has to be told to read it.
    OnDisk {
        tell: bool,
    },
}

/// What to write, to which segment.
#[derive(Debug)]
pub(super) struct Writing<M> {
    pub(super) records: Vec<SpillRecord>,
    /// `None`: a new one.
    pub(super) segment: Option<(Arc<Segment>, u64)>,
    first: u64,
    disk: Vec<M>,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum NextWrite<M> {
    Write(Writing<M>),
    /// Nothing, until somebody is told again.
    Rest(Unused<M>),
}

/// What can be let go of; dropping it may take a disk's time.
#[derive(Debug)]
#[must_use = "segments are deleted where this is dropped"]
pub(super) struct Unused<M>(Vec<Extent<M>>);

/// Something that can stand for what another one stands for, too.
pub(super) trait Absorb {
    /// Takes over what `other` stands for.
    fn absorb(&mut self, other: Self);
}

impl<M> Unused<M> {
    pub(super) fn nothing() -> Self {
        Self(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<M> Default for Index<M> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            taken: 0,
            unwritten: 0,
            segments: VecDeque::new(),
            is_writing: false,
            is_reading: false,
            waiting: None,
            lacks_memory_since: None,
            lacks_room_since: None,
            failed: None,
        }
    }
}

impl<M: Absorb> Index<M> {
    /// Adds a record; says whether somebody has to be told to write.
    pub(super) fn push(
        &mut self,
        record: SpillRecord,
        memory: M,
        disk: M,
    ) -> Result<bool, SpillError> {
        self.expect_intact()?;
        self.lacks_room_since = None;
        self.entries.push_back(Entry::Unwritten {
            record,
            _memory: memory,
            disk: Some(disk),
        });
        Ok(!std::mem::replace(&mut self.is_writing, true))
    }

    /// Takes the first record.
    pub(super) fn take(&mut self, waker: &Waker) -> Result<(Taken, Unused<M>), SpillError> {
        self.expect_intact()?;
        let Some(first) = self.entries.pop_front() else {
            return Ok((Taken::Nothing, Unused::nothing()));
        };
        let record = match first {
            Entry::OnDisk(_) => {
                self.entries.push_front(first);
                self.waiting = Some(waker.clone());
                let tell = !std::mem::replace(&mut self.is_reading, true);
                return Ok((Taken::OnDisk { tell }, Unused::nothing()));
            }
            Entry::ReadBack(record) => {
                // Records are taken in the order of the files. One without any is kept at the front as long as it may
                // be written to, and nothing has looked at it since.
                let mut in_order = self.segments.iter_mut();
                if let Some(extent) = in_order.find(|extent| extent.records > 0) {
                    extent.records -= 1;
                }
                record
            }
            Entry::Unwritten { record, .. } => record,
        };
        self.lacks_room_since = None;
        self.taken += 1;
        self.unwritten = self.unwritten.max(self.taken);
        Ok((Taken::Record(record), self.unused()))
    }

    /// The next records to be written, for which somebody was told.
    pub(super) fn next_write(&mut self) -> NextWrite<M> {
        let (mut bytes, mut records, mut charges) = (0, Vec::new(), Vec::new());
        let position = self.position(self.unwritten);
        for entry in self.entries.range_mut(position..) {
            let Entry::Unwritten { record, disk, .. } = entry else {
                break;
            };
            bytes += record.bytes();
            if bytes > WRITE_BYTES_MAX && !records.is_empty() {
                break;
            }
            records.push(record.clone());
            charges.extend(disk.take());
        }
        if records.is_empty() {
            self.is_writing = false;
            return NextWrite::Rest(self.unused());
        }
        let last = self.segments.back();
        NextWrite::Write(Writing {
            records,
            segment: last
                .filter(|extent| extent.bytes < SEGMENT_BYTES)
                .map(|extent| (Arc::clone(&extent.segment), extent.bytes)),
            first: self.unwritten,
            disk: charges,
        })
    }

    /// What [`Self::next_write`] gave is at `spans`, whether or not it was taken meanwhile.
    pub(super) fn written(&mut self, writing: Writing<M>, spans: Vec<Span>) {
        if self.failed.is_some() {
            return;
        }
        let mut charges = writing.disk.into_iter();
        for (number, span) in (writing.first..).zip(spans) {
            let is_taken = number < self.taken;
            self.extend(&span, charges.next(), usize::from(!is_taken));
            if !is_taken {
                let at = self.position(number);
                self.entries[at] = Entry::OnDisk(span);
                self.unwritten = number + 1;
            }
        }
    }

    /// Adds `span` to the last segment, with what it is charged for, and `records` records that will be taken from it.
    fn extend(&mut self, span: &Span, charge: Option<M>, records: usize) {
        let last = self.segments.back();
        if last.is_none_or(|last| !Arc::ptr_eq(&last.segment, &span.segment)) {
            self.segments.push_back(Extent {
                segment: Arc::clone(&span.segment),
                bytes: 0,
                records: 0,
                disk: None,
            });
        }
        if let Some(extent) = self.segments.back_mut() {
            extent.bytes = span.offset + span.disk_bytes() as u64;
            extent.records += records;
            extent.keep(charge);
        }
    }

    /// The first records, as far as they are on disk in one piece.
    pub(super) fn next_read(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        let mut bytes = 0;
        for entry in &self.entries {
            let Entry::OnDisk(span) = entry else {
                break;
            };
            bytes += span.disk_bytes();
            let follows = spans.last().is_none_or(|last| last.is_followed_by(span));
            if !follows || (bytes > READ_BYTES_MAX && !spans.is_empty()) {
                break;
            }
            spans.push(span.clone());
        }
        spans
    }

    /// There is no memory for the first record; returns how long that has been so.
    pub(super) fn lacks_memory(&mut self, now: Instant) -> Duration {
        let since = *self.lacks_memory_since.get_or_insert(now);
        now.saturating_duration_since(since)
    }

    /// There is no room for a record more; returns how long that has been so.
    pub(super) fn lacks_room(&mut self, now: Instant) -> Duration {
        let since = *self.lacks_room_since.get_or_insert(now);
        now.saturating_duration_since(since)
    }

    /// No record more waits for room, or what was taken lets others come without any.
    pub(super) fn lacks_no_room(&mut self) {
        self.lacks_room_since = None;
    }

    /// The first records are in memory again.
    pub(super) fn read(&mut self, records: Vec<SpillRecord>) {
        self.is_reading = false;
        self.lacks_memory_since = None;
        for (entry, record) in self.entries.iter_mut().zip(records) {
            *entry = Entry::ReadBack(record);
        }
        self.wake();
    }

    /// Nothing more comes of this queue, for this reason.
    pub(super) fn fail(&mut self, error: SpillError) -> Unused<M> {
        self.failed.get_or_insert(error);
        self.entries.clear();
        self.unwritten = self.taken;
        self.wake();
        Unused(std::mem::take(&mut self.segments).into())
    }

    /// Records that were not taken.
    pub(super) fn records(&self) -> usize {
        self.entries.len()
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Whether what is pushed now is the next to be taken.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.failed.is_none()
    }

    /// # Errors
    ///
    /// The queue has failed.
    pub(super) fn expect_intact(&self) -> Result<(), SpillError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn position(&self, number: u64) -> usize {
        usize::try_from(number - self.taken).expect("invariant: entries are in memory")
    }

    /// Segments without records, but not the last one while it is being written.
    fn unused(&mut self) -> Unused<M> {
        let mut unused = Vec::new();
        while let Some(first) = self.segments.front() {
            let is_open = self.segments.len() == 1 && self.is_writing;
            if first.records > 0 || is_open {
                break;
            }
            unused.extend(self.segments.pop_front());
        }
        Unused(unused)
    }
}

impl<M: Absorb> Extent<M> {
    fn keep(&mut self, charge: Option<M>) {
        match (&mut self.disk, charge) {
            (Some(disk), Some(more)) => disk.absorb(more),
            (disk @ None, more) => *disk = more,
            (Some(_), None) => {}
        }
    }
}
