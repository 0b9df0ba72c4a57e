//! Both ends of a queue.

use std::{
    fmt, future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use super::{
    SpillError, SpillRecord,
    dir::Dir,
    index::{Index, Taken, Unused},
    room::{Held, Refused, Reserved, Waiting, Waits},
    worker::Job,
};

/// Adds records to a queue. It never waits, and touches no file.
#[derive(Debug)]
pub struct SpillWriter(Arc<Queue>);

/// Takes records out of a queue, in the order in which they were added. Dropped, it drops them all.
#[derive(Debug)]
pub struct SpillReader(Arc<Queue>);

pub(super) struct Queue {
    index: Mutex<Index<Held<Self>>>,
    pub(super) dir: Arc<Dir>,
    pub(super) on_progress: Box<dyn Fn() + Send + Sync>,
    waits_for_room: Waiting,
}

pub(super) fn new(
    dir: &Arc<Dir>,
    on_progress: Box<dyn Fn() + Send + Sync>,
) -> (SpillWriter, SpillReader) {
    let queue = Arc::new(Queue {
        index: Mutex::default(),
        dir: Arc::clone(dir),
        on_progress,
        waits_for_room: Waiting::default(),
    });
    (SpillWriter(Arc::clone(&queue)), SpillReader(queue))
}

impl SpillWriter {
    /// Adds `record` behind all others.
    ///
    /// # Errors
    ///
    /// There is no room for it, and it is dropped; or the queue has failed. After [`SpillError::NoRoomYet`] the queue is
    /// told when to try again, until it has been so for [`SpillOptions::room_timeout`](crate::SpillOptions::room_timeout):
    /// then it fails.
    pub fn push(&self, record: SpillRecord) -> Result<(), SpillError> {
        // First: what finds no room in a queue that has failed would wait for nothing.
        self.expect_intact()?;
        let reserved = self.0.reserve(&record);
        let pushed =
            reserved.and_then(|Reserved { memory, disk }| self.0.lock().push(record, memory, disk));
        if pushed.is_err() {
            self.0.dir.let_go(Unused::nothing());
        }
        if pushed? {
            self.0.dir.worker.tell(Job::Write(Arc::clone(&self.0)));
        }
        Ok(())
    }

    /// # Errors
    ///
    /// The queue has failed.
    pub(crate) fn expect_intact(&self) -> Result<(), SpillError> {
        self.0.lock().expect_intact()
    }

    /// Whether what is pushed now is the next to be taken: there are no records, and there is no error to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Something was taken that was before all records, or waited for room: the queue is not stuck.
    pub(crate) fn on_taken(&self) {
        self.0.lock().lacks_no_room();
    }

    /// Has the queue's `on_progress` called, on the thread that moves the bytes.
    pub(crate) fn call_back(&self) {
        self.0.dir.worker.tell(Job::CallBack(Arc::clone(&self.0)));
    }

    /// Records that were not taken.
    #[must_use]
    pub fn records(&self) -> usize {
        self.0.lock().records()
    }
}

impl SpillReader {
    /// Takes the first record; `None` if there is none.
    ///
    /// # Errors
    ///
    /// What was spilled cannot be read back, or could not be written; so it is from then on.
    pub fn poll_pop(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<SpillRecord>, SpillError>> {
        let (taken, unused) = self.0.lock().take(cx.waker())?;
        self.0.dir.let_go(unused);
        match taken {
            Taken::Record(record) => Poll::Ready(Ok(Some(record))),
            Taken::Nothing => Poll::Ready(Ok(None)),
            Taken::OnDisk { tell } => {
                if tell {
                    let read = Job::Read(Arc::clone(&self.0), None);
                    self.0.dir.worker.tell(read);
                }
                Poll::Pending
            }
        }
    }

    /// Takes the first record, after it was read if it has to be; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`Self::poll_pop`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes nothing.
    pub async fn pop(&mut self) -> Result<Option<SpillRecord>, SpillError> {
        future::poll_fn(|cx| self.poll_pop(cx)).await
    }

    /// Records that were not taken.
    #[must_use]
    pub fn records(&self) -> usize {
        self.0.lock().records()
    }
}

impl Drop for SpillReader {
    fn drop(&mut self) {
        let unused = self.0.lock().fail(SpillError::ReaderGone);
        self.0.dir.let_go(unused);
    }
}

impl Queue {
    pub(super) fn lock(&self) -> MutexGuard<'_, Index<Held<Self>>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(self: &Arc<Self>, record: &SpillRecord) -> Result<Reserved<Self>, SpillError> {
        let lasting = match self.dir.reserve(record, self) {
            Ok(reserved) => return Ok(reserved),
            Err(Refused::Yet(lasting)) => lasting,
            Err(Refused::Ever(SpillError::RuntimeEnded)) => SpillError::RuntimeEnded,
            Err(Refused::Ever(too_long)) => return Err(too_long),
        };
        let now = tokio::time::Instant::now().into_std();
        let mut index = self.lock();
        if !matches!(lasting, SpillError::RuntimeEnded)
            && index.lacks_room(now) < self.dir.room_timeout
        {
            return Err(SpillError::NoRoomYet);
        }
        let unused = index.fail(lasting.clone());
        drop(index);
        self.dir.let_go(unused);
        Err(lasting)
    }

    /// Ends the queue for this reason.
    pub(super) fn fail(&self, error: SpillError) {
        let unused = self.lock().fail(error);
        drop(unused);
        (self.on_progress)();
        self.dir.room.tell();
    }
}

impl Waits for Queue {
    fn on_room(&self) {
        (self.on_progress)();
        if !self.waits_for_room.is_anywhere() {
            // It got some, or wants none any more.
            self.lock().lacks_no_room();
        }
    }

    fn waiting(&self) -> &Waiting {
        &self.waits_for_room
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("records", &self.lock().records())
            .finish_non_exhaustive()
    }
}
