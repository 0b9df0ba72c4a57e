//! Drill's types and date arithmetic, where DataFusion lets a planner choose them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, TypePlanner};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, ScalarUDF};
use datafusion::sql::sqlparser::ast::{BinaryOperator, DataType as SqlType, TimezoneInfo};

use super::functions::DateDifference;

/// TIME and TIMESTAMP have milliseconds in Drill, and no zone.
#[derive(Debug)]
pub(super) struct DrillTypes;

impl TypePlanner for DrillTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let data_type = match sql_type {
            SqlType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                DataType::Timestamp(TimeUnit::Millisecond, None)
            }
            SqlType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                DataType::Time32(TimeUnit::Millisecond)
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}

/// DATE - DATE is an interval, DATE and an interval make a TIMESTAMP.
#[derive(Debug)]
pub(super) struct DrillDates {
    difference: Arc<ScalarUDF>,
}

impl DrillDates {
    pub(super) fn new() -> Self {
        Self {
            difference: Arc::new(DateDifference::new().into()),
        }
    }
}

impl ExprPlanner for DrillDates {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        if !matches!(op, BinaryOperator::Plus | BinaryOperator::Minus) {
            return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
        }
        let (left_type, right_type) = (left.get_type(schema)?, right.get_type(schema)?);
        Ok(match (&left_type, &op, &right_type) {
            (DataType::Date32, BinaryOperator::Minus, DataType::Date32) => {
                PlannerResult::Planned(self.difference.call(vec![left, right]))
            }
            (DataType::Date32, _, DataType::Interval(_)) => {
                PlannerResult::Original(RawBinaryExpr {
                    op,
                    left: timestamp(left),
                    right,
                })
            }
            (DataType::Interval(_), BinaryOperator::Plus, DataType::Date32) => {
                PlannerResult::Original(RawBinaryExpr {
                    op,
                    left,
                    right: timestamp(right),
                })
            }
            _ => PlannerResult::Original(RawBinaryExpr { op, left, right }),
        })
    }
}

fn timestamp(date: Expr) -> Expr {
    Expr::Cast(Cast::new(
        Box::new(date),
        DataType::Timestamp(TimeUnit::Millisecond, None),
    ))
}
