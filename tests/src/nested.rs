//! Files with columns of columns, which a real Drill reads.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::ReaderBuilder;
use parquet::arrow::ArrowWriter;

use crate::cache;

/// Changes with what this file writes, so that no test reads what an older version wrote.
const VERSION: u32 = 2;

/// Arrays of scalars, of maps and of arrays, maps in maps; empty, missing and null ones.
const JSON: &str = r#"{"id":1,"arr":[1,2,3],"strs":["a","b\u00fcb",""],"m":{"x":1,"y":"yy","z":{"q":1.5}},"rm":[{"a":1,"b":"p"},{"a":2,"b":"q"}],"ll":[[1,2],[3]],"deep":[[{"k":[true,false]}],[]]}
{"id":2,"arr":[],"strs":[],"m":{"x":2,"y":"zz","z":{"q":2.5}},"rm":[],"ll":[],"deep":[]}
{"id":3,"arr":[4],"strs":["ccc"],"m":{"x":null,"y":null},"rm":[{"a":3}],"ll":[[],[4,5,6]],"deep":[[{"k":[]},{"k":[true]}]]}
{"id":4}
{"id":5,"arr":[-9223372036854775808],"strs":["\ud83e\udd80"],"m":{"z":{"q":-0.25}},"rm":[{"b":"only"}],"ll":[[7]],"deep":[[]]}
"#;

/// Columns, and elements, of several types. Every row has an array: Drill leaves the memory that says
/// whether there is one as it was, so that a row without one is read as null here and as empty there.
const UNIONS: &str = r#"{"id":1,"u":1,"ul":[1,"a"]}
{"id":2,"u":"two","ul":[2.5]}
{"id":3,"u":3.5,"ul":[]}
{"id":4,"u":null,"ul":[false]}
{"id":5,"u":[1,2],"ul":["z",7]}
{"id":6,"u":{"x":1},"ul":[]}
"#;

/// Rows of [`parquet()`]: maps are written as objects.
const PARQUET: &str = r#"{"id":1,"l":[1,2],"t":["x",""],"s":{"x":1,"y":"yy","z":{"d":"2024-02-29","ts":"2024-02-29T12:34:56.789","n":"123.45"}},"ls":[{"a":1,"l":["p","q"]},{"a":2,"l":[]}],"m":{"one":1,"two":2},"ms":{"k":{"q":1.5}},"ll":[[1],[2,3]]}
{"id":2,"l":[],"t":[],"s":{"x":null,"y":null,"z":null},"ls":[],"m":{},"ms":{},"ll":[]}
{"id":3}
{"id":4,"l":[-9223372036854775808],"t":["\u00fc"],"s":{"x":-5,"y":"","z":{"d":"1900-01-01","ts":"1969-12-31T23:59:59.999","n":"-0.01"}},"ls":[{"a":null,"l":["r"]}],"m":{"\u00fc":null},"ms":{"a":{"q":null},"b":{"q":-2.5}},"ll":[[],[4]]}
"#;

/// JSON with arrays and maps in each other.
///
/// # Errors
/// The cache cannot be written.
pub fn json() -> Result<PathBuf> {
    text(&format!("nested-{VERSION}.json"), JSON)
}

/// JSON whose columns are of one type here and of another there.
///
/// # Errors
/// The cache cannot be written.
pub fn unions() -> Result<PathBuf> {
    text(&format!("unions-{VERSION}.json"), UNIONS)
}

/// Parquet with lists, structs and maps in each other.
///
/// # Errors
/// The cache cannot be written.
pub fn parquet() -> Result<PathBuf> {
    cache::entry(&format!("nested-{VERSION}.parquet"), |path| {
        let mut writer = ArrowWriter::try_new(File::create(path)?, schema(), None)?;
        for batch in ReaderBuilder::new(schema()).build(PARQUET.as_bytes())? {
            writer.write(&batch?)?;
        }
        writer.close()?;
        Ok(())
    })
}

fn text(name: &str, content: &str) -> Result<PathBuf> {
    cache::entry(name, |path: &Path| Ok(fs::write(path, content)?))
}

fn schema() -> SchemaRef {
    let nullable = |name: &str, data_type| Field::new(name, data_type, true);
    let list = |item: Field| DataType::List(Arc::new(item));
    let of = |name: &str, data_type| nullable(name, list(Field::new("element", data_type, false)));
    let map = |name: &str, value| {
        let pair = vec![
            Field::new("key", DataType::Utf8, false),
            nullable("value", value),
        ];
        let entries = Field::new("key_value", DataType::Struct(pair.into()), false);
        nullable(name, DataType::Map(Arc::new(entries), false))
    };
    let inner = vec![
        nullable("d", DataType::Date32),
        nullable("ts", DataType::Timestamp(TimeUnit::Millisecond, None)),
        nullable("n", DataType::Decimal128(9, 2)),
    ];
    let outer = vec![
        nullable("x", DataType::Int32),
        nullable("y", DataType::Utf8),
        nullable("z", DataType::Struct(inner.into())),
    ];
    let element = vec![nullable("a", DataType::Int64), of("l", DataType::Utf8)];
    let row = vec![nullable("q", DataType::Float64)];
    let ints = Field::new("element", DataType::Int32, false);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int32, false),
        of("l", DataType::Int64),
        of("t", DataType::Utf8),
        nullable("s", DataType::Struct(outer.into())),
        of("ls", DataType::Struct(element.into())),
        map("m", DataType::Int64),
        map("ms", DataType::Struct(row.into())),
        of("ll", list(ints)),
    ]))
}
