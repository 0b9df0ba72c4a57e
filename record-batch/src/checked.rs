//! Parts of Arrow arrays from bytes that nobody vouches for: checked here, once, by wide operations.
//!
//! Arrow's own constructors check too, but value by value: text below 2 GB/s, offsets one branch each. What is checked
//! here goes to their unchecked forms, so nothing is read twice.
//!
//! # Why this is sound
//!
//! This is the crate's only module with `unsafe` code, four calls of which each stands behind the checks that its
//! contract asks for, in the same function. What was checked cannot change afterwards: a [`Bytes`] never moves or
//! changes its bytes, and [`Buffer`]s made of one, or of a vector, are as immutable.
//!
//! Miri agrees: `MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p record-batch --lib checked`.
#![allow(unsafe_code, reason = "four calls, each behind its checks; see above")]

use std::{ops::Range, ptr::NonNull, sync::Arc};

use arrow::{
    array::{BinaryViewArray, ByteView, StringArray, StringViewArray},
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

/// Longer values stand outside of their view.
const INLINE_BYTES_MAX: u32 = 12;

/// The same rows as text; `None` if one of them is not UTF-8, also where it is null. Every byte is read once, however
/// many rows show it: one by one, a body of 16 MiB could have terabytes of text.
pub(crate) fn utf8_views(rows: BinaryViewArray) -> Option<StringViewArray> {
    let views = || rows.views().iter();
    let shows = |view: &&u128| ByteView::from(**view).length > INLINE_BYTES_MAX;
    let mut long: Vec<_> = views().filter(shows).map(|&view| Shown::of(view)).collect();
    long.sort_unstable();
    if !views().all(is_inline_text) || !are_text(&long, rows.data_buffers()) {
        return None;
    }
    // SAFETY: Arrow has made `rows`, so each view is within its buffer. Those that have their bytes in themselves are
    // UTF-8, and so is what each of the others shows.
    Some(unsafe { rows.to_string_view_unchecked() })
}

/// Whether a view that has its bytes in itself has text in it; any other view will do.
fn is_inline_text(view: &u128) -> bool {
    let bytes = view.to_le_bytes();
    let len = ByteView::from(*view).length;
    len > INLINE_BYTES_MAX
        || bytes
            .get(4..4 + len as usize)
            .is_some_and(|text| str::from_utf8(text).is_ok())
}

/// What a view shows of a buffer; in the order in which the buffers have it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shown {
    buffer: u32,
    start: u32,
    len: u32,
}

impl Shown {
    fn of(view: u128) -> Self {
        let view = ByteView::from(view);
        Self {
            buffer: view.buffer_index,
            start: view.offset,
            len: view.length,
        }
    }

    fn end(self) -> u64 {
        u64::from(self.start) + u64::from(self.len)
    }
}

/// Whether all that is shown, in its order, is UTF-8. What overlaps or touches is so together if it is one by one, and
/// one by one if it is together and each begins and ends with a character.
fn are_text(shown: &[Shown], buffers: &[Buffer]) -> bool {
    let mut rest = shown;
    while let Some(first) = rest.first() {
        let mut end = first.end();
        let joined = rest.iter().take_while(|next| {
            let joins = next.buffer == first.buffer && u64::from(next.start) <= end;
            end = if joins { end.max(next.end()) } else { end };
            joins
        });
        let (together, others) = rest.split_at(joined.count());
        let text = buffers
            .get(first.buffer as usize)
            .and_then(|buffer| buffer.get(first.start as usize..usize::try_from(end).ok()?))
            .and_then(|bytes| simdutf8::basic::from_utf8(bytes).ok());
        let is_whole = |next: &Shown| {
            let start = (next.start - first.start) as usize;
            text.is_some_and(|text| text.get(start..start + next.len as usize).is_some())
        };
        if !together.iter().all(is_whole) {
            return false;
        }
        rest = others;
    }
    true
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

    /// Views of `data`, which is too long to stand in one.
    fn shown(data: &[u8], ranges: &[(usize, usize)]) -> BinaryViewArray {
        let views = ranges.iter().map(|&(start, end)| {
            let offset = u32::try_from(start).unwrap();
            arrow::array::make_view(&data[start..end], 0, offset)
        });
        let views: Vec<_> = views.collect();
        BinaryViewArray::try_new(views.into(), vec![Buffer::from(data)], None).unwrap()
    }

    #[test]
    fn views_agree_with_arrow_wherever_they_are() {
        let texts = "0123456789\u{fc}\u{4e2d}abcdefghij\u{1f600}klmnopq".as_bytes();
        let broken = [texts, b"\xff", texts].concat();
        // Miri is slow.
        let step = if cfg!(miri) { 7 } else { 1 };
        for data in [texts, &broken] {
            for start in (0..data.len()).step_by(step) {
                for end in (start..=data.len()).step_by(step) {
                    // Alone, within a longer one, beside one that it overlaps, and twice.
                    for ranges in [
                        &[(start, end)][..],
                        &[(start, end), (0, texts.len())],
                        &[(texts.len() - 20, texts.len()), (start, end)],
                        &[(0, 14), (start, end), (start, end)],
                    ] {
                        let rows = shown(data, ranges);
                        let arrows = rows.clone().to_string_view();
                        assert_eq!(utf8_views(rows), arrows.ok(), "{ranges:?}");
                    }
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
