//! Recorded conversations between real Drillbits: one side is played to ours, which must say what was recorded.

use std::{fs, path::Path, sync::Arc};

use bit_control::{ControlOptions, ControlTunnel, FragmentService, ReplyTo, Services};
use bytes::Bytes;
use membership::NodeAddress;
use prost::Message;
use protos::{
    Call,
    bit::FragmentHandle,
    calls::control as calls,
    control::{FinishedReceiver, FragmentStatus, InitializeFragments},
    coord::DrillbitEndpoint,
    id::{FragmentId, QueryId},
    rpc::RpcMode,
    shared,
};
use rpc_bus::Features;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::{
    peer::{Frame, Peer, encode},
    support::Node,
};

/// A frame of a recording, whole.
struct Recorded {
    from_client: bool,
    mode: String,
    id: i32,
    rpc_type: i32,
    frame: Vec<u8>,
    pbody: Bytes,
}

impl Recorded {
    fn is_request(&self) -> bool {
        self.mode == "REQUEST"
    }
}

/// All recordings of the control plane in a folder, by name.
fn recordings(folder: &str) -> Vec<(String, Vec<Recorded>)> {
    let directory = golden().join(folder);
    let names = fs::read_dir(directory).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names
        .filter(|name| name.contains(".control"))
        .map(|name| format!("{folder}/{name}"))
        .collect();
    names.sort();
    assert!(names.len() >= 13, "{names:?}");
    let recorded = |name: String| {
        let frames = recording(&name);
        (name, frames)
    };
    names.into_iter().map(recorded).collect()
}

fn golden() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

fn recording(name: &str) -> Vec<Recorded> {
    let text = fs::read_to_string(golden().join(name)).unwrap();
    let lines = text.lines().skip(1);
    lines
        .map(|line| recorded(&serde_json::from_str(line).unwrap()))
        .collect()
}

fn recorded(line: &Value) -> Recorded {
    let number = |key: &str| i32::try_from(line[key].as_i64().unwrap()).unwrap();
    let frame = hex(&line["frame"]);
    let pbody = match line.get("pbody_at") {
        Some(at) => {
            let edge = |i: usize| usize::try_from(at[i].as_u64().unwrap()).unwrap();
            frame[edge(0)..edge(1)].to_vec()
        }
        None => hex(&line["pbody"]),
    };
    Recorded {
        from_client: line["dir"] == "C>S",
        mode: line["mode"].as_str().unwrap().to_owned(),
        id: number("coord"),
        rpc_type: number("type"),
        frame,
        pbody: pbody.into(),
    }
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// A frame as its peer has put it on the wire.
fn wire(frame: &Frame) -> Vec<u8> {
    encode(
        frame.mode,
        frame.id,
        frame.rpc_type,
        &frame.pbody,
        &frame.raw,
    )
}

/// Runs whatever it is told to, as a Drillbit does.
struct RunsAll;

impl FragmentService for RunsAll {
    fn initialize(
        &self,
        _: &NodeAddress,
        _: InitializeFragments,
        reply: ReplyTo<calls::InitializeFragments>,
    ) {
        reply.acknowledge(true);
    }
}

fn services() -> Services {
    Services {
        fragments: Arc::new(RunsAll),
        ..Services::default()
    }
}

/// What the recorded side that connected has said is said to ours; every answer must be the recorded one. Answers have
/// no order among each other.
#[tokio::test]
async fn our_server_answers_every_recorded_drillbit_with_the_recorded_bytes() {
    for (name, frames) in recordings("dist") {
        let node = Node::with(services()).await;
        let mut peer = Peer::connect(node.control.local_addr()).await;
        let mut asked = frames.iter().filter(|frame| frame.from_client);
        // Nobody may send PING before the handshake is answered.
        peer.send_bytes(&asked.next().unwrap().frame).await;
        let mut found = vec![wire(&peer.frame().await)];
        let asked: Vec<_> = asked.collect();
        for request in &asked {
            peer.send_bytes(&request.frame).await;
        }
        for _ in &asked {
            found.push(wire(&peer.frame().await));
        }
        let answers = frames.iter().filter(|frame| !frame.from_client);
        let mut expected: Vec<_> = answers.map(|frame| frame.frame.clone()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{name}");
        drop(peer);
        node.stop().await;
    }
}

/// What the recorded side that connected has asked is asked by ours, with the same bytes; the recorded answers come.
#[tokio::test]
async fn our_tunnel_asks_every_recorded_drillbit_what_drill_has_asked() {
    for (name, frames) in recordings("dist") {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = NodeAddress::new("127.0.0.1", listener.local_addr().unwrap().port()).unwrap();
        let node = Node::as_recorded(&frames[0]).await;
        let tunnel = node.control.tunnel(&server);
        let accepted = async { Peer::over(listener.accept().await.unwrap().0) };
        let shaking = async {
            let mut peer = accepted.await;
            assert_eq!(wire(&peer.frame().await), frames[0].frame, "{name}");
            peer.send_bytes(&frames[1].frame).await;
            peer
        };
        let (connected, mut peer) = tokio::join!(tunnel.connection(), shaking);
        assert_eq!(connected.unwrap().peer_capabilities(), None);
        // Threads of Drill take numbers in one order and write in another, so ours are asked by number.
        let mut requests: Vec<_> = frames[2..]
            .iter()
            .filter(|frame| frame.from_client && frame.is_request())
            .collect();
        requests.sort_by_key(|frame| frame.id);
        for request in requests {
            let answering = answer(&mut peer, request, &frames, &name);
            let ((), ()) = tokio::join!(ask(&tunnel, request), answering);
        }
        drop((tunnel, peer));
        node.stop().await;
    }
}

/// Takes the request of ours, which must be the recorded one, and answers as recorded.
async fn answer(peer: &mut Peer, request: &Recorded, frames: &[Recorded], name: &str) {
    let found = peer.frame().await;
    assert_eq!(wire(&found), request.frame, "{name}: {found:?}");
    let is_answer = |frame: &&Recorded| !frame.from_client && frame.id == request.id;
    let answer = frames.iter().find(is_answer).unwrap();
    peer.send_bytes(&answer.frame).await;
}

/// Asks what was recorded by the typed call for it.
async fn ask(tunnel: &ControlTunnel, request: &Recorded) {
    let pbody = request.pbody.clone();
    match request.rpc_type {
        calls::InitializeFragments::REQUEST => {
            let message = InitializeFragments::decode(pbody).unwrap();
            tunnel.initialize_fragments(message).await.unwrap();
        }
        calls::CancelFragment::REQUEST => {
            let handle = FragmentHandle::decode(pbody).unwrap();
            tunnel.cancel_fragment(id(handle)).await.unwrap();
        }
        calls::ReceiverFinished::REQUEST => {
            let message = FinishedReceiver::decode(pbody).unwrap();
            let (receiver, sender) = (id(message.receiver.unwrap()), id(message.sender.unwrap()));
            tunnel.receiver_finished(receiver, sender).await.unwrap();
        }
        calls::FragmentStatus::REQUEST => {
            let message = FragmentStatus::decode(pbody).unwrap();
            let (fragment, profile) = (id(message.handle.unwrap()), message.profile.unwrap());
            tunnel.fragment_status(fragment, profile).await.unwrap();
        }
        other => panic!("rpc type {other} was not recorded before"),
    }
}

fn id(handle: FragmentHandle) -> FragmentId {
    let query: shared::QueryId = handle.query_id.unwrap();
    FragmentId::new(
        QueryId::try_from(query).unwrap(),
        handle.major_fragment_id.unwrap(),
        handle.minor_fragment_id.unwrap(),
    )
}

/// What ours answers where a Drillbit has ended the connection: a failure by name.
const REFUSED_HERE: [(&str, &str); 2] = [
    (
        "raw/raw_control.control6.jsonl",
        "the query 00000000-0000-0001-0000-000000000002 is not run here",
    ),
    ("raw/raw_control.control14.jsonl", "unknown rpc type 99"),
];

#[tokio::test]
async fn our_server_treats_odd_peers_as_recorded() {
    for (name, frames) in recordings("raw") {
        let node = Node::with(services()).await;
        let mut peer = Peer::connect(node.control.local_addr()).await;
        for frame in &frames {
            match frame.mode.as_str() {
                _ if frame.from_client => peer.send_bytes(&frame.frame).await,
                // Its text and its stack trace are the Drillbit's own.
                "RESPONSE_FAILURE" => {
                    let found = peer.frame().await;
                    let said = (found.mode, found.id, found.rpc_type);
                    assert_eq!(said, (RpcMode::ResponseFailure, frame.id, frame.rpc_type));
                }
                _ => assert_eq!(wire(&peer.frame().await), frame.frame, "{name}"),
            }
        }
        let refused = REFUSED_HERE.iter().find(|(refused, _)| *refused == name);
        if let Some((_, message)) = refused {
            let found = peer.frame().await;
            assert_eq!(found.mode, RpcMode::ResponseFailure, "{name}");
            let error = found.message::<shared::DrillPbError>();
            assert_eq!(error.message(), *message, "{name}");
        } else if frames.len() == 1 {
            assert!(peer.next().await.is_none(), "{name}");
        }
        drop(peer);
        node.stop().await;
    }
}

impl Node {
    /// A node that says of itself what was recorded, and nothing that is ours alone, so that all bytes can be compared.
    async fn as_recorded(hello: &Recorded) -> Self {
        let said = protos::control::BitControlHandshake::decode(hello.pbody.clone()).unwrap();
        let said: DrillbitEndpoint = said.endpoint.unwrap();
        let plain = ControlOptions {
            features: Features::default(),
            ..ControlOptions::default()
        };
        Self::known_as(said, plain, Services::default()).await
    }
}
