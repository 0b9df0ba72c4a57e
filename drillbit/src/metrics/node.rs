//! The node itself: version, age, budgets, queries, memory of the engine.

use std::fmt;

use rpc_bus::ledger::{Kind, Ledger};
use user_server::QueryCounts;

use super::{exposition::Exposition, families};
use crate::{
    engine::{self, DrillEngine},
    version,
};

/// Use and limit of each kind.
#[derive(Debug)]
pub(super) struct LedgerUse {
    name: String,
    kinds: [(&'static str, usize, Option<usize>); Kind::ALL.len()],
}

impl LedgerUse {
    pub(super) fn of(ledger: &Ledger) -> Self {
        Self {
            name: ledger.name().to_owned(),
            kinds: Kind::ALL.map(|kind| (name(kind), ledger.used(kind), ledger.limit(kind))),
        }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bytes => "bytes",
        Kind::Tasks => "tasks",
        Kind::Calls => "calls",
        Kind::Files => "files",
    }
}

/// Memory of the engine, in bytes.
#[derive(Debug)]
pub(super) struct EngineUse {
    reserved: usize,
    limit: usize,
}

impl EngineUse {
    pub(super) fn of(engine: &DrillEngine) -> Self {
        Self {
            reserved: engine.memory_bytes(),
            limit: engine.memory_bytes_max(),
        }
    }
}

pub(super) fn build(out: &mut Exposition<'_>) -> fmt::Result {
    let engine = engine::version();
    out.family(&families::BUILD)?
        .number(&[version::SOFTWARE, &engine], 1)
}

pub(super) fn uptime(out: &mut Exposition<'_>, uptime_s: f64) -> fmt::Result {
    out.family(&families::UPTIME)?.fraction(&[], uptime_s)
}

pub(super) fn ledgers(out: &mut Exposition<'_>, ledgers: &[LedgerUse]) -> fmt::Result {
    let mut samples = out.family(&families::LEDGER_USED)?;
    for ledger in ledgers {
        for (kind, used, _) in ledger.kinds {
            samples.number(&[&ledger.name, kind], used as u64)?;
        }
    }
    let mut samples = out.family(&families::LEDGER_LIMIT)?;
    for ledger in ledgers {
        for (kind, _, limit) in ledger.kinds {
            if let Some(limit) = limit {
                samples.number(&[&ledger.name, kind], limit as u64)?;
            }
        }
    }
    Ok(())
}

pub(super) fn queries(out: &mut Exposition<'_>, counts: &QueryCounts) -> fmt::Result {
    out.family(&families::QUERIES_RUNNING)?
        .number(&[], counts.running)?;
    let mut samples = out.family(&families::QUERIES)?;
    for (outcome, count) in [
        ("completed", counts.completed),
        ("failed", counts.failed),
        ("canceled", counts.canceled),
        ("lost", counts.lost),
    ] {
        samples.number(&[outcome], count)?;
    }
    out.family(&families::QUERY_ROWS)?
        .number(&[], counts.rows)?;
    out.family(&families::QUERY_BYTES)?
        .number(&[], counts.bytes)
}

pub(super) fn engine(out: &mut Exposition<'_>, engine: &EngineUse) -> fmt::Result {
    out.family(&families::ENGINE_MEMORY)?
        .number(&[], engine.reserved as u64)?;
    out.family(&families::ENGINE_MEMORY_LIMIT)?
        .number(&[], engine.limit as u64)
}
