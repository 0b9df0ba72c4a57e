//! Streams of the data plane, all of them together: `/api/v1/tunnels` has them by peer.

use std::fmt;

use bit_data::TunnelStats;

use super::{exposition::Exposition, families};

pub(super) fn expose(out: &mut Exposition<'_>, tunnels: &[TunnelStats]) -> fmt::Result {
    let sum = |of: fn(&TunnelStats) -> u64| tunnels.iter().map(of).sum::<u64>();
    out.family(&families::STREAMS_OPEN)?
        .number(&[], sum(|tunnel| tunnel.open_streams as u64))?;
    let mut samples = out.family(&families::STREAM_BATCHES)?;
    samples.number(&["received"], sum(|tunnel| tunnel.received.batches))?;
    samples.number(&["sent"], sum(|tunnel| tunnel.sent.batches))?;
    let mut samples = out.family(&families::STREAM_BYTES)?;
    samples.number(&["received"], sum(|tunnel| tunnel.received.bytes_received))?;
    samples.number(&["sent"], sum(|tunnel| tunnel.sent.bytes_sent))?;
    out.family(&families::STREAM_WINDOW)?
        .number(&[], sum(|tunnel| tunnel.received.window_bytes))?;
    out.family(&families::STREAM_WAITING)?
        .number(&[], sum(|tunnel| tunnel.received.buffer_memory_bytes))?;
    let waited = tunnels
        .iter()
        .map(|tunnel| tunnel.sent.credit_wait_time.as_secs_f64());
    out.family(&families::STREAM_CREDIT_WAIT)?
        .fraction(&[], waited.sum())
}
