//! The outgoing body: vectors in wire order, large ones shared with Arrow, small ones joined.

use std::ops::Range;

use arrow::buffer::Buffer;
use bytes::Bytes;
use protos::{
    common::{DataMode, MajorType, MinorType},
    shared::{NamePart, SerializedField},
};

use crate::drill_type::DrillType;

/// Buffers from this size are chained, smaller ones copied into a joined piece: a piece of its own
/// costs an allocation here and a slice in the socket's vectored write.
pub(crate) const SHARE_BYTES_MIN: usize = 4096;

/// Pieces of a body under construction.
#[derive(Default)]
pub(crate) struct Body {
    pieces: Vec<Piece>,
    /// All joined pieces, one after the other: one allocation for all of them.
    joined: Vec<u8>,
    /// Where the last of them begins, which is still growing.
    open: usize,
    len: usize,
}

enum Piece {
    Joined(Range<usize>),
    Shared(Bytes),
}

impl Body {
    /// A body that these buffers will be pushed to.
    pub(crate) fn for_buffers(buffers: &[Buffer]) -> Self {
        let lens = buffers.iter().map(Buffer::len);
        let joined = lens.filter(|&len| len < SHARE_BYTES_MIN).sum();
        Self {
            joined: Vec::with_capacity(joined),
            ..Self::default()
        }
    }

    /// A body that begins with `head`, in one allocation with `more` bytes that will be joined to it.
    pub(crate) fn beginning_with(head: &[u8], more: usize) -> Self {
        let mut joined = Vec::with_capacity(head.len() + more);
        joined.extend_from_slice(head);
        Self {
            joined,
            len: head.len(),
            ..Self::default()
        }
    }

    /// What the body began with.
    pub(crate) fn head_mut(&mut self) -> &mut [u8] {
        &mut self.joined
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends an Arrow buffer; a large one is referenced, and pinned until it is sent.
    pub(crate) fn push(&mut self, buffer: &Buffer) {
        if buffer.len() < SHARE_BYTES_MIN {
            self.copy(buffer);
        } else {
            self.share(Bytes::from_owner(SharedBuffer(buffer.clone())));
        }
    }

    /// Appends bytes made for the wire.
    pub(crate) fn push_vec(&mut self, bytes: Vec<u8>) {
        if bytes.len() < SHARE_BYTES_MIN {
            self.copy(&bytes);
        } else {
            self.share(Bytes::from(bytes));
        }
    }

    /// Appends `len` zero bytes.
    pub(crate) fn push_zeros(&mut self, len: usize) {
        if len < SHARE_BYTES_MIN {
            self.joined.resize(self.joined.len() + len, 0);
            self.len += len;
        } else {
            self.share(Bytes::from(vec![0; len]));
        }
    }

    /// The pieces in wire order; none for an empty body.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        self.close_joined();
        let joined = Bytes::from(self.joined);
        let pieces = self.pieces.into_iter().map(|piece| match piece {
            Piece::Joined(range) => joined.slice(range),
            Piece::Shared(bytes) => bytes,
        });
        pieces.collect()
    }

    fn copy(&mut self, bytes: &[u8]) {
        self.joined.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    fn share(&mut self, bytes: Bytes) {
        self.close_joined();
        self.len += bytes.len();
        self.pieces.push(Piece::Shared(bytes));
    }

    fn close_joined(&mut self) {
        let range = self.open..self.joined.len();
        self.open = range.end;
        if !range.is_empty() {
            self.pieces.push(Piece::Joined(range));
        }
    }
}

/// A descriptor whose numbers fit: the encoder checks once, at the end, that the whole batch is
/// below 2 GiB, which bounds every count and length in it.
pub(crate) fn descriptor(
    name: &str,
    drill: &DrillType,
    value_count: usize,
    buffer_length: usize,
    child: Vec<SerializedField>,
) -> SerializedField {
    described(
        name,
        MajorType::from(drill),
        value_count,
        buffer_length,
        child,
    )
}

/// The descriptor of a `$bits$`, `$offsets$` or `types` vector.
pub(crate) fn helper(
    name: &str,
    minor: MinorType,
    value_count: usize,
    buffer_length: usize,
) -> SerializedField {
    let major = MajorType {
        minor_type: Some(minor as i32),
        mode: Some(DataMode::Required as i32),
        ..MajorType::default()
    };
    described(name, major, value_count, buffer_length, Vec::new())
}

fn described(
    name: &str,
    major: MajorType,
    value_count: usize,
    buffer_length: usize,
    child: Vec<SerializedField>,
) -> SerializedField {
    SerializedField {
        major_type: Some(major),
        name_part: Some(NamePart {
            name: Some(name.to_owned()),
            ..NamePart::default()
        }),
        child,
        value_count: Some(saturating(value_count)),
        var_byte_length: None,
        buffer_length: Some(saturating(buffer_length)),
    }
}

/// Java's int; larger numbers never leave, see [`descriptor`].
pub(crate) fn saturating(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Lets `Bytes` own an Arrow buffer.
struct SharedBuffer(Buffer);

impl AsRef<[u8]> for SharedBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_are_shared_and_small_ones_joined() {
        let large = Buffer::from_vec(vec![7_u8; SHARE_BYTES_MIN]);
        let mut body = Body::default();
        body.push(&Buffer::from(&[1_u8, 2][..]));
        body.push_vec(vec![3]);
        body.push(&large);
        body.push_zeros(2);
        assert_eq!(body.len(), SHARE_BYTES_MIN + 5);
        let pieces = body.finish();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[0], &[1, 2, 3][..]);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        assert_eq!(pieces[2], &[0, 0][..]);
    }

    #[test]
    fn an_empty_body_has_no_pieces() {
        let mut body = Body::default();
        body.push_zeros(0);
        assert!(body.finish().is_empty());
    }
}
