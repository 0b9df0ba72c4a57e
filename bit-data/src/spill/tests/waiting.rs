//! Queues that wait for room: who is told, how long they wait, and what ends it.

use std::sync::Mutex;

use rpc_bus::simulation::SimulatedNetwork;

use super::*;

#[test]
fn a_queue_is_told_that_nobody_writes_any_more() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (parent, ledger) = (
        tempfile::tempdir().unwrap(),
        Ledger::root("test", Limits::default()),
    );
    let host = SimulatedNetwork::new(1).host([10, 0, 0, 1].into());
    let options = SpillOptions::default();
    let entered = runtime.enter();
    let dir = SpillDir::open_simulated(parent.path(), &options, &ledger, &host).unwrap();
    drop(entered);
    let told = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
    let queues = told.each_ref().map(|told| {
        let told = Arc::clone(told);
        dir.queue(move || {
            told.fetch_add(1, Relaxed);
        })
    });
    for (writer, _) in &queues {
        writer.push(record(1, 100)).unwrap();
    }
    drop(runtime);
    assert_eq!(told.each_ref().map(|told| told.load(Relaxed)), [1, 1]);
    let here = Builder::new_current_thread().build().unwrap();
    for (writer, mut reader) in queues {
        let error = here.block_on(reader.pop()).unwrap_err();
        assert!(matches!(error, SpillError::RuntimeEnded), "{error}");
        assert!(writer.push(record(1, 100)).is_err());
    }
    here.block_on(dir.idle());
    assert!(ledger.is_zero(), "{ledger:?}");
}

/// A queue that tries to push a record again whenever it is told.
struct Pushing {
    writer: Arc<Mutex<Option<SpillWriter>>>,
    reader: SpillReader,
    outcomes: Arc<Mutex<Vec<Result<(), SpillError>>>>,
}

impl Pushing {
    fn new(dir: &SpillDir, bytes: usize) -> Self {
        let writer = Arc::new(Mutex::new(None::<SpillWriter>));
        let outcomes = Arc::<Mutex<Vec<_>>>::default();
        let (pushing, told) = (Arc::downgrade(&writer), Arc::clone(&outcomes));
        let on_progress = move || {
            let Some(writer) = pushing.upgrade() else {
                return;
            };
            if let Some(writer) = &*writer.lock().unwrap() {
                let outcome = writer.push(record(9, bytes));
                told.lock().unwrap().push(outcome);
            }
        };
        let (made, reader) = dir.queue(on_progress);
        assert!(matches!(
            made.push(record(9, bytes)),
            Err(SpillError::NoRoomYet)
        ));
        *writer.lock().unwrap() = Some(made);
        Self {
            writer,
            reader,
            outcomes,
        }
    }

    fn push(&self, bytes: usize) -> Result<(), SpillError> {
        let writer = self.writer.lock().unwrap();
        writer.as_ref().unwrap().push(record(8, bytes))
    }

    /// What came of it, unless it still waits.
    fn outcome(&self) -> Option<Result<(), SpillError>> {
        let outcomes = self.outcomes.lock().unwrap();
        let mut settled = outcomes
            .iter()
            .filter(|one| !matches!(one, Err(SpillError::NoRoomYet)));
        settled.next().cloned()
    }
}

fn little_disk() -> SpillOptions {
    SpillOptions {
        disk_bytes_max: 10_000,
        ..SpillOptions::default()
    }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn room_on_disk_is_not_waited_for_for_ever() {
    let disk = Disk::new(&little_disk());
    let (full, from_full) = disk.queue();
    full.push(record(1, 6_000)).unwrap();
    let mut waits = Pushing::new(&disk.dir, 6_000);
    // Which is not something to be done.
    disk.dir.idle().await;
    seconds(29).await;
    assert!(waits.outcome().is_none());
    seconds(9).await;
    let expected = |error: &SpillError| matches!(error, SpillError::DiskLimit { .. });
    let outcome = waits.outcome().expect("an outcome").unwrap_err();
    assert!(expected(&outcome), "{outcome}");
    let error = waits.reader.pop().await.unwrap_err();
    assert!(expected(&error), "the queue has failed: {error}");
    full.push(record(1, 10)).unwrap();
    drop((full, from_full, waits));
    disk.end().await;
}

#[tokio::test(start_paused = true)]
async fn memory_that_others_hold_is_not_waited_for_for_ever() {
    let limits = Limits {
        bytes: Some(100_000),
        ..Limits::default()
    };
    let disk = Disk::with(&SpillOptions::default(), limits, create_file);
    let held = disk.ledger.charge(Kind::Bytes, 90_000).unwrap();
    let waits = Pushing::new(&disk.dir, 50_000);
    seconds(29).await;
    assert!(waits.outcome().is_none());
    seconds(9).await;
    let outcome = waits.outcome().expect("an outcome").unwrap_err();
    assert!(matches!(outcome, SpillError::Budget(_)), "{outcome}");
    drop((held, waits));
    disk.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_takes_some_is_waited_for() {
    let disk = Disk::new(&little_disk());
    let (full, from_full) = disk.queue();
    full.push(record(1, 6_000)).unwrap();
    let mut waits = Pushing::new(&disk.dir, 6_000);
    for _ in 0..5 {
        seconds(20).await;
        waits.push(10).unwrap();
        seconds(20).await;
        assert!(waits.reader.pop().await.unwrap() == Some(record(8, 10)));
    }
    assert!(waits.outcome().is_none());
    drop(from_full);
    seconds(1).await;
    assert!(waits.outcome().expect("an outcome").is_ok());
    drop((full, waits));
    disk.end().await;
}

#[tokio::test(start_paused = true)]
async fn how_long_one_has_waited_begins_anew_once_it_wants_nothing() {
    let disk = Disk::new(&little_disk());
    let (full, from_full) = disk.queue();
    full.push(record(1, 6_000)).unwrap();
    // It is told, and does not push again.
    let (writer, reader) = disk.queue();
    for _ in 0..3 {
        let not_yet = writer.push(record(2, 6_000)).unwrap_err();
        assert!(matches!(not_yet, SpillError::NoRoomYet), "{not_yet}");
        seconds(1_000).await;
    }
    drop((full, from_full, writer, reader));
    disk.end().await;
}

#[test]
fn who_waits_is_told_that_the_runtime_has_ended() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (disk, mut waits, held) = runtime.block_on(async {
        let disk = Disk::new(&little_disk());
        let (full, from_full) = disk.queue();
        full.push(record(1, 6_000)).unwrap();
        disk.dir.idle().await;
        let waits = Pushing::new(&disk.dir, 6_000);
        (disk, waits, (full, from_full))
    });
    drop(runtime);
    let outcome = waits.outcome().expect("it was told").unwrap_err();
    assert!(matches!(outcome, SpillError::RuntimeEnded), "{outcome}");
    let (late, from_late) = disk.queue();
    let outcome = late.push(record(1, 6_000)).unwrap_err();
    assert!(matches!(outcome, SpillError::RuntimeEnded), "{outcome}");
    let here = Builder::new_current_thread().build().unwrap();
    let error = here.block_on(waits.reader.pop()).unwrap_err();
    assert!(matches!(error, SpillError::RuntimeEnded), "{error}");
    drop((waits, held, late, from_late));
    here.block_on(disk.end());
}
