//! Protobuf's variable-length integers.

/// Longest varint of 32 bits.
pub(super) const VARINT32_BYTES_MAX: usize = 5;
/// Longest varint of 64 bits.
pub(super) const VARINT64_BYTES_MAX: usize = 10;

/// What the bytes at the front are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Varint {
    /// A number, and how many bytes it took.
    Whole { value: u64, len: usize },
    /// The start of a number.
    Partial,
    /// More bytes than a number may have.
    TooLong,
}

/// Reads a varint of at most `len_max` bytes; it need not be minimal.
#[inline]
pub(super) fn peek_varint(input: &[u8], len_max: usize) -> Varint {
    match input.first() {
        // Most are this short.
        Some(&byte) if byte < 0x80 => Varint::Whole {
            value: u64::from(byte),
            len: 1,
        },
        _ => peek_long_varint(input, len_max),
    }
}

fn peek_long_varint(input: &[u8], len_max: usize) -> Varint {
    let mut value = 0_u64;
    for (index, &byte) in input.iter().take(len_max).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Varint::Whole {
                value,
                len: index + 1,
            };
        }
    }
    if input.len() < len_max {
        Varint::Partial
    } else {
        Varint::TooLong
    }
}

pub(super) fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::head::Head;

    #[test]
    fn written_numbers_read_back_with_their_length() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                let mut wire = Head::default();
                wire.put_varint(value);
                let wire = wire.as_slice();
                assert_eq!(wire.len(), varint_len(value));
                assert_eq!(
                    peek_varint(wire, VARINT64_BYTES_MAX),
                    Varint::Whole {
                        value,
                        len: wire.len()
                    }
                );
                assert_eq!(
                    peek_varint(&wire[..wire.len() - 1], VARINT64_BYTES_MAX),
                    Varint::Partial
                );
            }
        }
    }

    #[test]
    fn a_sixth_byte_is_too_long_for_32_bits() {
        assert_eq!(peek_varint(&[0x80; 5], VARINT32_BYTES_MAX), Varint::TooLong);
        assert_eq!(peek_varint(&[0x80; 4], VARINT32_BYTES_MAX), Varint::Partial);
    }
}
