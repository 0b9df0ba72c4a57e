//! A peer by hand sends, our server receives.

use bit_data::drill::{Order, ReceiveError, RegisterError};
use futures::StreamExt;
use prost::Message;
use protos::{
    Call,
    calls::data::{Handshake, OpenStream, RuntimeFilter},
    data::{AckWithCredit, BitClientHandshake, RuntimeFilterBDef},
    rpc::RpcMode,
    shared::DrillPbError,
};

use crate::{
    peer::Peer,
    support::{
        Node, QUERY, RECEIVING, SENDING, answer, answers_so_far, input, last, next, receiver,
        request, send, sender, until,
    },
};

fn failure(frame: &crate::peer::Frame) -> DrillPbError {
    assert_eq!(frame.mode, RpcMode::ResponseFailure, "{frame:?}");
    frame.message()
}

// wire: golden/raw/raw_control.data2, raw_control.data3
#[tokio::test]
async fn other_versions_and_channels_are_let_go_without_a_word() {
    let node = Node::start().await;
    for (version, channel) in [(3, 1), (5, 1), (4, 0), (4, 2)] {
        let mut peer = Peer::connect(node.address()).await;
        let hello = BitClientHandshake {
            rpc_version: Some(version),
            channel: Some(channel),
            capabilities: None,
        };
        peer.request::<Handshake>(1, &hello).await;
        assert!(peer.next().await.is_none(), "{version} {channel}");
    }
    node.stop().await;
}

#[tokio::test]
async fn batches_come_in_the_order_in_which_they_were_sent_and_end_with_the_last() {
    let node = Node::start().await;
    let mut stream = node.receive(receiver(0), &[0]);
    let mut peer = node.peer().await;
    for id in 2..22 {
        send(&mut peer, id, request(0, &[0], id.into())).await;
    }
    send(&mut peer, 22, last(0, &[0])).await;
    for value in 2..22 {
        assert_eq!(next(&mut stream).await, (0, vec![value]));
    }
    assert!(stream.next().await.is_none());
    let mut answers = Vec::new();
    for _ in 2..=22 {
        answers.push(answer(&mut peer).await);
    }
    let expected: Vec<_> = (2..=22).map(|id| (id, 0)).collect();
    assert_eq!(answers, expected);
    drop(stream);
    assert!(node.events.finished.lock().unwrap().is_empty());
    node.stop().await;
}

#[tokio::test]
async fn the_seventh_batch_of_a_sender_is_answered_when_it_is_read() {
    let node = Node::start().await;
    let mut stream = node.receive(receiver(0), &[0]);
    let mut peer = node.peer().await;
    for id in 2..10 {
        send(&mut peer, id, request(0, &[0], id.into())).await;
    }
    let early = answers_so_far(&mut peer, 100).await;
    assert_eq!(early, (2..8).map(|id| (id, 0)).collect());
    for value in 2..9 {
        assert_eq!(next(&mut stream).await, (0, vec![value]));
    }
    assert_eq!(answer(&mut peer).await, (8, 0));
    assert_eq!(next(&mut stream).await, (0, vec![9]));
    assert_eq!(answer(&mut peer).await, (9, 0));
    drop(stream);
    node.stop().await;
}

#[tokio::test]
async fn a_batch_for_several_is_answered_once_when_the_last_of_them_has_it() {
    let node = Node::start().await;
    let mut streams = [0, 5].map(|minor| node.receive(receiver(minor), &[0]));
    let mut peer = node.peer().await;
    for id in 2..9 {
        send(&mut peer, id, request(0, &[0, 5], id.into())).await;
    }
    assert_eq!(answers_so_far(&mut peer, 100).await.len(), 6);
    for value in 2..9 {
        assert_eq!(next(&mut streams[0]).await, (0, vec![value]));
    }
    assert!(answers_so_far(&mut peer, 101).await.is_empty());
    for value in 2..9 {
        assert_eq!(next(&mut streams[1]).await, (0, vec![value]));
    }
    assert_eq!(answer(&mut peer).await, (8, 0));
    drop(streams);
    node.stop().await;
}

#[tokio::test]
async fn an_ordered_input_has_a_stream_for_each_sender() {
    let node = Node::start().await;
    let ordered = vec![input(&[4, 2], Order::PerSender)];
    let streams = node.fragments.register(receiver(0), ordered, &node.ledger);
    let [mut second, mut fourth] = <[_; 2]>::try_from(streams.unwrap().remove(0)).unwrap();
    let mut peer = node.peer().await;
    send(&mut peer, 2, request(4, &[0], 40)).await;
    send(&mut peer, 3, request(2, &[0], 20)).await;
    send(&mut peer, 4, last(2, &[0])).await;
    send(&mut peer, 5, request(4, &[0], 41)).await;
    assert_eq!(next(&mut second).await, (2, vec![20]));
    assert!(second.next().await.is_none());
    assert_eq!(next(&mut fourth).await, (4, vec![40]));
    assert_eq!(next(&mut fourth).await, (4, vec![41]));
    drop(fourth);
    let finished = node.events.finished.lock().unwrap().clone();
    assert_eq!(
        finished,
        [(receiver(0), sender(4))],
        "2 has ended by itself"
    );
    drop(second);
    node.stop().await;
}

#[tokio::test]
async fn what_nobody_expects_is_refused_and_the_connection_goes_on() {
    let node = Node::start().await;
    let mut stream = node.receive(receiver(0), &[0, 1]);
    let mut peer = node.peer().await;
    let unknown_stage = |mut it: (protos::data::FragmentRecordBatch, Vec<u8>)| {
        it.0.sending_major_fragment_id = Some(SENDING + 1);
        it
    };
    send(&mut peer, 2, unknown_stage(request(0, &[0], 1))).await;
    send(&mut peer, 3, request(7, &[0], 1)).await;
    send(&mut peer, 4, request(0, &[], 1)).await;
    send(&mut peer, 5, last(1, &[0])).await;
    send(&mut peer, 6, request(1, &[0], 1)).await;
    let mut answers = Vec::new();
    for _ in 2..=6 {
        answers.push(answer(&mut peer).await);
    }
    assert_eq!(answers, [(2, -1), (3, -1), (4, -1), (5, 0), (6, -1)]);
    send(&mut peer, 7, request(0, &[0], 70)).await;
    assert_eq!(next(&mut stream).await, (0, vec![70]));
    assert_eq!(answer(&mut peer).await, (7, 0));
    drop(stream);
    node.stop().await;
}

#[tokio::test]
async fn requests_that_cannot_be_read_or_are_not_served_fail_by_name() {
    let node = Node::start().await;
    let mut peer = node.peer().await;
    let (mut nameless, _) = request(0, &[0], 1);
    nameless.query_id = None;
    let cases: [(i32, Vec<u8>, &str); 5] = [
        (3, nameless.encode_to_vec(), "the field query_id"),
        (3, vec![0xff], "expected a FragmentRecordBatch"),
        (
            OpenStream::REQUEST,
            Vec::new(),
            "OPEN_STREAM is not served here",
        ),
        (6, Vec::new(), "DATA_ACK_WITH_CREDIT is not served here"),
        (77, Vec::new(), "unknown rpc type 77"),
    ];
    for (id, (rpc_type, pbody, expected)) in (2..).zip(cases) {
        peer.send(RpcMode::Request, id, rpc_type, &pbody, &[]).await;
        let frame = peer.frame().await;
        assert_eq!(frame.id, id);
        let said = failure(&frame).message().to_owned();
        assert!(said.contains(expected), "{said}");
    }
    node.stop().await;
}

#[tokio::test]
async fn batches_of_a_fragment_that_comes_later_wait_for_it() {
    let node = Node::start().await;
    let mut peer = node.peer().await;
    send(&mut peer, 2, request(0, &[0], 20)).await;
    send(&mut peer, 3, request(0, &[0], 30)).await;
    assert!(answers_so_far(&mut peer, 100).await.is_empty());
    let mut stream = node.receive(receiver(0), &[0]);
    assert_eq!(answer(&mut peer).await, (2, 0));
    assert_eq!(answer(&mut peer).await, (3, 0));
    send(&mut peer, 4, request(0, &[0], 40)).await;
    for value in [20, 30, 40] {
        assert_eq!(next(&mut stream).await, (0, vec![value]));
    }
    drop(stream);
    node.stop().await;
}

#[tokio::test]
async fn a_fragment_that_has_ended_takes_and_drops() {
    let node = Node::start().await;
    let stream = node.receive(receiver(0), &[0]);
    let mut peer = node.peer().await;
    drop(stream);
    let finished = node.events.finished.lock().unwrap().clone();
    assert_eq!(finished, [(receiver(0), sender(0))]);
    for id in 2..20 {
        send(&mut peer, id, request(0, &[0], 1)).await;
        assert_eq!(answer(&mut peer).await, (id, 0));
    }
    let again = vec![input(&[0], Order::AsTheyCome)];
    let again = node.fragments.register(receiver(0), again, &node.ledger);
    assert_eq!(again.unwrap_err(), RegisterError::Ended(receiver(0)));
    node.stop().await;
}

#[tokio::test]
async fn a_cancel_ends_the_stream_frees_what_waits_and_stops_the_senders() {
    let node = Node::start().await;
    let mut stream = node.receive(receiver(0), &[0, 1]);
    let mut peer = node.peer().await;
    for id in 2..20 {
        send(&mut peer, id, request(0, &[0], 1)).await;
    }
    assert_eq!(answers_so_far(&mut peer, 100).await.len(), 12);
    node.fragments.cancel(receiver(0));
    for id in 14..20 {
        assert_eq!(answer(&mut peer).await, (id, 0));
    }
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ReceiveError::Cancelled(_)), "{error}");
    assert!(stream.next().await.is_none());
    let stopped = [0, 1].map(|minor| (receiver(0), sender(minor)));
    assert_eq!(*node.events.finished.lock().unwrap(), stopped);
    drop(stream);
    assert_eq!(node.events.finished.lock().unwrap().len(), 2, "told once");
    node.stop().await;
}

#[tokio::test]
async fn a_sender_whose_connection_ends_too_early_is_an_error() {
    let node = Node::start().await;
    let mut stream = node.receive(receiver(0), &[0, 1]);
    let mut peer = node.peer().await;
    send(&mut peer, 2, last(0, &[0])).await;
    send(&mut peer, 3, request(1, &[0], 1)).await;
    assert_eq!(next(&mut stream).await, (1, vec![1]));
    drop(peer);
    let error = stream.next().await.unwrap().unwrap_err();
    let text = format!("sender {QUERY}:{SENDING}:1 was lost before its last batch");
    assert_eq!(error.to_string(), text);
    drop(stream);
    node.stop().await;
}

#[tokio::test]
async fn a_body_that_is_not_as_described_fails_its_receiver_only() {
    let node = Node::start().await;
    let mut streams = [0, 1].map(|minor| node.receive(receiver(minor), &[0]));
    let mut peer = node.peer().await;
    let (batch, _) = request(0, &[0], 1);
    send(&mut peer, 2, (batch, vec![1, 2, 3])).await;
    let error = streams[0].next().await.unwrap().unwrap_err();
    assert!(matches!(error, ReceiveError::Decode { .. }), "{error}");
    assert!(streams[0].next().await.is_none());
    assert_eq!(answer(&mut peer).await, (2, 0), "taken before it was read");
    send(&mut peer, 3, request(0, &[0], 1)).await;
    assert_eq!(answer(&mut peer).await, (3, -1));
    send(&mut peer, 4, request(0, &[1], 5)).await;
    assert_eq!(next(&mut streams[1]).await, (0, vec![5]));
    drop(streams);
    node.stop().await;
}

#[tokio::test]
async fn runtime_filters_are_always_answered_also_without_a_body() {
    let node = Node::start().await;
    let mut peer = node.peer().await;
    let filter = |sizes: &[i32], fields: &[&str]| RuntimeFilterBDef {
        query_id: Some(QUERY.into()),
        major_fragment_id: Some(RECEIVING),
        minor_fragment_id: Some(3),
        bloom_filter_size_in_bytes: sizes.to_vec(),
        probe_fields: fields.iter().map(|&field| field.to_owned()).collect(),
        ..RuntimeFilterBDef::default()
    };
    let cases: [(RuntimeFilterBDef, &[u8], i32); 4] = [
        (filter(&[2, 3], &["a", "b"]), &[1, 2, 3, 4, 5], 0),
        (filter(&[], &[]), &[], 0),
        (filter(&[2], &["a"]), &[], -1),
        (filter(&[-2], &["a"]), &[1], -1),
    ];
    for (id, (filter, body, expected)) in (2..).zip(cases) {
        let pbody = filter.encode_to_vec();
        peer.send(RpcMode::Request, id, RuntimeFilter::REQUEST, &pbody, body)
            .await;
        let frame = peer.frame().await;
        let ack: AckWithCredit = frame.reply::<RuntimeFilter>();
        assert_eq!((frame.id, ack.allowed_credit()), (id, expected));
    }
    let filters = node.events.filters.lock().unwrap().clone();
    assert_eq!(filters.len(), 2);
    assert_eq!(filters[0].fragment, receiver(3));
    assert_eq!(&filters[0].filters[1].1[..], [3, 4, 5]);
    drop(filters);
    node.stop().await;
}

#[tokio::test]
async fn a_query_that_is_dropped_leaves_nothing() {
    let node = Node::start().await;
    let mut stream = node.receive(receiver(0), &[0]);
    let mut peer = node.peer().await;
    for id in 2..10 {
        send(&mut peer, id, request(0, &[0], 1)).await;
    }
    send(&mut peer, 10, request(0, &[1], 1)).await;
    assert_eq!(answers_so_far(&mut peer, 100).await.len(), 6);
    node.fragments.drop_query(QUERY);
    let mut dropped = Vec::new();
    for _ in 8..=10 {
        dropped.push(answer(&mut peer).await);
    }
    dropped.sort_unstable();
    assert_eq!(dropped, [(8, 0), (9, 0), (10, 0)]);
    assert!(stream.next().await.unwrap().is_err());
    assert!(node.events.finished.lock().unwrap().is_empty());
    // Nobody knows the query any more: its batches are early again.
    send(&mut peer, 11, request(0, &[0], 1)).await;
    assert!(answers_so_far(&mut peer, 101).await.is_empty());
    drop((stream, peer));
    node.stop().await;
}

#[tokio::test]
async fn a_second_registration_is_refused_and_so_are_senseless_ones() {
    let node = Node::start().await;
    let stream = node.receive(receiver(0), &[0]);
    let register = |minor, inputs| {
        let result = node
            .fragments
            .register(receiver(minor), inputs, &node.ledger);
        result.map(drop).unwrap_err()
    };
    let order = Order::AsTheyCome;
    assert_eq!(
        register(0, vec![input(&[0], order)]),
        RegisterError::Receiving(receiver(0))
    );
    assert_eq!(register(1, vec![]), RegisterError::NoInputs(receiver(1)));
    assert!(matches!(
        register(1, vec![input(&[], order)]),
        RegisterError::NoSenders(_)
    ));
    assert!(matches!(
        register(
            1,
            vec![input(&[3], order), input(&[4, 3], Order::PerSender)]
        ),
        RegisterError::SenderTwice { .. }
    ));
    drop(stream);
    until("nothing is left", || {
        node.events.finished.lock().unwrap().len() == 1
    })
    .await;
    node.stop().await;
}
