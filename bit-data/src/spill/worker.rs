//! The one thread that touches files: a read and a write in turn, so that neither waits for ever.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[cfg(test)]
use rpc_bus::simulation::Host;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    SpillError,
    dir::Dir,
    index::{NextWrite, Unused, Writing},
    queue::Queue,
    room::{Held, Room},
    segment::{Segment, Span},
};

/// Longest time that a simulated disk takes.
#[cfg(test)]
const JOB_TIME_MAX: std::time::Duration = std::time::Duration::from_millis(5);

/// Something that takes a disk's time.
#[derive(Debug)]
pub(super) enum Job {
    /// Writes some of what waits in a queue.
    Write(Arc<Queue>),
    /// Reads the first records of a queue.
    Read(Arc<Queue>),
    /// Deletes files, whose room others may wait for.
    Delete(Unused<Held<Queue>>, Arc<Room<Queue>>),
    /// Tells queues that there may be room.
    TellOfRoom(Arc<Room<Queue>>),
}

/// What does the jobs.
pub(super) enum Threads {
    /// One of the blocking threads of a runtime.
    Blocking(Handle),
    /// A task, of which each job takes a moment.
    #[cfg(test)]
    Simulated(Handle, Host),
}

/// Jobs, and whether a thread is at them.
pub(super) struct Worker {
    threads: Threads,
    jobs: Mutex<Jobs>,
    at_rest: Notify,
}

#[derive(Debug, Default)]
struct Jobs {
    reads: VecDeque<Job>,
    others: VecDeque<Job>,
    /// Whether the next job is a read, if there is one.
    is_turn_of_reads: bool,
    is_running: bool,
}

impl Worker {
    pub(super) fn new(threads: Threads) -> Arc<Self> {
        Arc::new(Self {
            threads,
            jobs: Mutex::default(),
            at_rest: Notify::new(),
        })
    }

    /// Has `job` done, by a thread that is started if none is at it.
    pub(super) fn tell(self: &Arc<Self>, job: Job) {
        if self.lock().push(job) {
            let run = Run {
                worker: Arc::clone(self),
                current: None,
                is_done: false,
            };
            // Ends by itself when there is no job left; what has to be done if it cannot run is in its destructor.
            match &self.threads {
                Threads::Blocking(runtime) => drop(runtime.spawn_blocking(move || run.all())),
                #[cfg(test)]
                Threads::Simulated(runtime, host) => {
                    drop(runtime.spawn(run.all_simulated(host.clone())));
                }
            }
        }
    }

    /// Waits until there is nothing to do.
    pub(super) async fn idle(&self) {
        loop {
            let at_rest = self.at_rest.notified();
            if !self.lock().is_running {
                return;
            }
            at_rest.await;
        }
    }

    fn next(&self) -> Option<Job> {
        let next = self.lock().next();
        if next.is_none() {
            self.at_rest.notify_waiters();
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jobs {
    /// Adds `job`; whether a thread has to be started.
    fn push(&mut self, job: Job) -> bool {
        match job {
            Job::Read(_) => self.reads.push_back(job),
            Job::Write(_) | Job::Delete(..) | Job::TellOfRoom(_) => self.others.push_back(job),
        }
        !std::mem::replace(&mut self.is_running, true)
    }

    fn next(&mut self) -> Option<Job> {
        self.is_turn_of_reads = !self.is_turn_of_reads;
        let (first, second) = if self.is_turn_of_reads {
            (&mut self.reads, &mut self.others)
        } else {
            (&mut self.others, &mut self.reads)
        };
        let next = first.pop_front().or_else(|| second.pop_front());
        self.is_running = next.is_some();
        next
    }
}

/// A thread at its jobs. If it is dropped before it is done, because its runtime ends or because it panics, those who
/// wait for it are told.
struct Run {
    worker: Arc<Worker>,
    current: Option<Arc<Queue>>,
    is_done: bool,
}

impl Run {
    fn all(mut self) {
        while let Some(job) = self.worker.next() {
            self.one(job);
        }
        self.is_done = true;
    }

    #[cfg(test)]
    async fn all_simulated(mut self, host: Host) {
        while let Some(job) = self.worker.next() {
            tokio::time::sleep(host.moment(JOB_TIME_MAX)).await;
            self.one(job);
        }
        self.is_done = true;
    }

    fn one(&mut self, job: Job) {
        match job {
            Job::Write(queue) => write(self.begin(queue)),
            Job::Read(queue) => read(self.begin(queue)),
            Job::Delete(unused, room) => {
                drop(unused);
                room.tell();
            }
            Job::TellOfRoom(room) => room.tell(),
        }
        // Before the next one is asked for: whoever sees that there is none finds nothing in our hands.
        self.current = None;
    }

    fn begin(&mut self, queue: Arc<Queue>) -> &Arc<Queue> {
        self.current.insert(queue)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let rest = std::iter::from_fn(|| self.worker.next());
        let queues = rest.filter_map(|job| match job {
            Job::Write(queue) | Job::Read(queue) => Some(queue),
            Job::Delete(..) | Job::TellOfRoom(_) => None,
        });
        for queue in self.current.take().into_iter().chain(queues) {
            // Without a word to others: this may be the thread of somebody who has just told us of a job.
            drop(queue.lock().fail(SpillError::RuntimeEnded));
        }
    }
}

fn write(queue: &Arc<Queue>) {
    let next = queue.lock().next_write();
    let writing = match next {
        NextWrite::Write(writing) => writing,
        NextWrite::Rest(unused) => {
            drop(unused);
            return queue.dir.room.tell();
        }
    };
    match append(&queue.dir, &writing) {
        Ok(spans) => {
            queue.lock().written(writing, spans);
            queue.dir.room.tell();
            queue.dir.worker.tell(Job::Write(Arc::clone(queue)));
        }
        Err(error) => {
            // Before others are told that there is room.
            drop(writing);
            queue.fail(error);
        }
    }
}

fn append(dir: &Dir, writing: &Writing<Held<Queue>>) -> Result<Vec<Span>, SpillError> {
    let (segment, offset) = match &writing.segment {
        Some((segment, offset)) => (Arc::clone(segment), *offset),
        None => (Arc::new(dir.create_segment()?), 0),
    };
    segment.append(offset, &writing.records)
}

fn read(queue: &Queue) {
    let mut spans = queue.lock().next_read();
    let bytes = |spans: &[Span]| spans.iter().map(Span::disk_bytes).sum();
    let ahead = queue.dir.reserve_memory(bytes(&spans));
    let charge = ahead.or_else(|_| {
        spans.truncate(1);
        queue.dir.reserve_memory(bytes(&spans))
    });
    let records = charge
        .map_err(SpillError::from)
        .and_then(|charge| Segment::read(&spans, charge));
    match records {
        Ok(records) => queue.lock().read(records),
        Err(error) => queue.fail(error),
    }
}
