//! Queries of 100 fragments on five nodes: how soon all of them run, and how soon they have ended once that is asked.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use bit_control::{
    Assignment, ControlNode, ControlOptions, Foremen, ForemenOptions, FragmentControl,
    FragmentRunner, FragmentTask, Fragments, FragmentsOptions, Outcome, QueryPlan, QueryRun,
    Services, Started,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use protos::id::QueryId;
use rpc_bus::{BusRuntime, RpcFailure};
use tokio::sync::Notify;

use super::node::{endpoint, ledger};
use super::{CANCEL_DEAF, CANCEL_RUNNING, CANCEL_STARTING, FRAGMENTS, Sample};
use crate::rpc::threads::{ThreadOptions, Threads};

/// The cases of queries.
pub(super) const CASES: [&str; 4] = [FRAGMENTS, CANCEL_RUNNING, CANCEL_STARTING, CANCEL_DEAF];

const NODES: usize = 5;
/// Of each node: half of them receive, half are leaves.
const FRAGMENTS_EACH: usize = 20;
const PLAN_BYTES: usize = 4096;
/// Queries of a round.
const QUERIES: usize = 200;
/// Those that take half a second each.
const QUERIES_DEAF: usize = 10;

/// How fragments behave, as the first byte of their plan says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Manner {
    Listens,
    NeverStarts,
    IsDeaf,
}

/// Fragments that do nothing but wait until they are cancelled.
struct Engine;

struct Waiting(Notify);

impl FragmentControl for Waiting {
    fn cancel(&self) {
        self.0.notify_one();
    }
}

impl FragmentRunner for Engine {
    fn start(&self, task: FragmentTask) -> BoxFuture<'static, Result<Started, Box<RpcFailure>>> {
        let is = |manner: Manner| task.plan.first() == Some(&(manner as u8));
        let (never_starts, is_deaf) = (is(Manner::NeverStarts), is(Manner::IsDeaf));
        Box::pin(async move {
            if never_starts {
                pending::<()>().await;
            }
            let control = Arc::new(Waiting(Notify::new()));
            let waiting = Arc::clone(&control);
            let run = async move {
                waiting.0.notified().await;
                if is_deaf {
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

/// A node that runs fragments, and may be a foreman.
struct Node {
    control: ControlNode,
    foremen: Foremen,
    _fragments: Fragments,
}

impl Node {
    async fn start(bus: &BusRuntime) -> Result<Self> {
        let ledger = ledger();
        let (options, engine) = (FragmentsOptions::default(), Arc::new(Engine));
        let fragments = Fragments::new(engine, bus.clone(), options, &ledger);
        let foremen = Foremen::new(bus.clone(), ForemenOptions::default(), &ledger);
        let services = Services {
            fragments: Arc::new(fragments.clone()),
            queries: Arc::new(foremen.clone()),
            ..Services::default()
        };
        let (any, options) = (
            SocketAddr::from(([127, 0, 0, 1], 0)),
            ControlOptions::default(),
        );
        let control =
            ControlNode::bind(any, endpoint(), bus.clone(), options, services, ledger).await?;
        fragments.attach(&control)?;
        foremen.attach(&control);
        Ok(Self {
            control,
            foremen,
            _fragments: fragments,
        })
    }
}

/// All nodes; the first one is the foreman.
pub(super) struct Cluster {
    // Before their threads.
    nodes: Vec<Node>,
    threads: Vec<Threads>,
    queries: i64,
}

impl Cluster {
    pub(super) fn start(options: ThreadOptions) -> Result<Self> {
        let threads = (0..NODES).map(|_| Threads::start(options));
        let threads = threads.collect::<Result<Vec<_>>>()?;
        let nodes = threads
            .iter()
            .map(|threads| threads.app().block_on(Node::start(threads.bus())));
        let mut cluster = Self {
            nodes: nodes.collect::<Result<_>>()?,
            threads,
            queries: 0,
        };
        // The first one connects.
        cluster.query(CANCEL_RUNNING)?;
        Ok(cluster)
    }

    /// Queries of a case, one after the other.
    pub(super) fn round(&mut self, case: &str) -> Result<Vec<Sample>> {
        let count = if case == CANCEL_DEAF {
            QUERIES_DEAF
        } else {
            QUERIES
        };
        let times = (0..count).map(|_| self.query(case));
        let mut times = times.collect::<Result<Vec<_>>>()?;
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        Ok(vec![("p50_ms", at(50)), ("p99_ms", at(99))])
    }

    /// Runs and cancels a query; what of that the case is about.
    fn query(&mut self, case: &str) -> Result<Duration> {
        let manner = match case {
            FRAGMENTS | CANCEL_RUNNING => Manner::Listens,
            CANCEL_STARTING => Manner::NeverStarts,
            CANCEL_DEAF => Manner::IsDeaf,
            _ => bail!("no queries in {case}"),
        };
        let plan = self.plan(manner)?;
        let foremen = self.nodes[0].foremen.clone();
        let times = async move {
            let begun = Instant::now();
            let mut run = foremen.run(plan).map_err(|failure| anyhow!(failure))?;
            if manner != Manner::NeverStarts {
                ensure!(run.started().await, "a query did not start");
            }
            let started = begun.elapsed();
            anyhow::Ok((started, cancel(run).await?))
        };
        let app = self.threads[0].app();
        let (started, cancelled) = app.block_on(app.spawn(times))??;
        Ok(if case == FRAGMENTS {
            started
        } else {
            cancelled
        })
    }

    fn plan(&mut self, manner: Manner) -> Result<QueryPlan> {
        self.queries += 1;
        let bytes = Bytes::from([&[manner as u8][..], &[b' '; PLAN_BYTES - 1]].concat());
        let mut fragments = Vec::new();
        let spread = self.nodes.iter().cycle();
        for (minor, node) in spread.take(NODES * FRAGMENTS_EACH / 2).enumerate() {
            for major in [1, 2] {
                fragments.push(Assignment {
                    major,
                    minor: i32::try_from(minor)?,
                    node: node.control.address().clone(),
                    is_leaf: major == 2,
                    plan: bytes.clone(),
                });
            }
        }
        let query = QueryId {
            part1: self.queries,
            part2: 1,
        };
        Ok(QueryPlan { query, fragments })
    }
}

async fn cancel(mut run: QueryRun) -> Result<Duration> {
    let begun = Instant::now();
    run.cancel();
    let outcome = run.outcome().await;
    ensure!(outcome == Outcome::Cancelled, "{outcome:?}");
    Ok(begun.elapsed())
}
