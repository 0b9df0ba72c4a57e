//! Batches of any Arrow schema, encoded by us, through the real JDBC driver: what it shows of every value is what
//! `random_batches` says that Drill shows.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use random_batches::{batch, column, scalars, shown};
use record_batch::metadata;
use tests::interop::{JdbcConnection, jdbc};

use super::prepared::PreparedServer;

/// Random schemas.
const SCHEMAS: u64 = 100;
const ROWS: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_random_schemas_arrive() {
    expect_shown((0..SCHEMAS).map(|seed| batch(seed, ROWS)).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scalar_type_arrives_in_every_place() {
    let batches = (0..).zip(scalars()).flat_map(|(seed, data_type)| {
        let fields = places(&data_type).into_iter();
        fields.map(move |field| column(field, seed, ROWS))
    });
    expect_shown(batches.collect()).await;
}

/// Alone, in lists of both kinds, in a struct and as the value of a map; with and without nulls.
fn places(data_type: &DataType) -> Vec<Field> {
    let mut places = Vec::new();
    for nullable in [true, false] {
        if *data_type == DataType::Null && !nullable {
            continue;
        }
        let field = Field::new("c", data_type.clone(), nullable);
        let item = Arc::new(field.clone());
        let key = Field::new("key", DataType::Utf8, false);
        let pair = DataType::Struct(vec![key, field.clone().with_name("value")].into());
        let entries = Arc::new(Field::new("entries", pair, false));
        places.extend([
            Field::new("list", DataType::List(item), nullable),
            Field::new(
                "struct",
                DataType::Struct(vec![field.clone()].into()),
                nullable,
            ),
            Field::new("map", DataType::Map(entries, false), nullable),
            field,
        ]);
    }
    places
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_rows_than_a_drill_batch_counts_arrive_in_pieces() {
    let item = Arc::new(Field::new_list_field(DataType::Int16, true));
    let fields = [
        Field::new("l", DataType::List(item), true),
        Field::new("d", DataType::Decimal128(38, 10), true),
    ];
    expect_shown(fields.map(|field| column(field, 1, 70_000)).into()).await;
}

/// Types that are only sent where a field asks for them: Arrow type, Drill type, the driver's kind.
const ASKED: [(DataType, &str, &str); 5] = [
    (DataType::Int8, "TINYINT", "byte"),
    (DataType::Int8, "SMALLINT", "short"),
    (DataType::Int16, "SMALLINT", "short"),
    (DataType::Utf8, "VAR16CHAR", "text"),
    (DataType::Null, "NULL", "null"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_that_fields_ask_for_arrive() {
    let batches = ASKED.map(|(data_type, minor, _)| asked(data_type, minor));
    with_driver(batches.to_vec(), move |connection| {
        for (number, ((_, minor, kind), batch)) in ASKED.iter().zip(&batches).enumerate() {
            let (_, rows) = connection.query_exact(&number.to_string()).unwrap();
            let expected = texts(batch).into_iter().flatten();
            let expected: Vec<_> = expected
                .map(|text| text.replace("int:", &format!("{kind}:")))
                .collect();
            assert_eq!(rows.concat(), expected, "{minor}");
        }
    })
    .await;
}

/// Why unsigned integers are sent as the next wider signed ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_driver_shows_unsigned_types_wrong_or_not_at_all() {
    let types = [
        (DataType::UInt8, "UINT1"),
        (DataType::UInt16, "UINT2"),
        (DataType::UInt32, "UINT4"),
    ];
    let batches = types.map(|(data_type, minor)| asked(data_type, minor));
    with_driver(batches.to_vec(), move |connection| {
        let number = |text: &str| text.split(':').nth(1).map(str::to_owned);
        for (query, batch) in batches.iter().enumerate() {
            let expected: Vec<_> = texts(batch)
                .concat()
                .iter()
                .map(|text| number(text))
                .collect();
            if let Ok((_, rows)) = connection.query_exact(&query.to_string()) {
                let found: Vec<_> = rows.concat().iter().map(|text| number(text)).collect();
                assert_ne!(found, expected, "{}", batch.schema());
            }
        }
    })
    .await;
}

fn asked(data_type: DataType, minor: &str) -> RecordBatch {
    let asked = (metadata::MINOR_TYPE.to_owned(), minor.to_owned());
    let field = Field::new("c", data_type, true).with_metadata([asked].into());
    column(field, 3, ROWS)
}

/// Serves the batches to the driver, and compares all rows; names all differences.
async fn expect_shown(batches: Vec<RecordBatch>) {
    with_driver(batches.clone(), move |connection| {
        let mut differences = String::new();
        for (number, batch) in batches.iter().enumerate() {
            if let Err(difference) = compare(connection, number, batch) {
                let _ = writeln!(
                    differences,
                    "batch {number} {}: {difference}",
                    batch.schema()
                );
            }
        }
        assert!(differences.is_empty(), "\n{differences}");
    })
    .await;
}

/// Runs `test` with a connection to a server of `batches`.
async fn with_driver(
    batches: Vec<RecordBatch>,
    test: impl FnOnce(&JdbcConnection<'_>) + Send + 'static,
) {
    let Some(jdbc) = jdbc() else { return };
    let server = PreparedServer::start(batches).await;
    let address = server.address();
    let tested = tokio::task::spawn_blocking(move || test(&jdbc.connect(address, &[]).unwrap()));
    tested.await.unwrap();
    server.stop().await;
}

fn compare(
    connection: &JdbcConnection<'_>,
    number: usize,
    batch: &RecordBatch,
) -> Result<(), String> {
    let read = connection.query_exact(&number.to_string());
    let (columns, found) = read.map_err(|error| error.to_string())?;
    let names: Vec<_> = columns.iter().map(|column| &column.name).collect();
    let schema = batch.schema();
    if names
        != schema
            .fields()
            .iter()
            .map(|field| field.name())
            .collect::<Vec<_>>()
    {
        return Err(format!("columns {names:?}"));
    }
    let expected = texts(batch);
    if found.len() != expected.len() {
        return Err(format!("{} rows", found.len()));
    }
    let different = found
        .iter()
        .zip(&expected)
        .position(|(found, expected)| found != expected);
    different.map_or(Ok(()), |row| {
        Err(format!(
            "row {row} is {:?}, expected {:?}",
            found[row], expected[row]
        ))
    })
}

/// What Drill shows of the rows.
pub(super) fn texts(batch: &RecordBatch) -> Vec<Vec<String>> {
    let schema = batch.schema();
    let row = |row| {
        let columns = schema.fields().iter().zip(batch.columns());
        columns
            .map(|(field, column)| shown(field, column, row))
            .collect()
    };
    (0..batch.num_rows()).map(row).collect()
}
