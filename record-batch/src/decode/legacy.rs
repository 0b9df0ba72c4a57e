//! Drill's old decimals, which its readers still meet and its SQL no longer makes.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Decimal128Array},
    buffer::{NullBuffer, ScalarBuffer},
    datatypes::DataType,
};
use protos::common::MinorType;

use super::{
    fixed::{ints, scalars},
    vector::{Vector, sized, unsupported},
};
use crate::{checked::Region, decimal, error::VectorError};

pub(super) fn decimal(
    vector: &Vector<'_>,
    data_type: &DataType,
    nulls: Option<NullBuffer>,
    body: Region<'_>,
) -> Result<ArrayRef, VectorError> {
    let n = vector.value_count;
    let values: ScalarBuffer<i128> = match vector.minor {
        MinorType::Decimal9 => widened(&scalars::<i32>(n, body)?),
        MinorType::Decimal18 => widened(&scalars::<i64>(n, body)?),
        MinorType::Decimal28sparse => sparse::<20, 5>(vector, data_type, nulls.as_ref(), body)?,
        MinorType::Decimal38sparse => sparse::<24, 6>(vector, data_type, nulls.as_ref(), body)?,
        MinorType::Decimal28dense => dense::<12, 4>(vector, nulls.as_ref(), body)?,
        MinorType::Decimal38dense => dense::<16, 7>(vector, nulls.as_ref(), body)?,
        _ => return Err(unsupported(vector)),
    };
    let array = Decimal128Array::new(values, nulls).with_data_type(data_type.clone());
    Ok(Arc::new(array))
}

fn widened<T: Copy + Into<i128>>(values: &[T]) -> ScalarBuffer<i128> {
    values.iter().map(|&value| value.into()).collect()
}

const WORD_DIGITS: u32 = 9;
const BASE: i128 = 1_000_000_000;

/// Digits base 10^9 in whole words, the most significant first. The fraction is padded at its end
/// to whole words, and the top bit of the first word is the sign.
// wire: drill@051b164 exec/vector/src/main/java/.../util/DecimalUtility.java
fn sparse<const BYTES: usize, const WORDS: usize>(
    vector: &Vector<'_>,
    data_type: &DataType,
    nulls: Option<&NullBuffer>,
    body: Region<'_>,
) -> Result<ScalarBuffer<i128>, VectorError> {
    let DataType::Decimal128(_, scale) = *data_type else {
        return Err(unsupported(vector));
    };
    let scale = u32::from(scale.unsigned_abs());
    let padding = scale.next_multiple_of(WORD_DIGITS) - scale;
    let last = LastWord {
        padding: 10_i128.pow(padding),
        digits: 10_i128.pow(WORD_DIGITS - padding),
    };
    slots(vector, nulls, body, |slot| {
        sparse_value(ints::<BYTES, WORDS>(slot), &last)
    })
}

/// The values of slots of `BYTES` bytes. What has more than 38 digits is refused, unless it is null.
fn slots<const BYTES: usize>(
    vector: &Vector<'_>,
    nulls: Option<&NullBuffer>,
    body: Region<'_>,
    value: impl Fn(&[u8; BYTES]) -> Option<i128>,
) -> Result<ScalarBuffer<i128>, VectorError> {
    let body = sized(vector.value_count.saturating_mul(BYTES), body)?;
    let (slots, _) = body.bytes().as_chunks::<BYTES>();
    let values = slots.iter().enumerate().map(|(row, slot)| {
        let fits = value(slot).filter(|value| value.unsigned_abs() < decimal::LIMIT);
        match fits {
            None if nulls.is_some_and(|nulls| nulls.is_null(row)) => Ok(0),
            fits => fits.ok_or(VectorError::DecimalDigits { row }),
        }
    });
    values.collect()
}

/// Powers of ten for the padding in the last word, and for the digits before it.
struct LastWord {
    padding: i128,
    digits: i128,
}

/// Six words may hold more digits than an `i128`.
fn sparse_value<const WORDS: usize>(words: [i32; WORDS], last_word: &LastWord) -> Option<i128> {
    let mut digits = words.map(|word| i128::from(word & i32::MAX)).into_iter();
    let last = digits.next_back().unwrap_or(0) / last_word.padding;
    let rest = digits.try_fold(0_i128, |value, word| {
        value.checked_mul(BASE)?.checked_add(word)
    });
    let value = rest?.checked_mul(last_word.digits)?.checked_add(last)?;
    Some(if words[0] < 0 { -value } else { value })
}

/// Digits base 10^9 in 30 bits each, behind each other from the end of the slot, without padding. `FIRST` bits are left
/// for the most significant ones; the first bit of all is the sign.
// wire: drill@051b164 exec/vector/src/main/java/.../util/DecimalUtility.java
fn dense<const BYTES: usize, const FIRST: u32>(
    vector: &Vector<'_>,
    nulls: Option<&NullBuffer>,
    body: Region<'_>,
) -> Result<ScalarBuffer<i128>, VectorError> {
    slots(vector, nulls, body, |slot: &[u8; BYTES]| {
        Some(dense_value(slot, FIRST))
    })
}

/// At most 7 bits and four times 30: far from what an `i128` cannot hold.
fn dense_value(slot: &[u8], first: u32) -> i128 {
    const WORD_BITS: usize = 30;
    let bits = slot
        .iter()
        .fold(0_i128, |bits, &byte| bits << 8 | i128::from(byte));
    let words = 8 * slot.len() / WORD_BITS;
    let word = |at: usize, width: u32| bits >> (WORD_BITS * at) & ((1 << width) - 1);
    let value = (0..words)
        .rev()
        .fold(word(words, first), |value, at| value * BASE + word(at, 30));
    if slot[0] >= 0x80 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(words: [i32; 6], scale: u32) -> i128 {
        let padding = scale.next_multiple_of(9) - scale;
        let last = LastWord {
            padding: 10_i128.pow(padding),
            digits: 10_i128.pow(9 - padding),
        };
        sparse_value(words, &last).unwrap()
    }

    #[test]
    fn sparse_digits_are_base_a_billion_with_a_padded_fraction() {
        assert_eq!(value([0, 0, 0, 0, 1, 234_000_000], 3), 1_234);
        assert_eq!(value([0, 0, 0, 0, 0, 7], 0), 7);
        assert_eq!(value([i32::MIN, 0, 0, 0, 1, 500_000_000], 1), -15);
        let billions = [
            0,
            999_999_999,
            999_999_999,
            999_999_999,
            999_999_999,
            990_000_000,
        ];
        assert_eq!(value(billions, 38), 10_i128.pow(38) - 1);
    }

    /// The slots and values are those of Drill's own class, asked for the decimal in a slot.
    #[test]
    fn dense_digits_are_packed_from_the_end() {
        let slot = |hex: &str| -> Vec<u8> {
            let digits = hex.as_bytes().chunks(2);
            let byte = |pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
            digits.map(byte).collect()
        };
        for (hex, expected) in [
            ("0000000000000000000004d2", 1234),
            ("80000000000000000000000f", -15),
            ("27b9ac9ffee6b27ffb9ac9ff", 10_i128.pow(28) - 1),
            ("a7b9ac9ffee6b27ffb9ac9ff", 1 - 10_i128.pow(28)),
            (
                "44dfb38d21d6f34540bc614e",
                1_234_567_890_123_456_789_012_345_678,
            ),
        ] {
            assert_eq!(dense_value(&slot(hex), 4), expected, "{hex}");
        }
        for (hex, expected) in [
            ("8000000000000000000000000000000f", -15),
            ("63ee6b27ffb9ac9ffee6b27ffb9ac9ff", 10_i128.pow(38) - 1),
            (
                "8c526a90d4dfb38d21d6f34540bc614e",
                -12_345_678_901_234_567_890_123_456_789_012_345_678,
            ),
        ] {
            assert_eq!(dense_value(&slot(hex), 7), expected, "{hex}");
        }
    }

    #[test]
    fn more_digits_than_38_are_none() {
        let last = LastWord {
            padding: 1,
            digits: BASE,
        };
        assert_eq!(sparse_value([i32::MAX; 6], &last), None);
    }
}
