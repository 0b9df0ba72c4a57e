//! The one thread that touches files: a read and a write in turn, so that neither waits for ever.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rpc_bus::ledger::BudgetExceeded;
#[cfg(test)]
use rpc_bus::simulation::Host;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    SpillError,
    dir::Dir,
    index::{NextWrite, Unused, Writing},
    queue::Queue,
    room::{First, Held, Room},
    segment::{Segment, Span},
};

/// How long what has found no memory waits before it is tried again: nobody tells of memory that is not ours.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(10);
/// Longest time that a simulated disk takes.
#[cfg(test)]
const JOB_TIME_MAX: Duration = Duration::from_millis(5);

/// Something that takes a disk's time.
#[derive(Debug)]
pub(super) enum Job {
    /// Writes some of what waits in a queue.
    Write(Arc<Queue>),
    /// Has the owner of a queue do what takes its time.
    CallBack(Arc<Queue>),
    /// Reads the first records of a queue; before all that is to be written, if it has waited for memory for long.
    Read(Arc<Queue>, Option<First<Queue>>),
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

/// What whoever does the jobs is to do next.
enum Next {
    Job(Job),
    /// Wait a moment, since all there is has to be tried again.
    Wait,
    Rest,
}

/// Jobs, and whether a thread is at them.
pub(super) struct Worker {
    threads: Threads,
    jobs: Mutex<Jobs>,
    /// There are new jobs, while the thread waits for memory.
    more: Condvar,
    at_rest: Notify,
    /// A thread is at the jobs; changed under their lock.
    is_running: AtomicBool,
    /// The runtime has none any more.
    has_ended: AtomicBool,
}

#[derive(Debug, Default)]
struct Jobs {
    reads: VecDeque<Job>,
    others: VecDeque<Job>,
    /// Have found no memory.
    later: Vec<Job>,
    /// Whether the next job is a read, if there is one.
    is_turn_of_reads: bool,
}

impl Worker {
    pub(super) fn new(threads: Threads) -> Arc<Self> {
        Arc::new(Self {
            threads,
            jobs: Mutex::default(),
            more: Condvar::new(),
            at_rest: Notify::new(),
            is_running: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        })
    }

    /// Has `job` done, by a thread that is started if none is at it. If there is none any more, its queue has failed, which
    /// is for the caller to see, who may hold locks.
    pub(super) fn tell(self: &Arc<Self>, job: Job) {
        self.run(|jobs| jobs.push(job));
    }

    /// Has `job` done in a while, because it finds no memory now.
    pub(super) fn tell_later(self: &Arc<Self>, job: Job) {
        self.run(|jobs| jobs.later.push(job));
    }

    /// Adds a job and starts a thread under one lock: if there is none to be had, no job is here but this one.
    fn run(self: &Arc<Self>, add: impl FnOnce(&mut Jobs)) {
        let mut jobs = self.lock();
        add(&mut jobs);
        if self.is_running.load(Ordering::SeqCst) {
            drop(jobs);
            return self.more.notify_one();
        }
        self.start();
        self.is_running.store(true, Ordering::SeqCst);
        // One that ends while it begins does not see that it has begun: then this sees that it has ended.
        if self.has_ended.load(Ordering::SeqCst) {
            drop(jobs);
            for queue in self.give_up().into_queues() {
                drop(queue.lock().fail(SpillError::RuntimeEnded));
            }
        }
    }

    fn start(self: &Arc<Self>) {
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

    /// Runs what takes no disk's time. It is dropped if it cannot be run, here or when its runtime ends.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.threads {
            Threads::Blocking(runtime) => drop(runtime.spawn(task)),
            #[cfg(test)]
            Threads::Simulated(runtime, _) => drop(runtime.spawn(task)),
        }
    }

    /// Waits until there is nothing to do.
    pub(super) async fn idle(&self) {
        loop {
            let at_rest = self.at_rest.notified();
            if !self.is_running.load(Ordering::SeqCst) {
                return;
            }
            at_rest.await;
        }
    }

    fn next(&self) -> Next {
        let mut jobs = self.lock();
        if let Some(job) = jobs.next() {
            return Next::Job(job);
        }
        if !jobs.later.is_empty() {
            return Next::Wait;
        }
        self.is_running.store(false, Ordering::SeqCst);
        drop(jobs);
        self.at_rest.notify_waiters();
        Next::Rest
    }

    /// Waits until it is time to try again, or there is something else to do.
    fn wait(&self) {
        let jobs = self.lock();
        let is_idle = |jobs: &mut Jobs| jobs.reads.is_empty() && jobs.others.is_empty();
        let woken = self.more.wait_timeout_while(jobs, RETRY_AFTER, is_idle);
        woken.unwrap_or_else(PoisonError::into_inner).0.try_again();
    }

    /// All jobs, if nobody does them any more.
    fn give_up(&self) -> Jobs {
        let mut jobs = self.lock();
        self.is_running.store(false, Ordering::SeqCst);
        let given_up = mem::take(&mut *jobs);
        drop(jobs);
        self.at_rest.notify_waiters();
        given_up
    }

    #[cfg(test)]
    pub(super) fn waiting_for_memory(&self) -> usize {
        self.lock().later.len()
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jobs {
    fn push(&mut self, job: Job) {
        match job {
            Job::Read(..) => self.reads.push_back(job),
            Job::Write(_) | Job::CallBack(_) | Job::Delete(..) | Job::TellOfRoom(_) => {
                self.others.push_back(job);
            }
        }
    }

    fn next(&mut self) -> Option<Job> {
        self.is_turn_of_reads = !self.is_turn_of_reads;
        // What is to be tried again is not left out for being later than what comes all the time.
        if self.is_turn_of_reads && !self.others.is_empty() {
            self.try_again();
        }
        let (first, second) = if self.is_turn_of_reads {
            (&mut self.reads, &mut self.others)
        } else {
            (&mut self.others, &mut self.reads)
        };
        first.pop_front().or_else(|| second.pop_front())
    }

    fn try_again(&mut self) {
        for job in mem::take(&mut self.later) {
            self.push(job);
        }
    }

    fn into_queues(self) -> impl Iterator<Item = Arc<Queue>> {
        let jobs = self.reads.into_iter().chain(self.others).chain(self.later);
        jobs.filter_map(|job| match job {
            Job::Write(queue) | Job::CallBack(queue) | Job::Read(queue, _) => Some(queue),
            Job::Delete(..) | Job::TellOfRoom(_) => None,
        })
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
        loop {
            match self.worker.next() {
                Next::Job(job) => self.one(job),
                Next::Wait => self.worker.wait(),
                Next::Rest => break,
            }
        }
        self.is_done = true;
    }

    #[cfg(test)]
    async fn all_simulated(mut self, host: Host) {
        loop {
            match self.worker.next() {
                Next::Job(job) => {
                    tokio::time::sleep(host.moment(JOB_TIME_MAX)).await;
                    self.one(job);
                }
                Next::Wait => {
                    tokio::time::sleep(RETRY_AFTER).await;
                    self.worker.lock().try_again();
                }
                Next::Rest => break,
            }
        }
        self.is_done = true;
    }

    fn one(&mut self, job: Job) {
        match job {
            Job::Write(queue) => write(self.begin(queue)),
            Job::CallBack(queue) => (self.begin(queue).on_progress)(),
            Job::Read(queue, first) => read(self.begin(queue), first),
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
        let panics = thread::panicking();
        self.worker.has_ended.fetch_or(!panics, Ordering::SeqCst);
        if !self.worker.is_running.load(Ordering::SeqCst) {
            // The jobs are locked, by somebody who has just told us of one.
            return;
        }
        let rest = self.worker.give_up().into_queues();
        for queue in self.current.take().into_iter().chain(rest) {
            if panics {
                // What is called may be what has panicked.
                drop(queue.lock().fail(SpillError::RuntimeEnded));
            } else {
                queue.fail(SpillError::RuntimeEnded);
            }
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

fn read(queue: &Arc<Queue>, first: Option<First<Queue>>) {
    let mut spans = queue.lock().next_read();
    let bytes = |spans: &[Span]| spans.iter().map(Span::disk_bytes).sum();
    let ahead = queue.dir.reserve_memory(bytes(&spans));
    let charge = ahead.or_else(|_| {
        spans.truncate(1);
        queue.dir.reserve_memory(bytes(&spans))
    });
    let charge = match charge {
        Ok(charge) => charge,
        Err(spent) => return try_later(queue, spent, first),
    };
    if first.is_some() {
        drop(first);
        queue.dir.room.tell();
    }
    match Segment::read(&spans, charge) {
        Ok(records) => queue.lock().read(records),
        Err(error) => queue.fail(error),
    }
}

/// Memory comes and goes, so a queue does not fail for the lack of it at once. What others write may take all that comes, so
/// it comes before that in the last three quarters of its time. That is less than what waits for room has, by default.
fn try_later(queue: &Arc<Queue>, spent: BudgetExceeded, first: Option<First<Queue>>) {
    let waited = queue
        .lock()
        .lacks_memory(tokio::time::Instant::now().into_std());
    if waited >= queue.dir.memory_timeout || spent.requested > spent.limit {
        drop(first);
        return queue.fail(spent.into());
    }
    let is_first = waited >= queue.dir.memory_timeout / 4;
    let first = first.or_else(|| is_first.then(|| queue.dir.room.first()));
    let read = Job::Read(Arc::clone(queue), first);
    queue.dir.worker.tell_later(read);
}
