//! What our client must get from any Drill, ours or a real one. Each function is a test of both
//! `client_to_drill` and `client_to_node`.

use std::net::SocketAddr;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use client::{Client, ClientError, ClientOptions};
use futures::{StreamExt, TryStreamExt};
use tests::data::{self, Totals};

use crate::nodes::Connected;

/// Makes a test of every function of the suite; `$node` may be none where there is no such Drill.
macro_rules! on {
    ($node:expr) => { super::client_suite::on! { $node,
        every_scalar_type_arrives_with_its_nulls
        every_type_of_json_arrives_with_its_nulls
        intervals_arrive_with_their_nulls
        the_sample_employees_are_there
        no_rows_come_with_their_schema
        a_million_rows_arrive_once_each
        an_error_has_drills_kind_id_and_node
        wrong_sql_is_an_error_of_its_kind_and_the_connection_goes_on
        unreadable_files_are_errors_and_the_connection_goes_on
        a_cancel_ends_a_result
        a_result_dropped_early_leaves_the_client_usable
        a_query_dropped_before_its_first_batch_leaves_the_client_usable
        eight_clients_query_at_once
        eight_queries_of_one_client_run_at_once
        two_results_are_read_in_turns
        a_default_schema_comes_with_the_connection
        a_session_keeps_what_was_set
        an_idle_client_stays_connected
        a_client_closed_with_a_running_query_leaves_nothing
    } };
    ($node:expr, $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if let Some(node) = $node {
                super::client_suite::$name(node).await;
            }
        }
    )*};
}
pub(super) use on;

pub(super) async fn every_scalar_type_arrives_with_its_nulls(node: SocketAddr) {
    // As Drill's vectors, which a real Drill sends anyway.
    let vectors = |options| ClientOptions {
        arrow_bodies: false,
        ..options
    };
    let connected = Connected::with(node, vectors).await.unwrap();
    let sql = format!(
        "select * from {} order by id",
        table(&data::scalars().unwrap())
    );
    let batches = all(&connected.client, &sql).await.unwrap();
    let types: Vec<DataType> = batches[0]
        .schema()
        .fields()
        .iter()
        .map(|field| field.data_type().clone())
        .collect();
    assert_eq!(types, scalar_types());
    assert_eq!(texts(&batches), SCALARS);
    drop(batches);
    connected.close().await;
}

pub(super) async fn every_type_of_json_arrives_with_its_nulls(node: SocketAddr) {
    let connected = Connected::to(node).await;
    let sql = format!(
        "select id, i, d, s, b from {}",
        table(&data::json_nulls().unwrap())
    );
    let rows = texts(&all(&connected.client, &sql).await.unwrap());
    assert_eq!(
        rows,
        [
            ["1", "10", "1.5", "one", "true"],
            ["2", "NULL", "NULL", "NULL", "NULL"],
            ["3", "-30", "-2.25", "", "false"]
        ]
    );
    connected.close().await;
}

pub(super) async fn intervals_arrive_with_their_nulls(node: SocketAddr) {
    let connected = Connected::to(node).await;
    let sql = format!(
        "select case when i > 0 then interval '1-2' year to month end, \
         case when i > 0 then interval '3 04:05:06.789' day to second end from {}",
        table(&data::json_nulls().unwrap())
    );
    let rows = texts(&all(&connected.client, &sql).await.unwrap());
    let value = ["1 years 2 mons", "3 days 4 hours 5 mins 6.789 secs"];
    assert_eq!(rows, [value, ["NULL"; 2], ["NULL"; 2]]);
    connected.close().await;
}

pub(super) async fn the_sample_employees_are_there(node: SocketAddr) {
    let connected = Connected::to(node).await;
    let batches = all(&connected.client, "select * from cp.`employee.json`")
        .await
        .unwrap();
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!((rows, batches[0].num_columns()), (1155, 17));
    drop(batches);
    connected.close().await;
}

pub(super) async fn no_rows_come_with_their_schema(node: SocketAddr) {
    let connected = Connected::to(node).await;
    let scalars = table(&data::scalars().unwrap());
    for sql in [
        format!("select * from {}", table(&data::no_rows().unwrap())),
        format!("select * from {scalars} where id < 0"),
        format!("select * from {scalars} limit 0"),
    ] {
        let mut stream = connected.client.query(&sql).await.unwrap();
        while let Some(batch) = stream.try_next().await.unwrap() {
            assert_eq!(batch.num_rows(), 0, "{sql}");
        }
        let schema: SchemaRef = stream.schema().expect("a schema");
        assert_eq!(schema.fields().len(), 14, "{sql}");
    }
    connected.close().await;
}

pub(super) async fn a_million_rows_arrive_once_each(node: SocketAddr) {
    let connected = Connected::to(node).await;
    let sql = format!(
        "select id, v, s, d, n from {}",
        table(&data::million().unwrap())
    );
    let mut stream = connected.client.query(&sql).await.unwrap();
    let mut found = Totals::default();
    while let Some(batch) = stream.try_next().await.unwrap() {
        add(&mut found, &batch);
    }
    assert_eq!(found, data::million_totals());
    drop(stream);
    connected.close().await;
}

pub(super) async fn an_error_has_drills_kind_id_and_node(node: SocketAddr) {
    let connected = Connected::to(node).await;
    let sql = "select cast(full_name as int) from cp.`employee.json`";
    let error = all(&connected.client, sql).await.unwrap_err();
    assert!(matches!(error, ClientError::Remote(_)), "{error:?}");
    assert_eq!(error.error_id().map(str::len), Some(36), "{error:?}");
    assert_eq!(error.node(), Some(node.to_string().as_str()));
    assert!(!error.is_retryable());
    assert_eq!(
        one_value(&connected.client, "select 7 from (values(1))").await,
        "7"
    );
    connected.close().await;
}

pub(super) async fn wrong_sql_is_an_error_of_its_kind_and_the_connection_goes_on(node: SocketAddr) {
    let connected = Connected::to(node).await;
    for (sql, kind) in [
        ("selec 1", "PARSE ERROR"),
        ("select nosuch from (values(1)) t(a)", "VALIDATION ERROR"),
        (
            "select * from dfs.`/nowhere/nofile.json`",
            "VALIDATION ERROR",
        ),
        ("select nofunc(1) from (values(1))", "VALIDATION ERROR"),
    ] {
        let error = all(&connected.client, sql).await.unwrap_err();
        assert!(error.to_string().starts_with(kind), "{sql}: {error}");
        assert_eq!(error.error_id().map(str::len), Some(36), "{sql}");
    }
    assert_eq!(
        one_value(&connected.client, "select 7 from (values(1))").await,
        "7"
    );
    connected.close().await;
}

pub(super) async fn unreadable_files_are_errors_and_the_connection_goes_on(node: SocketAddr) {
    let connected = Connected::to(node).await;
    for file in data::unreadable().unwrap() {
        let error = all(
            &connected.client,
            &format!("select * from {}", table(&file)),
        )
        .await;
        let error = error.expect_err("rows");
        assert!(
            matches!(error, ClientError::Remote(_)),
            "{}: {error:?}",
            file.display()
        );
        assert_eq!(error.error_id().map(str::len), Some(36), "{error:?}");
    }
    assert_eq!(
        one_value(&connected.client, "select 7 from (values(1))").await,
        "7"
    );
    connected.close().await;
}

pub(super) async fn a_cancel_ends_a_result(node: SocketAddr) {
    let connected = Connected::to(node).await;
    let sql = format!("select * from {}", table(&data::five_million().unwrap()));
    let mut stream = connected.client.query(&sql).await.unwrap();
    stream.next().await.expect("a batch").unwrap();
    stream.cancel().await.unwrap();
    let mut rows = 0;
    let end = loop {
        match stream.next().await {
            Some(Ok(batch)) => rows += batch.num_rows() as u64,
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    assert!(
        end.is_none() || matches!(end, Some(ClientError::Canceled)),
        "{end:?}"
    );
    assert!(rows < data::five_million_totals().rows, "all rows came");
    drop(stream);
    assert_eq!(
        one_value(&connected.client, "select 7 from (values(1))").await,
        "7"
    );
    connected.close().await;
}

pub(super) async fn a_result_dropped_early_leaves_the_client_usable(node: SocketAddr) {
    let connected = Connected::to(node).await;
    let sql = format!("select * from {}", table(&data::five_million().unwrap()));
    for _ in 0..3 {
        let mut stream = connected.client.query(&sql).await.unwrap();
        stream.next().await.expect("a batch").unwrap();
        drop(stream);
        assert_eq!(
            one_value(&connected.client, "select 7 from (values(1))").await,
            "7"
        );
    }
    connected.close().await;
}

pub(super) async fn a_query_dropped_before_its_first_batch_leaves_the_client_usable(
    node: SocketAddr,
) {
    let connected = Connected::to(node).await;
    drop(
        connected
            .client
            .query("select * from cp.`employee.json`")
            .await
            .unwrap(),
    );
    assert_eq!(
        one_value(&connected.client, "select 7 from (values(1))").await,
        "7"
    );
    connected.close().await;
}

pub(super) async fn eight_clients_query_at_once(node: SocketAddr) {
    let queries = (1..=8).map(|n| async move {
        let connected = Connected::to(node).await;
        assert_eq!(count_of(&connected.client, n).await, "1000");
        connected.close().await;
    });
    futures::future::join_all(queries).await;
}

pub(super) async fn eight_queries_of_one_client_run_at_once(node: SocketAddr) {
    let connected = Connected::to(node).await;
    let counts = futures::future::join_all((1..=8).map(|n| count_of(&connected.client, n))).await;
    assert_eq!(counts, ["1000"; 8]);
    connected.close().await;
}

pub(super) async fn two_results_are_read_in_turns(node: SocketAddr) {
    let connected = Connected::to(node).await;
    let sql = format!("select id from {}", table(&data::million().unwrap()));
    let mut one = connected.client.query(&sql).await.unwrap();
    let mut other = connected.client.query(&sql).await.unwrap();
    let (mut rows_of_one, mut rows_of_other) = (0, 0);
    loop {
        let batches = (
            one.try_next().await.unwrap(),
            other.try_next().await.unwrap(),
        );
        rows_of_one += batches.0.as_ref().map_or(0, RecordBatch::num_rows);
        rows_of_other += batches.1.as_ref().map_or(0, RecordBatch::num_rows);
        if batches == (None, None) {
            break;
        }
    }
    assert_eq!(
        (rows_of_one as u64, rows_of_other as u64),
        (data::MILLION, data::MILLION)
    );
    drop((one, other));
    connected.close().await;
}

pub(super) async fn a_default_schema_comes_with_the_connection(node: SocketAddr) {
    let with_schema = |options| ClientOptions {
        schema: Some("cp".to_owned()),
        ..options
    };
    let connected = Connected::with(node, with_schema).await.unwrap();
    assert_eq!(
        one_value(&connected.client, "select count(*) from `employee.json`").await,
        "1155"
    );
    connected.close().await;
}

pub(super) async fn a_session_keeps_what_was_set(node: SocketAddr) {
    let connected = Connected::to(node).await;
    assert_eq!(one_value(&connected.client, "use cp").await, "true");
    assert_eq!(
        one_value(&connected.client, "select count(*) from `employee.json`").await,
        "1155"
    );
    connected.close().await;
}

pub(super) async fn an_idle_client_stays_connected(node: SocketAddr) {
    let pinging = |options: ClientOptions| {
        let mut options = options;
        options.connection.ping_interval = Some(Duration::from_millis(50));
        options
    };
    let connected = Connected::with(node, pinging).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        one_value(&connected.client, "select 7 from (values(1))").await,
        "7"
    );
    connected.close().await;
}

pub(super) async fn a_client_closed_with_a_running_query_leaves_nothing(node: SocketAddr) {
    let connected = Connected::to(node).await;
    let sql = format!("select * from {}", table(&data::five_million().unwrap()));
    let mut stream = connected.client.query(&sql).await.unwrap();
    stream.next().await.expect("a batch").unwrap();
    drop(stream);
    connected.close().await;
}

/// All batches of a result.
pub(crate) async fn all(client: &Client, sql: &str) -> Result<Vec<RecordBatch>, ClientError> {
    client.query(sql).await?.try_collect().await
}

/// The first value of a result, as text.
pub(super) async fn one_value(client: &Client, sql: &str) -> String {
    texts(&all(client, sql).await.unwrap()).remove(0).remove(0)
}

async fn count_of(client: &Client, n: u32) -> String {
    let sql = format!(
        "select count(*) from {} where n = {n}",
        table(&data::million().unwrap())
    );
    one_value(client, &sql).await
}

pub(super) fn table(path: &std::path::Path) -> String {
    format!("dfs.`{}`", path.display())
}

fn add(totals: &mut Totals, batch: &RecordBatch) {
    totals.rows += batch.num_rows() as u64;
    totals.ids += batch
        .column(0)
        .as_primitive::<Int64Type>()
        .values()
        .iter()
        .sum::<i64>();
    totals.values += batch
        .column(1)
        .as_primitive::<Float64Type>()
        .values()
        .iter()
        .sum::<f64>();
    totals.text_len += batch
        .column(2)
        .as_string::<i32>()
        .iter()
        .flatten()
        .map(|text| text.len() as u64)
        .sum::<u64>();
    totals.nulls += batch.column(4).null_count() as u64;
}

/// Rows as text, nulls as `NULL`.
pub(crate) fn texts(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Result<Vec<_>, _> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect();
        let columns = columns.unwrap();
        rows.extend((0..batch.num_rows()).map(|row| {
            columns
                .iter()
                .map(|column| column.value(row).to_string())
                .collect()
        }));
    }
    rows
}

fn scalar_types() -> [DataType; 14] {
    use arrow::datatypes::TimeUnit::Millisecond;
    [
        DataType::Int32,
        DataType::Boolean,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Utf8,
        DataType::Binary,
        DataType::Decimal128(9, 2),
        DataType::Decimal128(18, 4),
        DataType::Decimal128(38, 10),
        DataType::Date64,
        DataType::Time32(Millisecond),
        DataType::Timestamp(Millisecond, None),
    ]
}

/// Rows of `tests::data::scalars`, as Arrow shows them.
const SCALARS: [[&str; 14]; 4] = [
    [
        "1",
        "true",
        "42",
        "42",
        "1.5",
        "-2.25",
        "h\u{e9}llo",
        "616263",
        "123.45",
        "-12345678901234.5678",
        "1234567890.1234567890",
        "2024-02-29T00:00:00",
        "12:34:56.789",
        "2024-02-29T12:34:56.789",
    ],
    [
        "2", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL",
        "NULL", "NULL", "NULL",
    ],
    [
        "3",
        "false",
        "-2147483648",
        "-9223372036854775808",
        "-3.4028235e38",
        "-1.7976931348623157e308",
        "",
        "",
        "-9999999.99",
        "-99999999999999.9999",
        "-9999999999999999999999999999.9999999999",
        "1900-01-01T00:00:00",
        "00:00:00",
        "1900-01-01T00:00:00",
    ],
    [
        "4",
        "true",
        "2147483647",
        "9223372036854775807",
        "3.4028235e38",
        "1.7976931348623157e308",
        "\u{1f980} crab",
        "00ff",
        "9999999.99",
        "99999999999999.9999",
        "9999999999999999999999999999.9999999999",
        "2099-12-31T00:00:00",
        "23:59:59.999",
        "2099-12-31T23:59:59.999",
    ],
];
