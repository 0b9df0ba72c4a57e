//! Statements that are too much: each ends in an answer or in a clear error, and the node lives on.

use super::super::ErrorClass;
use super::super::sql::limits::{DEPTH_MAX, SET_OPERATIONS_MAX};
use super::{EngineError, answer, engine, run, run_in};

/// Either an answer or a limit; anything else is a defect.
async fn survives(sql: String) -> Option<EngineError> {
    let error = run(&sql).await.err()?;
    let expected = matches!(error, EngineError::TooComplex { .. });
    assert!(
        expected,
        "{}...: {error}",
        sql.chars().take(80).collect::<String>()
    );
    assert_eq!(error.class(), ErrorClass::Resource);
    Some(error)
}

#[tokio::test]
async fn long_sums_are_refused() {
    for terms in [1_000, 5_000, 100_000] {
        assert!(
            survives(format!("select 1{}", " + 1".repeat(terms)))
                .await
                .is_some()
        );
    }
}

#[tokio::test]
async fn long_conditions_are_refused() {
    let condition = |terms: usize| vec!["employee_id = 1"; terms].join(" or ");
    let sql = |terms| {
        format!(
            "select count(*) from cp.`employee.json` where {}",
            condition(terms)
        )
    };
    assert!(survives(sql(20_000)).await.is_some());
}

#[tokio::test]
async fn the_deepest_allowed_expressions_run_on_small_stacks() {
    let chain = |term: &str, operator: &str| vec![term; DEPTH_MAX - 10].join(operator);
    for expr in [
        chain("employee_id", " + "),
        chain("salary", " * "),
        format!(
            "case when {} then 1 else 0 end",
            chain("employee_id > 7", " or ")
        ),
        format!(
            "case when {} then 1 else 0 end",
            chain("salary <> employee_id", " and ")
        ),
        format!("{}employee_id", "- ".repeat(DEPTH_MAX - 10)),
        format!(
            "{}employee_id{}",
            "abs(".repeat(DEPTH_MAX / 4),
            ")".repeat(DEPTH_MAX / 4)
        ),
    ] {
        let sql = format!("select max({expr}) from cp.`employee.json`");
        if let Err(error) = run(&sql).await {
            assert!(!matches!(error, EngineError::Internal { .. }), "{error}");
        }
    }
}

#[tokio::test]
async fn deep_brackets_are_refused() {
    for depth in [DEPTH_MAX - 1, 10_000, 400_000] {
        survives(format!(
            "select {}1{}",
            "(".repeat(depth),
            ")".repeat(depth)
        ))
        .await;
        survives(format!(
            "{}select 1{}",
            "(".repeat(depth),
            ")".repeat(depth)
        ))
        .await;
    }
    survives(format!("select {}1", "(".repeat(DEPTH_MAX + 1)))
        .await
        .expect("refused");
    survives(format!(
        "select {}1{}",
        "case when true then ".repeat(5000),
        " end".repeat(5000)
    ))
    .await
    .expect("refused");
    survives(format!("select {} true", "not ".repeat(50_000)))
        .await
        .expect("refused");
}

#[tokio::test]
async fn many_unions_are_refused_and_some_run() {
    let unions = |count| vec!["select 1 a"; count + 1].join(" union all ");
    assert!(survives(unions(2_000)).await.is_some());
    assert_eq!(
        answer(&unions(SET_OPERATIONS_MAX / 4)).await.row_count(),
        SET_OPERATIONS_MAX / 4 + 1
    );
}

#[tokio::test]
async fn with_tables_that_multiply_are_refused() {
    let table = |n: u32| {
        let before = n - 1;
        format!(", t{n} as (select x.a from t{before} x, t{before} y)")
    };
    let tables: String = (1..40).map(table).collect();
    let sql = format!("with t0 as (select 1 a){tables}");
    assert!(survives(sql + " select count(*) from t39").await.is_some());
}

#[tokio::test]
async fn statements_may_not_be_longer_than_the_limit() {
    let error = survives(format!("select '{}'", "x".repeat(1024 * 1024)))
        .await
        .expect("refused");
    assert_eq!(
        error.to_string(),
        "The statement has too many bytes; this node accepts at most 1048576"
    );
}

#[tokio::test]
async fn long_lists_run() {
    let items: Vec<String> = (0..2_000).map(|item| item.to_string()).collect();
    let sql = format!(
        "select count(*) from cp.`employee.json` where employee_id in ({})",
        items.join(",")
    );
    assert_eq!(answer(&sql).await.rows(), ["1155"]);
}

#[tokio::test]
async fn a_session_goes_on_after_a_refusal() {
    let session = engine().session();
    assert!(
        run_in(&session, &format!("select 1{}", " + 1".repeat(5_000)))
            .await
            .is_err()
    );
    assert_eq!(
        run_in(&session, "select 1").await.expect("answer").rows(),
        ["1"]
    );
}

#[tokio::test]
async fn windows_in_a_row_run() {
    let window = |n: u32| format!("sum(salary) over (partition by store_id + {n} order by salary)");
    let list = |count| (0..count).map(window).collect::<Vec<_>>().join(", ");
    let sql = |count| format!("select {} from cp.`employee.json` limit 1", list(count));
    assert_eq!(answer(&sql(20)).await.row_count(), 1);
}
