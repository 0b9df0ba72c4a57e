//! Checksums of the messages of streams: each has one over itself, and a frame with a raw body a second one over that.
//!
//! A message steers: it says whose frame it is, what it costs, and how much is to come. If anything in it counted before it
//! is checked, a flipped bit could leave a sender or a receiver waiting for what never comes, with nobody to look. So it
//! is checked where it arrives, on the I/O thread. A body only has values in it, and is checked by whom it is for.

use bytes::Bytes;
use prost::Message;
use protos::data::{CloseStream, Credit, OpenStream, StreamFrame};
use record_batch::Checksum;
use thiserror::Error;

use super::error::ReceiveError;

/// Heads without an error in them fit in here.
const HEAD_BYTES: usize = 64;

/// A message that has a field for its checksum.
pub(crate) trait Sealed: Message {
    fn crc(&mut self) -> &mut Option<u32>;
}

/// A message is not what was sent, or has no checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("damaged: checksum {actual:08x}, expected {expected:08x}")]
pub(crate) struct Damaged {
    /// As sent; 0 if there was none.
    pub(crate) expected: u32,
    pub(crate) actual: u32,
}

/// Sets the checksum of a message that is otherwise complete.
fn seal(message: &mut impl Sealed) {
    debug_assert!(message.crc().is_none());
    let sum = checksum(message);
    *message.crc() = Some(sum);
}

/// The same.
pub(crate) fn sealed<M: Sealed>(mut message: M) -> M {
    seal(&mut message);
    message
}

/// Sets both checksums of a frame that is otherwise complete.
pub(crate) fn seal_frame(frame: &mut StreamFrame, body: &[Bytes]) {
    frame.body_crc = (!body.is_empty()).then(|| Checksum::of(body));
    seal(frame);
}

/// Compares a message with its checksum.
pub(crate) fn check(message: &mut impl Sealed) -> Result<(), Damaged> {
    let sent = message.crc().take();
    let actual = checksum(message);
    *message.crc() = sent;
    compare(sent, actual)
}

/// Compares a frame with its checksum, but for its body.
pub(crate) fn check_frame(frame: &mut StreamFrame) -> Result<(), ReceiveError> {
    let checked = check(frame);
    checked.map_err(|damaged| damaged.in_frame(frame))
}

/// Compares the body of a frame with its checksum.
pub(crate) fn check_body(frame: &StreamFrame, body: &Bytes) -> Result<(), ReceiveError> {
    let actual = Checksum::of(std::slice::from_ref(body));
    compare(frame.body_crc, actual).map_err(|damaged| damaged.in_frame(frame))
}

fn compare(sent: Option<u32>, actual: u32) -> Result<(), Damaged> {
    if sent == Some(actual) {
        return Ok(());
    }
    let expected = sent.unwrap_or_default();
    Err(Damaged { expected, actual })
}

impl Damaged {
    fn in_frame(self, frame: &StreamFrame) -> ReceiveError {
        ReceiveError::Checksum {
            sequence: frame.sequence(),
            expected: self.expected,
            actual: self.actual,
        }
    }
}

fn checksum(message: &impl Message) -> u32 {
    let mut sum = Checksum::new();
    let mut head = [0; HEAD_BYTES];
    let mut rest = &mut head[..];
    // It says itself if it does not fit: its length is reckoned once.
    if message.encode(&mut rest).is_ok() {
        let length = HEAD_BYTES - rest.len();
        sum.update(&head[..length]);
    } else {
        sum.update(&message.encode_to_vec());
    }
    sum.finish()
}

impl Sealed for StreamFrame {
    fn crc(&mut self) -> &mut Option<u32> {
        &mut self.crc
    }
}

impl Sealed for OpenStream {
    fn crc(&mut self) -> &mut Option<u32> {
        &mut self.crc
    }
}

impl Sealed for Credit {
    fn crc(&mut self) -> &mut Option<u32> {
        &mut self.crc
    }
}

impl Sealed for CloseStream {
    fn crc(&mut self) -> &mut Option<u32> {
        &mut self.crc
    }
}

#[cfg(test)]
mod tests {
    use protos::{
        data::{FragmentRecordBatch, StreamEnd, close_stream, stream_frame},
        shared::{DrillPbError, QueryId},
    };

    use super::*;
    use crate::stream::frame::envelope;

    fn frame() -> StreamFrame {
        StreamFrame {
            stream: Some(7),
            sequence: Some(300),
            codec: Some(stream_frame::Codec::Lz4.into()),
            decoded_bytes: Some(123_456),
            chunked_bytes: Some(1 << 20),
            ..StreamFrame::default()
        }
    }

    fn sealed_frame(mut frame: StreamFrame, body: &Bytes) -> StreamFrame {
        seal_frame(&mut frame, std::slice::from_ref(body));
        frame
    }

    #[test]
    fn every_flipped_bit_of_message_and_body_is_seen() {
        let body = Bytes::from((0..=255).collect::<Vec<u8>>());
        let message = envelope(sealed_frame(frame(), &body)).encode_to_vec();
        for bit in 0..message.len() * 8 {
            let mut flipped = message.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let seen = match FragmentRecordBatch::decode(&*flipped) {
                Ok(FragmentRecordBatch {
                    stream: Some(mut frame),
                    ..
                }) => check_frame(&mut frame).is_err(),
                // No frame of a stream, which nobody takes for one.
                _ => true,
            };
            assert!(seen, "bit {bit}");
        }
        let mut frame = sealed_frame(frame(), &body);
        assert!(check_frame(&mut frame).is_ok() && check_body(&frame, &body).is_ok());
        for bit in 0..body.len() * 8 {
            let mut flipped = body.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(check_body(&frame, &flipped.into()).is_err(), "bit {bit}");
        }
    }

    fn expect_every_flip_seen<M: Sealed + Default>(message: M) {
        let message = sealed(message);
        let bytes = message.encode_to_vec();
        assert_eq!(check(&mut M::decode(&*bytes).expect("whole")), Ok(()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let seen =
                M::decode(&*flipped).map_or(true, |mut flipped| check(&mut flipped).is_err());
            assert!(seen, "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_of_what_a_receiver_sends_is_seen() {
        expect_every_flip_seen(Credit {
            stream: Some(300),
            limit_bytes: Some(1 << 21),
            crc: None,
        });
        expect_every_flip_seen(CloseStream {
            stream: Some(300),
            kind: Some(close_stream::Kind::Failed.into()),
            ..CloseStream::default()
        });
        expect_every_flip_seen(OpenStream {
            stream: Some(300),
            query_id: Some(QueryId {
                part1: Some(5),
                part2: Some(-6),
            }),
            limit_bytes: Some(1 << 21),
            codecs: vec![1, 2, 3],
            ..OpenStream::default()
        });
    }

    #[test]
    fn a_long_head_is_summed_too() {
        let error = DrillPbError {
            message: Some("x".repeat(1_000)),
            ..DrillPbError::default()
        };
        let end = StreamEnd {
            error: Some(error),
            ..StreamEnd::default()
        };
        let frame = StreamFrame {
            end: Some(end),
            ..frame()
        };
        let mut sealed = sealed(frame);
        assert!(check_frame(&mut sealed).is_ok());
        sealed.end = None;
        assert!(check_frame(&mut sealed).is_err());
    }
}
