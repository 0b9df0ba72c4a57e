//! Variable-width vectors: offsets from 0, then the data from its first byte.

use arrow::{
    array::{Array, ArrayRef, AsArray, GenericByteArray, GenericByteViewArray, OffsetSizeTrait},
    buffer::{Buffer, NullBuffer, OffsetBuffer},
    datatypes::{ByteArrayType, ByteViewType, DataType},
};
use protos::{common::MinorType, shared::SerializedField};

use crate::{
    body::{Body, helper},
    error::EncodeProblem,
    names,
};

/// Writes VARCHAR, VAR16CHAR and VARBINARY from any of Arrow's byte arrays.
pub(super) fn bytes(
    minor: MinorType,
    array: &ArrayRef,
    nulls: Option<&NullBuffer>,
    body: &mut Body,
) -> Result<SerializedField, EncodeProblem> {
    if array.is_empty() {
        return Ok(no_offsets());
    }
    match array.data_type() {
        _ if minor == MinorType::Var16char => utf16(array, nulls, body),
        DataType::Utf8 => offset_bytes(array.as_string::<i32>(), body),
        DataType::LargeUtf8 => offset_bytes(array.as_string::<i64>(), body),
        DataType::LargeBinary => offset_bytes(array.as_binary::<i64>(), body),
        DataType::Utf8View => view_bytes(array.as_string_view(), nulls, body),
        DataType::BinaryView => view_bytes(array.as_binary_view(), nulls, body),
        DataType::FixedSizeBinary(_) => fixed_size(array, body),
        _ => offset_bytes(array.as_binary::<i32>(), body),
    }
}

/// wire: without values an offsets vector is empty, it has not even the first 0
pub(super) fn no_offsets() -> SerializedField {
    helper(names::OFFSETS, MinorType::Uint4, 0, 0)
}

fn offset_bytes<T: ByteArrayType>(
    array: &GenericByteArray<T>,
    body: &mut Body,
) -> Result<SerializedField, EncodeProblem> {
    let (start, end) = bounds(array.value_offsets());
    let field = push_offsets(array.offsets(), body)?;
    body.push(&array.values().slice_with_length(start, end - start));
    Ok(field)
}

fn bounds<O: OffsetSizeTrait>(offsets: &[O]) -> (usize, usize) {
    let at = |offset: Option<&O>| offset.map_or(0, |offset| offset.as_usize());
    (at(offsets.first()), at(offsets.last()))
}

/// Writes offsets as they are in memory if they already have Drill's form, else counted from 0.
pub(super) fn push_offsets<O: OffsetSizeTrait>(
    offsets: &OffsetBuffer<O>,
    body: &mut Body,
) -> Result<SerializedField, EncodeProblem> {
    if offsets.len() <= 1 {
        return Ok(no_offsets());
    }
    let (start, end) = bounds(offsets);
    let size = end - start;
    if i32::try_from(size).is_err() {
        return Err(EncodeProblem::TooLarge { size });
    }
    if start == 0 && !O::IS_LARGE {
        body.push(offsets.inner().inner());
    } else {
        body.push(&Buffer::from_vec(rebased(offsets, start)));
    }
    Ok(offsets_field(offsets.len()))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the last one was found to fit 31 bits"
)]
fn rebased<O: OffsetSizeTrait>(offsets: &[O], start: usize) -> Vec<u32> {
    offsets
        .iter()
        .map(|offset| (offset.as_usize() - start) as u32)
        .collect()
}

fn offsets_field(entries: usize) -> SerializedField {
    helper(
        names::OFFSETS,
        MinorType::Uint4,
        entries,
        entries * size_of::<u32>(),
    )
}

/// Offsets under construction.
pub(super) struct Offsets(pub(super) Vec<u32>);

impl Offsets {
    pub(super) fn with_rows(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self(offsets)
    }

    /// Ends a row where the data now ends. What is beyond 32 bits is refused by [`Self::push`].
    pub(super) fn end_row(&mut self, data_len: usize) {
        self.0.push(u32::try_from(data_len).unwrap_or(u32::MAX));
    }

    pub(super) fn push(
        self,
        size: usize,
        body: &mut Body,
    ) -> Result<SerializedField, EncodeProblem> {
        if i32::try_from(size).is_err() {
            return Err(EncodeProblem::TooLarge { size });
        }
        let field = offsets_field(self.0.len());
        body.push(&Buffer::from_vec(self.0));
        Ok(field)
    }
}

fn view_bytes<T: ByteViewType + ?Sized>(
    array: &GenericByteViewArray<T>,
    nulls: Option<&NullBuffer>,
    body: &mut Body,
) -> Result<SerializedField, EncodeProblem> {
    let rows = (0..array.len()).map(|row| present(nulls, row).then(|| array.value(row)));
    gathered(
        rows,
        array.total_bytes_len(),
        body,
        |data, value: &T::Native| {
            data.extend_from_slice(value.as_ref());
        },
    )
}

fn utf16(
    array: &ArrayRef,
    nulls: Option<&NullBuffer>,
    body: &mut Body,
) -> Result<SerializedField, EncodeProblem> {
    let text = array.as_string::<i32>();
    let rows = (0..text.len()).map(|row| present(nulls, row).then(|| text.value(row)));
    gathered(rows, 2 * text.values().len(), body, |data, value: &str| {
        data.extend(value.encode_utf16().flat_map(u16::to_be_bytes));
    })
}

fn gathered<V>(
    rows: impl ExactSizeIterator<Item = Option<V>>,
    capacity: usize,
    body: &mut Body,
    append: impl Fn(&mut Vec<u8>, V),
) -> Result<SerializedField, EncodeProblem> {
    let mut offsets = Offsets::with_rows(rows.len());
    let mut data = Vec::with_capacity(capacity);
    for value in rows {
        if let Some(value) = value {
            append(&mut data, value);
        }
        offsets.end_row(data.len());
    }
    let field = offsets.push(data.len(), body)?;
    body.push_vec(data);
    Ok(field)
}

pub(super) fn present(nulls: Option<&NullBuffer>, row: usize) -> bool {
    nulls.is_none_or(|nulls| nulls.is_valid(row))
}

fn fixed_size(array: &ArrayRef, body: &mut Body) -> Result<SerializedField, EncodeProblem> {
    let array = array.as_fixed_size_binary();
    let width = usize::try_from(array.value_length()).unwrap_or(0);
    let size = array.len().saturating_mul(width);
    let mut offsets = Offsets::with_rows(array.len());
    for row in 1..=array.len() {
        offsets.end_row(row * width);
    }
    let field = offsets.push(size, body)?;
    body.push_vec(array.value_data()[..size].to_vec());
    Ok(field)
}
