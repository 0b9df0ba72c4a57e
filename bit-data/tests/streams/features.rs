//! Nodes one of which does not do something: then neither does it, and all else goes on.

use arrow::array::AsArray;
use bit_data::{
    CodecReason, Compression, NodeOptions, OpenError, Origin, ReceiveError, ReceiveOptions,
    SendError, SendOptions,
};
use fault_proxy::{Faults, Proxy, Way};
use futures::{SinkExt, StreamExt};
use record_batch::Codec;
use rpc_bus::{CallError, Feature};

use crate::support::{Node, batch, expected, receive_all, stream};

fn without(feature: Feature) -> NodeOptions {
    let all = NodeOptions::default();
    NodeOptions {
        features: all.features.without(feature),
        ..all
    }
}

/// A sender's node and a receiver's, each of which may lack a feature: both ways.
async fn one_without(feature: Feature) -> [(Node, Node); 2] {
    let all = NodeOptions::default;
    [
        (
            Node::start(without(feature)).await,
            Node::start(all()).await,
        ),
        (
            Node::start(all()).await,
            Node::start(without(feature)).await,
        ),
    ]
}

#[tokio::test]
async fn nothing_is_compressed_for_a_node_that_does_not_take_it() {
    for (there, here) in one_without(Feature::Compression).await {
        let options = SendOptions {
            compression: Compression::Fixed(Codec::Lz4),
            ..SendOptions::default()
        };
        let mut sender = there.sender_with(stream(1), options);
        let sending = tokio::spawn(async move {
            for number in 0..5 {
                sender.send(batch(1, number, 100_000)).await?;
            }
            sender.close().await?;
            Ok::<_, SendError>(sender.stats())
        });
        let (seen, end) = receive_all(here.receiver(there.origin(), stream(1)).await).await;
        assert!(end.is_ok() && seen == expected(1, 5));
        let stats = sending.await.expect("no panic").expect("a receiver");
        assert_eq!(
            (stats.codec, stats.codec_reason),
            (Codec::None, CodecReason::NotTaken)
        );
        assert_eq!(stats.bytes_sent, stats.bytes_uncompressed);
        here.stop().await;
        there.stop().await;
    }
}

/// Sends a batch of 100,000 equal bytes over a link that flips a bit among them; whether they came so, or else the error.
async fn send_damaged(there: &Node, here: &Node) -> Result<bool, ReceiveError> {
    let proxy = Proxy::start(there.node.local_addr(), 7).await;
    let proxy = proxy.expect("a port");
    let faults = Faults {
        flip_bit: Some(8 * 60_000),
        ..Faults::default()
    };
    proxy.set(Way::ToClient, |to| *to = faults);
    let mut sender = there.sender(stream(1));
    let sending = tokio::spawn(async move {
        sender.send(batch(1, 0, 100_000)).await?;
        sender.close().await
    });
    let receiver = here.receiver(Origin::Node(proxy.addr()), stream(1)).await;
    let came: Result<Vec<_>, _> = receiver.collect::<Vec<_>>().await.into_iter().collect();
    // Whether the sender learns of the damage before its end is up to the network.
    let _ = sending.await.expect("no panic");
    let came = came?;
    let payload = came[0].column(2).as_binary::<i32>().value(0);
    Ok(payload.iter().any(|&byte| byte != 0))
}

#[tokio::test]
async fn nothing_is_summed_for_a_node_that_does_not_check() {
    for (there, here) in one_without(Feature::Checksums).await {
        let is_damaged = send_damaged(&there, &here).await;
        assert!(is_damaged.expect("nobody checks"));
        here.stop().await;
        there.stop().await;
    }
    let (there, here) = crate::support::pair().await;
    let noticed = send_damaged(&there, &here).await;
    assert!(noticed.is_err(), "both do");
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_node_without_streams_is_told_from_one_that_cannot_be_reached() {
    for (there, here) in one_without(Feature::Streams).await {
        let options = ReceiveOptions::default();
        let refused = here.node.receiver(there.origin(), stream(1), &options);
        let refused = refused.await.expect_err("one of them has none");
        assert!(
            matches!(
                refused,
                OpenError::Call(CallError::NotOffered(Feature::Streams))
            ),
            "{refused}"
        );
        let peers = here.node.peers();
        assert!(peers.connections(there.node.local_addr()).is_empty());
        here.stop().await;
        there.stop().await;
    }
}
