//! DATE - DATE is INTERVAL DAY TO SECOND in Drill.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, IntervalDayTimeArray};
use arrow::compute::binary;
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, IntervalDayTime, IntervalDayTimeType, IntervalUnit,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::engine::error::EngineError;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::engine) struct DateDifference {
    signature: Signature,
}

impl DateDifference {
    pub(in crate::engine) fn new() -> Self {
        Self {
            signature: Signature::exact(
                vec![DataType::Date32, DataType::Date32],
                Volatility::Immutable,
            ),
        }
    }
}

impl ScalarUDFImpl for DateDifference {
    fn name(&self) -> &'static str {
        "drill_date_difference"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::DayTime))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(
            self.name(),
            DataType::Interval(IntervalUnit::DayTime),
            nullable,
        )))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Err(EngineError::Internal {
                reason: "a difference has two sides".into(),
            }
            .into());
        };
        let days = difference(left, right)?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &days, 0,
            )?));
        }
        Ok(ColumnarValue::Array(days))
    }
}

fn difference(left: &ArrayRef, right: &ArrayRef) -> Result<ArrayRef> {
    let days = |left: i32, right: i32| IntervalDayTime::new(left.wrapping_sub(right), 0);
    let (left, right) = (
        left.as_primitive::<Date32Type>(),
        right.as_primitive::<Date32Type>(),
    );
    let days: IntervalDayTimeArray = binary::<_, _, _, IntervalDayTimeType>(left, right, days)?;
    Ok(Arc::new(days))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, Date32Array};

    #[test]
    fn the_difference_is_in_days_and_null_if_a_side_is() {
        let left: ArrayRef = Arc::new(Date32Array::from(vec![Some(10), None]));
        let right: ArrayRef = Arc::new(Date32Array::from(vec![Some(13), Some(1)]));
        let days = difference(&left, &right).expect("difference");
        assert_eq!(
            days.as_primitive::<IntervalDayTimeType>().value(0),
            IntervalDayTime::new(-3, 0)
        );
        assert!(days.is_null(1));
    }
}
