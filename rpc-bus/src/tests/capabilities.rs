//! What both sides agree on in the handshake, and what a peer sees that agreed on nothing.

use std::{sync::Arc, time::Duration};

use prost::Message;
use protos::{
    bus::HandshakeExtension,
    error::{ErrorType, Retry},
};

use super::pair::{HELLO, Pair, outcome};
use crate::{
    capabilities::{Capabilities, Features},
    error::{CallError, RpcFailure},
    options::ConnectionOptions,
};

fn offering(capabilities: Option<Capabilities>) -> ConnectionOptions {
    ConnectionOptions {
        capabilities: capabilities.map(Arc::new),
        ..ConnectionOptions::bit()
    }
}

fn ours(software: &str) -> Capabilities {
    Capabilities::of_software(software)
}

/// How a call fails that the server asks to repeat.
fn failure(pair: &mut Pair) -> RpcFailure {
    let mut call = pair.call("x");
    pair.drive();
    let (ticket, ..) = pair.server.requests.pop_front().unwrap();
    let busy = RpcFailure::new(ErrorType::Resource, "busy")
        .with_retry(Retry::SameNode)
        .with_retry_after(Duration::from_millis(40));
    pair.server.connection.fail(&ticket, &busy, pair.now);
    pair.drive();
    match outcome(&mut call) {
        Err(CallError::Remote(failure)) => *failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_sides_know_each_other_after_the_handshake() {
    let mut pair = Pair::open_with(offering(Some(ours("1.0"))), offering(Some(ours("2.0"))));
    let software = |end: &super::pair::End| {
        let agreed = end.connection.agreed().unwrap();
        (agreed.software_version.clone(), agreed.features)
    };
    assert_eq!(
        software(&pair.client),
        ("2.0".to_owned(), Features::of_any_plane())
    );
    assert_eq!(
        software(&pair.server),
        ("1.0".to_owned(), Features::of_any_plane())
    );
    let failure = failure(&mut pair);
    assert_eq!(failure.retry(), Retry::SameNode);
    assert_eq!(failure.error.retry_after(), Some(Duration::from_millis(40)));
}

#[test]
fn a_peer_that_offers_nothing_sees_no_extension() {
    for client in [offering(None), offering(Some(Capabilities::default()))] {
        let has_offered = client.capabilities.is_some();
        let mut pair = Pair::open_with(client, offering(Some(ours("2.0"))));
        let reply = outcome(&mut pair.hello).unwrap();
        let block = HandshakeExtension::decode(reply).unwrap().capabilities;
        assert_eq!(block.is_some(), has_offered);
        assert_eq!(failure(&mut pair).error.advice, None);
    }
}

#[test]
fn a_server_without_capabilities_leaves_the_handshake_alone() {
    let mut pair = Pair::open_with(offering(Some(ours("1.0"))), offering(None));
    assert!(outcome(&mut pair.hello).unwrap().is_empty());
    assert!(pair.client.connection.agreed().is_none() && pair.server.connection.agreed().is_none());
    // Drill's own fields come first, as they were.
    assert!(pair.server.hellos[0].starts_with(&HELLO));
    assert_eq!(failure(&mut pair).retry(), Retry::Never);
}
