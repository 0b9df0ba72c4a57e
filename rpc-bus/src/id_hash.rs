//! A cheap hash for keys that this side chose itself: no peer can make them collide.

use std::hash::{BuildHasherDefault, Hasher};

/// `S` of a `HashMap` keyed by an integer newtype.
pub(crate) type IdHash = BuildHasherDefault<IdHasher>;

/// Fibonacci hashing: spreads consecutive numbers over the high bits, which the map looks at first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl IdHasher {
    fn mix(&mut self, value: u64) {
        let product = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.mix(u64::from(byte));
        }
    }

    fn write_i32(&mut self, value: i32) {
        self.mix(u64::from(value.cast_unsigned()));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
