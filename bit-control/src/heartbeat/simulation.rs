//! Seeded schedules of a whole cluster: what monitors and registries say, against what really happens.
//!
//! `world` runs the monitors of several nodes on a clock turned by hand, over links that delay, lose and are cut, with
//! processes that stop, die and are started again, clocks that are set, and members that leave and join. `observer`
//! holds every event against what its node could know. All comes from one seed, so that a schedule can be run again:
//!
//! ```text
//! BEATS_SEED=17 cargo test -p bit-control --lib simulation
//! BEATS_SCHEDULES=100000 cargo test --release -p bit-control --lib simulation -- --nocapture
//! ```

mod observer;
mod world;

use std::{thread, time::Duration};

use world::World;

/// What happened in all schedules together.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    beats: u64,
    ups: u64,
    suspects: u64,
    downs: u64,
    restarts: u64,
    flaps: u64,
}

impl Report {
    fn add(&mut self, other: &Self) {
        self.beats += other.beats;
        self.ups += other.ups;
        self.suspects += other.suspects;
        self.downs += other.downs;
        self.restarts += other.restarts;
        self.flaps += other.flaps;
    }
}

/// Names the schedule that fails.
struct Culprit(u64);

impl Drop for Culprit {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self(seed) = self;
            eprintln!(
                "to see it again: BEATS_SEED={seed} cargo test -p bit-control --lib simulation"
            );
        }
    }
}

#[test]
fn what_monitors_say_is_what_they_can_know() {
    let asked = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let count = asked("BEATS_SCHEDULES").unwrap_or(2000);
    let seeds = asked("BEATS_SEED").map_or(0..count, |seed| seed..seed + 1);
    let mut all = Report::default();
    for seed in seeds.clone() {
        let _culprit = Culprit(seed);
        let mut world = World::new(seed);
        world.run(Duration::from_secs(15), Duration::from_secs(9));
        all.add(&world.report());
    }
    println!("{} schedules, {all:?}", seeds.end - seeds.start);
    if seeds.end - seeds.start >= 2000 {
        // Everything that is checked has happened often.
        let happened = [all.suspects, all.downs, all.restarts, all.flaps];
        assert!(happened.into_iter().all(|count| count > 1000), "{all:?}");
    }
}
