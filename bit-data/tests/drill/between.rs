//! Both sides are ours: what is sent is what is received.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Date64Array, Decimal128Array, Float32Array,
        Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, Time32MillisecondArray,
        TimestampMillisecondArray,
    },
    datatypes::SchemaRef,
};
use bit_data::drill::{
    BatchStream, Credit, DataTunnel, Input, Order, ReceiveError, TunnelError, TunnelOptions,
};
use bit_data::{DataClient, DataServerOptions, DataTarget, NoStreams};
use futures::StreamExt;
use protos::{calls::data, id::MajorFragmentId};
use rpc_bus::{
    CallOptions, ConnectError, RetryOptions, RetryPolicy,
    auth::{AuthOptions, Authenticator, Credentials, Login, Users},
    ledger::Limits,
};

use crate::support::{Node, RECEIVING, input, minors, numbers, receiver, request, runtime, sender};

fn client(node: &Node) -> DataClient {
    let target = DataTarget::new(node.address(), node.ledger.clone());
    let policy = RetryPolicy::try_new(RetryOptions::default()).unwrap();
    DataClient::try_new(target, runtime(), policy).unwrap()
}

fn tunnel(client: &DataClient, minor: i32) -> DataTunnel {
    let (major, options) = (MajorFragmentId(RECEIVING), TunnelOptions::default());
    DataTunnel::new(client.clone(), runtime(), sender(minor), major, options)
}

/// Scalar types of Drill that the Arrow types alone ask for, with nulls.
fn scalars(seed: i32, rows: i32) -> RecordBatch {
    let values = || (0..rows).map(move |row| (row % 5 != 3).then_some(seed * 1000 + row));
    macro_rules! column {
        ($name:literal, $array:ty, $value:ident => $made:expr) => {{
            let values = values().map(|value| value.map(|$value| $made));
            (
                $name,
                Arc::new(values.collect::<$array>()) as ArrayRef,
                true,
            )
        }};
    }
    let decimals = values().map(|value| value.map(i128::from));
    let decimals = decimals.collect::<Decimal128Array>();
    let decimals = decimals.with_precision_and_scale(20, 3).unwrap();
    RecordBatch::try_from_iter_with_nullable([
        column!("int", Int32Array, v => v),
        column!("bigint", Int64Array, v => i64::from(v) << 20),
        column!("float4", Float32Array, v => f32::from(i16::try_from(v % 30_000).unwrap()) / 2.0),
        column!("float8", Float64Array, v => f64::from(v) / 4.0),
        column!("bit", BooleanArray, v => v % 2 == 0),
        column!("varchar", StringArray, v => format!("row {v}")),
        column!("varbinary", BinaryArray, v => v.to_be_bytes()),
        column!("date", Date64Array, v => i64::from(v) * 86_400_000),
        column!("time", Time32MillisecondArray, v => v),
        column!("timestamp", TimestampMillisecondArray, v => i64::from(v)),
        ("decimal", Arc::new(decimals), true),
    ])
    .unwrap()
}

/// Reads to the end; with each batch, its sender.
async fn all(mut stream: BatchStream) -> Vec<(i32, RecordBatch)> {
    let mut batches = Vec::new();
    while let Some(next) = stream.next().await {
        let (sender, batch) = next.unwrap();
        batches.push((sender.0, batch));
    }
    batches
}

#[tokio::test]
async fn every_scalar_type_arrives_as_it_was_sent() {
    let node = Node::start().await;
    let client = client(&node);
    let stream = node.receive(receiver(0), &[0, 1]);
    let send = async |minor: i32| {
        let mut tunnel = tunnel(&client, minor);
        for seed in 0..100 {
            tunnel
                .send(&scalars(seed, 1 + seed * 7), &minors(&[0]))
                .await
                .unwrap();
        }
        tunnel.end(&minors(&[0])).await.unwrap();
        tunnel.flush().await.unwrap()
    };
    let (first, second, received) = tokio::join!(send(0), send(1), all(stream));
    assert_eq!((first.batches, second.batches), (101, 101));
    for minor in [0, 1] {
        let of_sender = received.iter().filter(|(sender, _)| *sender == minor);
        let batches: Vec<_> = of_sender.map(|(_, batch)| batch).collect();
        assert_eq!(batches.len(), 100);
        for (seed, batch) in (0..).zip(batches) {
            assert_eq!(*batch, scalars(seed, 1 + seed * 7));
        }
    }
    drop((client, received));
    node.stop().await;
}

#[tokio::test]
async fn an_empty_batch_tells_the_columns_once() {
    let node = Node::start().await;
    let client = client(&node);
    let stream = node.receive(receiver(0), &[0]);
    let mut tunnel = tunnel(&client, 0);
    let empty = scalars(0, 0);
    for batch in [&empty, &empty, &scalars(1, 3), &empty] {
        tunnel.send(batch, &minors(&[0])).await.unwrap();
    }
    tunnel.send_last(&empty, &minors(&[0])).await.unwrap();
    let (received, flushed) = tokio::join!(all(stream), tunnel.flush());
    flushed.unwrap();
    let rows: Vec<_> = received.iter().map(|(_, batch)| batch.num_rows()).collect();
    assert_eq!(rows, [0, 3]);
    let schema: SchemaRef = received[0].1.schema();
    assert_eq!(schema.fields().len(), 11);
    drop((tunnel, client));
    node.stop().await;
}

#[tokio::test]
async fn a_receiver_that_asks_for_more_gets_a_wider_window() {
    let node = Node::start().await;
    let client = client(&node);
    let wide = Input {
        credit: Credit::of_batches(20),
        ..input(&[0], Order::AsTheyCome)
    };
    let streams = node
        .fragments
        .register(receiver(0), vec![wide], &node.ledger);
    let stream = streams.unwrap().remove(0).remove(0);
    let mut tunnel = tunnel(&client, 0);
    tunnel.send(&numbers([1]), &minors(&[0])).await.unwrap();
    assert_eq!(tunnel.flush().await.unwrap().window_batches, 20);
    drop((stream, tunnel, client));
    node.stop().await;
}

#[tokio::test]
async fn a_receiver_that_does_not_read_holds_back_its_sender_and_nobody_else() {
    let node = Node::start().await;
    let client = client(&node);
    let (slow, quick) = (
        node.receive(receiver(0), &[0]),
        node.receive(receiver(1), &[1]),
    );
    let mut held = tunnel(&client, 0);
    // Six are answered when they come, three may be unanswered.
    for value in 0..9 {
        held.send(&numbers([value]), &minors(&[0])).await.unwrap();
    }
    let quick_one = async {
        let mut tunnel = tunnel(&client, 1);
        for value in 0..500 {
            tunnel.send(&numbers([value]), &minors(&[1])).await.unwrap();
        }
        tunnel.end(&minors(&[1])).await.unwrap();
        tunnel.flush().await.unwrap();
    };
    let (batch, to) = (numbers([9]), minors(&[0]));
    let mut tenth = Box::pin(held.send(&batch, &to));
    let done = tokio::select! {
        done = async { tokio::join!(quick_one, all(quick)).1 } => done,
        _ = &mut tenth => panic!("nobody has read"),
    };
    assert_eq!(done.len(), 500);
    let (sent, read) = tokio::join!(&mut tenth, slow.take(10).collect::<Vec<_>>());
    sent.unwrap();
    assert_eq!(read.len(), 10);
    drop(tenth);
    drop((held, client));
    node.stop().await;
}

#[tokio::test]
async fn a_budget_that_is_spent_fails_both_sides_and_names_itself() {
    let node = Node::start().await;
    let client = client(&node);
    let limits = Limits {
        bytes: Some(100_000),
        ..Limits::default()
    };
    let budget = node.ledger.child("a small budget", limits);
    let inputs = vec![input(&[0, 1, 2], Order::AsTheyCome)];
    let streams = node.fragments.register(receiver(0), inputs, &budget);
    let mut stream = streams.unwrap().remove(0).remove(0);
    let batch = numbers(0..3_000);
    let mut tunnels = [0, 1, 2].map(|minor| tunnel(&client, minor));
    // Three of them are within half of the budget and answered at once; the fifth is too many.
    for tunnel in &mut tunnels {
        for _ in 0..2 {
            tunnel.send(&batch, &minors(&[0])).await.unwrap();
        }
    }
    assert!(tunnels[0].flush().await.is_ok());
    for tunnel in &mut tunnels[1..] {
        let flushed = tunnel.flush().await;
        assert!(
            matches!(flushed, Err(TunnelError::Refused { .. })),
            "{flushed:?}"
        );
    }
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ReceiveError::Budget { .. }), "{error}");
    assert!(error.to_string().contains("a small budget"), "{error}");
    assert!(budget.is_zero());
    drop((stream, tunnels, client));
    node.stop().await;
}

/// `alice` with the password `wonder`, by SCRAM and PLAIN.
const ALICE: &str = "alice:SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==\
    $CaLYHywcJJwGkxn3DQdeS8kbSBx2ohTghe9FMhLvNfY=:XNzVXxVNZtfGAF9/RGkkhwfZgP2xupySxCQaLqOHPe4=";

#[tokio::test]
async fn a_server_with_users_lets_in_those_who_prove_who_they_are() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, ALICE).unwrap();
    let users = Arc::new(Users::from_file(file.path()).unwrap());
    let authenticator = Authenticator::new(users, AuthOptions::default(), runtime()).unwrap();
    let node = Node::with(DataServerOptions {
        authenticator: Some(Arc::new(authenticator)),
        ..DataServerOptions::default()
    })
    .await;
    // Connections live no longer than their runtime.
    let bus = runtime();
    let login = |password: &str| {
        let (user, password) = ("alice".to_owned(), password.to_owned().into());
        Login::new(Credentials { user, password })
    };
    let connect = async |login: Option<Login>| {
        let mut target = DataTarget::new(node.address(), node.ledger.clone());
        target.login = login;
        bit_data::connect(target, &bus, Arc::new(NoStreams)).await
    };
    assert!(matches!(connect(None).await, Err(ConnectError::NoLogin)));
    let wrong = connect(Some(login("wander"))).await;
    assert!(matches!(wrong, Err(ConnectError::Login(_))), "{wrong:?}");
    let connection = connect(Some(login("wonder"))).await.unwrap();
    let (request, body) = request(0, &[], 1);
    let answer =
        connection.call::<data::RecordBatch>(&request, vec![body.into()], CallOptions::default());
    let answer = answer.await.unwrap().message;
    assert_eq!(answer.allowed_credit(), -1, "for nobody, but heard");
    drop((connection, bus));
    node.stop().await;
}

#[tokio::test]
async fn one_batch_for_several_nodes_is_encoded_once() {
    let nodes = [Node::start().await, Node::start().await];
    let clients = [client(&nodes[0]), client(&nodes[1])];
    let streams = [(0, &nodes[0]), (1, &nodes[1])];
    let streams = streams.map(|(minor, node)| node.receive(receiver(minor), &[5]));
    let batch = scalars(3, 1000);
    let encoder = record_batch::Encoder::try_new(&batch.schema()).unwrap();
    let body = encoder.encode(&batch).unwrap();
    for (minor, client) in (0..).zip(&clients) {
        let mut tunnel = tunnel(client, 5);
        let to = minors(&[minor]);
        tunnel.send_encoded(body.clone(), &to).await.unwrap();
        tunnel.end(&to).await.unwrap();
        tunnel.flush().await.unwrap();
    }
    for stream in streams {
        assert_eq!(all(stream).await, [(5, batch.clone())]);
    }
    drop(clients);
    for node in nodes {
        node.stop().await;
    }
}
