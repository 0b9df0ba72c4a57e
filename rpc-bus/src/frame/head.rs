//! The small parts of a frame on their way out: collected here, then appended at once.

use super::{varint::VARINT64_BYTES_MAX, wire_i32};

/// Most bytes in front of a protobuf body: three lengths, three numbers, and their keys.
pub(crate) const HEAD_BYTES_MAX: usize = 6 * VARINT64_BYTES_MAX + 5;

/// The bytes in front of a body.
pub(super) struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    len: usize,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            bytes: [0; HEAD_BYTES_MAX],
            len: 0,
        }
    }
}

impl Head {
    pub(super) fn put(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    pub(super) fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.put((value & 0x7f) as u8);
    }

    pub(super) fn put_field(&mut self, key: u8, value: i32) {
        self.put(key);
        self.put_varint(wire_i32(value));
    }

    pub(super) fn put_len(&mut self, len: usize) {
        self.put_varint(len as u64);
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
