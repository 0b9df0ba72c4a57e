//! Frames of a stream: the message that they travel in, and its fields.

use protos::data::{FragmentRecordBatch, StreamFrame, stream_frame};
use record_batch::Codec;

use super::error::ReceiveError;

/// Codecs that a receiver takes beside none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Codecs {
    /// Bit n for the codec with number n on the wire.
    bits: u32,
}

impl Codecs {
    pub(crate) fn of(codecs: &[Codec]) -> Self {
        let numbers = codecs.iter().filter_map(|&codec| codec_to_wire(codec));
        Self {
            bits: numbers.fold(0, |bits, number| bits | bit(number)),
        }
    }

    pub(crate) fn takes(self, codec: Codec) -> bool {
        codec == Codec::None
            || codec_to_wire(codec).is_some_and(|number| self.bits & bit(number) != 0)
    }

    /// Without none.
    pub(crate) fn list(self) -> impl Iterator<Item = Codec> {
        let compressing = Codec::ALL.into_iter().filter(|&codec| codec != Codec::None);
        compressing.filter(move |&codec| self.takes(codec))
    }
}

fn bit(number: stream_frame::Codec) -> u32 {
    1 << i32::from(number)
}

/// The message that carries `frame`; the addresses stay unset.
pub(crate) fn envelope(frame: StreamFrame) -> FragmentRecordBatch {
    FragmentRecordBatch {
        stream: Some(frame),
        ..FragmentRecordBatch::default()
    }
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
    use super::*;

    #[test]
    fn a_receiver_takes_what_it_lists_and_none() {
        let listed = [Codec::Lz4, Codec::Snappy];
        let codecs = Codecs::of(&listed);
        assert!(codecs.list().eq(listed));
        assert!(codecs.takes(Codec::None) && codecs.takes(Codec::Lz4));
        assert!(!codecs.takes(Codec::Zstd));
        assert!(Codecs::of(&[]).list().next().is_none());
        assert_eq!(Codecs::of(&[Codec::None]).list().count(), 0);
    }

    #[test]
    fn codecs_have_one_number_each() {
        for codec in Codec::ALL {
            let wire = codec_to_wire(codec).expect("all are on the wire");
            assert_eq!(codec_from_wire(wire), codec);
        }
        let unknown = StreamFrame {
            codec: Some(9),
            ..StreamFrame::default()
        };
        assert!(matches!(codec_of(&unknown), Err(ReceiveError::Protocol(_))));
    }
}
