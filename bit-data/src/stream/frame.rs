//! Frames of a stream: their checksum, and the message that they travel in.

use bytes::Bytes;
use prost::Message;
use protos::data::{FragmentRecordBatch, StreamFrame, stream_frame};
use record_batch::{Checksum, Codec};

use super::error::ReceiveError;

/// Heads without an error in them fit in here.
const HEAD_BYTES: usize = 64;

/// The message that carries `frame`; the addresses stay unset.
pub(crate) fn envelope(frame: StreamFrame) -> FragmentRecordBatch {
    FragmentRecordBatch {
        stream: Some(frame),
        ..FragmentRecordBatch::default()
    }
}

/// Sets the checksum of a frame that is otherwise complete.
pub(crate) fn seal(frame: &mut StreamFrame, body: &[Bytes]) {
    frame.crc = Some(checksum(frame, body));
}

/// Over the frame without its checksum, then over the body as it is on the wire.
fn checksum(frame: &StreamFrame, body: &[Bytes]) -> u32 {
    debug_assert!(frame.crc.is_none());
    let mut sum = Checksum::new();
    let mut head = [0; HEAD_BYTES];
    let length = frame.encoded_len();
    match head.get_mut(..length) {
        Some(mut room) => {
            frame
                .encode(&mut room)
                .expect("invariant: the room is as long as the frame");
            sum.update(&head[..length]);
        }
        None => sum.update(&frame.encode_to_vec()),
    }
    for piece in body {
        sum.update(piece);
    }
    sum.finish()
}

/// Compares a frame with its checksum; one without is damaged too.
pub(crate) fn verify(frame: &mut StreamFrame, body: &Bytes) -> Result<(), ReceiveError> {
    let expected = frame.crc.take();
    let actual = checksum(frame, std::slice::from_ref(body));
    frame.crc = expected;
    if expected == Some(actual) {
        return Ok(());
    }
    Err(ReceiveError::Checksum {
        sequence: frame.sequence(),
        expected: frame.crc(),
        actual,
    })
}

pub(crate) fn codec_to_wire(codec: Codec) -> Option<stream_frame::Codec> {
    match codec {
        Codec::None => Some(stream_frame::Codec::None),
        Codec::Lz4 => Some(stream_frame::Codec::Lz4),
        Codec::Zstd => Some(stream_frame::Codec::Zstd),
        Codec::Snappy => Some(stream_frame::Codec::Snappy),
        // A later one has no number yet.
        _ => None,
    }
}

pub(crate) fn codec_from_wire(codec: stream_frame::Codec) -> Codec {
    match codec {
        stream_frame::Codec::None => Codec::None,
        stream_frame::Codec::Lz4 => Codec::Lz4,
        stream_frame::Codec::Zstd => Codec::Zstd,
        stream_frame::Codec::Snappy => Codec::Snappy,
    }
}

/// The codec of a frame; an unknown number is an error, not none.
pub(crate) fn codec_of(frame: &StreamFrame) -> Result<Codec, ReceiveError> {
    let number = frame.codec.unwrap_or_default();
    let codec = stream_frame::Codec::try_from(number);
    let unknown = |_| ReceiveError::Protocol(format!("codec {number}, which is none"));
    codec.map(codec_from_wire).map_err(unknown)
}

#[cfg(test)]
mod tests {
    use protos::{data::StreamEnd, shared::DrillPbError};

    use super::*;

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

    fn sealed(mut frame: StreamFrame, body: &Bytes) -> StreamFrame {
        seal(&mut frame, std::slice::from_ref(body));
        frame
    }

    #[test]
    fn every_flipped_bit_of_message_and_body_is_seen() {
        let body = Bytes::from((0..=255).collect::<Vec<u8>>());
        let message = envelope(sealed(frame(), &body)).encode_to_vec();
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
        let mut frame = sealed(frame(), &body);
        assert!(verify(&mut frame, &body).is_ok());
        for bit in 0..body.len() * 8 {
            let mut flipped = body.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&mut frame, &flipped.into()).is_err(), "bit {bit}");
        }
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
        let mut sealed = sealed(frame, &Bytes::new());
        assert!(verify(&mut sealed, &Bytes::new()).is_ok());
        sealed.end = None;
        assert!(verify(&mut sealed, &Bytes::new()).is_err());
    }

    #[test]
    fn codecs_have_one_number_each() {
        for codec in Codec::ALL {
            let wire = codec_to_wire(codec).expect("all are on the wire");
            assert_eq!(codec_from_wire(wire), codec);
        }
        let unknown = StreamFrame {
            codec: Some(9),
            ..frame()
        };
        assert!(matches!(codec_of(&unknown), Err(ReceiveError::Protocol(_))));
    }
}
