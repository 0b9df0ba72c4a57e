//! Batches of any Arrow schema, encoded by us, through the real JDBC driver: what it shows of every value is what
//! `random_batches` says that Drill shows.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use random_batches::{batch, column, scalars, shown};
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

/// Serves the batches to the driver, and compares all rows; names all differences.
async fn expect_shown(batches: Vec<RecordBatch>) {
    let Some(jdbc) = jdbc() else { return };
    let server = PreparedServer::start(batches.clone()).await;
    let address = server.address();
    let compared = tokio::task::spawn_blocking(move || {
        let connection = jdbc.connect(address, &[]).unwrap();
        let mut differences = String::new();
        for (number, batch) in batches.iter().enumerate() {
            if let Err(difference) = compare(&connection, number, batch) {
                let _ = writeln!(
                    differences,
                    "batch {number} {}: {difference}",
                    batch.schema()
                );
            }
        }
        differences
    });
    let differences = compared.await.unwrap();
    assert!(differences.is_empty(), "\n{differences}");
    server.stop().await;
}

fn compare(
    connection: &JdbcConnection<'_>,
    number: usize,
    batch: &RecordBatch,
) -> Result<(), String> {
    let read = connection.query_exact(&number.to_string());
    let (columns, rows) = read.map_err(|error| error.to_string())?;
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
    if rows.len() != batch.num_rows() {
        return Err(format!("{} rows", rows.len()));
    }
    for (at, row) in rows.iter().enumerate() {
        let expected = (schema.fields().iter()).zip(batch.columns());
        for (found, (field, column)) in row.iter().zip(expected) {
            let expected = shown(field, column, at);
            if *found != expected {
                let name = field.name();
                return Err(format!(
                    "row {at} of {name} is {found}, expected {expected}"
                ));
            }
        }
    }
    Ok(())
}
