//! What a stream does when nothing goes wrong.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, ListArray, NullArray, RecordBatch, StringViewArray},
    buffer::OffsetBuffer,
    compute::concat_batches,
    datatypes::{DataType, Field},
};
use bit_data::{
    Compression, NodeOptions, OpenError, Origin, ReceiveOptions, SendError, SendOptions, StreamEnd,
    TunnelPeer,
};
use futures::{SinkExt, StreamExt, TryStreamExt};
use protos::error::{ErrorType, Retry};
use record_batch::Codec;
use rpc_bus::{Ledger, RpcFailure, ledger::Kind};

use crate::support::{Node, batch, expected, pair, receive_all, schema, send_all, stream};

#[tokio::test]
async fn batches_come_in_order_and_then_the_end() {
    let (there, here) = pair().await;
    for payload in [0, 100, 100_000] {
        let sender = there.sender(stream(1));
        let sending = tokio::spawn(send_all(sender, 1, 200, payload));
        let receiver = here.receiver(there.origin(), stream(1)).await;
        let (seen, end) = receive_all(receiver).await;
        assert!(end.is_ok() && sending.await.expect("no panic").is_ok());
        assert_eq!(seen, expected(1, 200));
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn batches_are_cut_to_what_the_receiver_takes() {
    for batch_bytes_max in [1 << 20, 100_000] {
        let there = Node::start(NodeOptions::default()).await;
        let here = Node::start(NodeOptions {
            batch_bytes_max,
            ..NodeOptions::default()
        });
        let here = here.await;
        let rows = (0..40).map(|number| batch(1, number, 60_000));
        let rows = concat_batches(&schema(), &rows.collect::<Vec<_>>()).expect("one schema");
        let mut sender = there.sender(stream(1));
        let sent = rows.clone();
        let sending = tokio::spawn(async move {
            sender.send(sent).await?;
            sender.close().await
        });
        let receiver = here.receiver(there.origin(), stream(1)).await;
        let pieces: Vec<_> = receiver.try_collect().await.expect("no row is too long");
        assert!(sending.await.expect("no panic").is_ok());
        assert_eq!(
            concat_batches(&schema(), &pieces).expect("one schema"),
            rows
        );
        drop(pieces);
        here.stop().await;
        there.stop().await;
    }
}

/// They all share the room to write on their connection, which is less than they are fed.
#[tokio::test]
async fn a_task_that_feeds_several_senders_waits_for_none_but_the_one_that_it_feeds() {
    const SENDERS: i32 = 8;
    let mut options = NodeOptions::default();
    options.server.connections.connection.write_queue_bytes_max = 256 << 10;
    let there = Node::start(options).await;
    let here = Node::start(NodeOptions::default()).await;
    let mut senders: Vec<_> = (0..SENDERS).map(|to| there.sender(stream(to))).collect();
    let mut receiving = Vec::new();
    for to in 0..SENDERS {
        let receiver = here.receiver(there.origin(), stream(to)).await;
        receiving.push(tokio::spawn(receive_all(receiver)));
    }
    let sending = async {
        for number in 0..20 {
            for (to, sender) in senders.iter_mut().enumerate() {
                let to = i64::try_from(to).expect("few");
                sender
                    .feed(batch(to, number, 100_000))
                    .await
                    .expect("it can");
            }
        }
        for sender in &mut senders {
            sender.close().await.expect("it can");
        }
    };
    let sent = tokio::time::timeout(Duration::from_secs(30), sending).await;
    sent.expect("nobody waits for ever");
    for (receiving, to) in receiving.into_iter().zip(0..) {
        let (seen, end) = receiving.await.expect("no panic");
        assert!(end.is_ok() && seen == expected(to, 20));
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_node_that_is_connected_to_is_measured_until_it_is_disconnected() {
    let (there, here) = pair().await;
    let (peers, address) = (here.node.peers(), there.node.local_addr());
    assert!(peers.connections(address).is_empty());
    for _ in 0..2 {
        peers
            .connect(address, "127.0.0.1")
            .await
            .expect("it listens");
    }
    let connection = match &peers.connections(address)[..] {
        [one] => one.clone(),
        others => panic!("one connection, not {}", others.len()),
    };
    assert!(connection.ping().await.is_ok());
    let sending = tokio::spawn(send_all(there.sender(stream(1)), 1, 3, 100));
    let (_, end) = receive_all(here.receiver(there.origin(), stream(1)).await).await;
    assert!(end.is_ok() && sending.await.expect("no panic").is_ok());
    assert_eq!(
        peers.connections(address).len(),
        1,
        "the stream has taken it"
    );
    peers.disconnect(address);
    connection.closed().await;
    assert!(peers.connections(address).is_empty());
    drop(connection);
    here.stop().await;
    let gone = peers.connect(address, "127.0.0.1").await;
    assert!(matches!(gone, Err(OpenError::ShuttingDown)), "{gone:?}");
    there.stop().await;
}

#[tokio::test]
async fn a_node_is_counted_by_where_it_listens_whoever_connects() {
    let (there, here) = pair().await;
    let peers = here.node.peers();
    for _ in 0..3 {
        let sending = tokio::spawn(send_all(there.sender(stream(1)), 1, 5, 100));
        let (_, end) = receive_all(here.receiver(there.origin(), stream(1)).await).await;
        assert!(end.is_ok() && sending.await.expect("no panic").is_ok());
        peers.disconnect(there.node.local_addr());
    }
    let only = |node: &Node| match &node.node.tunnels()[..] {
        [tunnel] => *tunnel,
        others => panic!("one peer, not {others:?}"),
    };
    let (sent, received) = (only(&there), only(&here));
    assert_eq!(sent.peer, TunnelPeer::Node(here.node.local_addr()));
    assert_eq!(received.peer, TunnelPeer::Node(there.node.local_addr()));
    assert_eq!((sent.sent.batches, received.received.batches), (15, 15));
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn open_streams_tell_what_they_wait_for_and_tunnels_keep_what_ended_ones_have_counted() {
    let (there, here) = pair().await;
    let mut sender = there.sender(stream(1));
    let small = ReceiveOptions {
        window_bytes: 64 << 10,
        window_bytes_max: 64 << 10,
        ..ReceiveOptions::default()
    };
    let opening = here.node.receiver(there.origin(), stream(1), &small);
    let mut receiver = opening.await.expect("a sender");
    sender.send(batch(1, 0, 100_000)).await.expect("a receiver");
    let sending = tokio::spawn(async move {
        sender.feed(batch(1, 1, 100)).await?;
        sender.close().await
    });
    let only = |node: &Node| match &node.node.streams()[..] {
        [stream] => *stream,
        others => panic!("one stream, not {others:?}"),
    };
    while !only(&there).is_waiting {
        tokio::task::yield_now().await;
    }
    let (sent, came) = (only(&there), only(&here));
    assert_eq!((sent.address, came.address), (stream(1), stream(1)));
    assert_eq!(sent.peer, TunnelPeer::Node(here.node.local_addr()));
    assert_eq!((sent.credit_bytes, came.is_waiting), (0, false));
    assert!(matches!(sent.end, StreamEnd::Sender(stats) if stats.batches == 1));
    let tunnel = there.node.tunnels()[0];
    assert_eq!((tunnel.waiting_senders, tunnel.credit_bytes), (1, 0));
    // It is counted while it goes on.
    while there.node.tunnels()[0].sent.credit_wait_time <= tunnel.sent.credit_wait_time {
        tokio::task::yield_now().await;
    }

    receiver.next().await.expect("a batch").expect("no error");
    assert_eq!(
        (only(&here).credit_bytes, only(&here).is_waiting),
        (64 << 10, false)
    );
    let (seen, end) = receive_all(&mut receiver).await;
    assert!(end.is_ok() && seen == [(1, 1)] && sending.await.expect("no panic").is_ok());
    let before = (there.node.tunnels()[0].sent, receiver.stats());
    drop(receiver);
    here.node.peers().disconnect(there.node.local_addr());
    assert!(there.node.streams().is_empty() && here.node.streams().is_empty());
    let (there_after, here_after) = (there.node.tunnels()[0], here.node.tunnels()[0]);
    assert_eq!((there_after.sent, here_after.received), before);
    assert_eq!(
        (there_after.open_streams, there_after.waiting_senders),
        (0, 0)
    );
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn more_rows_than_a_receiver_takes_at_once_come_in_pieces() {
    const ROWS: usize = (1 << 24) + 3;
    let (there, here) = pair().await;
    let column: ArrayRef = Arc::new(NullArray::new(ROWS));
    let nulls = RecordBatch::try_from_iter([("nothing", column)]).expect("one column");
    for (origin, sending) in [(there.origin(), &there), (Origin::Here, &here)] {
        let options = SendOptions::default();
        let sender = sending.node.sender(stream(1), &nulls.schema(), options);
        let mut sender = sender.expect("the only one");
        let receiver = here.receiver(origin, stream(1)).await;
        sender.send(nulls.clone()).await.expect("there is credit");
        sender.close().await.expect("all is sent");
        let came: Vec<_> = receiver.try_collect().await.expect("no error");
        let rows: Vec<_> = came.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(rows, [ROWS - 3, 3]);
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn senders_that_are_closed_are_open_no_more_although_they_are_still_held() {
    let (there, here) = pair().await;
    let ends = [(there.origin(), &there), (Origin::Here, &here)];
    for (origin, sending) in ends {
        let mut sender = sending.sender(stream(1));
        let receiver = here.receiver(origin, stream(1)).await;
        sender.send(batch(1, 0, 100)).await.expect("a receiver");
        let senders = || {
            let streams = sending.node.streams().into_iter();
            streams.filter(|stream| matches!(stream.end, StreamEnd::Sender(_)))
        };
        assert_eq!(senders().count(), 1);
        sender.close().await.expect("all is sent");
        assert_eq!(senders().count(), 0, "it has ended");
        let tunnel = sending.node.tunnels()[0];
        assert_eq!(tunnel.sent.batches, 1, "what it has counted, once");
        drop((sender, receiver));
        assert_eq!(sending.node.tunnels()[0].sent, tunnel.sent);
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_sender_has_waited_is_not_forgotten_when_it_is_dropped_meanwhile() {
    let node = Node::start(NodeOptions::default()).await;
    let small = ReceiveOptions {
        window_bytes: 64 << 10,
        window_bytes_max: 64 << 10,
        ..ReceiveOptions::default()
    };
    let mut sender = node.sender(stream(1));
    let opening = node.node.receiver(Origin::Here, stream(1), &small);
    let receiver = opening.await.expect("a sender");
    sender.send(batch(1, 0, 100_000)).await.expect("a receiver");
    let waits = tokio::time::timeout(Duration::from_secs(3), sender.send(batch(1, 1, 1)));
    waits.await.expect_err("there is no credit");
    let waited = || node.node.tunnels()[0].sent.credit_wait_time;
    assert_eq!(waited(), Duration::from_secs(3));
    assert_eq!(sender.stats().credit_wait_time, waited());
    drop(sender);
    assert_eq!(waited(), Duration::from_secs(3));
    drop(receiver);
    node.stop().await;
}

#[tokio::test]
async fn a_receiver_of_the_same_process_gets_the_batches_themselves() {
    let node = Node::start(NodeOptions::default()).await;
    for from in [Origin::Here, node.origin()] {
        let mut sender = node.sender(stream(1));
        let whole = batch(1, 0, 1_000);
        let pointer = whole.column(0).to_data().buffers()[0].as_ptr();
        let (mut receiver, ()) = tokio::join!(node.receiver(from, stream(1)), async {
            sender.send(whole).await.expect("a receiver");
        });
        let got = receiver.next().await.expect("a batch").expect("no error");
        assert_eq!(got.column(0).to_data().buffers()[0].as_ptr(), pointer);
        sender.close().await.expect("a receiver");
        assert!(receiver.next().await.is_none());
        let stats = (sender.stats(), receiver.stats());
        assert!(stats.0.bytes_pass_through >= 1_000 && stats.0.bytes_sent == 0);
        assert_eq!(stats.0.bytes_pass_through, stats.1.bytes_pass_through);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_stream_without_batches_brings_its_schema() {
    let (there, here) = pair().await;
    let mut sender = there.sender(stream(1));
    let (mut receiver, ended) =
        tokio::join!(here.receiver(there.origin(), stream(1)), sender.close());
    assert!(ended.is_ok() && receiver.next().await.is_none());
    assert_eq!(receiver.schema(), Some(&schema()));
    assert_eq!((sender.stats().batches, receiver.stats().batches), (0, 0));
    assert!(sender.stats().bytes_sent > 0, "the schema");
    drop(receiver);
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn many_senders_are_received_unordered_or_each_on_its_own() {
    const SENDERS: i32 = 16;
    let (there, here) = pair().await;
    for unordered in [true, false] {
        let sending: Vec<_> = (0..SENDERS)
            .map(|minor| send_all(there.sender(stream(minor)), minor.into(), 50, 5_000))
            .map(tokio::spawn)
            .collect();
        let from: Vec<_> = (0..SENDERS)
            .map(|minor| (there.origin(), stream(minor)))
            .collect();
        let options = ReceiveOptions::default();
        let receivers = here
            .node
            .receivers(&from, &options)
            .await
            .expect("senders are there");
        if unordered {
            let mut receivers = receivers.unordered();
            let (seen, end) = receive_all(&mut receivers).await;
            assert!(end.is_ok() && seen.len() == 50 * SENDERS as usize);
            let stats = receivers.stats();
            assert_eq!((stats.batches, stats.buffer_memory_bytes), (50 * 16, 0));
            for minor in 0..SENDERS.into() {
                let own: Vec<_> = seen.iter().copied().filter(|id| id.0 == minor).collect();
                assert_eq!(own, expected(minor, 50));
            }
        } else {
            for (minor, receiver) in (0..).zip(receivers.per_sender()) {
                let (seen, end) = receive_all(receiver).await;
                assert!(end.is_ok() && seen == expected(minor, 50));
            }
        }
        for sending in sending {
            assert!(sending.await.expect("no panic").is_ok());
        }
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn every_codec_brings_the_same_batches() {
    let (there, here) = pair().await;
    let fixed = Codec::ALL.map(Compression::Fixed);
    for compression in fixed.into_iter().chain([Compression::Adaptive]) {
        let options = SendOptions {
            compression,
            ..SendOptions::default()
        };
        // Small ones are decompressed where they are consumed, large ones on the pool.
        for payload in [1_000, 200_000] {
            let sender = there.sender_with(stream(1), options);
            let sending = tokio::spawn(send_all(sender, 1, 20, payload));
            let receiver = here.receiver(there.origin(), stream(1)).await;
            let (seen, end) = receive_all(receiver).await;
            assert!(end.is_ok() && sending.await.expect("no panic").is_ok());
            assert_eq!(seen, expected(1, 20));
        }
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_row_longer_than_a_frame_comes_in_chunks_and_a_longer_one_is_refused() {
    let (there, here) = pair().await;
    let mut sender = there.sender(stream(1));
    let sending = tokio::spawn(async move {
        sender.send(batch(1, 0, 9 << 20)).await?;
        sender.send(batch(1, 1, 10)).await?;
        sender.send(batch(1, 2, 17 << 20)).await
    });
    let receiver = here.receiver(there.origin(), stream(1)).await;
    let (seen, end) = receive_all(receiver).await;
    let refused = sending.await.expect("no panic");
    assert!(
        matches!(refused, Err(SendError::RowTooLong { bytes_max, .. }) if bytes_max == 16 << 20)
    );
    let told = end.expect_err("a batch is missing");
    assert!(told.to_string().contains("a row of 178"), "{told}");
    assert_eq!(told.retry(), Retry::Never);
    assert_eq!(seen, expected(1, 2));
    here.stop().await;
    there.stop().await;
}

/// What DataFusion sends: views into buffers of which a filter has left little, and rows that are long together.
#[tokio::test]
async fn rows_in_large_buffers_come_in_pieces_of_a_frame() {
    let texts = (0..300_000).map(|row| format!("{row:0100}"));
    let views: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
    let offsets = OffsetBuffer::from_lengths(vec![3; 100_000]);
    let item = Arc::new(Field::new_list_field(DataType::Utf8View, true));
    let lists: ArrayRef = Arc::new(ListArray::new(item, offsets, views.clone(), None));
    let (there, here) = pair().await;
    // 30 MiB are too long for one batch.
    for column in [views.slice(1_000, 1_000), views, lists] {
        let batch = RecordBatch::try_from_iter([("c", column)]).expect("one column");
        let sender = there
            .node
            .sender(stream(1), &batch.schema(), SendOptions::default());
        let mut sender = sender.expect("the only sender");
        let sent = batch.clone();
        let sending = tokio::spawn(async move {
            sender.send(sent).await?;
            sender.close().await?;
            Ok::<_, SendError>(sender.stats())
        });
        let receiver = here.receiver(there.origin(), stream(1)).await;
        let pieces: Vec<_> = receiver.try_collect().await.expect("all pieces");
        let stats = sending.await.expect("no panic").expect("all is taken");
        assert_eq!(stats.batches, pieces.len() as u64);
        assert!(pieces.len() as u64 <= 1 + stats.bytes_sent / (256 << 10));
        assert!(stats.bytes_sent / stats.batches < 5 << 18);
        let joined = concat_batches(&batch.schema(), &pieces).expect("one schema");
        assert!(joined == batch);
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_failed_sender_and_a_failed_receiver_say_why() {
    let failure = || RpcFailure::new(ErrorType::Resource, "no disk").with_retry(Retry::OtherNode);
    for local in [true, false] {
        let (there, here) = pair().await;
        let (node, from) = if local {
            (&there, Origin::Here)
        } else {
            (&here, there.origin())
        };
        let mut sender = there.sender(stream(1));
        let (receiver, sent) =
            tokio::join!(node.receiver(from, stream(1)), sender.send(batch(1, 0, 10)));
        sent.expect("a receiver");
        sender.fail(failure()).await.expect("a receiver");
        let (seen, end) = receive_all(receiver).await;
        let error = end.expect_err("the sender failed");
        assert!(
            seen.len() == 1 && error.to_string().contains("no disk"),
            "{error}"
        );
        assert_eq!(error.retry(), Retry::OtherNode);

        let mut sender = there.sender(stream(1));
        let receiver = node.receiver(from, stream(1)).await;
        receiver.fail(failure());
        let error = loop {
            if let Err(error) = sender.send(batch(1, 0, 10)).await {
                break error;
            }
            tokio::task::yield_now().await;
        };
        assert!(
            error.retry() == Retry::OtherNode && !error.is_finished(),
            "{error}"
        );
        drop(sender);
        here.stop().await;
        there.stop().await;
    }
}

#[tokio::test]
async fn a_receiver_that_has_enough_stops_its_sender() {
    for local in [true, false] {
        let (there, here) = pair().await;
        let (node, from) = if local {
            (&there, Origin::Here)
        } else {
            (&here, there.origin())
        };
        let sending = tokio::spawn(send_all(there.sender(stream(1)), 1, i64::MAX, 100_000));
        let mut receiver = node.receiver(from, stream(1)).await;
        assert!(receiver.next().await.expect("a batch").is_ok());
        receiver.finish();
        let error = sending
            .await
            .expect("no panic")
            .expect_err("the receiver has enough");
        assert!(error.is_finished(), "{error}");
        here.stop().await;
        there.stop().await;
    }
}

#[tokio::test]
async fn a_sender_that_comes_late_is_waited_for() {
    let (there, here) = pair().await;
    for local in [true, false] {
        let (node, from) = if local {
            (&there, Origin::Here)
        } else {
            (&here, there.origin())
        };
        let late = async {
            while there.node.waiting() != (0, 1) {
                tokio::task::yield_now().await;
            }
            there.sender(stream(1))
        };
        let (receiver, sender) = tokio::join!(node.receiver(from, stream(1)), late);
        let (sent, (seen, end)) = tokio::join!(send_all(sender, 1, 3, 10), receive_all(receiver));
        assert!(sent.is_ok() && end.is_ok() && seen == expected(1, 3));
    }
    assert_eq!(there.node.waiting(), (0, 0));
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn both_ends_of_a_stream_are_used_once() {
    let node = Node::start(NodeOptions::default()).await;
    let sender = node.sender(stream(1));
    let second = node
        .node
        .sender(stream(1), &schema(), SendOptions::default());
    assert!(matches!(second, Err(OpenError::Duplicate(address)) if address == stream(1)));
    drop(sender);
    drop(node.sender(stream(1)));
    node.stop().await;
}

/// A window is promised, and what has come of it is memory too; nothing else is held.
#[tokio::test]
async fn a_full_window_is_charged_twice_and_no_more() {
    let (there, here) = pair().await;
    let sending = tokio::spawn(send_all(there.sender(stream(1)), 1, i64::MAX, 60_000));
    let mut receiver = here.receiver(there.origin(), stream(1)).await;
    assert!(receiver.next().await.expect("a batch").is_ok());
    let stats = || receiver.stats();
    while stats().buffer_memory_bytes + 120_000 < stats().window_bytes {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let used = |ledger: &Ledger| ledger.used(Kind::Bytes);
    let (all, reserved) = (used(&here.ledger), used(here.node.reserved()));
    let queued = usize::try_from(stats().buffer_memory_bytes).expect("a few MiB");
    assert!(all >= reserved + queued, "{all} < {reserved} + {queued}");
    // Bodies are a little longer than what they cost; the next one is on its way.
    let slack = queued / 8 + 2 * 64 * 1024;
    assert!(
        all <= reserved + queued + slack,
        "{all} > {reserved} + {queued}"
    );
    drop(receiver);
    assert!(sending.await.expect("no panic").is_err());
    here.stop().await;
    there.stop().await;
}

/// What the metrics show is measured: none of it is 0 after a stream that had all of it. Waiting for a lock is up to the
/// scheduler, and has its test beside the lock.
#[tokio::test]
async fn both_ends_count_where_their_time_goes() {
    let (there, here) = pair().await;
    let compression = Compression::Fixed(Codec::Lz4);
    let mut sender = there.sender_with(
        stream(1),
        SendOptions {
            compression,
            ..SendOptions::default()
        },
    );
    let small = ReceiveOptions {
        window_bytes: 64 << 10,
        window_bytes_max: 64 << 10,
        ..ReceiveOptions::default()
    };
    let sending = tokio::spawn(async move {
        for number in 0..20 {
            sender.send(batch(1, number, 200_000)).await?;
        }
        sender.close().await?;
        Ok::<_, SendError>(sender.stats())
    });
    let opening = here.node.receiver(there.origin(), stream(1), &small);
    let mut receiver = opening.await.expect("a sender");
    // A receiver that is fast enough lets nobody wait.
    let sent = || there.node.tunnels().into_iter().next();
    while sent().is_none_or(|tunnel| tunnel.sent.credit_wait_time.is_zero()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (seen, end) = receive_all(&mut receiver).await;
    assert!(end.is_ok() && seen == expected(1, 20));
    let sent = sending.await.expect("no panic").expect("a receiver");
    let came = receiver.stats();
    let times = [
        sent.serialize_chunk_time,
        sent.send_request_time,
        sent.wait_response_time,
        sent.credit_wait_time,
        came.deserialize_chunk_time,
        came.receiver_process_total_time,
    ];
    assert!(times.iter().all(|time| !time.is_zero()), "{times:?}");
    assert!(sent.wait_response_time >= sent.credit_wait_time);
    assert_eq!((sent.batches, came.batches), (20, 20));
    assert_eq!(sent.bytes_sent, came.bytes_received);
    assert!(sent.bytes_sent < sent.bytes_uncompressed);
    drop(receiver);
    here.stop().await;
    there.stop().await;
}
