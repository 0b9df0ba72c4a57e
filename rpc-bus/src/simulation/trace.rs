//! What happened, in one number.

/// FNV-1a over what it is told, word by word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace(u64);

impl Trace {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn note(&mut self, words: [u64; 4]) {
        for word in words {
            // What is multiplied moves up only.
            self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn hash(self) -> u64 {
        self.0
    }
}
