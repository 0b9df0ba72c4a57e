//! Wrong versions of the protocol, both ways.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use prost::Message;
use protos::rpc::RpcMode;
use protos::user::{BitToUserHandshake, HandshakeStatus, UserToBitHandshake};
use tests::interop::real_drillbit;
use tests::peer::{self, Peer, frame, request};

use crate::nodes::{Connected, node};

/// What a server answers to a handshake of `version`; it must close after that.
fn answer_to(server: SocketAddr, version: Option<i32>) -> BitToUserHandshake {
    let hello = UserToBitHandshake {
        rpc_version: version,
        ..peer::hello(0)
    };
    let mut peer = Peer::connect(server).unwrap();
    peer.send(&request(1, 0, &hello.encode_to_vec())).unwrap();
    let answer = peer.frame().unwrap().expect("an answer");
    assert_eq!(
        (answer.mode, answer.coordination_id),
        (RpcMode::Response as i32, 1)
    );
    peer.closed_within(Duration::from_secs(5)).unwrap();
    BitToUserHandshake::decode(answer.pbody).unwrap()
}

#[test]
fn our_node_refuses_other_versions_in_the_words_of_a_real_drill() {
    let Some(drill) = real_drillbit() else { return };
    for version in [Some(4), Some(6), Some(0), None] {
        let (theirs, ours) = (
            answer_to(drill.user(), version),
            answer_to(node().user(), version),
        );
        assert_eq!(ours.status(), HandshakeStatus::RpcVersionMismatch);
        assert_eq!(ours.status(), theirs.status());
        assert_eq!(ours.rpc_version, theirs.rpc_version);
        assert_eq!(ours.error_message, theirs.error_message);
        assert_eq!(ours.error_id().len(), theirs.error_id().len());
    }
}

#[tokio::test]
async fn our_client_reports_a_server_that_refuses_its_version() {
    let refusal = BitToUserHandshake {
        rpc_version: Some(6),
        status: Some(HandshakeStatus::RpcVersionMismatch as i32),
        error_id: Some("2f9f5c5a-7b8e-4f0e-9a43-1d2f1d8f4f11".to_owned()),
        error_message: Some("Invalid rpc version. Expected 6, actual 5.".to_owned()),
        ..Default::default()
    };
    let server = answering(refusal);
    let Err(error) = Connected::with(server, |options| options).await else {
        panic!("connected")
    };
    assert!(!error.is_retryable(), "{error}");
    assert!(
        error.to_string().contains("Expected 6, actual 5"),
        "{error}"
    );
}

/// A server that gives one client `answer`, whatever it says, and closes.
fn answering(answer: BitToUserHandshake) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut peer = Peer::over(listener.accept().unwrap().0).unwrap();
        let hello = peer.frame().unwrap().expect("a handshake");
        let id = hello.coordination_id;
        peer.send(&frame(
            RpcMode::Response,
            id,
            0,
            &answer.encode_to_vec(),
            &[],
        ))
        .unwrap();
    });
    address
}
