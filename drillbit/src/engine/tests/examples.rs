//! The Parquet file and the statements that the repository ships.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int32Array, Int64Array, StringArray};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::parquet::arrow::ArrowWriter;

use super::super::EngineOptions;
use super::{DrillEngine, run_in};

const TOWNS: [&str; 25] = [
    "Harbourgate",
    "Ashcombe",
    "Brindle Bay",
    "Coldwater",
    "Dunmere",
    "Eastlow",
    "Fallowfield",
    "Gullane Point",
    "Hexley",
    "Inverlin",
    "Jarrow Sands",
    "Kestrel Hill",
    "Longmarsh",
    "Millbrook",
    "Northwick",
    "Oakhollow",
    "Pebbleford",
    "Quarrybank",
    "Ravensea",
    "Silverstrand",
    "Thornbury",
    "Underhill",
    "Valewood",
    "Westering",
    "Yarrowdale",
];

/// The repository's root.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Store 0 is the head office of the sample's employees.
fn stores() -> RecordBatch {
    let ids = 0..i64::try_from(TOWNS.len()).expect("few");
    let name = |id: i64| {
        if id == 0 {
            "Head Office".to_owned()
        } else {
            format!("Store {id}")
        }
    };
    let area = |id: i64| (id > 0).then(|| i32::try_from(400 + id * 7919 % 1300).expect("small"));
    let opened = |id: i64| i32::try_from(7300 + id * 104_729 % 2500).expect("small");
    let rent = Decimal128Array::from_iter_values(
        ids.clone()
            .map(|id| i128::from(250_000 + id * 15_485_863 % 900_000)),
    );
    let columns: Vec<(Field, ArrayRef)> = vec![
        (
            Field::new("store_id", DataType::Int64, false),
            Arc::new(ids.clone().collect::<Int64Array>()),
        ),
        (
            Field::new("store_name", DataType::Utf8, false),
            Arc::new(
                ids.clone()
                    .map(|id| Some(name(id)))
                    .collect::<StringArray>(),
            ),
        ),
        (
            Field::new("town", DataType::Utf8, true),
            Arc::new(StringArray::from(TOWNS.to_vec())),
        ),
        (
            Field::new("area_m2", DataType::Int32, true),
            Arc::new(ids.clone().map(area).collect::<Int32Array>()),
        ),
        (
            Field::new("opened", DataType::Date32, true),
            Arc::new(Date32Array::from_iter_values(ids.clone().map(opened))),
        ),
        (
            Field::new("monthly_rent", DataType::Decimal128(9, 2), true),
            Arc::new(rent.with_precision_and_scale(9, 2).expect("fits")),
        ),
    ];
    let (fields, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), values).expect("stores")
}

fn engine_at_root() -> DrillEngine {
    let mut options = EngineOptions::default();
    options.workspaces.insert("default".into(), root());
    DrillEngine::try_new(&options).expect("default options")
}

#[test]
#[ignore = "writes examples/data/stores.parquet; run it when stores() changes"]
fn write_the_stores() {
    let file = std::fs::File::create(root().join("examples/data/stores.parquet")).expect("file");
    let mut writer = ArrowWriter::try_new(file, stores().schema(), None).expect("writer");
    writer.write(&stores()).expect("written");
    writer.close().expect("closed");
}

#[tokio::test]
async fn the_shipped_stores_are_those_of_this_file() {
    let session = engine_at_root().session();
    let sql = "select * from dfs.`examples/data/stores.parquet` order by store_id";
    let shipped = run_in(&session, sql).await.expect("stores");
    assert_eq!(shipped.batches, [stores()]);
    let ids = shipped.batches[0].column(0).as_primitive::<Int64Type>();
    assert_eq!(ids.value(24), 24);
}

#[tokio::test]
async fn every_statement_of_the_first_example_has_rows() {
    let session = engine_at_root().session();
    let script = std::fs::read_to_string(root().join("examples/first.sql")).expect("script");
    let statements: Vec<&str> = script
        .split(';')
        .filter(|sql| !sql.trim().is_empty())
        .collect();
    assert!(statements.len() >= 4);
    for sql in statements {
        let answer = run_in(&session, sql).await;
        assert!(answer.expect(sql).row_count() > 0, "{sql}");
    }
}
