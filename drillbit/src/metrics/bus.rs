//! Connections, frames, requests and times of the planes.

use std::fmt;

use protos::Plane;
use rpc_bus::{ConnectionStats, PlaneSnapshot, RpcCounts};

use super::{
    exposition::Exposition,
    families::{self, Family},
};

/// A family, and where its value is found.
type Column<T> = (&'static Family, fn(&T) -> u64);

const RECEIVED: &str = "received";
const SENT: &str = "sent";

fn name(plane: Plane) -> &'static str {
    match plane {
        Plane::User => "user",
        Plane::Control => "control",
        Plane::Data => "data",
    }
}

/// Connections that came, are there, and went.
pub(super) fn connections(out: &mut Exposition<'_>, planes: &[PlaneSnapshot]) -> fmt::Result {
    let counts: [Column<PlaneSnapshot>; 3] = [
        (&families::CONNECTIONS_OPENED, |plane| {
            plane.connections.opened
        }),
        (&families::CONNECTIONS_OPEN, |plane| plane.connections.open),
        (&families::CONNECTIONS_REFUSED, |plane| {
            plane.connections.refused
        }),
    ];
    for (family, count) in counts {
        let mut samples = out.family(family)?;
        for plane in planes {
            samples.number(&[name(plane.plane)], count(plane))?;
        }
    }
    let mut samples = out.family(&families::CONNECTIONS_CLOSED)?;
    for plane in planes {
        for (reason, count) in &plane.connections.closed {
            samples.number(&[name(plane.plane), reason], *count)?;
        }
    }
    let mut samples = out.family(&families::CONNECT_FAILURES)?;
    for plane in planes {
        for (reason, count) in &plane.connections.not_connected {
            samples.number(&[name(plane.plane), reason], *count)?;
        }
    }
    Ok(())
}

/// What went over the sockets, and what waits to.
pub(super) fn frames(out: &mut Exposition<'_>, planes: &[PlaneSnapshot]) -> fmt::Result {
    type Pair = fn(&ConnectionStats) -> [(&'static str, u64); 2];
    let pairs: [(&Family, Pair); 5] = [
        (&families::FRAMES, |stats| {
            [(RECEIVED, stats.frames_received), (SENT, stats.frames_sent)]
        }),
        (&families::BYTES, |stats| {
            [(RECEIVED, stats.bytes_received), (SENT, stats.bytes_sent)]
        }),
        (&families::SOCKET_CALLS, |stats| {
            [(RECEIVED, stats.reads), (SENT, stats.writes)]
        }),
        (&families::PINGS, |stats| {
            [(RECEIVED, stats.pings_received), (SENT, stats.pings_sent)]
        }),
        (&families::QUEUED_BYTES, |stats| {
            [
                ("requests", stats.write_queue_bytes as u64),
                ("replies", stats.reply_queue_bytes as u64),
            ]
        }),
    ];
    for (family, pair) in pairs {
        let mut samples = out.family(family)?;
        for plane in planes {
            for (label, value) in pair(&plane.totals) {
                samples.number(&[name(plane.plane), label], value)?;
            }
        }
    }
    let singles: [Column<ConnectionStats>; 2] = [
        (&families::BEATS_MISSED, |stats| stats.beats_missed),
        (&families::LATE_ANSWERS, |stats| stats.late_answers),
    ];
    for (family, value) in singles {
        let mut samples = out.family(family)?;
        for plane in planes {
            samples.number(&[name(plane.plane)], value(&plane.totals))?;
        }
    }
    Ok(())
}

/// Requests by type and direction.
pub(super) fn requests(out: &mut Exposition<'_>, planes: &[PlaneSnapshot]) -> fmt::Result {
    let numbers: [Column<RpcCounts>; 4] = [
        (&families::REQUESTS, |counts| counts.requests),
        (&families::REQUESTS_IN_FLIGHT, |counts| counts.in_flight),
        (&families::REQUEST_BYTES, |counts| counts.request_bytes),
        (&families::ANSWER_BYTES, |counts| counts.answer_bytes),
    ];
    for (family, number) in numbers {
        let mut samples = out.family(family)?;
        for (plane, direction, counts) in rpcs(planes) {
            samples.number(&[plane, counts.name, direction], number(counts))?;
        }
    }
    let mut samples = out.family(&families::REQUESTS_ENDED)?;
    for (plane, direction, counts) in rpcs(planes) {
        for (outcome, count) in &counts.ended {
            samples.number(&[plane, counts.name, direction, outcome], *count)?;
        }
    }
    Ok(())
}

/// Plane, direction and counts of every type.
fn rpcs(
    planes: &[PlaneSnapshot],
) -> impl Iterator<Item = (&'static str, &'static str, &RpcCounts)> {
    planes.iter().flat_map(|plane| {
        let inbound = plane.inbound.iter().map(|rpc| (RECEIVED, &rpc.counts));
        let outbound = plane.outbound.iter().map(|rpc| (SENT, &rpc.counts));
        inbound
            .chain(outbound)
            .map(|(direction, counts)| (name(plane.plane), direction, counts))
    })
}

/// How long things took.
pub(super) fn times(out: &mut Exposition<'_>, planes: &[PlaneSnapshot]) -> fmt::Result {
    let mut samples = out.family(&families::QUEUE_TIME)?;
    for plane in planes {
        for rpc in &plane.inbound {
            samples.times(&[name(plane.plane), rpc.counts.name], &rpc.queue_time)?;
        }
    }
    let mut samples = out.family(&families::HANDLER_TIME)?;
    for plane in planes {
        for rpc in &plane.inbound {
            samples.times(&[name(plane.plane), rpc.counts.name], &rpc.handler_time)?;
        }
    }
    let mut samples = out.family(&families::ROOM_WAIT)?;
    for plane in planes {
        for rpc in &plane.outbound {
            samples.times(&[name(plane.plane), rpc.counts.name], &rpc.room_wait)?;
        }
    }
    let mut samples = out.family(&families::ROUND_TRIP)?;
    for plane in planes {
        for rpc in &plane.outbound {
            samples.times(&[name(plane.plane), rpc.counts.name], &rpc.round_trip)?;
        }
    }
    let mut samples = out.family(&families::PING_ROUND_TRIP)?;
    for plane in planes {
        samples.times(&[name(plane.plane)], &plane.ping_round_trip)?;
    }
    Ok(())
}
