//! Merging beside sorting, and what a merge does with inputs that are slow, broken, or not sorted.

use std::{
    cell::Cell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, RecordBatch,
        StringArray, UInt32Array,
    },
    buffer::{Buffer, ScalarBuffer},
    compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take_record_batch},
    datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use proptest::prelude::*;
use record_batch::body_bytes;
use rpc_bus::{
    Ledger,
    ledger::{Charge, Kind, Limits},
};

use super::*;

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("broken")]
struct Broken;

type Given = Result<RecordBatch, Broken>;

/// An input under the test's control: `None` in the queue is a poll that finds nothing.
#[derive(Clone, Default)]
struct Scripted {
    queue: Rc<std::cell::RefCell<VecDeque<Option<Given>>>>,
    /// Pending instead of the end when the queue is empty.
    hangs: bool,
    polls: Rc<Cell<usize>>,
}

impl Scripted {
    fn of(given: impl IntoIterator<Item = Option<Given>>) -> Self {
        let scripted = Self::default();
        scripted.queue.borrow_mut().extend(given);
        scripted
    }

    fn hanging(batches: impl IntoIterator<Item = RecordBatch>) -> Self {
        let hangs = true;
        Self {
            hangs,
            ..Self::of(batches.into_iter().map(|batch| Some(Ok(batch))))
        }
    }

    fn give(&self, batch: RecordBatch) {
        self.queue.borrow_mut().push_back(Some(Ok(batch)));
    }
}

impl Stream for Scripted {
    type Item = Given;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Given>> {
        self.polls.set(self.polls.get() + 1);
        match self.queue.borrow_mut().pop_front() {
            Some(Some(given)) => Poll::Ready(Some(given)),
            None if !self.hangs => Poll::Ready(None),
            Some(None) | None => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(values.into_iter().collect::<Int64Array>());
    RecordBatch::try_from_iter_with_nullable([("number", column, true)]).unwrap()
}

fn values(batch: &RecordBatch) -> Vec<i64> {
    batch
        .column(0)
        .as_primitive::<Int64Type>()
        .values()
        .to_vec()
}

fn merge<S>(inputs: Vec<S>, options: MergeOptions) -> Merge<S>
where
    S: Stream<Item = Given> + Unpin,
{
    let keys = [SortKey::ascending(0)];
    Merge::try_new(numbers([]).schema(), &keys, inputs, options).unwrap()
}

type Polled = Poll<Option<Result<RecordBatch, MergeError<Broken>>>>;

/// The next batch, if it is there.
fn poll<S>(merge: &mut Merge<S>) -> Polled
where
    S: Stream<Item = Given> + Unpin,
{
    merge.poll_next_unpin(&mut Context::from_waker(Waker::noop()))
}

/// All that comes before it has to wait.
fn ready(merge: &mut Merge<Scripted>) -> Vec<i64> {
    let mut rows = Vec::new();
    while let Poll::Ready(Some(batch)) = poll(merge) {
        rows.extend(values(&batch.unwrap()));
    }
    rows
}

fn rows(batch_rows_max: usize) -> MergeOptions {
    MergeOptions {
        batch_rows_max,
        ..MergeOptions::default()
    }
}

fn all(mut merge: Merge<Scripted>) -> Result<Vec<RecordBatch>, MergeError<Broken>> {
    let mut batches = Vec::new();
    loop {
        match poll(&mut merge) {
            Poll::Ready(None) => return Ok(batches),
            Poll::Ready(Some(batch)) => batches.push(batch?),
            Poll::Pending => {}
        }
    }
}

/// Two keys and, to tell equal rows apart, input and position.
fn tagged(input: u32, rows: &[(Option<i32>, Option<String>)]) -> RecordBatch {
    let count = u32::try_from(rows.len()).unwrap();
    let texts: Vec<_> = rows.iter().map(|(_, text)| text.as_deref()).collect();
    let dictionary: DictionaryArray<Int32Type> = texts.iter().copied().collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from(vec![input; rows.len()])),
        Arc::new(
            rows.iter()
                .map(|(number, _)| *number)
                .collect::<Int32Array>(),
        ),
        Arc::new(StringArray::from(texts)),
        Arc::new(dictionary),
        Arc::new((0..count).collect::<UInt32Array>()),
    ];
    RecordBatch::try_new(tagged_schema(), columns).unwrap()
}

fn tagged_schema() -> SchemaRef {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(Schema::new(vec![
        Field::new("input", DataType::UInt32, false),
        Field::new("number", DataType::Int32, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("dictionary", dictionary, true),
        Field::new("position", DataType::UInt32, false),
    ]))
}

/// Sorted by the keys, and where these are equal by the columns that tell rows apart.
fn sorted(batch: &RecordBatch, keys: &[SortKey], then: &[usize]) -> RecordBatch {
    let keys = keys
        .iter()
        .copied()
        .chain(then.iter().map(|&at| SortKey::ascending(at)));
    let columns: Vec<_> = keys
        .map(|key| SortColumn {
            values: Arc::clone(batch.column(key.column)),
            options: Some(key.options),
        })
        .collect();
    take_record_batch(batch, &lexsort_to_indices(&columns, None).unwrap()).unwrap()
}

/// Text columns as text, so that batches with other dictionaries compare equal.
fn plain(batch: &RecordBatch) -> Vec<ArrayRef> {
    let text = arrow::compute::cast(batch.column(3), &DataType::Utf8).unwrap();
    let mut columns = batch.columns().to_vec();
    columns[3] = text;
    columns
}

fn any_options() -> impl Strategy<Value = SortOptions> {
    (any::<bool>(), any::<bool>()).prop_map(|(descending, nulls_first)| SortOptions {
        descending,
        nulls_first,
    })
}

fn any_rows() -> impl Strategy<Value = Vec<(Option<i32>, Option<String>)>> {
    let number = proptest::option::weighted(0.9, -3..4_i32);
    let text = proptest::option::weighted(0.8, "[ab]{0,3}|[ab]{30,40}");
    proptest::collection::vec((number, text), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merging_equals_stable_sorting(
        inputs in proptest::collection::vec(any_rows(), 0..9),
        options in [any_options(), any_options()],
        columns in proptest::sample::select(vec![[1, 2], [2, 1], [3, 1], [1, 3]]),
        cuts in proptest::collection::vec(0..20_usize, 1..20),
        limits in (1..50_usize, prop_oneof![1..2000_usize, Just(1 << 20)]),
    ) {
        let keys = [0, 1].map(|at| SortKey { column: columns[at], options: options[at] });
        let inputs: Vec<_> = (0..).zip(&inputs)
            .map(|(input, rows)| sorted(&tagged(input, rows), &keys, &[4]))
            .collect();
        let expected = sorted(&concat_batches(&tagged_schema(), &inputs).unwrap(), &keys, &[0, 4]);

        let mut cuts = cuts.into_iter().cycle();
        let scripts = inputs.iter().map(|input| Scripted::of(cut(input, &mut cuts)));
        let options = MergeOptions { batch_rows_max: limits.0, batch_bytes_target: limits.1 };
        let merge = Merge::try_new(tagged_schema(), &keys, scripts, options).unwrap();
        let merged = all(merge).unwrap();
        prop_assert!(merged.iter().all(|batch| (1..=limits.0).contains(&batch.num_rows())));
        let merged = concat_batches(&tagged_schema(), &merged).unwrap();
        prop_assert_eq!(plain(&merged), plain(&expected));
    }

    #[test]
    fn long_runs_and_many_blocks_equal_sorting(
        starts in proptest::collection::vec((0..20_000_i64, 1..4_i64), 1..6),
        batch_rows_max in 1..5000_usize,
    ) {
        let runs = starts.iter().map(|&(start, step)| (0..3000).map(move |row| start + row * step));
        let mut expected: Vec<_> = runs.clone().flatten().collect();
        expected.sort_unstable();
        let scripts = runs.map(|run| Scripted::of([Some(Ok(numbers(run)))])).collect();
        let merged = all(merge(scripts, rows(batch_rows_max))).unwrap();
        let merged: Vec<_> = merged.iter().flat_map(values).collect();
        prop_assert_eq!(merged, expected);
    }
}

/// `input` in batches of these lengths, empty ones among them, and polls that find nothing.
fn cut(input: &RecordBatch, cuts: &mut impl Iterator<Item = usize>) -> Vec<Option<Given>> {
    let (mut start, mut script) = (0, Vec::new());
    while start < input.num_rows() {
        let rows = cuts.next().unwrap().min(input.num_rows() - start);
        script.push(Some(Ok(input.slice(start, rows))));
        start += rows;
        if rows % 3 != 1 {
            script.push(None);
            // Or else no row would ever come.
            let one = 1.min(input.num_rows() - start);
            script.push(Some(Ok(input.slice(start, one))));
            start += one;
        }
    }
    script
}

#[test]
fn nothing_comes_of_nothing() {
    assert!(all(merge(Vec::new(), rows(10))).unwrap().is_empty());
    let empty = || Scripted::of([Some(Ok(numbers([]))), None]);
    assert!(
        all(merge(vec![empty(), empty()], rows(10)))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn an_input_without_others_is_passed_on_without_a_copy() {
    let batch = numbers(0..10);
    let input = Scripted::of([Some(Ok(batch.clone()))]);
    let merged = all(merge(vec![input, Scripted::default()], rows(4))).unwrap();
    let lengths: Vec<_> = merged.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(lengths, [4, 4, 2]);
    let buffer = |batch: &RecordBatch| batch.column(0).to_data().buffers()[0].as_ptr();
    assert_eq!(buffer(&merged[0]), buffer(&batch));
}

#[test]
fn a_batch_ends_at_its_bytes() {
    let input = |first| Scripted::of([Some(Ok(numbers((first..200).step_by(2))))]);
    let options = MergeOptions {
        batch_bytes_target: 500,
        ..MergeOptions::default()
    };
    let merged = all(merge(vec![input(0), input(1)], options)).unwrap();
    assert!(merged.len() > 2);
    for batch in &merged {
        assert!(body_bytes(batch) <= 500 + 16, "{}", body_bytes(batch));
    }
}

#[test]
fn it_waits_only_for_the_input_whose_row_is_needed() {
    let (a, b) = (Scripted::hanging([numbers([1, 2])]), Scripted::hanging([]));
    let mut merge = merge(vec![a.clone(), b.clone()], rows(100));
    assert!(ready(&mut merge).is_empty());
    let polls = a.polls.get();
    b.give(numbers([3, 6]));
    // Rows up to the end of the first input's batch; it may go on with anything above 2.
    assert_eq!(ready(&mut merge), [1, 2]);
    assert!(ready(&mut merge).is_empty());
    assert_eq!(b.polls.get(), 2, "its next row is known");
    assert!(a.polls.get() > polls);
    a.give(numbers([4, 9]));
    assert_eq!(ready(&mut merge), [3, 4, 6]);
}

#[test]
fn rows_that_are_merged_do_not_wait_for_those_that_hang() {
    let hanging = Scripted::hanging([numbers([5, 7])]);
    let other = Scripted::hanging([numbers([1, 6]), numbers([6, 8, 9])]);
    let mut merge = merge(vec![hanging.clone(), other], rows(100));
    assert_eq!(ready(&mut merge), [1, 5, 6, 6, 7]);
    assert!(ready(&mut merge).is_empty());
    hanging.give(numbers([10]));
    assert_eq!(ready(&mut merge), [8, 9]);
}

/// Keeps a charge for as long as the bytes live.
struct Charged(Vec<u8>, #[expect(dead_code, reason = "held")] Charge);

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn charged(ledger: &Ledger, range: std::ops::Range<i64>) -> RecordBatch {
    let bytes: Vec<u8> = range.clone().flat_map(i64::to_le_bytes).collect();
    let charge = ledger.charge(Kind::Bytes, bytes.len()).unwrap();
    let buffer = Buffer::from(Bytes::from_owner(Charged(bytes, charge)));
    let len = range.count();
    let column = Int64Array::new(ScalarBuffer::new(buffer, 0, len), None);
    RecordBatch::try_new(numbers([]).schema(), vec![Arc::new(column)]).unwrap()
}

#[test]
fn while_it_waits_it_holds_one_batch_of_each_input() {
    let ledger = Ledger::root("inputs", Limits::default());
    let inputs: Vec<_> = (0..64).map(|_| Scripted::hanging([])).collect();
    let mut merge = merge(inputs.clone(), rows(1000));
    for step in 0..20 {
        for input in &inputs {
            input.give(charged(&ledger, step * 4..step * 4 + 4));
        }
        let merged = ready(&mut merge);
        assert!(!merged.is_empty(), "step {step}");
        assert!(ledger.used(Kind::Bytes) <= 64 * 32, "{ledger:?}");
    }
    drop((merge, inputs));
    assert!(ledger.is_zero(), "{ledger:?}");
}

#[test]
fn the_first_error_of_an_input_ends_it_and_drops_all_others() {
    let ledger = Ledger::root("inputs", Limits::default());
    let healthy = Scripted::hanging([charged(&ledger, 0..4)]);
    let (polls, queue) = (Rc::clone(&healthy.polls), Rc::clone(&healthy.queue));
    let broken = Scripted::of([Some(Ok(charged(&ledger, 0..2))), Some(Err(Broken))]);
    let mut merge = merge(vec![healthy, broken], rows(100));
    assert!(matches!(
        poll(&mut merge),
        Poll::Ready(Some(Err(MergeError::Input {
            input: 1,
            source: Broken
        })))
    ));
    assert!(merge.is_terminated() && ledger.is_zero(), "{ledger:?}");
    assert_eq!((Rc::strong_count(&polls), Rc::strong_count(&queue)), (1, 1));
    assert!(matches!(poll(&mut merge), Poll::Ready(None)));
}

#[test]
fn an_input_with_other_columns_is_refused() {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let other = RecordBatch::try_from_iter([("number", text)]).unwrap();
    let inputs = [numbers([1]), other].map(|batch| Scripted::of([Some(Ok(batch))]));
    let error = all(merge(inputs.into(), rows(10))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "input 1 of a merge has other columns: expected Int64, got Utf8"
    );
}

#[test]
fn an_input_that_is_not_sorted_is_refused_within_and_across_batches() {
    let error = |batches: Vec<RecordBatch>| {
        let bad = Scripted::of(batches.into_iter().map(|batch| Some(Ok(batch))));
        let good = Scripted::of([Some(Ok(numbers([1, 9])))]);
        all(merge(vec![good, bad], rows(10))).unwrap_err()
    };
    let within = error(vec![numbers([1, 2, 1])]);
    assert!(matches!(within, MergeError::NotSorted { input: 1, row: 2 }));
    let across = error(vec![numbers([1, 2]), numbers([1])]);
    assert!(matches!(across, MergeError::NotSorted { input: 1, row: 0 }));
}

#[test]
fn nulls_where_the_schema_has_none_are_refused() {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let null: ArrayRef = Arc::new(Int64Array::from(vec![None]));
    let batch = RecordBatch::try_from_iter_with_nullable([("n", null, true)]).unwrap();
    let input = Scripted::of([Some(Ok(batch))]);
    let keys = [SortKey::ascending(0)];
    let merge = Merge::try_new(schema, &keys, [input], rows(10)).unwrap();
    assert!(matches!(all(merge), Err(MergeError::Rows(_))));
}

#[test]
fn keys_that_cannot_be_compared_are_refused() {
    let item = Arc::new(Field::new_list_field(DataType::Int32, true));
    let fields = vec![Field::new("list", DataType::List(item), true)];
    let schema = Arc::new(Schema::new(fields));
    let refused = |keys: &[SortKey]| {
        let inputs = [Scripted::default()];
        Merge::try_new(Arc::clone(&schema), keys, inputs, rows(1)).unwrap_err()
    };
    assert!(matches!(refused(&[]), MergeKeyError::NoKey));
    let unknown = refused(&[SortKey::ascending(1)]);
    assert!(matches!(
        unknown,
        MergeKeyError::Column {
            column: 1,
            columns: 1
        }
    ));
    let list = refused(&[SortKey::ascending(0)]);
    assert!(matches!(list, MergeKeyError::Type { column: 0, .. }));
}

#[test]
fn endless_empty_batches_do_not_keep_the_thread() {
    let endless = stream::repeat_with(|| Ok(numbers([])));
    let mut merge = merge(vec![endless], rows(10));
    assert!(poll(&mut merge).is_pending());
}

#[test]
fn a_long_value_of_a_dictionary_does_not_multiply() {
    let long = "x".repeat(300_000);
    let keys = Int32Array::from(vec![0; 50_000]);
    let dictionary = DictionaryArray::new(keys, Arc::new(StringArray::from(vec![long])));
    let batch = RecordBatch::try_from_iter([("d", Arc::new(dictionary) as ArrayRef)]).unwrap();
    let keys = Keys::try_new(&batch.schema(), &[SortKey::ascending(0)]).unwrap();
    let mut cursor = Cursor::new(&keys);
    cursor.load(&keys, &batch).unwrap();
    assert!(cursor.key_bytes() <= 1 << 21, "{}", cursor.key_bytes());
}
