//! Channels: messages both ways, ends of every kind, and what a peer may not do.

use std::sync::{Arc, Mutex};

use bit_control::{
    Channel, ChannelError, ChannelOptions, ChannelRequest, ControlOptions, Direction,
    MESSAGE_BYTES_MAX, NameTaken, Services,
};
use bytes::Bytes;
use fault_proxy::{End, Proxy};
use futures::{FutureExt, SinkExt, StreamExt, future::join_all};
use prost::Message;
use protos::{
    Call, OneWay,
    bus::{BusCapabilities, HandshakeExtension},
    calls::{self, control::OpenChannel as OpenCall},
    control::{ChannelCredit, ChannelMessage, ChannelOpened, CloseChannel, OpenChannel},
    error::ErrorType,
    rpc::{Ack, RpcMode},
};
use rpc_bus::{CallError, RpcFailure, ledger::Kind};
use tokio::sync::mpsc;

use crate::{
    peer::Peer,
    support::{Node, endpoint, runtime, until},
};

/// Sends back what comes, until the end.
async fn echo(channel: Channel) {
    let Channel {
        mut sender,
        mut receiver,
        ..
    } = channel;
    while let Some(Ok(message)) = receiver.next().await {
        if sender.send(message).await.is_err() {
            return;
        }
    }
    let _ = sender.finish().await;
}

/// A node with an echo, and one that gives its channels to the test.
async fn node(options: ControlOptions) -> (Node, mpsc::UnboundedReceiver<Channel>) {
    let services = Services::default();
    let tasks = Arc::new(rpc_bus::task::Tasks::default());
    let app = runtime();
    let echoing = move |request: ChannelRequest| {
        let ledger = crate::support::ledger();
        let channel = request.accept();
        tasks.spawn(app.app(), &ledger, echo(channel)).unwrap();
    };
    services.channels.register("echo", echoing).unwrap();
    let (opened, channels) = mpsc::unbounded_channel();
    let giving = move |request: ChannelRequest| {
        // The test may have ended.
        let _ = opened.send(request.accept());
    };
    services.channels.register("given", giving).unwrap();
    let refusing = |request: ChannelRequest| {
        let argument = String::from_utf8_lossy(request.argument()).into_owned();
        if argument == "drop" {
            return drop(request);
        }
        let message = format!("{} wants {argument}", request.from());
        request.refuse(RpcFailure::new(ErrorType::Permission, message));
    };
    services.channels.register("refused", refusing).unwrap();
    let taken = services.channels.register("echo", refusing).unwrap_err();
    let name = "echo".to_owned();
    assert_eq!(taken, NameTaken { name });
    (Node::with_options(options, services).await, channels)
}

async fn nodes() -> [(Node, mpsc::UnboundedReceiver<Channel>); 2] {
    let options = ControlOptions::default;
    [node(options()).await, node(options()).await]
}

fn numbered(n: usize, bytes: usize) -> Bytes {
    let mut message = vec![0; bytes.max(8)];
    message[..8].copy_from_slice(&n.to_le_bytes());
    message.into()
}

/// Sends `count` messages of sizes up to the largest to an echo, and reads them back.
async fn talk(channel: Channel, count: usize) -> Result<(), ChannelError> {
    let Channel {
        mut sender,
        mut receiver,
        ..
    } = channel;
    let size = |n: usize| {
        if n % 50 == 49 {
            MESSAGE_BYTES_MAX
        } else {
            n * 37 % 5000
        }
    };
    let sending = async {
        for n in 0..count {
            sender.send(numbered(n, size(n))).await?;
        }
        sender.finish().await
    };
    let receiving = async {
        let mut n = 0;
        while let Some(message) = receiver.next().await {
            assert_eq!(message?, numbered(n, size(n)));
            n += 1;
        }
        assert_eq!(n, count);
        Ok(())
    };
    tokio::try_join!(sending, receiving).map(|_| ())
}

#[tokio::test]
async fn messages_go_both_ways_in_order_and_end_with_an_end() {
    let [(a, _channels_a), (b, _channels_b)] = nodes().await;
    // From both sides of one connection, several at a time, and within a node.
    let (there, back) = (a.control.tunnel(b.address()), b.control.tunnel(a.address()));
    let here = a.control.tunnel(a.address());
    let open = || async {
        for tunnel in [&there, &back, &here] {
            let channel = tunnel.open_channel("echo", Bytes::new()).await.unwrap();
            assert_eq!(channel.peer, *tunnel.address());
            talk(channel, 200).await.unwrap();
        }
    };
    join_all((0..4).map(|_| open())).await;
    assert_eq!(there.peer().unwrap().connections.len(), 1);
    until("all are over", || {
        [&there, &back]
            .iter()
            .all(|it| it.peer().unwrap().channels == 0)
    })
    .await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn sinks_and_typed_messages_are_channels_too() {
    let [(a, _channels_a), (b, _channels_b)] = nodes().await;
    let tunnel = a.control.tunnel(b.address());
    let channel = tunnel.open_channel("echo", Bytes::new()).await.unwrap();
    let (mut sink, receiver) = (channel.sender.into_sink(), channel.receiver);
    for n in 0..10 {
        sink.send(numbered(n, 100)).await.unwrap();
    }
    sink.close().await.unwrap();
    assert_eq!(receiver.count().await, 10);
    assert!(sink.send(Bytes::new()).await.is_err(), "it is closed");
    let mut channel = tunnel.open_channel("echo", Bytes::new()).await.unwrap();
    let ack = Ack { ok: Some(true) };
    channel.sender.send_message(&ack).await.unwrap();
    channel
        .sender
        .send(Bytes::from_static(b"\xff"))
        .await
        .unwrap();
    channel.sender.finish().await.unwrap();
    let mut receiver = channel.receiver;
    assert_eq!(receiver.next_message().await.unwrap(), Some(ack));
    let malformed = receiver.next_message::<Ack>().await.unwrap_err();
    assert!(matches!(malformed, ChannelError::Malformed(_)));
    assert_eq!(receiver.next_message::<Ack>().await.unwrap(), None);
    drop(receiver);
    a.stop().await;
    b.stop().await;
}

/// Each direction ends on its own, and the other side learns how.
#[tokio::test]
async fn every_end_is_told_to_the_other_side() {
    let [(a, _channels_a), (b, mut opened)] = nodes().await;
    let own = b.control.tunnel(b.address());
    for tunnel in [a.control.tunnel(b.address()), own] {
        let mut pair = async || {
            let channel = tunnel.open_channel("given", Bytes::new()).await.unwrap();
            (channel, opened.recv().await.unwrap())
        };
        // Finished one way, the other goes on.
        let (here, mut there) = pair().await;
        here.sender.finish().await.unwrap();
        assert!(there.receiver.next().await.is_none());
        there.sender.send(numbered(1, 0)).await.unwrap();
        let mut receiver = here.receiver;
        assert_eq!(receiver.next().await, Some(Ok(numbered(1, 0))));
        // Failed by name.
        let failure = RpcFailure::new(ErrorType::DataRead, "no more rows");
        there.sender.fail(failure).await.unwrap();
        let error = receiver.next().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the sender has failed: no more rows");
        assert!(receiver.next().await.is_none(), "an error is said once");
        // Dropped: the receiver has all that was sent, unless the news overtakes it; then an error.
        let (mut here, there) = pair().await;
        drop(there.sender);
        let error = here.receiver.next().await.unwrap().unwrap_err();
        assert!(
            error.to_string().contains("dropped before its end"),
            "{error}"
        );
        // Nobody wants it: the sender learns it while it waits for credit.
        drop(there.receiver);
        let stopped = loop {
            if let Err(error) = here.sender.send(numbered(0, 1000)).await {
                break error;
            }
        };
        assert!(
            matches!(stopped, ChannelError::Cancelled(None)),
            "{stopped:?}"
        );
        let finished = here.sender.finish().await;
        assert!(matches!(finished, Err(ChannelError::Cancelled(None))));
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_receiver_that_does_not_read_stops_its_sender_and_nobody_else() {
    let [(a, _channels_a), (b, mut opened)] = nodes().await;
    let tunnel = a.control.tunnel(b.address());
    let mut stopped = tunnel.open_channel("given", Bytes::new()).await.unwrap();
    let unread = opened.recv().await.unwrap();
    let mut sent = 0;
    let flood = async {
        loop {
            stopped.sender.send(numbered(sent, 10_000)).await.unwrap();
            sent += 1;
        }
    };
    let other = async {
        let channel = tunnel.open_channel("echo", Bytes::new()).await.unwrap();
        talk(channel, 500).await.unwrap();
    };
    tokio::select! {
        () = flood => {}
        () = other => {}
    }
    let window = usize::try_from(ChannelOptions::default().window_bytes).unwrap();
    assert_eq!(sent, window.div_ceil(10_000));
    until("all of it has come", || {
        b.ledger.used(Kind::Bytes) >= sent * 10_000
    })
    .await;
    // Once it is read, it goes on.
    let mut receiver = unread.receiver;
    for n in 0..sent {
        assert_eq!(receiver.next().await, Some(Ok(numbered(n, 10_000))));
    }
    stopped.sender.send(numbered(sent, 10_000)).await.unwrap();
    assert_eq!(receiver.next().await, Some(Ok(numbered(sent, 10_000))));
    drop((receiver, unread.sender, stopped));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_lost_connection_ends_all_channels_with_an_error() {
    let (b, mut opened) = node(ControlOptions::default()).await;
    let proxy = Proxy::start(b.control.local_addr(), 1).await.unwrap();
    let (a, _channels) = node(ControlOptions::default()).await;
    let through = membership::NodeAddress::new("127.0.0.1", proxy.addr().port()).unwrap();
    let tunnel = a.control.tunnel(&through);
    let mut here = tunnel.open_channel("given", Bytes::new()).await.unwrap();
    let mut there = opened.recv().await.unwrap();
    // One waits for credit, the others for messages.
    while let Some(sent) = here.sender.send(numbered(0, 9999)).now_or_never() {
        sent.unwrap();
    }
    proxy.end_all(End::Reset);
    let (sent, received, of_peer) = tokio::join!(
        here.sender.send(numbered(0, 9999)),
        here.receiver.next(),
        async {
            loop {
                match there.receiver.next().await {
                    Some(Ok(_)) => {}
                    end => break end,
                }
            }
        }
    );
    assert!(matches!(sent, Err(ChannelError::Lost(_))), "{sent:?}");
    for end in [received, of_peer] {
        assert!(matches!(end, Some(Err(ChannelError::Lost(_)))), "{end:?}");
    }
    assert!(there.sender.send(Bytes::new()).await.is_err());
    // The next one connects anew.
    let again = tunnel.open_channel("echo", Bytes::new()).await.unwrap();
    talk(again, 50).await.unwrap();
    drop((here, there));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_refused_by_name() {
    let [(a, _channels_a), (b, _channels_b)] = nodes().await;
    let plain = Node::plain().await;
    for tunnel in [a.control.tunnel(b.address()), b.control.tunnel(b.address())] {
        let caller = if tunnel.is_local() {
            b.address()
        } else {
            a.address()
        };
        for (service, argument, said) in [
            (
                "nobody",
                "",
                "no service \"nobody\" takes channels here".to_owned(),
            ),
            ("refused", "much", format!("{caller} wants much")),
            ("refused", "drop", "the request was dropped".to_owned()),
        ] {
            let argument = Bytes::copy_from_slice(argument.as_bytes());
            let error = tunnel.open_channel(service, argument).await.unwrap_err();
            assert_eq!(error.to_string(), said);
        }
    }
    let tunnel = a.control.tunnel(plain.address());
    let error = tunnel.open_channel("echo", Bytes::new()).await.unwrap_err();
    assert!(matches!(error, CallError::NotOffered(_)));
    let tunnel = a.control.tunnel(b.address());
    let mut channel = tunnel.open_channel("echo", Bytes::new()).await.unwrap();
    let long = Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]);
    let error = channel.sender.send(long).await.unwrap_err();
    assert!(matches!(error, ChannelError::TooLong { .. }));
    drop(channel);
    let peer = tunnel.peer().unwrap();
    assert_eq!(peer.connections[0].0, Direction::Outbound);
    for node in [a, b, plain] {
        node.stop().await;
    }
}

#[tokio::test]
async fn channels_and_what_waits_on_them_are_bounded() {
    let few = ControlOptions {
        channels: ChannelOptions {
            channels_max: 2,
            window_bytes: 10_000,
            queued_bytes_max: 15_000,
        },
        ..ControlOptions::default()
    };
    let ((a, _channels), (b, mut opened)) =
        (node(ControlOptions::default()).await, node(few).await);
    let tunnel = a.control.tunnel(b.address());
    let mut pairs = Vec::new();
    for _ in 0..2 {
        let here = tunnel.open_channel("given", Bytes::new()).await.unwrap();
        pairs.push((here, opened.recv().await.unwrap()));
    }
    let error = tunnel
        .open_channel("given", Bytes::new())
        .await
        .unwrap_err();
    let CallError::Remote(failure) = error else {
        panic!("{error:?}")
    };
    assert_eq!(failure.error.error_type(), ErrorType::Resource);
    // Both windows together are more than may wait.
    for (here, _) in &mut pairs {
        here.sender.send(numbered(0, 9000)).await.unwrap();
    }
    let [(_, of_first), (second, of_second)] = &mut pairs[..] else {
        unreachable!()
    };
    let no_room = of_second.receiver.next().await.unwrap();
    assert!(
        matches!(no_room, Err(ChannelError::Budget(_))),
        "{no_room:?}"
    );
    assert_eq!(of_first.receiver.next().await, Some(Ok(numbered(0, 9000))));
    let stopped = loop {
        if let Err(error) = second.sender.send(numbered(0, 9000)).await {
            break error;
        }
    };
    let ChannelError::Cancelled(Some(why)) = stopped else {
        panic!("{stopped:?}")
    };
    assert_eq!(why.error.error_type(), ErrorType::Resource);
    drop(pairs);
    until("there is room again", || {
        b.control.peers().first().is_some_and(|it| it.channels == 0)
    })
    .await;
    let again = tunnel.open_channel("echo", Bytes::new()).await.unwrap();
    drop(again);
    a.stop().await;
    b.stop().await;
}

/// A peer of our own kind, by hand.
async fn peer_with_channels(node: &Node) -> Peer {
    let mut peer = Peer::connect(node.control.local_addr()).await;
    let hello = protos::control::BitControlHandshake {
        rpc_version: Some(3),
        endpoint: Some(endpoint(7)),
        ..Default::default()
    };
    let ours = HandshakeExtension {
        capabilities: Some(BusCapabilities {
            version: Some(1),
            features: vec![3, 6],
            ..BusCapabilities::default()
        }),
    };
    let body = [hello.encode_to_vec(), ours.encode_to_vec()].concat();
    peer.send(RpcMode::Request, 1, 0, &body, &[]).await;
    let answer = HandshakeExtension::decode(peer.frame().await.pbody).unwrap();
    assert_eq!(answer.capabilities.unwrap().features, [3, 6]);
    peer
}

async fn one_way<M: OneWay>(peer: &mut Peer, message: &M::Message, body: &[u8]) {
    let pbody = message.encode_to_vec();
    peer.send(RpcMode::Request, 0, M::RPC_TYPE, &pbody, body)
        .await;
}

async fn open(peer: &mut Peer, id: i32, channel: u64, service: &str) -> crate::peer::Frame {
    let request = OpenChannel {
        channel: Some(channel),
        service: Some(service.to_owned()),
        limit_bytes: Some(1000),
        argument: None,
    };
    peer.request::<OpenCall>(id, &request).await;
    loop {
        let frame = peer.frame().await;
        if frame.id == id {
            return frame;
        }
    }
}

async fn message(peer: &mut Peer, channel: u64, bytes: usize) {
    let head = ChannelMessage {
        channel: Some(channel),
    };
    one_way::<calls::ChannelMessage>(peer, &head, &vec![0; bytes]).await;
}

async fn close(peer: &mut Peer, channel: u64, kind: i32) {
    let close = CloseChannel {
        channel: Some(channel),
        kind: Some(kind),
        error: None,
    };
    one_way::<calls::CloseChannel>(peer, &close, &[]).await;
}

#[tokio::test]
async fn a_peer_that_breaks_the_rules_loses_its_connection() {
    let (node, unread) = node(ControlOptions::default()).await;
    let is_closed = async |mut peer: Peer| while peer.next().await.is_some() {};
    // A channel that was never opened: of the peer, of this side.
    for channel in [1, 3, 2, 0] {
        let mut peer = peer_with_channels(&node).await;
        message(&mut peer, channel, 1).await;
        is_closed(peer).await;
    }
    // More than the credit.
    let mut peer = peer_with_channels(&node).await;
    let opened = open(&mut peer, 2, 1, "given").await;
    assert_eq!(opened.rpc_type, OpenCall::RESPONSE);
    let granted = opened.message::<ChannelOpened>().limit_bytes();
    assert_eq!(granted, ChannelOptions::default().window_bytes);
    message(&mut peer, 1, usize::try_from(granted).unwrap()).await;
    message(&mut peer, 1, 1).await;
    is_closed(peer).await;
    // A message that is too long, and one after the end.
    let mut peer = peer_with_channels(&node).await;
    open(&mut peer, 2, 1, "given").await;
    message(&mut peer, 1, MESSAGE_BYTES_MAX + 1).await;
    is_closed(peer).await;
    let mut peer = peer_with_channels(&node).await;
    open(&mut peer, 2, 1, "given").await;
    close(&mut peer, 1, 0).await;
    message(&mut peer, 1, 1).await;
    is_closed(peer).await;
    // The end of a channel that only this side could open.
    let mut peer = peer_with_channels(&node).await;
    close(&mut peer, 2, 2).await;
    is_closed(peer).await;
    drop(unread);
    node.stop().await;
}

#[tokio::test]
async fn ids_that_cannot_be_and_channels_that_are_given_up_are_refused() {
    let (node, _channels) = node(ControlOptions::default()).await;
    let mut peer = peer_with_channels(&node).await;
    for (id, channel) in [(2, 0), (3, 2)] {
        let refused = open(&mut peer, id, channel, "given").await;
        assert_eq!(refused.mode, RpcMode::ResponseFailure);
    }
    // What overtakes its request.
    close(&mut peer, 5, 2).await;
    for (id, channel, mode) in [
        (4, 5, RpcMode::ResponseFailure),
        (5, 5, RpcMode::ResponseFailure),
        (6, 3, RpcMode::ResponseFailure),
        (7, 7, RpcMode::Response),
    ] {
        let answer = open(&mut peer, id, channel, "given").await;
        assert_eq!(answer.mode, mode, "{channel}");
    }
    // What comes late for a channel that is over is nothing.
    close(&mut peer, 7, 1).await;
    close(&mut peer, 7, 2).await;
    message(&mut peer, 7, 1).await;
    let credit = ChannelCredit {
        channel: Some(7),
        limit_bytes: Some(u64::MAX),
    };
    one_way::<calls::ChannelCredit>(&mut peer, &credit, &[]).await;
    let answer = open(&mut peer, 8, 9, "echo").await;
    assert_eq!(answer.mode, RpcMode::Response);
    drop(peer);
    node.stop().await;
}

#[tokio::test]
async fn a_peer_that_gives_up_many_channels_at_once_keeps_its_connection() {
    let (node, _channels) = node(ControlOptions::default()).await;
    let mut peer = peer_with_channels(&node).await;
    for n in 0..1000 {
        close(&mut peer, 2 * n + 1, 1).await;
        close(&mut peer, 2 * n + 1, 2).await;
    }
    for (id, channel, mode) in [
        (2, 1, RpcMode::ResponseFailure),
        (3, 127, RpcMode::ResponseFailure),
        (4, 1999, RpcMode::ResponseFailure),
        (5, 2001, RpcMode::Response),
    ] {
        let answer = open(&mut peer, id, channel, "given").await;
        assert_eq!(answer.mode, mode, "{channel}");
    }
    assert_eq!(node.control.peers()[0].channels, 1);
    drop(peer);
    node.stop().await;
}

/// Whoever stops waiting for an answer leaves nothing open.
#[tokio::test]
async fn an_open_that_is_given_up_leaves_nothing_behind() {
    let services = Services::default();
    let waiting: Arc<Mutex<Vec<ChannelRequest>>> = Arc::default();
    let kept = Arc::clone(&waiting);
    let keep = move |request| kept.lock().unwrap().push(request);
    services.channels.register("slow", keep).unwrap();
    let (a, b) = (Node::start().await, Node::with(services).await);
    let tunnel = a.control.tunnel(b.address());
    let opening = tunnel.open_channel("slow", Bytes::new());
    tokio::select! {
        _ = opening => panic!("nobody has answered"),
        () = until("it is asked for", || !waiting.lock().unwrap().is_empty()) => {}
    }
    let request = waiting.lock().unwrap().pop().unwrap();
    let mut channel = request.accept();
    assert!(channel.receiver.next().await.unwrap().is_err());
    let stopped = loop {
        if let Err(error) = channel.sender.send(Bytes::new()).await {
            break error;
        }
    };
    assert!(matches!(stopped, ChannelError::Cancelled(Some(_))));
    for node in [&a, &b] {
        until("nothing is left", || node.control.peers()[0].channels == 0).await;
    }
    drop(channel);
    a.stop().await;
    b.stop().await;
}
