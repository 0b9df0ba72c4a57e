//! The threads of one end of the bus: some for sockets, some for handlers; or one for everything, where callers are.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::Result;
use rpc_bus::BusRuntime;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// How sockets are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum IoKind {
    /// Each I/O thread is a runtime of its own, as in a node.
    Single,
    /// All I/O threads are one runtime that moves tasks between them.
    Multi,
}

/// Where those who call over the bus run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Callers {
    /// On one single-threaded runtime, together with the connections that they call over
    WithSockets,
    /// On threads of their own, as those of a node's handlers
    Apart,
}

/// Threads of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct ThreadOptions {
    /// I/O threads of an end of the bus
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_least_one)]
    pub(crate) io_threads: usize,
    /// Threads for handlers of an end of the bus; any end of another variant has as many as both together
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_least_one)]
    pub(crate) app_threads: usize,
    /// Whether each I/O thread of the bus is a runtime of its own
    #[arg(long, value_enum, default_value_t = IoKind::Single)]
    pub(crate) io: IoKind,
    /// Where callers of the bus run
    #[arg(long, value_enum, default_value_t = Callers::WithSockets)]
    pub(crate) callers: Callers,
}

impl ThreadOptions {
    /// The same as arguments of a program.
    pub(crate) fn arguments(self) -> [String; 4] {
        let io = match self.io {
            IoKind::Single => "single",
            IoKind::Multi => "multi",
        };
        let callers = match self.callers {
            Callers::WithSockets => "with-sockets",
            Callers::Apart => "apart",
        };
        [
            format!("--io-threads={}", self.io_threads),
            format!("--app-threads={}", self.app_threads),
            format!("--io={io}"),
            format!("--callers={callers}"),
        ]
    }

    /// Threads of an end together.
    #[cfg(feature = "peers")]
    pub(crate) fn all(self) -> usize {
        self.io_threads + self.app_threads
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a number from 1 on".to_owned()),
    }
}

/// Running threads of one end of the bus; they end when this is dropped.
pub(crate) struct Threads {
    bus: BusRuntime,
    _app: Option<Runtime>,
    _io: Io,
}

/// What keeps the I/O threads.
enum Io {
    Single(Vec<IoThread>),
    Multi(Runtime),
}

impl Threads {
    /// Those of an end that does not compute.
    pub(crate) fn start(options: ThreadOptions) -> Result<Self> {
        Self::with_computing(1, options)
    }

    /// Those of an end that computes, on as many threads as there are processors.
    pub(super) fn start_computing(options: ThreadOptions) -> Result<Self> {
        Self::with_computing(thread::available_parallelism()?.get(), options)
    }

    fn with_computing(computing: usize, options: ThreadOptions) -> Result<Self> {
        let io = Io::start(options)?;
        let handles = match &io {
            Io::Single(threads) => threads.iter().map(|thread| thread.handle.clone()).collect(),
            Io::Multi(runtime) => vec![runtime.handle().clone()],
        };
        let app = runtime("app", options.app_threads)?;
        let cpu = rayon::ThreadPoolBuilder::new()
            .num_threads(computing)
            .build()?;
        let bus = BusRuntime::new(handles, app.handle().clone(), Arc::new(cpu));
        Ok(Self {
            bus,
            _app: Some(app),
            _io: io,
        })
    }

    /// Those of an end that calls.
    pub(crate) fn start_callers(options: ThreadOptions) -> Result<Self> {
        if options.callers == Callers::Apart {
            return Self::start(options);
        }
        let io = IoThread::start()?;
        let bus = {
            let _there = io.handle.enter();
            BusRuntime::here()
        };
        Ok(Self {
            bus,
            _app: None,
            _io: Io::Single(vec![io]),
        })
    }

    pub(crate) fn bus(&self) -> &BusRuntime {
        &self.bus
    }

    pub(crate) fn app(&self) -> &Handle {
        self.bus.app()
    }
}

/// A runtime that moves tasks between its threads.
pub(crate) fn runtime(name: &str, threads: usize) -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    Ok(builder
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()?)
}

impl Io {
    fn start(options: ThreadOptions) -> Result<Self> {
        Ok(match options.io {
            IoKind::Multi => Self::Multi(runtime("io", options.io_threads)?),
            IoKind::Single => Self::Single(
                (0..options.io_threads)
                    .map(|_| IoThread::start())
                    .collect::<Result<_>>()?,
            ),
        })
    }
}

/// A single-threaded runtime on a thread of its own.
struct IoThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl IoThread {
    fn start() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("io".to_owned())
            // Ends by the message, or because the sender is gone.
            .spawn(move || drop(runtime.block_on(stopped)))?;
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
