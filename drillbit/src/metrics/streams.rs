//! Streams of the data plane: all of them together, and by peer. Never one by one: `/api/v1/streams` has those.

use std::{fmt, time::Duration};

use bit_data::TunnelStats;

use super::{
    exposition::{Exposition, Samples},
    families::{self, Family},
};
use Value::{Count, Peak, Time, Ways};

/// What a tunnel shows in one family.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Count(u64),
    Time(Duration),
    /// The highest of all is that of the highest tunnel.
    Peak(u64),
    Ways {
        received: u64,
        sent: u64,
    },
}

/// The family of all tunnels together, that with a label of the peer, and the value.
type Column = ([&'static Family; 2], fn(&TunnelStats) -> Value);

const COLUMNS: [Column; 18] = [
    (
        [&families::STREAMS_OPEN, &families::TUNNEL_OPEN],
        |tunnel| Count(tunnel.open_streams as u64),
    ),
    (
        [&families::STREAM_BATCHES, &families::TUNNEL_BATCHES],
        |tunnel| Ways {
            received: tunnel.received.batches,
            sent: tunnel.sent.batches,
        },
    ),
    (
        [&families::STREAM_BYTES, &families::TUNNEL_BYTES],
        |tunnel| Ways {
            received: tunnel.received.bytes_received,
            sent: tunnel.sent.bytes_sent,
        },
    ),
    (
        [
            &families::STREAM_UNCOMPRESSED,
            &families::TUNNEL_UNCOMPRESSED,
        ],
        |tunnel| Count(tunnel.sent.bytes_uncompressed),
    ),
    (
        [
            &families::STREAM_PASS_THROUGH,
            &families::TUNNEL_PASS_THROUGH,
        ],
        |tunnel| Count(tunnel.sent.bytes_pass_through),
    ),
    (
        [&families::STREAM_SPILLED, &families::TUNNEL_SPILLED],
        |tunnel| Count(tunnel.received.bytes_spilled),
    ),
    (
        [&families::STREAM_SERIALIZE, &families::TUNNEL_SERIALIZE],
        |tunnel| Time(tunnel.sent.serialize_chunk_time),
    ),
    (
        [
            &families::STREAM_WAIT_RESPONSE,
            &families::TUNNEL_WAIT_RESPONSE,
        ],
        |tunnel| Time(tunnel.sent.wait_response_time),
    ),
    (
        [&families::STREAM_CREDIT_WAIT, &families::TUNNEL_CREDIT_WAIT],
        |tunnel| Time(tunnel.sent.credit_wait_time),
    ),
    (
        [
            &families::STREAM_SEND_REQUEST,
            &families::TUNNEL_SEND_REQUEST,
        ],
        |tunnel| Time(tunnel.sent.send_request_time),
    ),
    (
        [&families::STREAM_DESERIALIZE, &families::TUNNEL_DESERIALIZE],
        |tunnel| Time(tunnel.received.deserialize_chunk_time),
    ),
    (
        [
            &families::STREAM_RECEIVER_PROCESS,
            &families::TUNNEL_RECEIVER_PROCESS,
        ],
        |tunnel| Time(tunnel.received.receiver_process_total_time),
    ),
    (
        [&families::STREAM_WAIT_LOCK, &families::TUNNEL_WAIT_LOCK],
        |tunnel| Time(tunnel.received.wait_lock_time),
    ),
    (
        [&families::STREAM_WINDOW, &families::TUNNEL_WINDOW],
        |tunnel| Count(tunnel.received.window_bytes),
    ),
    (
        [&families::STREAM_CREDIT, &families::TUNNEL_CREDIT],
        |tunnel| Count(tunnel.credit_bytes),
    ),
    (
        [&families::STREAM_STALLED, &families::TUNNEL_STALLED],
        |tunnel| Count(tunnel.waiting_senders as u64),
    ),
    (
        [&families::STREAM_WAITING, &families::TUNNEL_WAITING],
        |tunnel| Count(tunnel.received.buffer_memory_bytes),
    ),
    (
        [
            &families::STREAM_PEAK_WAITING,
            &families::TUNNEL_PEAK_WAITING,
        ],
        |tunnel| Peak(tunnel.received.peak_buffer_memory_bytes),
    ),
];

pub(super) fn expose(out: &mut Exposition<'_>, tunnels: &[TunnelStats]) -> fmt::Result {
    for ([all, _], value) in COLUMNS {
        let none = value(&TunnelStats::default());
        let sum = tunnels.iter().map(value).fold(none, Value::and);
        sum.write(&mut out.family(all)?, &[])?;
    }
    let peer = |tunnel: &TunnelStats| tunnel.peer.to_string();
    let peers: Vec<_> = tunnels.iter().map(peer).collect();
    for ([_, by_peer], value) in COLUMNS {
        let mut samples = out.family(by_peer)?;
        for (peer, tunnel) in peers.iter().zip(tunnels) {
            value(tunnel).write(&mut samples, &[peer])?;
        }
    }
    Ok(())
}

impl Value {
    /// Of two tunnels together.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Count(one), Count(more)) => Count(one.saturating_add(more)),
            (Time(one), Time(more)) => Time(one.saturating_add(more)),
            (Peak(one), Peak(other)) => Peak(one.max(other)),
            (
                Ways { received, sent },
                Ways {
                    received: more_received,
                    sent: more_sent,
                },
            ) => Ways {
                received: received.saturating_add(more_received),
                sent: sent.saturating_add(more_sent),
            },
            // A column has values of one kind.
            (this, _) => this,
        }
    }

    fn write(self, samples: &mut Samples<'_>, labels: &[&str]) -> fmt::Result {
        match self {
            Count(value) | Peak(value) => samples.number(labels, value),
            Time(time) => samples.fraction(labels, time.as_secs_f64()),
            Ways { received, sent } => {
                samples.number(&[labels, &["received"]].concat(), received)?;
                samples.number(&[labels, &["sent"]].concat(), sent)
            }
        }
    }
}
