//! Columns in the form that Arrow's writer writes as they are.
//!
//! It writes all that the buffers of a column hold, where a row may refer to any part of them: views, list views, dense
//! unions, dictionaries. After a filter, or in a slice, that may be any number of times what the rows show; then it is
//! left out here, at the cost of a copy. What is sliced with its rows stays as it is.
//!
//! Elements of lists that no row has it leaves out by itself, but of a union it then writes the first elements in place
//! of those that are left.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayData, ArrayRef, AsArray, FixedSizeListArray, GenericByteViewArray,
        GenericListArray, GenericListViewArray, MapArray, OffsetSizeTrait, StructArray,
        UInt64Array, UnionArray,
    },
    buffer::{OffsetBuffer, ScalarBuffer},
    compute::take,
    datatypes::{ByteViewType, DataType, FieldRef, UnionMode},
    error::ArrowError,
};
use arrow_select::dictionary::garbage_collect_any_dictionary;

use super::size::{Elements, Size, is_excess, pinned_bytes, shown_bytes};

/// Whether columns of a type may hold what Arrow writes and no row has, or writes wrong.
pub(super) fn needs_care(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View
        | DataType::BinaryView
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Dictionary(..)
        | DataType::Union(_, UnionMode::Dense) => true,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _)
            if has_union(item.data_type()) =>
        {
            true
        }
        // Runs are written as they are.
        DataType::RunEndEncoded(..) => false,
        other => inside(other).iter().any(needs_care),
    }
}

fn has_union(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Union(..)) || inside(data_type).iter().any(has_union)
}

fn inside(data_type: &DataType) -> Vec<DataType> {
    let of = |field: &FieldRef| field.data_type().clone();
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::RunEndEncoded(_, item)
        | DataType::Map(item, _) => vec![of(item)],
        DataType::Dictionary(_, values) => vec![DataType::clone(values)],
        DataType::Struct(fields) => fields.iter().map(of).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| of(field)).collect(),
        _ => Vec::new(),
    }
}

/// The same rows, with every list's elements from 0 to the end.
pub(super) fn compact(array: &ArrayRef, size: Size) -> Result<ArrayRef, ArrowError> {
    if !needs_care(array.data_type()) {
        return Ok(Arc::clone(array));
    }
    let compact = |array: &ArrayRef| compact(array, size);
    Ok(match array.data_type() {
        DataType::Utf8View => views(array, array.as_string_view()),
        DataType::BinaryView => views(array, array.as_binary_view()),
        DataType::List(item) => Arc::new(list::<i32>(item, array, size)?),
        DataType::LargeList(item) => Arc::new(list::<i64>(item, array, size)?),
        DataType::ListView(item) => Arc::new(list_view::<i32>(item, array, size)?),
        DataType::LargeListView(item) => Arc::new(list_view::<i64>(item, array, size)?),
        DataType::FixedSizeList(item, width) => {
            let (list, nulls) = (array.as_fixed_size_list(), array.nulls().cloned());
            let values = compact(list.values())?;
            let (item, rows) = (Arc::clone(item), list.len());
            Arc::new(FixedSizeListArray::try_new_with_length(
                item, *width, values, nulls, rows,
            )?)
        }
        DataType::Map(entries, sorted) => {
            let (map, nulls) = (array.as_map(), array.nulls().cloned());
            let all: ArrayRef = Arc::new(map.entries().clone());
            let (offsets, pairs) = between(map.offsets(), &all, size)?;
            let (entries, pairs) = (Arc::clone(entries), pairs.as_struct().clone());
            Arc::new(MapArray::try_new(entries, offsets, pairs, nulls, *sorted)?)
        }
        DataType::Struct(fields) => {
            let (columns, nulls) = (array.as_struct().columns(), array.nulls().cloned());
            let columns = columns.iter().map(compact).collect::<Result<_, _>>()?;
            let (fields, rows) = (fields.clone(), array.len());
            Arc::new(StructArray::try_new_with_length(
                fields, columns, nulls, rows,
            )?)
        }
        DataType::Union(fields, _) => {
            let dense = without_excess(array);
            let union = dense.as_union();
            let children = fields.iter().map(|(id, _)| compact(union.child(id)));
            let children = children.collect::<Result<_, _>>()?;
            let (ids, offsets) = (union.type_ids().clone(), union.offsets().cloned());
            Arc::new(UnionArray::try_new(fields.clone(), ids, offsets, children)?)
        }
        DataType::Dictionary(..) => {
            let dictionary = without_unused(array, size);
            let dictionary = dictionary.as_any_dictionary();
            dictionary.with_values(compact(dictionary.values())?)
        }
        _ => Arc::clone(array),
    })
}

fn views<T: ByteViewType>(array: &ArrayRef, views: &GenericByteViewArray<T>) -> ArrayRef {
    if is_excess(pinned_bytes(views), shown_bytes(views.views())) {
        return Arc::new(views.gc());
    }
    Arc::clone(array)
}

/// A dense union whose children hold about what its rows have.
fn without_excess(union: &ArrayRef) -> ArrayRef {
    let children = union.to_data();
    let there = children.child_data().iter().map(ArrayData::len).sum();
    let is_dense = union.as_union().offsets().is_some();
    if is_dense && is_excess(there, union.len()) {
        let rows = UInt64Array::from_iter_values(0..union.len() as u64);
        // What Arrow cannot take apart goes out whole.
        return take(union, &rows, None).unwrap_or_else(|_| Arc::clone(union));
    }
    Arc::clone(union)
}

/// A dictionary that is not much longer than its rows are many, if dictionaries are to be cut.
fn without_unused(array: &ArrayRef, size: Size) -> ArrayRef {
    let dictionary = array.as_any_dictionary();
    if size.cuts_dictionaries && is_excess(dictionary.values().len(), array.len()) {
        let used = garbage_collect_any_dictionary(dictionary);
        return used.unwrap_or_else(|_| Arc::clone(array));
    }
    Arc::clone(array)
}

fn list<O: OffsetSizeTrait>(
    item: &FieldRef,
    array: &ArrayRef,
    size: Size,
) -> Result<GenericListArray<O>, ArrowError> {
    let list = array.as_list::<O>();
    let (offsets, values) = between(list.offsets(), list.values(), size)?;
    GenericListArray::try_new(Arc::clone(item), offsets, values, list.nulls().cloned())
}

/// The elements between the first and the last offset, and the offsets in them.
fn between<O: OffsetSizeTrait>(
    offsets: &OffsetBuffer<O>,
    values: &ArrayRef,
    size: Size,
) -> Result<(OffsetBuffer<O>, ArrayRef), ArrowError> {
    let at = |offset: Option<&O>| offset.map_or(0, |offset| offset.as_usize());
    let (start, end) = (at(offsets.first()), at(offsets.last()));
    let values = compact(&values.slice(start, end - start), size)?;
    Ok((OffsetBuffer::from_lengths(offsets.lengths()), values))
}

fn list_view<O: OffsetSizeTrait>(
    item: &FieldRef,
    array: &ArrayRef,
    size: Size,
) -> Result<GenericListViewArray<O>, ArrowError> {
    let list = array.as_list_view::<O>();
    let (starts, sizes) = (list.offsets(), list.sizes());
    let elements = Elements::of(starts, sizes);
    let taken = if is_excess(elements.len, elements.shown) {
        // What Arrow cannot take apart goes out whole.
        take(list.values(), &indices(starts, sizes), None).ok()
    } else {
        None
    };
    let (starts, values) = if let Some(values) = taken {
        (one_after_the_other(sizes), values)
    } else {
        let within = |(&at, &size): (&O, &O)| at.as_usize() * usize::from(size > O::default());
        let starts = starts.iter().zip(sizes).map(within);
        let starts = starts.map(|at| O::usize_as(at.saturating_sub(elements.start)));
        let values = list.values().slice(elements.start, elements.len);
        (starts.collect(), values)
    };
    let (item, nulls) = (Arc::clone(item), list.nulls().cloned());
    let values = compact(&values, size)?;
    GenericListViewArray::try_new(item, starts, sizes.clone(), values, nulls)
}

/// Of the elements of all rows, in their order.
fn indices<O: OffsetSizeTrait>(starts: &[O], sizes: &[O]) -> UInt64Array {
    let rows = starts.iter().zip(sizes);
    let elements = rows.flat_map(|(at, size)| {
        let at = at.as_usize();
        at..at + size.as_usize()
    });
    UInt64Array::from_iter_values(elements.map(|at| at as u64))
}

fn one_after_the_other<O: OffsetSizeTrait>(sizes: &[O]) -> ScalarBuffer<O> {
    let mut end = O::default();
    let starts = sizes.iter().map(|&size| {
        let start = end;
        end += size;
        start
    });
    starts.collect()
}
