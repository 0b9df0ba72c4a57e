//! Where work runs: sockets on `io`, handlers on `app`, computation on `cpu`.
//!
//! The program builds the runtimes and passes them in; nothing here starts one. Who only calls is best served by
//! [`BusRuntime::here`]: a caller that shares its thread with its connection needs no other thread to be woken, and what
//! all callers of the thread have to say leaves in one write. Who serves keeps sockets apart from what takes time.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use thiserror::Error;
use tokio::{runtime::Handle, sync::oneshot};

#[cfg(any(test, feature = "simulation"))]
use crate::simulation::Host;
use crate::{
    frame::{BodyPool, BodyPoolOptions},
    metrics::Metrics,
    task::Tasks,
    transport::Network,
};

/// The three kinds of threads, and what connections share. Clones are the same; the last one takes the client
/// connections with it.
#[derive(Clone)]
pub struct BusRuntime(Arc<Shared>);

struct Shared {
    io: Vec<Handle>,
    next_io: AtomicUsize,
    app: Handle,
    cpu: Cpu,
    network: Network,
    bodies: Arc<BodyPool>,
    metrics: Arc<Metrics>,
    /// Tasks of client connections; a server owns those of its own.
    clients: Tasks,
}

/// Where computation runs.
enum Cpu {
    Pool(Arc<rayon::ThreadPool>),
    /// On blocking threads of `app`.
    Blocking,
    /// In a task of `app`, after a moment.
    #[cfg(any(test, feature = "simulation"))]
    Simulated(Host),
}

/// Work on the cpu pool panicked; the pool lives on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a computation panicked: {message}")]
pub struct ComputePanicked {
    /// What the panic said.
    pub message: String,
}

impl BusRuntime {
    /// `io`: single-threaded runtimes, over which connections are spread; `app`: where handlers run; `cpu`: for
    /// work above some 50 microseconds that never waits.
    ///
    /// # Panics
    ///
    /// If `io` is empty.
    #[must_use]
    pub fn new(io: Vec<Handle>, app: Handle, cpu: Arc<rayon::ThreadPool>) -> Self {
        Self::with(io, app, Cpu::Pool(cpu), Network::Tcp)
    }

    fn with(io: Vec<Handle>, app: Handle, cpu: Cpu, network: Network) -> Self {
        assert!(!io.is_empty(), "at least one io runtime is needed");
        let bodies = BodyPool::new(BodyPoolOptions::default());
        Self(Arc::new(Shared {
            io,
            next_io: AtomicUsize::new(0),
            app,
            cpu,
            network,
            bodies,
            metrics: Arc::default(),
            clients: Tasks::default(),
        }))
    }

    /// Every role on the caller's runtime, computation on its blocking threads: for clients, best of all on a
    /// single-threaded runtime, and for small programs.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn here() -> Self {
        let here = Handle::current();
        Self::with(vec![here.clone()], here, Cpu::Blocking, Network::Tcp)
    }

    /// The same with a pool of threads for computation.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn current(cpu: Arc<rayon::ThreadPool>) -> Self {
        let here = Handle::current();
        Self::new(vec![here.clone()], here, cpu)
    }

    /// Every role on the caller's runtime, as a host of a simulated network.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[cfg(any(test, feature = "simulation"))]
    #[must_use]
    pub fn simulated(host: &Host) -> Self {
        let here = Handle::current();
        let network = Network::Simulated(host.clone());
        Self::with(
            vec![here.clone()],
            here,
            Cpu::Simulated(host.clone()),
            network,
        )
    }

    /// Where handlers and their tasks run.
    #[must_use]
    pub fn app(&self) -> &Handle {
        &self.0.app
    }

    /// The io runtime for the next connection: each in turn.
    #[must_use]
    pub fn next_io(&self) -> &Handle {
        let turn = self.0.next_io.fetch_add(1, Ordering::Relaxed);
        &self.0.io[turn % self.0.io.len()]
    }

    /// Buffers of large bodies, shared by all connections.
    #[must_use]
    pub fn bodies(&self) -> &Arc<BodyPool> {
        &self.0.bodies
    }

    /// Counters of all connections, of servers and clients alike.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    pub(crate) fn network(&self) -> &Network {
        &self.0.network
    }

    pub(crate) fn clients(&self) -> &Tasks {
        &self.0.clients
    }

    /// Runs CPU-heavy work on the pool. A caller that stops waiting does not stop the work.
    ///
    /// # Errors
    ///
    /// The work panicked.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputePanicked> {
        let (done, result) = oneshot::channel();
        let work = move || {
            let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| ComputePanicked {
                message: panic_message(&*panic),
            });
            // Nobody may be waiting any more.
            let _ = done.send(outcome);
        };
        match &self.0.cpu {
            Cpu::Pool(cpu) => cpu.spawn(work),
            Cpu::Blocking => drop(self.0.app.spawn_blocking(work)),
            #[cfg(any(test, feature = "simulation"))]
            Cpu::Simulated(host) => {
                let takes = host.compute_time();
                drop(self.0.app.spawn(async move {
                    tokio::time::sleep(takes).await;
                    work();
                }));
            }
        }
        result.await.unwrap_or_else(|_| {
            Err(ComputePanicked {
                message: "the pool dropped the work".to_owned(),
            })
        })
    }
}

impl fmt::Debug for BusRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = if let Cpu::Pool(cpu) = &self.0.cpu {
            Some(cpu.current_num_threads())
        } else {
            None
        };
        f.debug_struct("BusRuntime")
            .field("io", &self.0.io.len())
            .field("cpu", &cpu)
            .finish_non_exhaustive()
    }
}

/// The text of a panic, as far as it has one.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pool() -> Arc<rayon::ThreadPool> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
        Arc::new(pool.build().unwrap())
    }

    #[tokio::test]
    async fn computation_runs_elsewhere_and_survives_a_panic() {
        for runtime in [BusRuntime::current(pool()), BusRuntime::here()] {
            let panicked = runtime.compute(|| panic!("no {}", "way")).await;
            assert_eq!(
                panicked,
                Err::<(), _>(ComputePanicked {
                    message: "no way".into()
                })
            );
            let here = std::thread::current().id();
            let there = runtime.compute(|| std::thread::current().id()).await;
            assert!(there.is_ok_and(|there| there != here));
        }
    }
}
