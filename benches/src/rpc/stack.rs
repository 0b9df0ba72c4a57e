//! What the bus and its peers have in common: two ends with threads of their own, and calls that echo.

use std::any::Any;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::load::{BULK_BYTES, BULK_IN_FLIGHT, Latencies, Load, Measured, Window, message, verify};
use super::threads::ThreadOptions;
use crate::process::Watched;

/// A way of making calls.
pub(super) trait Stack: 'static {
    /// The end that calls.
    type Client: Client;

    /// Starts the end that answers.
    fn serve(&self, threads: ThreadOptions) -> Result<Serving>;

    /// Starts the end that calls.
    fn client(&self, threads: ThreadOptions) -> Result<Self::Client>;
}

/// An end that answers, until this is dropped.
pub(super) struct Serving {
    pub(super) addr: SocketAddr,
    /// Whatever it takes.
    pub(super) _running: Box<dyn Any>,
}

/// Threads that call.
pub(super) trait Client: 'static {
    /// What calls go over.
    type Connection: Connection;

    /// Where callers run.
    fn runtime(&self) -> &Handle;

    /// Opens one connection more.
    fn connect(&self, server: SocketAddr) -> impl Future<Output = Result<Self::Connection>>;
}

/// A connection to an end that answers. Clones are the same one.
pub(super) trait Connection: Clone + Send + Sync + 'static {
    /// Sends `message` and returns what came back.
    fn echo(&self, message: Bytes) -> impl Future<Output = Result<Bytes>> + Send;

    /// Sends `body`; ready when it has arrived.
    fn sink(&self, body: Bytes) -> impl Future<Output = Result<()>> + Send;
}

/// A stack of any kind.
pub(super) trait AnyStack {
    /// Starts both ends in this process.
    fn pair(&self, threads: ThreadOptions) -> Result<Box<dyn Pair>>;

    /// Starts the end that answers.
    fn serve(&self, threads: ThreadOptions) -> Result<Serving>;

    /// Starts an end that only holds connections to `server`.
    fn hold(&self, threads: ThreadOptions, server: SocketAddr) -> Result<Box<dyn Hold>>;
}

/// Connections that nobody uses.
pub(super) trait Hold {
    /// Opens `connections` more.
    fn open(&mut self, connections: usize) -> Result<()>;
}

impl<S: Stack> AnyStack for S {
    fn pair(&self, threads: ThreadOptions) -> Result<Box<dyn Pair>> {
        Ok(Box::new(Ends::start(self, threads)?))
    }

    fn serve(&self, threads: ThreadOptions) -> Result<Serving> {
        Stack::serve(self, threads)
    }

    fn hold(&self, threads: ThreadOptions, server: SocketAddr) -> Result<Box<dyn Hold>> {
        Ok(Box::new(Held {
            connections: Vec::new(),
            client: self.client(threads)?,
            server,
        }))
    }
}

struct Held<C: Client> {
    // Ends before the client.
    connections: Vec<C::Connection>,
    client: C,
    server: SocketAddr,
}

impl<C: Client> Hold for Held<C> {
    fn open(&mut self, connections: usize) -> Result<()> {
        for _ in 0..connections {
            let connecting = self.client.connect(self.server);
            let connection = self.client.runtime().block_on(connecting)?;
            self.connections.push(connection);
        }
        Ok(())
    }
}

/// Both ends of a variant.
pub(crate) trait Pair {
    /// Puts `load` on it.
    fn run(&mut self, load: &Load) -> Result<Measured>;
}

/// Both ends of a stack, in one process.
struct Ends<C: Client> {
    // In the order in which they have to end.
    connections: Vec<C::Connection>,
    client: C,
    server: Serving,
}

impl<C: Client> Ends<C> {
    fn start<S: Stack<Client = C>>(stack: &S, threads: ThreadOptions) -> Result<Self> {
        Ok(Self {
            connections: Vec::new(),
            client: stack.client(threads)?,
            server: stack.serve(threads)?,
        })
    }

    async fn drive(&mut self, load: &Load) -> Result<Measured> {
        while self.connections.len() < load.connections + load.bulk {
            let connection = self.client.connect(self.server.addr).await?;
            self.connections.push(connection);
        }
        let (window, app) = (load.window(), self.client.runtime());
        let mut callers = JoinSet::new();
        for caller in 0..load.connections * load.in_flight {
            let connection = self.connections[caller % load.connections].clone();
            callers.spawn_on(call_until(connection, message(caller), window), app);
        }
        let (mut streams, body) = (JoinSet::new(), Bytes::from(vec![7; BULK_BYTES]));
        for connection in &self.connections[load.connections..][..load.bulk] {
            for _ in 0..BULK_IN_FLIGHT {
                streams.spawn_on(sink_until(connection.clone(), body.clone(), window), app);
            }
        }
        let cpu = cpu_within(window).await?;
        let mut measured = Measured {
            latencies: Latencies::default(),
            cpu,
            bulk_bytes: 0,
        };
        while let Some(caller) = callers.join_next().await {
            measured
                .latencies
                .append(caller.context("a caller panicked")??);
        }
        while let Some(stream) = streams.join_next().await {
            measured.bulk_bytes += stream.context("a stream panicked")??;
        }
        Ok(measured)
    }
}

impl<C: Client> Pair for Ends<C> {
    fn run(&mut self, load: &Load) -> Result<Measured> {
        // The runtime is the client's, which `drive` borrows together with the connections.
        let runtime = self.client.runtime().clone();
        runtime.block_on(self.drive(load))
    }
}

/// CPU time of this process from one end of `window` to the other.
async fn cpu_within(window: Window) -> Result<std::time::Duration> {
    let process = Watched(std::process::id());
    sleep_until(window.from.into()).await;
    let before = process.cpu()?;
    sleep_until(window.until.into()).await;
    Ok(process.cpu()?.since(&before))
}

async fn call_until(
    connection: impl Connection,
    message: Bytes,
    window: Window,
) -> Result<Latencies> {
    let (mut latencies, mut begun) = (Latencies::default(), Instant::now());
    loop {
        let answer = connection.echo(message.clone()).await?;
        verify(&answer, &message)?;
        let Some(ended) = latencies.record(begun, 1, window) else {
            return Ok(latencies);
        };
        begun = ended;
    }
}

async fn sink_until(connection: impl Connection, body: Bytes, window: Window) -> Result<u64> {
    let mut bytes = 0;
    loop {
        connection.sink(body.clone()).await?;
        let ended = Instant::now();
        if window.holds(ended) {
            bytes += body.len() as u64;
        }
        if ended >= window.until {
            return Ok(bytes);
        }
    }
}
