//! What a node counts, as Prometheus text: <https://prometheus.io/docs/specs/om/open_metrics_spec>.
//!
//! `families.rs` declares every family once; `METRICS.md` lists them, which a test checks. The values
//! are snapshots, taken when they are asked for: nothing here is kept between two scrapes.

mod bus;
mod cluster;
mod exposition;
mod families;
mod node;
mod process;
mod streams;

use std::{
    fmt, iter,
    sync::Arc,
    time::{Duration, Instant},
};

use bit_control::heartbeat::NodeHealth;
use bit_data::TunnelStats;
use membership::ZooKeeperStats;
use rpc_bus::{BusRuntime, Ledger, PlaneSnapshot};
use user_server::QueryCounts;

use crate::{admin::Admin, engine::DrillEngine, node::PlaneLedgers};
use exposition::Exposition;
use node::{EngineUse, LedgerUse};
use process::Process;

/// What a text of metrics is served as.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is watched of a node, for as long as anybody watches.
pub(crate) struct Watched {
    pub(crate) bus: BusRuntime,
    pub(crate) ledger: Ledger,
    pub(crate) planes: Arc<PlaneLedgers>,
    pub(crate) admin: Arc<Admin>,
    pub(crate) engine: Arc<DrillEngine>,
    /// When the node started.
    pub(crate) started: Instant,
}

impl Watched {
    /// Everything as it is now, as text.
    pub(crate) fn scrape(&self) -> Result<String, fmt::Error> {
        let snapshot = Snapshot {
            planes: self.bus.metrics().snapshot(),
            ledgers: iter::once(&self.ledger)
                .chain(self.planes.all())
                .map(LedgerUse::of)
                .collect(),
            queries: self.admin.queries.counts(),
            engine: EngineUse::of(&self.engine),
            nodes: self.admin.health(),
            beats_late: self.admin.beats_late(),
            zookeeper: self.admin.zookeeper(),
            tunnels: self.admin.tunnels(),
            process: Process::read(),
            uptime_s: self.started.elapsed().as_secs_f64(),
        };
        exposition::text(snapshot)
    }
}

/// Values of one moment.
#[derive(Debug)]
struct Snapshot {
    planes: Vec<PlaneSnapshot>,
    /// The node's, and of each plane.
    ledgers: Vec<LedgerUse>,
    queries: QueryCounts,
    engine: EngineUse,
    nodes: Vec<NodeHealth>,
    /// `None` of a node that is alone.
    beats_late: Option<Duration>,
    /// `None` where members do not come from there.
    zookeeper: Option<ZooKeeperStats>,
    tunnels: Vec<TunnelStats>,
    process: Process,
    uptime_s: f64,
}

impl Snapshot {
    fn expose(&self, out: &mut Exposition<'_>) -> fmt::Result {
        node::build(out)?;
        node::uptime(out, self.uptime_s)?;
        node::ledgers(out, &self.ledgers)?;
        node::queries(out, &self.queries)?;
        node::engine(out, &self.engine)?;
        bus::connections(out, &self.planes)?;
        bus::frames(out, &self.planes)?;
        bus::requests(out, &self.planes)?;
        bus::times(out, &self.planes)?;
        cluster::nodes(out, &self.nodes)?;
        cluster::beats(out, &self.nodes)?;
        cluster::beats_late(out, self.beats_late)?;
        cluster::zookeeper(out, self.zookeeper.as_ref())?;
        streams::expose(out, &self.tunnels)?;
        process::expose(out, &self.process)
    }
}

#[cfg(test)]
mod tests {
    use super::families::{ALL, Family, Kind};

    #[test]
    fn the_document_lists_the_families_that_there_are() {
        let document = include_str!("../../METRICS.md");
        let (_, families) = document.split_once("| name |").unwrap();
        let listed: Vec<_> = families
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        let declared: Vec<_> = ALL.iter().map(Family::document_row).collect();
        assert_eq!(
            listed,
            declared,
            "METRICS.md should have:\n{}\n",
            declared.join("\n")
        );
    }

    #[test]
    fn names_say_what_is_counted_and_in_which_unit() {
        for family in ALL {
            let counter = family.kind == Kind::Counter;
            assert_eq!(counter, family.name.ends_with("_total"), "{}", family.name);
            for unit in ["seconds", "bytes"] {
                let named = family.name.trim_end_matches("_total").ends_with(unit);
                let told = family.help.contains(&format!("in {unit}"));
                assert_eq!(named, told, "{}: {}", family.name, family.help);
            }
            assert!(family.help.ends_with('.'), "{}", family.help);
        }
    }
}
