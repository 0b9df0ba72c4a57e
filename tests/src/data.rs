//! Files that both Drills query: small ones with every scalar type, large ones for streams.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, Time32MillisecondArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Schema};
use parquet::arrow::ArrowWriter;

use crate::cache;

/// Changes with what this file writes, so that no test reads what an older version wrote.
const VERSION: u32 = 2;
/// Rows of [`million`].
pub const MILLION: u64 = 1_000_000;
/// Copies of [`million`] in [`five_million`].
const COPIES: u64 = 5;
const ROWS_PER_BATCH: u64 = 50_000;

/// Sums over [`million`], as a client can compute them while it reads.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Rows.
    pub rows: u64,
    /// Sum of `id`.
    pub ids: i64,
    /// Sum of `v`; exact, as every value and partial sum is a multiple of 1/8.
    pub values: f64,
    /// Total length of `s`.
    pub text_len: u64,
    /// Nulls in `n`.
    pub nulls: u64,
}

/// One million rows: `id` BIGINT, `v` DOUBLE, `s` VARCHAR, `d` DATE, and `n` INT with every tenth
/// null.
///
/// # Errors
/// The cache cannot be written.
pub fn million() -> Result<PathBuf> {
    cache::entry(&format!("million-{VERSION}.parquet"), write_million)
}

/// A directory of five files as [`million`].
///
/// # Errors
/// The cache cannot be written.
pub fn five_million() -> Result<PathBuf> {
    let million = million()?;
    cache::entry(&format!("five-million-{VERSION}"), |directory| {
        fs::create_dir(directory)?;
        for copy in 0..COPIES {
            fs::hard_link(&million, directory.join(format!("{copy}.parquet")))?;
        }
        Ok(())
    })
}

/// What a reader of [`million`] must find.
#[must_use]
pub fn million_totals() -> Totals {
    let mut totals = Totals {
        rows: MILLION,
        ids: 0,
        values: 0.0,
        text_len: 0,
        nulls: 0,
    };
    for id in 0..MILLION {
        totals.ids += signed(id);
        totals.values += value(id);
        totals.text_len += text(id).len() as u64;
        totals.nulls += u64::from(number(id).is_none());
    }
    totals
}

/// What a reader of [`five_million`] must find.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    reason = "five"
)]
pub fn five_million_totals() -> Totals {
    let one = million_totals();
    Totals {
        rows: one.rows * COPIES,
        ids: one.ids * COPIES as i64,
        values: one.values * COPIES as f64,
        text_len: one.text_len * COPIES,
        nulls: one.nulls * COPIES,
    }
}

/// Every scalar type that a Parquet file can bring to Drill, nullable: a row of ordinary values,
/// one of nulls, one of smallest and one of largest values. `id` is required.
///
/// # Errors
/// The cache cannot be written.
pub fn scalars() -> Result<PathBuf> {
    cache::entry(&format!("scalars-{VERSION}.parquet"), |path| {
        write_parquet(path, &[scalar_batch()?])
    })
}

/// A file as [`scalars`] without a row.
///
/// # Errors
/// The cache cannot be written.
pub fn no_rows() -> Result<PathBuf> {
    cache::entry(&format!("no-rows-{VERSION}.parquet"), |path| {
        write_parquet(path, &[scalar_batch()?.slice(0, 0)])
    })
}

/// A small text file in the cache, such as `people-1.csvh`.
///
/// # Errors
/// The cache cannot be written.
pub fn text_file(name: &str, content: &str) -> Result<PathBuf> {
    cache::entry(name, |path| Ok(fs::write(path, content)?))
}

/// Nulls and values of every type that JSON has, and texts to cast to the others.
///
/// # Errors
/// The cache cannot be written.
pub fn json_nulls() -> Result<PathBuf> {
    let rows = [
        r#"{"id":1,"i":10,"d":1.5,"s":"one","b":true,"dt":"2024-02-29","tm":"12:34:56","#,
        r#""ts":"2024-02-29 12:34:56","dc":"12.345"}"#,
        "\n",
        r#"{"id":2,"i":null,"d":null,"s":null,"b":null,"dt":null,"tm":null,"ts":null,"dc":null}"#,
        "\n",
        r#"{"id":3,"i":-30,"d":-2.25,"s":"","b":false,"dt":"1969-12-31","tm":"00:00:00","#,
        r#""ts":"1969-12-31 23:59:59","dc":"-0.5"}"#,
    ];
    text_file(&format!("nulls-{VERSION}.json"), &rows.concat())
}

/// Text with a header line.
///
/// # Errors
/// The cache cannot be written.
pub fn csv_with_header() -> Result<PathBuf> {
    text_file(
        &format!("people-{VERSION}.csvh"),
        "id,name,city\n1,Ada,London\n2,Grace,New York\n3,Barbara,\"Boston, MA\"\n",
    )
}

/// Files whose content is not what their names say.
///
/// # Errors
/// The cache cannot be written.
pub fn unreadable() -> Result<[PathBuf; 3]> {
    Ok([
        text_file(
            &format!("garbage-{VERSION}.parquet"),
            "PAR1, says the file, and no more",
        )?,
        text_file(&format!("truncated-{VERSION}.json"), "{\"id\":1}\n{\"id\":")?,
        text_file(&format!("garbage-{VERSION}.json"), "id,name\n1,Ada\n")?,
    ])
}

/// A directory of two JSON files with different columns.
///
/// # Errors
/// The cache cannot be written.
pub fn changing_columns() -> Result<PathBuf> {
    cache::entry(&format!("changing-columns-{VERSION}"), |directory| {
        fs::create_dir(directory)?;
        fs::write(directory.join("0.json"), "{\"a\":1,\"b\":\"x\"}\n")?;
        Ok(fs::write(
            directory.join("1.json"),
            "{\"a\":2,\"c\":1.5}\n",
        )?)
    })
}

fn write_million(path: &Path) -> Result<()> {
    let batches: Result<Vec<_>> = (0..MILLION / ROWS_PER_BATCH)
        .map(|batch| million_batch(batch * ROWS_PER_BATCH))
        .collect();
    write_parquet(path, &batches?)
}

fn million_batch(first: u64) -> Result<RecordBatch> {
    let ids = || first..first + ROWS_PER_BATCH;
    let columns: [(&str, ArrayRef, bool); 5] = [
        (
            "id",
            Arc::new(Int64Array::from_iter_values(ids().map(signed))),
            false,
        ),
        (
            "v",
            Arc::new(Float64Array::from_iter_values(ids().map(value))),
            false,
        ),
        (
            "s",
            Arc::new(StringArray::from_iter_values(ids().map(text))),
            false,
        ),
        (
            "d",
            Arc::new(Date32Array::from_iter_values(ids().map(day))),
            false,
        ),
        (
            "n",
            Arc::new(ids().map(number).collect::<Int32Array>()),
            true,
        ),
    ];
    batch(columns)
}

#[expect(clippy::cast_possible_wrap, reason = "below a million")]
fn signed(id: u64) -> i64 {
    id as i64
}

fn value(id: u64) -> f64 {
    let eighths = u32::try_from(id * 7919 % 10_007).unwrap_or_default();
    f64::from(eighths) / 8.0
}

fn text(id: u64) -> String {
    format!("str{:04}", id % 977)
}

fn day(id: u64) -> i32 {
    i32::try_from(id % 20_000).unwrap_or_default()
}

fn number(id: u64) -> Option<i32> {
    i32::try_from(id % 1000)
        .ok()
        .filter(|_| !id.is_multiple_of(10))
}

fn scalar_batch() -> Result<RecordBatch> {
    let binary: [&[u8]; 3] = [b"abc", b"", b"\x00\xff"];
    let columns: [(&str, ArrayRef, bool); 14] = [
        ("id", Arc::new(Int32Array::from(vec![1, 2, 3, 4])), false),
        ("b", column::<BooleanArray, _>([true, false, true]), true),
        (
            "i32",
            column::<Int32Array, _>([42, i32::MIN, i32::MAX]),
            true,
        ),
        (
            "i64",
            column::<Int64Array, _>([42, i64::MIN, i64::MAX]),
            true,
        ),
        (
            "f32",
            column::<Float32Array, _>([1.5, f32::MIN, f32::MAX]),
            true,
        ),
        (
            "f64",
            column::<Float64Array, _>([-2.25, f64::MIN, f64::MAX]),
            true,
        ),
        (
            "s",
            column::<StringArray, _>(["h\u{e9}llo", "", "\u{1f980} crab"]),
            true,
        ),
        ("vb", column::<BinaryArray, _>(binary), true),
        ("d9", decimal(12_345, 9, 2)?, true),
        ("d18", decimal(-123_456_789_012_345_678, 18, 4)?, true),
        ("d38", decimal(12_345_678_901_234_567_890, 38, 10)?, true),
        (
            "dt",
            column::<Date32Array, _>([19_782, -25_567, 47_481]),
            true,
        ),
        (
            "tm",
            column::<Time32MillisecondArray, _>([45_296_789, 0, 86_399_999]),
            true,
        ),
        (
            "ts",
            column::<TimestampMillisecondArray, _>(TIMESTAMPS),
            true,
        ),
    ];
    batch(columns)
}

/// In milliseconds: a moment of 2024, the start of 1900, the end of 2099.
const TIMESTAMPS: [i64; 3] = [1_709_210_096_789, -2_208_988_800_000, 4_102_444_799_999];

/// Rows: ordinary, null, smallest, largest.
fn column<A, T>([ordinary, smallest, largest]: [T; 3]) -> ArrayRef
where
    A: Array + From<Vec<Option<T>>> + 'static,
{
    Arc::new(A::from(vec![
        Some(ordinary),
        None,
        Some(smallest),
        Some(largest),
    ]))
}

fn decimal(ordinary: i128, precision: u8, scale: i8) -> Result<ArrayRef> {
    let largest = 10_i128.pow(precision.into()) - 1;
    let values = vec![Some(ordinary), None, Some(-largest), Some(largest)];
    let values = Decimal128Array::from(values).with_precision_and_scale(precision, scale)?;
    Ok(Arc::new(values))
}

fn batch<const N: usize>(columns: [(&str, ArrayRef, bool); N]) -> Result<RecordBatch> {
    let field = |(name, array, nullable): &(&str, ArrayRef, bool)| {
        Field::new(*name, array.data_type().clone(), *nullable)
    };
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    let arrays = columns.into_iter().map(|(_, array, _)| array).collect();
    Ok(RecordBatch::try_new(Arc::new(schema), arrays)?)
}

fn write_parquet(path: &Path, batches: &[RecordBatch]) -> Result<()> {
    let schema = batches.first().context("no batch")?.schema();
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema, None)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.close()?;
    Ok(())
}
