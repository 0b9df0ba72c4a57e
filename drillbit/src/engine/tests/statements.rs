//! Drill's own statements, sessions, and errors in Drill's words (golden/transcripts: session, error,
//! maxrows).

use super::super::ErrorClass;
use super::{answer, engine, refusal, run_in, run_limited};

#[tokio::test]
async fn errors_name_the_object_and_the_place() {
    for (sql, class, message) in [
        (
            "select nosuchcol from (values(1)) t(a)",
            ErrorClass::Validation,
            "From line 1, column 8 to line 1, column 16: Column 'nosuchcol' not found in any table",
        ),
        (
            "select t.nosuch from (values(1)) t(a)",
            ErrorClass::Validation,
            "From line 1, column 8 to line 1, column 15: Column 'nosuch' not found in table 't'",
        ),
        (
            "select * from dfs.tmp.`nofile.json`",
            ErrorClass::Validation,
            "From line 1, column 15 to line 1, column 35: Object 'nofile.json' not found within 'dfs.tmp'",
        ),
        (
            "select nofunc(1) from (values(1))",
            ErrorClass::Validation,
            "From line 1, column 8 to line 1, column 16: No match found for function signature nofunc(<NUMERIC>)",
        ),
        (
            "select cast(1234567890123456789012345678.0123456789 as decimal(38,10)) x from (values(1))",
            ErrorClass::Validation,
            "From line 1, column 13 to line 1, column 51: Numeric literal \
             '1234567890123456789012345678.0123456789' out of range",
        ),
        (
            "select cast('abc' as int) from (values(1))",
            ErrorClass::System,
            "NumberFormatException: abc",
        ),
        (
            "select cast('abc' as double) from (values(1))",
            ErrorClass::System,
            "NumberFormatException: abc",
        ),
        (
            "alter session set `no.such.option` = 1",
            ErrorClass::Validation,
            "The option 'no.such.option' does not exist.",
        ),
        (
            "create table x as select 1",
            ErrorClass::Unsupported,
            "CREATE TABLE is not supported",
        ),
        (
            "use nosuch",
            ErrorClass::Validation,
            "Schema [nosuch] is not valid with respect to either root schema or current default schema.",
        ),
    ] {
        let error = refusal(sql).await;
        assert_eq!(error.to_string(), message, "{sql}");
        assert_eq!(error.class(), class, "{sql}");
    }
}

#[tokio::test]
async fn what_is_no_sql_is_a_parse_error_that_points() {
    for sql in [
        "selec 1",
        "select 1 +",
        "select 1; select 2",
        "",
        "select 'open",
        "explain plan",
        "use",
    ] {
        assert_eq!(refusal(sql).await.class(), ErrorClass::Parse, "{sql}");
    }
    let text = refusal("select a b c").await.to_string();
    assert!(
        text.contains("SQL Query: select a b c\n                      ^"),
        "{text}"
    );
}

#[tokio::test]
async fn a_number_format_error_comes_from_running_rows_too() {
    let error = refusal("select cast(full_name as int) from cp.`employee.json`").await;
    assert!(
        error.to_string().starts_with("NumberFormatException: "),
        "{error}"
    );
    assert_eq!(error.class(), ErrorClass::System);
}

#[tokio::test]
async fn use_changes_the_schema_of_that_session() {
    let engine = engine();
    let (one, other) = (engine.session(), engine.session());
    let changed = run_in(&one, "use CP").await.expect("use");
    assert_eq!(changed.columns(), ["ok Boolean", "summary Utf8?"]);
    assert_eq!(
        changed.rows(),
        ["true|Default schema changed to [cp.default]"]
    );
    assert_eq!(
        run_in(&one, "select 1 from `employee.json` limit 1")
            .await
            .expect("found")
            .row_count(),
        1
    );
    assert!(
        run_in(&other, "select 1 from `employee.json` limit 1")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn options_are_kept_by_the_session_and_shown() {
    let session = engine().session();
    let set = run_in(&session, "alter session set `planner.slice_target` = 1000")
        .await
        .expect("set");
    assert_eq!(set.rows(), ["true|planner.slice_target updated."]);
    let shown = run_in(
        &session,
        "select name, val from sys.options where name='planner.slice_target'",
    )
    .await;
    let shown = shown.expect("shown");
    assert_eq!(shown.rows(), ["planner.slice_target|1000"]);
    assert_eq!(shown.columns(), ["name Utf8?", "val Utf8?"]);
}

#[tokio::test]
async fn the_lower_of_both_row_limits_counts() {
    let session = engine().session();
    let sql = "select employee_id from cp.`employee.json`";
    let first = run_limited(&session, sql, Some(7)).await.expect("rows");
    assert_eq!(first.rows(), ["1", "2", "4", "5", "6", "7", "8"]);
    assert_eq!(
        run_limited(&session, &format!("{sql} limit 4"), Some(7))
            .await
            .expect("rows")
            .row_count(),
        4
    );
    run_in(&session, "alter session set `exec.query.max_rows` = 3")
        .await
        .expect("set");
    assert_eq!(
        run_limited(&session, sql, Some(7))
            .await
            .expect("rows")
            .row_count(),
        3
    );
}

#[tokio::test]
async fn show_schemas_lists_what_there_is() {
    let answer = answer("show schemas").await;
    assert_eq!(answer.columns(), ["SCHEMA_NAME Utf8?"]);
    let expected = [
        "cp.default",
        "dfs.default",
        "dfs.root",
        "dfs.tmp",
        "information_schema",
        "sys",
    ];
    assert_eq!(answer.rows(), expected);
}

#[tokio::test]
async fn the_information_schema_describes_itself() {
    let tables = answer("show tables in information_schema").await;
    assert_eq!(tables.columns(), ["TABLE_SCHEMA Utf8?", "TABLE_NAME Utf8?"]);
    assert_eq!(tables.row_count(), 4);
    let columns = answer(
        "select COLUMN_NAME, DATA_TYPE from INFORMATION_SCHEMA.COLUMNS where TABLE_NAME = 'version' order by ORDINAL_POSITION",
    )
    .await;
    assert_eq!(columns.rows()[0], "version|CHARACTER VARYING");
    assert_eq!(columns.row_count(), 6);
    let all = answer("select * from INFORMATION_SCHEMA.SCHEMATA limit 0").await;
    assert_eq!(all.columns()[1], "SCHEMA_NAME Utf8?");
    assert_eq!(answer("describe sys.version").await.row_count(), 6);
}

#[tokio::test]
async fn explain_shows_the_plan_as_text_and_json() {
    let answer = answer("explain plan for select 1 from (values(1))").await;
    assert_eq!(answer.columns(), ["text Utf8?", "json Utf8?"]);
    assert!(
        answer.rows()[0].contains("ProjectionExec"),
        "{:?}",
        answer.rows()
    );
}

#[tokio::test]
async fn tables_that_a_system_schema_lacks_are_named() {
    for (table, within) in [
        ("cp.`nosuch.json`", "'nosuch.json' not found within 'cp'"),
        ("sys.nosuch", "'nosuch' not found within 'sys'"),
        (
            "INFORMATION_SCHEMA.nosuch",
            "'nosuch' not found within 'information_schema'",
        ),
    ] {
        let error = refusal(&format!("select * from {table}")).await;
        assert!(error.to_string().ends_with(within), "{error}");
        assert_eq!(error.class(), ErrorClass::Validation);
    }
}

#[tokio::test]
async fn the_clock_is_that_of_the_statement() {
    let answer = answer("select now() = current_timestamp, now() x, current_date y").await;
    assert_eq!(
        answer.columns(),
        ["EXPR$0 Boolean", "x Timestamp(ms)", "y Date32?"]
    );
    assert!(
        answer.rows()[0].starts_with("true|20"),
        "{:?}",
        answer.rows()
    );
}
