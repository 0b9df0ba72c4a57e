//! What a batch of this process brings that its rows do not show: dictionaries that the batch before did not have.
//!
//! To another process a dictionary is sent once for all batches that have it. Within this one every batch holds its own,
//! whose memory may be a thousand times that of its rows.

use std::sync::{Arc, Weak};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, Int16Type, Int32Type, Int64Type, Schema},
};

/// The dictionaries of the batch that was handed over last. They are not kept alive: one that has gone costs again.
#[derive(Debug)]
pub(crate) struct LastDictionaries(Vec<Weak<dyn Array>>);

impl LastDictionaries {
    /// `None` where no batch has any, so that none is looked for.
    pub(crate) fn of(schema: &Schema) -> Option<Self> {
        let fields = schema.flattened_fields();
        let mut types = fields.iter().map(|field| field.data_type());
        let is_dictionary = |of: &DataType| matches!(of, DataType::Dictionary(..));
        types.any(is_dictionary).then(|| Self(Vec::new()))
    }

    /// Bytes of the dictionaries of `batch` which is handed over now, but for those that the last one has brought.
    ///
    /// So of all that wait, the only dictionaries that cost nothing are those that the oldest batch shares with one that was
    /// taken.
    pub(crate) fn new_bytes(&mut self, batch: &RecordBatch) -> usize {
        let mut now = Vec::with_capacity(self.0.len());
        find_all(batch.columns(), &mut now);
        let is_new = |(at, values): &(usize, &&ArrayRef)| {
            let last = self.0.get(*at).and_then(Weak::upgrade);
            last.is_none_or(|last| !is_same(&last, values))
        };
        let new = now.iter().enumerate().filter(is_new);
        let bytes = new.map(|(_, values)| values.get_buffer_memory_size()).sum();
        self.0 = now.into_iter().map(Arc::downgrade).collect();
        bytes
    }
}

/// Slices share the array; what was read from a file, the buffers at least.
fn is_same(one: &ArrayRef, other: &ArrayRef) -> bool {
    Arc::ptr_eq(one, other) || one.to_data().ptr_eq(&other.to_data())
}

/// Adds the dictionaries of `array`, always in the same order.
fn find<'a>(array: &'a dyn Array, found: &mut Vec<&'a ArrayRef>) {
    match array.data_type() {
        DataType::Dictionary(..) => found.push(array.as_any_dictionary().values()),
        DataType::Struct(_) => find_all(array.as_struct().columns(), found),
        DataType::Map(..) => find_all(array.as_map().entries().columns(), found),
        DataType::List(_) => find(array.as_list::<i32>().values(), found),
        DataType::LargeList(_) => find(array.as_list::<i64>().values(), found),
        DataType::ListView(_) => find(array.as_list_view::<i32>().values(), found),
        DataType::LargeListView(_) => find(array.as_list_view::<i64>().values(), found),
        DataType::FixedSizeList(..) => find(array.as_fixed_size_list().values(), found),
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => find(array.as_run::<Int16Type>().values(), found),
            DataType::Int32 => find(array.as_run::<Int32Type>().values(), found),
            _ => find(array.as_run::<Int64Type>().values(), found),
        },
        DataType::Union(members, _) => {
            let union = array.as_union();
            members
                .iter()
                .for_each(|(id, _)| find(union.child(id), found));
        }
        _ => {}
    }
}

fn find_all<'a>(columns: &'a [ArrayRef], found: &mut Vec<&'a ArrayRef>) {
    for column in columns {
        find(column, found);
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{DictionaryArray, ListArray, StringArray, StructArray, make_array},
        buffer::OffsetBuffer,
        datatypes::Field,
    };

    use super::*;

    fn words(bytes: usize) -> ArrayRef {
        Arc::new(StringArray::from(vec!["x".repeat(bytes)]))
    }

    fn keyed(values: &ArrayRef) -> ArrayRef {
        let keys = vec![0; 10].into();
        Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::clone(values)))
    }

    fn batch(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([("c", column)]).expect("one column")
    }

    fn last(batch: &RecordBatch) -> LastDictionaries {
        LastDictionaries::of(batch.schema_ref()).expect("it has a dictionary")
    }

    #[test]
    fn what_has_no_dictionary_is_not_looked_at() {
        assert!(LastDictionaries::of(batch(words(1)).schema_ref()).is_none());
    }

    #[test]
    fn a_dictionary_costs_again_when_another_was_between() {
        let [one, other] = [1_000, 2_000].map(|bytes| batch(keyed(&words(bytes))));
        let mut last = last(&one);
        assert!((1_000..2_000).contains(&last.new_bytes(&one)));
        assert_eq!(last.new_bytes(&one.slice(3, 4)), 0);
        assert!(last.new_bytes(&other) >= 2_000);
        assert!((1_000..2_000).contains(&last.new_bytes(&one)));
    }

    #[test]
    fn the_same_buffers_in_another_array_are_the_same_dictionary() {
        let values = words(1_000);
        let (one, other) = (keyed(&values), keyed(&make_array(values.to_data())));
        let (one, other) = (batch(one), batch(other));
        let mut last = last(&one);
        assert!(last.new_bytes(&one) >= 1_000);
        assert_eq!(last.new_bytes(&other), 0);
    }

    #[test]
    fn one_that_has_gone_is_not_mistaken_for_the_next_in_its_place() {
        let one = batch(keyed(&words(1_000)));
        let mut last = last(&one);
        assert!(last.new_bytes(&one) >= 1_000);
        drop(one);
        assert!(last.new_bytes(&batch(keyed(&words(1_000)))) >= 1_000);
    }

    #[test]
    fn dictionaries_are_found_wherever_they_are_nested() {
        let item = |array: &ArrayRef| Arc::new(Field::new("item", array.data_type().clone(), true));
        let inner = keyed(&words(1_000));
        let offsets = OffsetBuffer::from_lengths([10]);
        let words: ArrayRef = Arc::new(ListArray::new(item(&inner), offsets, inner, None));
        let outer: ArrayRef = Arc::new(StructArray::from(vec![(item(&words), words)]));
        let batch = batch(outer);
        let mut last = last(&batch);
        assert!(last.new_bytes(&batch) >= 1_000);
        assert_eq!(last.new_bytes(&batch.slice(0, 1)), 0);
    }
}
