//! Checksums of the messages of streams: over the message without its checksum, then over the raw body as it is on the
//! wire.

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
pub(crate) fn seal(message: &mut impl Sealed, body: &[Bytes]) {
    debug_assert!(message.crc().is_none());
    let sum = checksum(message, body);
    *message.crc() = Some(sum);
}

/// The same, of a message without a raw body.
pub(crate) fn sealed<M: Sealed>(mut message: M) -> M {
    seal(&mut message, &[]);
    message
}

/// Compares a message with its checksum.
pub(crate) fn check(message: &mut impl Sealed, body: &[Bytes]) -> Result<(), Damaged> {
    let sent = message.crc().take();
    let actual = checksum(message, body);
    *message.crc() = sent;
    if sent == Some(actual) {
        return Ok(());
    }
    let expected = sent.unwrap_or_default();
    Err(Damaged { expected, actual })
}

/// Compares a frame of a stream with its checksum.
pub(crate) fn verify(frame: &mut StreamFrame, body: &Bytes) -> Result<(), ReceiveError> {
    let checked = check(frame, std::slice::from_ref(body));
    checked.map_err(|Damaged { expected, actual }| ReceiveError::Checksum {
        sequence: frame.sequence(),
        expected,
        actual,
    })
}

fn checksum(message: &impl Message, body: &[Bytes]) -> u32 {
    let mut sum = Checksum::new();
    let mut head = [0; HEAD_BYTES];
    let length = message.encoded_len();
    match head.get_mut(..length) {
        Some(mut room) => {
            message
                .encode(&mut room)
                .expect("invariant: the room is as long as the message");
            sum.update(&head[..length]);
        }
        None => sum.update(&message.encode_to_vec()),
    }
    for piece in body {
        sum.update(piece);
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
        seal(&mut frame, std::slice::from_ref(body));
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
                }) => verify(&mut frame, &body).is_err(),
                // No frame of a stream, which nobody takes for one.
                _ => true,
            };
            assert!(seen, "bit {bit}");
        }
        let mut frame = sealed_frame(frame(), &body);
        assert!(verify(&mut frame, &body).is_ok());
        for bit in 0..body.len() * 8 {
            let mut flipped = body.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&mut frame, &flipped.into()).is_err(), "bit {bit}");
        }
    }

    fn expect_every_flip_seen<M: Sealed + Default>(message: M) {
        let message = sealed(message);
        let bytes = message.encode_to_vec();
        assert_eq!(check(&mut M::decode(&*bytes).expect("whole"), &[]), Ok(()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let seen =
                M::decode(&*flipped).map_or(true, |mut flipped| check(&mut flipped, &[]).is_err());
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
        let mut sealed = sealed_frame(frame, &Bytes::new());
        assert!(verify(&mut sealed, &Bytes::new()).is_ok());
        sealed.end = None;
        assert!(verify(&mut sealed, &Bytes::new()).is_err());
    }
}
