//! The threads of the program: sockets, handlers and queries, computation; each kind apart from the
//! others.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle, available_parallelism},
    time::Duration,
};

use rpc_bus::BusRuntime;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
};

/// How many threads of each kind. `Default` fits the machine.
#[derive(Debug, Clone)]
pub struct ThreadOptions {
    /// Threads that only move bytes between sockets and memory. Default 1, from 8 processors on 2.
    pub io: usize,
    /// Threads for handlers and for queries. Default one a processor, which a query may keep busy
    /// without a break, and two, so that a CANCEL finds one free.
    pub app: usize,
    /// Threads for encoding and decoding. Default one a processor.
    pub cpu: usize,
    /// Stack of an app thread, in bytes. Only touched pages cost memory. Default 16 MiB: plans are
    /// deep recursions.
    pub app_stack_bytes: usize,
}

impl Default for ThreadOptions {
    fn default() -> Self {
        let processors = available_parallelism().map_or(2, usize::from);
        Self {
            io: if processors < 8 { 1 } else { 2 },
            app: processors + 2,
            cpu: processors,
            app_stack_bytes: 16 << 20,
        }
    }
}

/// Running threads; they end when this is dropped.
pub struct Threads {
    runtime: BusRuntime,
    app: Option<Runtime>,
    _io: Vec<IoThread>,
}

/// How long dropping waits for work that cannot be aborted, such as a plan in the making.
const DROP_WAIT: Duration = Duration::from_secs(1);

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// The system gives no more threads or file handles.
    pub fn start(options: &ThreadOptions) -> io::Result<Self> {
        let io = (0..options.io.max(1))
            .map(IoThread::start)
            .collect::<io::Result<Vec<_>>>()?;
        let app = app_runtime(options)?;
        let cpu = rayon::ThreadPoolBuilder::new()
            .num_threads(options.cpu.max(1))
            .thread_name(|index| format!("cpu-{index}"))
            .build()
            .map_err(io::Error::other)?;
        let handles = io.iter().map(|thread| thread.handle.clone()).collect();
        let runtime = BusRuntime::new(handles, app.handle().clone(), Arc::new(cpu));
        Ok(Self {
            runtime,
            app: Some(app),
            _io: io,
        })
    }

    /// What connections and servers are given.
    #[must_use]
    pub fn bus(&self) -> &BusRuntime {
        &self.runtime
    }

    /// Runs `future` on this thread, its tasks on the app threads.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.app().block_on(future)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(app) = self.app.take() {
            app.shutdown_timeout(DROP_WAIT);
        }
    }
}

fn app_runtime(options: &ThreadOptions) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(options.app.max(1))
        .thread_name("app")
        .thread_stack_size(options.app_stack_bytes)
        .enable_all()
        .build()
}

/// A single-threaded runtime on a thread of its own.
struct IoThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl IoThread {
    fn start(index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(format!("io-{index}"))
            .spawn(move || {
                // Ends by the message, or because the sender is gone.
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(handle: &Handle, threads: &Threads) -> String {
        let (sender, receiver) = oneshot::channel();
        handle.spawn(async move { sender.send(thread::current().name().map(str::to_owned)) });
        threads.block_on(receiver).unwrap().unwrap()
    }

    #[test]
    fn each_kind_of_work_runs_on_its_own_threads() {
        let threads = Threads::start(&ThreadOptions {
            io: 2,
            ..ThreadOptions::default()
        })
        .unwrap();
        let bus = threads.bus();
        assert_eq!(
            [
                name_of(bus.next_io(), &threads),
                name_of(bus.next_io(), &threads)
            ],
            ["io-0", "io-1"]
        );
        assert_eq!(name_of(bus.app(), &threads), "app");
        let cpu = threads.block_on(bus.compute(|| thread::current().name().map(str::to_owned)));
        assert!(cpu.unwrap().unwrap().starts_with("cpu-"));
    }

    #[test]
    fn dropping_does_not_wait_for_endless_work() {
        let threads = Threads::start(&ThreadOptions::default()).unwrap();
        threads.bus().app().spawn(std::future::pending::<()>());
        threads.bus().next_io().spawn(std::future::pending::<()>());
        drop(threads);
    }
}
