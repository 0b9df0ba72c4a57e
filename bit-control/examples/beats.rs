//! How soon beats tell: one process watches nodes in another one, over real sockets.
//!
//! ```text
//! cargo run --release -p bit-control --example beats -- stop [ROUNDS]
//! cargo run --release -p bit-control --example beats -- busy [SECONDS]
//! ```
//!
//! `stop` stops the other process (SIGSTOP), and prints how long it took until its node was suspect, down, and up again
//! once it went on. `busy` has both processes compute on more threads than there are cores, on those of the tasks too,
//! and prints what was taken for suspect or down meanwhile. Only on Linux, whose signals it sends. What beats cost is for
//! the benchmark `control` to say.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bit_control::{
    ControlNode, ControlOptions, Services,
    heartbeat::{BeatAnswerer, BeatOptions, Health, HealthWatch, Heartbeats},
};
use membership::{Member, NodeAddress, Registry, RegistryOptions};
use protos::coord::DrillbitEndpoint;
use rpc_bus::{BusRuntime, Feature, Features, Ledger, ledger::Limits, task::Tasks};
use tokio::runtime::{Builder, Runtime};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<_> = env::args().skip(1).collect();
    let number = |at: usize, default| args.get(at).map_or(Ok(default), |text| text.parse::<u64>());
    let threads = Threads::start()?;
    let app = threads.app.handle().clone();
    match args.first().map(String::as_str) {
        Some("answer") => app.block_on(answer(&threads, number(1, 1)?)),
        Some("stop") => app.block_on(stop(&threads, number(1, 5)?)),
        Some("busy") => app.block_on(busy(&threads, number(1, 60)?)),
        _ => Err("expected stop [ROUNDS] or busy [SECONDS]".into()),
    }
}

/// As in the program: one thread moves bytes, two run handlers and tasks.
struct Threads {
    app: Runtime,
    bus: BusRuntime,
    ledger: Ledger,
}

impl Threads {
    fn start() -> Result<Self, Failure> {
        let io = Builder::new_current_thread().enable_all().build()?;
        let moves_bytes = io.handle().clone();
        thread::spawn(move || io.block_on(std::future::pending::<()>()));
        let app = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let cpu = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
        let bus = BusRuntime::new(vec![moves_bytes], app.handle().clone(), Arc::new(cpu));
        let ledger = Ledger::root("example", Limits::default());
        Ok(Self { app, bus, ledger })
    }
}

struct Node {
    control: ControlNode,
    registry: Registry,
    beats: Heartbeats,
}

impl Node {
    async fn start(threads: &Threads) -> Result<Self, Failure> {
        let incarnation = u64::from(std::process::id());
        let answerer = BeatAnswerer::default();
        let services = Services {
            extensions: vec![Arc::new(answerer.clone())],
            ..Services::default()
        };
        let options = ControlOptions {
            incarnation: Some(incarnation),
            features: Features::of_any_plane().with(Feature::Beats),
            ..ControlOptions::default()
        };
        let endpoint = DrillbitEndpoint {
            address: Some("127.0.0.1".to_owned()),
            user_port: Some(31010),
            data_port: Some(31012),
            version: Some("0.1.0".to_owned()),
            ..DrillbitEndpoint::default()
        };
        let (any, bus) = (([127, 0, 0, 1], 0).into(), threads.bus.clone());
        let ledger = threads.ledger.clone();
        let control = ControlNode::bind(any, endpoint, bus, options, services, ledger).await?;
        let local = Member {
            incarnation: Some(incarnation),
            engine_version: Some("DataFusion 55.2.0".to_owned()),
            ..Member::of(control.endpoint().into())?
        };
        let registry = Registry::of_node(local, RegistryOptions::default());
        let beats = Heartbeats::new(registry.clone(), BeatOptions::default())?;
        answerer.serve(&beats);
        Ok(Self {
            control,
            registry,
            beats,
        })
    }

    fn watch(&self, threads: &Threads) -> Result<Tasks, Failure> {
        let tasks = Tasks::default();
        let (beats, links) = (self.beats.clone(), Arc::new(self.control.clone()));
        let run = async move { beats.run(links).await };
        // Where its connections are driven: no thread wakes another one for a beat.
        tasks.spawn(threads.bus.next_io(), &threads.ledger, run)?;
        Ok(tasks)
    }
}

/// The other process: nodes that answer until their parent is gone.
async fn answer(threads: &Threads, count: u64) -> Result<(), Failure> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        let node = Node::start(threads).await?;
        println!("{}", node.control.address());
        nodes.push(node);
    }
    io::stdout().flush()?;
    let busy = || {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    };
    // A line asks it to be busy; the end of its input ends it.
    let line = tokio::task::spawn_blocking(busy).await??;
    if let Ok(seconds) = line.trim().parse() {
        compute(threads, seconds)?;
        tokio::task::spawn_blocking(busy).await??;
    }
    Ok(())
}

/// Nodes of another process.
struct Others {
    process: Child,
    addresses: Vec<NodeAddress>,
}

impl Others {
    fn start(count: u64) -> Result<Self, Failure> {
        let mut process = Command::new(env::current_exe()?)
            .args(["answer", &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = process.stdout.take().ok_or("no stdout")?;
        let lines = BufReader::new(out).lines();
        let addresses = lines.take(usize::try_from(count)?);
        let addresses = addresses.map(|line| Ok(line?.parse()?));
        let addresses = addresses.collect::<Result<_, Failure>>()?;
        Ok(Self { process, addresses })
    }

    fn signal(&self, name: &str) -> Result<(), Failure> {
        let id = self.process.id().to_string();
        Command::new("kill").args([name, &id]).status()?;
        Ok(())
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        // A stopped process dies of it too; there is nobody left to tell of a failure.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn stop(threads: &Threads, rounds: u64) -> Result<(), Failure> {
    let others = Others::start(1)?;
    let node = Node::start(threads).await?;
    let mut watch = node.beats.watch();
    let _watching = node.watch(threads)?;
    node.registry
        .join(Member::at(others.addresses[0].clone()))?;
    until(&mut watch, Health::Up).await?;
    println!("times since SIGSTOP; up: since SIGCONT");
    for round in 0..rounds {
        // Long enough for usual answers, and a moment between two beats that differs from round to round.
        tokio::time::sleep(Duration::from_millis(8000 + 190 * round)).await;
        let stopped = Instant::now();
        others.signal("-STOP")?;
        let suspect = until(&mut watch, Health::Suspect).await? - stopped;
        let down = until(&mut watch, Health::Down).await? - stopped;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let resumed = Instant::now();
        others.signal("-CONT")?;
        let up = until(&mut watch, Health::Up).await? - resumed;
        println!("suspect {suspect:?}, down {down:?}, up {up:?}");
    }
    for node in node.beats.nodes() {
        println!("{:?}: {}", node.counts, node.reason);
    }
    Ok(())
}

async fn busy(threads: &Threads, seconds: u64) -> Result<(), Failure> {
    let mut others = Others::start(10)?;
    let node = Node::start(threads).await?;
    let members = others.addresses.iter().cloned().map(Member::at);
    node.registry.replace(members.collect())?;
    let _watching = node.watch(threads)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = sums(&node);
    let input = others.process.stdin.as_mut().ok_or("no stdin")?;
    writeln!(input, "{seconds}")?;
    compute(threads, seconds)?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = sums(&node);
    let [answered, suspected, downs] = [0, 1, 2].map(|at| after[at] - before[at]);
    println!("{answered} beats in {seconds} s: {suspected} times suspect, {downs} times down");
    println!("late by {:?} in all", node.beats.stalled());
    Ok(())
}

/// Answered, suspected, downs.
fn sums(node: &Node) -> [u64; 3] {
    let counts = node.beats.nodes().into_iter().map(|node| node.counts);
    counts.fold([0; 3], |[answered, suspected, downs], counts| {
        [
            answered + counts.answered,
            suspected + counts.suspected,
            downs + counts.downs,
        ]
    })
}

/// Computes on twice as many threads as there are cores, and in tasks that seldom yield.
fn compute(threads: &Threads, seconds: u64) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(seconds);
    for _ in 0..2 * thread::available_parallelism()?.get() {
        thread::spawn(move || spin_until(end));
        let task = async move {
            while Instant::now() < end {
                spin_until(Instant::now() + Duration::from_millis(200));
                tokio::task::yield_now().await;
            }
        };
        drop(threads.app.spawn(task));
    }
    Ok(())
}

fn spin_until(end: Instant) {
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

async fn until(watch: &mut HealthWatch, health: Health) -> Result<Instant, Failure> {
    loop {
        let event = watch.next().await.ok_or("no more events")??;
        if event.to == health {
            return Ok(Instant::now());
        }
    }
}
