//! The same statements through the real JDBC driver on a real Drill and on our node: the same
//! types, the same names, the same values.

use std::fmt::Write;

use tests::data;
use tests::interop::{JdbcConnection, jdbc, real_drillbit};

use crate::nodes::node;

#[test]
fn names_of_columns() {
    agree(&[
        "select 1 from (values(1))",
        "select 1, 2 from (values(1))",
        "select 1 a, 2 from (values(1))",
        "select EMPLOYEE_ID, Full_Name from cp.`employee.json` limit 0",
        "select i + 1, upper(s) from JSON",
    ]);
}

#[test]
fn casts_to_integers_round() {
    agree(&[
        "select cast(1.7 as int), cast(-1.5 as int), cast(2.5 as int), \
         cast(0.4 as bigint) from (values(1))",
        "select cast(cast(1.7 as double) as int), \
         cast(cast(-2.5 as double) as bigint) from (values(1))",
        "select cast('12' as int), cast('-9' as bigint) from (values(1))",
    ]);
}

#[test]
fn casts_of_texts() {
    agree(&[
        "select cast(i as int), cast(d as float), cast(s as varbinary(10)), \
         cast(s as varchar(2)) from JSON",
        "select cast(dt as date), cast(tm as time), cast(ts as timestamp), \
         cast(dc as decimal(12,3)) from JSON",
        "select cast(i as varchar), cast(d as varchar(10)), cast(b as varchar(5)) from JSON",
    ]);
}

#[test]
fn arithmetic() {
    agree(&[
        "select 7 + 2, 7 - 2, 7 * 2, 7 / 2, mod(7, 2) from (values(1))",
        "select i + 1, i * 2, d * 2, -d, i + d from JSON",
        "select cast(1.25 as decimal(9,2)) + cast(2.5 as decimal(9,1)) from (values(1))",
    ]);
}

#[test]
fn dates_and_intervals() {
    agree(&[
        "select date '2024-03-01' - date '2024-02-28' from (values(1))",
        "select date '2024-01-31' + interval '1' month from (values(1))",
        "select extract(year from date '2024-03-01'), \
         extract(month from date '2024-03-01') from (values(1))",
    ]);
}

#[test]
fn functions_of_texts() {
    agree(&[
        "select upper(s), lower(s), char_length(s) from JSON",
        "select substr('hello', 2, 3), 'a' || 'b', trim('  x '), \
         position('l' in 'hello') from (values(1))",
    ]);
}

#[test]
fn conditions_and_nulls() {
    agree(&[
        "select case when i is null then 'none' when i > 0 then 'plus' else 'minus' end from JSON",
        "select coalesce(i, 0), coalesce(s, 'none') from JSON",
        "select id from JSON where s is null or b = false",
        "select id from JSON where i in (10, 20) or s like 'o%'",
    ]);
}

#[test]
fn aggregates_and_order() {
    agree(&[
        "select count(*), count(i), sum(i), avg(d), min(s), max(s) from JSON",
        "select b, count(*) from JSON group by b order by b nulls first",
        "select s from JSON order by s desc nulls last limit 2",
        "select distinct b from JSON order by b nulls last",
        "select count(*) from PARQUET",
    ]);
}

#[test]
fn joins_and_unions() {
    agree(&[
        "select a.id, b.name from JSON a join CSV b on a.id = cast(b.id as bigint) order by a.id",
        "select a.id, \
         b.name from JSON a left join CSV b on a.i = cast(b.id as bigint) order by a.id",
        "select id from (select id from JSON union all select 4 id from (values(1))) x order by id",
        "with x as (select id from JSON where id > 1) select count(*) from x",
    ]);
}

#[test]
fn files() {
    agree(&[
        "select * from JSON",
        "select * from PARQUET order by id",
        "select * from CSV",
        "select * from JSON limit 0",
    ]);
}

/// Runs each statement on both, and names all differences.
fn agree(statements: &[&str]) {
    let (Some(drill), Some(jdbc)) = (real_drillbit(), jdbc()) else {
        return;
    };
    let (theirs, ours) = (
        jdbc.connect(drill.user(), &[]).unwrap(),
        jdbc.connect(node().user(), &[]).unwrap(),
    );
    let mut differences = String::new();
    for statement in statements {
        let sql = with_files(statement);
        let (expected, found) = (shown(&theirs, &sql), shown(&ours, &sql));
        if expected != found {
            let _ = writeln!(
                differences,
                "{statement}\n  Drill {expected:?}\n  ours  {found:?}"
            );
        }
    }
    assert!(differences.is_empty(), "\n{differences}");
}

fn with_files(statement: &str) -> String {
    let table = |path: std::path::PathBuf| format!("dfs.`{}`", path.display());
    statement
        .replace("JSON", &table(data::json_nulls().unwrap()))
        .replace("PARQUET", &table(data::scalars().unwrap()))
        .replace("CSV", &table(data::csv_with_header().unwrap()))
}

/// Name and type of each column, and the values; or the kind of error.
type Shown = Result<(Vec<(String, String)>, Vec<Vec<Option<String>>>), String>;

fn shown(connection: &JdbcConnection<'_>, sql: &str) -> Shown {
    let kind = |message: &str| message.split(':').next().unwrap_or_default().to_owned();
    let (columns, read) = connection
        .query(sql)
        .map_err(|error| kind(&error.message))?;
    let columns = columns
        .into_iter()
        .map(|column| (column.name, column.type_name))
        .collect();
    let text = |value: Option<tests::interop::JdbcValue>| value.map(|value| value.text);
    Ok((
        columns,
        read.kept
            .into_iter()
            .map(|row| row.into_iter().map(text).collect())
            .collect(),
    ))
}
