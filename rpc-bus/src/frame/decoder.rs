//! Frames out of bytes as they arrive.
//!
//! Small frames are cut out of the caller's buffer, their bodies copied, so that nothing pins that buffer and an idle
//! connection owns none. The smallest are copied together, into blocks of a few KiB: one allocation holds the bodies of
//! many. What is missing of a small frame waits in `partial`. A frame above [`STAGED_FRAME_BYTES_MAX`] goes through
//! [`Large`], whose big bodies the caller can read into directly.

use std::{mem, sync::Arc};

use bytes::Bytes;
use thiserror::Error;

use super::{
    BodyPool, Frame, FrameError, HEADER_BYTES_MAX, Header, STAGED_FRAME_BYTES_MAX,
    body::{Body, SmallBody, UNCHARGED_BYTES_MAX},
    parse::{self, Prefix},
};
use crate::ledger::{BudgetExceeded, Charge, Kind, Ledger};

/// Most bytes from the header's key to the first byte of the protobuf body.
const HEAD_BYTES_MAX: usize = HEADER_BYTES_MAX + 12;
/// Most bytes from the raw body's key to its first byte.
const DBODY_HEAD_BYTES_MAX: usize = 6;
/// Most bytes of a block, which the body of a frame in it pins.
const BLOCK_BYTES_MAX: usize = UNCHARGED_BYTES_MAX;

/// Why decoding stopped for good.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// There is no memory for the frame.
    #[error(transparent)]
    Budget(#[from] BudgetExceeded),
}

/// Incremental decoder of one direction of one connection.
pub struct FrameDecoder {
    pool: Arc<BodyPool>,
    ledger: Ledger,
    frame_bytes_max: usize,
    /// Offset in the stream of the next byte that is not in a frame yet; bytes in `partial` are not counted.
    offset: u64,
    partial: Partial,
    large: Option<Large>,
}

impl FrameDecoder {
    /// Starts at the first byte of a stream. Large bodies come from `pool` and are charged to `ledger`.
    #[must_use]
    pub fn new(frame_bytes_max: usize, pool: Arc<BodyPool>, ledger: Ledger) -> Self {
        let partial = Partial {
            bytes: Vec::new(),
            charge: ledger.nothing(Kind::Bytes),
        };
        Self {
            pool,
            ledger,
            frame_bytes_max,
            offset: 0,
            partial,
            large: None,
        }
    }

    /// Changes the limit, in bytes, for frames whose length has not been read yet.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Takes all of `input` and appends the frames that it completes. The result does not depend on how a stream is cut.
    ///
    /// # Errors
    ///
    /// The stream is no Drill RPC, or a large body does not fit the budget. The decoder is of no use afterwards.
    pub fn feed(&mut self, input: &[u8], frames: &mut Vec<Frame>) -> Result<(), DecodeError> {
        self.feed_some(input, frames, usize::MAX).map(drop)
    }

    /// The same, but stops once there are `frames_enough` frames or a few hundred more. Returns how many bytes it took.
    ///
    /// # Errors
    ///
    /// As [`Self::feed`].
    pub fn feed_some(
        &mut self,
        mut input: &[u8],
        frames: &mut Vec<Frame>,
        frames_enough: usize,
    ) -> Result<usize, DecodeError> {
        let len = input.len();
        while !input.is_empty() && frames.len() < frames_enough {
            let used = if self.large.is_some() {
                self.feed_large(input, frames)?
            } else if self.partial.bytes.is_empty() {
                match self.feed_block(input, frames)? {
                    0 => self.feed_direct(input, frames)?,
                    used => used,
                }
            } else {
                self.feed_partial(input, frames)?
            };
            input = &input[used..];
        }
        Ok(len - input.len())
    }

    /// Where the next bytes of a large body belong; `None` if other bytes come next.
    ///
    /// # Errors
    ///
    /// The body has outgrown the budget.
    pub fn body_target(&mut self) -> Result<Option<&mut [u8]>, DecodeError> {
        match self.large.as_mut().and_then(Large::body_mut) {
            Some(body) => Ok(Some(body.target()?)),
            None => Ok(None),
        }
    }

    /// Notes that `bytes` were read into [`Self::body_target`].
    pub fn body_filled(&mut self, bytes: usize, frames: &mut Vec<Frame>) {
        let Some(large) = &mut self.large else { return };
        if let Some(body) = large.body_mut() {
            body.advance(bytes);
            self.offset += bytes as u64;
            large.left -= bytes;
        }
        self.take_whole(frames);
    }

    /// Whether the stream may end here.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.partial.bytes.is_empty() && self.large.is_none()
    }

    /// Takes the whole frames that fit a block; returns 0 if the first one is not whole or too long.
    fn feed_block(&mut self, input: &[u8], frames: &mut Vec<Frame>) -> Result<usize, DecodeError> {
        let input = &input[..input.len().min(BLOCK_BYTES_MAX)];
        let (mut block, mut used) = (Bytes::new(), 0);
        while let Some(prefix) = parse::prefix(&input[used..], self.frame_bytes_max, self.offset)? {
            let (start, end) = (used + prefix.len, used + prefix.len + prefix.frame_len);
            if end > input.len() {
                break;
            }
            if block.is_empty() {
                block = Bytes::copy_from_slice(input);
            }
            let parts = parse::whole(&block[start..end], self.offset + prefix.len as u64)?;
            frames.push(Frame {
                header: parts.header,
                pbody: block.slice_ref(parts.pbody),
                // Most have none, and that is known without a call.
                dbody: match parts.dbody {
                    [] => Bytes::new(),
                    dbody => block.slice_ref(dbody),
                },
            });
            self.offset += (end - used) as u64;
            used = end;
        }
        Ok(used)
    }

    fn feed_direct(&mut self, input: &[u8], frames: &mut Vec<Frame>) -> Result<usize, DecodeError> {
        let Some(prefix) = parse::prefix(input, self.frame_bytes_max, self.offset)? else {
            self.partial.extend(input)?;
            return Ok(input.len());
        };
        if prefix.frame_len > STAGED_FRAME_BYTES_MAX {
            self.begin_large(&prefix);
            return Ok(prefix.len);
        }
        let end = prefix.len + prefix.frame_len;
        if let Some(bytes) = input.get(..end) {
            frames.push(small_frame(bytes, &prefix, self.offset, &self.ledger)?);
            self.offset += end as u64;
            return Ok(end);
        }
        check_partial(input, &prefix, self.offset)?;
        self.partial.extend(input)?;
        Ok(input.len())
    }

    fn feed_partial(
        &mut self,
        input: &[u8],
        frames: &mut Vec<Frame>,
    ) -> Result<usize, DecodeError> {
        let missing = match parse::prefix(&self.partial.bytes, self.frame_bytes_max, self.offset)? {
            Some(prefix) => prefix.len + prefix.frame_len - self.partial.bytes.len(),
            None => 1,
        };
        let used = missing.min(input.len());
        self.partial.extend(&input[..used])?;
        let Some(prefix) = parse::prefix(&self.partial.bytes, self.frame_bytes_max, self.offset)?
        else {
            return Ok(used);
        };
        if prefix.frame_len > STAGED_FRAME_BYTES_MAX {
            // The prefix arrived byte by byte, so there is nothing behind it.
            self.partial.take();
            self.begin_large(&prefix);
        } else if self.partial.bytes.len() == prefix.len + prefix.frame_len {
            let bytes = self.partial.take();
            frames.push(small_frame(&bytes, &prefix, self.offset, &self.ledger)?);
            self.offset += bytes.len() as u64;
        } else {
            check_partial(&self.partial.bytes, &prefix, self.offset)?;
        }
        Ok(used)
    }

    fn begin_large(&mut self, prefix: &Prefix) {
        self.offset += prefix.len as u64;
        self.large = Some(Large {
            left: prefix.frame_len,
            state: LargeState::Head(Vec::new()),
        });
    }

    fn feed_large(&mut self, input: &[u8], frames: &mut Vec<Frame>) -> Result<usize, DecodeError> {
        let Some(large) = &mut self.large else {
            return Ok(0);
        };
        let used = large.feed(input, self.offset, &self.pool, &self.ledger)?;
        self.offset += used as u64;
        self.take_whole(frames);
        Ok(used)
    }

    fn take_whole(&mut self, frames: &mut Vec<Frame>) {
        if let Some(large) = self.large.take_if(Large::is_whole) {
            frames.extend(large.into_frame());
        }
    }
}

/// The start of a small frame.
struct Partial {
    bytes: Vec<u8>,
    charge: Charge,
}

impl Partial {
    fn extend(&mut self, more: &[u8]) -> Result<(), BudgetExceeded> {
        let len = self.bytes.len() + more.len();
        if len > self.bytes.capacity() {
            let capacity = len.max(2 * self.bytes.capacity());
            self.charge.resize(capacity)?;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    fn take(&mut self) -> Vec<u8> {
        self.charge.shrink(usize::MAX);
        mem::take(&mut self.bytes)
    }
}

fn small_frame(
    bytes: &[u8],
    prefix: &Prefix,
    offset: u64,
    ledger: &Ledger,
) -> Result<Frame, DecodeError> {
    let parts = parse::whole(&bytes[prefix.len..], offset + prefix.len as u64)?;
    Ok(Frame {
        header: parts.header,
        pbody: SmallBody::copy(parts.pbody, ledger)?,
        dbody: SmallBody::copy(parts.dbody, ledger)?,
    })
}

fn check_partial(bytes: &[u8], prefix: &Prefix, offset: u64) -> Result<(), FrameError> {
    parse::partial(
        &bytes[prefix.len..],
        prefix.frame_len,
        offset + prefix.len as u64,
    )
}

/// A frame too long to be staged.
///
/// `Head` -> `Pbody` -> whole, or -> `DbodyHead` -> `Dbody` -> whole
struct Large {
    /// Bytes of the frame that have not been used yet.
    left: usize,
    state: LargeState,
}

enum LargeState {
    Head(Vec<u8>),
    Pbody {
        header: Header,
        pbody: Arriving,
    },
    DbodyHead {
        header: Header,
        pbody: Bytes,
        head: Vec<u8>,
    },
    Dbody {
        header: Header,
        pbody: Bytes,
        dbody: Arriving,
    },
}

impl Large {
    fn feed(
        &mut self,
        input: &[u8],
        offset: u64,
        pool: &Arc<BodyPool>,
        ledger: &Ledger,
    ) -> Result<usize, DecodeError> {
        let used = match &mut self.state {
            LargeState::Head(seen) => {
                let before = stage(seen, input, HEAD_BYTES_MAX);
                // Offset and length as they were before the bytes of this head that are already used.
                let (base, frame_len) = (offset - before as u64, self.left + before);
                let Some(head) = parse::head(seen, frame_len, base)? else {
                    self.left -= seen.len() - before;
                    return Ok(seen.len() - before);
                };
                let pbody = Arriving::begin(head.pbody_len, pool, ledger)?;
                self.state = LargeState::Pbody {
                    header: head.header,
                    pbody,
                };
                head.pbody_at - before
            }
            LargeState::DbodyHead {
                header,
                pbody,
                head,
            } => {
                let before = stage(head, input, DBODY_HEAD_BYTES_MAX);
                let (base, left) = (offset - before as u64, self.left + before);
                let Some((at, len)) = parse::dbody_head(head, left, base)? else {
                    self.left -= head.len() - before;
                    return Ok(head.len() - before);
                };
                let dbody = Arriving::begin(len, pool, ledger)?;
                self.state = LargeState::Dbody {
                    header: *header,
                    pbody: mem::take(pbody),
                    dbody,
                };
                at - before
            }
            LargeState::Pbody { pbody: body, .. } | LargeState::Dbody { dbody: body, .. } => {
                body.feed(input)?
            }
        };
        self.left -= used;
        self.end_pbody();
        Ok(used)
    }

    // A protobuf body that is whole while bytes are left is followed by a raw body.
    fn end_pbody(&mut self) {
        let LargeState::Pbody { header, pbody } = &mut self.state else {
            return;
        };
        if pbody.is_whole() && self.left > 0 {
            let pbody = pbody.finish();
            self.state = LargeState::DbodyHead {
                header: *header,
                pbody,
                head: Vec::new(),
            };
        }
    }

    fn body_mut(&mut self) -> Option<&mut Body> {
        match &mut self.state {
            LargeState::Pbody {
                pbody: Arriving::Large(body),
                ..
            }
            | LargeState::Dbody {
                dbody: Arriving::Large(body),
                ..
            } => Some(body),
            _ => None,
        }
    }

    fn is_whole(&mut self) -> bool {
        self.end_pbody();
        self.left == 0
            && !matches!(
                self.state,
                LargeState::Head(_) | LargeState::DbodyHead { .. }
            )
    }

    fn into_frame(self) -> Option<Frame> {
        match self.state {
            LargeState::Pbody { header, mut pbody } => Some(Frame {
                header,
                pbody: pbody.finish(),
                dbody: Bytes::new(),
            }),
            LargeState::Dbody {
                header,
                pbody,
                mut dbody,
            } => Some(Frame {
                header,
                pbody,
                dbody: dbody.finish(),
            }),
            LargeState::Head(_) | LargeState::DbodyHead { .. } => None,
        }
    }
}

// Appends what may belong to a head, and returns how many bytes were there before.
fn stage(seen: &mut Vec<u8>, input: &[u8], bytes_max: usize) -> usize {
    let before = seen.len();
    seen.extend_from_slice(&input[..input.len().min(bytes_max - before)]);
    before
}

/// One body of a large frame. A small one beside a large one gets exactly its own memory.
enum Arriving {
    Small { body: SmallBody, len: usize },
    Large(Body),
}

impl Arriving {
    fn begin(len: usize, pool: &Arc<BodyPool>, ledger: &Ledger) -> Result<Self, BudgetExceeded> {
        if len <= STAGED_FRAME_BYTES_MAX {
            return Ok(Self::Small {
                body: SmallBody::begin(len, ledger)?,
                len,
            });
        }
        Ok(Self::Large(Body::begin(len, pool, ledger)?))
    }

    fn feed(&mut self, input: &[u8]) -> Result<usize, BudgetExceeded> {
        match self {
            Self::Small { body, len } => {
                let used = input.len().min(*len - body.len());
                body.extend(&input[..used]);
                Ok(used)
            }
            Self::Large(body) => {
                let target = body.target()?;
                let used = input.len().min(target.len());
                target[..used].copy_from_slice(&input[..used]);
                body.advance(used);
                Ok(used)
            }
        }
    }

    fn is_whole(&self) -> bool {
        match self {
            Self::Small { body, len } => body.len() == *len,
            Self::Large(body) => body.is_whole(),
        }
    }

    /// The body; what stays behind is of no use.
    fn finish(&mut self) -> Bytes {
        let empty = Self::Small {
            body: SmallBody::default(),
            len: 0,
        };
        match mem::replace(self, empty) {
            Self::Small { body, .. } => body.finish(),
            Self::Large(body) => body.finish(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use protos::rpc::RpcMode;

    use super::*;
    use crate::{
        frame::{CoordinationId, FrameErrorKind, Part, Walk, body::BodyPoolOptions, encode},
        ledger::Limits,
    };

    const MAX: usize = 1 << 20;

    fn decoder_in(ledger: &Ledger) -> FrameDecoder {
        FrameDecoder::new(
            MAX,
            BodyPool::new(BodyPoolOptions::default()),
            ledger.clone(),
        )
    }

    fn decoder() -> FrameDecoder {
        decoder_in(&Ledger::root("test", Limits::default()))
    }

    fn frame(id: i32, pbody: usize, dbody: usize) -> Vec<u8> {
        let header = Header {
            mode: RpcMode::Request,
            coordination_id: CoordinationId(id),
            rpc_type: 6,
        };
        let mut wire = Vec::new();
        encode(&header, &vec![1; pbody], &vec![2; dbody], &mut wire);
        wire
    }

    fn feed(pieces: &[&[u8]]) -> (Vec<Frame>, Result<(), DecodeError>) {
        let (mut decoder, mut frames) = (decoder(), Vec::new());
        let result = pieces
            .iter()
            .try_for_each(|piece| decoder.feed(piece, &mut frames));
        (frames, result)
    }

    #[test]
    fn a_stream_cut_at_every_byte_gives_the_same_frames() {
        let wire = [
            frame(1, 2, 0),
            frame(-7, 0, 0),
            frame(300, 5, 300),
            frame(4, 0, 9),
        ]
        .concat();
        let whole = feed(&[&wire]);
        assert_eq!(whole.0.len(), 4);
        for cut in 0..wire.len() {
            assert_eq!(feed(&[&wire[..cut], &wire[cut..]]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(feed(&bytes), whole);
    }

    #[test]
    fn small_frames_of_a_read_share_blocks() {
        let one = frame(1, 100, 30);
        let (frames, result) = feed(&[&one.repeat(100)]);
        result.unwrap();
        assert_eq!(frames.len(), 100);
        for block in frames.chunks(BLOCK_BYTES_MAX / one.len()) {
            let at = |frame: &Frame| frame.pbody.as_ptr() as usize;
            let apart = block.windows(2).map(|pair| at(&pair[1]) - at(&pair[0]));
            assert!(apart.into_iter().all(|bytes| bytes == one.len()));
        }
    }

    #[test]
    fn a_tls_record_at_the_start_of_a_stream_is_recognised_wherever_it_is_cut() {
        let hello = [&[22, 3, 1, 0, 200, 1, 0, 0, 196][..], &[0; 196]].concat();
        for wire in [&hello[..], &[21, 3, 3, 0, 2, 2, 40]] {
            for cut in 0..wire.len() {
                let error = FrameErrorKind::TlsRecord.at(0).into();
                assert_eq!(feed(&[&wire[..cut], &wire[cut..]]), (vec![], Err(error)));
            }
        }
        let later = [frame(1, 2, 0), hello].concat();
        let (frames, result) = feed(&[&later]);
        assert_eq!(frames.len(), 1);
        assert_ne!(result, Err(FrameErrorKind::TlsRecord.at(0).into()));
    }

    #[test]
    fn large_frames_cut_anywhere_give_the_same_frames() {
        let long = STAGED_FRAME_BYTES_MAX;
        let shapes = [
            (long, 0),
            (long + 9, 3),
            (3, long),
            (0, long),
            (long, 2 * long),
        ];
        let wire: Vec<u8> = shapes.iter().flat_map(|&(p, d)| frame(5, p, d)).collect();
        let whole = feed(&[&wire]);
        assert_eq!(
            whole
                .0
                .iter()
                .map(|f| (f.pbody.len(), f.dbody.len()))
                .collect::<Vec<_>>(),
            shapes
        );
        for step in [1, 7, 4096, long, long + 1] {
            assert_eq!(
                feed(&wire.chunks(step).collect::<Vec<_>>()),
                whole,
                "steps of {step}"
            );
        }
        let cuts = (0..40).chain(long - 5..long + 40);
        for cut in cuts {
            assert_eq!(feed(&[&wire[..cut], &wire[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_large_body_can_be_read_into_directly() {
        let wire = frame(1, 3, 200_000);
        let (mut decoder, mut frames) = (decoder(), Vec::new());
        let (head, mut body) = wire.split_at(40);
        decoder.feed(head, &mut frames).unwrap();
        while !body.is_empty() {
            let target = decoder.body_target().unwrap().unwrap();
            let bytes = target.len().min(body.len()).min(70_000);
            target[..bytes].copy_from_slice(&body[..bytes]);
            body = &body[bytes..];
            decoder.body_filled(bytes, &mut frames);
        }
        assert_eq!(frames, feed(&[&wire]).0);
        assert_eq!(frames[0].dbody.as_ptr().align_offset(64), 0);
        assert!(decoder.is_between_frames());
    }

    #[test]
    fn an_announced_length_allocates_nothing() {
        let ledger = Ledger::root("test", Limits::default());
        let mut decoder = decoder_in(&ledger);
        decoder.set_frame_bytes_max(usize::MAX);
        // 2 GiB less one byte
        decoder
            .feed(&[0xff, 0xff, 0xff, 0xff, 0x07, 0x0a, 0x06], &mut Vec::new())
            .unwrap();
        assert_eq!(ledger.used(Kind::Bytes), 0);
        assert!(decoder.partial.bytes.capacity() < 64);
    }

    #[test]
    fn the_limit_is_held_against_the_prefix_alone() {
        let error = feed(&[&[0x81, 0x80, 0x40]]).1;
        let kind = FrameErrorKind::TooLong {
            actual: MAX + 1,
            expected_max: MAX,
        };
        assert_eq!(error, Err(DecodeError::Frame(kind.at(0))));
    }

    #[test]
    fn lengths_of_zero_and_below_are_refused() {
        // golden/raw: "zero-length frame", "length -1", "six-byte varint" all end the connection
        for (wire, actual) in [(&[0_u8][..], 0), (&[0xff, 0xff, 0xff, 0xff, 0x0f], -1)] {
            let kind = FrameErrorKind::Length { actual };
            assert_eq!(feed(&[wire]).1, Err(DecodeError::Frame(kind.at(0))));
        }
        let kind = FrameErrorKind::Varint { expected_max: 5 };
        assert_eq!(
            feed(&[&[0x8c, 0x80, 0x80, 0x80, 0x80, 0]]).1,
            Err(kind.at(0).into())
        );
    }

    #[test]
    fn garbage_is_refused_at_its_first_wrong_byte() {
        let kind = FrameErrorKind::Key {
            expected: Part::Header,
            actual: Some(b'E'),
        };
        assert_eq!(feed(&[b"GE"]).1, Err(kind.at(1).into()));
    }

    #[test]
    fn parts_must_come_in_order_and_fill_the_frame() {
        let key = |expected, actual| FrameErrorKind::Key { expected, actual };
        let header = [0x0a, 6, 8, 0, 0x10, 1, 0x18, 0];
        let cases: [(&[u8], FrameErrorKind, u64); 6] = [
            (&[], key(Part::Pbody, None), 9),
            (&[0x1a, 0], key(Part::Pbody, Some(0x1a)), 9),
            (
                &[0x12, 1],
                FrameErrorKind::PartLength {
                    part: Part::Pbody,
                    actual: 1,
                    expected_max: 0,
                },
                10,
            ),
            (&[0x12, 0, 0x22, 0], key(Part::Dbody, Some(0x22)), 11),
            (
                &[0x12, 0, 0x1a, 1, 9, 9],
                FrameErrorKind::DbodyLength {
                    expected: 2,
                    actual: 1,
                },
                12,
            ),
            (
                &[0x12, 0, 0x1a, 3, 9, 9],
                FrameErrorKind::PartLength {
                    part: Part::Dbody,
                    actual: 3,
                    expected_max: 2,
                },
                12,
            ),
        ];
        for (tail, kind, offset) in cases {
            let body = [&header, tail].concat();
            let wire = [&[u8::try_from(body.len()).unwrap()][..], &body].concat();
            let expected = kind.at(offset);
            assert_eq!(feed(&[&wire]).1, Err(expected.clone().into()), "{tail:x?}");
            assert_eq!(
                feed(&wire.chunks(1).collect::<Vec<_>>()).1,
                Err(expected.clone().into())
            );
            assert_eq!(Walk::new(&wire, MAX).next(), Some(Err(expected)));
        }
    }

    #[test]
    fn lengths_need_not_be_minimal() {
        // golden/raw: "non-minimal varint length of header" is answered
        let wire = [
            0x8e, 0, 0x0a, 0x86, 0, 8, 0, 0x10, 2, 0x18, 3, 0x12, 0x82, 0, 8, 1,
        ];
        let (frames, result) = feed(&[&wire]);
        assert_eq!((frames.len(), result), (1, Ok(())));
        assert_eq!(frames[0].pbody[..], [8, 1]);
    }
}
