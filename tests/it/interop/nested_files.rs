//! Nested files on a real Drill: what our client reads is what the JDBC driver reads, value by value; and the batches that
//! came, decoded and encoded again, are the same byte by byte.

use bytes::Bytes;
use client::Client;
use prost::Message;
use protos::common::DataMode;
use protos::rpc::RpcMode;
use protos::shared::{QueryData, RecordBatchDef, SerializedField};
use protos::user::RpcType;
use tests::interop::{JdbcConnection, jdbc, real_drillbit};
use tests::nested;
use tests::peer::{Peer, ack, run_query};

use super::client_suite::{all, table};
use super::vectors_to_driver::texts;
use crate::golden::batches::{round_trip, same_values};
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

#[test]
fn batches_come_out_of_arrow_as_they_came() {
    let Some(drill) = real_drillbit() else { return };
    let [json, unions, parquet] = [nested::json(), nested::unions(), nested::parquet()];
    let mut peer = Peer::open(drill.user()).unwrap();
    let statements = [
        format!("select * from {}", table(&json.unwrap())),
        // Not its decimals, which Drill sends in as many bytes as the file has, not in as few as possible.
        format!(
            "select id, l, t, ls, m, ms, ll from {}",
            table(&parquet.unwrap())
        ),
        "alter session set `store.json.enable_v2_reader` = false".to_owned(),
        "alter session set `exec.enable_union_type` = true".to_owned(),
        format!("select id, u, ul from {}", table(&unions.unwrap())),
    ];
    for (id, sql) in (2..).zip(&statements) {
        peer.send(&run_query(id, sql)).unwrap();
        let batches = batches(&mut peer);
        assert!(!batches.is_empty(), "{sql}");
        for (def, raw) in batches {
            let (again, raw_again) = round_trip(&def, &raw).unwrap();
            assert_eq!(spelled_out(&again.field), spelled_out(&def.field), "{sql}");
            assert_eq!(same_values(&def, &raw, &raw_again), Ok(()), "{sql}");
        }
    }
}

/// What Drill writes in two ways: it leaves out the mode of some unions, and has two names for those in a list.
fn spelled_out(fields: &[SerializedField]) -> Vec<SerializedField> {
    let mut fields = fields.to_vec();
    for field in &mut fields {
        if let Some(major) = &mut field.major_type {
            major.mode.get_or_insert(DataMode::Optional as i32);
        }
        if let Some(part) = field
            .name_part
            .as_mut()
            .filter(|part| part.name() == "$union$")
        {
            part.name = Some("$data$".to_owned());
        }
        field.child = spelled_out(&field.child);
    }
    fields
}

/// Acknowledges all that comes until the result has ended.
fn batches(peer: &mut Peer) -> Vec<(RecordBatchDef, Bytes)> {
    let mut batches = Vec::new();
    loop {
        let frame = peer.message().unwrap();
        if frame.mode != RpcMode::Request as i32 {
            continue;
        }
        peer.send(&ack(frame.coordination_id)).unwrap();
        if frame.rpc_type == RpcType::QueryResult as i32 {
            return batches;
        }
        let data = QueryData::decode(frame.pbody).unwrap();
        batches.extend(data.def.map(|def| (def, frame.raw)));
    }
}
