//! The control plane beside Drill's: ours asks a real Drillbit, and Drill's own classes ask ours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bit_control::{
    ControlNode, ControlOptions, CustomReply, Direction, QueryService, ReplyTo, Services,
};
use bytes::Bytes;
use membership::NodeAddress;
use prost::Message;
use protos::calls::control as calls;
use protos::control::InitializeFragments;
use protos::coord::DrillbitEndpoint;
use protos::id::{FragmentId, QueryId};
use protos::shared::query_result::QueryState;
use protos::shared::{self, MinorFragmentProfile, QueryProfile};
use rpc_bus::CallError;
use rpc_bus::ledger::{Ledger, Limits};
use tests::interop::{DrillControlPlane, available, real_drillbit};
use tokio::task::block_in_place;

use crate::nodes::{Connected, bus, eventually_zero};

/// The query of the harness.
const QUERY: QueryId = QueryId { part1: 1, part2: 2 };

fn fragment(major: i32) -> FragmentId {
    FragmentId::new(QUERY, major, 0)
}

fn address(socket: SocketAddr) -> NodeAddress {
    NodeAddress::new(socket.ip().to_string(), socket.port()).unwrap()
}

/// A node of ours, and what it holds.
async fn node(services: Services) -> (ControlNode, Ledger) {
    let ledger = Ledger::root("test", Limits::default());
    let endpoint = DrillbitEndpoint {
        address: Some("127.0.0.1".to_owned()),
        ..DrillbitEndpoint::default()
    };
    let node = ControlNode::bind(
        SocketAddr::from(([127, 0, 0, 1], 0)),
        endpoint,
        bus(),
        ControlOptions::default(),
        services,
        ledger.clone(),
    );
    (node.await.unwrap(), ledger)
}

async fn stop(node: ControlNode, ledger: Ledger) {
    node.shutdown(Duration::from_secs(10)).await;
    drop(node);
    eventually_zero(&ledger).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_drillbit_lets_us_in_and_answers_our_calls() {
    let Some(drill) = real_drillbit() else { return };
    let (node, ledger) = node(Services::default()).await;
    let tunnel = node.tunnel(&address(drill.control()));
    let connection = tunnel.connection().await.unwrap();
    connection.ping().await.unwrap();
    assert_eq!(connection.peer_capabilities(), None);
    // What it does not know is acknowledged.
    tunnel.cancel_fragment(fragment(1)).await.unwrap();
    tunnel.unpause_fragment(fragment(1)).await.unwrap();
    tunnel
        .receiver_finished(fragment(1), fragment(2))
        .await
        .unwrap();
    let profile = MinorFragmentProfile {
        state: Some(3),
        ..MinorFragmentProfile::default()
    };
    tunnel.fragment_status(fragment(1), profile).await.unwrap();
    let nothing = InitializeFragments::default();
    tunnel.initialize_fragments(nothing).await.unwrap();
    assert!(!tunnel.cancel_query(QUERY).await.unwrap());
    let unknown = tunnel.custom(77, Bytes::from_static(b"x"), vec![]).await;
    let CallError::Remote(failure) = unknown.unwrap_err() else {
        panic!("a failure of the Drillbit was expected")
    };
    assert!(failure.to_string().contains("77"), "{failure}");
    // Nothing of all that has cost the connection; the status of a query that it does not know does.
    assert!(!connection.is_closed());
    let lost = tunnel.query_status(QUERY).await.unwrap_err();
    assert!(matches!(lost, CallError::Lost(_)), "{lost:?}");
    connection.closed().await;
    assert!(!tunnel.cancel_query(QUERY).await.unwrap());
    drop((tunnel, connection));
    stop(node, ledger).await;
}

/// A query that takes long: its profile is asked for, then it is cancelled, both by another node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_of_a_real_drillbit_is_looked_at_and_cancelled_by_our_node() {
    let Some(drill) = real_drillbit() else { return };
    let (node, ledger) = node(Services::default()).await;
    let tunnel = node.tunnel(&address(drill.control()));
    let connected = Connected::to(drill.user()).await;
    let settings = "alter session set `planner.enable_nljoin_for_scalar_only` = false";
    let mut set = connected.client.query(settings).await.unwrap();
    while set.next_event().await.unwrap().is_some() {}
    drop(set);
    let employees = "cp.`employee.json`";
    let sql = format!("select a.employee_id from {employees} a, {employees} b, {employees} c");
    let mut stream = connected.client.query(&sql).await.unwrap();
    assert!(stream.next_event().await.unwrap().is_some());
    let id = stream.query_id();
    let profile = tunnel.query_status(id).await.unwrap();
    assert_eq!(profile.id.map(QueryId::try_from), Some(Ok(id)));
    assert_eq!(profile.state(), QueryState::Running);
    assert!(profile.total_fragments() >= 1);
    assert!(tunnel.cancel_query(id).await.unwrap());
    while let Ok(Some(_)) = stream.next_event().await {}
    drop(stream);
    connected.close().await;
    drop(tunnel);
    stop(node, ledger).await;
}

/// Knows one query.
struct OneQuery;

impl QueryService for OneQuery {
    fn status(&self, _: &NodeAddress, query: QueryId, reply: ReplyTo<calls::QueryStatus>) {
        if query != QUERY {
            return reply.fail(bit_control::unknown_query(query));
        }
        reply.send(QueryProfile {
            id: Some(query.into()),
            start: Some(1),
            query: Some("select 1".to_owned()),
            foreman: Some(DrillbitEndpoint::default()),
            ..QueryProfile::default()
        });
    }

    fn cancel(&self, _: &NodeAddress, query: QueryId, reply: ReplyTo<calls::QueryCancel>) {
        reply.acknowledge(query == QUERY);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drills_own_tunnel_makes_every_call_to_our_node_and_both_sides_use_its_connection() {
    let started = block_in_place(DrillControlPlane::start);
    let Some(mut drill) = available("Drill's control plane", started) else {
        return;
    };
    let services = Services {
        queries: Arc::new(OneQuery),
        ..Services::default()
    };
    let swap = |_: &NodeAddress, id: shared::QueryId, dbody: Bytes, reply: CustomReply| {
        let swapped = shared::QueryId {
            part1: id.part2,
            part2: id.part1,
        };
        reply.send(swapped.encode_to_vec().into(), vec![dbody]);
    };
    services.custom.register_typed(7, swap).unwrap();
    let (node, ledger) = node(services).await;
    let said = block_in_place(|| drill.call(node.local_addr().port())).unwrap();
    let expected = [
        "initialize nothing ok=true",
        "initialize failed ",
        "cancel ok=true",
        "unpause ok=true",
        "finished ok=true",
        "status ok=true",
        "cancel query ok=true",
        "profile of 1",
        "profile failed ",
        "custom 4 3 hello",
        "custom failed ",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        let is_it = if expected.ends_with(' ') {
            said.starts_with(expected)
        } else {
            said == expected
        };
        assert!(is_it, "{said:?}, not {expected:?}");
    }
    assert!(said[1].contains("no fragments are run here"), "{}", said[1]);
    assert!(said[8].contains("is not run here"), "{}", said[8]);
    assert!(said[10].contains("of type 99"), "{}", said[10]);
    // Ours asks back, on the connection that Drill has opened.
    let tunnel = node.tunnel(&address(drill.control()));
    let request = shared::QueryId {
        part1: Some(5),
        part2: Some(6),
    };
    let body = Bytes::from(vec![1; 100_000]);
    let message = request.encode_to_vec().into();
    let answer = tunnel.custom(7, message, vec![body.clone()]).await.unwrap();
    let swapped = shared::QueryId::decode(answer.message).unwrap();
    assert_eq!((swapped.part1, swapped.part2), (Some(6), Some(5)));
    assert_eq!(answer.dbody, body);
    let peer = tunnel.peer().unwrap();
    assert_eq!(peer.connections.len(), 1);
    assert_eq!(peer.connections[0].0, Direction::Inbound);
    assert_eq!(peer.capabilities, None);
    // A body pins what it is charged for.
    drop((tunnel, peer, drill, answer.dbody));
    stop(node, ledger).await;
}
