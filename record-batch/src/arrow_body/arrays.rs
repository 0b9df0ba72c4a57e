//! The arrays of one batch, from the nodes and buffers that its header lists depth first.
// wire: https://github.com/apache/arrow/blob/main/format/Message.fbs

use std::{collections::HashMap, ops::Range, sync::Arc};

use arrow::{
    array::{
        ArrayData, ArrayDataBuilder, ArrayRef, BufferSpec, PrimitiveArray, StringArray,
        downcast_primitive, layout, make_array, new_empty_array,
    },
    buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer},
    datatypes::{ArrowPrimitiveType, DataType, Field},
    ipc::RecordBatch,
};

use super::{
    error::{ArrowBodyError, ColumnProblem},
    header::{Lists, numbers},
};
use crate::checked::{self, Region};

/// Most values of a column or of its elements: Java's int, as in Drill's vectors. Arrow's arithmetic stays in range.
const LEN_MAX: usize = i32::MAX as usize;

/// What is left of a header's lists.
pub(super) struct Columns<'a> {
    lists: Lists<'a>,
    variadic: Vec<i64>,
    next: Next,
    ids: std::slice::Iter<'a, i64>,
    dictionaries: &'a HashMap<i64, ArrayRef>,
    body: Region<'a>,
    /// Most values of a column that no bytes stand for.
    rows_max: usize,
    /// How many of these may still be looked at one by one.
    looks: usize,
    /// Names down to the column that is being read.
    path: Vec<&'a str>,
}

/// How far the lists are read.
#[derive(Default)]
struct Next {
    node: usize,
    buffer: usize,
    variadic: usize,
    /// Where in the body the last buffer ended.
    byte: usize,
}

type Decoded<T> = Result<T, ColumnProblem>;

/// How many data buffers the columns of views have, depth first; checks that buffers are not compressed one by one.
pub(super) fn variadic_counts(header: RecordBatch<'_>) -> Result<Vec<i64>, ArrowBodyError> {
    if header.compression().is_some() {
        return Err(ArrowBodyError::Malformed("buffers compressed one by one"));
    }
    Ok(header
        .variadicBufferCounts()
        .into_iter()
        .flatten()
        .collect())
}

impl<'a> Columns<'a> {
    /// `ids` are those of the dictionaries, depth first.
    pub(super) fn new(
        lists: Lists<'a>,
        variadic: Vec<i64>,
        body: Region<'a>,
        (ids, dictionaries): (&'a [i64], &'a HashMap<i64, ArrayRef>),
        rows_max: usize,
    ) -> Self {
        Self {
            lists,
            variadic,
            next: Next::default(),
            ids: ids.iter(),
            dictionaries,
            body,
            rows_max,
            looks: rows_max,
            path: Vec::new(),
        }
    }

    /// The next top-level column, which has a value for each of `rows`.
    pub(super) fn of_rows(
        &mut self,
        field: &'a Field,
        rows: usize,
    ) -> Result<ArrayRef, ArrowBodyError> {
        let column = self.column(field).and_then(|array| match array.len() {
            actual if actual == rows => Ok(array),
            actual => Err(ColumnProblem::ValueCount {
                expected: rows,
                actual,
            }),
        });
        column.map_err(|problem| ArrowBodyError::Column {
            column: self.path.join("."),
            problem,
        })
    }

    /// Every node and buffer must belong to a column.
    pub(super) fn expect_end(&self) -> Result<(), ArrowBodyError> {
        let nodes = self.lists.nodes.len() - self.next.node;
        let buffers = self.lists.buffers.len() - self.next.buffer;
        if nodes + buffers > 0 {
            return Err(ArrowBodyError::LeftOver { nodes, buffers });
        }
        Ok(())
    }

    fn column(&mut self, field: &'a Field) -> Decoded<ArrayRef> {
        if !is_plain(field.data_type()) {
            return self.array(field).map(make_array);
        }
        self.path.push(field.name());
        let (len, has_nulls) = self.node()?;
        let column = self.plain(field.data_type(), len, has_nulls)?;
        self.path.pop();
        Ok(column)
    }

    /// A column of numbers. With these there is nothing to check but their length, and for small batches the general
    /// way takes several times as long.
    fn plain(&mut self, data_type: &'a DataType, len: usize, has_nulls: bool) -> Decoded<ArrayRef> {
        let validity = self.buffer()?;
        let nulls = has_nulls.then(|| nulls(validity, len)).transpose()?;
        let values = self.buffer()?;
        for spec in &layout(data_type).buffers {
            expect_whole_values(spec, values.len())?;
        }
        if let Some(array) = plain_array(data_type, len, &values, nulls.as_ref()) {
            return Ok(array);
        }
        let builder = ArrayDataBuilder::new(data_type.clone())
            .len(len)
            .nulls(nulls)
            .add_buffer(values);
        validated(builder).map(make_array)
    }

    // The path is left as it is where something is wrong.
    fn array(&mut self, field: &'a Field) -> Decoded<ArrayData> {
        self.path.push(field.name());
        let (len, has_nulls) = self.node()?;
        if len > self.rows_max && takes_no_bytes(field.data_type()) {
            return Err(self.too_many(len));
        }
        let data = match field.data_type() {
            DataType::Null => ArrayData::new_null(&DataType::Null, len),
            DataType::Union(..) | DataType::RunEndEncoded(..) => {
                self.without_validity(field.data_type(), len)?
            }
            data_type => self.with_validity(data_type, len, has_nulls)?,
        };
        self.path.pop();
        Ok(data)
    }

    fn with_validity(
        &mut self,
        data_type: &'a DataType,
        len: usize,
        has_nulls: bool,
    ) -> Decoded<ArrayData> {
        let validity = self.buffer()?;
        let nulls = has_nulls.then(|| nulls(validity, len)).transpose()?;
        let buffers = self.buffers(data_type)?;
        if *data_type == DataType::Utf8
            && let Some(text) = text(&buffers, len, nulls.as_ref())
        {
            return Ok(text.into());
        }
        if *data_type == DataType::Utf8View {
            return text_views(buffers, len, nulls);
        }
        let children = self.children(data_type)?;
        if nulls.is_some() {
            self.look_at_items(data_type, len)?;
        }
        let builder = ArrayDataBuilder::new(data_type.clone())
            .len(len)
            .nulls(nulls)
            .buffers(buffers)
            .child_data(children);
        validated(builder)
    }

    /// Where a fixed-size list has nulls, and its items must have none, Arrow makes a validity of all items, bit by bit.
    /// Columns of items that take no bytes would get any number of bits each, for the few bytes of their headers.
    fn look_at_items(&mut self, data_type: &DataType, len: usize) -> Decoded<()> {
        let DataType::FixedSizeList(item, size) = data_type else {
            return Ok(());
        };
        if item.is_nullable() || !takes_no_bytes(item.data_type()) {
            return Ok(());
        }
        let items = len.saturating_mul(usize::try_from(*size).unwrap_or_default());
        let left = self.looks.checked_sub(items);
        self.looks = left.ok_or_else(|| self.too_many(items))?;
        Ok(())
    }

    fn too_many(&self, values: usize) -> ColumnProblem {
        let values_max = self.rows_max;
        ColumnProblem::NoBytes { values, values_max }
    }

    fn without_validity(&mut self, data_type: &'a DataType, len: usize) -> Decoded<ArrayData> {
        let buffers = self.buffers(data_type)?;
        let children = self.children(data_type)?;
        // Arrow's writer gives an empty slice of runs one that ends at 0, which its arrays do not take.
        if len == 0 && matches!(data_type, DataType::RunEndEncoded(..)) {
            return Ok(ArrayData::new_empty(data_type));
        }
        let builder = ArrayDataBuilder::new(data_type.clone())
            .len(len)
            .buffers(buffers)
            .child_data(children);
        validated(builder)
    }

    /// The buffers of a layout, behind its validity.
    fn buffers(&mut self, data_type: &DataType) -> Decoded<Vec<Buffer>> {
        let layout = layout(data_type);
        let mut buffers = Vec::with_capacity(layout.buffers.len());
        for spec in &layout.buffers {
            let buffer = self.buffer()?;
            expect_whole_values(spec, buffer.len())?;
            buffers.push(buffer);
        }
        if layout.variadic {
            for _ in 0..self.variadic_count()? {
                buffers.push(self.buffer()?);
            }
        }
        Ok(buffers)
    }

    fn children(&mut self, data_type: &'a DataType) -> Decoded<Vec<ArrayData>> {
        match data_type {
            DataType::ListView(item) | DataType::LargeListView(item) => {
                let items = self.array(item)?;
                // Arrow's validation leaves this out, its constructors do not.
                if !item.is_nullable() && make_array(items.clone()).is_nullable() {
                    return Err(ColumnProblem::NullItems);
                }
                Ok(vec![items])
            }
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::Map(item, _) => Ok(vec![self.array(item)?]),
            DataType::Struct(members) => members.iter().map(|member| self.array(member)).collect(),
            DataType::RunEndEncoded(ends, values) => [ends, values]
                .map(|child| self.array(child))
                .into_iter()
                .collect(),
            DataType::Union(members, _) => members
                .iter()
                .map(|(_, member)| self.array(member))
                .collect(),
            DataType::Dictionary(_, values) => Ok(vec![self.dictionary(values)?]),
            _ => Ok(Vec::new()),
        }
    }

    /// A dictionary that never came has no values: then every row is null.
    fn dictionary(&mut self, values: &DataType) -> Decoded<ArrayData> {
        let id = self
            .ids
            .next()
            .ok_or(ColumnProblem::Missing("dictionary"))?;
        let dictionary = self.dictionaries.get(id).cloned();
        Ok(dictionary
            .unwrap_or_else(|| new_empty_array(values))
            .to_data())
    }

    /// Length of the next column, and whether it has nulls.
    fn node(&mut self) -> Decoded<(usize, bool)> {
        let node = self.lists.nodes.get(self.next.node);
        let node = node.ok_or(ColumnProblem::Missing("node"))?;
        self.next.node += 1;
        let (values, nulls) = numbers(node);
        match usize::try_from(values) {
            Ok(len) if len <= LEN_MAX && (0..=values).contains(&nulls) => Ok((len, nulls > 0)),
            _ => Err(ColumnProblem::Node { values, nulls }),
        }
    }

    fn variadic_count(&mut self) -> Decoded<usize> {
        let count = self.variadic.get(self.next.variadic).copied();
        self.next.variadic += 1;
        let left = self.lists.buffers.len() - self.next.buffer;
        count
            .and_then(|count| usize::try_from(count).ok())
            .filter(|&count| count <= left)
            .ok_or(ColumnProblem::Missing("count of data buffers"))
    }

    /// The next buffer, wrapped on its own. Buffers follow one another, as every writer lays them out: if they could
    /// overlap, a small body would hold any number of large columns, to be copied and checked one by one.
    fn buffer(&mut self) -> Decoded<Buffer> {
        let buffer = self.lists.buffers.get(self.next.buffer);
        let buffer = buffer.ok_or(ColumnProblem::Missing("buffer"))?;
        self.next.buffer += 1;
        let (offset, length) = numbers(buffer);
        // Where nothing is, some writers leave the offset 0.
        if length == 0 {
            return Ok(Buffer::default());
        }
        let available = self.body.len();
        let found =
            range(offset, length).and_then(|range| Some((self.body.get(range.clone())?, range)));
        let (bytes, range) = found.ok_or(ColumnProblem::Buffer {
            offset,
            length,
            available,
        })?;
        let (actual, expected) = (range.start, self.next.byte);
        if actual < expected {
            return Err(ColumnProblem::Overlap { actual, expected });
        }
        self.next.byte = range.end;
        Ok(bytes.share())
    }
}

fn range(offset: i64, length: i64) -> Option<Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    Some(start..end)
}

/// The validity of `len` rows; how many of them are null is counted here, not believed.
fn nulls(validity: Buffer, len: usize) -> Decoded<NullBuffer> {
    let (expected, actual) = (len.div_ceil(8), validity.len());
    if actual < expected {
        return Err(ColumnProblem::Validity { expected, actual });
    }
    Ok(NullBuffer::new(BooleanBuffer::new(validity, 0, len)))
}

/// Text as an [`ArrowEncoder`](super::ArrowEncoder) sends it: rows from the first byte on, all of it UTF-8. What is not,
/// Arrow judges.
fn text(buffers: &[Buffer], rows: usize, nulls: Option<&NullBuffer>) -> Option<StringArray> {
    let [offsets, data] = buffers else {
        return None;
    };
    let is_aligned = offsets.as_ptr().align_offset(align_of::<i32>()) == 0;
    if !is_aligned || offsets.len() < (rows + 1) * size_of::<i32>() {
        return None;
    }
    let offsets = ScalarBuffer::new(offsets.clone(), 0, rows + 1);
    checked::utf8(&checked::offsets(offsets).ok()?, data.clone(), nulls)
}

/// Arrow would check the text of each row on its own, also where many rows show the same.
fn text_views(buffers: Vec<Buffer>, rows: usize, nulls: Option<NullBuffer>) -> Decoded<ArrayData> {
    let bytes = ArrayDataBuilder::new(DataType::BinaryView)
        .len(rows)
        .nulls(nulls)
        .buffers(buffers);
    let text = checked::utf8_views(validated(bytes)?.into());
    Ok(text.ok_or(ColumnProblem::Text)?.into())
}

/// Arrow takes it for granted that no value is cut in two.
fn expect_whole_values(spec: &BufferSpec, actual: usize) -> Decoded<()> {
    match *spec {
        BufferSpec::FixedWidth { byte_width, .. }
            if byte_width > 0 && !actual.is_multiple_of(byte_width) =>
        {
            Err(ColumnProblem::Width { byte_width, actual })
        }
        _ => Ok(()),
    }
}

/// Whether a column of this type, without nulls, may be as long as it likes: bytes of the body do not limit it.
fn takes_no_bytes(data_type: &DataType) -> bool {
    match data_type {
        // Few runs make many rows.
        DataType::Null | DataType::RunEndEncoded(..) => true,
        DataType::FixedSizeBinary(size) => *size == 0,
        DataType::FixedSizeList(item, size) => *size == 0 || takes_no_bytes(item.data_type()),
        DataType::Struct(members) => members
            .iter()
            .all(|member| takes_no_bytes(member.data_type())),
        _ => false,
    }
}

/// Whether any bytes are values of this type.
fn is_plain(data_type: &DataType) -> bool {
    data_type.is_primitive() && !data_type.is_decimal()
}

/// `None` where `values` are too few, or not aligned.
fn plain_array(
    data_type: &DataType,
    len: usize,
    values: &Buffer,
    nulls: Option<&NullBuffer>,
) -> Option<ArrayRef> {
    macro_rules! of_type {
        ($type:ty) => {
            plain_array_of::<$type>(data_type, len, values, nulls)
        };
    }
    downcast_primitive! {
        data_type => (of_type),
        _ => None
    }
}

fn plain_array_of<T: ArrowPrimitiveType>(
    data_type: &DataType,
    len: usize,
    values: &Buffer,
    nulls: Option<&NullBuffer>,
) -> Option<ArrayRef> {
    let bytes = len.checked_mul(size_of::<T::Native>())?;
    let is_aligned = values.as_ptr().align_offset(align_of::<T::Native>()) == 0;
    if bytes > values.len() || !is_aligned {
        return None;
    }
    let values = ScalarBuffer::<T::Native>::new(values.clone(), 0, len);
    let array = PrimitiveArray::<T>::new(values, nulls.cloned());
    Some(Arc::new(array.with_data_type(data_type.clone())))
}

/// Checks lengths, offsets, keys and text; what is not aligned is copied.
fn validated(builder: ArrayDataBuilder) -> Decoded<ArrayData> {
    Ok(builder.align_buffers(true).build()?)
}
