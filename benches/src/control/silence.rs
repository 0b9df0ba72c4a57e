//! How soon beats tell that a process has stopped, and whether they take one for stopped that only has much to do.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bit_control::heartbeat::{Health, HealthWatch};
use membership::{Member, NodeAddress};
use tokio::task::JoinHandle;

use super::Sample;
use super::beat::child;
use super::node::Node;
use crate::child::Child;
use crate::rpc::threads::{ThreadOptions, Threads};

/// Until all are connected and usual answers are known.
const WARM_UP: Duration = Duration::from_secs(8);
/// By which the moments between two beats differ in which rounds stop somebody.
const SHIFT: Duration = Duration::from_millis(190);
/// How long a process is stopped after it is found to be down.
const DOWN: Duration = Duration::from_secs(2);
/// Nodes of the process that has much to do.
const BUSY_NODES: usize = 10;
const BUSY: Duration = Duration::from_secs(20);

/// A node that beats those of another process.
struct Beating {
    others: Child,
    // Before its threads.
    watching: JoinHandle<()>,
    node: Node,
    threads: Threads,
}

impl Beating {
    fn start(nodes: usize, threads: ThreadOptions) -> Result<Self> {
        let mut others = child("answer", &[], nodes, [0, 0], threads)?;
        let addresses = others.line()?;
        let threads = Threads::start(threads)?;
        let node = threads.app().block_on(Node::start(threads.bus()))?;
        let members = addresses
            .split(' ')
            .map(|address| Ok(Member::at(address.parse::<NodeAddress>()?)));
        node.registry.replace(members.collect::<Result<_>>()?)?;
        Ok(Self {
            others,
            watching: node.beat(threads.bus()),
            node,
            threads,
        })
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// A process that is stopped, and goes on again.
pub(super) struct Stopped {
    beating: Beating,
    health: HealthWatch,
    rounds: u32,
}

impl Stopped {
    pub(super) fn start(threads: ThreadOptions) -> Result<Self> {
        let beating = Beating::start(1, threads)?;
        let mut health = beating.node.beats.watch();
        beating
            .threads
            .app()
            .block_on(until(&mut health, Health::Up))?;
        Ok(Self {
            health,
            beating,
            rounds: 0,
        })
    }

    pub(super) fn round(&mut self) -> Result<[Sample; 3]> {
        thread::sleep(WARM_UP + SHIFT * self.rounds);
        self.rounds += 1;
        let stopped = Instant::now();
        self.beating.others.signal("-STOP")?;
        let suspect = self.until(Health::Suspect)? - stopped;
        let down = self.until(Health::Down)? - stopped;
        thread::sleep(DOWN);
        let resumed = Instant::now();
        self.beating.others.signal("-CONT")?;
        let up = self.until(Health::Up)? - resumed;
        let times = [("suspect_ms", suspect), ("down_ms", down), ("up_ms", up)];
        Ok(times.map(|(unit, time)| (unit, time.as_secs_f64() * 1e3)))
    }

    fn until(&mut self, health: Health) -> Result<Instant> {
        let until = until(&mut self.health, health);
        self.beating.threads.app().block_on(until)
    }
}

async fn until(watch: &mut HealthWatch, health: Health) -> Result<Instant> {
    loop {
        let event = watch.next().await.context("no more events")??;
        if event.to == health {
            return Ok(Instant::now());
        }
    }
}

/// Both processes compute on more threads than there are cores.
pub(super) struct Busy(Beating);

impl Busy {
    pub(super) fn start(threads: ThreadOptions) -> Result<Self> {
        let beating = Beating::start(BUSY_NODES, threads)?;
        thread::sleep(WARM_UP);
        Ok(Self(beating))
    }

    #[expect(clippy::cast_precision_loss, reason = "some hundred beats")]
    pub(super) fn round(&mut self) -> Result<[Sample; 3]> {
        let before = self.sums();
        self.0.others.ask(BUSY.as_secs())?;
        compute(&self.0.threads, BUSY)?;
        thread::sleep(BUSY);
        let after = self.sums();
        let names = ["answered", "suspected", "downs"];
        Ok([0, 1, 2].map(|at| (names[at], (after[at] - before[at]) as f64)))
    }

    /// Answered, suspected, downs, of all nodes.
    fn sums(&self) -> [u64; 3] {
        let counts = self
            .0
            .node
            .beats
            .nodes()
            .into_iter()
            .map(|node| node.counts);
        counts.fold([0; 3], |[answered, suspected, downs], counts| {
            [
                answered + counts.answered,
                suspected + counts.suspected,
                downs + counts.downs,
            ]
        })
    }
}

/// Computes on twice as many threads as there are cores, and in tasks that seldom yield.
pub(super) fn compute(threads: &Threads, span: Duration) -> Result<()> {
    let end = Instant::now() + span;
    for _ in 0..2 * thread::available_parallelism()?.get() {
        thread::spawn(move || spin_until(end));
        threads.app().spawn(async move {
            while Instant::now() < end {
                spin_until(Instant::now() + Duration::from_millis(200));
                tokio::task::yield_now().await;
            }
        });
    }
    Ok(())
}

fn spin_until(end: Instant) {
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}
