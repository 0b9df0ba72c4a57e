//! A cheap hash for ids of 64 bits, some of which a peer may choose: it depends on two random numbers of the process, so
//! that nobody outside can tell which ids collide.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::LazyLock,
};

/// What the hashes of this process depend on; the second number is odd.
static SEEDS: LazyLock<(u64, u64)> = LazyLock::new(|| {
    let random = RandomState::new();
    (random.hash_one(0), random.hash_one(1) | 1)
});

/// `S` of a `HashMap` keyed by an integer newtype.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHash;

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        let (state, factor) = *SEEDS;
        IdHasher { state, factor }
    }
}

/// Multiplies, and folds the upper half of the product into the lower one; twice, so that every bit of an id reaches those
/// that choose its bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdHasher {
    state: u64,
    factor: u64,
}

impl IdHasher {
    fn mix(&mut self, value: u64) {
        self.state = fold(self.state ^ value, self.factor);
    }
}

fn fold(value: u64, factor: u64) -> u64 {
    let product = u128::from(value) * u128::from(factor);
    let halves = [product, product >> 64].map(|half| half & u128::from(u64::MAX));
    let halves = halves.map(|half| u64::try_from(half).expect("invariant: of 64 bits"));
    halves[0] ^ halves[1]
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.mix(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn finish(&self) -> u64 {
        fold(self.state, self.factor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// How many of 256 buckets the ids are in.
    fn buckets(ids: impl Iterator<Item = u64>) -> usize {
        let buckets: HashSet<_> = ids.map(|id| IdHash.hash_one(id) & 0xff).collect();
        buckets.len()
    }

    #[test]
    fn ids_spread_wherever_their_bits_are() {
        // At random they would be in about 162.
        for shift in [0, 16, 32, 48, 56] {
            let spread = buckets((0..256).map(|id| id << shift));
            assert!(spread > 100, "{spread} of 256 buckets, shifted by {shift}");
        }
    }

    #[test]
    fn ids_that_collide_under_a_multiplication_that_is_known_do_not_here() {
        // Multiplied by the golden ratio's inverse they differ in the upper bits only.
        let inverse = 0xf1de_83e1_9937_733d_u64;
        assert_eq!(inverse.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1);
        let ids = (0..256_u64).map(|id| (id << 56).wrapping_mul(inverse));
        assert!(buckets(ids) > 100);
    }
}
