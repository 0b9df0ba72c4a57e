//! Our tunnel sends, a server by hand receives.

use std::{net::SocketAddr, sync::Arc};

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use bit_data::drill::{DataTunnel, RuntimeFilter, TunnelError, TunnelOptions};
use bit_data::{DataClient, DataTarget};
use bytes::Bytes;
use futures::FutureExt;
use protos::{
    Call,
    calls::data::{Handshake, RecordBatch as BatchCall, RuntimeFilter as FilterCall},
    data::{AckWithCredit, BitServerHandshake, FragmentRecordBatch},
    id::MajorFragmentId,
    rpc::RpcMode,
};
use rpc_bus::{Ledger, RetryOptions, RetryPolicy, is_retryable};
use tokio::net::TcpListener;

use crate::{
    peer::{Frame, Peer},
    support::{RECEIVING, ledger, minors, numbers, runtime, sender, settled},
};

/// A tunnel to a server by hand.
struct Scene {
    tunnel: DataTunnel,
    server: Peer,
    ledger: Ledger,
}

fn client(address: SocketAddr, ledger: &Ledger) -> DataClient {
    let once = RetryOptions {
        attempts_max: 1,
        ..RetryOptions::default()
    };
    let target = DataTarget::new(address, ledger.clone());
    let policy = RetryPolicy::try_new(once).unwrap();
    DataClient::try_new(target, runtime(), policy).unwrap()
}

fn tunnel(client: DataClient) -> DataTunnel {
    let major = MajorFragmentId(RECEIVING);
    DataTunnel::new(
        client,
        runtime(),
        sender(4),
        major,
        TunnelOptions::default(),
    )
}

impl Scene {
    /// Behind the handshake, with the first batch sent.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, ledger) = (listener.local_addr().unwrap(), ledger());
        let mut tunnel = tunnel(client(address, &ledger));
        let accepted = async {
            let mut server = Peer::over(listener.accept().await.unwrap().0);
            welcome(&mut server, 4).await;
            server
        };
        let (batch, first) = (numbers([0]), minors(&[0]));
        let first = tunnel.send(&batch, &first);
        let (mut server, sent) = tokio::join!(accepted, first);
        sent.unwrap();
        let frame = batch_of(&server.frame().await).1;
        assert_eq!(frame.sending_minor_fragment_id, Some(4));
        Self {
            tunnel,
            server,
            ledger,
        }
    }

    async fn send(&mut self, value: i64) -> Result<(), TunnelError> {
        self.tunnel.send(&numbers([value]), &minors(&[0])).await
    }

    /// Whether a batch can be sent without waiting for an answer.
    fn is_full(&mut self) -> bool {
        let sent = self.send(0).now_or_never();
        sent.map(Result::unwrap).is_none()
    }

    async fn acknowledge(&mut self, id: i32, credit: i32) {
        let ack = AckWithCredit {
            allowed_credit: Some(credit),
        };
        self.server.respond::<BatchCall>(id, &ack).await;
    }

    async fn stop(self) {
        drop((self.tunnel, self.server));
        settled(&self.ledger).await;
    }
}

async fn welcome(server: &mut Peer, version: i32) {
    let hello = server.frame().await;
    assert!(hello.is_request::<Handshake>());
    let reply = BitServerHandshake {
        rpc_version: Some(version),
        ..BitServerHandshake::default()
    };
    server.respond::<Handshake>(hello.id, &reply).await;
}

fn batch_of(frame: &Frame) -> (i32, FragmentRecordBatch) {
    assert!(frame.is_request::<BatchCall>(), "{frame:?}");
    (frame.id, frame.message())
}

#[tokio::test]
async fn three_batches_are_unanswered_and_the_first_advice_of_three_or_more_is_taken_once() {
    let mut scene = Scene::start().await;
    scene.send(1).await.unwrap();
    scene.send(2).await.unwrap();
    assert_eq!(scene.tunnel.stats().window_batches, 3);
    for (id, credit) in [(2, 0), (3, 2), (4, 5)] {
        scene.acknowledge(id, credit).await;
    }
    // Five from here on, whatever comes.
    for _ in 0..5 {
        scene.send(3).await.unwrap();
    }
    scene.acknowledge(5, 50).await;
    scene.send(4).await.unwrap();
    assert_eq!(scene.tunnel.stats().window_batches, 5);
    let waiting = scene
        .tunnel
        .send(&numbers([9]), &minors(&[0]))
        .now_or_never();
    assert!(waiting.is_none(), "five are unanswered");
    scene.stop().await;
}

#[tokio::test]
async fn a_fourth_batch_waits_for_an_answer() {
    let mut scene = Scene::start().await;
    scene.send(1).await.unwrap();
    scene.send(2).await.unwrap();
    let (batch, to) = (numbers([3]), minors(&[0]));
    let Scene { tunnel, server, .. } = &mut scene;
    let fourth = tunnel.send(&batch, &to);
    let answering = async {
        let mut ids = Vec::new();
        for _ in 0..2 {
            ids.push(batch_of(&server.frame().await).0);
        }
        assert_eq!(ids, [3, 4]);
        let ack = AckWithCredit {
            allowed_credit: Some(0),
        };
        server.respond::<BatchCall>(3, &ack).await;
        batch_of(&server.frame().await).0
    };
    let (sent, id) = tokio::join!(fourth, answering);
    sent.unwrap();
    assert_eq!(id, 5);
    for id in [2, 4, 5] {
        scene.acknowledge(id, 0).await;
    }
    let stats = scene.tunnel.flush().await.unwrap();
    assert_eq!((stats.batches, stats.window_batches), (4, 3));
    assert_eq!(stats.body_bytes, 4 * 8);
    assert!(!stats.window_wait.is_zero());
    scene.stop().await;
}

#[tokio::test]
async fn a_send_that_is_given_up_breaks_the_tunnel() {
    let mut scene = Scene::start().await;
    scene.send(1).await.unwrap();
    scene.send(2).await.unwrap();
    assert!(scene.is_full());
    let error = scene.send(3).await.unwrap_err();
    assert!(matches!(error, TunnelError::Broken { .. }), "{error}");
    assert!(scene.tunnel.flush().await.is_err());
    scene.stop().await;
}

#[tokio::test]
async fn a_refused_batch_breaks_the_tunnel_and_names_its_receivers() {
    let mut scene = Scene::start().await;
    let to = minors(&[3, 1]);
    scene.tunnel.send(&numbers([1]), &to).await.unwrap();
    scene.acknowledge(2, 0).await;
    scene.acknowledge(3, -1).await;
    let error = scene.tunnel.flush().await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("receivers 1:3,1 did not accept"), "{text}");
    assert!(!is_retryable(&error));
    let broken = scene.send(2).await.unwrap_err();
    assert!(matches!(broken, TunnelError::Broken { .. }));
    scene.stop().await;
}

#[tokio::test]
async fn a_lost_connection_breaks_the_tunnel_and_not_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, ledger) = (listener.local_addr().unwrap(), ledger());
    let client = client(address, &ledger);
    for _ in 0..2 {
        let mut tunnel = tunnel(client.clone());
        let server = async {
            let mut server = Peer::over(listener.accept().await.unwrap().0);
            welcome(&mut server, 4).await;
            batch_of(&server.frame().await);
        };
        let (batch, to) = (numbers([1]), minors(&[0]));
        let sent = async {
            tunnel.send(&batch, &to).await.unwrap();
            tunnel.flush().await.unwrap_err()
        };
        let (error, ()) = tokio::join!(sent, server);
        assert!(matches!(error, TunnelError::Call { .. }), "{error}");
        assert!(is_retryable(&error), "another connection may hold");
    }
    drop(client);
    settled(&ledger).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_or_speaks_another_version_is_told() {
    let ledger = ledger();
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let mut lonely = tunnel(client(nobody, &ledger));
    let error = lonely.send(&numbers([1]), &minors(&[0])).await.unwrap_err();
    assert!(matches!(error, TunnelError::Connect { .. }), "{error}");
    assert!(is_retryable(&error));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut tunnel = tunnel(client(listener.local_addr().unwrap(), &ledger));
    let server = async {
        let mut server = Peer::over(listener.accept().await.unwrap().0);
        welcome(&mut server, 3).await;
        assert!(server.next().await.is_none());
    };
    let (batch, to) = (numbers([1]), minors(&[0]));
    let (error, ()) = tokio::join!(tunnel.send(&batch, &to), server);
    let error = error.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("expected rpc version 4 of the data plane, found 3"),
        "{text}"
    );
    assert!(!is_retryable(&error));
    drop((tunnel, lonely));
    settled(&ledger).await;
}

#[tokio::test]
async fn large_batches_are_split_and_only_the_last_piece_is_the_last() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ledger = ledger();
    let client = client(listener.local_addr().unwrap(), &ledger);
    let options = TunnelOptions {
        batch_bytes_target: 8_000,
        ..TunnelOptions::default()
    };
    let major = MajorFragmentId(RECEIVING);
    let mut tunnel = DataTunnel::new(client, runtime(), sender(0), major, options);
    let server = async {
        let mut server = Peer::over(listener.accept().await.unwrap().0);
        welcome(&mut server, 4).await;
        let mut seen = Vec::new();
        loop {
            let frame = server.frame().await;
            let (id, batch) = batch_of(&frame);
            let rows = batch.def.unwrap().record_count();
            seen.push((rows, frame.raw.len(), batch.is_last_batch));
            let ack = AckWithCredit::default();
            server.respond::<BatchCall>(id, &ack).await;
            if batch.is_last_batch == Some(true) {
                return seen;
            }
        }
    };
    let (batch, to) = (numbers(0..2_500), minors(&[0, 1]));
    let send = async {
        tunnel.send_last(&batch, &to).await.unwrap();
        tunnel.flush().await.unwrap()
    };
    let (stats, seen) = tokio::join!(send, server);
    // A nullable column would take a byte more each; split() counts an offset of four for each value.
    let rows: i32 = seen.iter().map(|piece| piece.0).sum();
    assert_eq!(rows, 2_500);
    assert!(
        seen.len() > 2 && seen.iter().all(|piece| piece.1 <= 8_000),
        "{seen:?}"
    );
    let (last, before) = seen.split_last().unwrap();
    assert_eq!(last.2, Some(true));
    assert!(before.iter().all(|piece| piece.2 == Some(false)));
    assert_eq!(stats.batches, seen.len() as u64);
    drop(tunnel);
    settled(&ledger).await;
}

#[tokio::test]
async fn a_runtime_filter_passes_a_full_window() {
    let mut scene = Scene::start().await;
    scene.send(1).await.unwrap();
    scene.send(2).await.unwrap();
    let filter = RuntimeFilter {
        fragment: sender(0),
        to_foreman: false,
        join_operator: 3,
        identifier: 9,
        filters: vec![("k".to_owned(), Bytes::from_static(b"bits"))],
    };
    for credit in [0, -1] {
        let Scene { tunnel, server, .. } = &mut scene;
        let answering = async {
            let frame = loop {
                let frame = server.frame().await;
                if frame.rpc_type == FilterCall::REQUEST {
                    break frame;
                }
            };
            assert_eq!(
                (frame.mode, &frame.raw[..]),
                (RpcMode::Request, &b"bits"[..])
            );
            let ack = AckWithCredit {
                allowed_credit: Some(credit),
            };
            server.respond::<FilterCall>(frame.id, &ack).await;
        };
        let (sent, ()) = tokio::join!(tunnel.send_runtime_filter(&filter), answering);
        assert_eq!(sent.is_ok(), credit == 0);
    }
    for id in [2, 3, 4] {
        scene.acknowledge(id, 0).await;
    }
    scene.tunnel.flush().await.unwrap();
    scene.stop().await;
}

#[tokio::test]
async fn a_value_without_a_place_in_drills_vectors_is_named_before_anything_is_sent() {
    let nobody = client(SocketAddr::from(([127, 0, 0, 1], 1)), &ledger());
    let large: ArrayRef = Arc::new(UInt64Array::from(vec![0, u64::MAX]));
    let batch = RecordBatch::try_from_iter([("large", large)]).unwrap();
    let sent = tunnel(nobody).send(&batch, &minors(&[0])).await;
    let error = sent.unwrap_err();
    assert!(matches!(error, TunnelError::Encode { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("large") && text.contains("row 1"), "{text}");
}
