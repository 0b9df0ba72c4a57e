//! VARDECIMAL values: big-endian two's complement, as few bytes as the value needs.
// wire: drill@051b164 exec/vector/src/main/codegen/templates/VariableLengthVectors.java

/// Bytes of the widest value that an `i128` holds.
pub(crate) const I128_BYTES: usize = size_of::<i128>();
/// Bytes of the widest value that an `i64` holds.
pub(crate) const I64_BYTES: usize = size_of::<i64>();
/// The first value that is too large for a decimal of 38 digits, Drill's most.
pub(crate) const LIMIT: u128 = 10_u128.pow(38);

/// Bytes that `value` takes: at least one, also for zero, as Java writes it.
#[inline]
pub(crate) fn len_i128(value: i128) -> u32 {
    let magnitude = value ^ (value >> 127);
    (128 - magnitude.leading_zeros()) / 8 + 1
}

/// As [`len_i128`].
#[inline]
pub(crate) fn len_i64(value: i64) -> u32 {
    let magnitude = value ^ (value >> 63);
    // With a bit at its end it is not zero, which some processors cannot count without a branch.
    (63 - ((magnitude << 1) | 1).leading_zeros()) / 8 + 1
}

/// Reads the rows that `offsets`, which ascend from 0, cut out of `data`; `longest` is the length of the longest. A row
/// without a byte is 0. Of one with more than 16, which only a null one may have, the last 16 are read.
pub(crate) fn read(data: &[u8], offsets: &[i32], longest: usize) -> Vec<i128> {
    let index = |offset: i32| offset.cast_unsigned() as usize;
    let rows = offsets.iter().zip(offsets.get(1..).unwrap_or_default());
    let rows = rows.map(|(&start, &end)| (index(start), index(end)));
    if longest <= I64_BYTES {
        return rows
            .map(|(start, end)| read_narrow(data, start, end))
            .collect();
    }
    rows.map(|(start, end)| read_wide(data, start, end))
        .collect()
}

/// Loads the eight bytes that end where the value does, and keeps its own of them: no branch on its length.
#[inline]
fn read_narrow(data: &[u8], start: usize, end: usize) -> i128 {
    let Some(last) = data.get(..end).and_then(<[u8]>::last_chunk) else {
        return read_at_start(&data[start..end]);
    };
    // No row is longer than the table; that the compiler sees it as well is what the remainder is for.
    let [mask, sign] = NARROW[(end - start) % NARROW.len()];
    i128::from(((i64::from_be_bytes(*last) & mask) ^ sign).wrapping_sub(sign))
}

/// As [`read_narrow`], with sixteen bytes.
#[inline]
fn read_wide(data: &[u8], start: usize, end: usize) -> i128 {
    let Some(last) = data.get(..end).and_then(<[u8]>::last_chunk) else {
        return read_at_start(&data[start..end]);
    };
    let [mask, sign] = WIDE[(end - start).min(I128_BYTES)];
    ((i128::from_be_bytes(*last) & mask) ^ sign).wrapping_sub(sign)
}

/// A value before which there are too few bytes to load that many at once.
#[cold]
fn read_at_start(bytes: &[u8]) -> i128 {
    let negative = bytes.first().is_some_and(|&first| first >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; I128_BYTES];
    wide[I128_BYTES - bytes.len()..].copy_from_slice(bytes);
    i128::from_be_bytes(wide)
}

/// By length: which bits are the value's, and which one of them is its sign.
const NARROW: [[i64; 2]; 16] = narrow_table();
const WIDE: [[i128; 2]; I128_BYTES + 1] = wide_table();

const fn narrow_table() -> [[i64; 2]; 16] {
    let mut table = [[0; 2]; 16];
    let mut len = 1;
    while len <= I64_BYTES {
        let unused = i64::BITS as usize - 8 * len;
        table[len] = [(u64::MAX >> unused).cast_signed(), 1 << (8 * len - 1)];
        len += 1;
    }
    table
}

const fn wide_table() -> [[i128; 2]; I128_BYTES + 1] {
    let mut table = [[0; 2]; I128_BYTES + 1];
    let mut len = 1;
    while len <= I128_BYTES {
        let unused = i128::BITS as usize - 8 * len;
        table[len] = [(u128::MAX >> unused).cast_signed(), 1 << (8 * len - 1)];
        len += 1;
    }
    table
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
    fn lengths_are_the_same_in_either_width() {
        for shift in 0..64 {
            for value in [i64::MAX >> shift, i64::MIN >> shift, 1 << shift] {
                assert_eq!(len_i64(value), len_i128(value.into()), "{value}");
            }
        }
    }

    /// Reads one row behind `lead` bytes.
    fn read_one(bytes: &[u8], lead: usize) -> i128 {
        let data = [vec![0xaa; lead].as_slice(), bytes].concat();
        let offsets = [0, lead, data.len()].map(|offset| i32::try_from(offset).unwrap());
        read(&data, &offsets, bytes.len())[1]
    }

    #[test]
    fn values_of_every_length_are_read_back_at_every_place() {
        for shift in 0..127 {
            for value in [1_i128 << shift, -(1_i128 << shift), (1_i128 << shift) - 1] {
                for lead in [0, 3, 16] {
                    assert_eq!(read_one(&write(value), lead), value);
                }
            }
        }
    }

    #[test]
    fn rows_of_any_lengths_are_read_together() {
        let values = [0, -1, i128::MAX, 1 << 70, i128::MIN, -300, i64::MIN.into()];
        let mut data = Vec::new();
        let mut offsets = vec![0];
        for value in values {
            data.extend(write(value));
            offsets.push(i32::try_from(data.len()).unwrap());
        }
        assert_eq!(read(&data, &offsets, 16), values);
    }

    #[test]
    fn no_bytes_are_zero_and_too_many_are_the_last() {
        assert_eq!(read(&[], &[0, 0], 0), [0]);
        assert_eq!(read(&[0xff; 20], &[0, 12, 12], 12), [-1, 0]);
        assert_eq!(read(&[0xff; 20], &[0, 8, 8], 8), [-1, 0]);
        let mut long = [0xff; 40];
        long[39] = 5;
        assert_eq!(read(&long, &[0, 40], 40), [-251]);
    }
}
