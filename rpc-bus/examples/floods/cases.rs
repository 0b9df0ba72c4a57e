//! The cases, and what is printed of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rpc_bus::BusRuntime;
use tokio::runtime::Runtime;

use crate::{Outcome, Process, good, good::Times, memory_mib, threads};

/// How long the good client's rate is measured without a flood.
const QUIET: Duration = Duration::from_secs(3);

struct Case {
    name: &'static str,
    count: &'static str,
    run: fn(&mut Scene, &'static str, &'static str) -> Outcome<()>,
}

const CASES: [Case; 6] = [
    Case {
        name: "announce",
        count: "1000",
        run: announce,
    },
    Case {
        name: "slow-loris",
        count: "5000",
        run: slow_loris,
    },
    Case {
        name: "pings",
        count: "1000000",
        run: flood,
    },
    Case {
        name: "cancels",
        count: "1000000",
        run: flood,
    },
    Case {
        name: "handshakes",
        count: "1000000",
        run: flood,
    },
    Case {
        name: "never-read",
        count: "64",
        run: flood,
    },
];

/// A server of its own for each case, and the good client's threads.
struct Scene {
    app: Runtime,
    bus: BusRuntime,
    server: Process,
    addr: SocketAddr,
}

impl Scene {
    fn start() -> Outcome<Self> {
        let (app, bus) = threads()?;
        let (server, addr) = Process::server()?;
        Ok(Self {
            app,
            bus,
            server,
            addr,
        })
    }

    /// Peers that are in place, and a flag that is set when they are done.
    fn peers(&self, name: &str, count: &str) -> Outcome<(Arc<AtomicBool>, impl Sized)> {
        let mut peers = Process::start(&["flood", name, &self.addr.to_string(), count])?;
        expect(&peers.line()?, "ready")?;
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let waiting = thread::spawn(move || {
            // Silence is an end as well.
            let _ = peers.line();
            flag.store(true, Ordering::Relaxed);
        });
        Ok((done, waiting))
    }

    fn memory_mib(&self, which: &str) -> Outcome<f64> {
        memory_mib(self.server.id(), which)
    }
}

fn expect(found: &str, expected: &str) -> Outcome<()> {
    if found == expected {
        return Ok(());
    }
    Err(format!("expected {expected:?}, found {found:?}").into())
}

/// Runs the cases named, or all.
pub(crate) fn run(names: &[&str]) -> Outcome<()> {
    for case in CASES {
        if names.is_empty() || names.contains(&case.name) {
            (case.run)(&mut Scene::start()?, case.name, case.count)?;
        }
    }
    Ok(())
}

fn announce(scene: &mut Scene, name: &'static str, count: &'static str) -> Outcome<()> {
    let _good = scene
        .app
        .block_on(good::connected(&scene.bus, scene.addr))?;
    let before = scene.memory_mib("VmRSS")?;
    let (_done, _peers) = scene.peers(name, count)?;
    let grown = scene.memory_mib("VmHWM")? - before;
    println!("{name} x {count}: resident memory + {grown:.1} MiB at its peak");
    Ok(())
}

fn slow_loris(scene: &mut Scene, name: &'static str, count: &'static str) -> Outcome<()> {
    let before = scene.memory_mib("VmRSS")?;
    let (done, _peers) = scene.peers(name, count)?;
    let started = Instant::now();
    let goes_on = || !done.load(Ordering::Relaxed);
    let good = good::connections(&scene.bus, scene.addr, goes_on);
    let times = scene.app.block_on(good)?;
    let (all_closed, grown) = (started.elapsed(), scene.memory_mib("VmHWM")? - before);
    println!(
        "{name} x {count}: all closed {:.1} s later, resident memory + {grown:.1} MiB at its peak",
        all_closed.as_secs_f64()
    );
    show("  connect, handshake and call of a good client", &times);
    Ok(())
}

fn flood(scene: &mut Scene, name: &'static str, count: &'static str) -> Outcome<()> {
    let good = scene
        .app
        .block_on(good::connected(&scene.bus, scene.addr))?;
    let before = scene.memory_mib("VmRSS")?;
    let quiet = Instant::now();
    let without = scene
        .app
        .block_on(good::calls(&good, || quiet.elapsed() < QUIET))?;
    let (done, _peers) = scene.peers(name, count)?;
    let with = good::calls(&good, || !done.load(Ordering::Relaxed));
    let with = scene.app.block_on(with)?;
    let grown = scene.memory_mib("VmHWM")? - before;
    let (kept, took) = (with.rate() / without.rate(), with.over());
    println!(
        "{name} x {count}: took {:.1} s, resident memory + {grown:.1} MiB at its peak, {:.0} % of the good client's rate kept",
        took.as_secs_f64(),
        kept * 100.0
    );
    show("  without", &without);
    show("  with", &with);
    Ok(())
}

fn show(what: &str, times: &Times) {
    println!(
        "{what}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        times.rate(),
        times.ms(50),
        times.ms(99),
        times.ms(100)
    );
}
