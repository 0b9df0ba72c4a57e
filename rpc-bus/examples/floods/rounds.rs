//! A flood in rounds: the good client alone, beside a busy process, and beside the flood, again and again.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rpc_bus::RemoteConnection;
use tokio::runtime::Runtime;

use crate::{
    Outcome,
    good::{self, Times},
    process::{Process, cpu_seconds},
};

/// Rounds of a case.
const ROUNDS: u32 = 5;
/// How long the good client's rate is measured without a flood.
const QUIET: Duration = Duration::from_secs(1);
/// How long a flood goes on at least, and at most.
const FLOOD_SECONDS: [u64; 2] = [2, 18];

/// What the good client got at one time, and what the server paid for it.
struct Window {
    times: Times,
    server_cpu_seconds: f64,
    peers_cpu_seconds: f64,
}

/// All windows of one kind.
#[derive(Default)]
struct Windows(Vec<Window>);

impl Windows {
    fn seconds(&self) -> f64 {
        let over = |window: &Window| window.times.over().as_secs_f64();
        self.0.iter().map(over).sum()
    }

    fn cores_of(&self, seconds: impl Fn(&Window) -> f64) -> f64 {
        self.0.iter().map(seconds).sum::<f64>() / self.seconds()
    }

    /// The rate in each, beside that in `base` of the same round; in percent, lowest first.
    fn kept(&self, base: &Self) -> Vec<f64> {
        let pairs = self.0.iter().zip(&base.0);
        let ratios = pairs.map(|(one, base)| 100.0 * one.times.rate() / base.times.rate());
        let mut ratios: Vec<f64> = ratios.collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios
    }

    fn show(&self, what: &str) {
        let (mut all, peers) = (
            Times::default(),
            self.cores_of(|window| window.peers_cpu_seconds),
        );
        self.0.iter().for_each(|window| all.add(&window.times));
        let server = self.cores_of(|window| window.server_cpu_seconds);
        println!("  {what}: {all}; server {server:.2} of a core, peers {peers:.2}");
    }
}

/// Where the rounds take place.
pub(crate) struct Arena<'a> {
    pub(crate) app: &'a Runtime,
    pub(crate) good: &'a RemoteConnection,
    pub(crate) server: u32,
    pub(crate) peers: &'a mut Process,
}

impl Arena<'_> {
    /// Runs a flood of `count` messages in all, and tells what came of it.
    pub(crate) fn run(&mut self, name: &str, count: u32) -> Outcome<()> {
        let (mut alone, mut busy, mut flooded) =
            (Windows::default(), Windows::default(), Windows::default());
        let (mut sent, share) = (0, count / ROUNDS);
        let [least, most] = FLOOD_SECONDS;
        for round in 1..=ROUNDS {
            alone.0.push(self.quiet()?);
            let spin = format!("spin 0 {} {}", QUIET.as_secs(), QUIET.as_secs());
            busy.0.push(self.beside(&spin)?.0);
            let (window, done) = self.beside(&format!("flood {share} {least} {most}"))?;
            flooded.0.push(window);
            sent += done;
            eprintln!("{name}: round {round} of {ROUNDS}, {sent} sent");
        }
        let seconds = flooded.seconds();
        println!("{name}: {sent} of {count} asked for, in {seconds:.1} s");
        show_kept("alone", &flooded.kept(&alone));
        show_kept("beside a busy process", &flooded.kept(&busy));
        alone.show("alone");
        busy.show("beside a busy process");
        flooded.show("beside the flood");
        Ok(())
    }

    fn quiet(&self) -> Outcome<Window> {
        let since = Instant::now();
        self.window(|| since.elapsed() < QUIET)
    }

    /// The good client's calls while the peers do what they are told; also how much of it they did.
    fn beside(&mut self, order: &str) -> Outcome<(Window, u64)> {
        let done = AtomicBool::new(false);
        let (app, good, server) = (self.app, self.good, self.server);
        let peers = &mut *self.peers;
        let id = peers.id();
        let before = cpu_seconds(id)?;
        let (window, said) = thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let said = peers.order(order);
                done.store(true, Ordering::Relaxed);
                said
            });
            let window = window(app, good, server, || !done.load(Ordering::Relaxed));
            (window, waiting.join())
        });
        let said = said.map_err(|_| "the waiting thread panicked")??;
        let mut window = window?;
        window.peers_cpu_seconds = cpu_seconds(id)? - before;
        Ok((window, said.parse()?))
    }

    fn window(&self, goes_on: impl FnMut() -> bool) -> Outcome<Window> {
        window(self.app, self.good, self.server, goes_on)
    }
}

fn window(
    app: &Runtime,
    good: &RemoteConnection,
    server: u32,
    goes_on: impl FnMut() -> bool,
) -> Outcome<Window> {
    let before = cpu_seconds(server)?;
    let times = app.block_on(good::calls(good, goes_on))?;
    Ok(Window {
        times,
        server_cpu_seconds: cpu_seconds(server)? - before,
        peers_cpu_seconds: 0.0,
    })
}

fn show_kept(beside: &str, kept: &[f64]) {
    if let (Some(least), Some(most)) = (kept.first(), kept.last()) {
        let median = kept[kept.len() / 2];
        println!(
            "  rate kept, to that {beside}: {median:.0} % ({least:.0} to {most:.0}, {} rounds)",
            kept.len()
        );
    }
}
