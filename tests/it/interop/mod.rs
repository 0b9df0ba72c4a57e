//! The live ring: the real JDBC driver against our node, our client against a real Drill, and our
//! client against our node.

pub(crate) mod client_suite;
mod client_to_drill;
mod client_to_node;
mod driver_on_both;
mod driver_to_node;
mod harness;
mod killed;
mod stalled;
mod versions;

/// Types of `tests::data::scalars`, as JDBC names them.
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

/// Rows of `tests::data::scalars`, as JDBC shows them.
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
