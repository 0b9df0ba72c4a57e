//! Headers of batches that differ in their numbers only, as those of one stream do: taken apart once, then compared.

use std::ops::Range;

use arrow::ipc::{Message, MessageHeader, RecordBatch};

/// Two numbers of eight bytes, little endian: a node's length and nulls, or a buffer's offset and length.
pub(super) type Pair = [u8; 16];

/// What a header says of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lists<'a> {
    pub(super) rows: i64,
    /// Length and nulls of each column, depth first.
    pub(super) nodes: &'a [Pair],
    /// Offset and length of each buffer, in the same order.
    pub(super) buffers: &'a [Pair],
}

impl<'a> Lists<'a> {
    pub(super) fn of(batch: RecordBatch<'a>) -> Self {
        let nodes = batch.nodes().map_or(&[][..], |nodes| nodes.bytes());
        let buffers = batch.buffers().map_or(&[][..], |buffers| buffers.bytes());
        Self {
            rows: batch.length(),
            nodes: nodes.as_chunks().0,
            buffers: buffers.as_chunks().0,
        }
    }
}

/// Both numbers of a pair.
pub(super) fn numbers(pair: &Pair) -> (i64, i64) {
    let (numbers, _) = pair.as_chunks::<8>();
    (
        i64::from_le_bytes(numbers[0]),
        i64::from_le_bytes(numbers[1]),
    )
}

/// A header, and where in it those numbers are that differ from batch to batch.
#[derive(Debug)]
pub(super) struct Template {
    header: Vec<u8>,
    places: Places,
}

/// Offsets in a header.
#[derive(Clone, Debug)]
pub(super) struct Places {
    body_length: usize,
    rows: usize,
    nodes: Range<usize>,
    buffers: Range<usize>,
}

impl Template {
    /// `message` is what `header` says. `None` if it is not that of a batch, or if one of the numbers is left out because
    /// it is 0.
    pub(super) fn of(message: Message<'_>, header: &[u8]) -> Option<Self> {
        Some(Self {
            places: Places::of(message, header)?,
            header: header.to_vec(),
        })
    }

    /// Length of the data and lists, if `header` differs in nothing else.
    pub(super) fn read<'a>(&mut self, header: &'a [u8]) -> Option<(i64, Lists<'a>)> {
        if header.len() != self.header.len() {
            return None;
        }
        for range in self.places.ranges() {
            let numbers = header.get(range.clone())?;
            self.header.get_mut(range)?.copy_from_slice(numbers);
        }
        (self.header == header).then(|| self.places.read(header))?
    }
}

impl Places {
    /// `message` is what `header` says; see [`Template::of`].
    pub(super) fn of(message: Message<'_>, header: &[u8]) -> Option<Self> {
        let batch = match message.header_type() {
            MessageHeader::RecordBatch => message.header_as_record_batch()?,
            _ => return None,
        };
        if batch.variadicBufferCounts().is_some() {
            return None;
        }
        let vtable = |offset: u16| (offset > 0).then(|| usize::from(offset));
        let body_length = message._tab.vtable().get(Message::VT_BODYLENGTH);
        let rows = batch._tab.vtable().get(RecordBatch::VT_LENGTH);
        let range = |bytes: &[u8]| {
            let start = bytes.as_ptr().addr() - header.as_ptr().addr();
            start..start + bytes.len()
        };
        Some(Self {
            body_length: message._tab.loc() + vtable(body_length)?,
            rows: batch._tab.loc() + vtable(rows)?,
            nodes: range(batch.nodes()?.bytes()),
            buffers: range(batch.buffers()?.bytes()),
        })
    }

    fn ranges(&self) -> [Range<usize>; 4] {
        let number = |at| at..at + size_of::<i64>();
        [
            number(self.body_length),
            number(self.rows),
            self.nodes.clone(),
            self.buffers.clone(),
        ]
    }

    fn read<'a>(&self, header: &'a [u8]) -> Option<(i64, Lists<'a>)> {
        let number = |at: usize| Some(i64::from_le_bytes(*header.get(at..)?.first_chunk()?));
        let pairs = |range: &Range<usize>| Some(header.get(range.clone())?.as_chunks().0);
        let lists = Lists {
            rows: number(self.rows)?,
            nodes: pairs(&self.nodes)?,
            buffers: pairs(&self.buffers)?,
        };
        Some((number(self.body_length)?, lists))
    }

    /// Writes the length of the data and the rows of a batch.
    pub(super) fn write(&self, header: &mut [u8], body_length: usize, rows: usize) {
        write(header, self.body_length, body_length);
        write(header, self.rows, rows);
    }

    /// Writes the node of the column at `index`.
    pub(super) fn write_node(&self, header: &mut [u8], index: usize, pair: (usize, usize)) {
        write_pair(header, self.nodes.start + index * size_of::<Pair>(), pair);
    }

    /// Writes the buffer at `index`.
    pub(super) fn write_buffer(&self, header: &mut [u8], index: usize, pair: (usize, usize)) {
        write_pair(header, self.buffers.start + index * size_of::<Pair>(), pair);
    }
}

fn write_pair(header: &mut [u8], at: usize, (first, second): (usize, usize)) {
    write(header, at, first);
    write(header, at + size_of::<i64>(), second);
}

/// Lengths in memory are below 2^63.
fn write(header: &mut [u8], at: usize, number: usize) {
    header[at..at + size_of::<i64>()].copy_from_slice(&(number as u64).to_le_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use bytes::Bytes;

    use super::*;
    use crate::{ArrowEncoder, arrow_body::message};

    fn header(rows: i64) -> Bytes {
        let values = (0..rows).map(|row| (row % 3 > 0).then_some(row));
        let column: ArrayRef = Arc::new(values.collect::<Int64Array>());
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let mut encoder = ArrowEncoder::try_new(&batch.schema()).unwrap();
        encoder.encode(&batch).unwrap();
        let mut body = Bytes::from(encoder.encode(&batch).unwrap().concat());
        message::cut(&mut body).unwrap().unwrap()
    }

    fn template(rows: i64) -> Template {
        let header = header(rows);
        Template::of(message::parse(&header).unwrap(), &header).unwrap()
    }

    #[test]
    fn headers_of_one_form_say_what_their_flatbuffers_say() {
        let mut template = template(7);
        for rows in [1, 100, 3] {
            let header = header(rows);
            let (length, lists) = template.read(&header).unwrap();
            let message = message::parse(&header).unwrap();
            let batch = message.header_as_record_batch().unwrap();
            assert_eq!((length, lists.rows), (message.bodyLength(), rows));
            assert_eq!(numbers(&lists.nodes[0]), (rows, (rows + 2) / 3));
            let buffers: Vec<_> = lists.buffers.iter().map(numbers).collect();
            let expected = batch.buffers().unwrap();
            let expected = expected
                .iter()
                .map(|buffer| (buffer.offset(), buffer.length()));
            assert_eq!(buffers, expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn any_other_difference_makes_a_header_of_another_form() {
        let header = header(7);
        let places = template(7).places.ranges();
        for at in 0..header.len() {
            let mut other = header.to_vec();
            other[at] ^= 1;
            let is_number = places.iter().any(|place| place.contains(&at));
            assert_eq!(template(7).read(&other).is_some(), is_number, "byte {at}");
        }
        assert!(template(7).read(&header[..header.len() - 1]).is_none());
    }
}
