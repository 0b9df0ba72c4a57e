//! Frames are the same however the stream is cut, whoever decodes it, and after encoding them again.

use std::sync::Arc;

use super::{FRAME_BYTES_MAX, Tally};
use crate::{
    frame::{
        BodyPool, BodyPoolOptions, DecodeError, Frame, FrameDecoder, FrameErrorKind, Walk, encode,
    },
    ledger::{Kind, Ledger, Limits},
};

/// A limit, and a budget, that longer frames do not fit.
const SMALL_BYTES_MAX: usize = 256;
/// What a decoder may hold beside its longest frame: rounding, and the start of the next frame.
const SLACK_BYTES: usize = 64 * 1024;

/// Frames and the error behind them: what decoding comes to.
type Decoded = (Vec<Frame>, Result<(), DecodeError>);

/// Decodes `bytes` in every way there is; all must agree.
///
/// # Panics
///
/// They do not, or memory is not bounded.
#[allow(
    clippy::must_use_candidate,
    reason = "fuzz targets have no use for the tally"
)]
pub fn codec(bytes: &[u8]) -> Tally {
    let whole = decode(&[bytes], FRAME_BYTES_MAX, Limits::default());
    for cut in cuts(bytes) {
        let (left, right) = bytes.split_at(cut);
        let pieces = decode(&[left, right], FRAME_BYTES_MAX, Limits::default());
        assert_eq!(pieces, whole, "cut at {cut}");
    }
    assert_eq!(decode_in_place(bytes), whole, "read into place");
    let frames = &whole.0;
    assert_walked_alike(bytes, &whole);
    assert_encoded_alike(frames);
    assert_limits_only_cut_short(bytes, frames);
    Tally {
        frames: frames.len() as u64,
        sessions: 0,
    }
}

fn decode(pieces: &[&[u8]], frame_bytes_max: usize, limits: Limits) -> Decoded {
    let ledger = Ledger::root("fuzzing", limits);
    let mut decoder = FrameDecoder::new(frame_bytes_max, pool(), ledger.clone());
    let mut frames = Vec::new();
    let end = pieces
        .iter()
        .try_for_each(|piece| decoder.feed(piece, &mut frames));
    check(frames, end, decoder, &ledger)
}

/// As the driver does it: large bodies are read where they belong.
fn decode_in_place(mut bytes: &[u8]) -> Decoded {
    let ledger = Ledger::root("fuzzing", Limits::default());
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX, pool(), ledger.clone());
    let mut frames = Vec::new();
    let end = loop {
        if bytes.is_empty() {
            break Ok(());
        }
        let read = match decoder.body_target() {
            Ok(Some(target)) => {
                let read = target.len().min(bytes.len());
                target[..read].copy_from_slice(&bytes[..read]);
                decoder.body_filled(read, &mut frames);
                read
            }
            Ok(None) => {
                let read = bytes.len().min(41);
                if let Err(error) = decoder.feed(&bytes[..read], &mut frames) {
                    break Err(error);
                }
                read
            }
            Err(error) => break Err(error),
        };
        bytes = &bytes[read..];
    };
    check(frames, end, decoder, &ledger)
}

/// What is charged is what arrived, and goes with the frames and the decoder.
fn check(
    frames: Vec<Frame>,
    end: Result<(), DecodeError>,
    decoder: FrameDecoder,
    ledger: &Ledger,
) -> Decoded {
    let bodies = |frame: &Frame| frame.pbody.len() + frame.dbody.len() + SLACK_BYTES;
    let held: usize = frames.iter().map(bodies).sum();
    assert!(ledger.used(Kind::Bytes) <= held + FRAME_BYTES_MAX + SLACK_BYTES);
    drop(decoder);
    // Owned copies: nothing of the decoder's may be needed for the frames to be compared.
    let owned = frames.iter().map(|frame| Frame {
        header: frame.header,
        pbody: frame.pbody.to_vec().into(),
        dbody: frame.dbody.to_vec().into(),
    });
    let owned = owned.collect();
    drop(frames);
    assert!(ledger.is_zero(), "{ledger:?}");
    (owned, end)
}

fn pool() -> Arc<BodyPool> {
    BodyPool::new(BodyPoolOptions::default())
}

// Around the start, where prefix and header lie, and some further on.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let len = bytes.len();
    (0..len.min(24)).chain((24..len).step_by(1 + len / 16))
}

fn assert_walked_alike(bytes: &[u8], (frames, end): &Decoded) {
    let mut walk = Walk::new(bytes, FRAME_BYTES_MAX);
    for expected in frames {
        let frame = walk
            .next()
            .and_then(Result::ok)
            .expect("invariant: what is decoded can be walked");
        assert_eq!(frame.header, expected.header);
        assert_eq!(
            (frame.pbody, frame.dbody),
            (&expected.pbody[..], &expected.dbody[..])
        );
    }
    match (walk.next(), end) {
        // The decoder waits for the rest of a frame; for the walk there is none.
        (None, Ok(())) => {}
        (Some(Err(error)), Ok(())) => {
            assert!(
                matches!(error.kind, FrameErrorKind::Truncated { .. }),
                "{error}"
            );
        }
        (Some(Err(walked)), Err(DecodeError::Frame(decoded))) => assert_eq!(walked, *decoded),
        (walked, decoded) => panic!("walked {walked:?}, decoded {decoded:?}"),
    }
}

/// One decoding makes any frame canonical: from then on the bytes stay as they are.
fn assert_encoded_alike(frames: &[Frame]) {
    let wire = encoded(frames);
    let (again, end) = decode(&[&wire], FRAME_BYTES_MAX + SLACK_BYTES, Limits::default());
    assert_eq!((&again[..], end), (frames, Ok(())));
    assert_eq!(encoded(&again), wire);
}

fn encoded(frames: &[Frame]) -> Vec<u8> {
    let mut wire = Vec::new();
    for frame in frames {
        encode(&frame.header, &frame.pbody, &frame.dbody, &mut wire);
    }
    wire
}

/// With less room the same frames come out, up to the first that does not fit.
fn assert_limits_only_cut_short(bytes: &[u8], frames: &[Frame]) {
    let (short, _) = decode(&[bytes], SMALL_BYTES_MAX, Limits::default());
    assert!(frames.starts_with(&short));
    let poor = Limits {
        bytes: Some(SMALL_BYTES_MAX),
        ..Limits::default()
    };
    let (short, _) = decode(&[bytes], FRAME_BYTES_MAX, poor);
    assert!(frames.starts_with(&short));
}
