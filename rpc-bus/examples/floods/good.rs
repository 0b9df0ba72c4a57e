//! The good client: how fast it is served.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protos::{Plane, calls::user::CancelQuery, shared::QueryId};
use rpc_bus::{
    BusRuntime, CallOptions, ConnectionOptions, Endpoint, Handler, InboundRequest, Ledger,
    RemoteConnection, connect, ledger::Limits,
};

use crate::{Outcome, server::HELLO};

/// Between two connections.
const PAUSE: Duration = Duration::from_millis(5);

struct Nothing;

impl Handler for Nothing {
    fn handle(&self, request: InboundRequest) {
        drop(request);
    }
}

/// How long each of some calls took.
#[derive(Default)]
pub(crate) struct Times {
    sorted: Vec<Duration>,
    over: Duration,
}

impl Times {
    /// Calls a second.
    pub(crate) fn rate(&self) -> f64 {
        let calls = u32::try_from(self.sorted.len()).unwrap_or(u32::MAX);
        f64::from(calls) / self.over.as_secs_f64()
    }

    /// How long all of them took.
    pub(crate) fn over(&self) -> Duration {
        self.over
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.sorted.extend(&other.sorted);
        self.sorted.sort_unstable();
        self.over += other.over;
    }

    /// `percent` of the calls took at most this, in ms; 100 is the longest.
    fn ms(&self, percent: usize) -> f64 {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1) - 1;
        self.sorted
            .get(rank)
            .map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, [p50, p99, max]) = (self.rate(), [50, 99, 100].map(|rank| self.ms(rank)));
        write!(
            f,
            "{rate:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms"
        )
    }
}

pub(crate) async fn connected(bus: &BusRuntime, to: SocketAddr) -> Outcome<RemoteConnection> {
    let to = Endpoint::new(to, Plane::User);
    let (options, ledger) = (
        ConnectionOptions::user_client(),
        Ledger::root("good", Limits::default()),
    );
    let hello = Bytes::from_static(HELLO);
    let (connection, _) = connect(&to, bus, options, ledger, hello, Arc::new(Nothing)).await?;
    Ok(connection)
}

async fn call(connection: &RemoteConnection) -> Outcome<()> {
    let (query, options) = (QueryId::default(), CallOptions::default());
    connection
        .call::<CancelQuery>(&query, vec![], options)
        .await?;
    Ok(())
}

/// One call after the other over one connection, as fast as they are answered.
pub(crate) async fn calls(
    connection: &RemoteConnection,
    mut goes_on: impl FnMut() -> bool,
) -> Outcome<Times> {
    measured(async || call(connection).await, &mut goes_on, None).await
}

/// Again and again: connect, shake hands, make one call.
pub(crate) async fn connections(
    bus: &BusRuntime,
    to: SocketAddr,
    mut goes_on: impl FnMut() -> bool,
) -> Outcome<Times> {
    let once = async || call(&connected(bus, to).await?).await;
    measured(once, &mut goes_on, Some(PAUSE)).await
}

async fn measured(
    once: impl AsyncFn() -> Outcome<()>,
    goes_on: &mut impl FnMut() -> bool,
    pause: Option<Duration>,
) -> Outcome<Times> {
    let (mut took, started) = (Vec::new(), Instant::now());
    while goes_on() {
        let began = Instant::now();
        once().await?;
        took.push(began.elapsed());
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
    let over = started.elapsed();
    took.sort_unstable();
    Ok(Times { sorted: took, over })
}
