//! Parts of Arrow arrays from bytes that nobody vouches for: checked here, once, by wide operations.
//!
//! Arrow's own constructors check too, but value by value: text below 2 GB/s, offsets one branch each. What is checked
//! here goes to their unchecked forms, so nothing is read twice.
//!
//! # Why this is sound
//!
//! This is the crate's only module with `unsafe` code, three calls of which each stands behind the checks that its
//! contract asks for, in the same function. What was checked cannot change afterwards: a [`Bytes`] never moves or
//! changes its bytes, and [`Buffer`]s made of one, or of a vector, are as immutable.
//!
//! Miri agrees: `MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p record-batch --lib checked`.
#![allow(unsafe_code, reason = "three calls, each behind its checks; see above")]

use std::{ops::Range, ptr::NonNull, sync::Arc};

use arrow::{
    array::StringArray,
    buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
};
use bytes::Bytes;

use crate::error::VectorError;

/// A body, or a piece of it from which buffers are taken in wire order.
#[derive(Clone, Copy)]
pub(crate) struct Region<'a> {
    owner: &'a Arc<Bytes>,
    /// Always a part of `owner`: nothing outside of this module makes one.
    bytes: &'a [u8],
}

impl<'a> Region<'a> {
    pub(crate) fn new(body: &'a Arc<Bytes>) -> Self {
        Self {
            owner: body,
            bytes: body,
        }
    }

    /// Takes the next `needed` bytes.
    pub(crate) fn take(&mut self, needed: usize) -> Result<Self, VectorError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(needed) else {
            let available = self.bytes.len();
            return Err(VectorError::Truncated { needed, available });
        };
        self.bytes = rest;
        Ok(Self {
            bytes: taken,
            ..*self
        })
    }

    /// The bytes of `range`, if there are such.
    pub(crate) fn get(&self, range: Range<usize>) -> Option<Self> {
        let bytes = self.bytes.get(range)?;
        Some(Self { bytes, ..*self })
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes as a buffer of their own: Arrow then counts them, not the whole body's. All buffers of a body share
    /// what keeps it alive.
    pub(crate) fn share(&self) -> Buffer {
        let start = NonNull::from(self.bytes).cast();
        // SAFETY: `bytes` is a part of the memory of `owner`, and as valid and immutable as that for as long as the
        // `Bytes` behind the `Arc` lives, which the buffer now holds.
        unsafe { Buffer::from_custom_allocation(start, self.bytes.len(), self.owner.clone()) }
    }
}

/// Offsets that start at 0 and never run backwards. Otherwise the row whose start or end is wrong.
pub(crate) fn offsets(offsets: ScalarBuffer<i32>) -> Result<OffsetBuffer<i32>, usize> {
    if offsets.first() != Some(&0) {
        return Err(0);
    }
    if !is_ascending(&offsets) {
        let backwards = |pair: &[i32; 2]| pair[0] > pair[1];
        return Err(offsets.array_windows().position(backwards).unwrap_or(0));
    }
    // SAFETY: there is at least one offset, none is below 0, and each is at least as large as the one before.
    Ok(unsafe { OffsetBuffer::new_unchecked(offsets) })
}

/// Whether `offsets` start at or above 0 and never run backwards. One sign bit collects all answers: as long as none
/// is negative, and that is collected as well, no difference overflows.
fn is_ascending(offsets: &[i32]) -> bool {
    let later = offsets.get(1..).unwrap_or_default();
    let signs = offsets.iter().zip(later).fold(0, |signs, (&left, &right)| {
        signs | left | right | right.wrapping_sub(left)
    });
    signs >= 0
}

/// The rows that `offsets` cut out of `data`; `None` if `data` is not UTF-8 all over, also where rows are null, or
/// if a row begins within a character.
pub(crate) fn utf8(
    offsets: &OffsetBuffer<i32>,
    data: Buffer,
    nulls: Option<&NullBuffer>,
) -> Option<StringArray> {
    let rows = offsets.len() - 1;
    let is_whole = nulls.is_none_or(|nulls| nulls.len() == rows);
    if !is_whole || !is_text(offsets, &data) {
        return None;
    }
    // SAFETY: `offsets` ascend, by their type; `is_text` found the last of them, so all of them, within `data`, all of
    // `data` UTF-8, and every offset at the start of a character or at the end. There are as many rows in `nulls`.
    Some(unsafe { StringArray::new_unchecked(offsets.clone(), data, nulls.cloned()) })
}

fn is_text(offsets: &[i32], data: &[u8]) -> bool {
    let end = offsets.last().and_then(|&end| usize::try_from(end).ok());
    if end.is_none_or(|end| end > data.len()) {
        return false;
    }
    data.is_ascii() || simdutf8::basic::from_utf8(data).is_ok() && begin_characters(offsets, data)
}

/// Whether no offset is within a character; those at the end of `data` are not.
fn begin_characters(offsets: &[i32], data: &[u8]) -> bool {
    let continues = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
    let mut bytes = offsets
        .iter()
        .map(|offset| data.get(offset.cast_unsigned() as usize));
    bytes.all(|byte| !byte.is_some_and(continues))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[i32]) -> Result<Vec<i32>, usize> {
        offsets(ScalarBuffer::from(values.to_vec())).map(|offsets| offsets.to_vec())
    }

    #[test]
    fn offsets_begin_at_0_and_ascend() {
        for good in [&[0][..], &[0, 0], &[0, 3, 3, i32::MAX]] {
            assert_eq!(of(good), Ok(good.to_vec()));
        }
        assert_eq!(of(&[]), Err(0));
        assert_eq!(of(&[1]), Err(0));
        assert_eq!(of(&[-1, 2]), Err(0));
        assert_eq!(of(&[0, 2, 1]), Err(1));
        assert_eq!(of(&[0, -1]), Err(0));
        assert_eq!(of(&[0, i32::MAX, i32::MIN]), Err(1));
        assert_eq!(of(&[0, i32::MIN, i32::MAX]), Err(0));
    }

    #[test]
    fn one_wrong_offset_is_found_wherever_it_is() {
        for at in 1..70 {
            let mut values: Vec<i32> = (0..70).map(|row| 2 * row).collect();
            values[at] += 3;
            let expected = if at == 69 {
                Ok(values.clone())
            } else {
                Err(at)
            };
            assert_eq!(of(&values), expected);
        }
    }

    fn text(cuts: &[i32], data: &[u8]) -> Option<StringArray> {
        let offsets = offsets(ScalarBuffer::from(cuts.to_vec())).unwrap();
        utf8(&offsets, Buffer::from(data), None)
    }

    #[test]
    fn text_agrees_with_arrow_wherever_it_is_cut() {
        let datas: [&[u8]; 6] = [
            b"",
            b"abc",
            "a\u{fc}\u{4e2d}\u{1f600}z".as_bytes(),
            b"\xff",
            b"ab\xc3",
            b"\x80a",
        ];
        for data in datas {
            for start in 0..=data.len() + 1 {
                for end in start..=data.len() + 1 {
                    let cuts = [0, start, end].map(|cut| i32::try_from(cut).unwrap());
                    let offsets = OffsetBuffer::new(cuts.to_vec().into());
                    let arrows = StringArray::try_new(offsets, Buffer::from(data), None);
                    assert_eq!(text(&cuts, data), arrows.ok(), "{data:?} {cuts:?}");
                }
            }
        }
    }

    #[test]
    fn validity_of_another_length_is_refused() {
        let offsets = offsets(vec![0, 1].into()).unwrap();
        let nulls = NullBuffer::new_null(2);
        assert_eq!(utf8(&offsets, Buffer::from(b"a"), Some(&nulls)), None);
    }

    #[test]
    fn shared_buffers_keep_the_body_and_count_their_own_bytes() {
        let body = Arc::new(Bytes::from(vec![1, 2, 3, 4, 5]));
        let mut region = Region::new(&body);
        let first = region.take(2).unwrap().share();
        let rest = region.share();
        assert!(region.take(4).is_err());
        let start = body.as_ptr();
        drop(body);
        assert_eq!((&first[..], &rest[..]), (&[1, 2][..], &[3, 4, 5][..]));
        assert_eq!((first.as_ptr(), rest.capacity()), (start, 3));
    }
}
