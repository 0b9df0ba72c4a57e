//! What rows take in a body, about: what batches are cut by before they are encoded.

use arrow::{
    array::{
        Array, ArrayRef, AsArray, ByteView, GenericByteViewArray, GenericListViewArray,
        OffsetSizeTrait, RecordBatch,
    },
    buffer::OffsetBuffer,
    datatypes::{
        ByteViewType, DataType, Int16Type, Int32Type, Int64Type, RunEndIndexType, Schema, UnionMode,
    },
};

/// Longer values stand outside of their view.
const INLINE_BYTES_MAX: u32 = 12;
/// Up to this the dictionaries of a batch are sent whole, once for all batches that have the same.
const DICTIONARY_BYTES_MAX: usize = 1 << 20;

/// About how many bytes an [`ArrowEncoder`](crate::ArrowEncoder) makes of `batch`: what its rows need, however large
/// the buffers are that they are in. Dictionaries that are sent once for many batches are left out.
#[must_use]
pub fn arrow_body_bytes(batch: &RecordBatch) -> usize {
    let size = Size::of(batch);
    let columns = batch.columns().iter();
    columns
        .map(|column| size.bytes(column, 0, column.len()))
        .sum()
}

/// Whether what is there is clearly more than what is shown of it: then the rest is left out, at the cost of a copy.
pub(super) fn is_excess(there: usize, shown: usize) -> bool {
    there > shown.saturating_mul(2)
}

/// How the columns of a batch are sent.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// Values of dictionaries are left out where no row can have them.
    pub(super) cuts_dictionaries: bool,
}

impl Size {
    pub(super) fn of(batch: &RecordBatch) -> Self {
        let columns = || batch.columns().iter();
        Self {
            cuts_dictionaries: has_dictionary(batch.schema_ref())
                && columns().map(dictionary_bytes).sum::<usize>() > DICTIONARY_BYTES_MAX,
        }
    }

    /// Bytes of `len` rows from `start`.
    fn bytes(self, array: &ArrayRef, start: usize, len: usize) -> usize {
        let validity = if array.null_count() > 0 {
            len.div_ceil(8)
        } else {
            0
        };
        validity + self.value_bytes(array, start, len)
    }

    fn value_bytes(self, array: &ArrayRef, start: usize, len: usize) -> usize {
        let width = |width: i32| usize::try_from(width).unwrap_or(0);
        match array.data_type() {
            DataType::Boolean => len.div_ceil(8),
            DataType::FixedSizeBinary(of) => width(*of) * len,
            DataType::Utf8 => text(array.as_string::<i32>().offsets(), start, len),
            DataType::LargeUtf8 => text(array.as_string::<i64>().offsets(), start, len),
            DataType::Binary => text(array.as_binary::<i32>().offsets(), start, len),
            DataType::LargeBinary => text(array.as_binary::<i64>().offsets(), start, len),
            DataType::Utf8View => views(array.as_string_view(), start, len),
            DataType::BinaryView => views(array.as_binary_view(), start, len),
            DataType::FixedSizeList(_, of) => {
                let list = array.as_fixed_size_list();
                self.bytes(list.values(), start * width(*of), len * width(*of))
            }
            DataType::Struct(_) => {
                let columns = array.as_struct().columns().iter();
                columns.map(|column| self.bytes(column, start, len)).sum()
            }
            DataType::Dictionary(keys, _) => {
                keys.primitive_width().unwrap_or(0) * len + self.dictionary(array, len)
            }
            DataType::List(_)
            | DataType::LargeList(_)
            | DataType::Map(..)
            | DataType::ListView(_)
            | DataType::LargeListView(_)
            | DataType::RunEndEncoded(..)
            | DataType::Union(..) => self.nested(array, start, len),
            other => other.primitive_width().unwrap_or(0) * len,
        }
    }

    fn nested(self, array: &ArrayRef, start: usize, len: usize) -> usize {
        match array.data_type() {
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                self.list(list.values(), list.offsets(), start, len)
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                self.list(list.values(), list.offsets(), start, len)
            }
            DataType::Map(..) => {
                let map = array.as_map();
                let entries: ArrayRef = std::sync::Arc::new(map.entries().clone());
                self.list(&entries, map.offsets(), start, len)
            }
            DataType::ListView(_) => self.list_view(array.as_list_view::<i32>(), start, len),
            DataType::LargeListView(_) => self.list_view(array.as_list_view::<i64>(), start, len),
            DataType::RunEndEncoded(ends, _) => match ends.data_type() {
                DataType::Int16 => self.runs::<Int16Type>(array, start, len),
                DataType::Int32 => self.runs::<Int32Type>(array, start, len),
                _ => self.runs::<Int64Type>(array, start, len),
            },
            _ => self.union(array, start, len),
        }
    }

    fn list<O: OffsetSizeTrait>(
        self,
        values: &ArrayRef,
        offsets: &OffsetBuffer<O>,
        start: usize,
        len: usize,
    ) -> usize {
        let (first, elements) = span(offsets, start, len);
        len * size_of::<O>() + self.bytes(values, first, elements)
    }

    fn list_view<O: OffsetSizeTrait>(
        self,
        list: &GenericListViewArray<O>,
        start: usize,
        len: usize,
    ) -> usize {
        let rows = start..start + len;
        let elements = Elements::of(&list.offsets()[rows.clone()], &list.sizes()[rows]);
        let bytes = self.bytes(list.values(), elements.start, elements.len);
        2 * len * size_of::<O>() + share(bytes, elements.len, elements.shown)
    }

    fn runs<R: RunEndIndexType>(self, array: &ArrayRef, start: usize, len: usize) -> usize {
        if len == 0 {
            return 0;
        }
        let runs = array.as_run::<R>();
        let (first, last) = (
            runs.get_physical_index(start),
            runs.get_physical_index(start + len - 1),
        );
        let count = last + 1 - first;
        count * size_of::<R::Native>() + self.bytes(runs.values(), first, count)
    }

    fn union(self, array: &ArrayRef, start: usize, len: usize) -> usize {
        let DataType::Union(members, mode) = array.data_type() else {
            return 0;
        };
        let union = array.as_union();
        let children = || members.iter().map(|(id, _)| union.child(id));
        match mode {
            UnionMode::Sparse => {
                let bytes: usize = children().map(|child| self.bytes(child, start, len)).sum();
                len + bytes
            }
            UnionMode::Dense => {
                let bytes = children().map(|child| self.bytes(child, 0, child.len()));
                let there = children().map(Array::len).sum();
                len * (1 + size_of::<i32>()) + share(bytes.sum(), there, len)
            }
        }
    }

    fn dictionary(self, array: &ArrayRef, len: usize) -> usize {
        if !self.cuts_dictionaries {
            return 0;
        }
        let values = array.as_any_dictionary().values();
        share(self.bytes(values, 0, values.len()), values.len(), len)
    }
}

/// Which elements of a list view's values some rows have.
pub(super) struct Elements {
    /// The first, and how many there are to the last.
    pub(super) start: usize,
    pub(super) len: usize,
    /// Sum of the rows' sizes.
    pub(super) shown: usize,
}

impl Elements {
    pub(super) fn of<O: OffsetSizeTrait>(starts: &[O], sizes: &[O]) -> Self {
        let rows = || {
            starts
                .iter()
                .zip(sizes)
                .map(|(at, size)| (at.as_usize(), size.as_usize()))
        };
        // A row without elements may begin anywhere.
        let some = || rows().filter(|&(_, size)| size > 0);
        let start = some().map(|(at, _)| at).min().unwrap_or_default();
        let end = some().map(|(at, size)| at + size).max().unwrap_or(start);
        Self {
            start,
            len: end - start,
            shown: rows().map(|(_, size)| size).sum(),
        }
    }
}

/// What is sent of `bytes` in `there` values of which `shown` are shown.
fn share(bytes: usize, there: usize, shown: usize) -> usize {
    if is_excess(there, shown) {
        bytes / there * shown
    } else {
        bytes
    }
}

/// Where the rows' elements start, and how many there are.
fn span<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, start: usize, len: usize) -> (usize, usize) {
    let (first, end) = (offsets[start].as_usize(), offsets[start + len].as_usize());
    (first, end - first)
}

fn text<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, start: usize, len: usize) -> usize {
    len * size_of::<O>() + span(offsets, start, len).1
}

fn views<T: ByteViewType + ?Sized>(
    array: &GenericByteViewArray<T>,
    start: usize,
    len: usize,
) -> usize {
    let there = pinned_bytes(array);
    let shown = shown_bytes(&array.views()[start..start + len]);
    let data = if is_excess(there, shown) {
        shown
    } else {
        there
    };
    len * size_of::<u128>() + data
}

/// Bytes of all data buffers.
pub(super) fn pinned_bytes<T: ByteViewType + ?Sized>(array: &GenericByteViewArray<T>) -> usize {
    let buffers = array.data_buffers().iter();
    buffers.map(arrow::buffer::Buffer::len).sum()
}

/// Bytes of the data buffers that `views` show, counted once for each view.
pub(super) fn shown_bytes(views: &[u128]) -> usize {
    let lengths = views.iter().map(|&view| ByteView::from(view).length);
    lengths
        .filter(|&length| length > INLINE_BYTES_MAX)
        .map(|length| length as usize)
        .sum()
}

fn has_dictionary(schema: &Schema) -> bool {
    let fields = schema.flattened_fields();
    let mut types = fields.iter().map(|field| field.data_type());
    types.any(|of| matches!(of, DataType::Dictionary(..)))
}

/// Memory of all dictionaries of a column.
fn dictionary_bytes(column: &ArrayRef) -> usize {
    let mut bytes = 0;
    let mut left = vec![column.to_data()];
    while let Some(data) = left.pop() {
        let is_dictionary = matches!(data.data_type(), DataType::Dictionary(..));
        let children = data.child_data();
        if is_dictionary {
            let memory = children
                .iter()
                .map(arrow::array::ArrayData::get_buffer_memory_size);
            bytes += memory.sum::<usize>();
        } else {
            left.extend(children.iter().cloned());
        }
    }
    bytes
}
