//! The server against a client by hand, over real sockets.
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the support is shared with the client's tests"
)]

mod support;

use std::{collections::HashMap, time::Duration};

use arrow::{array::AsArray, datatypes::Int64Type};
use protos::{
    Call,
    calls::user::{
        CancelQuery, CreatePreparedStatement, GetCatalogs, GetQueryPlanFragments, GetServerMeta,
        Handshake, QueryData, QueryResult, ResumePausedQuery, RunQuery, SaslMessage,
    },
    error::ErrorType,
    rpc::RpcMode,
    shared::{self, DrillPbError, QueryId, QueryType, query_result::QueryState},
    user::{self, HandshakeStatus, RequestStatus, UserToBitHandshake},
};
use rpc_bus::ConnectionOptions;
use user_server::{SERVER_NAME, UserServerOptions};

use support::{
    TestServer,
    engine::BATCH_ROWS,
    peer::{Frame, Peer},
    until,
};

/// golden/user/handshake, frame 0: the JDBC driver's handshake.
const JDBC_HANDSHAKE: &[u8] = &[
    0x93, 0x01, 0x0a, 0x06, 0x08, 0x00, 0x10, 0x01, 0x18, 0x00, 0x12, 0x88, 0x01, 0x10, 0x01, 0x18,
    0x05, 0x22, 0x0b, 0x0a, 0x09, 0x61, 0x6e, 0x6f, 0x6e, 0x79, 0x6d, 0x6f, 0x75, 0x73, 0x2a, 0x38,
    0x0a, 0x19, 0x0a, 0x0c, 0x73, 0x65, 0x72, 0x76, 0x69, 0x63, 0x65, 0x5f, 0x68, 0x6f, 0x73, 0x74,
    0x12, 0x09, 0x31, 0x32, 0x37, 0x2e, 0x30, 0x2e, 0x30, 0x2e, 0x31, 0x0a, 0x1b, 0x0a, 0x08, 0x64,
    0x72, 0x69, 0x6c, 0x6c, 0x62, 0x69, 0x74, 0x12, 0x0f, 0x31, 0x32, 0x37, 0x2e, 0x30, 0x2e, 0x30,
    0x2e, 0x31, 0x3a, 0x34, 0x31, 0x31, 0x31, 0x30, 0x30, 0x01, 0x38, 0x01, 0x42, 0x35, 0x0a, 0x18,
    0x41, 0x70, 0x61, 0x63, 0x68, 0x65, 0x20, 0x44, 0x72, 0x69, 0x6c, 0x6c, 0x20, 0x4a, 0x44, 0x42,
    0x43, 0x20, 0x44, 0x72, 0x69, 0x76, 0x65, 0x72, 0x12, 0x06, 0x31, 0x2e, 0x32, 0x32, 0x2e, 0x30,
    0x18, 0x01, 0x20, 0x16, 0x28, 0x00, 0x32, 0x07, 0x32, 0x34, 0x35, 0x38, 0x40, 0x76, 0x6d, 0x38,
    0x00, 0x42, 0x00, 0x48, 0x02,
];

async fn start() -> TestServer {
    TestServer::start(UserServerOptions::default()).await
}

fn hello(version: i32) -> UserToBitHandshake {
    UserToBitHandshake {
        rpc_version: Some(version),
        support_timeout: Some(true),
        ..UserToBitHandshake::default()
    }
}

/// A client behind its handshake.
async fn open(server: &TestServer) -> Peer {
    let mut peer = Peer::connect(server.address()).await;
    peer.request::<Handshake>(1, &hello(5)).await;
    assert_eq!(
        peer.frame().await.reply::<Handshake>().status(),
        HandshakeStatus::Success
    );
    peer
}

fn sql(text: &str) -> user::RunQuery {
    user::RunQuery {
        r#type: Some(QueryType::Sql.into()),
        plan: Some(text.to_owned()),
        ..user::RunQuery::default()
    }
}

/// Sends a statement and waits for its name. Data may come first and is given back.
async fn run(peer: &mut Peer, id: i32, text: &str) -> (QueryId, Vec<Frame>) {
    peer.request::<RunQuery>(id, &sql(text)).await;
    let mut early = Vec::new();
    loop {
        let frame = peer.frame().await;
        if frame.mode == RpcMode::Request {
            early.push(frame);
        } else {
            assert_eq!(frame.id, id);
            return (frame.reply::<RunQuery>(), early);
        }
    }
}

/// What came of a query whose batches were acknowledged at once.
struct Outcome {
    result: shared::QueryResult,
    batches: Vec<shared::QueryData>,
    values: Vec<i64>,
}

impl Outcome {
    fn state(&self) -> QueryState {
        self.result.query_state()
    }

    fn error(&self) -> &DrillPbError {
        assert_eq!(self.state(), QueryState::Failed);
        &self.result.error[0]
    }
}

async fn outcome(peer: &mut Peer, text: &str) -> Outcome {
    let (id, mut frames) = run(peer, 7, text).await;
    frames.reverse();
    let (mut batches, mut values) = (Vec::new(), Vec::new());
    loop {
        let frame = match frames.pop() {
            Some(frame) => frame,
            None => peer.frame().await,
        };
        peer.acknowledge(frame.id, true).await;
        if frame.is_request::<QueryResult>() {
            let result: shared::QueryResult = frame.message();
            assert_eq!(result.query_id, Some(id));
            return Outcome {
                result,
                batches,
                values,
            };
        }
        let data = batch(&frame);
        assert_eq!(data.query_id, Some(id));
        values.extend(numbers(&frame));
        batches.push(data);
    }
}

fn batch(frame: &Frame) -> shared::QueryData {
    assert!(frame.is_request::<QueryData>(), "{frame:?}");
    frame.message()
}

fn numbers(frame: &Frame) -> Vec<i64> {
    let def = batch(frame).def.unwrap();
    let batch = record_batch::decode(&def, &frame.raw, &record_batch::DecodeOptions::default());
    batch
        .unwrap()
        .column(0)
        .as_primitive::<Int64Type>()
        .values()
        .to_vec()
}

async fn failure(peer: &mut Peer, id: i32) -> DrillPbError {
    let frame = peer.frame().await;
    assert_eq!(
        (frame.mode, frame.id),
        (RpcMode::ResponseFailure, id),
        "{frame:?}"
    );
    frame.message()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_handshake_of_the_jdbc_driver_is_answered() {
    let server = start().await;
    let mut peer = Peer::connect(server.address()).await;
    peer.send_bytes(JDBC_HANDSHAKE).await;
    let reply = peer.frame().await.reply::<Handshake>();
    assert_eq!(
        (reply.rpc_version(), reply.status()),
        (5, HandshakeStatus::Success)
    );
    assert_eq!(reply.server_infos.unwrap().name(), SERVER_NAME);
    peer.request::<GetServerMeta>(2, &user::GetServerMetaReq {})
        .await;
    let meta = peer.frame().await.reply::<GetServerMeta>();
    assert_eq!(meta.status(), RequestStatus::Ok);
    assert_eq!(meta.server_meta.unwrap().identifier_quote_string(), "`");
    peer.send(RpcMode::Ping, 0, 0, &[8, 1], &[]).await;
    assert_eq!(peer.frame().await.mode, RpcMode::Pong);
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_told_so_and_closed() {
    let server = start().await;
    let mut peer = Peer::connect(server.address()).await;
    peer.request::<Handshake>(1, &hello(4)).await;
    let reply = peer.frame().await.reply::<Handshake>();
    assert_eq!(reply.status(), HandshakeStatus::RpcVersionMismatch);
    assert_eq!(
        reply.error_message(),
        "Invalid rpc version. Expected 5, actual 4."
    );
    assert!(peer.next().await.is_none());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rows_come_once_and_in_order() {
    let server = start().await;
    let mut peer = open(&server).await;
    let outcome = outcome(&mut peer, "rows 100000").await;
    assert_eq!(outcome.state(), QueryState::Completed);
    assert_eq!(outcome.values, (0..100_000).collect::<Vec<_>>());
    assert!(
        outcome
            .batches
            .iter()
            .all(|batch| batch.row_count() <= 32 * 1024)
    );
    assert_eq!(
        i64::from(outcome.batches[0].row_count()),
        BATCH_ROWS,
        "the first one goes alone"
    );
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_without_rows_is_one_batch_with_its_columns() {
    let server = start().await;
    let mut peer = open(&server).await;
    let outcome = outcome(&mut peer, "rows 0").await;
    assert_eq!(outcome.state(), QueryState::Completed);
    let [batch] = &outcome.batches[..] else {
        panic!("one batch")
    };
    let field = &batch.def.as_ref().unwrap().field[0];
    assert_eq!(
        (batch.row_count(), field.name_part.as_ref().unwrap().name()),
        (0, "n")
    );
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_one_name_are_told_apart() {
    let server = start().await;
    let mut peer = open(&server).await;
    let outcome = outcome(&mut peer, "twins").await;
    let fields = &outcome.batches[0].def.as_ref().unwrap().field;
    let names: Vec<_> = fields
        .iter()
        .map(|field| field.name_part.as_ref().unwrap().name())
        .collect();
    assert_eq!(names, ["a", "a0"]);
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_acknowledge_holds_the_window_and_no_more() {
    let server = start().await;
    let mut peer = open(&server).await;
    let (slow, early) = run(&mut peer, 2, "rows 100000000").await;
    let mut unacknowledged = early;
    while unacknowledged.len() < 8 {
        unacknowledged.push(peer.frame().await);
    }
    assert!(
        unacknowledged
            .iter()
            .all(|frame| batch(frame).query_id == Some(slow))
    );
    // A whole other query goes by without a ninth batch of the first one.
    assert_eq!(
        outcome(&mut peer, "rows 100000").await.state(),
        QueryState::Completed
    );
    peer.acknowledge(unacknowledged[0].id, true).await;
    assert_eq!(batch(&peer.frame().await).query_id, Some(slow));
    drop(peer);
    server.idle().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_limit_the_window_too() {
    let options = UserServerOptions {
        unacked_bytes_max: 1,
        ..UserServerOptions::default()
    };
    let server = TestServer::start(options).await;
    let mut peer = open(&server).await;
    let (slow, mut first) = run(&mut peer, 2, "rows 1000000").await;
    if first.is_empty() {
        first.push(peer.frame().await);
    }
    assert_eq!(
        outcome(&mut peer, "rows 10").await.state(),
        QueryState::Completed
    );
    peer.acknowledge(first[0].id, true).await;
    assert_eq!(batch(&peer.frame().await).query_id, Some(slow));
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_fails_the_query() {
    let server = start().await;
    let mut peer = open(&server).await;
    let (_, mut frames) = run(&mut peer, 2, "rows 100000000").await;
    if frames.is_empty() {
        frames.push(peer.frame().await);
    }
    peer.acknowledge(frames[0].id, false).await;
    let result: shared::QueryResult = loop {
        let frame = peer.frame().await;
        if frame.is_request::<QueryResult>() {
            break frame.message();
        }
    };
    assert_eq!(result.query_state(), QueryState::Failed);
    assert_eq!(result.error[0].error_type(), ErrorType::System);
    server.idle().await;
    drop(peer);
    server.stop().await;
}

/// Cancels and gives the result; data that is on its way is acknowledged.
async fn cancelled(peer: &mut Peer, query: QueryId) -> shared::QueryResult {
    peer.request::<CancelQuery>(9, &query).await;
    let mut acknowledged = false;
    loop {
        let frame = peer.frame().await;
        match frame.mode {
            RpcMode::Response => {
                assert!(frame.reply::<CancelQuery>().ok());
                acknowledged = true;
            }
            _ if frame.is_request::<QueryResult>() => {
                assert!(
                    acknowledged,
                    "the acknowledgement does not wait for the end"
                );
                return frame.message();
            }
            _ => peer.acknowledge(frame.id, true).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_ends_a_query_wherever_it_is() {
    let server = start().await;
    let mut peer = open(&server).await;
    // Being planned, streaming, and waiting for the engine's next batch.
    for text in ["hang", "rows 100000000", "stalls 1", "stalls 0"] {
        let (query, _) = run(&mut peer, 2, text).await;
        let result = cancelled(&mut peer, query).await;
        assert_eq!(
            (result.query_state(), result.query_id),
            (QueryState::Canceled, Some(query))
        );
        server.idle().await;
    }
    assert_eq!(
        outcome(&mut peer, "rows 1").await.state(),
        QueryState::Completed
    );
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_of_an_unknown_query_is_acknowledged() {
    let server = start().await;
    let mut peer = open(&server).await;
    let unknown = QueryId {
        part1: Some(1),
        part2: Some(2),
    };
    peer.request::<CancelQuery>(2, &unknown).await;
    assert!(peer.frame().await.reply::<CancelQuery>().ok());
    peer.request::<ResumePausedQuery>(3, &unknown).await;
    assert!(peer.frame().await.reply::<ResumePausedQuery>().ok());
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_connection_ends_its_queries() {
    let server = start().await;
    let mut peer = open(&server).await;
    for (id, text) in [(2, "hang"), (3, "stalls 1"), (4, "rows 100000000")] {
        peer.request::<RunQuery>(id, &sql(text)).await;
    }
    until("all are listed", || server.server.queries().len() == 3).await;
    drop(peer);
    server.idle().await;
    until("none is listed", || server.server.queries().is_empty()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_engine_are_results() {
    let server = start().await;
    let mut peer = open(&server).await;
    let expected = HashMap::from([
        ("nonsense", ErrorType::Parse),
        ("late 3", ErrorType::DataRead),
        ("panic", ErrorType::InternalError),
        ("panics 3", ErrorType::InternalError),
    ]);
    for (text, error_type) in expected {
        let outcome = outcome(&mut peer, text).await;
        let error = outcome.error();
        assert_eq!(error.error_type(), error_type, "{text}");
        let id = format!(
            "[Error Id: {} on 127.0.0.1:{}]",
            error.error_id(),
            server.address().port()
        );
        assert!(error.message().ends_with(&id), "{error:?}");
        assert!(error.message().starts_with(error_type.as_str_name()));
        assert_eq!(
            error.endpoint.as_ref().unwrap().user_port(),
            i32::from(server.address().port())
        );
        server.idle().await;
    }
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_refused_by_name_and_the_connection_goes_on() {
    let server = start().await;
    let mut peer = open(&server).await;
    for (rpc_type, name) in [
        (GetCatalogs::REQUEST, "GET_CATALOGS"),
        (
            CreatePreparedStatement::REQUEST,
            "CREATE_PREPARED_STATEMENT",
        ),
        (GetQueryPlanFragments::REQUEST, "GET_QUERY_PLAN_FRAGMENTS"),
        (5, "REQUEST_RESULTS"),
        (99, "99"),
    ] {
        peer.send(RpcMode::Request, 2, rpc_type, &[], &[]).await;
        let error = failure(&mut peer, 2).await;
        assert_eq!(error.error_type(), ErrorType::UnsupportedOperation);
        assert!(error.message().contains(name), "{error:?}");
    }
    peer.send(RpcMode::Request, 3, SaslMessage::REQUEST, &[], &[])
        .await;
    assert_eq!(
        failure(&mut peer, 3).await.error_type(),
        ErrorType::Permission
    );
    peer.send(RpcMode::Request, 4, RunQuery::REQUEST, b"\xff\xff", &[])
        .await;
    failure(&mut peer, 4).await;
    assert_eq!(
        outcome(&mut peer, "rows 1").await.state(),
        QueryState::Completed
    );
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_sql_is_run_and_an_absent_type_is_sql() {
    let server = start().await;
    let mut peer = open(&server).await;
    let physical = user::RunQuery {
        r#type: Some(QueryType::Physical.into()),
        ..sql("{}")
    };
    peer.request::<RunQuery>(2, &physical).await;
    let error = failure(&mut peer, 2).await;
    assert!(error.message().contains("PHYSICAL"), "{error:?}");
    let bare = user::RunQuery {
        plan: Some("rows 0".to_owned()),
        ..user::RunQuery::default()
    };
    peer.request::<RunQuery>(3, &bare).await;
    let frame = peer.frame().await;
    assert!(
        frame.is_request::<QueryData>() || frame.mode == RpcMode::Response,
        "{frame:?}"
    );
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_statements_and_queries_are_errors_of_resource() {
    let options = UserServerOptions {
        queries_per_connection_max: 2,
        ..UserServerOptions::default()
    };
    let server = TestServer::start(options).await;
    let mut peer = open(&server).await;
    peer.request::<RunQuery>(2, &sql(&"x".repeat((1 << 20) + 1)))
        .await;
    assert_eq!(
        failure(&mut peer, 2).await.error_type(),
        ErrorType::Resource
    );
    let (first, _) = run(&mut peer, 3, "hang").await;
    run(&mut peer, 4, "hang").await;
    peer.request::<RunQuery>(5, &sql("rows 1")).await;
    assert_eq!(
        failure(&mut peer, 5).await.error_type(),
        ErrorType::Resource
    );
    cancelled(&mut peer, first).await;
    assert_eq!(
        outcome(&mut peer, "rows 1").await.state(),
        QueryState::Completed
    );
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_limit_of_a_query_reaches_the_engine() {
    let server = start().await;
    let mut peer = open(&server).await;
    let limited = user::RunQuery {
        autolimit_rowcount: Some(2),
        ..sql("rows 100")
    };
    peer.request::<RunQuery>(2, &limited).await;
    let mut rows = 0;
    loop {
        let frame = peer.frame().await;
        match frame.mode {
            RpcMode::Response => {}
            _ if frame.is_request::<QueryResult>() => break,
            _ => {
                rows += batch(&frame).row_count();
                peer.acknowledge(frame.id, true).await;
            }
        }
    }
    assert_eq!(rows, 2);
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_queries_are_shown_with_their_progress() {
    let server = start().await;
    let mut peer = open(&server).await;
    run(&mut peer, 2, "stalls 10").await;
    until("its rows are sent", || {
        server.server.queries().iter().any(|query| query.rows == 10)
    })
    .await;
    let [query] = &server.server.queries()[..] else {
        panic!("one query")
    };
    assert_eq!(
        (&*query.sql, query.state),
        ("stalls 10", QueryState::Running)
    );
    assert!(query.bytes >= 80);
    drop(peer);
    server.idle().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_client_that_can_ping_has_to() {
    let mut options = UserServerOptions::default();
    options.connections.connection = ConnectionOptions {
        idle_timeout: Some(Duration::from_millis(200)),
        ..options.connections.connection
    };
    let server = TestServer::start(options).await;
    let mut silent = Peer::connect(server.address()).await;
    let cannot_ping = UserToBitHandshake {
        support_timeout: None,
        ..hello(5)
    };
    silent.request::<Handshake>(1, &cannot_ping).await;
    silent.frame().await.reply::<Handshake>();
    let mut idle = open(&server).await;
    assert!(idle.next().await.is_none(), "closed for its silence");
    assert_eq!(
        outcome(&mut silent, "rows 1").await.state(),
        QueryState::Completed
    );
    drop(silent);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_shuts_down_lets_running_queries_end() {
    let server = start().await;
    let mut peer = open(&server).await;
    let (_, mut frames) = run(&mut peer, 2, "rows 1").await;
    let stopping = tokio::task::LocalSet::new();
    let ended = stopping.run_until(async {
        let stop = tokio::task::spawn_local(server.stop());
        let mut ended = false;
        loop {
            let frame = match frames.pop() {
                Some(frame) => Some(frame),
                None => peer.next().await,
            };
            let Some(frame) = frame else { break };
            ended |= frame.is_request::<QueryResult>();
            peer.acknowledge(frame.id, true).await;
        }
        stop.await.unwrap();
        ended
    });
    assert!(
        ended.await,
        "the result came before the end of the connection"
    );
}
