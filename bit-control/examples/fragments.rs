//! How long it takes to start a query of 100 fragments on five nodes, and to cancel it in every state: all nodes in this
//! process, real sockets between them.
//!
//! `cargo run --release -p bit-control --example fragments [ROUNDS]`

use std::{
    error::Error,
    future::pending,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bit_control::{
    Assignment, ControlNode, ControlOptions, Foremen, ForemenOptions, FragmentControl,
    FragmentRunner, FragmentTask, Fragments, FragmentsOptions, Outcome, QueryPlan, QueryRun,
    Services, Started,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use protos::{coord::DrillbitEndpoint, id::QueryId};
use rpc_bus::{BusRuntime, Ledger, RpcFailure, ledger::Limits};
use tokio::sync::Notify;

const NODES: usize = 5;
/// Of each node: half of them receive, half are leaves.
const FRAGMENTS: usize = 20;
/// Bytes of a fragment's plan.
const PLAN_BYTES: usize = 4096;

/// Fragments that wait until they are cancelled, or as the first byte of their plan says.
struct Engine;

const LISTENS: u8 = 0;
const NEVER_STARTS: u8 = 1;
const DOES_NOT_LISTEN: u8 = 2;

struct Waiting(Notify);

impl FragmentControl for Waiting {
    fn cancel(&self) {
        self.0.notify_one();
    }
}

impl FragmentRunner for Engine {
    fn start(&self, task: FragmentTask) -> BoxFuture<'static, Result<Started, Box<RpcFailure>>> {
        Box::pin(async move {
            let manner = task.plan.first().copied();
            if manner == Some(NEVER_STARTS) {
                pending::<()>().await;
            }
            let control = Arc::new(Waiting(Notify::new()));
            let waiting = Arc::clone(&control);
            let run = async move {
                waiting.0.notified().await;
                if manner == Some(DOES_NOT_LISTEN) {
                    pending::<()>().await;
                }
                Ok(())
            };
            Ok(Started {
                control,
                run: Box::pin(run),
            })
        })
    }
}

struct Node {
    control: ControlNode,
    foremen: Foremen,
    _fragments: Fragments,
}

impl Node {
    async fn start(runtime: &BusRuntime, ledger: &Ledger) -> Result<Self, Box<dyn Error>> {
        let options = FragmentsOptions::default();
        let fragments = Fragments::new(Arc::new(Engine), runtime.clone(), options, ledger);
        let foremen = Foremen::new(runtime.clone(), ForemenOptions::default(), ledger);
        let services = Services {
            fragments: Arc::new(fragments.clone()),
            queries: Arc::new(foremen.clone()),
            ..Services::default()
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = DrillbitEndpoint {
            address: Some("127.0.0.1".to_owned()),
            ..DrillbitEndpoint::default()
        };
        let (options, ledger) = (ControlOptions::default(), ledger.clone());
        let control =
            ControlNode::bind(any, endpoint, runtime.clone(), options, services, ledger).await?;
        fragments.attach(&control)?;
        foremen.attach(&control);
        Ok(Self {
            control,
            foremen,
            _fragments: fragments,
        })
    }
}

fn plan(nodes: &[Node], manner: u8) -> QueryPlan {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().cast_signed());
    let bytes = Bytes::from([&[manner][..], &[b' '; PLAN_BYTES - 1]].concat());
    let part = |(minor, node): (usize, &Node)| {
        [1, 2].map(|major| Assignment {
            major,
            minor: i32::try_from(minor).unwrap_or_default(),
            node: node.control.address().clone(),
            is_leaf: major == 2,
            plan: bytes.clone(),
        })
    };
    let spread = nodes.iter().cycle().take(NODES * FRAGMENTS / 2);
    QueryPlan {
        query: QueryId::generate(seconds, &mut rand::rng()),
        fragments: spread.enumerate().flat_map(part).collect(),
    }
}

fn run(nodes: &[Node], manner: u8) -> Result<QueryRun, Box<RpcFailure>> {
    nodes[0].foremen.run(plan(nodes, manner))
}

async fn cancel(mut run: QueryRun) -> Duration {
    let began = Instant::now();
    run.cancel();
    assert_eq!(run.outcome().await, Outcome::Cancelled);
    began.elapsed()
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    let (p50, p99, max) = (at(50), at(99), at(100));
    println!("{what:<52} p50 {p50:>9.2?}  p99 {p99:>9.2?}  max {max:>9.2?}");
}

async fn measure(nodes: &[Node], rounds: usize) -> Result<(), Box<dyn Error>> {
    let (mut starts, mut cancels) = (Vec::new(), Vec::new());
    // The first one connects.
    for round in 0..=rounds {
        let began = Instant::now();
        let mut run = run(nodes, LISTENS)?;
        assert!(run.started().await, "all of them start");
        let took = began.elapsed();
        let cancelled = cancel(run).await;
        if round > 0 {
            starts.push(took);
            cancels.push(cancelled);
        } else {
            println!("the first, which connects: {took:.2?}");
        }
    }
    show("start of 100 fragments on 5 nodes", starts);
    show("cancel: running, they listen", cancels);
    for (what, manner) in [
        ("cancel: starting", NEVER_STARTS),
        (
            "cancel: running, they do not listen (grace 500 ms)",
            DOES_NOT_LISTEN,
        ),
    ] {
        let mut cancels = Vec::new();
        for _ in 0..rounds.min(50) {
            let mut run = run(nodes, manner)?;
            if manner == DOES_NOT_LISTEN {
                assert!(run.started().await, "all of them start");
            }
            cancels.push(cancel(run).await);
        }
        show(what, cancels);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(500), |it| it.parse())?;
    let app = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let io = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let cpu = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build()?);
    let runtime = BusRuntime::new(vec![io.handle().clone()], app.handle().clone(), cpu);
    let ledger = Ledger::root("process", Limits::default());
    app.block_on(async {
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            nodes.push(Node::start(&runtime, &ledger).await?);
        }
        measure(&nodes, rounds).await?;
        for node in &nodes {
            node.control.shutdown(Duration::from_secs(5)).await;
        }
        Ok(())
    })
}
