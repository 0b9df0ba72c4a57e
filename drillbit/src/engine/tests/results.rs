//! Types, nullability, lengths and values as a real Drill returns them (golden/transcripts: types,
//! employee, prepared), and the differences between Drill's SQL and DataFusion's.

use super::{answer, refusal};

/// A statement, its one column and its one value.
async fn check(sql: &str, column: &str, value: &str) {
    let answer = answer(sql).await;
    assert_eq!(answer.columns(), [column], "{sql}");
    assert_eq!(answer.rows(), [value], "{sql}");
}

#[tokio::test]
async fn literals_and_casts_have_drills_types() {
    for (expr, column, value) in [
        ("cast(42 as int)", "x Int32", "42"),
        (
            "cast(-9223372036854775807 as bigint)",
            "x Int64",
            "-9223372036854775807",
        ),
        ("cast(1.5 as float)", "x Float32", "1.5"),
        ("cast(-2.25 as double)", "x Float64", "-2.25"),
        ("cast('héllo' as varchar(20))", "x Utf8(20)", "héllo"),
        ("cast('abc' as varbinary(10))", "x Binary", "616263"),
        ("cast('ab' as char(4))", "x Utf8(2)", "ab"),
        ("date '2024-02-29'", "x Date32", "2024-02-29"),
        ("time '23:59:58.123'", "x Time32(ms)", "23:59:58.123"),
        (
            "timestamp '2024-02-29 12:34:56.789'",
            "x Timestamp(ms)",
            "2024-02-29T12:34:56.789",
        ),
        (
            "timestamp '1969-12-31 23:59:59.999'",
            "x Timestamp(ms)",
            "1969-12-31T23:59:59.999",
        ),
        ("date '1492-10-12'", "x Date32", "1492-10-12"),
        (
            "timestamp '0900-01-01 00:00:00'",
            "x Timestamp(ms)",
            "0900-01-01T00:00:00",
        ),
        (
            "cast(123.45 as decimal(9,2))",
            "x Decimal128(9, 2)",
            "123.45",
        ),
        (
            "cast(-12345678901234.5678 as decimal(18,4))",
            "x Decimal128(18, 4)",
            "-12345678901234.5678",
        ),
        ("true", "x Boolean", "true"),
        ("cast('2024-01-01' as date)", "x Date32", "2024-01-01"),
    ] {
        check(&format!("select {expr} x from (values(1))"), column, value).await;
    }
}

#[tokio::test]
async fn intervals_have_drills_two_kinds() {
    for (expr, column, value) in [
        (
            "interval '1-2' year to month",
            "x Interval(YearMonth)",
            "1 years 2 mons",
        ),
        (
            "interval '3 04:05:06.789' day to second",
            "x Interval(DayTime)",
            "3 days 4 hours 5 mins 6.789 secs",
        ),
        ("interval '-1' day", "x Interval(DayTime)", "-1 days"),
    ] {
        check(&format!("select {expr} x from (values(1))"), column, value).await;
    }
}

#[tokio::test]
async fn nulls_are_optional_and_have_the_casts_type() {
    for (expr, column) in [
        ("cast(null as int)", "x Int32?"),
        ("cast(null as varchar)", "x Utf8(65535)?"),
        ("cast(null as decimal(9,2))", "x Decimal128(9, 2)?"),
        ("cast(null as boolean)", "x Boolean?"),
        ("null", "x Int32?"),
    ] {
        check(&format!("select {expr} x from (values(1))"), column, "NULL").await;
    }
}

#[tokio::test]
async fn a_prepared_statements_columns_are_drills() {
    let answer = answer(
        "select cast(1 as int) i, cast(1 as bigint) l, cast(1 as float) f, cast(1 as double) d, 'x' s, \
         cast('abc' as varbinary(10)) vb, date '2024-01-01' dt, time '01:02:03' tm, \
         timestamp '2024-01-01 00:00:00' ts, cast(1 as decimal(20,4)) dc, true b, interval '1' year iy, \
         interval '1' day idy, cast(null as int) n from (values(1))",
    )
    .await;
    let expected = [
        "i Int32",
        "l Int64",
        "f Float32",
        "d Float64",
        "s Utf8(1)",
        "vb Binary",
        "dt Date32",
        "tm Time32(ms)",
        "ts Timestamp(ms)",
        "dc Decimal128(20, 4)",
        "b Boolean",
        "iy Interval(YearMonth)",
        "idy Interval(DayTime)",
        "n Int32?",
    ];
    assert_eq!(answer.columns(), expected);
}

#[tokio::test]
async fn types_that_drill_refuses_are_refused_in_its_words() {
    for name in ["smallint", "tinyint"] {
        let error = refusal(&format!("select cast(7 as {name}) x from (values(1))")).await;
        let expected = format!(
            "{} is not supported\nSee Apache Drill JIRA: DRILL-1959",
            name.to_uppercase()
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn casts_to_whole_numbers_round_half_away_from_zero() {
    let answer = answer(
        "select cast(1.7 as int) a, cast(-1.5 as int) b, cast(2.5 as bigint) c, cast(cast(2.5 as double) as int) d",
    )
    .await;
    assert_eq!(answer.rows(), ["2|-2|3|3"]);
    assert_eq!(
        answer.columns(),
        ["a Int32", "b Int32", "c Int64", "d Int32"]
    );
}

#[tokio::test]
async fn text_is_cut_to_its_length_and_keeps_it() {
    check(
        "select cast(x as varchar(3)) y from (values('abcdef'), ('a')) t(x) where x > 'ab'",
        "y Utf8(3)",
        "abc",
    )
    .await;
    check("select cast('abcdef' as char(3)) y", "y Utf8(3)", "abc").await;
    check(
        "select cast(cast('abcdef' as varbinary) as varbinary(2)) y",
        "y Binary",
        "6162",
    )
    .await;
    check("select y from (select 'four' y) t", "y Utf8(4)", "four").await;
}

#[tokio::test]
async fn dates_count_as_drills_do() {
    check(
        "select date '2024-03-01' - date '2024-02-27' x",
        "x Interval(DayTime)",
        "3 days",
    )
    .await;
    check(
        "select date '2024-01-31' + interval '1' month x",
        "x Timestamp(ms)",
        "2024-02-29T00:00:00",
    )
    .await;
    check(
        "select extract(year from date '2024-02-29') x",
        "x Int64",
        "2024",
    )
    .await;
    check(
        "select extract(second from timestamp '2024-02-29 12:34:56.789') x",
        "x Float64",
        "56.789",
    )
    .await;
    check("select year(date '2024-02-29') x", "x Int64", "2024").await;
}

#[tokio::test]
async fn lengths_and_counts_are_bigint() {
    check("select char_length('héllo') x", "x Int64?", "5").await;
    check("select position('l' in 'hello') x", "x Int64", "3").await;
    check("select count(*) x from (values(1),(2))", "x Int64", "2").await;
}

#[tokio::test]
async fn columns_without_a_name_are_numbered() {
    let answer = answer("select 1, 1 + 1, 'a' as b, count(*) from (values(1))").await;
    assert_eq!(
        answer.columns(),
        ["EXPR$0 Int32", "EXPR$1 Int32", "b Utf8(1)", "EXPR$3 Int64"]
    );
    check("select * from (values(7))", "EXPR$0 Int32", "7").await;
    check(
        "select EXPR$0 from (select 1 + 1 from (values(1)))",
        "EXPR$0 Int32",
        "2",
    )
    .await;
}

#[tokio::test]
async fn repeated_names_get_a_number() {
    let answer = answer("select a, a, A as a from (values(1)) t(a)").await;
    assert_eq!(answer.columns(), ["a Int32", "a0 Int32", "a1 Int32"]);
    let answer = super::answer("select *, a from (values(1, 2)) t(a, b)").await;
    assert_eq!(answer.columns(), ["a Int32", "b Int32", "a0 Int32"]);
}

#[tokio::test]
async fn names_match_without_case_and_keep_the_querys_spelling() {
    let answer = answer(
        "select SALARY, E.`Full_Name` from cp.`employee.json` e order by Employee_ID limit 1",
    )
    .await;
    assert_eq!(answer.columns(), ["SALARY Float64?", "Full_Name Utf8?"]);
    assert_eq!(answer.row_count(), 1);
    check(
        "select * from (select 1 as MixedCase from (values(1)))",
        "MixedCase Int32",
        "1",
    )
    .await;
}

#[tokio::test]
async fn numbers_take_the_smallest_type_that_drill_has() {
    check("select 2147483647 x", "x Int32", "2147483647").await;
    check("select 2147483648 x", "x Int64", "2147483648").await;
    check("select 1e3 x", "x Float64", "1000.0").await;
    check("select 1.25 x", "x Decimal128(3, 2)", "1.25").await;
}

#[tokio::test]
async fn ordinals_limits_and_frames_stay_plain_numbers() {
    let answer = answer("select a, count(*) from (values(2),(1),(2)) t(a) group by 1 order by 1 desc limit 1 offset 0").await;
    assert_eq!(answer.rows(), ["2|2"]);
    let answer =
        super::answer("select a from (values(3),(1),(2)) t(a) order by a fetch first 2 rows only")
            .await;
    assert_eq!(answer.rows(), ["1", "2"]);
    let answer = super::answer(
        "select sum(a) over (order by a rows between 1 preceding and current row) from (values(1),(2),(3)) t(a)",
    )
    .await;
    assert_eq!(answer.rows(), ["1", "3", "5"]);
}

#[tokio::test]
async fn unions_and_with_tables_work() {
    let answer = answer("with T as (select 1 a union all select 2) select x.a from t x join T y on x.a = y.a order by A").await;
    assert_eq!(answer.rows(), ["1", "2"]);
}
