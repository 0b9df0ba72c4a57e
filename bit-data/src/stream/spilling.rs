//! The part of a queue that is on disk: behind what is in memory, and before what has not been written yet.
//!
//! What is handed to the spill files counts as taken, so that its sender may go on. While those have no room in memory
//! for more, batches wait here with their credit, and so does their sender.
//!
//! Batches of this process are encoded before they are handed over: on the thread that writes, because that takes time, and
//! without a lock. Those that are taken before are the batches themselves; one that is being encoded is waited for, because
//! what follows may refer to what its body brings: the schema, dictionaries.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll},
};

use arrow::array::RecordBatch;
use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use protos::data::StreamFrame;
use record_batch::{ArrowEncoder, EncodeError};

use super::{budget::QueryBudget, error::ReceiveError, inbound::Item, intake::EncodedBatch};
use crate::spill::{SpillDir, SpillError, SpillReader, SpillRecord, SpillWriter};

pub(crate) struct Spilling {
    /// Of the receiver's query.
    pub(crate) query: QueryBudget,
    writer: SpillWriter,
    reader: SpillReader,
    /// No room for them yet, oldest first.
    waiting: VecDeque<Item>,
    /// Of batches of this process: what it encodes is decoded in the same order.
    encoder: Option<ArrowEncoder>,
    encoding: Encoding,
    spilled_bytes: u64,
}

/// What is being done about the oldest of those that wait, if it is to be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Nothing,
    /// The thread that writes is told.
    Asked,
    /// It is at it.
    Begun,
}

/// A batch that is to be encoded, with what encodes it.
pub(crate) struct ToEncode {
    batch: RecordBatch,
    cost_bytes: u64,
    encoder: Option<ArrowEncoder>,
}

/// What became of it.
pub(crate) struct Encoded {
    batch: EncodedBatch,
    encoder: ArrowEncoder,
}

impl Spilling {
    /// `on_room` is called on the thread that writes: when there may be room for more, or something is to be encoded.
    pub(crate) fn new(
        dir: &SpillDir,
        query: QueryBudget,
        on_room: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (writer, reader) = dir.queue(on_room);
        Self {
            query,
            writer,
            reader,
            waiting: VecDeque::new(),
            encoder: None,
            encoding: Encoding::Nothing,
            spilled_bytes: 0,
        }
    }

    /// Whether nothing is here, no error either, so that batches need not queue up behind it.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.writer.is_empty()
    }

    /// Whether all is here that was handed over and not taken.
    ///
    /// # Errors
    ///
    /// It is lost.
    pub(crate) fn expect_intact(&self) -> Result<(), SpillError> {
        self.writer.expect_intact()
    }

    /// Bytes of bodies, with their heads, that were ever spilled.
    pub(crate) fn spilled_bytes(&self) -> u64 {
        self.spilled_bytes
    }

    pub(crate) fn push(&mut self, item: Item) {
        self.waiting.push_back(item);
    }

    /// Hands over what there is room for, up to what is to be encoded first; returns what it cost, and why there will never
    /// be room for the next batch, or for any.
    pub(crate) fn write(&mut self) -> (u64, Option<SpillError>) {
        let mut cost_bytes = 0;
        while let Some(Item::Encoded(batch)) = self.waiting.front() {
            let (record, cost) = (to_record(batch), batch.cost_bytes);
            let bytes = record.bytes() as u64;
            match self.writer.push(record) {
                Ok(()) => {
                    self.spilled_bytes += bytes;
                    cost_bytes += cost;
                    self.waiting.pop_front();
                }
                // There will be: then `on_room` is called.
                Err(SpillError::NoRoomYet) => return (cost_bytes, None),
                Err(error) => return (cost_bytes, Some(error)),
            }
        }
        if !self.waiting.is_empty() && self.encoding == Encoding::Nothing {
            self.encoding = Encoding::Asked;
            self.writer.call_back();
        }
        (cost_bytes, None)
    }

    /// The consumer has taken something that is older, or waits; or no sender waits: how long there has been no room counts
    /// from now on.
    pub(crate) fn is_not_stuck(&self) {
        if !self.waiting.is_empty() {
            self.writer.on_taken();
        }
    }

    /// The consumer was faster.
    pub(crate) fn call_off_encoding(&mut self) {
        if self.encoding == Encoding::Asked {
            self.encoding = Encoding::Nothing;
        }
    }

    /// What is to be encoded next, if that was asked for. Until it is back, nobody gets it.
    pub(crate) fn begin_encoding(&mut self) -> Option<ToEncode> {
        if self.encoding != Encoding::Asked {
            return None;
        }
        let Some(Item::Value(batch, cost_bytes)) = self.waiting.front() else {
            // It was taken meanwhile.
            self.encoding = Encoding::Nothing;
            return None;
        };
        self.encoding = Encoding::Begun;
        Some(ToEncode {
            batch: batch.clone(),
            cost_bytes: *cost_bytes,
            encoder: self.encoder.take(),
        })
    }

    /// What [`Self::begin_encoding`] gave is encoded.
    pub(crate) fn end_encoding(&mut self, encoded: Encoded) {
        self.encoding = Encoding::Nothing;
        self.encoder = Some(encoded.encoder);
        if let Some(oldest) = self.waiting.front_mut() {
            *oldest = Item::Encoded(encoded.batch);
        }
    }

    /// The oldest batch, which costs nothing any more if it was spilled; `None` if nothing is here. Who finds it being
    /// encoded is told by whoever calls [`Self::end_encoding`].
    pub(crate) fn poll_pop(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Item>, ReceiveError>> {
        match self.reader.poll_pop(cx) {
            Poll::Ready(Ok(Some(record))) => {
                Poll::Ready(from_record(record).map(|batch| Some(Item::Encoded(batch))))
            }
            Poll::Ready(Ok(None)) if self.encoding == Encoding::Begun => Poll::Pending,
            Poll::Ready(Ok(None)) => {
                self.is_not_stuck();
                Poll::Ready(Ok(self.waiting.pop_front()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl ToEncode {
    /// Takes time.
    pub(crate) fn encode(self) -> Result<Encoded, ReceiveError> {
        let work = AssertUnwindSafe(|| self.encode_in_one_piece());
        let panicked = |_| Err(ReceiveError::Body("encoding has panicked".to_owned()));
        catch_unwind(work).unwrap_or_else(panicked)
    }

    fn encode_in_one_piece(self) -> Result<Encoded, ReceiveError> {
        let unable = |error: EncodeError| ReceiveError::Body(error.to_string());
        let encoder = self
            .encoder
            .map_or_else(|| ArrowEncoder::try_new(self.batch.schema_ref()), Ok);
        let mut encoder = encoder.map_err(unable)?;
        let body = encoder.encode(&self.batch).map_err(unable)?;
        let batch = EncodedBatch {
            frames: vec![(StreamFrame::default(), body.concat().into())],
            cost_bytes: self.cost_bytes,
        };
        Ok(Encoded { batch, encoder })
    }
}

impl fmt::Debug for Spilling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spilling")
            .field("records", &self.reader.records())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

/// Every frame with the length of its body; then the bodies, one after the other.
fn to_record(batch: &EncodedBatch) -> SpillRecord {
    let mut header = BytesMut::new();
    for (frame, body) in &batch.frames {
        header.extend_from_slice(&(body.len() as u64).to_le_bytes());
        frame
            .encode_length_delimited(&mut header)
            .expect("invariant: a BytesMut has room");
    }
    SpillRecord {
        header: header.freeze(),
        body: batch.frames.iter().map(|(_, body)| body.clone()).collect(),
    }
}

fn from_record(record: SpillRecord) -> Result<EncodedBatch, ReceiveError> {
    let mut header = record.header;
    let mut body: VecDeque<_> = record.body.into();
    let mut frames = Vec::with_capacity(1);
    while let Some((frame, bytes)) = next_frame(&mut header) {
        let Some(piece) = cut(&mut body, bytes) else {
            break;
        };
        frames.push((frame, piece));
    }
    if !header.is_empty() || !body.is_empty() || frames.is_empty() {
        return Err(ReceiveError::Body(
            "a spilled batch is not what was written".to_owned(),
        ));
    }
    Ok(EncodedBatch {
        frames,
        cost_bytes: 0,
    })
}

/// Takes the next `bytes`, which are never parts of two pieces.
fn cut(body: &mut VecDeque<Bytes>, bytes: usize) -> Option<Bytes> {
    let piece = body.front_mut()?;
    if bytes > piece.len() {
        return None;
    }
    let taken = piece.split_to(bytes);
    if piece.is_empty() {
        body.pop_front();
    }
    Some(taken)
}

fn next_frame(header: &mut Bytes) -> Option<(StreamFrame, usize)> {
    let bytes = usize::try_from(header.try_get_u64_le().ok()?).ok()?;
    let frame = StreamFrame::decode_length_delimited(header).ok()?;
    Some((frame, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(bodies: &[usize]) -> EncodedBatch {
        let frames = bodies.iter().zip(1..).map(|(&bytes, sequence)| {
            let frame = StreamFrame {
                stream: Some(3),
                sequence: Some(sequence),
                ..StreamFrame::default()
            };
            (frame, Bytes::from(vec![7; bytes]))
        });
        EncodedBatch {
            frames: frames.collect(),
            cost_bytes: 500,
        }
    }

    /// As it comes back from a file.
    fn on_disk(record: SpillRecord) -> SpillRecord {
        let body = vec![Bytes::from(record.body.concat())];
        SpillRecord { body, ..record }
    }

    #[test]
    fn a_record_holds_the_frames_of_a_batch() {
        for bodies in [&[1_000][..], &[300, 300, 1]] {
            let sent = batch(bodies);
            for record in [to_record(&sent), on_disk(to_record(&sent))] {
                let read = from_record(record).expect("our own record");
                assert!(read.frames == sent.frames && read.cost_bytes == 0);
            }
        }
    }

    #[test]
    fn chunks_are_not_joined_before_they_are_written() {
        let sent = batch(&[300, 300]);
        let record = to_record(&sent);
        let places = record.body.iter().map(|piece| piece.as_ptr());
        let expected = sent.frames.iter().map(|(_, body)| body.as_ptr());
        assert!(places.eq(expected));
    }

    #[test]
    fn a_record_that_is_none_is_refused() {
        let record = to_record(&batch(&[1_000]));
        for length in 0..record.header.len() {
            let header = record.header.slice(..length);
            let body = record.body.clone();
            assert!(from_record(SpillRecord { header, body }).is_err());
        }
        for body in [Vec::new(), vec![record.body[0].slice(..999)]] {
            let header = record.header.clone();
            assert!(from_record(SpillRecord { header, body }).is_err());
        }
    }
}
