//! Memory of large bodies: aligned, grown with the bytes that arrive, charged, and recycled.
//!
//! A fresh allocation of a megabyte costs a page fault per 4 KiB; recycling buffers doubles the rate of large bodies.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::ledger::{BudgetExceeded, Charge, Kind, Ledger};

/// Raw bodies start at a multiple of this, so that Arrow buffers in them can be used where they are.
const ALIGNMENT: usize = 64;
/// What a body gets before its bytes arrive.
const FIRST_BYTES: usize = 1024 * 1024;
/// By how much a buffer grows once it is full.
const GROWTH: usize = 4;
/// Allocations are rounded up to this, so that bodies of nearly equal length share buffers.
const GRAIN_BYTES: usize = 16 * 1024;

const _: () = assert!(super::STAGED_FRAME_BYTES_MAX <= FIRST_BYTES);

/// What a pool keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyPoolOptions {
    /// Most bytes kept for reuse. Default 64 MiB. Buffers in use are not counted here but in the ledger.
    pub(crate) retained_bytes_max: usize,
}

impl Default for BodyPoolOptions {
    fn default() -> Self {
        Self {
            retained_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// Buffers of large bodies that are waiting for their next use.
pub struct BodyPool {
    options: BodyPoolOptions,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl BodyPool {
    pub(crate) fn new(options: BodyPoolOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            free: Mutex::default(),
        })
    }

    /// Bytes that wait for reuse.
    #[must_use]
    pub fn retained_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// A buffer for `wanted` bytes: a recycled one if one fits, without pinning much more than is needed.
    fn recycled(&self, wanted: usize) -> Option<Vec<u8>> {
        let mut free = self.lock();
        let fits = wanted..=wanted.saturating_mul(GROWTH);
        let index = free
            .buffers
            .iter()
            .rposition(|buffer| fits.contains(&buffer.len()))?;
        let buffer = free.buffers.swap_remove(index);
        free.bytes -= buffer.len();
        Some(buffer)
    }

    fn recycle(&self, buffer: Vec<u8>) {
        let mut free = self.lock();
        if free.bytes + buffer.len() <= self.options.retained_bytes_max {
            free.bytes += buffer.len();
            free.buffers.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BodyPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyPool")
            .field("retained_bytes", &self.retained_bytes())
            .finish()
    }
}

/// Bodies up to this are not charged: they count as part of the call that they belong to.
pub(super) const UNCHARGED_BYTES_MAX: usize = 4 * 1024;

/// A body in memory of exactly its own size, so that it pins nothing else.
#[derive(Default)]
pub(super) struct SmallBody {
    bytes: Vec<u8>,
    /// Kept as long as the bytes; `None` for the smallest.
    charge: Option<Charge>,
}

impl SmallBody {
    pub(super) fn begin(len: usize, ledger: &Ledger) -> Result<Self, BudgetExceeded> {
        let charged = len > UNCHARGED_BYTES_MAX;
        let charge = charged
            .then(|| ledger.charge(Kind::Bytes, len))
            .transpose()?;
        Ok(Self {
            bytes: Vec::with_capacity(len),
            charge,
        })
    }

    pub(super) fn copy(bytes: &[u8], ledger: &Ledger) -> Result<Bytes, BudgetExceeded> {
        let mut body = Self::begin(bytes.len(), ledger)?;
        body.extend(bytes);
        Ok(body.finish())
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn finish(self) -> Bytes {
        if self.charge.is_some() {
            Bytes::from_owner(self)
        } else {
            self.bytes.into()
        }
    }
}

impl AsRef<[u8]> for SmallBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body that is arriving: `len` bytes, of which `filled` are there.
pub(super) struct Body {
    // Always initialised over its whole length: safe code cannot read into anything else.
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    len: usize,
    charge: Charge,
    pool: Arc<BodyPool>,
}

impl Body {
    /// Memory for the first bytes of a body of `len` bytes, charged to `ledger`.
    pub(super) fn begin(
        len: usize,
        pool: &Arc<BodyPool>,
        ledger: &Ledger,
    ) -> Result<Self, BudgetExceeded> {
        // Up to twice the first size is given at once: growing would copy nearly all of it.
        let first = if len <= 2 * FIRST_BYTES {
            len
        } else {
            FIRST_BYTES
        };
        let recycled = pool.recycled(allocation(len));
        let bytes = recycled
            .as_ref()
            .map_or_else(|| allocation(first), Vec::len);
        let charge = ledger.charge(Kind::Bytes, bytes)?;
        let buffer = recycled.unwrap_or_else(|| vec![0; bytes]);
        let start = aligned_start(&buffer);
        Ok(Self {
            buffer,
            start,
            filled: 0,
            len,
            charge,
            pool: Arc::clone(pool),
        })
    }

    /// Where the next bytes go. Never empty before the body is whole.
    pub(super) fn target(&mut self) -> Result<&mut [u8], BudgetExceeded> {
        if self.start + self.filled == self.buffer.len() {
            self.grow()?;
        }
        let end = self.buffer.len().min(self.start + self.len);
        Ok(&mut self.buffer[self.start + self.filled..end])
    }

    /// Notes that `bytes` of the target were written.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    pub(super) fn is_whole(&self) -> bool {
        self.filled == self.len
    }

    pub(super) fn finish(self) -> Bytes {
        Bytes::from_owner(self)
    }

    fn grow(&mut self) -> Result<(), BudgetExceeded> {
        let wanted = allocation(self.filled.saturating_mul(GROWTH).min(self.len));
        self.charge.grow(wanted)?;
        let mut larger = vec![0; wanted];
        let start = aligned_start(&larger);
        larger[start..start + self.filled].copy_from_slice(self.arrived());
        let smaller = std::mem::replace(&mut self.buffer, larger);
        self.start = start;
        self.charge.shrink(smaller.len());
        self.pool.recycle(smaller);
        Ok(())
    }

    fn arrived(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.filled]
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self.arrived()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.pool.recycle(std::mem::take(&mut self.buffer));
    }
}

// Room for `len` bytes from an aligned start.
fn allocation(len: usize) -> usize {
    (len + ALIGNMENT - 1).next_multiple_of(GRAIN_BYTES)
}

fn aligned_start(buffer: &[u8]) -> usize {
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    // `align_offset` may decline; then alignment is lost, nothing else.
    if start < ALIGNMENT { start } else { 0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ledger::Limits;

    fn pool() -> Arc<BodyPool> {
        BodyPool::new(BodyPoolOptions {
            retained_bytes_max: 8 * 1024 * 1024,
        })
    }

    fn fill(body: &mut Body, byte: u8) {
        while !body.is_whole() {
            let target = body.target().unwrap();
            target.fill(byte);
            let bytes = target.len();
            body.advance(bytes);
        }
    }

    #[test]
    fn memory_grows_with_bytes_that_arrived_not_with_the_announced_length() {
        let ledger = Ledger::root("test", Limits::default());
        let mut body = Body::begin(1 << 30, &pool(), &ledger).unwrap();
        assert!(ledger.used(Kind::Bytes) <= FIRST_BYTES + GRAIN_BYTES);
        let first = body.target().unwrap().len();
        body.advance(first);
        body.target().unwrap();
        assert!(ledger.used(Kind::Bytes) <= GROWTH * FIRST_BYTES + 2 * GRAIN_BYTES * GROWTH);
        drop(body);
        assert!(ledger.is_zero());
    }

    #[test]
    fn growing_keeps_the_bytes_and_the_alignment() {
        let ledger = Ledger::root("test", Limits::default());
        let mut body = Body::begin(5 * FIRST_BYTES, &pool(), &ledger).unwrap();
        fill(&mut body, 7);
        let bytes = body.finish();
        assert_eq!(bytes.len(), 5 * FIRST_BYTES);
        assert!(bytes.iter().all(|&byte| byte == 7));
        assert_eq!(bytes.as_ptr().align_offset(ALIGNMENT), 0);
    }

    #[test]
    fn a_dropped_body_is_used_again_and_not_kept_above_the_limit() {
        let (pool, ledger) = (pool(), Ledger::root("test", Limits::default()));
        for _ in 0..3 {
            let mut body = Body::begin(FIRST_BYTES, &pool, &ledger).unwrap();
            fill(&mut body, 1);
            assert_eq!(pool.retained_bytes(), 0);
            drop(body.finish());
            assert_eq!(pool.retained_bytes(), allocation(FIRST_BYTES));
        }
        let bodies: Vec<_> = (0..20)
            .map(|_| Body::begin(FIRST_BYTES, &pool, &ledger).unwrap())
            .collect();
        drop(bodies);
        assert!(pool.retained_bytes() <= 8 * 1024 * 1024);
    }

    #[test]
    fn a_spent_budget_refuses_the_body() {
        let ledger = Ledger::root(
            "test",
            Limits {
                bytes: Some(GRAIN_BYTES),
                ..Limits::default()
            },
        );
        assert!(Body::begin(FIRST_BYTES, &pool(), &ledger).is_err());
        assert!(ledger.is_zero());
    }
}
