//! The cases, and what is printed of them.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use rpc_bus::BusRuntime;
use tokio::runtime::Runtime;

use crate::{
    Outcome, good,
    process::{Process, cpu_seconds, memory_mib},
    rounds::Arena,
    threads,
};

struct Case {
    name: &'static str,
    count: u32,
    run: fn(&mut Scene, &'static str, u32) -> Outcome<()>,
}

const CASES: [Case; 6] = [
    Case {
        name: "announce",
        count: 1000,
        run: announce,
    },
    Case {
        name: "slow-loris",
        count: 5000,
        run: slow_loris,
    },
    Case {
        name: "pings",
        count: 1_000_000,
        run: flood,
    },
    Case {
        name: "cancels",
        count: 1_000_000,
        run: flood,
    },
    Case {
        name: "handshakes",
        count: 1_000_000,
        run: flood,
    },
    Case {
        name: "never-read",
        count: 64,
        run: never_read,
    },
];

/// A server of its own for each case, its peers, and the good client's threads.
struct Scene {
    app: Runtime,
    bus: BusRuntime,
    server: Process,
    addr: SocketAddr,
    peers: Process,
}

impl Scene {
    fn start(name: &str) -> Outcome<Self> {
        let (app, bus) = threads()?;
        let (server, addr) = Process::server()?;
        let peers = Process::start(&["flood", name, &addr.to_string()])?;
        Ok(Self {
            app,
            bus,
            server,
            addr,
            peers,
        })
    }

    fn memory_mib(&self, which: &str) -> Outcome<f64> {
        memory_mib(self.server.id(), which)
    }
}

/// Runs the cases named, or all.
pub(crate) fn run(names: &[&str]) -> Outcome<()> {
    let unknown = |name: &&&str| CASES.iter().all(|case| case.name != **name);
    if let Some(name) = names.iter().find(unknown) {
        let known = CASES.map(|case| case.name).join(", ");
        return Err(format!("no case {name:?}; there are {known}").into());
    }
    for case in CASES {
        if names.is_empty() || names.contains(&case.name) {
            eprintln!("{}: starting", case.name);
            (case.run)(&mut Scene::start(case.name)?, case.name, case.count)?;
        }
    }
    Ok(())
}

fn announce(scene: &mut Scene, name: &'static str, count: u32) -> Outcome<()> {
    let _good = scene
        .app
        .block_on(good::connected(&scene.bus, scene.addr))?;
    let before = scene.memory_mib("VmRSS")?;
    let held = scene.peers.order(&format!("open {count}"))?;
    let grown = scene.memory_mib("VmHWM")? - before;
    println!("{name}: {held} peers, resident memory + {grown:.1} MiB at its peak");
    Ok(())
}

fn slow_loris(scene: &mut Scene, name: &'static str, count: u32) -> Outcome<()> {
    let before = scene.memory_mib("VmRSS")?;
    let held = scene.peers.order(&format!("open {count}"))?;
    eprintln!("{name}: {held} connections are there");
    let (started, done) = (Instant::now(), AtomicBool::new(false));
    let (peers, app, bus, addr) = (&mut scene.peers, &scene.app, &scene.bus, scene.addr);
    let (times, closed) = thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let closed = peers.order("wait");
            done.store(true, Ordering::Relaxed);
            closed
        });
        let times = good::connections(bus, addr, || !done.load(Ordering::Relaxed));
        (app.block_on(times), waiting.join())
    });
    let (times, took) = (times?, started.elapsed().as_secs_f64());
    let closed = closed.map_err(|_| "the waiting thread panicked")??;
    let grown = scene.memory_mib("VmHWM")? - before;
    println!(
        "{name}: {closed} of {held} closed by the server within {took:.1} s, resident memory + {grown:.1} MiB at its peak"
    );
    println!("  connect, handshake and call of a good client: {times}");
    Ok(())
}

fn flood(scene: &mut Scene, name: &'static str, count: u32) -> Outcome<()> {
    let good = scene
        .app
        .block_on(good::connected(&scene.bus, scene.addr))?;
    let before = scene.memory_mib("VmRSS")?;
    let server = scene.server.id();
    let mut arena = Arena {
        app: &scene.app,
        good: &good,
        server,
        peers: &mut scene.peers,
    };
    arena.run(name, count)?;
    let grown = scene.memory_mib("VmHWM")? - before;
    println!("  resident memory + {grown:.1} MiB at its peak");
    Ok(())
}

fn never_read(scene: &mut Scene, name: &'static str, count: u32) -> Outcome<()> {
    let (server, before) = (scene.server.id(), scene.memory_mib("VmRSS")?);
    let (started, cpu) = (Instant::now(), cpu_seconds(server)?);
    let closed = scene.peers.order(&format!("flood {count} 0 0"))?;
    let (took, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(server)? - cpu);
    let grown = scene.memory_mib("VmHWM")? - before;
    println!(
        "{name}: {closed} peers closed within {took:.1} s, resident memory + {grown:.1} MiB at its peak, {cpu:.1} s of CPU"
    );
    Ok(())
}
