//! Our client against our node.

use arrow::datatypes::DataType;
use futures::TryStreamExt;
use tests::data;

use super::client_suite::on;
use crate::nodes::{Connected, node};

on! { Some(node().user()) }

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrow_bodies_keep_the_types_of_the_file() {
    let connected = Connected::to(node().user()).await;
    let sql = format!(
        "select * from dfs.`{}` order by id",
        data::scalars().unwrap().display()
    );
    let result = connected.client.query(&sql).await.unwrap();
    let batches: Vec<_> = result.try_collect().await.unwrap();
    let schema = batches[0].schema();
    let types = schema.fields().iter().map(|field| field.data_type());
    // Drill's vectors know milliseconds only, and make a Date64 of it.
    assert!(
        types
            .into_iter()
            .any(|data_type| *data_type == DataType::Date32)
    );
    drop(batches);
    connected.close().await;
}
