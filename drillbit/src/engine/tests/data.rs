//! Files and sample data.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::parquet::arrow::ArrowWriter;

use super::super::ErrorClass;
use super::{Answer, answer, refusal};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("folder"))
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, text).expect("file");
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The name as a table.
    fn table(&self, name: &str) -> String {
        format!("dfs.`{}`", self.path(name).display())
    }

    async fn rows(&self, name: &str, select: &str) -> Answer {
        answer(&format!("{select} from {}", self.table(name))).await
    }
}

fn parquet(path: &Path, rows: i32) {
    let schema = Schema::new(vec![
        Field::new("Id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("small", DataType::Int32, true),
    ]);
    let columns: Vec<Arc<dyn arrow::array::Array>> = vec![
        Arc::new((0..i64::from(rows)).collect::<Int64Array>()),
        Arc::new(
            (0..rows)
                .map(|row| (row % 3 > 0).then(|| format!("n{row}")))
                .collect::<StringArray>(),
        ),
        Arc::new((0..rows).collect::<Int32Array>()),
    ];
    let batch = RecordBatch::try_new(Arc::new(schema), columns).expect("batch");
    let file = fs::File::create(path).expect("file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

#[tokio::test]
async fn the_sample_has_drills_columns() {
    let answer = answer("select * from cp.`employee.json` where 1=0").await;
    let expected = [
        "employee_id Int64?",
        "full_name Utf8?",
        "first_name Utf8?",
        "last_name Utf8?",
        "position_id Int64?",
        "position_title Utf8?",
        "store_id Int64?",
        "department_id Int64?",
        "birth_date Utf8?",
        "hire_date Utf8?",
        "salary Float64?",
        "supervisor_id Int64?",
        "education_level Utf8?",
        "marital_status Utf8?",
        "gender Utf8?",
        "management_role Utf8?",
        "end_date Utf8?",
    ];
    assert_eq!(answer.columns(), expected);
    assert_eq!(answer.row_count(), 0);
}

#[tokio::test]
async fn aggregates_of_the_sample_are_as_recorded() {
    let answer = answer("select count(*) c, max(salary) m from cp.`employee.json`").await;
    assert_eq!(answer.columns(), ["c Int64", "m Float64?"]);
    assert_eq!(answer.rows(), ["1155|80000.0"]);
}

#[tokio::test]
async fn parquet_files_and_folders_are_read() {
    let folder = Folder::new();
    folder.write("all/sub/_SUCCESS", "");
    parquet(&folder.path("all/a.parquet"), 10);
    parquet(&folder.path("all/sub/b.parquet"), 5);
    let one = folder.rows("all/a.parquet", "select *").await;
    assert_eq!(one.columns(), ["Id Int64", "name Utf8?", "small Int32?"]);
    assert_eq!(one.rows()[1], "1|n1|1");
    let both = folder.rows("all", "select count(*), sum(ID)").await;
    assert_eq!(both.rows(), ["15|55"]);
    let globbed = folder.rows("all/*.parquet", "select count(*)").await;
    assert_eq!(globbed.rows(), ["10"]);
}

#[tokio::test]
async fn json_is_read_as_objects_or_lists_of_objects() {
    let folder = Folder::new();
    folder.write("lines.json", "{\"a\": 1, \"B\": \"x\"}\n{\"a\": 2}\n");
    folder.write("list.json", "[{\"a\": 1, \"B\": \"x\"},\n {\"a\": 2}]");
    folder.write("dense.json", "{\"a\":1,\n\"B\":\"x\"}{\"a\":2}");
    for name in ["lines.json", "list.json", "dense.json"] {
        let answer = folder.rows(name, "select *").await;
        assert_eq!(answer.columns(), ["a Int64?", "B Utf8?"], "{name}");
        assert_eq!(answer.rows(), ["1|x", "2|NULL"], "{name}");
    }
}

#[tokio::test]
async fn nested_json_values_are_reached_by_name_and_by_index_from_zero() {
    let folder = Folder::new();
    folder.write(
        "n.json",
        r#"{"id": 1, "arr": [10, 20], "m": {"x": 5, "y": {"z": "deep"}}}"#,
    );
    let table = folder.table("n.json");
    let answer = answer(&format!("select t.arr[0], t.m.x, t.m.y.z from {table} t")).await;
    assert_eq!(answer.rows(), ["10|5|deep"]);
}

#[tokio::test]
async fn csvh_columns_are_text_that_is_never_null() {
    let folder = Folder::new();
    folder.write("t.csvh", "ID,Name,empty\n1,\"a,\nb\",\n2,c\n");
    let answer = folder.rows("t.csvh", "select *").await;
    assert_eq!(answer.columns(), ["ID Utf8", "Name Utf8", "empty Utf8"]);
    assert_eq!(answer.rows(), ["1|a,\nb|", "2|c|"]);
    let sum = folder.rows("t.csvh", "select sum(cast(id as int)) s").await;
    assert_eq!(sum.rows(), ["3"]);
}

#[tokio::test]
async fn text_without_column_names_is_a_list_of_values() {
    let folder = Folder::new();
    folder
        .write("t.csv", "1,\"a,\nb\",\n# left out\n\n2,c\n")
        .write("t.tsv", "1\tx y\n")
        .write("t.psv", "1|x,y\n");
    let answer = folder
        .rows("t.csv", "select columns[0] i, columns[1] t")
        .await;
    assert_eq!(answer.rows(), ["1|a,\nb", "2|c"]);
    let whole = folder.rows("t.csv", "select *").await;
    assert_eq!(whole.rows(), ["[1, a,\nb, ]", "[2, c]"]);
    for (name, value) in [("t.tsv", "x y"), ("t.psv", "x,y")] {
        let answer = folder.rows(name, "select columns[1] t").await;
        assert_eq!(answer.rows(), [value], "{name}");
    }
}

#[tokio::test]
async fn a_value_behind_the_last_of_its_line_is_null() {
    let folder = Folder::new();
    folder.write("t.csv", "1,2\n3\n");
    let answer = folder.rows("t.csv", "select columns[1] v").await;
    assert_eq!(answer.rows(), ["2", "NULL"]);
}

#[tokio::test]
async fn files_that_are_damaged_are_named() {
    let folder = Folder::new();
    folder
        .write("bad.parquet", "this is no parquet file")
        .write("bad.json", "{\"a\": 1}\n{\"a\": ");
    for name in ["bad.parquet", "bad.json"] {
        let error = refusal(&format!("select * from {}", folder.table(name))).await;
        assert_eq!(error.class(), ErrorClass::DataRead, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn a_parquet_file_cut_in_its_data_is_named() {
    let folder = Folder::new();
    let path = folder.path("cut.parquet");
    parquet(&path, 5000);
    let mut bytes = fs::read(&path).expect("file");
    for byte in bytes.iter_mut().skip(4).take(2000) {
        *byte ^= 0x5A;
    }
    fs::write(&path, bytes).expect("file");
    let error = refusal(&format!("select * from {}", folder.table("cut.parquet"))).await;
    assert_eq!(error.class(), ErrorClass::DataRead, "{error}");
    assert!(error.to_string().contains("cut.parquet"), "{error}");
}

#[tokio::test]
async fn kinds_of_files_that_are_not_read_are_refused_by_name() {
    let folder = Folder::new();
    folder
        .write("a.xml", "<a/>")
        .write("mixed/a.json", "{}")
        .write("mixed/b.csvh", "a\n");
    for name in ["a.xml", "mixed"] {
        let error = refusal(&format!("select * from {}", folder.table(name))).await;
        assert_eq!(error.class(), ErrorClass::Unsupported, "{error}");
    }
}

#[tokio::test]
async fn files_join_the_sample() {
    let folder = Folder::new();
    folder.write(
        "stores.json",
        "{\"store_id\": 1, \"city\": \"A\"}\n{\"store_id\": 2, \"city\": \"B\"}",
    );
    let table = folder.table("stores.json");
    let answer = answer(&format!(
        "select s.city, count(*) > 0 from cp.`employee.json` e join {table} s on e.store_id = s.store_id \
         group by s.city order by s.city"
    ))
    .await;
    assert_eq!(answer.rows(), ["A|true", "B|true"]);
}

#[tokio::test]
async fn a_file_that_changed_is_read_again() {
    let folder = Folder::new();
    let session = super::engine().session();
    let sql = format!("select count(*), max(id) from {}", folder.table("all"));
    fs::create_dir(folder.path("all")).expect("folder");
    for (rows, expected) in [(10, "10|9"), (7, "7|6")] {
        parquet(&folder.path("all/a.parquet"), rows);
        let answer = super::run_in(&session, &sql).await.expect("rows");
        assert_eq!(answer.rows(), [expected]);
    }
}

#[tokio::test]
async fn unsigned_columns_keep_their_largest_values() {
    let folder = Folder::new();
    let schema = Schema::new(vec![Field::new("u", DataType::UInt64, true)]);
    let values = arrow::array::UInt64Array::from(vec![u64::MAX]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(values)]).expect("batch");
    let file = fs::File::create(folder.path("u.parquet")).expect("file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    let answer = folder.rows("u.parquet", "select *").await;
    assert_eq!(answer.columns(), ["u Decimal128(20, 0)?"]);
    assert_eq!(answer.rows(), ["18446744073709551615"]);
}
