//! One direction of a connection: bytes on their way, with the times at which they arrive.

use std::{collections::VecDeque, task::Waker, time::Instant};

use tokio::io::ReadBuf;

use super::{End, Fault};

/// Bytes that arrive together.
struct Segment {
    at: Instant,
    bytes: Vec<u8>,
    taken: usize,
}

pub(super) struct Pipe {
    segments: VecDeque<Segment>,
    /// Written, and not read yet.
    pub(super) buffered_bytes: usize,
    /// When the last of what was written arrives.
    last_at: Instant,
    /// Bytes that were ever written.
    written: u64,
    /// What happens when so many were.
    fault: Option<(u64, Fault)>,
    /// When the end arrives; nothing is written behind it.
    end: Option<(Instant, End)>,
    /// The reader has no use for what comes.
    pub(super) is_forsaken: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

/// What there is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    Bytes(usize),
    Ended(End),
    /// Nothing, before that time if one is given.
    Later(Option<Instant>),
}

impl Pipe {
    pub(super) fn new(now: Instant, fault: Option<(u64, Fault)>) -> Self {
        Self {
            segments: VecDeque::new(),
            buffered_bytes: 0,
            last_at: now,
            written: 0,
            fault,
            end: None,
            is_forsaken: false,
            reader: None,
            writer: None,
        }
    }

    /// Fails behind the next `after_bytes`.
    pub(super) fn arm(&mut self, after_bytes: u64, fault: Fault) {
        self.fault = Some((self.written + after_bytes, fault));
    }

    /// No fault happens any more; what has been held up is looked at again.
    pub(super) fn heal(&mut self) {
        self.fault = None;
        wake(&mut self.reader);
    }

    /// Takes bytes that arrive at `at`, or behind those before them; says whether the connection is cut behind them.
    pub(super) fn write(&mut self, mut bytes: Vec<u8>, at: Instant) -> Option<End> {
        let before = self.written;
        self.written += bytes.len() as u64;
        let due = self.fault.take_if(|(at, _)| *at < self.written);
        let mut cut = None;
        if let Some((at, fault)) = due {
            let index = usize::try_from(at.saturating_sub(before)).unwrap_or_default();
            match fault {
                Fault::FlipBit(bit) => bytes[index] ^= 1 << (bit % 8),
                Fault::Cut(end) => {
                    bytes.truncate(index);
                    cut = Some(end);
                }
            }
        }
        self.last_at = self.last_at.max(at);
        if !self.is_forsaken && !bytes.is_empty() {
            self.buffered_bytes += bytes.len();
            self.segments.push_back(Segment {
                at: self.last_at,
                bytes,
                taken: 0,
            });
        }
        wake(&mut self.reader);
        cut
    }

    /// Nothing is written any more. A reset overtakes what is on its way.
    pub(super) fn end(&mut self, end: End, at: Instant) {
        let at = match end {
            End::Fin if self.end.is_some() => return,
            End::Fin => at.max(self.last_at),
            End::Reset => {
                self.segments.retain(|segment| segment.at <= at);
                self.buffered_bytes = self.segments.iter().map(Segment::left).sum();
                at
            }
        };
        self.end = Some((at, end));
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    pub(super) fn is_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether a reset has arrived.
    pub(super) fn is_reset(&self, now: Instant) -> bool {
        matches!(self.end, Some((at, End::Reset)) if at <= now)
    }

    /// Everything that is on its way is lost.
    pub(super) fn lose(&mut self) {
        self.segments.clear();
        self.end = None;
    }

    /// The reader goes; says whether it has left anything unread.
    pub(super) fn forsake(&mut self) -> bool {
        let has_unread = !self.segments.is_empty();
        self.is_forsaken = true;
        self.segments.clear();
        self.buffered_bytes = 0;
        wake(&mut self.writer);
        has_unread
    }

    /// Reads at most `bytes_max`; nothing arrives before `stalled`.
    pub(super) fn read(
        &mut self,
        out: &mut ReadBuf<'_>,
        bytes_max: usize,
        (now, stalled): (Instant, Instant),
    ) -> Arrived {
        let (mut left, mut read) = (bytes_max.min(out.remaining()), 0);
        while let Some(first) = self.segments.front_mut()
            && first.at.max(stalled) <= now
            && left > 0
        {
            let bytes = first.left().min(left);
            out.put_slice(&first.bytes[first.taken..first.taken + bytes]);
            first.taken += bytes;
            (left, read) = (left - bytes, read + bytes);
            if first.left() == 0 {
                self.segments.pop_front();
            }
        }
        if read > 0 {
            self.buffered_bytes -= read;
            wake(&mut self.writer);
            return Arrived::Bytes(read);
        }
        let next = self.segments.front().map(|segment| segment.at);
        match (next, self.end) {
            (None, Some((at, end))) if at.max(stalled) <= now => Arrived::Ended(end),
            (next, end) => {
                let next = next.or_else(|| end.map(|(at, _)| at));
                Arrived::Later(next.map(|at| at.max(stalled)))
            }
        }
    }
}

impl Segment {
    fn left(&self) -> usize {
        self.bytes.len() - self.taken
    }
}

fn wake(waker: &mut Option<Waker>) {
    waker.take().into_iter().for_each(Waker::wake);
}
