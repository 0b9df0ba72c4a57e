//! Our client against a real Drill.

use std::net::SocketAddr;

use client::{ClientError, QueryEvent};
use tests::data;
use tests::interop::real_drillbit;

use super::client_suite::{on, table};
use crate::nodes::Connected;

fn drill() -> Option<SocketAddr> {
    real_drillbit().map(tests::interop::RealDrillbit::user)
}

on! { drill() }

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_drill_is_never_asked_what_it_does_not_know() {
    let Some(drill) = drill() else { return };
    let connected = Connected::to(drill).await;
    let refused = connected.client.status().await.unwrap_err();
    assert!(matches!(refused, ClientError::NotOurs), "{refused}");
    let refused = connected.client.drain().await.unwrap_err();
    assert!(matches!(refused, ClientError::NotOurs), "{refused}");
    connected.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_columns_between_files_is_told() {
    let Some(drill) = drill() else { return };
    let connected = Connected::to(drill).await;
    let sql = format!(
        "select * from {}",
        table(&data::changing_columns().unwrap())
    );
    let mut stream = connected.client.query(&sql).await.unwrap();
    let mut columns = Vec::new();
    while let Some(event) = stream.next_event().await.unwrap() {
        if let QueryEvent::Schema(schema) = event {
            let names = schema.fields().iter().map(|field| field.name().clone());
            columns.push(names.collect::<Vec<_>>());
        }
    }
    // Drill reads the files in an order of its own.
    columns.sort();
    assert_eq!(columns, [["a", "b"], ["a", "c"]]);
    drop(stream);
    connected.close().await;
}
