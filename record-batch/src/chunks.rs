//! Bodies that are too long for one frame: cut into chunks, and joined again under a limit.

use std::collections::VecDeque;

use bytes::Bytes;

/// Cuts a body into chunks of at most `chunk_bytes`, without a copy. A body that fits is one chunk, and so is an empty
/// one. `chunk_bytes` counts as 1 when it is 0.
pub fn chunks(body: Vec<Bytes>, chunk_bytes: usize) -> impl Iterator<Item = Vec<Bytes>> {
    let mut rest = VecDeque::from(body);
    let mut is_first = true;
    std::iter::from_fn(move || {
        if rest.is_empty() && !std::mem::take(&mut is_first) {
            return None;
        }
        is_first = false;
        Some(next_chunk(&mut rest, chunk_bytes.max(1)))
    })
}

fn next_chunk(rest: &mut VecDeque<Bytes>, mut room: usize) -> Vec<Bytes> {
    let mut chunk = Vec::new();
    while let Some(piece) = rest.front_mut() {
        if piece.len() > room {
            if room > 0 {
                chunk.push(piece.split_to(room));
            }
            break;
        }
        room -= piece.len();
        chunk.extend(rest.pop_front());
    }
    chunk
}

/// A body that comes in chunks. Its whole length is known from the first one, and charged by whoever starts this.
#[derive(Debug)]
pub struct Reassembly {
    total_bytes: usize,
    joined: Vec<u8>,
}

/// Chunks that do not make the body that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// More than this side allows.
    #[error("a body of {total_bytes} bytes, at most {bytes_max} allowed")]
    TooLarge {
        /// As announced.
        total_bytes: usize,
        /// As configured.
        bytes_max: usize,
    },
    /// An empty chunk would go on for ever.
    #[error("an empty chunk")]
    Empty,
    /// The chunks hold more than was announced.
    #[error("{bytes} bytes in chunks, {total_bytes} announced")]
    Overrun {
        /// Bytes so far.
        bytes: usize,
        /// As announced.
        total_bytes: usize,
    },
}

impl Reassembly {
    /// Starts a body of `total_bytes`. Memory grows with the chunks, not with the announcement.
    ///
    /// # Errors
    ///
    /// The body is longer than `bytes_max`.
    pub fn begin(total_bytes: usize, bytes_max: usize) -> Result<Self, ChunkError> {
        if total_bytes > bytes_max {
            return Err(ChunkError::TooLarge {
                total_bytes,
                bytes_max,
            });
        }
        let joined = Vec::new();
        Ok(Self {
            total_bytes,
            joined,
        })
    }

    /// Length of the whole body.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    /// Adds the next chunk; the body, when it is complete.
    ///
    /// # Errors
    ///
    /// The chunk is empty, or holds more than is missing.
    pub fn push(&mut self, chunk: Bytes) -> Result<Option<Bytes>, ChunkError> {
        if chunk.is_empty() && self.total_bytes > 0 {
            return Err(ChunkError::Empty);
        }
        let (bytes, total_bytes) = (self.joined.len() + chunk.len(), self.total_bytes);
        if bytes > total_bytes {
            return Err(ChunkError::Overrun { bytes, total_bytes });
        }
        if bytes == total_bytes && self.joined.is_empty() {
            return Ok(Some(chunk));
        }
        self.reserve(chunk.len());
        self.joined.extend_from_slice(&chunk);
        Ok((bytes == total_bytes).then(|| Bytes::from(std::mem::take(&mut self.joined))))
    }

    /// At most doubles what has come, and never beyond the whole.
    fn reserve(&mut self, more: usize) {
        let needed = self.joined.len() + more;
        if needed > self.joined.capacity() {
            let capacity = self.total_bytes.min(2 * needed);
            self.joined.reserve_exact(capacity - self.joined.len());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn body() -> Vec<Bytes> {
        let piece = |len: u8| Bytes::from((0..len).collect::<Vec<_>>());
        vec![piece(3), piece(0), piece(100), piece(7)]
    }

    #[test]
    fn bodies_are_joined_again_whatever_the_chunks() {
        let whole = body().concat();
        for chunk_bytes in 0..=whole.len() + 1 {
            let mut reassembly = Reassembly::begin(whole.len(), 1000).unwrap();
            let mut joined = None;
            for chunk in chunks(body(), chunk_bytes) {
                assert!(joined.is_none());
                let chunk = Bytes::from(chunk.concat());
                assert!(chunk.len() <= chunk_bytes.max(1));
                joined = reassembly.push(chunk).unwrap();
            }
            assert_eq!(joined.unwrap(), whole, "{chunk_bytes}");
        }
    }

    #[test]
    fn an_empty_body_is_one_chunk() {
        let chunks: Vec<_> = chunks(Vec::new(), 10).collect();
        assert_eq!(chunks, [Vec::<Bytes>::new()]);
        let mut reassembly = Reassembly::begin(0, 10).unwrap();
        assert_eq!(reassembly.push(Bytes::new()), Ok(Some(Bytes::new())));
    }

    #[test]
    fn a_body_in_one_chunk_is_not_copied() {
        let whole = Bytes::from(vec![1; 50]);
        let mut reassembly = Reassembly::begin(50, 50).unwrap();
        let joined = reassembly.push(whole.clone()).unwrap().unwrap();
        assert_eq!(joined.as_ptr(), whole.as_ptr());
    }

    #[test]
    fn lies_are_refused() {
        let too_large = Reassembly::begin(51, 50).unwrap_err();
        assert!(matches!(too_large, ChunkError::TooLarge { .. }));
        let mut reassembly = Reassembly::begin(10, 50).unwrap();
        assert_eq!(reassembly.push(Bytes::new()), Err(ChunkError::Empty));
        assert_eq!(reassembly.push(Bytes::from_static(b"12345")), Ok(None));
        let overrun = reassembly.push(Bytes::from_static(b"678901"));
        assert_eq!(
            overrun,
            Err(ChunkError::Overrun {
                bytes: 11,
                total_bytes: 10
            })
        );
    }

    #[test]
    fn memory_grows_with_what_came() {
        let mut reassembly = Reassembly::begin(1 << 30, 1 << 30).unwrap();
        reassembly.push(Bytes::from(vec![0; 1000])).unwrap();
        assert!(reassembly.joined.capacity() <= 2000);
    }
}
