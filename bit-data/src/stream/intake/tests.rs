//! Frames, stepped by hand.

use protos::data::stream_frame;
use record_batch::Codec;

use super::*;
use crate::stream::credit::{STARVED_MIN, WindowSizes};

const SIZES: WindowSizes = WindowSizes {
    bytes_min: 1_000,
    bytes: 4_000,
    bytes_max: 4_000,
    overrun_bytes: 4_000,
    starved_min: STARVED_MIN,
};

fn intake() -> Intake {
    intake_of(&[])
}

/// Of a receiver that takes these.
fn intake_of(codecs: &[Codec]) -> Intake {
    let terms = Terms {
        has_checksums: false,
        batch_bytes_max: 200_000,
        codecs: Codecs::of(codecs),
    };
    Intake::new(ReceiveWindow::new(SIZES, Instant::now()), terms)
}

fn frame(sequence: u64) -> StreamFrame {
    StreamFrame {
        stream: Some(1),
        sequence: Some(sequence),
        ..StreamFrame::default()
    }
}

/// The first of the chunks of a batch of so many bytes.
fn chunked(sequence: u64, bytes: usize) -> StreamFrame {
    StreamFrame {
        chunked_bytes: Some(bytes as u64),
        ..frame(sequence)
    }
}

fn body(bytes: usize) -> Bytes {
    Bytes::from(vec![7; bytes])
}

fn accept(intake: &mut Intake, frame: StreamFrame, body: Bytes) -> Result<Arrival, ReceiveError> {
    intake.accept(frame, body, Instant::now())
}

fn end(sequence: u64, kind: stream_end::Kind) -> StreamFrame {
    let end = StreamEnd {
        kind: Some(kind.into()),
        error: None,
    };
    StreamFrame {
        end: Some(end),
        ..frame(sequence)
    }
}

fn refused(intake: &mut Intake, frame: StreamFrame, body: Bytes) -> String {
    accept(intake, frame, body)
        .expect_err("it breaks the protocol")
        .to_string()
}

#[test]
fn batches_come_in_order_and_then_the_end() {
    let mut intake = intake();
    for sequence in 0..3 {
        let arrival = accept(&mut intake, frame(sequence), body(500));
        assert!(matches!(
            arrival,
            Ok(Arrival::Batch(EncodedBatch {
                cost_bytes: 500,
                ..
            }))
        ));
    }
    let ended = accept(
        &mut intake,
        end(3, stream_end::Kind::Finished),
        Bytes::new(),
    );
    assert!(matches!(ended, Ok(Arrival::End(Ok(())))));
    assert_eq!(intake.window.queued_bytes(), 1_500);
}

#[test]
fn a_missing_a_doubled_and_a_reordered_frame_are_seen() {
    for sequence in [0, 2, u64::MAX] {
        let mut intake = intake();
        assert!(accept(&mut intake, frame(0), body(1)).is_ok());
        let error = refused(&mut intake, frame(sequence), body(1));
        assert!(error.contains("expected 1"), "{error}");
    }
    let mut intake = intake();
    let early = end(1, stream_end::Kind::Finished);
    assert!(refused(&mut intake, early, Bytes::new()).contains("expected 0"));
}

#[test]
fn what_is_sent_beyond_the_credit_breaks_the_protocol() {
    let mut intake = intake();
    assert!(accept(&mut intake, frame(0), body(9_000)).is_ok());
    let error = refused(&mut intake, frame(1), body(1));
    assert!(error.contains("beyond the credit"), "{error}");
}

#[test]
fn the_larger_of_wire_and_decoded_bytes_counts() {
    let mut intake = intake();
    let compressed = StreamFrame {
        decoded_bytes: Some(3_000),
        ..frame(0)
    };
    assert!(accept(&mut intake, compressed, body(100)).is_ok());
    assert_eq!(intake.window.queued_bytes(), 3_000);
    let bomb = StreamFrame {
        decoded_bytes: Some(1 << 40),
        ..frame(1)
    };
    assert!(refused(&mut intake, bomb, body(100)).contains("at most 200000"));
}

#[test]
fn chunks_are_counted_when_the_first_comes_and_joined_when_the_last_does() {
    let mut intake = intake();
    let first = chunked(0, 2 * CHUNK_BYTES_MIN + 1_000);
    assert!(matches!(
        accept(&mut intake, first, body(CHUNK_BYTES_MIN)),
        Ok(Arrival::Part)
    ));
    let queued = 2 * CHUNK_BYTES_MIN as u64 + 1_000;
    assert_eq!(intake.window.queued_bytes(), queued);
    assert!(matches!(
        accept(&mut intake, frame(1), body(CHUNK_BYTES_MIN)),
        Ok(Arrival::Part)
    ));
    match accept(&mut intake, frame(2), body(1_000)) {
        Ok(Arrival::Batch(batch)) => assert_eq!(batch.frames.len(), 3),
        other => panic!("{other:?}"),
    }
}

#[test]
fn chunks_that_do_not_fit_together_break_the_protocol() {
    let begun = || {
        let mut intake = intake();
        let first = chunked(0, CHUNK_BYTES_MIN + 2_000);
        assert!(accept(&mut intake, first, body(CHUNK_BYTES_MIN)).is_ok());
        intake
    };
    assert!(refused(&mut begun(), frame(1), body(2_001)).contains("67536 announced"));
    assert!(refused(&mut begun(), frame(1), body(0)).contains("without a body"));
    assert!(refused(&mut begun(), chunked(1, 5), body(5)).contains("between the chunks"));
    let finished = end(1, stream_end::Kind::Finished);
    assert!(refused(&mut begun(), finished, body(0)).contains("between chunks"));
    let cancelled = end(1, stream_end::Kind::Cancelled);
    let ended = accept(&mut begun(), cancelled, body(0));
    assert!(matches!(
        ended,
        Ok(Arrival::End(Err(ReceiveError::SenderCancelled)))
    ));
    let error = refused(&mut intake(), chunked(0, 1 << 40), body(5));
    assert!(error.contains("at most 200000 allowed"), "{error}");
}

#[test]
fn short_chunks_before_the_last_break_the_protocol() {
    let total = CHUNK_BYTES_MIN + 2_000;
    let error = refused(&mut intake(), chunked(0, total), body(1));
    assert!(error.contains("expected at least 65536"), "{error}");
    let mut intake = intake();
    assert!(accept(&mut intake, chunked(0, total), body(CHUNK_BYTES_MIN)).is_ok());
    let error = refused(&mut intake, frame(1), body(1_999));
    assert!(error.contains("a chunk of 1999 bytes"), "{error}");
}

#[test]
fn a_codec_that_the_receiver_has_not_asked_for_breaks_the_protocol() {
    let compressed = |codec: stream_frame::Codec| StreamFrame {
        codec: Some(codec.into()),
        decoded_bytes: Some(100),
        ..frame(0)
    };
    let (lz4, zstd) = (stream_frame::Codec::Lz4, stream_frame::Codec::Zstd);
    let mut takes_lz4 = intake_of(&[Codec::Lz4]);
    assert!(accept(&mut takes_lz4, compressed(lz4), body(50)).is_ok());
    let error = refused(&mut intake_of(&[Codec::Lz4]), compressed(zstd), body(50));
    assert!(
        error.ends_with("codec Zstd, expected none or one of [Lz4]"),
        "{error}"
    );
    let error = refused(&mut intake(), compressed(lz4), body(50));
    assert!(
        error.ends_with("codec Lz4, expected none or one of []"),
        "{error}"
    );
}
