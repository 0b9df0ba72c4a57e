//! Arrow's kinds of lists, brought to one: 32-bit offsets, and the elements between them.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, UInt32Array},
    buffer::{NullBuffer, OffsetBuffer},
    compute::{cast, take},
    datatypes::DataType,
};

use crate::error::EncodeProblem;

/// The elements of a list or map array, row by row.
pub(super) struct Elements {
    /// From wherever the array was cut; the first one is where `values` start.
    pub(super) offsets: OffsetBuffer<i32>,
    pub(super) values: ArrayRef,
}

/// The elements of any of Arrow's lists and maps. Null rows may have some.
pub(super) fn of(array: &ArrayRef) -> Result<Elements, EncodeProblem> {
    match array.data_type() {
        DataType::LargeList(_) => large(array.as_list()),
        DataType::FixedSizeList(_, width) => fixed_size(array, *width),
        DataType::ListView(item) | DataType::LargeListView(item) => {
            of(&cast(array, &DataType::LargeList(item.clone()))?)
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            Ok(between(map.offsets().clone(), &entries))
        }
        _ => {
            let list = array.as_list::<i32>();
            Ok(between(list.offsets().clone(), list.values()))
        }
    }
}

fn between(offsets: OffsetBuffer<i32>, values: &ArrayRef) -> Elements {
    let values = span(&offsets, values);
    Elements { offsets, values }
}

fn span<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, values: &ArrayRef) -> ArrayRef {
    let at = |offset: Option<&O>| offset.map_or(0, |offset| offset.as_usize());
    let (start, end) = (at(offsets.first()), at(offsets.last()));
    values.slice(start, end - start)
}

fn large(list: &GenericListArray<i64>) -> Result<Elements, EncodeProblem> {
    let values = span(list.offsets(), list.values());
    let size = values.len();
    if i32::try_from(size).is_err() {
        return Err(EncodeProblem::TooLarge { size });
    }
    let offsets = OffsetBuffer::from_lengths(list.offsets().lengths());
    Ok(Elements { offsets, values })
}

fn fixed_size(array: &ArrayRef, width: i32) -> Result<Elements, EncodeProblem> {
    let width = usize::try_from(width).unwrap_or(0);
    let size = array.len().saturating_mul(width);
    if i32::try_from(size).is_err() {
        return Err(EncodeProblem::TooLarge { size });
    }
    let offsets = OffsetBuffer::from_repeated_length(width, array.len());
    let values = array.as_fixed_size_list().values().clone();
    Ok(Elements { offsets, values })
}

impl Elements {
    /// The same with no elements in null rows.
    pub(super) fn without_null_rows(
        self,
        nulls: Option<&NullBuffer>,
    ) -> Result<Self, EncodeProblem> {
        let Some(nulls) = nulls.filter(|nulls| self.offsets.has_non_empty_nulls(Some(nulls)))
        else {
            return Ok(self);
        };
        let start = self.offsets[0];
        let rows = || self.offsets.array_windows().zip(nulls.iter());
        let kept = rows()
            .filter(|&(_, valid)| valid)
            .flat_map(|(&[from, to], _)| from..to);
        let picks: UInt32Array = kept.map(|at| (at - start).unsigned_abs()).collect();
        let lengths = self.offsets.lengths().zip(nulls.iter());
        Ok(Self {
            values: take(&self.values, &picks, None)?,
            offsets: OffsetBuffer::from_lengths(
                lengths.map(|(n, valid)| if valid { n } else { 0 }),
            ),
        })
    }
}
