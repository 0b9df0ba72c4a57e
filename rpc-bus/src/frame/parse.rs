//! The parts of a frame, read from a slice that may still be growing.
//!
//! Every function takes the bytes that are there and how many the frame has; `None` means that more must arrive. Offsets
//! in errors are offsets in the stream: `base` is that of the slice's first byte.

use protos::rpc::RpcMode;

use super::{
    COORDINATION_ID_KEY, CoordinationId, FRAME_BYTES_LIMIT, FrameError, FrameErrorKind,
    HEADER_BYTES_MAX, Header, MODE_KEY, Part, RPC_TYPE_KEY,
    varint::{VARINT32_BYTES_MAX, VARINT64_BYTES_MAX, Varint, peek_varint},
};

/// A length prefix.
pub(super) struct Prefix {
    /// Bytes of the prefix itself.
    pub(super) len: usize,
    /// Bytes of the frame behind it.
    pub(super) frame_len: usize,
}

/// Everything up to the protobuf body.
pub(super) struct Head {
    pub(super) header: Header,
    /// Where the protobuf body starts in the slice.
    pub(super) pbody_at: usize,
    pub(super) pbody_len: usize,
}

/// Key and length of a part.
struct PartHead {
    /// Bytes of key and length.
    len: usize,
    part_len: usize,
}

/// Reads a length prefix and holds it against the limit.
pub(super) fn prefix(input: &[u8], max: usize, base: u64) -> Result<Option<Prefix>, FrameError> {
    let Some((value, len)) = varint32(input, base)? else {
        return Ok(None);
    };
    // Drill reads it as an int and refuses what is not positive.
    let actual = value.cast_signed();
    if actual <= 0 {
        return Err(FrameErrorKind::Length { actual }.at(base));
    }
    let frame_len = value as usize;
    let expected_max = max.min(FRAME_BYTES_LIMIT);
    if frame_len > expected_max {
        return Err(FrameErrorKind::TooLong {
            actual: frame_len,
            expected_max,
        }
        .at(base));
    }
    Ok(Some(Prefix { len, frame_len }))
}

/// Reads the header, and key and length of the protobuf body. `input` starts behind the length prefix.
pub(super) fn head(input: &[u8], frame_len: usize, base: u64) -> Result<Option<Head>, FrameError> {
    let first = part_head(Part::Header, input, frame_len, base);
    let Some(first) = first.map_err(|error| recognise_tls(error, frame_len))? else {
        return Ok(None);
    };
    if first.part_len > HEADER_BYTES_MAX {
        let kind = FrameErrorKind::PartLength {
            part: Part::Header,
            actual: first.part_len,
            expected_max: HEADER_BYTES_MAX,
        };
        return Err(kind.at(base + 1));
    }
    let header_end = first.len + first.part_len;
    let Some(header_bytes) = input.get(first.len..header_end) else {
        return Ok(None);
    };
    let header = header(header_bytes, base + first.len as u64)?;
    let rest = &input[header_end..];
    let rest_base = base + header_end as u64;
    let second = part_head(Part::Pbody, rest, frame_len - header_end, rest_base)?;
    Ok(second.map(|second| Head {
        header,
        pbody_at: header_end + second.len,
        pbody_len: second.part_len,
    }))
}

/// A stream that begins with the type of a TLS record and the first byte of its version has a name of its own.
fn recognise_tls(error: FrameError, frame_len: usize) -> FrameError {
    /// Alert and handshake, RFC 8446 section 5.1.
    const RECORD_TYPES: [usize; 2] = [21, 22];
    let is_version = matches!(
        error.kind,
        FrameErrorKind::Key {
            actual: Some(3),
            ..
        }
    );
    if is_version && error.offset == 1 && RECORD_TYPES.contains(&frame_len) {
        return FrameErrorKind::TlsRecord.at(0);
    }
    error
}

/// Reads key and length of the raw body, which must reach to the end of the frame; returns where it starts and its length.
pub(super) fn dbody_head(
    input: &[u8],
    frame_len: usize,
    base: u64,
) -> Result<Option<(usize, usize)>, FrameError> {
    let Some(found) = part_head(Part::Dbody, input, frame_len, base)? else {
        return Ok(None);
    };
    let expected = frame_len - found.len;
    if found.part_len != expected {
        return Err(FrameErrorKind::DbodyLength {
            expected,
            actual: found.part_len,
        }
        .at(base + 1));
    }
    Ok(Some((found.len, found.part_len)))
}

/// A frame whose bytes are all there.
pub(super) struct Parts<'a> {
    pub(super) header: Header,
    pub(super) pbody: &'a [u8],
    pub(super) dbody: &'a [u8],
}

/// Splits a whole frame, its length prefix excluded.
pub(super) fn whole(frame: &[u8], base: u64) -> Result<Parts<'_>, FrameError> {
    let truncated = || FrameErrorKind::Truncated { expected: 1 }.at(base + frame.len() as u64);
    let head = head(frame, frame.len(), base)?.ok_or_else(truncated)?;
    let (front, tail) = frame.split_at(head.pbody_at + head.pbody_len);
    let mut parts = Parts {
        header: head.header,
        pbody: &front[head.pbody_at..],
        dbody: &[],
    };
    if !tail.is_empty() {
        let (at, _) =
            dbody_head(tail, tail.len(), base + front.len() as u64)?.ok_or_else(truncated)?;
        parts.dbody = &tail[at..];
    }
    Ok(parts)
}

/// Checks what has arrived of a frame, so that garbage is refused at its first wrong byte.
pub(super) fn partial(input: &[u8], frame_len: usize, base: u64) -> Result<(), FrameError> {
    let Some(head) = head(input, frame_len, base)? else {
        return Ok(());
    };
    let pbody_end = head.pbody_at + head.pbody_len;
    match input.get(pbody_end..) {
        Some(tail) if pbody_end < frame_len => {
            dbody_head(tail, frame_len - pbody_end, base + pbody_end as u64).map(drop)
        }
        _ => Ok(()),
    }
}

#[inline]
// `left`: bytes from the start of `input` to the end of the frame, whether they have arrived or not.
fn part_head(
    part: Part,
    input: &[u8],
    left: usize,
    base: u64,
) -> Result<Option<PartHead>, FrameError> {
    let input = &input[..input.len().min(left)];
    let whole = input.len() == left;
    let Some(&key) = input.first() else {
        let error = FrameErrorKind::Key {
            expected: part,
            actual: None,
        }
        .at(base);
        return if whole { Err(error) } else { Ok(None) };
    };
    if key != part.key() {
        return Err(FrameErrorKind::Key {
            expected: part,
            actual: Some(key),
        }
        .at(base));
    }
    let Some((value, len)) = varint32(&input[1..], base + 1)? else {
        let error = FrameErrorKind::Truncated { expected: 1 }.at(base + left as u64);
        return if whole { Err(error) } else { Ok(None) };
    };
    let (part_len, len) = (value as usize, 1 + len);
    let expected_max = left - len;
    if part_len > expected_max {
        return Err(FrameErrorKind::PartLength {
            part,
            actual: part_len,
            expected_max,
        }
        .at(base + 1));
    }
    Ok(Some(PartHead { len, part_len }))
}

fn varint32(input: &[u8], base: u64) -> Result<Option<(u32, usize)>, FrameError> {
    match peek_varint(input, VARINT32_BYTES_MAX) {
        // The bits above 32 of a fifth byte are dropped, as Drill drops them.
        Varint::Whole { value, len } => Ok(Some((low_32_bits(value), len))),
        Varint::Partial => Ok(None),
        Varint::TooLong => Err(FrameErrorKind::Varint {
            expected_max: VARINT32_BYTES_MAX,
        }
        .at(base)),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "that is the point")]
fn low_32_bits(value: u64) -> u32 {
    value as u32
}

/// Reads the fields of `RpcHeader`: any order, any missing, the last of a kind wins, unknown ones are skipped.
// wire: golden/raw: "header fields reordered" and "header without mode" are answered
fn header(input: &[u8], base: u64) -> Result<Header, FrameError> {
    match usual_header(input) {
        Some(header) => Ok(header),
        None => any_header(input, base),
    }
}

/// Three fields in the order in which Drill writes them, and nothing else; `None` for what is not like that.
fn usual_header(input: &[u8]) -> Option<Header> {
    let [MODE_KEY, mode, COORDINATION_ID_KEY, rest @ ..] = input else {
        return None;
    };
    let (coordination_id, rest) = split_int32(rest)?;
    let (&RPC_TYPE_KEY, rest) = rest.split_first()? else {
        return None;
    };
    let (rpc_type, rest) = split_int32(rest)?;
    let mode = RpcMode::try_from(i32::from(*mode)).ok()?;
    rest.is_empty().then_some(Header {
        mode,
        coordination_id: CoordinationId(coordination_id),
        rpc_type,
    })
}

fn split_int32(input: &[u8]) -> Option<(i32, &[u8])> {
    match peek_varint(input, VARINT64_BYTES_MAX) {
        Varint::Whole { value, len } => Some((low_32_bits(value).cast_signed(), input.get(len..)?)),
        Varint::Partial | Varint::TooLong => None,
    }
}

fn any_header(input: &[u8], base: u64) -> Result<Header, FrameError> {
    let (mut mode, mut coordination_id, mut rpc_type) = (0, 0, 0);
    let mut fields = Fields { input, at: 0, base };
    while let Some((key, at)) = fields.next_key()? {
        match key {
            key if key == u64::from(MODE_KEY) => mode = fields.int32()?,
            key if key == u64::from(COORDINATION_ID_KEY) => coordination_id = fields.int32()?,
            key if key == u64::from(RPC_TYPE_KEY) => rpc_type = fields.int32()?,
            _ => fields.skip(key, at)?,
        }
    }
    Ok(Header {
        mode: RpcMode::try_from(mode)
            .map_err(|_| FrameErrorKind::Mode { actual: mode }.at(base))?,
        coordination_id: CoordinationId(coordination_id),
        rpc_type,
    })
}

struct Fields<'a> {
    input: &'a [u8],
    at: usize,
    base: u64,
}

impl Fields<'_> {
    fn next_key(&mut self) -> Result<Option<(u64, u64)>, FrameError> {
        if self.at == self.input.len() {
            return Ok(None);
        }
        let at = self.offset();
        Ok(Some((self.varint()?, at)))
    }

    // Protobuf keeps the low 32 bits.
    fn int32(&mut self) -> Result<i32, FrameError> {
        Ok(low_32_bits(self.varint()?).cast_signed())
    }

    fn varint(&mut self) -> Result<u64, FrameError> {
        match peek_varint(&self.input[self.at..], VARINT64_BYTES_MAX) {
            Varint::Whole { value, len } => {
                self.at += len;
                Ok(value)
            }
            Varint::Partial => Err(self.truncated(1)),
            Varint::TooLong => {
                let kind = FrameErrorKind::Varint {
                    expected_max: VARINT64_BYTES_MAX,
                };
                Err(kind.at(self.offset()))
            }
        }
    }

    fn skip(&mut self, key: u64, key_at: u64) -> Result<(), FrameError> {
        let wire_type = key & 7;
        let len = match wire_type {
            0 => return self.varint().map(drop),
            1 => 8,
            2 => usize::try_from(self.varint()?).unwrap_or(usize::MAX),
            5 => 4,
            _ => return Err(FrameErrorKind::HeaderField { actual: key }.at(key_at)),
        };
        let left = self.input.len() - self.at;
        if len > left {
            return Err(self.truncated(len - left));
        }
        self.at += len;
        Ok(())
    }

    fn truncated(&self, expected: usize) -> FrameError {
        FrameErrorKind::Truncated { expected }.at(self.base + self.input.len() as u64)
    }

    fn offset(&self) -> u64 {
        self.base + self.at as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_of(bytes: &[u8]) -> Result<(i32, i32, i32), FrameErrorKind> {
        header(bytes, 0)
            .map(|h| (h.mode as i32, h.coordination_id.0, h.rpc_type))
            .map_err(|error| error.kind)
    }

    /// What is read at once reads the same field by field; one changed byte is enough for any way to differ.
    #[test]
    fn the_usual_header_is_read_as_any_other() {
        let usual = [0x08, 1, 0x10, 0xac, 0x02, 0x18, 0x83, 0x01];
        assert!(usual_header(&usual).is_some());
        for (at, byte) in (0..usual.len()).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
            let mut changed = usual;
            changed[at] = byte;
            for changed in [&changed[..], &changed[..at]] {
                if let Some(header) = usual_header(changed) {
                    assert_eq!(any_header(changed, 0), Ok(header), "{changed:?}");
                }
            }
        }
    }

    #[test]
    fn header_fields_may_come_in_any_order_or_not_at_all() {
        assert_eq!(header_of(&[0x18, 3, 0x10, 2, 0x08, 1]), Ok((1, 2, 3)));
        assert_eq!(header_of(&[0x10, 2]), Ok((0, 2, 0)));
        assert_eq!(header_of(&[]), Ok((0, 0, 0)));
    }

    #[test]
    fn the_last_of_two_equal_fields_wins() {
        assert_eq!(header_of(&[0x10, 2, 0x10, 9]), Ok((0, 9, 0)));
    }

    #[test]
    fn fields_of_later_versions_are_skipped() {
        let unknown = [
            0x20, 5, 0x2a, 2, 1, 1, 0x35, 0, 0, 0, 0, 0x39, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 4,
        ];
        assert_eq!(header_of(&unknown), Ok((0, 4, 0)));
    }

    #[test]
    fn headers_that_are_no_protobuf_are_refused() {
        assert_eq!(
            header_of(&[0x10]),
            Err(FrameErrorKind::Truncated { expected: 1 })
        );
        assert_eq!(
            header_of(&[0x2a, 9, 1]),
            Err(FrameErrorKind::Truncated { expected: 8 })
        );
        assert_eq!(
            header_of(&[0x0b]),
            Err(FrameErrorKind::HeaderField { actual: 0x0b })
        );
        assert_eq!(
            header_of(&[0x08, 5]),
            Err(FrameErrorKind::Mode { actual: 5 })
        );
        assert!(matches!(
            header_of(&[0xff; 12]),
            Err(FrameErrorKind::Varint { .. })
        ));
    }
}
