//! Goes through bytes that are all there, frame by frame, and says where everything lies: for tools and tests.

use super::{FrameError, FrameErrorKind, Header, parse};

/// A frame where it lies in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkedFrame<'a> {
    /// Offset of the length prefix in the stream.
    pub offset: u64,
    /// Bytes of the frame, length prefix excluded.
    pub length: usize,
    /// Mode, id and type.
    pub header: Header,
    /// The protobuf body.
    pub pbody: &'a [u8],
    /// The raw body.
    pub dbody: &'a [u8],
}

/// Iterator over the frames of a slice; ends behind the first error.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    input: &'a [u8],
    at: usize,
    frame_bytes_max: usize,
}

impl<'a> Walk<'a> {
    /// Starts at the first byte of a stream. Frames above `frame_bytes_max` bytes are errors.
    #[must_use]
    pub fn new(input: &'a [u8], frame_bytes_max: usize) -> Self {
        Self {
            input,
            at: 0,
            frame_bytes_max,
        }
    }

    /// Where the next frame starts; after an error, where the frame that holds it starts.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.at as u64
    }

    /// The frame at `self.at`, and where it ends.
    fn frame(&self) -> Result<(WalkedFrame<'a>, usize), FrameError> {
        let offset = self.offset();
        let rest = &self.input[self.at..];
        let Some(prefix) = parse::prefix(rest, self.frame_bytes_max, offset)? else {
            return Err(self.truncated(1));
        };
        let body = &rest[prefix.len..];
        let base = offset + prefix.len as u64;
        let Some(body) = body.get(..prefix.frame_len) else {
            // A wrong byte is the thing to name, if there is one.
            parse::partial(body, prefix.frame_len, base)?;
            return Err(self.truncated(prefix.frame_len - body.len()));
        };
        let parts = parse::whole(body, base)?;
        let frame = WalkedFrame {
            offset,
            length: prefix.frame_len,
            header: parts.header,
            pbody: parts.pbody,
            dbody: parts.dbody,
        };
        Ok((frame, self.at + prefix.len + prefix.frame_len))
    }

    fn truncated(&self, expected: usize) -> FrameError {
        FrameErrorKind::Truncated { expected }.at(self.input.len() as u64)
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<WalkedFrame<'a>, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.input.len() {
            return None;
        }
        match self.frame() {
            Ok((frame, end)) => {
                self.at = end;
                Some(Ok(frame))
            }
            Err(error) => {
                self.input = &self.input[..self.at];
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Part;

    const PING: [u8; 13] = [0x0c, 0x0a, 6, 8, 3, 0x10, 0, 0x18, 0, 0x12, 2, 8, 1];

    #[test]
    fn offsets_and_lengths_are_those_of_the_stream() {
        let wire = [PING, PING].concat();
        let places: Vec<_> = Walk::new(&wire, 1024)
            .map(|frame| frame.map(|f| (f.offset, f.length, f.pbody.to_vec())))
            .collect();
        assert_eq!(places, [Ok((0, 12, vec![8, 1])), Ok((13, 12, vec![8, 1]))]);
    }

    #[test]
    fn everything_before_the_damage_comes_out_first() {
        let mut wire = [PING, PING].concat();
        wire[13 + 9] = 0x1a;
        let mut walk = Walk::new(&wire, 1024);
        assert!(walk.next().is_some_and(|frame| frame.is_ok()));
        let expected = FrameErrorKind::Key {
            expected: Part::Pbody,
            actual: Some(0x1a),
        }
        .at(22);
        assert_eq!(walk.next(), Some(Err(expected)));
        assert_eq!((walk.offset(), walk.next()), (13, None));
    }

    #[test]
    fn a_cut_stream_says_how_many_bytes_are_missing() {
        let error = Walk::new(&PING[..10], 1024).next();
        assert_eq!(
            error,
            Some(Err(FrameErrorKind::Truncated { expected: 3 }.at(10)))
        );
    }
}
