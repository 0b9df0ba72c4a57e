//! Against our own server.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{DataType, Int64Type},
};
use client::{Client, ClientError, ClientOptions, QueryEvent, ServerKind};
use fault_proxy::{Flow, Proxy};
use futures::{StreamExt, TryStreamExt, future::try_join_all};
use protos::error::{ErrorType, Retry};
use rpc_bus::{Beats, CloseReason, Ledger, auth::Mechanism, ledger::Kind};
use user_server::{SERVER_NAME, UserServerOptions};

use crate::support::{TestServer, engine::unusual, ledger, runtime, settled, until, users};

/// A server, and a client of it with a ledger of its own.
struct Pair {
    server: TestServer,
    client: Client,
    ledger: Ledger,
}

impl Pair {
    async fn start() -> Self {
        Self::with(UserServerOptions::default(), |_| ()).await
    }

    async fn with(server: UserServerOptions, change: impl FnOnce(&mut ClientOptions)) -> Self {
        let (server, ledger) = (TestServer::start(server).await, ledger());
        let mut options = ClientOptions::new(runtime(), ledger.clone());
        change(&mut options);
        let client = Client::connect(&server.address().to_string(), options)
            .await
            .unwrap();
        Self {
            server,
            client,
            ledger,
        }
    }

    async fn stop(self) {
        drop(self.client);
        self.server.stop().await;
        settled(&self.ledger).await;
    }

    async fn rows(&self, sql: &str) -> Result<Vec<i64>, ClientError> {
        let batches: Vec<_> = self.client.query(sql).await?.try_collect().await?;
        Ok(batches.iter().flat_map(values).collect())
    }

    async fn error(&self, sql: &str) -> ClientError {
        self.rows(sql).await.expect_err("the query fails")
    }
}

fn values(batch: &RecordBatch) -> Vec<i64> {
    batch
        .column(0)
        .as_primitive::<Int64Type>()
        .values()
        .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn our_server_is_known_by_its_name() {
    let pair = Pair::start().await;
    let server = pair.client.server();
    assert_eq!(
        (&*server.name, server.kind),
        (SERVER_NAME, ServerKind::Acknowledged)
    );
    assert!(!server.version.is_empty());
    pair.stop().await;
}

/// A port where nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_servers_the_first_one_that_answers_is_taken() {
    let (one, other) = (
        TestServer::start(UserServerOptions::default()).await,
        TestServer::start(users::only(users::SCRAM)).await,
    );
    let connect = |addresses: String| async move {
        let options = ClientOptions::new(runtime(), ledger());
        let client = Client::connect(&addresses, options).await?;
        Ok::<_, ClientError>(client.server().address)
    };
    let (first, second) = (one.address(), other.address());
    let found = connect(format!("{},nobody.invalid:1, {first},{second}", nobody()));
    assert_eq!(found.await.unwrap(), first);
    // A server that refuses is no reason to ask another one.
    let refused = connect(format!("{second},{first}")).await;
    assert!(
        matches!(refused, Err(ClientError::Authentication { .. })),
        "{refused:?}"
    );
    let gone = nobody();
    let error = connect(format!("{},{gone}", nobody())).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect(_)), "{error:?}");
    one.stop().await;
    other.stop().await;
}

/// As short as they may be.
const BEATS: Beats = Beats {
    interval: Duration::from_millis(100),
    missed_max: 5,
};

/// A client and a server with the network between them lost; what their ends are told.
async fn cut_off(server: Option<Beats>, client: Option<Beats>) -> (TestServer, CloseReason) {
    let mut options = UserServerOptions {
        beats: server,
        ..UserServerOptions::default()
    };
    // Without beats, the client finds out first, by its own time.
    options.connections.connection.idle_timeout = Some(Duration::from_mins(10));
    let server = TestServer::start(options).await;
    let proxy = Proxy::start(server.address(), 1).await.unwrap();
    let mut options = ClientOptions::new(runtime(), ledger());
    options.beats = client;
    options.connection.idle_timeout = Some(Duration::from_secs(1));
    options.connection.ping_interval = Some(Duration::from_millis(100));
    let address = proxy.addr().to_string();
    let client = Client::connect(&address, options).await.unwrap();
    proxy.set_both(|faults| faults.flow = Flow::Lost);
    let reason = client.closed().await;
    (server, reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn client_and_server_find_each_other_dead_within_their_beats() {
    let (server, reason) = cut_off(Some(BEATS), Some(BEATS)).await;
    assert_eq!(reason, CloseReason::PongTimeout(5 * BEATS.interval));
    // The proxy tells the server nothing.
    let files = || server.ledger.used(Kind::Files);
    until("the server has closed its end, too", || files() == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_beats_unless_both_sides_want_them() {
    for (server, client) in [(None, Some(BEATS)), (Some(BEATS), None)] {
        let (server, reason) = cut_off(server, client).await;
        assert_eq!(reason, CloseReason::PongTimeout(Duration::from_millis(900)));
        assert_eq!(server.ledger.used(Kind::Files), 1, "it waits for minutes");
        server.server.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_server_sends_every_arrow_type_as_it_is() {
    let pair = Pair::start().await;
    let result = pair.client.query("types").await.unwrap();
    let batches: Vec<RecordBatch> = result.try_collect().await.unwrap();
    let schema = unusual().schema();
    let expected = concat_batches(&schema, &[unusual(), unusual()]).unwrap();
    assert_eq!(concat_batches(&schema, &batches).unwrap(), expected);
    drop(batches);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_wants_no_arrow_bodies_gets_drills_types() {
    let pair = Pair::with(UserServerOptions::default(), |options| {
        options.arrow_bodies = false;
    })
    .await;
    let result = pair.client.query("types").await.unwrap();
    let batches: Vec<RecordBatch> = result.try_collect().await.unwrap();
    let schema = batches[0].schema();
    let types: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.data_type())
        .collect();
    assert_eq!(types, [&DataType::Date64, &DataType::Utf8, &DataType::Utf8]);
    drop(batches);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_without_rows_tells_its_columns_with_either_body() {
    for arrow_bodies in [true, false] {
        let pair = Pair::with(UserServerOptions::default(), |options| {
            options.arrow_bodies = arrow_bodies;
        })
        .await;
        let mut result = pair.client.query("rows 0").await.unwrap();
        let event = result.next_event().await.unwrap().unwrap();
        let QueryEvent::Schema(schema) = event else {
            panic!("{event:?}")
        };
        assert_eq!(schema.field(0).name(), "n");
        assert_eq!(result.next_event().await.unwrap(), None);
        pair.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_rows_come_once_and_in_order() {
    let pair = Pair::start().await;
    assert!(
        pair.rows("rows 1000000")
            .await
            .unwrap()
            .into_iter()
            .eq(0..1_000_000)
    );
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_queries_at_once_share_the_connection() {
    let pair = Pair::start().await;
    let queries = (1..=8).map(|n| {
        let pair = &pair;
        async move {
            let rows = pair.rows(&format!("rows {}", n * 50_000)).await?;
            assert!(rows.into_iter().eq(0..n * 50_000));
            Ok::<_, ClientError>(())
        }
    });
    try_join_all(queries).await.unwrap();
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_stops_the_server_and_nobody_else() {
    let pair = Pair::start().await;
    let mut slow = pair.client.query("rows 5000000").await.unwrap();
    let first = slow.next().await.unwrap().unwrap();
    assert_eq!(values(&first)[0], 0);
    // Other queries go by; meanwhile the slow one gets no further than its window.
    for _ in 0..3 {
        pair.rows("rows 100000").await.unwrap();
    }
    let sent = pair.server.server.queries()[0].rows;
    assert!(sent <= 10 * 32 * 1024, "{sent} rows were sent");
    let mut rows = first.num_rows();
    while let Some(batch) = slow.try_next().await.unwrap() {
        rows += batch.num_rows();
    }
    assert_eq!(rows, 5_000_000);
    drop((first, slow));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_without_rows_has_columns() {
    let pair = Pair::start().await;
    let mut result = pair.client.query("rows 0").await.unwrap();
    let Some(QueryEvent::Schema(schema)) = result.next_event().await.unwrap() else {
        panic!("columns")
    };
    assert_eq!(schema.field(0).name(), "n");
    assert_eq!(result.next_event().await.unwrap(), None);
    assert_eq!(result.schema(), Some(schema));
    drop(result);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_has_type_id_and_node() {
    let pair = Pair::start().await;
    let error = pair.error("nonsense").await;
    let ClientError::Remote(remote) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (remote.error_type, remote.retry),
        (ErrorType::Parse, Retry::Never)
    );
    assert!(remote.message.contains(error.error_id().unwrap()));
    assert_eq!(error.node(), Some(&*pair.server.address().to_string()));
    assert!(!error.is_retryable());
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_before_a_failure_are_delivered() {
    let pair = Pair::start().await;
    let mut result = pair.client.query("late 10").await.unwrap();
    assert_eq!(result.next().await.unwrap().unwrap().num_rows(), 10);
    assert!(matches!(
        result.next().await,
        Some(Err(ClientError::Remote(_)))
    ));
    assert!(result.next().await.is_none(), "nothing follows an error");
    drop(result);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_is_worth_another_try() {
    let options = UserServerOptions {
        queries_per_connection_max: 1,
        ..UserServerOptions::default()
    };
    let pair = Pair::with(options, |_| ()).await;
    let running = pair.client.query("hang").await.unwrap();
    let error = pair.error("rows 1").await;
    assert!(matches!(&error, ClientError::Remote(e) if e.error_type == ErrorType::Resource));
    assert!(error.is_retryable());
    drop(running);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_ends_the_stream_with_an_error() {
    let pair = Pair::start().await;
    let mut result = pair.client.query("stalls 1").await.unwrap();
    assert_eq!(result.next().await.unwrap().unwrap().num_rows(), 1);
    result.cancel().await.unwrap();
    assert!(matches!(
        result.next().await,
        Some(Err(ClientError::Canceled))
    ));
    assert!(result.next().await.is_none());
    pair.server.idle().await;
    drop(result);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_stream_cancels_the_query() {
    let pair = Pair::start().await;
    for sql in ["rows 100000000", "hang", "stalls 1"] {
        let mut result = pair.client.query(sql).await.unwrap();
        if sql != "hang" {
            result.next().await.unwrap().unwrap();
        }
        drop(result);
        pair.server.idle().await;
    }
    assert_eq!(pair.rows("rows 3").await.unwrap(), [0, 1, 2]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_nobody_waits_for_is_cancelled() {
    let pair = Pair::start().await;
    let mut query = Box::pin(pair.client.query("hang"));
    // Polled once: it is on its way.
    assert!(futures::poll!(&mut query).is_pending());
    drop(query);
    pair.server.idle().await;
    until("no query is listed", || {
        pair.server.server.queries().is_empty()
    })
    .await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_server_is_a_typed_error() {
    let pair = Pair::start().await;
    let mut result = pair.client.query("stalls 1").await.unwrap();
    result.next().await.unwrap().unwrap();
    drop(pair.server);
    let error = result.next().await.unwrap().unwrap_err();
    assert!(
        matches!(error, ClientError::Lost(_)) && error.is_retryable(),
        "{error:?}"
    );
    let error = pair.client.query("rows 1").await.unwrap_err();
    assert!(matches!(error, ClientError::Lost(_)), "{error:?}");
    drop((result, pair.client));
    settled(&pair.ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_outlives_its_client() {
    let pair = Pair::start().await;
    let result = pair.client.query("rows 100000").await.unwrap();
    drop(pair.client);
    let batches: Vec<_> = result.try_collect().await.unwrap();
    assert!(batches.iter().flat_map(values).eq(0..100_000));
    drop(batches);
    pair.server.stop().await;
    settled(&pair.ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_limit_and_the_schema_reach_the_server() {
    let pair = Pair::with(UserServerOptions::default(), |options| {
        options.autolimit_rows = Some(2);
    });
    let pair = pair.await;
    assert_eq!(pair.rows("rows 100").await.unwrap(), [0, 1]);
    pair.stop().await;
    let pair = Pair::with(UserServerOptions::default(), |options| {
        options.schema = Some("nowhere".to_owned());
    });
    let pair = pair.await;
    let error = pair.error("rows 1").await;
    assert!(error.to_string().contains("nowhere"), "{error}");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_a_typed_error() {
    let server = TestServer::start(UserServerOptions::default()).await;
    let address = server.address().to_string();
    server.stop().await;
    let options = ClientOptions::new(runtime(), ledger());
    let error = Client::connect(&address, options.clone())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::Connect(_)) && error.is_retryable(),
        "{error:?}"
    );
    let error = Client::connect("no port", options).await.unwrap_err();
    assert!(matches!(error, ClientError::Address { .. }), "{error:?}");
}

/// Logs in; on success runs a query.
async fn login(
    users: &str,
    change: impl FnOnce(&mut ClientOptions),
) -> Result<Vec<i64>, ClientError> {
    let (server, ledger) = (TestServer::start(users::only(users)).await, ledger());
    let mut options = ClientOptions {
        user: Some("alice".to_owned()),
        password: Some(users::PASSWORD.into()),
        ..ClientOptions::new(runtime(), ledger.clone())
    };
    change(&mut options);
    assert!(!format!("{options:?}").contains(users::PASSWORD));
    let outcome = match Client::connect(&server.address().to_string(), options).await {
        Ok(client) => rows(&client).await,
        Err(error) => Err(error),
    };
    server.stop().await;
    settled(&ledger).await;
    outcome
}

async fn rows(client: &Client) -> Result<Vec<i64>, ClientError> {
    let batches: Vec<_> = client.query("rows 2").await?.try_collect().await?;
    Ok(batches.iter().flat_map(values).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn users_log_in_by_every_mechanism_that_is_offered() {
    let (scram, plain) = (Mechanism::ScramSha256, Mechanism::Plain);
    for (users, mechanism) in [
        (users::SCRAM, None),
        (users::SCRAM, Some(scram)),
        (users::SCRAM, Some(plain)),
        (users::BCRYPT, None),
    ] {
        let rows = login(users, |options| options.mechanism = mechanism).await;
        assert_eq!(rows.unwrap(), [0, 1]);
        let wrong = login(users, |options| {
            options.password = Some("nope".into());
            options.mechanism = mechanism;
        });
        assert!(matches!(wrong.await, Err(ClientError::WrongPassword)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_authenticate_as_asked_is_told_what_is_offered() {
    let pinned = login(users::BCRYPT, |options| {
        options.mechanism = Some(Mechanism::ScramSha256);
    });
    let nobody = login(users::BCRYPT, |options| options.password = None);
    for error in [pinned.await, nobody.await] {
        let Err(ClientError::Authentication { offered, encrypted }) = error else {
            panic!("{error:?}")
        };
        assert_eq!((offered, encrypted), (vec!["PLAIN".to_owned()], false));
    }
}
