//! The directory of one run of a process, and its limits.

use std::{
    fmt,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rpc_bus::{
    Ledger,
    ledger::{BudgetExceeded, Charge, Kind, Limits},
};
use tokio::runtime::Handle;

use super::{
    SpillError, SpillOpenError, SpillOptions, SpillReader, SpillRecord, SpillWriter,
    index::Unused,
    queue::{self, Queue},
    room::{Held, Refused, Reserved, Room},
    segment::{CreateFile, Segment, create_file, disk_bytes},
    watch::Watch,
    worker::{Job, Threads, Worker},
};

const PREFIX: &str = "spill-";
const LOCK: &str = "lock";
/// Held while directories are made and deleted, so that nobody deletes one that is about to be locked.
const PARENT_LOCK: &str = "spill.lock";

/// The spill files of this run of the process. Clones are the same; the last one to go, queues among them, deletes it.
#[derive(Clone)]
pub struct SpillDir(pub(super) Arc<Dir>);

pub(super) struct Dir {
    path: PathBuf,
    /// Locked until the process ends, however it does.
    _lock: File,
    ledger: Ledger,
    /// For bytes in memory that wait to be written, and on disk.
    pub(super) room: Arc<Room<Queue>>,
    next_file: AtomicU64,
    create: CreateFile,
    pub(super) memory_timeout: Duration,
    pub(super) room_timeout: Duration,
    pub(super) worker: Arc<Worker>,
}

impl SpillDir {
    /// A new directory in `parent`, which is made if there is none. Directories of runs that have ended are deleted.
    ///
    /// Bytes in memory and open files are charged to `ledger`. Files are written and read on one of the blocking threads
    /// of `runtime`, on one at a time, and its clock is used. This call itself waits for the disk.
    ///
    /// # Errors
    ///
    /// The file system refuses.
    pub fn open(
        parent: &Path,
        options: &SpillOptions,
        ledger: &Ledger,
        runtime: Handle,
    ) -> Result<Self, SpillOpenError> {
        let threads = Threads::Blocking(runtime);
        Self::open_with(parent, options, ledger, threads, create_file)
    }

    /// The same with tasks of this runtime in place of threads.
    #[cfg(test)]
    pub(crate) fn open_simulated(
        parent: &Path,
        options: &SpillOptions,
        ledger: &Ledger,
        host: &rpc_bus::simulation::Host,
    ) -> Result<Self, SpillOpenError> {
        let threads = Threads::Simulated(Handle::current(), host.clone());
        Self::open_with(parent, options, ledger, threads, create_file)
    }

    pub(super) fn open_with(
        parent: &Path,
        options: &SpillOptions,
        ledger: &Ledger,
        threads: Threads,
        create: CreateFile,
    ) -> Result<Self, SpillOpenError> {
        let (path, lock) = lock_new(parent)?;
        let room = Room::new(
            ledger.child("spill", bytes(options.unwritten_bytes_max)),
            Ledger::root("spill files", bytes(options.disk_bytes_max)),
        );
        Ok(Self(Arc::new(Dir {
            path,
            _lock: lock,
            ledger: ledger.clone(),
            room,
            next_file: AtomicU64::new(0),
            create,
            memory_timeout: options.memory_timeout,
            room_timeout: options.room_timeout,
            worker: Worker::new(threads),
        })))
    }

    /// A new queue. `on_progress` is called on the thread that moves the bytes: when there may be room for records that
    /// [`SpillWriter::push`] has found none for, of whichever queue it was, and when the queue has failed, unless a push
    /// has said so. If the runtime ends, it is called where that is ended.
    #[must_use]
    pub fn queue(
        &self,
        on_progress: impl Fn() + Send + Sync + 'static,
    ) -> (SpillWriter, SpillReader) {
        queue::new(&self.0, Box::new(on_progress))
    }

    /// Where the files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Bytes on disk, those included that have their place there but are not written yet.
    #[must_use]
    pub fn disk_bytes(&self) -> usize {
        self.0.room.disk_bytes()
    }

    /// Bytes in memory that wait to be written.
    #[must_use]
    pub fn unwritten_bytes(&self) -> usize {
        self.0.room.unwritten_bytes()
    }

    /// Waits until everything is written, read or deleted that was to be. What has no room yet is not waited for, what is
    /// to be read and lacks memory is.
    pub async fn idle(&self) {
        self.0.worker.idle().await;
    }
}

impl fmt::Debug for SpillDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillDir")
            .field("path", &self.0.path)
            .field("disk_bytes", &self.disk_bytes())
            .field("unwritten_bytes", &self.unwritten_bytes())
            .finish_non_exhaustive()
    }
}

impl Dir {
    /// Room for `record` of `queue`: in memory until it is written, and on disk.
    pub(super) fn reserve(
        &self,
        record: &SpillRecord,
        queue: &Arc<Queue>,
    ) -> Result<Reserved<Queue>, Refused> {
        let reserved = self.room.reserve(record.bytes(), disk_bytes(record), queue);
        if matches!(reserved, Err(Refused::Yet(_))) {
            self.watch().map_err(Refused::Ever)?;
        }
        reserved
    }

    fn watch(&self) -> Result<(), SpillError> {
        self.room.watch(|| {
            let (room, worker) = (Arc::clone(&self.room), Arc::clone(&self.worker));
            let watch = Watch::new(room, worker, self.room_timeout);
            self.worker.spawn(watch.run());
        })
    }

    /// Room in memory for what is read back.
    pub(super) fn reserve_memory(&self, bytes: usize) -> Result<Charge, BudgetExceeded> {
        self.ledger.charge(Kind::Bytes, bytes)
    }

    pub(super) fn create_segment(&self) -> Result<Segment, SpillError> {
        let open = self.ledger.charge(Kind::Files, 1)?;
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        Segment::create(self.path.join(format!("{number}")), self.create, open)
    }

    /// Does what is to be done after records have left memory, not on this thread: deletes what is not used any more, and
    /// tells those who wait for room.
    pub(super) fn let_go(&self, unused: Unused<Held<Queue>>) {
        if !unused.is_empty() {
            self.worker
                .tell(Job::Delete(unused, Arc::clone(&self.room)));
        }
        if self.room.has_to_tell() {
            self.worker.tell(Job::TellOfRoom(Arc::clone(&self.room)));
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // The next start deletes what cannot be deleted now.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn bytes(limit: usize) -> Limits {
    Limits {
        bytes: Some(limit),
        ..Limits::default()
    }
}

/// Deletes what earlier runs have left, and makes and locks a directory of our own.
fn lock_new(parent: &Path) -> Result<(PathBuf, File), SpillOpenError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| SpillOpenError {
            action,
            path,
            source,
        }
    };
    make_dir(parent, true).map_err(failed("create", parent))?;
    let parent_lock = parent.join(PARENT_LOCK);
    let lock = open_lock(&parent_lock).map_err(failed("open", &parent_lock))?;
    lock.lock().map_err(failed("lock", &parent_lock))?;

    delete_leftovers(parent).map_err(failed("clean up", parent))?;
    let path = parent.join(format!("{PREFIX}{:016x}", rand::random::<u64>()));
    make_dir(&path, false).map_err(failed("create", &path))?;
    let own = open_lock(&path.join(LOCK)).map_err(failed("open the lock of", &path))?;
    own.lock().map_err(failed("lock", &path))?;
    Ok((path, own))
}

/// For nobody else to read: the files hold rows of queries.
fn make_dir(path: &Path, or_use: bool) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(or_use).create(path)
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn delete_leftovers(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if is_ours(&entry.file_name().to_string_lossy()) && entry.file_type()?.is_dir() {
            let path = entry.path();
            // It may be another account's; the files of this run do not depend on it.
            if let Err(error) = delete_unlocked(&path) {
                tracing::warn!(path = %path.display(), %error, "leftover spill files cannot be deleted");
            }
        }
    }
    Ok(())
}

fn is_ours(name: &str) -> bool {
    let number = name.strip_prefix(PREFIX);
    number.is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn delete_unlocked(path: &Path) -> io::Result<()> {
    // Without a lock file its run has ended before it had one.
    let lock = open_lock(&path.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => fs::remove_dir_all(path),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
