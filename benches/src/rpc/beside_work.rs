//! A server that computes as much as it can for one connection, and what another one notices of it.
//!
//! One connection has 64 requests under way, each of which takes 10 ms of a processor in the pool for such work, which has a
//! thread for every processor. Over the other one goes a small call at a time, and beside those a PING at a time.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use protos::Call;
use protos::calls::control::Custom;
use rpc_bus::{
    Acceptor, BusRuntime, CallOptions, Handler, Hello, IdleTimeout, InboundRequest,
    RemoteConnection, RpcFailure, Server, Verdict,
};
use tokio::task::JoinSet;

use super::Sample;
use super::bus::Bus;
use super::load::{Latencies, Load, Window, message, verify};
use super::stack::{Client, Connection, Stack};
use super::threads::{ThreadOptions, Threads};

/// Its name.
pub(super) const CASE: &str = "beside-work";
/// Calls are few there, and the slow ones count.
const LOAD: Load = Load {
    measured: Duration::from_secs(3),
    ..Load::calls(CASE, 1, 1)
};
/// Requests under way that take long.
const WORKERS: usize = 64;
/// Of a processor.
const WORK: Duration = Duration::from_millis(10);

/// Works on a request that has a raw body, and sends every other one back.
struct Works {
    bus: BusRuntime,
}

impl Acceptor for Works {
    fn accept(&self, _: Hello) -> Verdict {
        let bus = self.bus.clone();
        Verdict::Open {
            reply: Bytes::new(),
            handler: Arc::new(Self { bus }),
            idle_timeout: IdleTimeout::Keep,
        }
    }
}

impl Handler for Works {
    fn handle(&self, request: InboundRequest) {
        if request.rpc_type != Custom::REQUEST {
            let unknown = RpcFailure::unknown_type(request.rpc_type);
            return request.refuse(unknown);
        }
        let Some((message, dbody, reply)) = request.decode::<Custom>() else {
            return;
        };
        if dbody.is_empty() {
            return reply.send(&message);
        }
        let bus = self.bus.clone();
        self.bus.app().spawn(async move {
            match bus.compute(work).await {
                Ok(()) => reply.send(&message),
                Err(panicked) => drop((reply, panicked)),
            }
        });
    }
}

fn work() {
    let begun = Instant::now();
    while begun.elapsed() < WORK {
        black_box(begun);
    }
}

/// What both ends take, for one round.
pub(super) fn measure(threads: ThreadOptions) -> Result<Vec<Sample>> {
    let serving = Threads::start_computing(threads)?;
    let works = Works {
        bus: serving.bus().clone(),
    };
    let bus = Bus::default();
    let bound = bus.bind(&serving, Arc::new(works));
    let server: Server = serving.app().block_on(bound)?;
    let client = Stack::client(&bus, threads)?;
    let runtime = client.runtime().clone();
    runtime.block_on(drive(&client, server.local_addr()))
}

async fn drive(
    client: &impl Client<Connection = RemoteConnection>,
    server: SocketAddr,
) -> Result<Vec<Sample>> {
    let (busy, idle) = (client.connect(server).await?, client.connect(server).await?);
    let window = LOAD.window();
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(work_until(busy.clone(), window));
    }
    let (mut callers, mut pingers) = (JoinSet::new(), JoinSet::new());
    callers.spawn(call_until(idle.clone(), window));
    pingers.spawn(ping_until(idle, window));
    let (mut calls, mut pings) = (only(&mut callers).await?, only(&mut pingers).await?);
    let mut done = 0;
    while let Some(worked) = workers.join_next().await {
        done += worked.context("a worker panicked")??;
    }
    if done == 0 {
        bail!("no work was done");
    }
    Ok(vec![
        ("p50_us", calls.micros(50)?),
        ("p99_us", calls.micros(99)?),
        ("ping_p99_us", pings.micros(99)?),
        ("works_s", f64::from(done) / LOAD.measured.as_secs_f64()),
    ])
}

/// What the one task of its kind has measured.
async fn only(tasks: &mut JoinSet<Result<Latencies>>) -> Result<Latencies> {
    let task = tasks.join_next().await.context("nobody measures")?;
    task.context("a caller panicked")?
}

/// How often it worked within the window.
async fn work_until(busy: RemoteConnection, window: Window) -> Result<u32> {
    let (request, mut done) = (protos::control::CustomMessage::default(), 0);
    loop {
        let body = vec![Bytes::from_static(b"work")];
        busy.call::<Custom>(&request, body, CallOptions::default())
            .await?;
        let ended = Instant::now();
        done += u32::from(window.holds(ended));
        if ended >= window.until {
            return Ok(done);
        }
    }
}

async fn call_until(idle: RemoteConnection, window: Window) -> Result<Latencies> {
    let (message, mut latencies) = (message(0), Latencies::default());
    let mut begun = Instant::now();
    loop {
        verify(&idle.echo(message.clone()).await?, &message)?;
        let Some(ended) = latencies.record(begun, 1, window) else {
            return Ok(latencies);
        };
        begun = ended;
    }
}

async fn ping_until(idle: RemoteConnection, window: Window) -> Result<Latencies> {
    let (mut latencies, mut begun) = (Latencies::default(), Instant::now());
    loop {
        idle.ping().await?;
        let Some(ended) = latencies.record(begun, 1, window) else {
            return Ok(latencies);
        };
        begun = ended;
    }
}
