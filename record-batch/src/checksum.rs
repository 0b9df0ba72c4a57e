//! CRC-32C over what is sent, piece by piece.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

/// A checksum under construction. Pieces count as if they were one.
#[derive(Debug)]
pub struct Checksum(Digest);

impl Checksum {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Of `pieces`, one after the other.
    #[must_use]
    pub fn of(pieces: &[Bytes]) -> u32 {
        let mut sum = Self::new();
        for piece in pieces {
            sum.update(piece);
        }
        sum.finish()
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The CRC-32C.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a CRC-32 has 32 bits")]
    pub fn finish(self) -> u32 {
        self.0.finalize() as u32
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_is_that_of_crc_32c() {
        assert_eq!(
            Checksum::of(&[Bytes::from_static(b"123456789")]),
            0xe306_9283
        );
        assert_eq!(Checksum::of(&[]), 0);
    }

    #[test]
    fn pieces_count_as_one() {
        let whole = Bytes::from_static(b"the quick brown fox jumps over the lazy dog");
        for at in 0..whole.len() {
            let pieces = [whole.slice(..at), whole.slice(at..)];
            assert_eq!(
                Checksum::of(&pieces),
                Checksum::of(std::slice::from_ref(&whole))
            );
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let whole: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let sum = Checksum::of(&[whole.clone().into()]);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Checksum::of(&[flipped.into()]), sum);
        }
    }
}
