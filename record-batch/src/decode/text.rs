//! Text: checked before anybody can see it, but only where a row is present.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringBuilder},
    buffer::{NullBuffer, OffsetBuffer},
};

use super::variable::index;
use crate::{
    checked::{self, Region},
    error::VectorError,
};

/// VARCHAR. The data is shared with the body unless a null row hides bytes that are not UTF-8:
/// then the present rows are copied, because an Arrow string array must be valid all over.
pub(super) fn utf8(
    offsets: &OffsetBuffer<i32>,
    data: Region<'_>,
    nulls: Option<&NullBuffer>,
) -> Result<ArrayRef, VectorError> {
    match checked::utf8(offsets, data.share(), nulls) {
        Some(array) => Ok(Arc::new(array)),
        None => rebuilt(offsets, nulls, data.bytes(), |bytes| {
            std::str::from_utf8(bytes).ok()
        }),
    }
}

/// VAR16CHAR: big-endian unless a byte order mark says otherwise, as Java's `UTF_16` reads it.
pub(super) fn utf16(
    offsets: &OffsetBuffer<i32>,
    data: &[u8],
    nulls: Option<&NullBuffer>,
) -> Result<ArrayRef, VectorError> {
    rebuilt(offsets, nulls, data, utf16_text)
}

fn utf16_text(bytes: &[u8]) -> Option<String> {
    let (units, []) = bytes.as_chunks::<2>() else {
        return None;
    };
    let text = match units {
        [[0xff, 0xfe], units @ ..] => decode_units(units, u16::from_le_bytes),
        [[0xfe, 0xff], units @ ..] | units => decode_units(units, u16::from_be_bytes),
    };
    text.ok()
}

fn decode_units(
    units: &[[u8; 2]],
    unit: fn([u8; 2]) -> u16,
) -> Result<String, std::char::DecodeUtf16Error> {
    char::decode_utf16(units.iter().map(|&bytes| unit(bytes))).collect()
}

fn rebuilt<'a, S: AsRef<str>>(
    offsets: &OffsetBuffer<i32>,
    nulls: Option<&NullBuffer>,
    data: &'a [u8],
    text: impl Fn(&'a [u8]) -> Option<S>,
) -> Result<ArrayRef, VectorError> {
    let mut builder = StringBuilder::with_capacity(offsets.len() - 1, data.len());
    for (row, &[start, end]) in offsets.array_windows().enumerate() {
        if nulls.is_some_and(|nulls| nulls.is_null(row)) {
            builder.append_null();
        } else {
            let bytes = &data[index(start)..index(end)];
            builder.append_value(text(bytes).ok_or(VectorError::Text { row })?);
        }
    }
    Ok(Arc::new(builder.finish()))
}
