//! Scalar functions for what Drill does differently: rounding casts, sized text, dates.
//! They are called by rewritten queries; their names start with `drill_`.

mod date_difference;
mod integer_cast;
mod sized_cast;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::logical_expr::ScalarUDF;

pub(super) use date_difference::DateDifference;

/// All functions, to be registered in each session.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(integer_cast::IntegerCast::new("drill_int", DataType::Int32).into()),
        Arc::new(integer_cast::IntegerCast::new("drill_bigint", DataType::Int64).into()),
        Arc::new(sized_cast::SizedCast::new("drill_varchar", sized_cast::Kind::Varchar).into()),
        Arc::new(sized_cast::SizedCast::new("drill_char", sized_cast::Kind::Char).into()),
        Arc::new(sized_cast::SizedCast::new("drill_varbinary", sized_cast::Kind::Varbinary).into()),
        Arc::new(DateDifference::new().into()),
    ]
}
