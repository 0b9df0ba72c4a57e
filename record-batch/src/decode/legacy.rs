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
use crate::{checked::Region, error::VectorError};

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
        MinorType::Decimal28sparse => sparse::<20, 5>(vector, data_type, body)?,
        MinorType::Decimal38sparse => sparse::<24, 6>(vector, data_type, body)?,
        _ => return Err(unsupported(vector)),
    };
    let array = Decimal128Array::new(values, nulls).with_data_type(data_type.clone());
    Ok(Arc::new(array))
}

fn widened<T: Copy + Into<i128>>(values: &[T]) -> ScalarBuffer<i128> {
    values.iter().map(|&value| value.into()).collect()
}

/// Digits base 10^9 in whole words, the most significant first. The fraction is padded at its end
/// to whole words, and the top bit of the first word is the sign.
// wire: drill@051b164 exec/vector/src/main/java/.../util/DecimalUtility.java
fn sparse<const BYTES: usize, const WORDS: usize>(
    vector: &Vector<'_>,
    data_type: &DataType,
    body: Region<'_>,
) -> Result<ScalarBuffer<i128>, VectorError> {
    const WORD_DIGITS: u32 = 9;
    let DataType::Decimal128(_, scale) = *data_type else {
        return Err(unsupported(vector));
    };
    let scale = u32::from(scale.unsigned_abs());
    let padding = scale.next_multiple_of(WORD_DIGITS) - scale;
    let last = LastWord {
        padding: 10_i128.pow(padding),
        digits: 10_i128.pow(WORD_DIGITS - padding),
    };
    let body = sized(vector.value_count.saturating_mul(BYTES), body)?;
    let (slots, _) = body.bytes().as_chunks::<BYTES>();
    let values = slots
        .iter()
        .map(|slot| sparse_value(ints::<BYTES, WORDS>(slot), &last));
    Ok(values.collect())
}

/// Powers of ten for the padding in the last word, and for the digits before it.
struct LastWord {
    padding: i128,
    digits: i128,
}

/// Six words may hold more digits than an `i128`: those wrap, as nothing of 38 digits does.
fn sparse_value<const WORDS: usize>(words: [i32; WORDS], last_word: &LastWord) -> i128 {
    const BASE: i128 = 1_000_000_000;
    let mut digits = words.map(|word| i128::from(word & i32::MAX)).into_iter();
    let last = digits.next_back().unwrap_or(0) / last_word.padding;
    let rest = digits.fold(0_i128, |value, word| {
        value.wrapping_mul(BASE).wrapping_add(word)
    });
    let value = rest.wrapping_mul(last_word.digits).wrapping_add(last);
    if words[0] < 0 {
        value.wrapping_neg()
    } else {
        value
    }
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
        sparse_value(words, &last)
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
}
