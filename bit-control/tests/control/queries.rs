//! Queries over several nodes: fragments of a made-up engine, started, watched, cancelled and lost.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bit_control::{
    Assignment, ControlOptions, Foremen, ForemenOptions, FragmentControl, FragmentRunner,
    FragmentTask, Fragments, FragmentsOptions, Outcome, QueryPlan, Services, Started,
    heartbeat::{BeatOptions, Heartbeats},
};
use bytes::Bytes;
use fault_proxy::{End, Flow, Proxy, Way};
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use membership::{Member, NodeAddress, Registry, RegistryOptions};
use protos::{
    control::{InitializeFragments, PlanFragment},
    error::{ErrorType, Retry},
    id::{FragmentId, QueryId},
    shared::{MinorFragmentProfile, query_result::QueryState},
};
use rpc_bus::{
    CallError, Ledger, RpcFailure,
    ledger::{Kind, Limits},
    task::Tasks,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
};

use crate::support::{Node, PATIENCE, QUERY, runtime, settled, until};

/// An engine whose plans say what a fragment does.
struct Engine {
    started: Mutex<Vec<FragmentId>>,
    running: Arc<AtomicUsize>,
    /// What "hang" waits for.
    released: Arc<Semaphore>,
}

struct Control {
    cancelled: Notify,
    heeds_cancel: bool,
    finished_receivers: Mutex<HashSet<FragmentId>>,
    is_paused: AtomicBool,
}

impl FragmentControl for Control {
    fn cancel(&self) {
        if self.heeds_cancel {
            self.cancelled.notify_one();
        }
    }

    fn unpause(&self) {
        self.is_paused.store(false, Ordering::SeqCst);
    }

    fn receiver_finished(&self, receiver: FragmentId) {
        self.finished_receivers.lock().unwrap().insert(receiver);
    }

    fn profile(&self) -> MinorFragmentProfile {
        MinorFragmentProfile {
            memory_used: Some(42),
            ..MinorFragmentProfile::default()
        }
    }
}

fn failure(message: &str) -> Box<RpcFailure> {
    Box::new(RpcFailure::new(ErrorType::DataRead, message))
}

/// Counts a fragment as long as it is there.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FragmentRunner for Engine {
    fn start(&self, task: FragmentTask) -> BoxFuture<'static, Result<Started, Box<RpcFailure>>> {
        self.started.lock().unwrap().push(task.id);
        let (released, running) = (Arc::clone(&self.released), Arc::clone(&self.running));
        let plan = String::from_utf8(task.plan.to_vec()).unwrap();
        Box::pin(async move {
            match plan.as_str() {
                "refuse" => return Err(failure("this plan is refused")),
                "panic at start" => panic!("as the plan says"),
                "hang at start" => std::future::pending().await,
                _ => {}
            }
            let control = Arc::new(Control {
                cancelled: Notify::new(),
                heeds_cancel: plan != "stubborn",
                finished_receivers: Mutex::default(),
                is_paused: AtomicBool::new(true),
            });
            running.fetch_add(1, Ordering::SeqCst);
            let counted = Counted(running);
            let at = Arc::clone(&control);
            let run = Box::pin(async move {
                let _counted = counted;
                let work = work(plan, released, Arc::clone(&at));
                tokio::select! {
                    done = work => done,
                    () = at.cancelled.notified() => Err(failure("cancelled")),
                }
            });
            Ok(Started { control, run })
        })
    }
}

async fn work(
    plan: String,
    released: Arc<Semaphore>,
    control: Arc<Control>,
) -> Result<(), Box<RpcFailure>> {
    match plan.as_str() {
        "fail" => Err(failure("this plan fails")),
        "panic" => panic!("as the plan says"),
        "hang" | "stubborn" => {
            released.acquire().await.unwrap().forget();
            Ok(())
        }
        "unpaused" => {
            while control.is_paused.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        "until receivers finish" => {
            while control.finished_receivers.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A node that is foreman and runs fragments.
struct Worker {
    node: Node,
    engine: Arc<Engine>,
    fragments: Fragments,
    foremen: Foremen,
}

impl Worker {
    async fn start() -> Self {
        Self::with(FragmentsOptions::default(), ForemenOptions::default()).await
    }

    async fn with(fragments: FragmentsOptions, foremen: ForemenOptions) -> Self {
        let engine = Arc::new(Engine {
            started: Mutex::default(),
            running: Arc::default(),
            released: Arc::new(Semaphore::new(0)),
        });
        // What it holds is on a ledger of its own, which is looked at together with the node's.
        let ledger = crate::support::ledger();
        let runner = Arc::<Engine>::clone(&engine);
        let fragments = Fragments::new(runner, runtime(), fragments, &ledger);
        let foremen = Foremen::new(runtime(), foremen, &ledger);
        let services = Services {
            fragments: Arc::new(fragments.clone()),
            queries: Arc::new(foremen.clone()),
            ..Services::default()
        };
        let options = ControlOptions {
            call_timeout: Duration::from_secs(5),
            ..ControlOptions::default()
        };
        let node = Node::charging(ledger, options, services).await;
        fragments.attach(&node.control).unwrap();
        foremen.attach(&node.control);
        Self {
            node,
            engine,
            fragments,
            foremen,
        }
    }

    fn address(&self) -> NodeAddress {
        self.node.address().clone()
    }

    fn running(&self) -> usize {
        self.engine.running.load(Ordering::SeqCst)
    }

    /// Nothing runs, and nobody waits.
    fn is_idle(&self) -> bool {
        self.running() == 0 && self.fragments.list().is_empty() && self.foremen.list().is_empty()
    }

    async fn stop(self) {
        self.foremen.shutdown(PATIENCE).await;
        self.fragments.shutdown(PATIENCE).await;
        let ledger = self.node.ledger.clone();
        self.node.control.shutdown(PATIENCE).await;
        drop(self);
        settled(&ledger).await;
    }
}

async fn workers<const N: usize>() -> [Worker; N] {
    let workers = join_all((0..N).map(|_| Worker::start())).await;
    workers.try_into().unwrap_or_else(|_| unreachable!())
}

/// Two stages on each node: one that receives, and leaves.
fn plan(nodes: &[Worker], inner: &str, leaf: &str) -> QueryPlan {
    let part = |(minor, node): (usize, &Worker), major: i32, plan: &str| Assignment {
        major,
        minor: i32::try_from(minor).unwrap(),
        node: node.address(),
        is_leaf: major == 2,
        plan: Bytes::copy_from_slice(plan.as_bytes()),
    };
    let inner = nodes.iter().enumerate().map(|it| part(it, 1, inner));
    let leaves = nodes.iter().enumerate().map(|it| part(it, 2, leaf));
    QueryPlan {
        query: fresh(),
        fragments: inner.chain(leaves).collect(),
    }
}

/// No id is used twice: nodes remember those that were cancelled.
fn fresh() -> QueryId {
    static NEXT: AtomicI64 = AtomicI64::new(1);
    QueryId {
        part1: 7,
        part2: NEXT.fetch_add(1, Ordering::Relaxed),
    }
}

async fn all_idle(nodes: &[Worker]) {
    until("all nodes are idle", || nodes.iter().all(Worker::is_idle)).await;
}

async fn stop<const N: usize>(nodes: [Worker; N]) {
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_query_runs_on_all_nodes_and_ends_once_on_each() {
    let nodes = workers::<3>().await;
    let mut run = nodes[0].foremen.run(plan(&nodes, "done", "done")).unwrap();
    assert_eq!(run.outcome().await, Outcome::Finished);
    assert_eq!(run.outcome().await, Outcome::Finished);
    for node in &nodes {
        let started = node.engine.started.lock().unwrap();
        let majors: Vec<_> = started.iter().map(|id| id.major.0).collect();
        assert_eq!(majors, [1, 2], "those that receive come first");
    }
    all_idle(&nodes).await;
    let tunnel = nodes[1].node.control.tunnel(&nodes[0].address());
    let profile = tunnel.query_status(run.id()).await.unwrap();
    assert_eq!(profile.state(), QueryState::Completed);
    assert_eq!(
        (profile.total_fragments, profile.finished_fragments),
        (Some(6), Some(6))
    );
    let minors = profile
        .fragment_profile
        .iter()
        .flat_map(|it| &it.minor_fragment_profile);
    for minor in minors {
        assert_eq!(minor.memory_used, Some(42), "the last look is at the end");
    }
    drop(run);
    stop(nodes).await;
}

#[tokio::test]
async fn whatever_goes_wrong_fails_the_query_by_name_and_ends_it_everywhere() {
    let nodes = workers::<3>().await;
    let cases = [
        ("refuse", "this plan is refused"),
        ("fail", "this plan fails"),
        ("panic", "the engine panicked in the fragment"),
        ("panic at start", "the engine panicked in the fragment"),
    ];
    for (bad, said) in cases {
        for (inner, leaf) in [("hang", bad), (bad, "hang")] {
            let mut plan = plan(&nodes, inner, leaf);
            // Only on one of the nodes.
            for part in &mut plan.fragments {
                if part.minor != 1 {
                    part.plan = Bytes::from_static(b"hang");
                }
            }
            let mut run = nodes[0].foremen.run(plan).unwrap();
            let outcome = run.outcome().await;
            assert!(!run.started().await);
            let Outcome::Failed(failure) = &outcome else {
                panic!("{outcome:?} of {bad}");
            };
            assert!(failure.to_string().starts_with(said), "{failure}");
            all_idle(&nodes).await;
            let profile = nodes[0].foremen.profile(run.id()).unwrap();
            assert_eq!(profile.state(), QueryState::Failed);
        }
    }
    stop(nodes).await;
}

/// Cancelled while starting, while running, while it does not listen: it ends within the grace time.
#[tokio::test]
async fn a_cancel_ends_a_query_in_bounded_time_in_every_state() {
    let nodes = workers::<3>().await;
    for (inner, leaf, running) in [
        ("hang at start", "hang", 0),
        ("hang", "hang at start", 3),
        ("hang", "hang", 6),
        ("stubborn", "hang", 6),
        ("stubborn", "stubborn", 6),
    ] {
        let mut run = nodes[0].foremen.run(plan(&nodes, inner, leaf)).unwrap();
        let count = || {
            nodes
                .iter()
                .map(|node| node.fragments.list().len())
                .sum::<usize>()
        };
        let expected = if running == 0 { 3 } else { 6 };
        until("all are there", || count() == expected).await;
        until("all run that can", || {
            nodes.iter().map(Worker::running).sum::<usize>() == running
        })
        .await;
        let tunnel = nodes[2].node.control.tunnel(&nodes[0].address());
        assert!(tunnel.cancel_query(run.id()).await.unwrap());
        assert_eq!(run.outcome().await, Outcome::Cancelled, "{inner}, {leaf}");
        all_idle(&nodes).await;
        assert!(!tunnel.cancel_query(run.id()).await.unwrap(), "it is over");
    }
    stop(nodes).await;
}

#[tokio::test]
async fn a_node_says_whether_anything_is_left_of_a_query_that_is_cancelled() {
    let nodes = workers::<2>().await;
    let tunnel = nodes[0].node.control.tunnel(&nodes[1].address());
    assert!(!tunnel.cancel_fragments(fresh()).await.unwrap());
    let mut run = nodes[0].foremen.run(plan(&nodes, "hang", "hang")).unwrap();
    assert!(run.started().await);
    assert!(tunnel.cancel_fragments(run.id()).await.unwrap());
    assert!(matches!(run.outcome().await, Outcome::Failed(_)));
    all_idle(&nodes).await;
    until("its foreman knows", || {
        nodes[1].fragments.drained().now_or_never().is_some()
    })
    .await;
    assert!(!tunnel.cancel_fragments(run.id()).await.unwrap());
    // Those that were still starting are gone at once, with the message that they came in.
    let starting = plan(&nodes[1..], "hang at start", "hang");
    let mut run = nodes[0].foremen.run(starting).unwrap();
    until("it is there", || nodes[1].fragments.list().len() == 1).await;
    assert!(!tunnel.cancel_fragments(run.id()).await.unwrap());
    assert!(matches!(run.outcome().await, Outcome::Failed(_)));
    stop(nodes).await;
}

/// Nobody knows whether they have arrived, until the node says that nothing is there.
#[tokio::test]
async fn a_query_whose_fragments_were_lost_on_the_way_ends_as_soon_as_its_node_can_be_asked() {
    // Nothing else may end it.
    let endless = ForemenOptions {
        end_patience: Duration::from_hours(1),
        silence_max: Duration::from_hours(1),
        ..ForemenOptions::default()
    };
    let foreman = Worker::with(FragmentsOptions::default(), endless).await;
    let there = Worker::start().await;
    let proxy = Proxy::start(there.node.control.local_addr(), 1);
    let proxy = proxy.await.unwrap();
    let node: NodeAddress = proxy.addr().to_string().parse().unwrap();
    let tunnel = foreman.node.control.tunnel(&node);
    assert!(!tunnel.cancel_fragments(fresh()).await.unwrap());
    proxy.set(Way::ToServer, |faults| faults.flow = Flow::Lost);
    let mut plan = plan(std::slice::from_ref(&there), "hang", "hang");
    for part in &mut plan.fragments {
        part.node = node.clone();
    }
    let mut run = foreman.foremen.run(plan).unwrap();
    let ledger = &foreman.node.ledger;
    until("it is sent", || ledger.used(Kind::Calls) > 0).await;
    proxy.end_all(End::Reset);
    until("it is lost", || {
        let profile = foreman.foremen.profile(run.id()).unwrap();
        profile.state() == QueryState::CancellationRequested
    })
    .await;
    proxy.set(Way::ToServer, |faults| faults.flow = Flow::Passing);
    // What has connected meanwhile waits for an answer that does not come.
    proxy.end_all(End::Reset);
    let outcome = tokio::time::timeout(PATIENCE, run.outcome()).await;
    let Outcome::Failed(failure) = outcome.expect("it ends") else {
        panic!("not failed")
    };
    assert_eq!(failure.retry(), Retry::OtherNode);
    assert!(there.engine.started.lock().unwrap().is_empty());
    stop([foreman, there]).await;
}

#[tokio::test]
async fn a_dropped_run_is_cancelled() {
    let nodes = workers::<2>().await;
    let mut run = nodes[0].foremen.run(plan(&nodes, "hang", "hang")).unwrap();
    assert!(run.started().await);
    assert!(nodes.iter().all(|node| node.running() == 2));
    let id = run.id();
    drop(run);
    all_idle(&nodes).await;
    let profile = nodes[0].foremen.profile(id).unwrap();
    assert_eq!(profile.state(), QueryState::Canceled);
    stop(nodes).await;
}

#[tokio::test]
async fn a_node_that_goes_down_fails_its_queries_and_leaves_no_orphans() {
    let nodes = workers::<3>().await;
    let mut run = nodes[0].foremen.run(plan(&nodes, "hang", "hang")).unwrap();
    until("it runs", || nodes.iter().all(|node| node.running() == 2)).await;
    // One of those that run it, to the foreman.
    nodes[0].foremen.node_down(&nodes[2].address());
    let outcome = run.outcome().await;
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(failure.retry(), Retry::OtherNode);
    until("the others have ended it", || {
        nodes[..2].iter().all(Worker::is_idle)
    })
    .await;
    // The foreman, to the one that still runs it.
    assert_eq!(nodes[2].running(), 2);
    nodes[2].fragments.node_down(&nodes[0].address());
    all_idle(&nodes).await;
    stop(nodes).await;
}

/// The beats of a worker, who knows the others; what runs on those that go down is failed.
fn watch_over(worker: &Worker, others: &[Worker]) -> Heartbeats {
    let local = Member::of(worker.node.control.endpoint().into()).unwrap();
    let registry = Registry::of_node(local, RegistryOptions::default());
    for other in others {
        registry.join(Member::at(other.address())).unwrap();
    }
    let options = BeatOptions {
        interval: Duration::from_millis(50),
        down_grace: Duration::from_millis(50),
        ..BeatOptions::default()
    };
    Heartbeats::new(registry, options).unwrap()
}

#[tokio::test]
async fn what_runs_with_a_node_that_goes_down_is_failed_by_the_beats() {
    // Nothing else may find out.
    let patient = FragmentsOptions {
        foreman_patience: Duration::from_hours(1),
        ..FragmentsOptions::default()
    };
    let lasting = ForemenOptions {
        silence_max: Duration::from_hours(1),
        ..ForemenOptions::default()
    };
    let nodes = join_all((0..3).map(|_| Worker::with(patient, lasting))).await;
    let [head, worker, lost] = &nodes[..] else {
        unreachable!("three of them")
    };
    let (tasks, ledger) = (Tasks::default(), crate::support::ledger());
    for (node, other) in [(head, lost), (worker, lost)] {
        let beats = watch_over(node, std::slice::from_ref(other));
        node.foremen.watch(&beats);
        let links = Arc::new(node.node.control.clone());
        let (foremen, fragments) = (node.foremen.clone(), node.fragments.clone());
        let run = async move {
            let both = |node: &NodeAddress| {
                foremen.node_down(node);
                fragments.node_down(node);
            };
            tokio::join!(beats.run(links), beats.on_down(both));
        };
        tasks.spawn(&Handle::current(), &ledger, run).unwrap();
    }
    // One query of a foreman that stays, on all nodes; one of the foreman that is lost, on a node that stays.
    let mut run = head.foremen.run(plan(&nodes, "hang", "hang")).unwrap();
    let orphaned = lost.foremen.run(plan(&nodes[1..2], "hang", "hang"));
    let mut orphaned = orphaned.unwrap();
    assert!(run.started().await && orphaned.started().await);
    assert_eq!(worker.running(), 4);

    lost.node.control.shutdown(PATIENCE).await;
    let outcome = run.outcome().await;
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(failure.retry(), Retry::OtherNode);
    until("nothing is left of either", || {
        head.is_idle() && worker.is_idle()
    })
    .await;
    expect_none_begun_there(&nodes).await;
    tasks.abort();
    tasks.join(PATIENCE).await;
    drop((run, orphaned));
    // Nobody is left whom it could tell.
    for node in [head, worker] {
        lost.foremen.node_down(&node.address());
        lost.fragments.node_down(&node.address());
    }
    for node in nodes {
        node.stop().await;
    }
}

/// The last node is down: no query with it is begun; one without it is.
async fn expect_none_begun_there(nodes: &[Worker]) {
    let [head, worker, lost] = nodes else {
        unreachable!("three of them")
    };
    let started = worker.engine.started.lock().unwrap().len();
    let refused = head.foremen.run(plan(nodes, "hang", "hang")).unwrap_err();
    assert_eq!(refused.error.error_type(), ErrorType::Connection);
    assert_eq!(refused.retry(), Retry::OtherNode);
    let told = format!(
        "the node {}, which is to run fragments, is down",
        lost.address()
    );
    assert_eq!(refused.error.message(), told);
    assert!(head.foremen.list().is_empty());
    assert_eq!(worker.engine.started.lock().unwrap().len(), started);
    let mut without = head.foremen.run(plan(&nodes[..2], "", "")).unwrap();
    assert_eq!(without.outcome().await, Outcome::Finished);
}

/// Nobody says that the foreman has lost the query; the node learns it when it reports.
#[tokio::test(start_paused = true)]
async fn fragments_of_a_query_that_its_foreman_does_not_know_end() {
    let nodes = workers::<2>().await;
    let mut run = nodes[0].foremen.run(plan(&nodes, "hang", "hang")).unwrap();
    until("it runs", || nodes.iter().all(|node| node.running() == 2)).await;
    nodes[0].foremen.node_down(&nodes[1].address());
    run.outcome().await;
    // The next report is due within the keepalive.
    all_idle(&nodes).await;
    stop(nodes).await;
}

#[tokio::test]
async fn a_draining_node_finishes_what_it_runs_and_sends_the_rest_elsewhere() {
    let nodes = workers::<2>().await;
    let mut run = nodes[0].foremen.run(plan(&nodes, "hang", "hang")).unwrap();
    until("it runs", || nodes.iter().all(|node| node.running() == 2)).await;
    nodes[1].fragments.begin_drain();
    let other = plan(&nodes, "done", "done");
    let mut refused = nodes[0].foremen.run(other).unwrap();
    let outcome = refused.outcome().await;
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(failure.retry(), Retry::OtherNode);
    assert_eq!(failure.error.error_type(), ErrorType::Resource);
    let drained = nodes[1].fragments.drained();
    let release = async {
        for node in &nodes {
            assert_eq!(node.running(), 2);
            node.engine.released.add_permits(2);
        }
    };
    let ((), ()) = tokio::join!(drained, release);
    assert_eq!(run.outcome().await, Outcome::Finished);
    all_idle(&nodes).await;
    stop(nodes).await;
}

#[tokio::test]
async fn fragments_are_unpaused_and_told_of_finished_receivers() {
    let nodes = workers::<2>().await;
    let plan = plan(&nodes, "unpaused", "until receivers finish");
    let mut run = nodes[0].foremen.run(plan).unwrap();
    until("it runs", || nodes.iter().all(|node| node.running() == 2)).await;
    for (minor, node) in (0..).zip(&nodes) {
        let tunnel = nodes[0].node.control.tunnel(&node.address());
        let (receiver, sender) = (
            FragmentId::new(run.id(), 1, minor),
            FragmentId::new(run.id(), 2, minor),
        );
        tunnel.unpause_fragment(receiver).await.unwrap();
        tunnel.receiver_finished(receiver, sender).await.unwrap();
    }
    assert_eq!(run.outcome().await, Outcome::Finished);
    stop(nodes).await;
}

#[tokio::test]
async fn plans_that_are_not_of_our_engine_are_refused_by_name() {
    let [node] = workers::<1>().await;
    let tunnel = node.node.control.tunnel(&node.address());
    let handle = bit_control::fragment_handle(FragmentId::new(QUERY, 1, 0));
    let drills = PlanFragment {
        handle: Some(handle),
        fragment_json: Some("{ \"pop\" : \"screen\" }".to_owned()),
        ..PlanFragment::default()
    };
    let strangers = PlanFragment {
        handle: Some(handle),
        foreman: Some(crate::support::endpoint(1)),
        plan: Some(Bytes::new()),
        ..PlanFragment::default()
    };
    let cases = [
        (drills, "(fragment_json), which cannot be run here"),
        (strangers, "which is not its foreman"),
        (PlanFragment::default(), "without a whole handle"),
        (
            PlanFragment {
                handle: Some(handle),
                ..PlanFragment::default()
            },
            "has no plan",
        ),
    ];
    for (fragment, said) in cases {
        let request = InitializeFragments {
            fragment: vec![fragment],
        };
        let error = tunnel.initialize_fragments(request).await.unwrap_err();
        assert!(matches!(error, CallError::Remote(_)));
        assert!(error.to_string().contains(said), "{error}");
    }
    assert!(node.engine.started.lock().unwrap().is_empty());
    node.stop().await;
}

#[tokio::test]
async fn what_runs_is_bounded() {
    let few = FragmentsOptions {
        fragments_max: 2,
        plan_bytes_max: 100,
        ..FragmentsOptions::default()
    };
    let one = ForemenOptions {
        queries_max: 1,
        ..ForemenOptions::default()
    };
    let nodes = [Worker::with(few, one).await];
    let mut run = nodes[0].foremen.run(plan(&nodes, "hang", "hang")).unwrap();
    let second = nodes[0].foremen.run(plan(&nodes, "done", "done"));
    assert!(
        second
            .unwrap_err()
            .to_string()
            .contains("1 queries run here")
    );
    until("it runs", || nodes[0].running() == 2).await;
    let tunnel = nodes[0].node.control.tunnel(&nodes[0].address());
    let part = |minor: i32, bytes: usize| PlanFragment {
        handle: Some(bit_control::fragment_handle(FragmentId::new(
            QUERY, 9, minor,
        ))),
        plan: Some(Bytes::from(vec![b' '; bytes])),
        ..PlanFragment::default()
    };
    for fragment in [part(0, 1), part(0, 1000)] {
        let request = InitializeFragments {
            fragment: vec![fragment],
        };
        let error = tunnel.initialize_fragments(request).await.unwrap_err();
        let CallError::Remote(failure) = error else {
            panic!("{error:?}")
        };
        assert_eq!(failure.error.error_type(), ErrorType::Resource);
        assert_eq!(failure.retry(), Retry::OtherNode);
    }
    run.cancel();
    assert_eq!(run.outcome().await, Outcome::Cancelled);
    stop(nodes).await;
}

#[tokio::test]
async fn of_a_query_that_finds_no_room_nothing_is_left() {
    let nodes = workers::<1>().await;
    let one_task = Limits {
        tasks: Some(1),
        ..Limits::default()
    };
    let ledger = Ledger::root("test", one_task);
    let foremen = Foremen::new(runtime(), ForemenOptions::default(), &ledger);
    let plan = plan(&nodes, "done", "done");
    let other = ledger.charge(Kind::Tasks, 1).unwrap();
    let refused = foremen.run(plan.clone()).unwrap_err();
    assert_eq!(refused.error.error_type(), ErrorType::Resource);
    assert_eq!(foremen.profile(plan.query), None, "it has never begun");
    assert_eq!(foremen.list(), []);
    drop(other);
    assert!(ledger.is_zero(), "{ledger:?}");
    stop(nodes).await;
}
