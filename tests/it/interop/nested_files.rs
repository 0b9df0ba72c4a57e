//! Nested files on a real Drill: what our client reads is what the JDBC driver reads, value by value.

use client::Client;
use tests::interop::{JdbcConnection, jdbc, real_drillbit};
use tests::nested;

use super::client_suite::{all, table};
use super::vectors_to_driver::texts;
use crate::nodes::Connected;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrays_and_maps_of_json() {
    let json = table(&nested::json().unwrap());
    let read = expect_the_same(
        &[],
        &[
            format!("select * from {json}"),
            format!("select id, t.m.z.q, t.arr[0], t.rm[1].b, t.ll[1][0] from {json} t"),
            format!("select id, flatten(rm) from {json}"),
            format!("select id, flatten(ll) from {json}"),
            format!("select id, kvgen(t.m.z) from {json} t"),
            format!("select id, strs, rm from {json} where id < 0"),
        ],
    )
    .await;
    if let Some(read) = read {
        assert_eq!(read[0].len(), 5);
        assert_eq!(read[0][2][4], "[{text:\"a\"=long:3}]");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_and_elements_of_several_types() {
    let unions = table(&nested::unions().unwrap());
    let settings = [
        "alter session set `store.json.enable_v2_reader` = false",
        "alter session set `exec.enable_union_type` = true",
    ];
    let read = expect_the_same(&settings, &[format!("select id, u, ul from {unions}")]).await;
    if let Some(read) = read {
        assert_eq!(read[0].len(), 6);
        assert_eq!(
            read[0][1],
            ["long:2", "text:\"two\"", "[double:4004000000000000]"]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_structs_and_maps_of_parquet() {
    let parquet = table(&nested::parquet().unwrap());
    let read = expect_the_same(
        &[],
        &[
            format!("select * from {parquet}"),
            format!("select id, t.s.z.d, t.s.z.n, t.m['two'], t.ls[0].a from {parquet} t"),
            format!("select id, flatten(ls) from {parquet}"),
            format!("select m, ms from {parquet} where id = 4"),
        ],
    )
    .await;
    if let Some(read) = read {
        assert_eq!(read[0].len(), 4);
        assert_eq!(read[0][0][5], "{text:\"one\"=long:1,text:\"two\"=long:2}");
    }
}

type Rows = Vec<Vec<String>>;

/// Runs each statement through both; the rows of all, unless there is no Drill.
async fn expect_the_same(settings: &[&str], statements: &[String]) -> Option<Vec<Rows>> {
    let (drill, jdbc) = (real_drillbit()?, jdbc()?);
    let connected = Connected::to(drill.user()).await;
    let theirs = jdbc.connect(drill.user(), &[]).unwrap();
    for setting in settings {
        theirs.query(setting).unwrap();
        all(&connected.client, setting).await.unwrap();
    }
    let mut read = Vec::new();
    for sql in statements {
        let expected = by_the_driver(&theirs, sql);
        assert_eq!(
            by_our_client(&connected.client, sql).await,
            expected,
            "{sql}"
        );
        read.push(expected);
    }
    connected.close().await;
    Some(read)
}

fn by_the_driver(connection: &JdbcConnection<'_>, sql: &str) -> Rows {
    let (_, rows) = connection
        .query_exact(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows
}

async fn by_our_client(client: &Client, sql: &str) -> Rows {
    let batches = all(client, sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    batches.iter().flat_map(texts).collect()
}
