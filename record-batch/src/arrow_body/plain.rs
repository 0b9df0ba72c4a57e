//! Writing batches of plain columns: numbers, booleans, text and bytes, nothing nested.
//!
//! The header of such a batch has the same form every time. Arrow writes it once, for a batch of one row; afterwards only
//! the numbers in it are written anew. For small batches Arrow's own way takes longer than all the rest of sending them.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, GenericByteArray, RecordBatch, downcast_primitive_array,
        new_null_array,
    },
    buffer::Buffer,
    datatypes::{ArrowNativeType, ByteArrayType, DataType, Field, Schema},
    ipc::writer::StreamEncoder,
};
use bytes::Bytes;

use super::{header::Places, message};
use crate::body::{Body, SHARE_BYTES_MIN};

/// Every buffer begins at a multiple of this.
const ALIGNMENT: usize = 64;
/// Marker and length in front of a header.
const PREFIX_BYTES: usize = 8;

/// Writes the batches of one schema, its own message left out.
#[derive(Debug)]
pub(super) struct PlainWriter {
    /// Where in the header the numbers are.
    places: Places,
    /// Marker, length and header as Arrow has written them once.
    head: Vec<u8>,
    /// Buffers of the batch that is being written.
    buffers: Vec<Option<Buffer>>,
}

impl PlainWriter {
    /// `None` where a column is not plain.
    pub(super) fn try_new(schema: &Schema) -> Option<Self> {
        let types = || schema.fields().iter().map(|field| field.data_type());
        if types().len() == 0 || !types().all(is_plain) {
            return None;
        }
        let (places, head) = example(types())?;
        Some(Self {
            places,
            head,
            buffers: Vec::new(),
        })
    }

    /// The pieces of a body; `None` where Arrow has to write it: a batch without rows.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Option<Vec<Bytes>> {
        let rows = batch.num_rows();
        if rows == 0 {
            return None;
        }
        let mut buffers = std::mem::take(&mut self.buffers);
        for column in batch.columns() {
            push_buffers(column, &mut buffers);
        }
        let joined = buffers.iter().flatten().map(joined_bytes).sum();
        let mut body = Body::beginning_with(&self.head, joined);
        let (places, mut offset) = (&self.places, 0);
        for (index, column) in batch.columns().iter().enumerate() {
            let node = (column.len(), column.null_count());
            places.write_node(&mut body.head_mut()[PREFIX_BYTES..], index, node);
        }
        // By reference: what was written a moment ago as three words is not to be read as something wider, since a
        // processor waits for that until all that was written before has left it.
        for (index, buffer) in buffers.iter().enumerate() {
            let length = buffer.as_ref().map_or(0, Buffer::len);
            let header = &mut body.head_mut()[PREFIX_BYTES..];
            places.write_buffer(header, index, (offset, length));
            if let Some(buffer) = buffer {
                body.push(buffer);
                body.push_zeros(length.next_multiple_of(ALIGNMENT) - length);
            }
            offset += length.next_multiple_of(ALIGNMENT);
        }
        places.write(&mut body.head_mut()[PREFIX_BYTES..], offset, rows);
        buffers.clear();
        self.buffers = buffers;
        Some(body.finish())
    }
}

/// The header of a batch with these columns, with what comes before it.
fn example<'a>(types: impl Iterator<Item = &'a DataType>) -> Option<(Places, Vec<u8>)> {
    let columns = types.map(|data_type| {
        let field = Field::new("", data_type.clone(), true);
        (field, new_null_array(data_type, 1))
    });
    let (fields, columns): (Vec<_>, Vec<_>) = columns.unzip();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).ok()?;
    let body = StreamEncoder::try_new(&schema).ok()?.encode(&batch).ok()?;
    let body: Vec<u8> = body.iter().flat_map(|buffer| &**buffer).copied().collect();
    let mut rest = Bytes::from(body);
    // The schema's message, which has no data.
    message::cut(&mut rest).ok()??;
    let head = rest.clone();
    let header = message::cut(&mut rest).ok()??;
    let head = head.slice(..PREFIX_BYTES + header.len());
    let places = Places::of(message::parse(&header).ok()?, &header)?;
    Some((places, head.to_vec()))
}

fn is_plain(data_type: &DataType) -> bool {
    use DataType::{Binary, Boolean, LargeBinary, LargeUtf8, Utf8};
    data_type.is_primitive()
        || matches!(data_type, Boolean | Utf8 | LargeUtf8 | Binary | LargeBinary)
}

/// Bytes of a buffer and its padding that are copied to others.
fn joined_bytes(buffer: &Buffer) -> usize {
    let len = buffer.len();
    let padding = len.next_multiple_of(ALIGNMENT) - len;
    padding + if len < SHARE_BYTES_MIN { len } else { 0 }
}

/// Buffers of a plain column, only of the rows that it has; a validity without nulls is left out.
fn push_buffers(column: &ArrayRef, out: &mut Vec<Option<Buffer>>) {
    let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
    out.push(nulls.map(|nulls| nulls.inner().sliced()));
    downcast_primitive_array! {
        column => out.push(Some(column.values().inner().clone())),
        DataType::Boolean => out.push(Some(column.as_boolean().values().sliced())),
        DataType::Utf8 => push_text(column.as_string::<i32>(), out),
        DataType::LargeUtf8 => push_text(column.as_string::<i64>(), out),
        DataType::Binary => push_text(column.as_binary::<i32>(), out),
        DataType::LargeBinary => push_text(column.as_binary::<i64>(), out),
        other => unreachable!("invariant: {other} is not plain"),
    }
}

/// Offsets from 0 on, and what they cut.
fn push_text<T: ByteArrayType>(array: &GenericByteArray<T>, out: &mut Vec<Option<Buffer>>) {
    let offsets = array.offsets();
    let (start, end) = (offsets[0], offsets[array.len()]);
    out.push(Some(if start.as_usize() == 0 {
        offsets.inner().inner().clone()
    } else {
        let rebased: Vec<_> = offsets.iter().map(|&offset| offset - start).collect();
        Buffer::from_vec(rebased)
    }));
    let bytes = (end - start).as_usize();
    out.push(Some(
        array.values().slice_with_length(start.as_usize(), bytes),
    ));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::iter::repeat_n;

    use arrow::{array::BooleanArray, compute::cast};

    use super::*;
    use crate::ArrowEncoder;

    const TYPES: [DataType; 8] = [
        DataType::Int8,
        DataType::Int64,
        DataType::Decimal256(40, 2),
        DataType::Boolean,
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Binary,
        DataType::LargeBinary,
    ];

    /// Each of the types with and without nulls.
    fn batch(rows: usize) -> RecordBatch {
        let columns = TYPES.iter().flat_map(|data_type| {
            [false, true].map(|has_nulls| {
                let is_null = |row: usize| has_nulls && row.is_multiple_of(3);
                let of_row = |row| (!is_null(row)).then_some(row.is_multiple_of(2));
                let bools: ArrayRef = Arc::new((0..rows).map(of_row).collect::<BooleanArray>());
                let numbers = cast(&bools, &DataType::Int64).unwrap();
                let text = cast(&numbers, &DataType::Utf8).unwrap();
                cast(
                    if data_type.is_numeric() {
                        &numbers
                    } else {
                        &text
                    },
                    data_type,
                )
                .or_else(|_| cast(&bools, data_type))
                .unwrap()
            })
        });
        RecordBatch::try_from_iter_with_nullable(
            columns
                .enumerate()
                .map(|(at, column)| (format!("c{at}"), column, true)),
        )
        .unwrap()
    }

    fn arrows(batch: &RecordBatch) -> Vec<u8> {
        let mut stream = StreamEncoder::try_new(&batch.schema()).unwrap();
        stream.encode(batch).unwrap();
        let buffers = stream.encode(batch).unwrap();
        buffers.iter().flat_map(|buffer| buffer.to_vec()).collect()
    }

    #[test]
    fn plain_batches_are_written_as_arrow_writes_them() {
        let whole = batch(20_000);
        let mut writer = PlainWriter::try_new(&whole.schema()).unwrap();
        for (start, rows) in [
            (0, 20_000),
            (0, 1),
            (3, 1),
            (8, 100),
            (5, 19_000),
            (1, 7_777),
        ] {
            let batch = whole.slice(start, rows);
            let written = writer.write(&batch).unwrap().concat();
            assert!(written == arrows(&batch), "{rows} rows from {start}");
        }
    }

    #[test]
    fn a_batch_without_rows_is_left_to_arrow() {
        let empty = batch(0);
        let mut writer = PlainWriter::try_new(&empty.schema()).unwrap();
        assert!(writer.write(&empty).is_none());
    }

    #[test]
    fn nested_columns_are_left_to_arrow() {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int8, true)));
        for other in [list, DataType::Null, DataType::Utf8View] {
            let fields = [DataType::Int8, other].map(|of| Field::new("", of, true));
            assert!(PlainWriter::try_new(&Schema::new(fields.to_vec())).is_none());
        }
        assert!(PlainWriter::try_new(&Schema::empty()).is_none());
    }

    #[test]
    fn columns_that_are_not_those_of_the_schema_are_refused_however_late_they_come() {
        let of =
            |data_type, is_nullable| Schema::new(vec![Field::new("c", data_type, is_nullable)]);
        let batch =
            |column: ArrayRef| RecordBatch::try_from_iter([("other name", column)]).unwrap();
        let right = batch(new_null_array(&DataType::Int8, 2));
        let mut encoder = ArrowEncoder::try_new(&Arc::new(of(DataType::Int8, true))).unwrap();
        for good in repeat_n(&right, 3) {
            encoder.encode(good).unwrap();
        }
        encoder
            .encode(&batch(new_null_array(&DataType::Int16, 2)))
            .unwrap_err();

        let mut encoder = ArrowEncoder::try_new(&Arc::new(of(DataType::Int8, false))).unwrap();
        let without: ArrayRef = Arc::new(arrow::array::Int8Array::from(vec![1, 2]));
        for good in repeat_n(&batch(without), 3) {
            encoder.encode(good).unwrap();
        }
        encoder.encode(&right).unwrap_err();
    }
}
