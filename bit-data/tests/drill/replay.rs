//! Recorded conversations between real Drillbits: one side is played to ours, which must answer as recorded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use bit_data::drill::{BatchStream, Credit, DataTunnel, Input, Order, TunnelOptions};
use bit_data::{DataClient, DataTarget};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::join_all};
use prost::Message;
use protos::{
    data::FragmentRecordBatch,
    id::{FragmentId, MajorFragmentId, MinorFragmentId, QueryId},
    rpc::RpcMode,
};
use record_batch::EncodedBatch;
use rpc_bus::{RetryOptions, RetryPolicy};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::{
    peer::{Frame, Peer, encode},
    support::{Node, ledger, runtime, settled},
};

/// A frame of a recording.
struct Recorded {
    from_client: bool,
    mode: String,
    id: i32,
    rpc_type: i32,
    /// The whole frame, its protobuf body and its raw body; `None` where they were not kept.
    kept: Option<Kept>,
}

struct Kept {
    frame: Vec<u8>,
    pbody: Bytes,
    raw: Bytes,
}

impl Recorded {
    /// The batch that it holds.
    fn batch(&self) -> Option<(FragmentRecordBatch, &Kept)> {
        let kept = self.kept.as_ref()?;
        let is_batch = (self.mode.as_str(), self.rpc_type) == ("REQUEST", 3);
        is_batch.then(|| {
            (
                FragmentRecordBatch::decode(kept.pbody.clone()).unwrap(),
                kept,
            )
        })
    }
}

fn recordings() -> Vec<String> {
    let folder = golden().join("dist");
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names
        .filter_map(|name| {
            name.into_string()
                .unwrap()
                .strip_suffix(".jsonl")
                .map(str::to_owned)
        })
        .filter(|name| name.contains(".data"))
        .map(|name| format!("dist/{name}"))
        .collect();
    names.sort();
    assert!(names.len() >= 20, "{names:?}");
    names
}

fn golden() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

fn recording(name: &str) -> Vec<Recorded> {
    let text = fs::read_to_string(golden().join(format!("{name}.jsonl"))).unwrap();
    let lines = text.lines().skip(1);
    lines
        .map(|line| recorded(&serde_json::from_str(line).unwrap()))
        .collect()
}

fn recorded(line: &Value) -> Recorded {
    let number = |key: &str| i32::try_from(line[key].as_i64().unwrap()).unwrap();
    Recorded {
        from_client: line["dir"] == "C>S",
        mode: line["mode"].as_str().unwrap().to_owned(),
        id: number("coord"),
        rpc_type: number("type"),
        kept: line.get("trimmed").is_none().then(|| kept(line)),
    }
}

fn kept(line: &Value) -> Kept {
    let raw_len = line["raw_len"]
        .as_u64()
        .map_or(0, |len| usize::try_from(len).unwrap());
    let frame = if let Some(whole) = line.get("frame") {
        hex(whole)
    } else {
        let name = line["raw_bin"][0].as_str().unwrap();
        let file = golden().join("dist").join(name);
        let start = usize::try_from(line["raw_bin"][1].as_u64().unwrap()).unwrap();
        let raw = &fs::read(file).unwrap()[start..start + raw_len];
        [&hex(&line["frame_head"])[..], raw].concat()
    };
    let pbody = match line.get("pbody_at") {
        Some(at) => {
            let edge = |i: usize| usize::try_from(at[i].as_u64().unwrap()).unwrap();
            frame[edge(0)..edge(1)].to_vec()
        }
        None => hex(&line["pbody"]),
    };
    let raw = Bytes::copy_from_slice(&frame[frame.len() - raw_len..]);
    Kept {
        pbody: pbody.into(),
        raw,
        frame,
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

fn credit(frame: &Kept) -> i32 {
    protos::data::AckWithCredit::decode(frame.pbody.clone())
        .unwrap()
        .allowed_credit()
}

/// What a recording's batches say about who receives what: per receiver and sending stage, its senders.
type Inputs = BTreeMap<FragmentId, BTreeMap<MajorFragmentId, BTreeSet<MinorFragmentId>>>;

fn inputs(frames: &[Recorded]) -> Inputs {
    let mut inputs = Inputs::new();
    for (batch, _) in frames.iter().filter_map(Recorded::batch) {
        let query = QueryId::try_from(batch.query_id.unwrap()).unwrap();
        for &minor in &batch.receiving_minor_fragment_id {
            let to = FragmentId::new(query, batch.receiving_major_fragment_id.unwrap(), minor);
            let senders = inputs.entry(to).or_default();
            let senders = senders.entry(MajorFragmentId(batch.sending_major_fragment_id.unwrap()));
            senders
                .or_default()
                .insert(MinorFragmentId(batch.sending_minor_fragment_id.unwrap()));
        }
    }
    inputs
}

fn register(node: &Node, inputs: Inputs, credit: i32) -> Vec<BatchStream> {
    let credit = Credit::of_batches(u16::try_from(credit.max(0)).unwrap());
    let mut streams = Vec::new();
    for (receiver, stages) in inputs {
        let of_stage = |(sending_major, senders): (_, BTreeSet<_>)| Input {
            sending_major,
            senders: senders.into_iter().collect(),
            order: Order::AsTheyCome,
            credit,
        };
        let inputs = stages.into_iter().map(of_stage).collect();
        let registered = node.fragments.register(receiver, inputs, &node.ledger);
        streams.extend(registered.unwrap().into_iter().flatten());
    }
    streams
}

/// Reads what there is; rows in all.
async fn drain(mut stream: BatchStream) -> usize {
    let mut rows = 0;
    while let Some(Ok((_, batch))) = stream.next().await {
        rows += batch.num_rows();
    }
    rows
}

#[tokio::test]
async fn our_server_answers_every_recorded_sender_with_the_recorded_bytes() {
    for name in recordings() {
        let frames = recording(&name);
        let node = Node::start().await;
        let answers = frames
            .iter()
            .filter(|frame| !frame.from_client && frame.rpc_type == 6);
        let advice = answers
            .map(|frame| credit(frame.kept.as_ref().unwrap()))
            .max();
        let streams = register(&node, inputs(&frames), advice.unwrap_or(0));
        let reading = join_all(streams.into_iter().map(drain));
        let talking = play_client(&node, &name, &frames);
        let (rows, ()) = tokio::join!(reading, talking);
        let sent = frames.iter().filter_map(Recorded::batch).map(|(batch, _)| {
            let receivers = batch.receiving_minor_fragment_id.len();
            usize::try_from(batch.def.unwrap().record_count()).unwrap() * receivers
        });
        assert_eq!(
            rows.into_iter().sum::<usize>(),
            sent.sum::<usize>(),
            "{name}"
        );
        node.stop().await;
    }
}

/// Sends what the recorded client sent; every answer must be the recorded one.
async fn play_client(node: &Node, name: &str, frames: &[Recorded]) {
    let mut peer = Peer::connect(node.address()).await;
    let asked = frames.iter().filter(|frame| frame.from_client);
    let asked: Vec<_> = asked.filter_map(|frame| frame.kept.as_ref()).collect();
    let expected = |found: &Frame| {
        let is_it = |frame: &&Recorded| {
            !frame.from_client && frame.id == found.id && frame.rpc_type == found.rpc_type
        };
        let frame = frames
            .iter()
            .find(is_it)
            .and_then(|frame| frame.kept.as_ref());
        frame.unwrap_or_else(|| panic!("{name}: {found:?} was not recorded"))
    };
    // Nobody may send PING before the handshake is answered.
    let (hello, requests) = asked.split_first().unwrap();
    peer.send_bytes(&hello.frame).await;
    let found = peer.frame().await;
    assert_eq!(wire(&found), expected(&found).frame, "{name}");
    for request in requests {
        peer.send_bytes(&request.frame).await;
    }
    for _ in requests {
        let found = peer.frame().await;
        assert_eq!(wire(&found), expected(&found).frame, "{name}: {found:?}");
    }
}

#[tokio::test]
async fn our_tunnel_says_to_every_recorded_server_what_drill_has_said() {
    for name in recordings() {
        let frames = recording(&name);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ledger = ledger();
        let mut target = DataTarget::new(listener.local_addr().unwrap(), ledger.clone());
        // What is ours alone is left out, so that all bytes can be compared.
        target.options.capabilities = None;
        let policy = RetryPolicy::try_new(RetryOptions::default()).unwrap();
        let client = DataClient::try_new(target, runtime(), policy).unwrap();
        let accepted = async { Peer::over(listener.accept().await.unwrap().0) };
        let (connected, server) = tokio::join!(
            client.connection(),
            accepted.then(|server| shake_hands(server, &frames[..2]))
        );
        connected.unwrap();
        talk(&client, server, &frames[2..], &name).await;
        drop(client);
        settled(&ledger).await;
    }
}

async fn shake_hands(mut server: Peer, frames: &[Recorded]) -> Peer {
    let [hello, welcome] = frames else {
        panic!("a handshake has two frames")
    };
    assert_eq!(
        wire(&server.frame().await),
        hello.kept.as_ref().unwrap().frame
    );
    server
        .send_bytes(&welcome.kept.as_ref().unwrap().frame)
        .await;
    server
}

/// Each batch of the recorded client is sent by ours, each sender over a tunnel of its own; each must be on the wire as
/// it was recorded, but for its number: threads of Drill take numbers in one order and write in another. The recorded
/// server answers when it did.
async fn talk(client: &DataClient, mut server: Peer, frames: &[Recorded], name: &str) {
    let (mut tunnels, mut ids) = (BTreeMap::new(), BTreeMap::new());
    let is_beat = |frame: &&Recorded| frame.mode == "PING" || frame.mode == "PONG";
    for frame in frames.iter().filter(|frame| !is_beat(frame)) {
        if !frame.from_client {
            let pbody = &frame.kept.as_ref().unwrap().pbody;
            let id = ids[&frame.id];
            server
                .send(RpcMode::Response, id, frame.rpc_type, pbody, &[])
                .await;
            continue;
        }
        // In place of a batch that was not kept goes one without rows.
        let (batch, body) = match frame.batch() {
            Some((batch, kept)) => (batch, kept.raw.clone()),
            None => (placeholder(frame.id), Bytes::new()),
        };
        let (sender, major) = ends(&batch);
        let tunnel = tunnels.entry((sender, major)).or_insert_with(|| {
            let options = TunnelOptions::default();
            DataTunnel::new(client.clone(), runtime(), sender, major, options)
        });
        send(tunnel, batch, body).await;
        let found = server.frame().await;
        ids.insert(frame.id, found.id);
        if let Some(kept) = &frame.kept {
            let numbered = Frame {
                id: frame.id,
                ..found
            };
            assert_eq!(wire(&numbered), kept.frame, "{name}: {numbered:?}");
        }
    }
    for tunnel in tunnels.values_mut() {
        tunnel.flush().await.unwrap();
    }
}

async fn send(tunnel: &mut DataTunnel, batch: FragmentRecordBatch, body: Bytes) {
    let to = batch.receiving_minor_fragment_id.iter().copied();
    let to: Vec<_> = to.map(MinorFragmentId).collect();
    let encoded = EncodedBatch {
        def: batch.def.unwrap(),
        dbody: if body.is_empty() { vec![] } else { vec![body] },
    };
    match batch.is_last_batch {
        Some(true) => tunnel.send_last_encoded(encoded, &to).await.unwrap(),
        _ => tunnel.send_encoded(encoded, &to).await.unwrap(),
    }
}

/// From a sender of its own, so that it has a window of its own.
fn placeholder(sender: i32) -> FragmentRecordBatch {
    FragmentRecordBatch {
        query_id: Some(QueryId::default().into()),
        receiving_major_fragment_id: Some(0),
        receiving_minor_fragment_id: vec![0],
        sending_major_fragment_id: Some(0),
        sending_minor_fragment_id: Some(sender),
        def: Some(protos::shared::RecordBatchDef::default()),
        is_last_batch: Some(false),
        stream: None,
    }
}

fn ends(batch: &FragmentRecordBatch) -> (FragmentId, MajorFragmentId) {
    let query = QueryId::try_from(batch.query_id.unwrap()).unwrap();
    let (major, minor) = (
        batch.sending_major_fragment_id.unwrap(),
        batch.sending_minor_fragment_id.unwrap(),
    );
    let receiving = batch.receiving_major_fragment_id.unwrap();
    (
        FragmentId::new(query, major, minor),
        MajorFragmentId(receiving),
    )
}

/// golden/raw: a version and a channel that Drill does not take are closed without a word, others are let in.
#[tokio::test]
async fn our_server_treats_odd_handshakes_as_recorded() {
    let node = Node::start().await;
    for n in 1..=5 {
        let name = format!("raw/raw_control.data{n}");
        let frames = recording(&name);
        let mut peer = Peer::connect(node.address()).await;
        // Drill drops what it does not expect; ours waits for it to be expected, and drops once it is not any more.
        for (receiver, _) in inputs(&frames) {
            node.fragments.cancel(receiver);
        }
        for frame in &frames {
            let kept = frame.kept.as_ref().unwrap();
            if frame.from_client {
                peer.send_bytes(&kept.frame).await;
            } else {
                assert_eq!(wire(&peer.frame().await), kept.frame, "{name}");
            }
        }
        if frames.len() == 1 {
            assert!(peer.next().await.is_none(), "{name}");
        }
    }
    node.stop().await;
}
