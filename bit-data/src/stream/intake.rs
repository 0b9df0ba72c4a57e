//! What comes in of one stream, frame by frame: order, credit, chunks, end. No lock, no socket, no decoding.

use std::time::Instant;

use bytes::Bytes;
use protos::data::{StreamEnd, StreamFrame, stream_end};
use record_batch::Reassembly;
use rpc_bus::RpcFailure;

use super::{
    checksum::check_frame,
    credit::{ReceiveWindow, cost_bytes},
    error::ReceiveError,
    frame::{Codecs, codec_of},
    options::PIECE_BYTES_MAX,
};

/// Least bytes of a chunk that is not the last of its batch. Each is kept with its frame until all are there, and only
/// their bytes are counted; senders make much longer ones.
const CHUNK_BYTES_MIN: usize = 64 * 1024;
const _: () = assert!(CHUNK_BYTES_MIN <= PIECE_BYTES_MAX);

/// What both ends agreed on when the stream was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) has_checksums: bool,
    /// Largest batch, on the wire and decoded.
    pub(crate) batch_bytes_max: usize,
    pub(crate) codecs: Codecs,
}

/// One batch as it came.
#[derive(Debug)]
pub(crate) struct EncodedBatch {
    /// One frame, or the chunks of the batch.
    pub(crate) frames: Vec<(StreamFrame, Bytes)>,
    pub(crate) cost_bytes: u64,
}

/// What a frame has brought.
#[derive(Debug)]
pub(crate) enum Arrival {
    Batch(EncodedBatch),
    /// A chunk that is not the last.
    Part,
    End(Result<(), ReceiveError>),
}

/// A batch of which chunks are missing.
#[derive(Debug)]
struct Partial {
    batch: EncodedBatch,
    arrived_bytes: usize,
    total_bytes: usize,
}

/// The receiving end of a stream, up to the queue.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) window: ReceiveWindow,
    terms: Terms,
    next_sequence: u64,
    partial: Option<Partial>,
}

impl Intake {
    pub(crate) fn new(window: ReceiveWindow, terms: Terms) -> Self {
        Self {
            window,
            terms,
            next_sequence: 0,
            partial: None,
        }
    }

    /// Takes the next frame.
    ///
    /// # Errors
    ///
    /// The frame is damaged, or the peer breaks the protocol: the stream, and the connection, cannot go on.
    pub(crate) fn accept(
        &mut self,
        mut frame: StreamFrame,
        body: Bytes,
        now: Instant,
    ) -> Result<Arrival, ReceiveError> {
        // One that is there was compared before the frame came here.
        if self.terms.has_checksums && frame.crc.is_none() {
            check_frame(&mut frame)?;
        }
        let (expected, actual) = (self.next_sequence, frame.sequence());
        if actual != expected {
            return Err(broken(format!("frame {actual} came, expected {expected}")));
        }
        self.next_sequence += 1;
        if let Some(end) = &frame.end {
            return self.outcome(end).map(Arrival::End);
        }
        if body.is_empty() {
            return Err(broken("a batch without a body".to_owned()));
        }
        match self.partial.take() {
            Some(partial) => self.go_on(partial, frame, body),
            None => self.begin(frame, body, now),
        }
    }

    /// Drops the chunks of a batch that is not complete.
    pub(crate) fn drop_partial(&mut self) {
        self.partial = None;
    }

    fn outcome(&self, end: &StreamEnd) -> Result<Result<(), ReceiveError>, ReceiveError> {
        let kind = end.kind.unwrap_or_default();
        match stream_end::Kind::try_from(kind) {
            Ok(stream_end::Kind::Finished) if self.partial.is_some() => {
                Err(broken("an end between chunks".to_owned()))
            }
            Ok(stream_end::Kind::Finished) => Ok(Ok(())),
            Ok(stream_end::Kind::Cancelled) => Ok(Err(ReceiveError::SenderCancelled)),
            Ok(stream_end::Kind::Failed) => {
                let error = end.error.clone().unwrap_or_default();
                Ok(Err(ReceiveError::SenderFailed(
                    RpcFailure::from(error).into(),
                )))
            }
            Err(_) => Err(broken(format!("an end of the unknown kind {kind}"))),
        }
    }

    /// The first frame of a batch: all of the batch is counted here.
    fn begin(
        &mut self,
        frame: StreamFrame,
        body: Bytes,
        now: Instant,
    ) -> Result<Arrival, ReceiveError> {
        self.expect_codec(&frame)?;
        let announced = usize::try_from(frame.chunked_bytes()).unwrap_or(usize::MAX);
        let total_bytes = if announced == 0 {
            body.len()
        } else {
            announced
        };
        Reassembly::begin(total_bytes, self.terms.batch_bytes_max)?;
        let decoded = frame.decoded_bytes();
        if decoded > self.terms.batch_bytes_max as u64 {
            let bytes_max = self.terms.batch_bytes_max;
            return Err(broken(format!(
                "{decoded} bytes decoded, at most {bytes_max} allowed"
            )));
        }
        let cost_bytes = cost_bytes(total_bytes as u64, decoded);
        let within_credit = self.window.on_received(cost_bytes, now);
        within_credit.map_err(|error| broken(error.to_string()))?;
        let batch = EncodedBatch {
            frames: Vec::with_capacity(1),
            cost_bytes,
        };
        let partial = Partial {
            batch,
            arrived_bytes: 0,
            total_bytes,
        };
        self.add(partial, frame, body)
    }

    fn expect_codec(&self, frame: &StreamFrame) -> Result<(), ReceiveError> {
        let (codec, taken) = (codec_of(frame)?, self.terms.codecs);
        if taken.takes(codec) {
            return Ok(());
        }
        let taken: Vec<_> = taken.list().collect();
        Err(broken(format!(
            "a batch in the codec {codec:?}, expected none or one of {taken:?}"
        )))
    }

    fn go_on(
        &mut self,
        partial: Partial,
        frame: StreamFrame,
        body: Bytes,
    ) -> Result<Arrival, ReceiveError> {
        if frame.chunked_bytes.is_some() {
            return Err(broken("a batch between the chunks of another".to_owned()));
        }
        self.add(partial, frame, body)
    }

    fn add(
        &mut self,
        mut partial: Partial,
        frame: StreamFrame,
        body: Bytes,
    ) -> Result<Arrival, ReceiveError> {
        let bytes = body.len();
        partial.arrived_bytes = partial.arrived_bytes.saturating_add(bytes);
        partial.batch.frames.push((frame, body));
        let (arrived, total) = (partial.arrived_bytes, partial.total_bytes);
        if arrived > total {
            return Err(broken(format!(
                "{arrived} bytes in chunks, {total} announced"
            )));
        }
        if arrived == total {
            return Ok(Arrival::Batch(partial.batch));
        }
        if bytes < CHUNK_BYTES_MIN {
            return Err(broken(format!(
                "a chunk of {bytes} bytes before the last, expected at least {CHUNK_BYTES_MIN}"
            )));
        }
        self.partial = Some(partial);
        Ok(Arrival::Part)
    }
}

fn broken(what: String) -> ReceiveError {
    ReceiveError::Protocol(what)
}

#[cfg(test)]
mod tests;
