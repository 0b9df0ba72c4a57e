//! What all connections of a runtime have done, by plane, rpc type and direction: plain values for an exporter.
//!
//! Each connection counts beside its own state, under the lock that it holds anyway. Nothing is shared on the way of a
//! message: a snapshot looks at every open connection in turn, and a connection that ends leaves its counters here.

mod histogram;
mod rpcs;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protos::Plane;

pub use histogram::Histogram;
pub(crate) use histogram::Times;
pub(crate) use rpcs::{Ending, Rpcs, Started, Ticket};

use crate::{
    error::{CloseReason, ConnectError},
    link::Link,
    stats::ConnectionStats,
};

/// The counters of a [`BusRuntime`](crate::BusRuntime): of its servers and of its clients.
#[derive(Default)]
pub struct Metrics {
    planes: [Mutex<PlaneMetrics>; Plane::ALL.len()],
}

/// One plane at one moment. Counters only ever grow, gauges do not.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlaneSnapshot {
    /// Which one.
    pub plane: Plane,
    /// Connections that came and went.
    pub connections: ConnectionCounts,
    /// Sums over all connections, closed ones included; gauges over the open ones. Peaks are those of single
    /// connections, and `round_trips` is `None`.
    pub totals: ConnectionStats,
    /// Round trips of PINGs.
    pub ping_round_trip: Histogram,
    /// Requests of the peers, by type; only types that came.
    pub inbound: Vec<InboundRpc>,
    /// Calls, by type; only types that were called.
    pub outbound: Vec<OutboundRpc>,
}

/// Connections of one plane, of both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionCounts {
    /// Sockets that became connections, handshake or not.
    pub opened: u64,
    /// Those that are open now.
    pub open: u64,
    /// Those that ended, by [`CloseReason::kind`].
    pub closed: BTreeMap<&'static str, u64>,
    /// Sockets closed at once because there were too many.
    pub refused: u64,
    /// Sockets closed before they became connections, as in the handshake of TLS, by [`CloseReason::kind`].
    pub not_accepted: BTreeMap<&'static str, u64>,
    /// Attempts to connect that failed, by [`ConnectError::kind`].
    pub not_connected: BTreeMap<&'static str, u64>,
}

/// Requests of one type in one direction. Each ends once: `requests` is `in_flight` and the sum of `ended`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RpcCounts {
    /// Drill's name; `unknown` for all together that the plane's table does not have.
    pub name: &'static str,
    /// Its number; `None` for `unknown`.
    pub rpc_type: Option<i32>,
    /// Requests.
    pub requests: u64,
    /// Those that wait for their end now. A call that was given up does not.
    pub in_flight: u64,
    /// Those that ended, by how: `answered`, `one_way` (never answered), `failed` (with `RESPONSE_FAILURE`), `lost` (the connection ended first);
    /// those of peers also `refused` (too many in flight); those of this side also `given_up` (dropped by the caller)
    /// and the other words of [`CallError::kind`](crate::CallError::kind).
    pub ended: Vec<(&'static str, u64)>,
    /// Bytes of the bodies of requests.
    pub request_bytes: u64,
    /// Bytes of the bodies of answers, failures excluded.
    pub answer_bytes: u64,
}

/// Requests of peers of one type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct InboundRpc {
    /// How many, and how they ended.
    pub counts: RpcCounts,
    /// From its read to the start of its handler, of requests that their handler has answered.
    pub queue_time: Histogram,
    /// From the start of its handler to its answer, wherever that was made.
    pub handler_time: Histogram,
}

/// Calls of one type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutboundRpc {
    /// How many, and how they ended.
    pub counts: RpcCounts,
    /// Until there was room to write; only of calls that had to wait.
    pub room_wait: Histogram,
    /// From the call to its answer, the wait for room included.
    pub round_trip: Histogram,
}

#[derive(Default)]
struct PlaneMetrics {
    counts: ConnectionCounts,
    /// Of connections that have ended.
    ended: Counters,
    /// Connections that have not.
    links: HashMap<u64, Arc<Link>>,
}

/// What a connection counts, or the sum of many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) stats: ConnectionStats,
    pub(crate) pings: Times,
    pub(crate) rpcs: Rpcs,
}

impl Counters {
    fn add(&mut self, other: &Self) {
        self.stats.add(&other.stats);
        self.pings.add(&other.pings);
        self.rpcs.add(&other.rpcs);
    }
}

impl Metrics {
    /// All planes as they are now. Takes the lock of every open connection for a moment, one after the other.
    #[must_use]
    pub fn snapshot(&self) -> Vec<PlaneSnapshot> {
        Plane::ALL
            .into_iter()
            .map(|plane| self.plane(plane))
            .collect()
    }

    fn plane(&self, plane: Plane) -> PlaneSnapshot {
        let (mut connections, mut sum, links) = {
            let metrics = self.lock(plane);
            let links: Vec<_> = metrics.links.values().cloned().collect();
            (metrics.counts.clone(), metrics.ended.clone(), links)
        };
        connections.open = links.len() as u64;
        for link in links {
            sum.add(&link.counters());
        }
        PlaneSnapshot {
            plane,
            connections,
            totals: sum.stats,
            ping_round_trip: sum.pings.snapshot(),
            inbound: sum.rpcs.inbound(plane),
            outbound: sum.rpcs.outbound(plane),
        }
    }

    pub(crate) fn on_opened(&self, link: &Arc<Link>) {
        let mut metrics = self.lock(link.ends.plane);
        metrics.counts.opened += 1;
        metrics.links.insert(link.ends.id, Arc::clone(link));
    }

    /// `link` has ended: from here on its counters do not change.
    pub(crate) fn on_closed(&self, link: &Link, reason: &CloseReason) {
        let counters = link.counters();
        let mut metrics = self.lock(link.ends.plane);
        *metrics.counts.closed.entry(reason.kind()).or_default() += 1;
        metrics.links.remove(&link.ends.id);
        metrics.ended.add(&counters);
    }

    pub(crate) fn on_refused(&self, plane: Plane) {
        self.lock(plane).counts.refused += 1;
    }

    pub(crate) fn on_not_accepted(&self, plane: Plane, reason: &CloseReason) {
        let mut metrics = self.lock(plane);
        *metrics
            .counts
            .not_accepted
            .entry(reason.kind())
            .or_default() += 1;
    }

    pub(crate) fn on_not_connected(&self, plane: Plane, error: &ConnectError) {
        let mut metrics = self.lock(plane);
        *metrics
            .counts
            .not_connected
            .entry(error.kind())
            .or_default() += 1;
    }

    fn lock(&self, plane: Plane) -> MutexGuard<'_, PlaneMetrics> {
        let metrics = self.planes[plane as usize].lock();
        metrics.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
