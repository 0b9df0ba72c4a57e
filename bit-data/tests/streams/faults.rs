//! Streams through a proxy that does what networks do: whatever happens, a receiver ends, nothing is lost, doubled or
//! reordered unnoticed, and nothing is held afterwards.

use std::time::Duration;

use bit_data::{NodeOptions, Origin, ReceiveError, ReceiveOptions, SendError, StreamReceiver};
use fault_proxy::{Cut, End, Faults, Flow, Proxy, Way};
use futures::{SinkExt, StreamExt};
use protos::error::Retry;
use rpc_bus::Beats;
use tokio::task::JoinHandle;

use crate::support::{Node, batch, expected, receive_all, send_all, stream};

/// A sender's node, a proxy before it, and a receiver's node.
struct Apart {
    there: Node,
    proxy: Proxy,
    here: Node,
}

impl Apart {
    async fn new(options: NodeOptions) -> Self {
        let there = Node::start(options.clone()).await;
        let proxy = Proxy::start(there.node.local_addr(), 7)
            .await
            .expect("a port");
        let here = Node::start(options).await;
        Self { there, proxy, here }
    }

    fn origin(&self) -> Origin {
        Origin::Node(self.proxy.addr())
    }

    async fn open(&self, minor: i32) -> Option<StreamReceiver> {
        let options = ReceiveOptions {
            open_timeout: Duration::from_secs(2),
            window_bytes: 128 << 10,
            ..ReceiveOptions::default()
        };
        self.here
            .node
            .receiver(self.origin(), stream(minor), &options)
            .await
            .ok()
    }

    /// Streams once, and says what came; a clean end must have brought everything.
    async fn stream(&self, count: i64, payload: usize) -> Result<(), Option<ReceiveError>> {
        let (outcome, both_have_all) = self.stream_to_its_end(count, payload).await;
        // A sender whose last frame is on its way cannot know.
        assert!(
            outcome.is_ok() || !both_have_all,
            "all came, and yet an error"
        );
        outcome
    }

    /// The same; also says whether all came and the sender has sent its end, although that may have been damaged.
    async fn stream_to_its_end(
        &self,
        count: i64,
        payload: usize,
    ) -> (Result<(), Option<ReceiveError>>, bool) {
        let sending = tokio::spawn(send_all(self.there.sender(stream(1)), 1, count, payload));
        let Some(receiver) = self.open(1).await else {
            sending.abort();
            // The sender is unregistered when its task is dropped.
            let _ = sending.await;
            return (Err(None), false);
        };
        let (seen, end) = receive_all(receiver).await;
        let all = expected(1, count);
        assert_eq!(seen, all[..seen.len()], "lost, doubled or reordered");
        let sent = sending.await.expect("no panic");
        if end.is_ok() {
            assert_eq!(seen, all, "an end before the last batch");
        }
        (end.map_err(Some), sent.is_ok() && seen == all)
    }

    async fn stop(self) {
        self.here.stop().await;
        self.there.stop().await;
    }
}

#[tokio::test]
async fn a_slow_and_ragged_link_changes_nothing() {
    let apart = Apart::new(NodeOptions::default()).await;
    let faults = Faults {
        latency: Duration::from_millis(3),
        jitter: Duration::from_millis(3),
        piece_bytes_max: 777,
        ..Faults::default()
    };
    apart.proxy.set_both(|to| *to = faults);
    assert!(apart.stream(50, 20_000).await.is_ok());
    apart.stop().await;
}

/// The widest window of a stream whose bytes take so long each way, and the first.
async fn windows(latency: Duration) -> (u64, u64) {
    let apart = Apart::new(NodeOptions::default()).await;
    apart.proxy.set_both(|to| to.latency = latency);
    let sending = tokio::spawn(send_all(apart.there.sender(stream(1)), 1, 200, 20_000));
    let mut receiver = apart.open(1).await.expect("a sender");
    let first = receiver.stats().window_bytes;
    let mut widest = first;
    while let Some(batch) = receiver.next().await {
        batch.expect("nothing goes wrong");
        widest = widest.max(receiver.stats().window_bytes);
    }
    assert!(sending.await.expect("no panic").is_ok());
    drop(receiver);
    apart.stop().await;
    (widest, first)
}

#[tokio::test]
async fn a_long_link_gets_a_wider_window() {
    let (widest, first) = windows(Duration::from_millis(20)).await;
    assert!(widest >= 2 * first, "{widest}, {first} at first");
}

#[tokio::test]
async fn a_connection_cut_anywhere_ends_both_sides_with_an_error() {
    let apart = Apart::new(NodeOptions::default()).await;
    for at in 0..40_u32 {
        let cut = Cut {
            after_bytes: u64::from(97 * at * at),
            end: if at % 2 == 0 { End::Fin } else { End::Reset },
        };
        let way = if at % 4 < 2 {
            Way::ToServer
        } else {
            Way::ToClient
        };
        let faults = Faults {
            cut: Some(cut),
            ..Faults::default()
        };
        apart.proxy.set(way, |to| *to = faults);
        match apart.stream(40, 3_000).await {
            // What the client sends is little: late cuts are never reached.
            Ok(()) => assert!(way == Way::ToServer || cut.after_bytes > 120_000),
            Err(None) => {}
            Err(Some(error)) => assert_ne!(error.retry(), Retry::Never, "{error}"),
        }
        apart.proxy.set(way, |to| *to = Faults::default());
        apart.proxy.end_all(End::Reset);
    }
    apart.stop().await;
}

#[tokio::test]
async fn a_flipped_bit_in_any_seventh_byte_of_what_a_sender_sends_is_caught() {
    let apart = Apart::new(NodeOptions::default()).await;
    let (mut caught, mut unharmed) = (0, 0);
    // The handshake, its answer, the acknowledgement, three frames and the end are some 2,500 bytes.
    for byte in (0..2_600).step_by(7) {
        let faults = Faults {
            flip_bit: Some(8 * byte + byte % 8),
            ..Faults::default()
        };
        apart.proxy.set(Way::ToClient, |to| *to = faults);
        // Panics if anything else comes out of it than all batches, or an error.
        match apart.stream(3, 100).await {
            Ok(()) => unharmed += 1,
            Err(_) => caught += 1,
        }
        apart.proxy.end_all(End::Reset);
    }
    // Bits of the handshake that say nothing to this side, as the version of the peer's software, do no harm.
    assert!(
        caught > 250 && unharmed < 100,
        "{caught} caught, {unharmed} unharmed"
    );
    apart.stop().await;
}

/// Sends `count` batches with a bit of what goes that way flipped, once for each of the last bits of all that goes there;
/// how many of them were caught.
async fn flip_the_last(way: Way, bytes: u64, count: i64, payload: usize) -> u64 {
    // A frame that has become longer waits for more: for what the next beat sends.
    let beats = Beats {
        missed_max: 100,
        ..BEATS
    };
    let mut options = NodeOptions::default();
    options.connection.beats = Some(beats);
    options.server.beats = Some(beats);
    let apart = Apart::new(options).await;
    assert!(apart.stream(count, payload).await.is_ok());
    let (all, mut caught) = (apart.proxy.passed(way), 0);
    for bit in 8 * (all - bytes)..8 * all {
        apart.proxy.end_all(End::Reset);
        let flip_bit = Some(bit);
        let faults = Faults {
            flip_bit,
            ..Faults::default()
        };
        apart.proxy.set(way, |to| *to = faults);
        let streaming = apart.stream_to_its_end(count, payload);
        let ended = tokio::time::timeout(Duration::from_secs(10), streaming).await;
        let (outcome, _) =
            ended.unwrap_or_else(|_| panic!("bit {bit} of {all} bytes: waits for ever"));
        caught += u64::from(outcome.is_err());
    }
    apart.proxy.end_all(End::Reset);
    apart.stop().await;
    caught
}

#[tokio::test]
async fn no_flipped_bit_of_the_end_of_a_stream_lets_its_receiver_wait() {
    // The frame that ends the stream, and a part of the batch before it. A beat among them may be unharmed.
    let caught = flip_the_last(Way::ToClient, 60, 1, 100).await;
    assert!(caught > 8 * 60 * 3 / 4, "{caught}");
}

#[tokio::test]
async fn no_flipped_bit_of_a_credit_lets_its_sender_wait() {
    // The window is half as large as what is sent: the only credit decides. A beat is as long as a half of it.
    let caught = flip_the_last(Way::ToServer, 24, 24, 10_000).await;
    assert!(caught > 8 * 24 / 2, "{caught}");
}

/// A sender that has used all its credit for one long row, in chunks, among streams of idle ones. Whether its receiver
/// ends in time if bit `flip_bit` of what comes next is flipped.
async fn long_row_ends(apart: &Apart, flip_bit: u64) -> bool {
    let idle = [0, 2].map(|minor| apart.there.sender(stream(minor)));
    let mut sender = apart.there.sender(stream(1));
    let mut receivers = Vec::new();
    for minor in 0..3 {
        receivers.push(apart.open(minor).await.expect("a sender"));
    }
    let faults = Faults {
        flip_bit: Some(8 * apart.proxy.passed(Way::ToClient) + flip_bit),
        ..Faults::default()
    };
    apart.proxy.set(Way::ToClient, |to| *to = faults);
    let sending = tokio::spawn(async move {
        sender.send(batch(1, 0, 3_000_000)).await?;
        sender.send(batch(1, 1, 10)).await?;
        sender.close().await
    });
    let receiving = receive_all(receivers.remove(1));
    let ended = tokio::time::timeout(Duration::from_secs(10), receiving).await;
    sending.abort();
    drop((idle, receivers));
    apart.proxy.set(Way::ToClient, |to| *to = Faults::default());
    ended.is_ok()
}

#[tokio::test]
async fn no_flipped_bit_of_a_message_lets_the_receiver_of_a_long_row_wait() {
    // The head of the first chunk, and the first bytes of its body.
    for bit in (0..8 * 64).step_by(3) {
        let apart = Apart::new(NodeOptions::default()).await;
        assert!(long_row_ends(&apart, bit).await, "bit {bit}");
        apart.stop().await;
    }
}

const BEATS: Beats = Beats {
    interval: Duration::from_millis(50),
    missed_max: 3,
};

/// Streams over a connection of which nothing arrives any more; how sender and receiver end, if they do.
async fn half_open(options: NodeOptions) -> (Apart, JoinHandle<Result<(), SendError>>, Ending) {
    let apart = Apart::new(options).await;
    let sending = tokio::spawn(send_all(apart.there.sender(stream(1)), 1, i64::MAX, 10_000));
    let mut receiver = apart.open(1).await.expect("a sender");
    assert!(receiver.next().await.expect("a batch").is_ok());
    let lost = Faults {
        flow: Flow::Lost,
        ..Faults::default()
    };
    apart.proxy.set_both(|to| *to = lost);
    let receiving = tokio::spawn(async move { receive_all(receiver).await.1 });
    (apart, sending, receiving)
}

type Ending = JoinHandle<Result<(), ReceiveError>>;

#[tokio::test]
async fn a_half_open_connection_ends_its_receiver() {
    let mut options = NodeOptions::default();
    options.connection.beats = Some(BEATS);
    options.server.beats = None;
    let (apart, sending, receiving) = half_open(options).await;
    let error = receiving.await.expect("no panic").expect_err("it is dead");
    assert!(matches!(error, ReceiveError::Lost { .. }), "{error}");
    sending.abort();
    apart.stop().await;
}

#[tokio::test]
async fn a_half_open_connection_ends_its_sender() {
    let mut options = NodeOptions::default();
    options.connection.beats = None;
    options.server.beats = Some(BEATS);
    let (apart, sending, receiving) = half_open(options).await;
    let error = sending.await.expect("no panic").expect_err("it is dead");
    assert!(matches!(error, SendError::Lost { .. }), "{error}");
    receiving.abort();
    apart.stop().await;
}

#[tokio::test]
async fn a_thousand_cancels_leave_nothing_and_harm_no_other_stream() {
    let apart = Apart::new(NodeOptions::default()).await;
    let other = tokio::spawn(send_all(apart.there.sender(stream(0)), 0, 2_000, 10_000));
    let unharmed = tokio::spawn(receive_all(apart.open(0).await.expect("a sender")));
    for round in 0..1_000 {
        let sending = tokio::spawn(send_all(apart.there.sender(stream(1)), 1, i64::MAX, 5_000));
        let mut receiver = apart.open(1).await.expect("a sender");
        for _ in 0..round % 4 {
            assert!(receiver.next().await.expect("a batch").is_ok());
        }
        // Either end may be the one that goes.
        if round % 3 == 0 {
            sending.abort();
            let (_, end) = receive_all(receiver).await;
            assert!(matches!(end, Err(ReceiveError::SenderCancelled)), "{end:?}");
        } else {
            drop(receiver);
            assert!(sending.await.expect("no panic").is_err());
        }
    }
    assert!(other.await.expect("no panic").is_ok());
    let (seen, end) = unharmed.await.expect("no panic");
    assert!(end.is_ok() && seen == expected(0, 2_000));
    assert!(apart.here.node.reserved().is_zero());
    apart.stop().await;
}

#[tokio::test]
async fn a_peer_that_dies_ends_all_streams_on_its_connections_at_once() {
    const STREAMS: i32 = 8;
    for round in 0..50 {
        let apart = Apart::new(NodeOptions {
            connections_per_peer: 2,
            ..NodeOptions::default()
        })
        .await;
        let sending: Vec<_> = (0..STREAMS)
            .map(|minor| {
                send_all(
                    apart.there.sender(stream(minor)),
                    minor.into(),
                    i64::MAX,
                    5_000,
                )
            })
            .map(tokio::spawn)
            .collect();
        let from: Vec<_> = (0..STREAMS)
            .map(|minor| (apart.origin(), stream(minor)))
            .collect();
        let options = ReceiveOptions::default();
        let receivers = apart
            .here
            .node
            .receivers(&from, &options)
            .await
            .expect("all are there");
        let mut receivers: Vec<_> = receivers.per_sender();
        for receiver in &mut receivers {
            for _ in 0..round % 5 {
                assert!(receiver.next().await.expect("a batch").is_ok());
            }
        }
        apart.proxy.end_all(End::Reset);
        for receiver in receivers {
            let (_, end) = receive_all(receiver).await;
            let error = end.expect_err("the peer is dead");
            assert!(error.retry() == Retry::SameNode && rpc_bus::is_retryable(&error));
        }
        for sending in sending {
            let error = sending
                .await
                .expect("no panic")
                .expect_err("the peer is dead");
            assert!(!error.is_finished());
        }
        apart.stop().await;
    }
}

#[tokio::test]
async fn a_stopped_consumer_holds_up_no_other_stream_and_no_more_than_its_window() {
    let apart = Apart::new(NodeOptions::default()).await;
    let stopped = tokio::spawn(send_all(apart.there.sender(stream(0)), 0, i64::MAX, 50_000));
    let mut idle = apart.open(0).await.expect("a sender");
    assert!(idle.next().await.expect("a batch").is_ok());
    for minor in 1..8 {
        let sending = send_all(apart.there.sender(stream(minor)), minor.into(), 200, 50_000);
        let sending = tokio::spawn(sending);
        let (seen, end) = receive_all(apart.open(minor).await.expect("a sender")).await;
        assert!(end.is_ok() && seen == expected(minor.into(), 200));
        assert!(sending.await.expect("no panic").is_ok());
    }
    let stats = idle.stats();
    let batch_bytes = batch(0, 0, 50_000).get_array_memory_size() as u64;
    assert!(
        stats.peak_buffer_memory_bytes < stats.window_bytes + batch_bytes,
        "{stats:?}"
    );
    drop(idle);
    assert!(stopped.await.expect("no panic").is_err());
    apart.stop().await;
}
