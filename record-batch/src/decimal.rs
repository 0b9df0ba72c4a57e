//! VARDECIMAL values: big-endian two's complement, as few bytes as the value needs.
// wire: drill@051b164 exec/vector/src/main/codegen/templates/VariableLengthVectors.java

/// Bytes of the widest value that an `i128` holds.
pub(crate) const I128_BYTES: usize = size_of::<i128>();
/// The first value that is too large for a decimal of 38 digits, Drill's most.
pub(crate) const LIMIT: u128 = 10_u128.pow(38);

/// Bytes that `value` takes: at least one, also for zero, as Java writes it.
#[inline]
pub(crate) fn len_i128(value: i128) -> u32 {
    let magnitude = value ^ (value >> 127);
    (128 - magnitude.leading_zeros()) / 8 + 1
}

/// Reads the value in `data[start..end]`, a range of at most 16 bytes inside `data`; without a
/// byte it is 0.
#[inline]
pub(crate) fn read(data: &[u8], start: usize, end: usize) -> i128 {
    let len = end - start;
    // The common case loads eight bytes that end where the value ends and shifts the others out.
    if len <= 8
        && let Some(last) = data[..end].last_chunk::<8>()
    {
        return i128::from(shifted(i64::from_be_bytes(*last), len));
    }
    read_wide(&data[start..end])
}

/// Keeps the low `len` bytes of `word`, 0 to 8 of them, with their sign.
#[inline]
fn shifted(word: i64, len: usize) -> i64 {
    // Two shifts, because a shift by all 64 bits is not defined.
    let shift = 64 - 8 * len;
    let half = shift / 2;
    ((word << half) << half) >> half >> half
}

fn read_wide(bytes: &[u8]) -> i128 {
    let negative = bytes.first().is_some_and(|&first| first >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; I128_BYTES];
    wide[I128_BYTES - bytes.len()..].copy_from_slice(bytes);
    i128::from_be_bytes(wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(value: i128) -> Vec<u8> {
        let len = len_i128(value) as usize;
        value.to_be_bytes()[I128_BYTES - len..].to_vec()
    }

    #[test]
    fn lengths_are_javas() {
        let cases = [
            (0, 1),
            (-1, 1),
            (127, 1),
            (128, 2),
            (-128, 1),
            (-129, 2),
            (32767, 2),
            (32768, 3),
            (i64::MAX.into(), 8),
            (i64::MIN.into(), 8),
        ];
        for (value, len) in cases {
            assert_eq!(len_i128(value), len, "{value}");
        }
        assert_eq!(len_i128(i128::from(i64::MAX) + 1), 9);
        assert_eq!(len_i128(i128::MIN), 16);
    }

    #[test]
    fn values_of_every_length_are_read_back_at_every_place() {
        for shift in 0..127 {
            for value in [1_i128 << shift, -(1_i128 << shift), (1_i128 << shift) - 1] {
                let bytes = write(value);
                for lead in [0, 3, 20] {
                    let mut data = vec![0xaa; lead];
                    data.extend(&bytes);
                    assert_eq!(read(&data, lead, data.len()), value);
                }
            }
        }
    }

    #[test]
    fn no_bytes_are_zero() {
        assert_eq!(read(&[], 0, 0), 0);
        assert_eq!(read(&[0xff; 20], 12, 12), 0);
    }
}
