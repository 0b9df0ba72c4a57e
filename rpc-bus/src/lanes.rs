//! What waits to be written on a connection: two lanes of frames, cut into pieces for vectored writes.
//!
//! The control lane (heartbeats, replies) goes first at every frame boundary; the bulk lane takes its streams in turn.
//! Pieces below 1 KiB are joined, larger ones referenced where they are.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    io::IoSlice,
    mem,
};

use bytes::Bytes;
use prost::Message;

use crate::{
    frame::{HEAD_BYTES_MAX, Header, encode_dbody_head, encode_head},
    id_hash::IdHash,
};

/// Pieces below this are copied together; larger ones are referenced.
const JOIN_PIECE_BYTES_MAX: usize = 1024;
/// Messages above this are encoded before anything is locked.
const ENCODE_LOCKED_BYTES_MAX: usize = 1024;
/// Capacity of a buffer of joined pieces. It takes no more once the next piece might not fit: grown beyond, it would hold
/// twice what is charged for it.
const JOINED_BYTES: usize = 16 * 1024;
/// First capacity of such a buffer; afterwards that of the last one.
const JOINED_BYTES_MIN: usize = 128;
/// What a stream may send before it is the next one's turn.
const TURN_BYTES: usize = 64 * 1024;
/// About how much is handed to the socket before the control lane is looked at again.
const TRANSMIT_BYTES: usize = 256 * 1024;
/// Slices per vectored write.
pub(crate) const SLICES_MAX: usize = 64;

const _: () = assert!(JOIN_PIECE_BYTES_MAX <= JOINED_BYTES && TURN_BYTES <= TRANSMIT_BYTES);

/// Whose turn it is on the bulk lane. Frames of one key leave in the order in which they were queued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamKey(pub u64);

/// A protobuf body on its way into a queue. Only how a message is encoded depends on its type, so that all else is
/// compiled here, once, and not wherever calls are made.
pub(crate) enum Pbody<'a> {
    Encoded(Bytes),
    /// Encoded straight into the queue.
    Message {
        message: &'a (dyn Encode + Sync),
        bytes: usize,
    },
}

/// Any [`Message`].
pub(crate) trait Encode {
    fn encode_to(&self, out: &mut Vec<u8>);
}

impl<M: Message> Encode for M {
    fn encode_to(&self, out: &mut Vec<u8>) {
        // A Vec has room: what else `encode` does is to ask for the length again.
        self.encode_raw(out);
    }
}

impl<'a> Pbody<'a> {
    /// Encodes a long message at once, because the lock of the queue should be short.
    pub(crate) fn of(message: &'a impl Message) -> Self {
        let bytes = message.encoded_len();
        if bytes > ENCODE_LOCKED_BYTES_MAX {
            Self::Encoded(message.encode_to_vec().into())
        } else {
            Self::Message { message, bytes }
        }
    }

    pub(crate) fn bytes_len(&self) -> usize {
        match self {
            Self::Encoded(pbody) => pbody.len(),
            Self::Message { bytes, .. } => *bytes,
        }
    }
}

impl From<Bytes> for Pbody<'_> {
    fn from(pbody: Bytes) -> Self {
        Self::Encoded(pbody)
    }
}

impl fmt::Debug for Pbody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes_len())
    }
}

enum Segment {
    Joined(Vec<u8>),
    Shared(Bytes),
}

impl Segment {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Joined(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    fn len(&self) -> usize {
        self.as_slice().len()
    }
}

/// Without the bytes: those of a handshake may hold a password.
impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[derive(Debug)]
struct Piece {
    segment: Segment,
    /// Frames that end in it.
    frames: usize,
    /// Write room that they hold.
    room: usize,
    /// Whether its last byte is the last of a frame.
    ends_frame: bool,
}

impl Piece {
    /// Whether `next`, the piece behind it, is to be copied into this one.
    fn takes(&self, next: &Self) -> bool {
        match (&self.segment, &next.segment) {
            (Segment::Joined(bytes), Segment::Joined(more)) => {
                bytes.len() + more.len() <= JOINED_BYTES
            }
            _ => false,
        }
    }

    fn join(&mut self, next: &Self) {
        if let Segment::Joined(bytes) = &mut self.segment {
            let more = next.segment.as_slice();
            make_room(bytes, more.len());
            bytes.extend_from_slice(more);
        }
        self.frames += next.frames;
        self.room += next.room;
        self.ends_frame = next.ends_frame;
    }
}

/// Makes room for `more` bytes as a vector does by itself, but never for more than [`JOINED_BYTES`] in all.
fn make_room(bytes: &mut Vec<u8>, more: usize) {
    let needed = bytes.len() + more;
    if needed > bytes.capacity() {
        let capacity = (2 * bytes.capacity()).min(JOINED_BYTES).max(needed);
        bytes.reserve_exact(capacity - bytes.len());
    }
}

/// Whole frames, first in, first out.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
    frames: usize,
    last_joined_bytes: usize,
}

impl Queue {
    /// Returns the bytes that were queued.
    pub(crate) fn push_frame(
        &mut self,
        header: &Header,
        pbody: Pbody<'_>,
        dbody: Vec<Bytes>,
        room: usize,
    ) -> usize {
        let (pbody_len, dbody_len) = (pbody.bytes_len(), dbody.iter().map(Bytes::len).sum());
        let encoded_here = match &pbody {
            Pbody::Encoded(_) => 0,
            Pbody::Message { bytes, .. } => *bytes,
        };
        let joined = self.joined(HEAD_BYTES_MAX + encoded_here);
        let bytes = encode_head(header, pbody_len, dbody_len, joined);
        match pbody {
            Pbody::Encoded(pbody) => self.put_piece(pbody),
            Pbody::Message { message, .. } => message.encode_to(joined),
        }
        if dbody_len > 0 {
            encode_dbody_head(dbody_len, self.joined(HEAD_BYTES_MAX));
            for piece in dbody {
                self.put_piece(piece);
            }
        }
        if let Some(last) = self.pieces.back_mut() {
            last.frames += 1;
            last.room += room;
            last.ends_frame = true;
        }
        self.bytes += bytes;
        self.frames += 1;
        bytes
    }

    /// Moves all of `rest` behind what is here. Short pieces are copied together: one for each reply would hold several
    /// times what is charged for it.
    fn append(&mut self, rest: &mut Self) {
        if self.pieces.is_empty() {
            return mem::swap(self, rest);
        }
        for piece in rest.pieces.drain(..) {
            match self.pieces.back_mut() {
                Some(last) if last.takes(&piece) => last.join(&piece),
                _ => self.pieces.push_back(piece),
            }
        }
        self.bytes += mem::take(&mut rest.bytes);
        self.frames += mem::take(&mut rest.frames);
    }

    fn put_piece(&mut self, bytes: Bytes) {
        if bytes.len() < JOIN_PIECE_BYTES_MAX {
            self.joined(bytes.len()).extend_from_slice(&bytes);
        } else {
            self.push(Segment::Shared(bytes));
        }
    }

    /// Where the next `more` small bytes go, for which there is room.
    fn joined(&mut self, more: usize) -> &mut Vec<u8> {
        let open = |piece: &Piece| match &piece.segment {
            Segment::Joined(bytes) => bytes.len() + more <= JOINED_BYTES,
            Segment::Shared(_) => false,
        };
        if !self.pieces.back().is_some_and(open) {
            let capacity = self.last_joined_bytes.clamp(JOINED_BYTES_MIN, JOINED_BYTES);
            self.push(Segment::Joined(Vec::with_capacity(capacity)));
        }
        match self.pieces.back_mut() {
            Some(Piece {
                segment: Segment::Joined(bytes),
                ends_frame,
                ..
            }) => {
                *ends_frame = false;
                make_room(bytes, more);
                bytes
            }
            _ => unreachable!("invariant: the last piece is a joined one"),
        }
    }

    fn push(&mut self, segment: Segment) {
        self.pieces.push_back(Piece {
            segment,
            frames: 0,
            room: 0,
            ends_frame: false,
        });
    }

    /// Hands over whole frames until `bytes_min` are out or none is left; returns the bytes handed over.
    fn pull(&mut self, bytes_min: usize, out: &mut Transmit) -> usize {
        let mut pulled = 0;
        while let Some(piece) = self.pieces.pop_front() {
            if let Segment::Joined(bytes) = &piece.segment {
                self.last_joined_bytes = bytes.len();
            }
            pulled += piece.segment.len();
            self.frames -= piece.frames;
            out.frames += piece.frames as u64;
            out.room += piece.room;
            out.push(piece.segment);
            if piece.ends_frame && pulled >= bytes_min {
                break;
            }
        }
        self.bytes -= pulled;
        pulled
    }
}

/// Both lanes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    control: Queue,
    streams: HashMap<StreamKey, Queue, IdHash>,
    /// Streams that have something queued, next one first.
    turns: VecDeque<StreamKey>,
    bulk_bytes: usize,
    bulk_frames: usize,
}

impl Lanes {
    /// Queues a heartbeat or a reply.
    pub(crate) fn push_control(&mut self, header: &Header, pbody: Pbody<'_>, dbody: Vec<Bytes>) {
        self.control.push_frame(header, pbody, dbody, 0);
    }

    /// Puts a frame in front of everything.
    pub(crate) fn push_first(&mut self, header: &Header, pbody: Pbody<'_>) {
        let mut rest = mem::take(&mut self.control);
        self.control.push_frame(header, pbody, Vec::new(), 0);
        self.control.append(&mut rest);
    }

    /// Queues whole frames as heartbeats and replies are.
    pub(crate) fn append_control(&mut self, frames: &mut Queue) {
        self.control.append(frames);
    }

    /// Queues a request, which holds `room` until it is handed over.
    pub(crate) fn push_bulk(
        &mut self,
        (stream, room): (StreamKey, usize),
        header: &Header,
        pbody: Pbody<'_>,
        dbody: Vec<Bytes>,
    ) {
        let queue = self.streams.entry(stream).or_default();
        if queue.pieces.is_empty() {
            self.turns.push_back(stream);
        }
        self.bulk_bytes += queue.push_frame(header, pbody, dbody, room);
        self.bulk_frames += 1;
    }

    /// Moves about [`TRANSMIT_BYTES`] in whole frames into `out`.
    pub(crate) fn fill(&mut self, out: &mut Transmit) {
        self.fill_control(out);
        while out.bytes < TRANSMIT_BYTES {
            let Some(stream) = self.turns.pop_front() else {
                break;
            };
            self.take_turn(stream, out);
        }
    }

    /// The same of the control lane only.
    pub(crate) fn fill_control(&mut self, out: &mut Transmit) {
        if !self.control.pieces.is_empty() {
            self.control.pull(TRANSMIT_BYTES, out);
        }
    }

    fn take_turn(&mut self, stream: StreamKey, out: &mut Transmit) {
        let Some(queue) = self.streams.get_mut(&stream) else {
            return;
        };
        let frames = queue.frames;
        self.bulk_bytes -= queue.pull(TURN_BYTES, out);
        self.bulk_frames -= frames - queue.frames;
        if queue.pieces.is_empty() {
            self.streams.remove(&stream);
        } else {
            self.turns.push_back(stream);
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Drops the requests.
    pub(crate) fn clear_bulk(&mut self) {
        let control = mem::take(&mut self.control);
        *self = Self {
            control,
            ..Self::default()
        };
    }

    /// Frames that wait.
    pub(crate) fn frames(&self) -> usize {
        self.control.frames + self.bulk_frames
    }

    /// Whether all heartbeats and replies are handed over.
    pub(crate) fn control_is_empty(&self) -> bool {
        self.control.frames == 0
    }

    pub(crate) fn control_bytes(&self) -> usize {
        self.control.bytes
    }

    pub(crate) fn bulk_bytes(&self) -> usize {
        self.bulk_bytes
    }
}

/// What is being written right now.
#[derive(Debug, Default)]
pub(crate) struct Transmit {
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that are written.
    written: usize,
    bytes: usize,
    /// Frames pushed since the last [`Self::take_frames`].
    frames: u64,
    /// Write room given back by them, since the last [`Self::take_room`].
    room: usize,
}

impl Transmit {
    fn push(&mut self, segment: Segment) {
        self.bytes += segment.len();
        if segment.len() < JOIN_PIECE_BYTES_MAX
            && let Some(Segment::Joined(last)) = self.segments.back_mut()
            && last.len() < JOINED_BYTES
        {
            last.extend_from_slice(segment.as_slice());
            return;
        }
        self.segments.push_back(segment);
    }

    /// The next bytes to write, as up to 64 slices; returns how many there are.
    pub(crate) fn slices<'a>(&'a self, out: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut skip = self.written;
        let mut count = 0;
        for (slice, segment) in out.iter_mut().zip(&self.segments) {
            *slice = IoSlice::new(&segment.as_slice()[skip..]);
            skip = 0;
            count += 1;
        }
        count
    }

    /// Notes that `bytes` were written.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.written += bytes;
        while let Some(front) = self.segments.front()
            && self.written >= front.len()
        {
            self.written -= front.len();
            self.segments.pop_front();
        }
        if self.segments.is_empty() {
            // An idle connection keeps no memory.
            self.segments = VecDeque::new();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn take_frames(&mut self) -> u64 {
        mem::take(&mut self.frames)
    }

    pub(crate) fn take_room(&mut self) -> usize {
        mem::take(&mut self.room)
    }

    /// All that is left, copied: for tests and fuzzing, where no socket takes it.
    pub(crate) fn take_bytes(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes);
        for segment in self.segments.drain(..) {
            out.extend_from_slice(&segment.as_slice()[mem::take(&mut self.written)..]);
        }
        self.bytes = 0;
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use protos::rpc::{Ack, RpcMode};

    use super::*;
    use crate::frame::{CoordinationId, Walk};

    fn header(id: i32) -> Header {
        Header {
            mode: RpcMode::Request,
            coordination_id: CoordinationId(id),
            rpc_type: 3,
        }
    }

    fn push(lanes: &mut Lanes, stream: u64, id: i32, dbody: usize) {
        lanes.push_bulk(
            (StreamKey(stream), dbody),
            &header(id),
            Bytes::new().into(),
            vec![vec![0; dbody].into()],
        );
    }

    fn ids(wire: &[u8]) -> Vec<i32> {
        Walk::new(wire, 1 << 24)
            .map(|frame| frame.unwrap().header.coordination_id.0)
            .collect()
    }

    fn push_small(queue: &mut Queue, id: i32) {
        let pbody = Bytes::from_static(b"0123456789");
        queue.push_frame(&header(id), pbody.into(), vec![], 0);
    }

    fn held_bytes(queue: &Queue) -> usize {
        let capacity = queue.pieces.iter().map(|piece| match &piece.segment {
            Segment::Joined(bytes) => bytes.capacity(),
            Segment::Shared(bytes) => bytes.len(),
        });
        capacity.sum::<usize>() + queue.pieces.capacity() * size_of::<Piece>()
    }

    #[test]
    fn small_frames_hold_hardly_more_memory_than_their_bytes() {
        let queue = || Queue {
            // No power of two, so that twice that and so on is none either.
            last_joined_bytes: 1500,
            ..Queue::default()
        };
        let (mut together, mut one_by_one) = (queue(), queue());
        let (mut in_turns, mut turn) = (queue(), queue());
        for id in 0..10_000 {
            push_small(&mut together, id);
            let mut rest = Queue::default();
            push_small(&mut rest, id);
            one_by_one.append(&mut rest);
            assert_eq!((rest.bytes, rest.frames, rest.pieces.len()), (0, 0, 0));
            push_small(&mut turn, id);
            if id % 64 == 63 || id == 9_999 {
                in_turns.append(&mut turn);
            }
        }
        for mut queue in [together, one_by_one, in_turns] {
            let (held, bytes) = (held_bytes(&queue), queue.bytes);
            assert!(held < bytes * 11 / 10, "{held} for {bytes}");
            let mut out = Transmit::default();
            while queue.frames > 0 {
                queue.pull(TURN_BYTES, &mut out);
            }
            assert!(ids(&out.take_bytes()).into_iter().eq(0..10_000));
        }
    }

    #[test]
    fn replies_pass_queued_bulk() {
        let (mut lanes, mut out) = (Lanes::default(), Transmit::default());
        push(&mut lanes, 0, 1, 10);
        lanes.push_control(
            &Header::bare(RpcMode::Pong),
            Pbody::of(&Ack { ok: Some(true) }),
            vec![],
        );
        lanes.fill(&mut out);
        assert_eq!(
            (out.take_room(), out.take_frames(), lanes.frames()),
            (10, 2, 0)
        );
        assert_eq!(ids(&out.take_bytes()), [0, 1]);
    }

    #[test]
    fn streams_take_turns_and_keep_their_order() {
        let (mut lanes, mut out) = (Lanes::default(), Transmit::default());
        for id in [1, 2] {
            push(&mut lanes, 10, id, TURN_BYTES);
        }
        push(&mut lanes, 20, 3, TURN_BYTES);
        lanes.fill(&mut out);
        assert_eq!(ids(&out.take_bytes()), [1, 3, 2]);
        assert!(lanes.frames() == 0 && lanes.streams.is_empty() && lanes.bulk_bytes() == 0);
    }

    #[test]
    fn a_fill_takes_a_bounded_amount_in_whole_frames() {
        let (mut lanes, mut out) = (Lanes::default(), Transmit::default());
        (1..=100).for_each(|id| push(&mut lanes, 0, id, 10_000));
        let mut seen = Vec::new();
        while lanes.frames() > 0 {
            lanes.fill(&mut out);
            assert!(out.bytes < TRANSMIT_BYTES + TURN_BYTES + 20_000);
            seen.extend(ids(&out.take_bytes()));
        }
        assert_eq!(seen, (1..=100).collect::<Vec<_>>());
    }

    #[test]
    fn small_pieces_are_joined_and_large_ones_referenced() {
        let (mut lanes, mut out) = (Lanes::default(), Transmit::default());
        let large = Bytes::from(vec![7; JOIN_PIECE_BYTES_MAX]);
        let dbody = vec![
            Bytes::from_static(b"ab"),
            large.clone(),
            Bytes::from_static(b"cd"),
        ];
        lanes.push_bulk(
            (StreamKey(0), 0),
            &header(1),
            Bytes::from_static(b"p").into(),
            dbody,
        );
        (2..50).for_each(|id| push(&mut lanes, 0, id, 3));
        lanes.fill(&mut out);
        assert_eq!(out.segments.len(), 3);
        assert_eq!(out.segments[1].as_slice().as_ptr(), large.as_ptr());
        assert_eq!(ids(&out.take_bytes()), (1..50).collect::<Vec<_>>());
    }

    #[test]
    fn partial_writes_continue_where_they_stopped() {
        let (mut lanes, mut out) = (Lanes::default(), Transmit::default());
        (1..9).for_each(|id| push(&mut lanes, 0, id, 2000));
        lanes.fill(&mut out);
        let mut wire = Vec::new();
        while !out.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = out.slices(&mut slices);
            let bytes: Vec<u8> = slices[..count]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect();
            let written = bytes.len().min(777);
            wire.extend_from_slice(&bytes[..written]);
            out.advance(written);
        }
        assert_eq!(ids(&wire), (1..9).collect::<Vec<_>>());
    }
}
