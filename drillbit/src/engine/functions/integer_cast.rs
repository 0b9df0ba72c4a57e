//! CAST to INT and BIGINT: fractions are rounded half away from zero (`1.5 -> 2`, `-2.5 -> -3`),
//! and text that is no number is an error that quotes it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Float32Type, Float64Type,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::engine::error::EngineError;

const STRICT: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: arrow::util::display::FormatOptions::new(),
};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct IntegerCast {
    name: &'static str,
    target: DataType,
    signature: Signature,
}

impl IntegerCast {
    pub(super) fn new(name: &'static str, target: DataType) -> Self {
        Self {
            name,
            target,
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for IntegerCast {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.target.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(
            self.name,
            self.target.clone(),
            nullable,
        )))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(ColumnarValue::Array(values)) => {
                Ok(ColumnarValue::Array(to_integer(&values, &self.target)?))
            }
            Some(ColumnarValue::Scalar(value)) => {
                let cast = to_integer(&value.to_array()?, &self.target)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                    &cast, 0,
                )?))
            }
            None => Err(EngineError::Internal {
                reason: format!("{} without argument", self.name),
            }
            .into()),
        }
    }
}

fn to_integer(values: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let rounded = round(values)?;
    let text = matches!(
        values.data_type(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    );
    match cast_with_options(&rounded, target, &STRICT) {
        Ok(cast) => Ok(cast),
        Err(error) if text => {
            Err(offender(values, target).map_or_else(|| error.into(), Into::into))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whole numbers of the same or a wider type.
fn round(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Float32 => Arc::new(
            values
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(f32::round),
        ),
        DataType::Float64 => Arc::new(
            values
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(f64::round),
        ),
        DataType::Decimal128(_, scale) if *scale > 0 => cast_with_options(
            values,
            &DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
            &STRICT,
        )?,
        _ => Arc::clone(values),
    })
}

/// The first text that is no number.
fn offender(values: &ArrayRef, target: &DataType) -> Option<EngineError> {
    let lenient = CastOptions {
        safe: true,
        ..STRICT
    };
    let cast = cast_with_options(values, target, &lenient).ok()?;
    let row = (0..values.len()).find(|row| cast.is_null(*row) && !values.is_null(*row))?;
    let text = ScalarValue::try_from_array(values, row).ok()?.to_string();
    Some(EngineError::NotANumber { text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Float64Array, Int32Array, StringArray};

    fn cast(values: impl Array + 'static) -> Vec<i32> {
        let values: ArrayRef = Arc::new(values);
        let cast = to_integer(&values, &DataType::Int32).expect("cast");
        cast.as_any()
            .downcast_ref::<Int32Array>()
            .expect("int")
            .values()
            .to_vec()
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        assert_eq!(
            cast(Float64Array::from(vec![1.7, -1.5, 2.5, -0.4])),
            [2, -2, 3, 0]
        );
        let decimals = Decimal128Array::from(vec![17, -15, 25, -4]).with_precision_and_scale(5, 1);
        assert_eq!(cast(decimals.expect("decimal")), [2, -2, 3, 0]);
    }

    #[test]
    fn text_that_is_no_number_is_quoted() {
        let values: ArrayRef = Arc::new(StringArray::from(vec![Some("1"), None, Some("abc")]));
        let error = to_integer(&values, &DataType::Int32).expect_err("refused");
        assert!(
            error.to_string().contains("NumberFormatException: abc"),
            "{error}"
        );
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_never_wraps() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![3e9]));
        assert!(to_integer(&values, &DataType::Int32).is_err());
    }
}
