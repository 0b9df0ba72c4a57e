//! Seeded schedules of several nodes: queries over a network that delays, loses and breaks, fragments that fail, hang
//! and do not listen, nodes that die, come back, and are thought dead. All on a clock that is turned by hand.
//!
//! As many as one likes: `CONTROL_SCHEDULES=10000 CONTROL_FIRST_SEED=1 cargo test -p bit-control schedules`.

mod engine;
mod node;
mod world;

use world::{Tally, World};

/// Of the test suite; more by the variable `CONTROL_SCHEDULES`.
const SCHEDULES: u64 = 2000;

#[test]
fn whatever_happens_every_query_ends_once_and_leaves_nothing_on_any_node_in_seeded_schedules() {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let first = number("CONTROL_FIRST_SEED").unwrap_or(0);
    let count = number("CONTROL_SCHEDULES").unwrap_or(SCHEDULES);
    let mut all = Tally::default();
    for seed in first..first + count {
        let mut world = World::new(seed);
        world.run();
        all += world.check();
    }
    eprintln!("{count} schedules: {all:?}");
    // What was not reached was not tested.
    if count >= SCHEDULES {
        for (reached, what) in [
            (all.finished, "queries that finish"),
            (all.failed, "queries that fail"),
            (all.cancelled, "queries that are cancelled"),
            (all.lost, "queries whose foreman dies"),
            (all.refused, "messages that are refused"),
            (all.abandoned, "fragments that do not listen"),
            (all.calls_lost, "calls that are lost"),
            (all.deaths, "nodes that die"),
            (all.suspicions, "nodes that are thought dead"),
            (all.tombstones_hit, "cancels that overtake a start"),
        ] {
            assert!(reached >= 100, "{reached} {what}");
        }
    }
}
