//! What database tools are told about the SQL that runs here (`GET_SERVER_META`).

use protos::{
    common::MinorType,
    user::{
        ConvertSupport, CorrelationNamesSupport, DateTimeLiteralsSupport, GroupBySupport,
        IdentifierCasing, NullCollation, OrderBySupport, OuterJoinSupport, ServerMeta,
        SubQuerySupport, UnionSupport,
    },
};

/// Longest name, in characters.
// wire: golden/user/handshake frame 3
const NAME_LENGTH_MAX: u32 = 1024;

const NUMBERS: [MinorType; 7] = [
    MinorType::Tinyint,
    MinorType::Smallint,
    MinorType::Int,
    MinorType::Bigint,
    MinorType::Float4,
    MinorType::Float8,
    MinorType::Vardecimal,
];
const TIMES: [MinorType; 3] = [MinorType::Date, MinorType::Time, MinorType::Timestamp];

/// What holds for a SQL engine that reads: an [`Engine`](crate::Engine) says more, its functions
/// and keywords above all.
#[must_use]
pub fn server_meta() -> ServerMeta {
    ServerMeta {
        date_time_literals_support: date_time_literals(),
        group_by_support: Some(GroupBySupport::GbUnrelated.into()),
        order_by_support: vec![
            OrderBySupport::ObUnrelated.into(),
            OrderBySupport::ObExpression.into(),
        ],
        outer_join_support: outer_joins(),
        subquery_support: subqueries(),
        union_support: vec![UnionSupport::UUnion.into(), UnionSupport::UUnionAll.into()],
        correlation_names_support: Some(CorrelationNamesSupport::CnAny.into()),
        null_collation: Some(NullCollation::NcHigh.into()),
        null_plus_non_null_equals_null: Some(true),
        like_escape_clause_supported: Some(true),
        column_aliasing_supported: Some(true),
        select_for_update_supported: Some(false),
        transaction_supported: Some(false),
        read_only: Some(true),
        convert_support: conversions(),
        ..names()
    }
}

/// How names are written, and how long they may be.
fn names() -> ServerMeta {
    ServerMeta {
        all_tables_selectable: Some(true),
        catalog_at_start: Some(true),
        catalog_separator: Some(".".to_owned()),
        catalog_term: Some("catalog".to_owned()),
        schema_term: Some("schema".to_owned()),
        table_term: Some("table".to_owned()),
        // Stored as they are written, matched without case.
        identifier_casing: Some(IdentifierCasing::IcStoresMixed.into()),
        quoted_identifier_casing: Some(IdentifierCasing::IcStoresMixed.into()),
        identifier_quote_string: Some("`".to_owned()),
        search_escape_string: Some("\\".to_owned()),
        max_catalog_name_length: Some(NAME_LENGTH_MAX),
        max_schema_name_length: Some(NAME_LENGTH_MAX),
        max_table_name_length: Some(NAME_LENGTH_MAX),
        max_column_name_length: Some(NAME_LENGTH_MAX),
        max_user_name_length: Some(NAME_LENGTH_MAX),
        ..ServerMeta::default()
    }
}

fn date_time_literals() -> Vec<i32> {
    use DateTimeLiteralsSupport::{
        DlDate, DlIntervalDay, DlIntervalHour, DlIntervalMinute, DlIntervalMonth, DlIntervalSecond,
        DlIntervalYear, DlTime, DlTimestamp,
    };
    let instants = [DlDate, DlTime, DlTimestamp];
    let years = [DlIntervalYear, DlIntervalMonth];
    let days = [
        DlIntervalDay,
        DlIntervalHour,
        DlIntervalMinute,
        DlIntervalSecond,
    ];
    instants
        .into_iter()
        .chain(years)
        .chain(days)
        .map(i32::from)
        .collect()
}

fn outer_joins() -> Vec<i32> {
    use OuterJoinSupport::{
        OjAllComparisonOps, OjFull, OjInner, OjLeft, OjNested, OjNotOrdered, OjRight,
    };
    [
        OjLeft,
        OjRight,
        OjFull,
        OjNested,
        OjNotOrdered,
        OjInner,
        OjAllComparisonOps,
    ]
    .map(i32::from)
    .to_vec()
}

fn subqueries() -> Vec<i32> {
    use SubQuerySupport::{SqCorrelated, SqInComparison, SqInExists};
    [SqCorrelated, SqInComparison, SqInExists]
        .map(i32::from)
        .to_vec()
}

/// Casts: numbers among each other, dates as far as they make sense, text to and from all of them.
fn conversions() -> Vec<ConvertSupport> {
    let among_numbers = NUMBERS
        .into_iter()
        .flat_map(|from| NUMBERS.map(|to| (from, to)));
    let among_times = [
        (MinorType::Date, MinorType::Timestamp),
        (MinorType::Timestamp, MinorType::Date),
        (MinorType::Timestamp, MinorType::Time),
    ];
    let text = MinorType::Varchar;
    let all = || NUMBERS.into_iter().chain(TIMES).chain([MinorType::Bit]);
    among_numbers
        .chain(among_times)
        .chain(all().flat_map(|other| [(text, other), (other, text)]))
        .map(|(from, to)| ConvertSupport {
            from: from.into(),
            to: to.into(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_listed_once() {
        let mut pairs: Vec<_> = conversions()
            .iter()
            .map(|pair| (pair.from, pair.to))
            .collect();
        let all = pairs.len();
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), all);
    }
}
