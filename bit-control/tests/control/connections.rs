//! Which connections there are: made when needed, once at a time, from both sides at once, and again.

use std::{sync::Arc, time::Duration};

use bit_control::{ControlOptions, Direction, Services};
use futures::future::join_all;
use membership::NodeAddress;
use protos::{calls::control as calls, rpc::RpcMode};
use rpc_bus::{
    CallError, ConnectError, Features,
    auth::{AuthOptions, Authenticator, Credentials, Login, Users},
};
use tokio::net::TcpListener;

use crate::{
    peer::Peer,
    support::{Node, QUERY, runtime, until},
};

fn local(port: u16) -> NodeAddress {
    NodeAddress::new("127.0.0.1", port).unwrap()
}

#[tokio::test]
async fn many_callers_share_one_attempt_and_one_connection() {
    let (a, b) = (Node::start().await, Node::start().await);
    let tunnel = a.control.tunnel(b.address());
    let calls = (0..100).map(|_| tunnel.cancel_query(QUERY));
    for answer in join_all(calls).await {
        assert!(!answer.unwrap());
    }
    assert_eq!(tunnel.peer().unwrap().connections.len(), 1);
    assert_eq!(b.control.peers().len(), 1);
    a.stop().await;
    b.stop().await;
}

/// Both connect at the same time, again and again: no call fails, no connection is closed, and both use the same one.
#[tokio::test]
async fn nodes_that_connect_to_each_other_at_once_lose_nothing() {
    let mut twice = 0;
    for _ in 0..200 {
        let (a, b) = (Node::start().await, Node::start().await);
        let (there, back) = (a.control.tunnel(b.address()), b.control.tunnel(a.address()));
        let (one, two) = tokio::join!(there.cancel_query(QUERY), back.cancel_query(QUERY));
        assert!(!one.unwrap() && !two.unwrap());
        let count = |node: &Node| node.control.peers()[0].connections.len();
        until("both know the same connections", || count(&a) == count(&b)).await;
        let (from_a, from_b) = (there.peer().unwrap(), back.peer().unwrap());
        if count(&a) == 2 {
            twice += 1;
        }
        for (_, connection) in from_a.connections.iter().chain(&from_b.connections) {
            assert!(!connection.is_closed());
        }
        // What is outbound for the one is inbound for the other.
        let used = (from_a.connections[0].0, from_b.connections[0].0);
        assert_ne!(used.0, used.1, "{from_a:?} {from_b:?}");
        assert!(!there.cancel_query(QUERY).await.unwrap());
        assert!(!back.cancel_query(QUERY).await.unwrap());
        assert_eq!(
            (count(&a), count(&b)),
            (from_a.connections.len(), from_a.connections.len())
        );
        drop((from_a, from_b, there, back));
        a.stop().await;
        b.stop().await;
    }
    assert!(twice > 0, "they never met");
}

#[tokio::test]
async fn a_lost_connection_is_made_again_at_the_next_call() {
    let (a, b) = (Node::start().await, Node::start().await);
    let (there, back) = (a.control.tunnel(b.address()), b.control.tunnel(a.address()));
    for round in 0..20 {
        let (caller, breaker) = if round % 2 == 0 {
            (&there, &b)
        } else {
            (&back, &a)
        };
        assert!(!caller.cancel_query(QUERY).await.unwrap());
        let peer = if round % 2 == 0 {
            a.address()
        } else {
            b.address()
        };
        breaker.control.disconnect(peer);
        until("both have seen it", || {
            there.peer().is_none() && back.peer().is_none()
        })
        .await;
    }
    drop((there, back));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_call_on_a_connection_that_ends_fails_and_all_who_wait_for_one_are_told_why_there_is_none()
 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = Node::start().await;
    let port = listener.local_addr().unwrap().port();
    let tunnel = node.control.tunnel(&local(port));
    let drill = async {
        let mut peer = Peer::over(listener.accept().await.unwrap().0);
        let hello = peer.frame().await;
        assert!(hello.is_request::<calls::Handshake>());
        peer.send(RpcMode::Response, hello.id, 0, b"\x08\x03", &[])
            .await;
        assert!(peer.frame().await.is_request::<calls::QueryCancel>());
    };
    let (answer, ()) = tokio::join!(tunnel.cancel_query(QUERY), drill);
    assert!(matches!(answer, Err(CallError::Lost(_))), "{answer:?}");
    // A version that is not ours, and nobody at all.
    let odd = async {
        let mut peer = Peer::over(listener.accept().await.unwrap().0);
        let hello = peer.frame().await;
        peer.send(RpcMode::Response, hello.id, 0, b"\x08\x02", &[])
            .await;
        peer.next().await
    };
    let calls = || join_all((0..10).map(|_| tunnel.cancel_query(QUERY)));
    let (answers, _) = tokio::join!(calls(), odd);
    for answer in answers {
        let error = answer.unwrap_err().to_string();
        assert!(
            error.contains("expected rpc version 3 of the control plane, found 2"),
            "{error}"
        );
    }
    drop(listener);
    for answer in calls().await {
        assert!(
            matches!(answer, Err(CallError::Connect(ConnectError::Io(_)))),
            "{answer:?}"
        );
    }
    assert!(node.control.peers().is_empty());
    node.stop().await;
}

/// A Drillbit that this node has connected to connects, too, because it does not find the connection that it has.
#[tokio::test]
async fn a_drillbit_may_have_two_connections_and_both_are_served() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = Node::start().await;
    let port = listener.local_addr().unwrap().port();
    let tunnel = node.control.tunnel(&local(port));
    let accepting = async {
        let mut peer = Peer::over(listener.accept().await.unwrap().0);
        let hello = peer.frame().await;
        peer.send(RpcMode::Response, hello.id, 0, b"\x08\x03", &[])
            .await;
        peer
    };
    let (connected, mut ours) = tokio::join!(tunnel.connection(), accepting);
    connected.unwrap();
    let mut theirs = node.peer(port).await;
    let directions: Vec<_> = tunnel.peer().unwrap().connections;
    let directions: Vec<_> = directions
        .into_iter()
        .map(|(direction, _)| direction)
        .collect();
    assert_eq!(directions.len(), 2);
    assert!(directions.contains(&Direction::Inbound) && directions.contains(&Direction::Outbound));
    for (id, peer) in [(7, &mut ours), (8, &mut theirs)] {
        peer.request::<calls::QueryCancel>(id, &QUERY.into()).await;
        let answer = peer.frame().await;
        assert_eq!((answer.mode, answer.id), (RpcMode::Response, id));
    }
    // Whichever of them ends, the other one is used.
    drop(ours);
    until("one is left", || {
        tunnel.peer().unwrap().connections.len() == 1
    })
    .await;
    let answering = async {
        let asked = theirs.frame().await;
        theirs.acknowledge(asked.id, true).await;
    };
    let (answer, ()) = tokio::join!(tunnel.cancel_query(QUERY), answering);
    assert!(answer.unwrap());
    drop((theirs, tunnel));
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_was_started_again_ends_the_connections_of_its_former_life() {
    let incarnation = |incarnation| ControlOptions {
        incarnation: Some(incarnation),
        ..ControlOptions::default()
    };
    let a = Node::start().await;
    // The same address twice, as if the first had died without a word.
    let (before, after) = (
        Node::at(4321, incarnation(1), Services::default()).await,
        Node::at(4321, incarnation(2), Services::default()).await,
    );
    before
        .control
        .tunnel(a.address())
        .cancel_query(QUERY)
        .await
        .unwrap();
    let old = a.control.tunnel(&local(4321)).connection().await.unwrap();
    after
        .control
        .tunnel(a.address())
        .cancel_query(QUERY)
        .await
        .unwrap();
    old.closed().await;
    let peer = a.control.tunnel(&local(4321)).peer().unwrap();
    assert_eq!(peer.capabilities.unwrap().incarnation, Some(2));
    assert_eq!(peer.connections.len(), 1);
    for node in [a, before, after] {
        node.stop().await;
    }
}

#[tokio::test]
async fn nodes_and_their_connections_are_bounded() {
    let options = ControlOptions {
        nodes_max: 2,
        connections_per_node_max: 3,
        ..ControlOptions::default()
    };
    let node = Node::with_options(options, Services::default()).await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(node.peer(5000).await);
    }
    let refused = |port| {
        let address = node.control.local_addr();
        async move {
            let mut peer = Peer::connect(address).await;
            let hello = protos::control::BitControlHandshake {
                rpc_version: Some(3),
                endpoint: Some(crate::support::endpoint(port)),
                ..Default::default()
            };
            peer.request::<calls::Handshake>(1, &hello).await;
            peer.next().await.is_none()
        }
    };
    assert!(refused(5000).await, "a fourth connection of one node");
    peers.push(node.peer(5001).await);
    assert!(refused(5002).await, "a third node");
    let error = node.control.tunnel(&local(5002)).cancel_query(QUERY).await;
    assert!(matches!(error, Err(CallError::Budget(_))), "{error:?}");
    peers.clear();
    until("the peers are forgotten", || {
        node.control.peers().is_empty()
    })
    .await;
    peers.push(node.peer(5002).await);
    peers.clear();
    node.stop().await;
}

#[tokio::test]
async fn a_call_without_an_answer_ends_at_its_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ControlOptions {
        call_timeout: Duration::from_millis(50),
        ..ControlOptions::default()
    };
    let node = Node::with_options(options, Services::default()).await;
    let port = listener.local_addr().unwrap().port();
    let silent = async {
        let mut peer = Peer::over(listener.accept().await.unwrap().0);
        let hello = peer.frame().await;
        peer.send(RpcMode::Response, hello.id, 0, b"\x08\x03", &[])
            .await;
        peer
    };
    let tunnel = node.control.tunnel(&local(port));
    let (answer, peer) = tokio::join!(tunnel.cancel_query(QUERY), silent);
    assert!(matches!(answer, Err(CallError::Timeout(_))), "{answer:?}");
    drop((peer, tunnel));
    node.stop().await;
}

/// `alice` with the password `wonder`, by SCRAM and PLAIN.
const ALICE: &str = "alice:SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==\
    $CaLYHywcJJwGkxn3DQdeS8kbSBx2ohTghe9FMhLvNfY=:XNzVXxVNZtfGAF9/RGkkhwfZgP2xupySxCQaLqOHPe4=";

fn secured(password: &str) -> ControlOptions {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, ALICE).unwrap();
    let users = Arc::new(Users::from_file(file.path()).unwrap());
    let authenticator = Authenticator::new(users, AuthOptions::default(), runtime()).unwrap();
    let (user, password) = ("alice".to_owned(), password.to_owned().into());
    ControlOptions {
        authenticator: Some(Arc::new(authenticator)),
        login: Some(Login::new(Credentials { user, password })),
        ..ControlOptions::default()
    }
}

#[tokio::test]
async fn nodes_with_users_let_in_those_who_prove_who_they_are_and_call_them_back() {
    // Connections live no longer than their runtime.
    let _bus = runtime();
    let services = Services::default;
    let (a, b) = (
        Node::with_options(secured("wonder"), services()).await,
        Node::with_options(secured("wonder"), services()).await,
    );
    let there = a.control.tunnel(b.address());
    assert!(!there.cancel_query(QUERY).await.unwrap());
    let back = b.control.tunnel(a.address());
    assert!(!back.cancel_query(QUERY).await.unwrap());
    assert_eq!(back.peer().unwrap().connections[0].0, Direction::Inbound);
    let stranger = Node::with_options(secured("wander"), services()).await;
    let nobody = Node::start().await;
    for node in [&stranger, &nobody] {
        let refused = node.control.tunnel(b.address()).cancel_query(QUERY).await;
        assert!(matches!(refused, Err(CallError::Connect(_))), "{refused:?}");
        assert!(b.control.tunnel(node.address()).peer().is_none());
    }
    // A Drillbit that has connected would drop the connection over a request: it is called on one of our own.
    let drill = ControlOptions {
        features: Features::default(),
        ..secured("wonder")
    };
    let drill = Node::with_options(drill, services()).await;
    drill
        .control
        .tunnel(b.address())
        .cancel_query(QUERY)
        .await
        .unwrap();
    let to_drill = b.control.tunnel(drill.address());
    assert!(!to_drill.cancel_query(QUERY).await.unwrap());
    let connections = to_drill.peer().unwrap().connections;
    assert_eq!(connections.len(), 2);
    assert_eq!(connections[0].0, Direction::Outbound);
    drop((there, back, to_drill, connections));
    for node in [a, b, stranger, nobody, drill] {
        node.stop().await;
    }
}
