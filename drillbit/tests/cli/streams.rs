//! Nodes that take part in the transfer of batches over streams, as they are watched: metrics, status, HTTP API.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use bit_control::heartbeat::BeatOptions;
use bit_data::{
    OpenError, Origin, ReceiveError, ReceiveOptions, SendError, SendOptions, StreamAddress,
    StreamReceiver, StreamSender,
};
use drillbit::node::{ClusterOptions, DataOptions, HttpOptions, Node, NodeOptions};
use futures::{SinkExt, TryStreamExt};
use protos::id::QueryId;
use serde_json::Value;

use crate::{
    http::{Metrics, ask_at},
    program::{ALL_PORTS, Served, run, signal},
};

const BATCHES: usize = 8;
const ROWS_OF_BATCH: i64 = 16 << 10;

fn node() -> Node {
    Node::start(&options()).unwrap()
}

fn options() -> NodeOptions {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let data = bit_data::NodeOptions::default();
    NodeOptions {
        user_addr: any,
        data: Some(DataOptions {
            addr: any,
            server: data.server,
            connection: data.connection,
            bytes_max: None,
            fragments: data.fragments,
        }),
        http: Some(HttpOptions::new(any)),
        ..NodeOptions::default()
    }
}

fn stream(minor: i32) -> StreamAddress {
    StreamAddress::new(QueryId { part1: 1, part2: 2 }, (1, minor), (0, 0))
}

/// Of 128 KiB.
fn batch() -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS_OF_BATCH));
    RecordBatch::try_from_iter([("n", numbers)]).unwrap()
}

fn sender(node: &Node, minor: i32) -> StreamSender {
    let sender =
        node.data()
            .unwrap()
            .sender(stream(minor), &batch().schema(), SendOptions::default());
    sender.unwrap()
}

async fn send(mut sender: StreamSender) -> Result<(), SendError> {
    for _ in 0..BATCHES {
        sender.feed(batch()).await?;
    }
    sender.close().await
}

/// With the least window, so that the sender waits again and again.
async fn receiver(node: &Node, from: Origin, minor: i32) -> StreamReceiver {
    let options = ReceiveOptions {
        window_bytes: 64 << 10,
        window_bytes_max: 64 << 10,
        ..ReceiveOptions::default()
    };
    let receiver = node.data().unwrap().receiver(from, stream(minor), &options);
    receiver.await.unwrap()
}

/// All rows come.
async fn take_all(receiver: StreamReceiver) -> Result<(), ReceiveError> {
    let batches: Vec<RecordBatch> = receiver.try_collect().await?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, BATCHES * batch().num_rows());
    Ok(())
}

fn scrape(node: &Node) -> Metrics {
    Metrics::scrape_at(&node.http_addr().unwrap().to_string())
}

fn json(node: &Node, path: &str) -> Value {
    let address = node.http_addr().unwrap().to_string();
    let answer = ask_at(&address, &address, ("GET", path), "");
    serde_json::from_str(&answer.body).unwrap()
}

/// The open stream of a node, once it is as wanted.
fn open_stream(node: &Node, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let streams = json(node, "/api/v1/streams");
        if is_so(&streams[0]) {
            return streams[0].clone();
        }
        assert!(Instant::now() < deadline, "{streams}");
    }
}

/// Whether the sample is more than 0, of all peers and of this one.
fn is_counted(metrics: &Metrics, name: &str, peer: &str, more: &str) -> bool {
    let (all, labels) = match more {
        "" => (String::new(), format!("{{peer=\"{peer}\"}}")),
        more => (format!("{{{more}}}"), format!("{{peer=\"{peer}\",{more}}}")),
    };
    let all = metrics.samples[&format!("drillbit_stream_{name}{all}")];
    let of_peer = metrics.samples[&format!("drillbit_tunnel_{name}{labels}")];
    assert!(all >= of_peer, "{name}: {all} of all, {of_peer} of {peer}");
    of_peer > 0.0
}

/// What was counted does not shrink, and no sample goes.
fn assert_grown(before: &Metrics, after: &Metrics) {
    let streams = before.samples.iter().filter(|(name, _)| {
        before.is_counter(name)
            && (name.starts_with("drillbit_stream") || name.starts_with("drillbit_tunnel"))
    });
    let mut counted = 0;
    for (name, value) in streams {
        assert!(after.samples[name] >= *value, "{name}");
        counted += 1;
    }
    assert!(counted > 20, "{counted} counters");
}

#[test]
fn a_transfer_over_streams_is_counted_by_peer_and_in_all_and_shown_while_it_goes_on() {
    let (there, here) = (node(), node());
    let (sent_to, came_from) = (
        here.data_addr().unwrap().to_string(),
        there.data_addr().unwrap(),
    );
    let app = here.bus().app().clone();
    let sending = there.bus().app().spawn(send(sender(&there, 7)));
    let receiver = app.block_on(receiver(&here, Origin::Node(came_from), 7));

    expect_shown(&there, &here, &sent_to);
    let came_from = came_from.to_string();
    let (there_open, here_open) = (scrape(&there), scrape(&here));
    assert!(is_counted(&there_open, "senders_waiting", &sent_to, ""));
    for name in ["window_bytes", "waiting_bytes", "peak_waiting_bytes"] {
        assert!(is_counted(&here_open, name, &came_from, ""), "{name}");
    }

    app.block_on(take_all(receiver)).unwrap();
    app.block_on(sending).unwrap().unwrap();
    let (there_after, here_after) = (scrape(&there), scrape(&here));
    assert_grown(&there_open, &there_after);
    assert_grown(&here_open, &here_after);
    expect_counted((&there_after, &sent_to), (&here_after, &came_from));
    there.shutdown(Duration::from_secs(10));
    here.shutdown(Duration::from_secs(10));
}

/// The stream waits for its consumer, and both nodes show it.
fn expect_shown(there: &Node, here: &Node, sent_to: &str) {
    let sender = &open_stream(there, |stream| stream["waits_for"] == "credit");
    let receiver_end = &open_stream(here, |stream| stream["waiting_bytes"].as_u64() > Some(0));
    for end in [sender, receiver_end] {
        assert_eq!(
            (&end["sender"], &end["receiver"]),
            (&"1:7".into(), &"0:0".into())
        );
    }
    assert_eq!(
        (&sender["end"], &sender["credit_bytes"]),
        (&"sender".into(), &0.into())
    );
    assert_eq!(sender["peer"], sent_to);
    assert_eq!(receiver_end["window_bytes"], 64 << 10);
    let tunnel = &json(there, "/api/v1/tunnels")[0];
    assert_eq!(
        (&tunnel["streams"], &tunnel["waiting_senders"]),
        (&1.into(), &1.into())
    );
    let shown = run(&["status", "--connect", &there.user_addr().to_string()]).well();
    for expected in ["STALLED", "WAITS FOR", " 1:7 -> 0:0  ", "sender  credit  "] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
}

/// The stream has ended: what each node has counted of it, by its peer.
fn expect_counted((there, sent_to): (&Metrics, &str), (here, came_from): (&Metrics, &str)) {
    for name in [
        "uncompressed_bytes_total",
        "serialize_seconds_total",
        "wait_response_seconds_total",
        "credit_wait_seconds_total",
        "send_request_seconds_total",
    ] {
        assert!(is_counted(there, name, sent_to, ""), "{name}");
    }
    for name in [
        "deserialize_seconds_total",
        "receiver_process_seconds_total",
        "peak_waiting_bytes",
    ] {
        assert!(is_counted(here, name, came_from, ""), "{name}");
    }
    for name in ["batches_total", "bytes_total"] {
        let (sent, received) = ("direction=\"sent\"", "direction=\"received\"");
        assert!(is_counted(there, name, sent_to, sent));
        assert!(is_counted(here, name, came_from, received));
    }
    let gone = [
        "senders_waiting",
        "window_bytes",
        "credit_bytes",
        "waiting_bytes",
    ];
    for name in gone {
        assert!(!is_counted(there, name, sent_to, ""), "{name}");
        assert!(!is_counted(here, name, came_from, ""), "{name}");
    }
}

#[test]
fn what_is_handed_over_within_a_process_is_counted_as_such() {
    let node = node();
    let app = node.bus().app().clone();
    let sending = app.spawn(send(sender(&node, 1)));
    let receiver = app.block_on(receiver(&node, Origin::Here, 1));
    app.block_on(take_all(receiver)).unwrap();
    app.block_on(sending).unwrap().unwrap();
    let metrics = scrape(&node);
    assert!(is_counted(
        &metrics,
        "pass_through_bytes_total",
        "this node",
        ""
    ));
    assert!(!is_counted(
        &metrics,
        "bytes_total",
        "this node",
        "direction=\"sent\""
    ));
    node.shutdown(Duration::from_secs(10));
}

/// Waits for the only other node in `nodes` to be up; its incarnation.
fn incarnation_of_other(node: &Node) -> u64 {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let nodes = json(node, "/api/v1/nodes");
        if nodes[1]["health"] == "up" {
            let incarnation = nodes[1]["incarnation"].as_str().unwrap();
            return u64::from_str_radix(incarnation, 16).unwrap();
        }
        assert!(Instant::now() < deadline, "{nodes}");
    }
}

#[test]
fn streams_with_a_node_that_is_down_end_before_their_own_time_is_over() {
    let there = Served::start_with(&ALL_PORTS);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let cluster = ClusterOptions {
        peers: vec![there.control.as_deref().unwrap().parse().unwrap()],
        beats: BeatOptions {
            interval: Duration::from_millis(100),
            ..BeatOptions::default()
        },
        ..ClusterOptions::new(any)
    };
    let mut options = options();
    options.cluster = Some(cluster);
    if let Some(data) = &mut options.data {
        // Nor would the data plane find out by itself.
        data.connection.beats = None;
    }
    let here = Node::start(&options).unwrap();
    let from = Origin::Incarnation {
        address: there.data.as_deref().unwrap().parse().unwrap(),
        incarnation: incarnation_of_other(&here),
    };
    let app = here.bus().app().clone();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            // Without the beats it would be this that ends it.
            let patient = ReceiveOptions {
                open_timeout: Duration::from_hours(1),
                ..ReceiveOptions::default()
            };
            app.block_on(here.data().unwrap().receiver(from, stream(1), &patient))
        });
        there.wait_for("its receiver waits there for a sender", || {
            let metrics = Metrics::scrape(&there);
            let asked = "{plane=\"data\",rpc=\"OPEN_STREAM\",direction=\"received\"}";
            (metrics.value(&format!("drillbit_requests_in_flight{asked}")) > 0.0).then_some(())
        });
        signal(there.pid(), "STOP");
        let ended = opening.join().unwrap().unwrap_err();
        let Origin::Incarnation { incarnation, .. } = from else {
            unreachable!()
        };
        assert!(
            matches!(&ended, OpenError::NodeDown(down) if down.incarnation == incarnation),
            "{ended}"
        );
    });
    signal(there.pid(), "CONT");
    incarnation_of_other(&here);
    here.shutdown(Duration::from_secs(10));
    there.end("TERM").well();
}
