//! Queues on real files: order, limits, damage, and what is left behind.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::{Context, Waker},
    time::Duration,
};

use proptest::prelude::*;
use rpc_bus::{
    Ledger,
    ledger::{Charge, Kind, Limits},
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle, Runtime};

use super::{
    index::{Absorb, Index, NextWrite, SEGMENT_BYTES, Taken},
    segment::{ALIGNMENT, CreateFile, Segment, create_file},
    worker::Threads,
    *,
};

mod waiting;

/// A directory, and what it is charged to.
struct Disk {
    parent: TempDir,
    ledger: Ledger,
    dir: SpillDir,
}

impl Disk {
    fn new(options: &SpillOptions) -> Self {
        Self::with(options, Limits::default(), create_file)
    }

    fn with(options: &SpillOptions, limits: Limits, create: CreateFile) -> Self {
        let (parent, ledger) = (tempfile::tempdir().unwrap(), Ledger::root("test", limits));
        let here = Handle::current();
        let threads = Threads::Blocking(here);
        let dir = SpillDir::open_with(parent.path(), options, &ledger, threads, create).unwrap();
        Self {
            parent,
            ledger,
            dir,
        }
    }

    fn queue(&self) -> (SpillWriter, SpillReader) {
        self.dir.queue(|| {})
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.ends_with("lock")).collect()
    }

    /// Waits until all is done, after which nothing may be left.
    async fn end(self) {
        self.dir.idle().await;
        assert_eq!(self.files(), [] as [&Path; 0]);
        assert_eq!((self.dir.disk_bytes(), self.dir.unwritten_bytes()), (0, 0));
        assert!(self.ledger.is_zero(), "{:?}", self.ledger);
        drop(self.dir);
        assert_eq!(leftovers(self.parent.path()), 0);
    }
}

fn leftovers(parent: &Path) -> usize {
    let entries = fs::read_dir(parent).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().path().is_dir())
        .count()
}

/// A record that no other number has.
fn record(number: usize, body_bytes: usize) -> SpillRecord {
    let body: Vec<u8> = (0..body_bytes)
        .map(|at| (at * 31 + number).to_le_bytes()[0])
        .collect();
    SpillRecord {
        header: format!("record {number}").into(),
        body: vec![body.into()],
    }
}

async fn pop_all(reader: &mut SpillReader) -> Vec<SpillRecord> {
    let mut all = Vec::new();
    while let Some(record) = reader.pop().await.unwrap() {
        all.push(record);
    }
    all
}

#[tokio::test]
async fn what_was_on_disk_comes_back_in_order_and_aligned() {
    let disk = Disk::new(&SpillOptions::default());
    let (writer, mut reader) = disk.queue();
    let sizes = [0, 1, 63, 64, 65, 4096, 300_000, 2_000_000, 5];
    let records: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(at, size)| record(at, *size))
        .collect();
    for record in &records {
        writer.push(record.clone()).unwrap();
    }
    disk.dir.idle().await;
    assert_eq!(disk.dir.unwritten_bytes(), 0);
    assert!(disk.dir.disk_bytes() > 2_000_000 && disk.ledger.used(Kind::Files) == 1);
    let back = pop_all(&mut reader).await;
    assert!(back == records);
    for record in &back {
        assert_eq!(record.body[0].as_ptr().align_offset(ALIGNMENT), 0);
    }
    assert!(
        disk.ledger.used(Kind::Bytes) > 2_000_000,
        "what was read back counts"
    );
    drop((back, reader, writer));
    disk.end().await;
}

#[tokio::test]
async fn segments_are_deleted_as_soon_as_they_were_taken() {
    let disk = Disk::new(&SpillOptions::default());
    let (writer, mut reader) = disk.queue();
    let records: Vec<_> = (0..48).map(|at| record(at, 1 << 20)).collect();
    for record in &records {
        writer.push(record.clone()).unwrap();
    }
    disk.dir.idle().await;
    let files = disk.files().len();
    assert!((3..=4).contains(&files), "{files}");
    let mut before = disk.dir.disk_bytes();
    for chunk in records.chunks(16) {
        for record in chunk {
            assert!(reader.pop().await.unwrap().as_ref() == Some(record));
        }
        disk.dir.idle().await;
        assert!(disk.dir.disk_bytes() < before);
        before = disk.dir.disk_bytes();
    }
    assert_eq!(disk.files().len(), 0, "the queue goes on without files");
    writer.push(record(7, 10)).unwrap();
    disk.dir.idle().await;
    assert!(reader.pop().await.unwrap() == Some(record(7, 10)));
    drop((reader, writer));
    disk.end().await;
}

#[tokio::test]
async fn all_files_together_are_limited_and_who_finds_no_room_is_told_of_some() {
    let options = SpillOptions {
        disk_bytes_max: 10_000,
        ..SpillOptions::default()
    };
    let disk = Disk::new(&options);
    let told = Arc::new(AtomicUsize::new(0));
    let tell = Arc::clone(&told);
    let (a, mut from_a) = disk.queue();
    let (b, from_b) = disk.dir.queue(move || {
        tell.fetch_add(1, Relaxed);
    });
    let never = a.push(record(1, 10_000)).unwrap_err();
    assert!(
        matches!(never, SpillError::TooLong { limit: 10_000, .. }),
        "{never}"
    );
    a.push(record(1, 6000)).unwrap();
    let not_yet = b.push(record(2, 6000)).unwrap_err();
    assert!(matches!(not_yet, SpillError::NoRoomYet), "{not_yet}");
    b.push(record(3, 3000)).unwrap();
    disk.dir.idle().await;
    assert_eq!(told.load(Relaxed), 0);
    assert!(pop_all(&mut from_a).await == [record(1, 6000)]);
    disk.dir.idle().await;
    assert_eq!(told.load(Relaxed), 1);
    b.push(record(4, 6000)).unwrap();
    drop((a, b, from_a, from_b));
    disk.end().await;
}

#[tokio::test]
async fn what_waits_to_be_written_is_limited() {
    let options = SpillOptions {
        unwritten_bytes_max: 1000,
        ..SpillOptions::default()
    };
    let disk = Disk::new(&options);
    let (writer, reader) = disk.queue();
    let refused = writer.push(record(1, 1000)).unwrap_err();
    assert!(matches!(refused, SpillError::TooLong { .. }), "{refused}");
    assert_eq!(disk.dir.disk_bytes(), 0);
    drop((writer, reader));
    disk.end().await;
}

#[tokio::test]
async fn a_full_disk_ends_the_queue_with_a_clear_error_and_no_other() {
    let turn = |_: &Path| File::options().read(true).write(true).open("/dev/full");
    let disk = Disk::with(&SpillOptions::default(), Limits::default(), turn);
    let told = Arc::new(AtomicUsize::new(0));
    let tell = Arc::clone(&told);
    let (writer, mut reader) = disk.dir.queue(move || {
        tell.fetch_add(1, Relaxed);
    });
    let (other, mut from_other) = disk.queue();
    writer.push(record(1, 1000)).unwrap();
    disk.dir.idle().await;
    let error = reader.pop().await.unwrap_err();
    assert!(
        error.to_string().starts_with("cannot write spill file"),
        "{error}"
    );
    assert!(
        error.to_string().contains("No space left on device"),
        "{error}"
    );
    assert!(writer.push(record(2, 1)).is_err() && told.load(Relaxed) > 0);
    assert_eq!(disk.dir.disk_bytes(), 0);
    assert!(from_other.pop().await.unwrap().is_none());
    drop((writer, reader, other, from_other));
    disk.end().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_made_or_opened_ends_the_queue() {
    let refuse = |_: &Path| Err(std::io::ErrorKind::PermissionDenied.into());
    let files = Limits {
        files: Some(0),
        ..Limits::default()
    };
    let cases: [(CreateFile, Limits, &str); 2] = [
        (refuse, Limits::default(), "cannot create"),
        (create_file, files, "no room to spill: Files of "),
    ];
    for (create, limits, expected) in cases {
        let disk = Disk::with(&SpillOptions::default(), limits, create);
        let (writer, mut reader) = disk.queue();
        writer.push(record(1, 1000)).unwrap();
        disk.dir.idle().await;
        let error = reader.pop().await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        drop((writer, reader));
        disk.end().await;
    }
}

#[tokio::test]
async fn every_damaged_byte_is_found() {
    let disk = Disk::new(&SpillOptions::default());
    let spilled = record(1, 200);
    for at in 0..spilled.header.len() + 200 {
        let (writer, mut reader) = disk.queue();
        writer.push(spilled.clone()).unwrap();
        disk.dir.idle().await;
        let file = File::options()
            .read(true)
            .write(true)
            .open(&disk.files()[0])
            .unwrap();
        let header = spilled.header.len();
        let at = if at < header {
            at
        } else {
            at - header + ALIGNMENT
        } as u64;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        let error = reader.pop().await.unwrap_err();
        assert!(
            matches!(error, SpillError::Damaged { offset: 0, .. }),
            "{at}: {error}"
        );
        drop((writer, reader));
        disk.dir.idle().await;
    }
    disk.end().await;
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_an_error() {
    let disk = Disk::new(&SpillOptions::default());
    let (writer, mut reader) = disk.queue();
    writer.push(record(1, 1000)).unwrap();
    disk.dir.idle().await;
    File::create(&disk.files()[0]).unwrap();
    let error = reader.pop().await.unwrap_err().to_string();
    assert!(error.starts_with("cannot read spill file"), "{error}");
    drop((writer, reader));
    disk.end().await;
}

#[tokio::test]
async fn without_a_reader_nothing_is_kept() {
    let disk = Disk::new(&SpillOptions::default());
    let (writer, reader) = disk.queue();
    for number in 0..100 {
        writer.push(record(number, 100_000)).unwrap();
    }
    drop(reader);
    assert!(matches!(
        writer.push(record(1, 1)),
        Err(SpillError::ReaderGone)
    ));
    assert_eq!(disk.dir.unwritten_bytes(), 0, "memory is free at once");
    drop(writer);
    disk.end().await;
}

/// Four records on disk, of which all the memory that there is holds two.
async fn four_records(memory_timeout: Duration) -> (Disk, SpillWriter, SpillReader) {
    let limits = Limits {
        bytes: Some(100_000),
        ..Limits::default()
    };
    let options = SpillOptions {
        memory_timeout,
        ..SpillOptions::default()
    };
    let disk = Disk::with(&options, limits, create_file);
    let (writer, reader) = disk.queue();
    for number in 0..4 {
        writer.push(record(number, 40_000)).unwrap();
        disk.dir.idle().await;
    }
    (disk, writer, reader)
}

async fn until_memory_is_waited_for(disk: &Disk) {
    while disk.dir.0.worker.waiting_for_memory() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_read_back_needs_memory_too_and_does_not_wait_for_it_for_ever() {
    let (disk, writer, mut reader) = four_records(Duration::ZERO).await;
    // All four do not fit, one after the other they do.
    let first = reader.pop().await.unwrap().unwrap();
    let second = reader.pop().await.unwrap().unwrap();
    let error = reader.pop().await.unwrap_err();
    assert!(matches!(error, SpillError::Budget(_)), "{error}");
    // Not of this record, whatever its length is.
    for bytes in [1, 200_000] {
        let error = writer.push(record(4, bytes)).unwrap_err();
        assert!(matches!(error, SpillError::Budget(_)), "{error}");
    }
    drop((first, second, writer, reader));
    disk.end().await;
}

#[tokio::test]
async fn a_queue_outlives_a_lack_of_memory() {
    let (disk, writer, mut reader) = four_records(Duration::MAX).await;
    let held = disk.ledger.charge(Kind::Bytes, 90_000).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(reader.poll_pop(&mut cx).is_pending());
    until_memory_is_waited_for(&disk).await;
    // Others go on meanwhile.
    let (other, mut from_other) = disk.queue();
    other.push(record(7, 5_000)).unwrap();
    while disk.dir.unwritten_bytes() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(from_other.pop().await.unwrap() == Some(record(7, 5_000)));
    drop(held);
    for number in 0..4 {
        assert!(reader.pop().await.unwrap() == Some(record(number, 40_000)));
    }
    drop((writer, reader, other, from_other));
    disk.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_memory_to_be_read_is_not_starved_by_what_is_to_be_written() {
    let (disk, writer, mut reader) = four_records(Duration::from_secs(40)).await;
    let held = disk.ledger.charge(Kind::Bytes, 90_000).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(reader.poll_pop(&mut cx).is_pending());
    until_memory_is_waited_for(&disk).await;
    let (other, mut from_other) = disk.queue();
    tokio::time::advance(Duration::from_secs(9)).await;
    other.push(record(7, 5_000)).unwrap();
    assert!(from_other.pop().await.unwrap() == Some(record(7, 5_000)));
    tokio::time::advance(Duration::from_secs(1)).await;
    let refused = loop {
        match other.push(record(7, 5_000)) {
            Ok(()) => assert!(from_other.pop().await.unwrap().is_some()),
            Err(refused) => break refused,
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(refused, SpillError::NoRoomYet), "{refused}");
    drop(held);
    assert!(reader.pop().await.unwrap() == Some(record(0, 40_000)));
    other.push(record(7, 5_000)).unwrap();
    drop((writer, reader, other, from_other));
    disk.end().await;
}

#[tokio::test]
async fn a_reader_that_goes_while_there_is_no_memory_leaves_nothing() {
    let (disk, writer, reader) = four_records(Duration::MAX).await;
    let held = disk.ledger.charge(Kind::Bytes, 90_000).unwrap();
    let mut reader = reader;
    assert!(
        reader
            .poll_pop(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    until_memory_is_waited_for(&disk).await;
    drop(reader);
    disk.dir.idle().await;
    drop((writer, held));
    disk.end().await;
}

#[tokio::test]
async fn who_finds_no_memory_to_spill_because_of_others_is_told_of_some() {
    let limits = Limits {
        bytes: Some(100_000),
        ..Limits::default()
    };
    let disk = Disk::with(&SpillOptions::default(), limits, create_file);
    let told = Arc::new(AtomicUsize::new(0));
    let tell = Arc::clone(&told);
    let (writer, reader) = disk.dir.queue(move || {
        tell.fetch_add(1, Relaxed);
    });
    let held = disk.ledger.charge(Kind::Bytes, 90_000).unwrap();
    let not_yet = writer.push(record(1, 50_000)).unwrap_err();
    assert!(matches!(not_yet, SpillError::NoRoomYet), "{not_yet}");
    drop(held);
    while told.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    writer.push(record(1, 50_000)).unwrap();
    drop((writer, reader));
    disk.end().await;
}

#[test]
fn a_runtime_that_has_ended_is_an_error_and_nobody_waits() {
    let runtime = Runtime::new().unwrap();
    let disk = runtime.block_on(async { Disk::new(&SpillOptions::default()) });
    let (writer, mut reader) = disk.queue();
    runtime.shutdown_background();
    writer.push(record(1, 1000)).unwrap();
    let here = Builder::new_current_thread().build().unwrap();
    let error = here.block_on(reader.pop()).unwrap_err();
    assert!(matches!(error, SpillError::RuntimeEnded));
    drop((writer, reader));
    here.block_on(disk.end());
}

#[test]
fn a_directory_in_use_is_left_alone_and_others_are_deleted() {
    let runtime = Runtime::new().unwrap();
    let (parent, ledger) = (
        tempfile::tempdir().unwrap(),
        Ledger::root("test", Limits::default()),
    );
    let open = || {
        let options = SpillOptions::default();
        SpillDir::open(parent.path(), &options, &ledger, runtime.handle().clone()).unwrap()
    };
    for made in ["spill-0123456789abcdef", "spill-notours", "other"] {
        fs::create_dir(parent.path().join(made)).unwrap();
    }
    // Whose lock cannot be opened, as that of another account: here because it is a directory.
    let unusable = parent.path().join("spill-00000000000000ff");
    fs::create_dir_all(unusable.join("lock")).unwrap();
    let first = open();
    assert!(unusable.is_dir());
    fs::remove_dir_all(unusable).unwrap();
    assert_eq!(
        leftovers(parent.path()),
        3,
        "ours, and what is not of our making"
    );
    let second = open();
    assert!(first.path().is_dir() && second.path().is_dir());
    drop((first, second));
    assert_eq!(leftovers(parent.path()), 2);
}

/// What the test below runs in a process of its own: spills, says so, and waits to be killed.
#[tokio::test]
#[ignore = "the child of another test"]
async fn child_that_is_killed() {
    let Some(parent) = std::env::var_os("SPILL_PARENT") else {
        panic!("the variable SPILL_PARENT names a directory");
    };
    let (ledger, options) = (
        Ledger::root("child", Limits::default()),
        SpillOptions::default(),
    );
    let here = Handle::current();
    let dir = SpillDir::open(Path::new(&parent), &options, &ledger, here).unwrap();
    let (writer, _reader) = dir.queue(|| {});
    writer.push(record(1, 1 << 20)).unwrap();
    dir.idle().await;
    println!("\nspilled {}", dir.path().display());
    std::future::pending::<()>().await;
}

#[test]
fn nothing_is_left_after_a_kill_and_a_restart() {
    let parent = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--ignored",
            "--nocapture",
            "spill::tests::child_that_is_killed",
        ])
        .env("SPILL_PARENT", parent.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let spilled = lines
        .map(Result::unwrap)
        .any(|line| line.starts_with("spilled "));
    assert!(spilled, "the child has ended");
    let runtime = Runtime::new().unwrap();
    let ledger = Ledger::root("test", Limits::default());
    let open = || {
        let options = SpillOptions::default();
        SpillDir::open(parent.path(), &options, &ledger, runtime.handle().clone()).unwrap()
    };
    drop(open());
    assert_eq!(leftovers(parent.path()), 1, "the child is alive");
    child.kill().unwrap();
    child.wait().unwrap();
    let dir = open();
    assert_eq!(leftovers(parent.path()), 1, "only our own");
    drop(dir);
    assert_eq!(leftovers(parent.path()), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Pop,
    Idle,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![0..200_usize, 0..100_000_usize].prop_map(Step::Push),
        3 => Just(Step::Pop),
        1 => Just(Step::Idle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_pushing_and_popping_is_first_in_first_out(
        steps in proptest::collection::vec(any_step(), 0..60),
    ) {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let disk = Disk::new(&SpillOptions::default());
            let (writer, mut reader) = disk.queue();
            let mut expected = VecDeque::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(bytes) => {
                        writer.push(record(number, bytes)).unwrap();
                        expected.push_back(record(number, bytes));
                    }
                    Step::Pop => {
                        let popped = reader.pop().await.unwrap();
                        assert!(popped == expected.pop_front());
                    }
                    Step::Idle => disk.dir.idle().await,
                }
            }
            assert_eq!(writer.records(), expected.len());
            assert!(expected == pop_all(&mut reader).await);
            drop((writer, reader));
            disk.end().await;
        });
    }
}

impl Absorb for Charge {
    fn absorb(&mut self, other: Self) {
        Self::absorb(self, other);
    }
}

/// An index, and the files that it is about, moved by hand.
struct ByHand {
    index: Index<Charge>,
    ledger: Ledger,
    parent: TempDir,
    segments: usize,
}

impl ByHand {
    fn new() -> Self {
        Self {
            index: Index::default(),
            ledger: Ledger::root("test", Limits::default()),
            parent: tempfile::tempdir().unwrap(),
            segments: 0,
        }
    }

    fn push(&mut self, number: usize) -> bool {
        self.push_record(record(number, 10))
    }

    fn push_record(&mut self, record: SpillRecord) -> bool {
        let charge = || self.ledger.charge(Kind::Bytes, 1).unwrap();
        self.index.push(record, charge(), charge()).unwrap()
    }

    fn take(&mut self) -> Taken {
        self.index.take(Waker::noop()).unwrap().0
    }

    /// Begins to write; the end is up to the test.
    fn begin_write(&mut self) -> Option<index::Writing<Charge>> {
        match self.index.next_write() {
            NextWrite::Write(writing) => Some(writing),
            NextWrite::Rest(_) => None,
        }
    }

    fn end_write(&mut self, writing: index::Writing<Charge>) {
        let (segment, offset) = writing.segment.clone().unwrap_or_else(|| {
            self.segments += 1;
            let path = self.parent.path().join(self.segments.to_string());
            let open = self.ledger.charge(Kind::Files, 1).unwrap();
            (
                Arc::new(Segment::create(path, create_file, open).unwrap()),
                0,
            )
        });
        let spans = segment.append(offset, &writing.records).unwrap();
        self.index.written(writing, spans);
    }

    fn read(&mut self) {
        let charge = self.ledger.charge(Kind::Bytes, 1).unwrap();
        let records = Segment::read(&self.index.next_read(), charge).unwrap();
        self.index.read(records);
    }
}

fn number(taken: &Taken) -> String {
    match taken {
        Taken::Record(record) => String::from_utf8(record.header.to_vec()).unwrap(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_record_that_was_not_written_yet_is_handed_back_without_the_disk() {
    let mut queue = ByHand::new();
    assert!(queue.push(1) && !queue.push(2), "one is told once");
    assert_eq!(number(&queue.take()), "record 1");
    assert_eq!(number(&queue.take()), "record 2");
    assert!(queue.begin_write().is_none() && queue.segments == 0);
    assert!(queue.ledger.is_zero());
    assert!(queue.push(3), "and told again after a rest");
}

#[test]
fn a_record_that_is_taken_while_it_is_written_counts_on_disk_until_its_file_is_gone() {
    let mut queue = ByHand::new();
    queue.push(1);
    queue.push(2);
    let writing = queue.begin_write().unwrap();
    assert_eq!(number(&queue.take()), "record 1");
    queue.end_write(writing);
    assert_eq!(
        queue.ledger.used(Kind::Bytes),
        2,
        "both on disk, none in memory"
    );
    assert!(matches!(queue.take(), Taken::OnDisk { tell: true }));
    assert!(matches!(queue.take(), Taken::OnDisk { tell: false }));
    queue.read();
    assert_eq!(number(&queue.take()), "record 2");
    assert!(queue.begin_write().is_none());
    assert!(queue.ledger.is_zero(), "{:?}", queue.ledger);
}

#[test]
fn a_file_that_is_being_written_is_not_deleted_for_being_read_to_its_end() {
    let mut queue = ByHand::new();
    queue.push(1);
    let writing = queue.begin_write().unwrap();
    queue.end_write(writing);
    queue.push(2);
    let writing = queue.begin_write().unwrap();
    queue.read();
    assert_eq!(number(&queue.take()), "record 1");
    queue.end_write(writing);
    queue.read();
    assert_eq!(number(&queue.take()), "record 2");
    assert_eq!(queue.segments, 1);
    assert!(queue.begin_write().is_none() && queue.ledger.is_zero());
}

#[test]
fn a_record_counts_in_its_own_file_where_an_empty_one_is_before_it() {
    let mut queue = ByHand::new();
    let a_whole_file = usize::try_from(SEGMENT_BYTES).unwrap();
    queue.push_record(record(1, a_whole_file));
    let writing = queue.begin_write().unwrap();
    queue.end_write(writing);
    queue.push(2);
    let writing = queue.begin_write().unwrap();
    queue.read();
    assert_eq!(number(&queue.take()), "record 1");
    queue.push(3);
    queue.end_write(writing);
    queue.read();
    assert_eq!(number(&queue.take()), "record 2");
    assert_eq!(queue.segments, 2);
    assert_eq!(number(&queue.take()), "record 3");
    assert!(queue.begin_write().is_none());
    assert!(queue.ledger.is_zero(), "{:?}", queue.ledger);
}

#[test]
fn a_queue_that_fails_while_it_is_written_and_read_lets_go_of_everything() {
    let mut queue = ByHand::new();
    queue.push(1);
    let writing = queue.begin_write().unwrap();
    queue.end_write(writing);
    queue.push(2);
    let writing = queue.begin_write().unwrap();
    drop(queue.index.fail(SpillError::ReaderGone));
    queue.read();
    queue.end_write(writing);
    assert!(queue.begin_write().is_none() && queue.index.records() == 0);
    assert!(queue.index.take(Waker::noop()).is_err());
    assert!(queue.ledger.is_zero(), "{:?}", queue.ledger);
}
