//! The real JDBC driver against our node.

use std::fmt::Write;
use std::thread;
use std::time::{Duration, Instant};

use tests::data;
use tests::interop::{ALL_ROWS, Jdbc, JdbcConnection, JdbcError, JdbcStatement, Rows, jdbc};
use tests::transcript::{self, Outcome, Statement};

use crate::nodes::node;

/// Runs for minutes if nothing stops it.
fn endless() -> String {
    let million = data::million().unwrap();
    let million = million.display();
    format!(
        "select count(*) from dfs.`{million}` a, dfs.`{million}` b where a.n = b.n and a.v <> b.v"
    )
}

fn connect(jdbc: &Jdbc) -> JdbcConnection<'_> {
    jdbc.connect(node().user(), &[]).unwrap()
}

/// The kind at the start of a message: `PARSE ERROR`.
fn kind(message: &str) -> &str {
    message.split(':').next().unwrap_or_default()
}

#[test]
fn every_type_comes_with_the_metadata_and_value_that_a_real_drill_gives_it() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    let mut wrong = String::new();
    for statement in transcript::read("types").unwrap() {
        if let Err(difference) = compare(&connection, &statement) {
            let _ = writeln!(wrong, "{}\n{difference}", statement.sql);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn compare(connection: &JdbcConnection<'_>, statement: &Statement) -> Result<(), String> {
    match (connection.query(&statement.sql), &statement.outcome) {
        (
            Ok((columns, read)),
            Outcome::Rows {
                columns: expected,
                rows,
            },
        ) => {
            let same = columns == *expected && read.kept == *rows;
            let found = (columns, read.kept);
            same.then_some(())
                .ok_or_else(|| format!("  found    {found:?}\n  expected {:?}", (expected, rows)))
        }
        (Err(error), Outcome::Error(expected)) if kind(&error.message) == kind(expected) => Ok(()),
        (found, expected) => Err(format!("  found    {found:?}\n  expected {expected:?}")),
    }
}

#[test]
fn errors_are_of_the_kind_that_a_real_drill_reports_and_the_connection_goes_on() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    for statement in transcript::read("error").unwrap() {
        // A schema that only the recorded Drill had.
        let sql = statement.sql.replace("dfs.probe.`", "dfs.`/nowhere/");
        match (connection.query(&sql), &statement.outcome) {
            (Err(error), Outcome::Error(expected)) => {
                assert_eq!(kind(&error.message), kind(expected), "{sql}: {error}");
                assert!(error.message.contains("[Error Id: "), "{error}");
            }
            (
                Ok((columns, read)),
                Outcome::Rows {
                    columns: expected,
                    rows,
                },
            ) => {
                assert_eq!((&columns, &read.kept), (expected, rows), "{sql}");
            }
            (found, expected) => panic!("{sql}: {found:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn every_scalar_type_of_parquet_arrives_with_its_nulls() {
    let Some(jdbc) = jdbc() else { return };
    let path = data::scalars().unwrap();
    let (columns, read) = connect(jdbc)
        .query(&format!(
            "select * from dfs.`{}` order by id",
            path.display()
        ))
        .unwrap();
    assert_eq!(
        columns
            .iter()
            .map(|column| column.type_name.as_str())
            .collect::<Vec<_>>(),
        SCALAR_TYPES
    );
    assert_eq!(read.texts(), SCALAR_ROWS);
}

/// Types of [`data::scalars`], as JDBC names them.
const SCALAR_TYPES: [&str; 14] = [
    "INTEGER",
    "BOOLEAN",
    "INTEGER",
    "BIGINT",
    "FLOAT",
    "DOUBLE",
    "CHARACTER VARYING",
    "BINARY VARYING",
    "DECIMAL",
    "DECIMAL",
    "DECIMAL",
    "DATE",
    "TIME",
    "TIMESTAMP",
];

/// Rows of [`data::scalars`], as JDBC shows them.
const SCALAR_ROWS: [[&str; 14]; 4] = [
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
        "2024-02-29",
        "12:34:56.789",
        "2024-02-29 12:34:56.789",
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
        "-3.4028235E38",
        "-1.7976931348623157E308",
        "",
        "",
        "-9999999.99",
        "-99999999999999.9999",
        "-9999999999999999999999999999.9999999999",
        "1900-01-01",
        "00:00:00",
        "1900-01-01 00:00:00.0",
    ],
    [
        "4",
        "true",
        "2147483647",
        "9223372036854775807",
        "3.4028235E38",
        "1.7976931348623157E308",
        "\u{1f980} crab",
        "00ff",
        "9999999.99",
        "99999999999999.9999",
        "9999999999999999999999999999.9999999999",
        "2099-12-31",
        "23:59:59.999",
        "2099-12-31 23:59:59.999",
    ],
];

#[test]
fn every_type_of_json_arrives_with_its_nulls() {
    let Some(jdbc) = jdbc() else { return };
    let path = data::json_nulls().unwrap();
    let (columns, read) = connect(jdbc)
        .query(&format!(
            "select id, i, d, s, b from dfs.`{}`",
            path.display()
        ))
        .unwrap();
    let types: Vec<_> = columns
        .iter()
        .map(|column| column.type_name.as_str())
        .collect();
    assert_eq!(
        types,
        ["BIGINT", "BIGINT", "DOUBLE", "CHARACTER VARYING", "BOOLEAN"]
    );
    assert_eq!(
        read.texts(),
        [
            ["1", "10", "1.5", "one", "true"],
            ["2", "NULL", "NULL", "NULL", "NULL"],
            ["3", "-30", "-2.25", "", "false"]
        ]
    );
}

#[test]
fn casts_of_nulls_are_nulls_of_the_other_type() {
    let Some(jdbc) = jdbc() else { return };
    let path = data::json_nulls().unwrap();
    let sql = format!(
        "select cast(i as int), cast(i as bigint), cast(d as float), cast(s as varbinary(10)), \
         cast(dt as date), cast(tm as time), cast(ts as timestamp), \
         cast(dc as decimal(12,3)), cast(s as varchar(2)) from dfs.`{}`",
        path.display()
    );
    let (columns, read) = connect(jdbc).query(&sql).unwrap();
    let types: Vec<_> = columns
        .iter()
        .map(|column| column.type_name.as_str())
        .collect();
    assert_eq!(types, CAST_TYPES);
    assert_eq!(read.texts(), CAST_ROWS);
}

const CAST_TYPES: [&str; 9] = [
    "INTEGER",
    "BIGINT",
    "FLOAT",
    "BINARY VARYING",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "DECIMAL",
    "CHARACTER VARYING",
];

/// As a real Drill answers.
const CAST_ROWS: [[&str; 9]; 3] = [
    [
        "10",
        "10",
        "1.5",
        "6f6e65",
        "2024-02-29",
        "12:34:56",
        "2024-02-29 12:34:56.0",
        "12.345",
        "on",
    ],
    ["NULL"; 9],
    [
        "-30",
        "-30",
        "-2.25",
        "",
        "1969-12-31",
        "00:00:00",
        "1969-12-31 23:59:59.0",
        "-0.500",
        "",
    ],
];

#[test]
fn csv_with_a_header_is_text() {
    let Some(jdbc) = jdbc() else { return };
    let path = data::csv_with_header().unwrap();
    let (_, read) = connect(jdbc)
        .query(&format!("select * from dfs.`{}`", path.display()))
        .unwrap();
    assert_eq!(
        read.texts(),
        [
            ["1", "Ada", "London"],
            ["2", "Grace", "New York"],
            ["3", "Barbara", "Boston, MA"]
        ]
    );
}

#[test]
fn the_sample_employees_are_there() {
    let Some(jdbc) = jdbc() else { return };
    let (columns, read) = connect(jdbc)
        .query("select * from cp.`employee.json`")
        .unwrap();
    assert_eq!(read.count, 1155);
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, EMPLOYEE_COLUMNS);
}

/// As in the sample that a real Drill has under this name.
const EMPLOYEE_COLUMNS: [&str; 17] = [
    "employee_id",
    "full_name",
    "first_name",
    "last_name",
    "position_id",
    "position_title",
    "store_id",
    "department_id",
    "birth_date",
    "hire_date",
    "salary",
    "supervisor_id",
    "education_level",
    "marital_status",
    "gender",
    "management_role",
    "end_date",
];

#[test]
fn a_directory_is_a_table() {
    let Some(jdbc) = jdbc() else { return };
    let path = data::five_million().unwrap();
    let (_, read) = connect(jdbc)
        .query(&format!("select count(*) from dfs.`{}`", path.display()))
        .unwrap();
    assert_eq!(
        read.texts(),
        [[data::five_million_totals().rows.to_string()]]
    );
}

#[test]
fn no_rows_come_with_their_columns() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    let (empty, full) = (data::no_rows().unwrap(), data::scalars().unwrap());
    for sql in [
        format!("select * from dfs.`{}`", empty.display()),
        format!("select * from dfs.`{}` where id < 0", full.display()),
        format!("select * from dfs.`{}` limit 0", full.display()),
    ] {
        let (columns, read) = connection.query(&sql).unwrap();
        assert_eq!((columns.len(), read.count), (14, 0), "{sql}");
    }
}

#[test]
fn a_million_rows_arrive_once_each() {
    let Some(jdbc) = jdbc() else { return };
    let path = data::million().unwrap();
    let (_, read) = connect(jdbc)
        .query(&format!("select * from dfs.`{}`", path.display()))
        .unwrap();
    let expected = data::million_totals();
    assert_eq!((read.count, read.nulls[4]), (expected.rows, expected.nulls));
    assert_eq!(format!("{:.0}", read.sums[0]), expected.ids.to_string());
    assert_eq!(
        format!("{:.3}", read.sums[1]),
        format!("{:.3}", expected.values)
    );
    assert_eq!(
        format!("{:.0}", read.sums[2]),
        expected.text_len.to_string()
    );
}

#[test]
fn a_cancel_in_the_middle_of_a_result_ends_it_and_leaves_the_connection() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    let statement = connection.statement().unwrap();
    statement
        .execute(&format!(
            "select * from dfs.`{}`",
            data::five_million().unwrap().display()
        ))
        .unwrap();
    assert_eq!(statement.fetch(10, 0).unwrap().count, 10);
    statement.cancel().unwrap();
    let canceled = statement.fetch(ALL_ROWS, 0).unwrap_err();
    assert_eq!(canceled.message, "Statement canceled");
    assert_eq!(
        connection
            .query("select 1 from (values(1))")
            .unwrap()
            .1
            .count,
        1
    );
}

#[test]
fn a_cancel_from_another_thread_ends_a_running_query() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    let statement = connection.statement().unwrap();
    let canceled = thread::scope(|scope| {
        let running = scope.spawn(|| run(&statement, &endless()));
        // Before the query is known to the driver a cancel does nothing.
        while !running.is_finished() {
            statement.cancel().unwrap();
            thread::sleep(Duration::from_millis(50));
        }
        running.join().unwrap()
    });
    assert_eq!(canceled.unwrap_err().message, "Statement canceled");
    assert_eq!(
        connection
            .query("select 1 from (values(1))")
            .unwrap()
            .1
            .count,
        1
    );
}

fn run(statement: &JdbcStatement<'_>, sql: &str) -> Result<Rows, JdbcError> {
    statement.execute(sql)?;
    statement.fetch(ALL_ROWS, 1)
}

#[test]
fn a_statement_timeout_ends_a_running_query() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    let statement = connection.statement().unwrap();
    statement.limit(0, 1).unwrap();
    let started = Instant::now();
    let error = run(&statement, &endless()).unwrap_err();
    // The driver reports its own timeout as a cancel where the query had sent its columns already.
    let expected = ["Query timed out in 1 seconds", "Statement canceled"];
    assert!(expected.contains(&error.message.as_str()), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_result_set_closed_early_leaves_the_statement_usable() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    let statement = connection.statement().unwrap();
    for _ in 0..3 {
        statement
            .execute(&format!(
                "select * from dfs.`{}`",
                data::million().unwrap().display()
            ))
            .unwrap();
        assert_eq!(statement.fetch(1, 0).unwrap().count, 1);
        statement.close_results().unwrap();
    }
    statement
        .execute("select employee_id from cp.`employee.json`")
        .unwrap();
    assert_eq!(statement.fetch(ALL_ROWS, 0).unwrap().count, 1155);
}

#[test]
fn eight_connections_query_at_once() {
    let Some(jdbc) = jdbc() else { return };
    let path = data::million().unwrap();
    thread::scope(|scope| {
        let queries: Vec<_> = (1..=8)
            .map(|n| {
                scope.spawn({
                    let sql = format!(
                        "select count(*), min(n), max(n) from dfs.`{}` where n = {n}",
                        path.display()
                    );
                    move || (n, connect(jdbc).query(&sql).unwrap().1)
                })
            })
            .collect();
        for query in queries {
            let (n, read) = query.join().unwrap();
            assert_eq!(read.texts(), [["1000", &n.to_string(), &n.to_string()]]);
        }
    });
}

#[test]
fn two_results_of_one_connection_are_read_in_turns() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    let (one, other) = (
        connection.statement().unwrap(),
        connection.statement().unwrap(),
    );
    let sql = format!(
        "select id, s from dfs.`{}`",
        data::million().unwrap().display()
    );
    one.execute(&sql).unwrap();
    other.execute(&sql).unwrap();
    for _ in 0..20 {
        assert_eq!(one.fetch(10_000, 0).unwrap().count, 10_000);
        assert_eq!(other.fetch(10_000, 0).unwrap().count, 10_000);
    }
}

#[test]
fn max_rows_limits_a_result() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    let statement = connection.statement().unwrap();
    for (max, expected) in [(7, 7), (0, 1155)] {
        statement.limit(max, 0).unwrap();
        assert_eq!(
            run(&statement, "select employee_id from cp.`employee.json`")
                .unwrap()
                .count,
            expected
        );
    }
}

#[test]
fn a_connection_is_valid_while_it_is_open() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    assert!(connection.is_valid(5).unwrap());
}

#[test]
fn the_server_says_what_it_is() {
    let Some(jdbc) = jdbc() else { return };
    let (name, version) = connect(jdbc).product().unwrap();
    assert!(!name.is_empty() && !version.is_empty(), "{name} {version}");
}

#[test]
fn sessions_are_changed_as_in_drill() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    for (sql, summary) in [
        ("use dfs.tmp", "Default schema changed to [dfs.tmp]"),
        (
            "alter session set `planner.slice_target` = 1000",
            "planner.slice_target updated.",
        ),
    ] {
        let (columns, read) = connection.query(sql).unwrap();
        assert_eq!(
            columns
                .iter()
                .map(|column| column.name.as_str())
                .collect::<Vec<_>>(),
            ["ok", "summary"]
        );
        assert_eq!(read.texts(), [["true", summary]]);
    }
}

#[test]
fn schemas_are_shown() {
    let Some(jdbc) = jdbc() else { return };
    let (columns, read) = connect(jdbc).query("show schemas").unwrap();
    assert_eq!(columns[0].name, "SCHEMA_NAME");
    let schemas: Vec<&str> = read.texts().into_iter().flatten().collect();
    for schema in ["cp.default", "dfs.default"] {
        assert!(schemas.contains(&schema), "{schemas:?}");
    }
}

#[test]
fn a_default_schema_comes_with_the_connection() {
    let Some(jdbc) = jdbc() else { return };
    let connection = jdbc.connect(node().user(), &["schema=cp"]).unwrap();
    assert_eq!(
        connection
            .query("select count(*) from `employee.json`")
            .unwrap()
            .1
            .count,
        1
    );
}

#[test]
fn metadata_and_prepared_statements_leave_the_connection_usable() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    // Not served yet: the driver helps itself, or reports an error.
    for outcome in [
        connection.tables().map(drop),
        connection.prepare("select 1 from (values(1))").map(drop),
    ] {
        if let Err(error) = outcome {
            assert!(error.class.starts_with("java.sql.SQL"), "{error}");
        }
        assert!(connection.is_valid(5).unwrap());
    }
    assert_eq!(
        connection
            .query("select 1 from (values(1))")
            .unwrap()
            .1
            .count,
        1
    );
}

#[test]
fn sql_that_would_overflow_the_stack_is_refused() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    let deep = format!("select {} from (values(1))", vec!["1"; 20_000].join(" + "));
    let error = connection.query(&deep).unwrap_err();
    assert!(kind(&error.message).ends_with("ERROR"), "{error}");
    assert_eq!(
        connection
            .query("select 1 from (values(1))")
            .unwrap()
            .1
            .count,
        1
    );
}

#[test]
fn an_idle_connection_lives_by_its_pings() {
    let Some(jdbc) = jdbc() else { return };
    let connection = connect(jdbc);
    // Longer than the server's idle timeout of 30 s; the driver pings every 15 s.
    thread::sleep(Duration::from_secs(32));
    assert_eq!(
        connection
            .query("select 1 from (values(1))")
            .unwrap()
            .1
            .count,
        1
    );
}
