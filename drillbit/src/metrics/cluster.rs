//! Other nodes, as the beats have found them.

use std::{fmt, time::Duration};

use bit_control::heartbeat::{Health, NodeHealth};
use membership::ZooKeeperStats;

use super::{
    exposition::Exposition,
    families::{self, Family},
};

/// A family, and where its value is found.
type Column = (&'static Family, fn(&NodeHealth) -> u64);

pub(super) fn nodes(out: &mut Exposition<'_>, nodes: &[NodeHealth]) -> fmt::Result {
    let mut samples = out.family(&families::NODES)?;
    for health in [Health::Up, Health::Suspect, Health::Down] {
        let count = nodes.iter().filter(|node| node.health == health).count();
        samples.number(&[health.name()], count as u64)?;
    }
    let columns: [Column; 3] = [
        (&families::NODE_UP, |node| {
            u64::from(node.health == Health::Up)
        }),
        (&families::NODE_DOWNS, |node| node.counts.downs),
        (&families::NODE_FLAPS, |node| node.counts.flaps),
    ];
    for (family, value) in columns {
        let mut samples = out.family(family)?;
        for node in nodes {
            samples.number(&[&node.address.to_string()], value(node))?;
        }
    }
    Ok(())
}

pub(super) fn beats(out: &mut Exposition<'_>, nodes: &[NodeHealth]) -> fmt::Result {
    let mut samples = out.family(&families::BEATS)?;
    for node in nodes {
        let name = node.address.to_string();
        samples.number(&[&name, "answered"], node.counts.answered)?;
        samples.number(&[&name, "failed"], node.counts.failed)?;
    }
    let mut samples = out.family(&families::BEAT_ROUND_TRIP)?;
    for node in nodes {
        samples.times(&[&node.address.to_string()], &node.round_trip_histogram)?;
    }
    let mut samples = out.family(&families::CLOCK_SKEW)?;
    for node in nodes {
        if let Some(skew) = node.skew {
            #[expect(clippy::cast_precision_loss, reason = "exact for 285 years")]
            let micros = skew.offset_us as f64;
            samples.fraction(&[&node.address.to_string()], micros / 1e6)?;
        }
    }
    Ok(())
}

pub(super) fn beats_late(out: &mut Exposition<'_>, late: Option<Duration>) -> fmt::Result {
    let mut samples = out.family(&families::BEATS_LATE)?;
    late.map_or(Ok(()), |late| samples.fraction(&[], late.as_secs_f64()))
}

pub(super) fn zookeeper(out: &mut Exposition<'_>, stats: Option<&ZooKeeperStats>) -> fmt::Result {
    type Column = (&'static Family, fn(&ZooKeeperStats) -> u64);
    let columns: [Column; 5] = [
        (&families::ZOOKEEPER_CONNECTED, |stats| {
            u64::from(stats.is_connected)
        }),
        (&families::ZOOKEEPER_REGISTERED, |stats| {
            u64::from(stats.is_registered)
        }),
        (&families::ZOOKEEPER_CONNECTIONS, |stats| stats.connections),
        (&families::ZOOKEEPER_SESSIONS, |stats| stats.sessions),
        (&families::ZOOKEEPER_UNUSABLE, |stats| {
            stats.unusable_registrations
        }),
    ];
    for (family, value) in columns {
        let mut samples = out.family(family)?;
        if let Some(stats) = stats {
            samples.number(&[], value(stats))?;
        }
    }
    Ok(())
}
