//! Lists without elements that no row has. Arrow's writer leaves such elements out by itself, but of a union it then
//! writes the first elements in place of those that are left.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, GenericListViewArray,
        MapArray, OffsetSizeTrait, StructArray, UnionArray,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, FieldRef},
    error::ArrowError,
};

/// Whether a list has unions in it, at any depth.
pub(super) fn has_listed_union(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => has_union(item.data_type()),
        other => inside(other).iter().any(has_listed_union),
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

/// The same values, with every list's elements from 0 to the end.
pub(super) fn rebased(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::List(item) => Arc::new(list::<i32>(item, array)?),
        DataType::LargeList(item) => Arc::new(list::<i64>(item, array)?),
        DataType::ListView(item) => Arc::new(view::<i32>(item, array)?),
        DataType::LargeListView(item) => Arc::new(view::<i64>(item, array)?),
        DataType::FixedSizeList(item, width) => {
            let (list, nulls) = (array.as_fixed_size_list(), array.nulls().cloned());
            let values = rebased(list.values())?;
            let (item, rows) = (Arc::clone(item), list.len());
            Arc::new(FixedSizeListArray::try_new_with_length(
                item, *width, values, nulls, rows,
            )?)
        }
        DataType::Map(entries, sorted) => {
            let (map, nulls) = (array.as_map(), array.nulls().cloned());
            let all: ArrayRef = Arc::new(map.entries().clone());
            let (offsets, pairs) = between(map.offsets(), &all)?;
            let (entries, pairs) = (Arc::clone(entries), pairs.as_struct().clone());
            Arc::new(MapArray::try_new(entries, offsets, pairs, nulls, *sorted)?)
        }
        DataType::Struct(fields) => {
            let (columns, nulls) = (array.as_struct().columns(), array.nulls().cloned());
            let columns = columns.iter().map(rebased).collect::<Result<_, _>>()?;
            let (fields, rows) = (fields.clone(), array.len());
            Arc::new(StructArray::try_new_with_length(
                fields, columns, nulls, rows,
            )?)
        }
        DataType::Union(fields, _) => {
            let union = array.as_union();
            let children = fields.iter().map(|(id, _)| rebased(union.child(id)));
            let children = children.collect::<Result<_, _>>()?;
            let (ids, offsets) = (union.type_ids().clone(), union.offsets().cloned());
            Arc::new(UnionArray::try_new(fields.clone(), ids, offsets, children)?)
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            dictionary.with_values(rebased(dictionary.values())?)
        }
        _ => Arc::clone(array),
    })
}

fn list<O: OffsetSizeTrait>(
    item: &FieldRef,
    array: &ArrayRef,
) -> Result<GenericListArray<O>, ArrowError> {
    let list = array.as_list::<O>();
    let (offsets, values) = between(list.offsets(), list.values())?;
    GenericListArray::try_new(Arc::clone(item), offsets, values, list.nulls().cloned())
}

/// The elements between the first and the last offset, and the offsets in them.
fn between<O: OffsetSizeTrait>(
    offsets: &OffsetBuffer<O>,
    values: &ArrayRef,
) -> Result<(OffsetBuffer<O>, ArrayRef), ArrowError> {
    let at = |offset: Option<&O>| offset.map_or(0, |offset| offset.as_usize());
    let (start, end) = (at(offsets.first()), at(offsets.last()));
    let values = rebased(&values.slice(start, end - start))?;
    Ok((OffsetBuffer::from_lengths(offsets.lengths()), values))
}

fn view<O: OffsetSizeTrait>(
    item: &FieldRef,
    array: &ArrayRef,
) -> Result<GenericListViewArray<O>, ArrowError> {
    let list = array.as_list_view::<O>();
    let (starts, sizes) = (list.offsets(), list.sizes());
    let start = starts.iter().min().copied().unwrap_or_default();
    let ends = starts.iter().zip(sizes).map(|(&start, &size)| start + size);
    let len = ends.max().unwrap_or(start) - start;
    let values = rebased(&list.values().slice(start.as_usize(), len.as_usize()))?;
    let starts = starts.iter().map(|&at| at - start).collect();
    let (item, nulls) = (Arc::clone(item), list.nulls().cloned());
    GenericListViewArray::try_new(item, starts, sizes.clone(), values, nulls)
}
