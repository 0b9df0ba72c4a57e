//! Over TLS.

#[path = "../../../rpc-bus/tests/common/certificates.rs"]
mod certificates;

use arrow::array::RecordBatch;
use certificates::{Authority, server};
use client::{Client, ClientError, ClientOptions};
use futures::TryStreamExt;
use rpc_bus::{ConnectError, tls::TlsError};
use user_server::UserServerOptions;

use crate::support::{TestServer, ledger, runtime, settled};

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_must_be_for_the_host_in_the_address() {
    let (ours, mut options) = (Authority::new("ours"), UserServerOptions::default());
    options.connections.tls = Some(server(&ours.issue("server", &["localhost"]), None));
    let (node, ledger) = (TestServer::start(options).await, ledger());
    let port = node.address().port();
    let options = ClientOptions {
        tls: Some(ours.client()),
        ..ClientOptions::new(runtime(), ledger.clone())
    };

    let client = Client::connect(&format!("localhost:{port}"), options.clone()).await;
    let client = client.unwrap();
    let batches = client.query("rows 100000").await.unwrap();
    let count = |rows, batch: RecordBatch| async move { Ok(rows + batch.num_rows()) };
    assert_eq!(batches.try_fold(0, count).await.unwrap(), 100_000);
    client.close().await;

    let error = Client::connect(&format!("127.0.0.1:{port}"), options)
        .await
        .unwrap_err();
    let ClientError::Connect(ConnectError::Tls(TlsError::NameMismatch { expected, .. })) = error
    else {
        panic!("expected another name, found {error:?}");
    };
    assert_eq!(expected, "127.0.0.1");
    node.stop().await;
    settled(&ledger).await;
}
