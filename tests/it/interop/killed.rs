//! SIGKILL for one side in the middle of a result: the other side knows within two seconds, says so
//! in a typed error, and nothing of the query is left.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use drillbit::node::NodeOptions;
use futures::StreamExt;
use rpc_bus::ledger::Kind;
use tests::data;
use tests::interop::{ALL_ROWS, Jdbc, Memory, RealDrillbit, available, jdbc};
use tests::node::Node;

use super::stalled::stalled_reader;
use crate::nodes::{Connected, NODE};

const NOTICED_WITHIN: Duration = Duration::from_secs(2);
/// Small: it lives for one query.
const SMALL: Memory = Memory {
    heap_mib: 400,
    direct_mib: 512,
};

fn long_query() -> String {
    format!(
        "select * from dfs.`{}`",
        data::five_million().unwrap().display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_notices_the_death_of_our_node() {
    let mut node = Node::start(NODE).unwrap();
    client_notices(node.user(), || node.process().kill()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_notices_the_death_of_a_real_drill() {
    let Some(mut drill) = available("a real Drillbit", RealDrillbit::start(&SMALL)) else {
        return;
    };
    client_notices(drill.user(), || drill.kill()).await;
}

async fn client_notices(node: SocketAddr, kill: impl FnOnce()) {
    let connected = Connected::to(node).await;
    let mut batches = connected.client.query(&long_query()).await.unwrap();
    batches.next().await.expect("a batch").unwrap();
    kill();
    let killed = Instant::now();
    let error = loop {
        let left = NOTICED_WITHIN.saturating_sub(killed.elapsed());
        let next = tokio::time::timeout(left, batches.next())
            .await
            .expect("an end within two seconds");
        if let Err(error) = next.expect("an error before the end") {
            break error;
        }
    };
    assert!(matches!(error, client::ClientError::Lost(_)), "{error:?}");
    drop(batches);
    connected.close().await;
}

#[test]
fn the_driver_notices_the_death_of_our_node() {
    let Some(jdbc) = jdbc() else { return };
    let mut node = Node::start(NODE).unwrap();
    let connection = jdbc.connect(node.user(), &[]).unwrap();
    let statement = connection.statement().unwrap();
    statement.execute(&long_query()).unwrap();
    statement.fetch(1, 0).unwrap();
    node.process().kill();
    let killed = Instant::now();
    let error = statement.fetch(ALL_ROWS, 0).unwrap_err();
    assert!(killed.elapsed() < NOTICED_WITHIN, "{:?}", killed.elapsed());
    assert!(error.message.starts_with("CONNECTION ERROR"), "{error}");
}

#[test]
fn our_node_notices_the_death_of_our_client() {
    let (node, idle) = node_in_process();
    let mut reader = stalled_reader(node.user_addr());
    assert_ne!(
        in_use(&node),
        idle,
        "nothing is charged for a running query"
    );
    reader.kill();
    assert_idle(node, idle);
}

#[test]
fn our_node_notices_the_death_of_the_driver() {
    let Some(jdbc) = available("the JDBC driver", Jdbc::start()) else {
        return;
    };
    let (node, idle) = node_in_process();
    let connection = jdbc.connect(node.user_addr(), &[]).unwrap();
    let statement = connection.statement().unwrap();
    statement.execute(&long_query()).unwrap();
    statement.fetch(1, 0).unwrap();
    assert_ne!(
        in_use(&node),
        idle,
        "nothing is charged for a running query"
    );
    jdbc.kill();
    assert_idle(node, idle);
}

/// What a node's ledger reads, by kind.
type InUse = [usize; Kind::ALL.len()];

/// A node whose ledger can be looked at, and what that reads while nobody is connected: at most the
/// task that accepts.
fn node_in_process() -> (drillbit::node::Node, InUse) {
    let options = NodeOptions {
        user_addr: ([127, 0, 0, 1], 0).into(),
        ..NodeOptions::default()
    };
    let node = drillbit::node::Node::start(&options).unwrap();
    let idle = in_use(&node);
    let accepting = usize::from(node.ledger().used(Kind::Tasks) > 0);
    assert_eq!(idle.iter().sum::<usize>(), accepting, "{:?}", node.ledger());
    (node, idle)
}

fn in_use(node: &drillbit::node::Node) -> InUse {
    Kind::ALL.map(|kind| node.ledger().used(kind))
}

fn assert_idle(node: drillbit::node::Node, idle: InUse) {
    let killed = Instant::now();
    while in_use(&node) != idle {
        assert!(killed.elapsed() < NOTICED_WITHIN, "{:?}", node.ledger());
        thread::sleep(Duration::from_millis(5));
    }
    node.shutdown(Duration::ZERO);
}
