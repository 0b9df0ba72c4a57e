//! CAST to VARCHAR(n), CHAR(n) and VARBINARY(n): longer values are cut, and the result's type says n.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::engine::error::EngineError;
use crate::engine::output::PRECISION;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Varchar,
    /// As VARCHAR, but a constant has its own length.
    Char,
    Varbinary,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SizedCast {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl SizedCast {
    pub(super) fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            signature: Signature::any(2, Volatility::Immutable),
        }
    }

    fn data_type(&self) -> DataType {
        match self.kind {
            Kind::Varchar | Kind::Char => DataType::Utf8,
            Kind::Varbinary => DataType::Binary,
        }
    }
}

impl ScalarUDFImpl for SizedCast {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.data_type())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args
            .arg_fields
            .first()
            .is_none_or(|field| field.is_nullable());
        let field = Field::new(self.name, self.data_type(), nullable);
        let value = args.scalar_arguments.first().copied().flatten();
        let length = args
            .scalar_arguments
            .get(1)
            .copied()
            .flatten()
            .and_then(length);
        let precision = match (self.kind, length) {
            (Kind::Varbinary, _) | (_, None) => return Ok(Arc::new(field)),
            (Kind::Char, Some(length)) => {
                constant_length(value).map_or(length, |own| own.min(length))
            }
            (Kind::Varchar, Some(length)) => length,
        };
        let metadata = HashMap::from([(PRECISION.to_owned(), precision.to_string())]);
        Ok(Arc::new(field.with_metadata(metadata)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, ColumnarValue::Scalar(limit)] = args.args.as_slice() else {
            return Err(EngineError::Internal {
                reason: format!("{} needs a constant length", self.name),
            }
            .into());
        };
        let limit = length(limit).unwrap_or(usize::MAX);
        let cut = |values: &ArrayRef| -> Result<ArrayRef> {
            let values = arrow::compute::cast(values, &self.data_type())?;
            Ok(match self.kind {
                Kind::Varbinary => cut_bytes(&values, limit),
                Kind::Varchar | Kind::Char => cut_text(&values, limit),
            })
        };
        match value {
            ColumnarValue::Array(values) => Ok(ColumnarValue::Array(cut(values)?)),
            ColumnarValue::Scalar(value) => {
                let values = cut(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                    &values, 0,
                )?))
            }
        }
    }
}

fn length(value: &ScalarValue) -> Option<usize> {
    match value {
        ScalarValue::Int64(Some(length)) => usize::try_from(*length).ok(),
        ScalarValue::Int32(Some(length)) => usize::try_from(*length).ok(),
        _ => None,
    }
}

fn constant_length(value: Option<&ScalarValue>) -> Option<usize> {
    match value {
        Some(ScalarValue::Utf8(Some(text))) => Some(text.chars().count()),
        _ => None,
    }
}

fn cut_text(values: &ArrayRef, limit: usize) -> ArrayRef {
    let texts = values.as_string::<i32>();
    if texts.offsets().windows(2).all(|pair| fits(pair, limit)) {
        return Arc::clone(values);
    }
    let cut = |text| prefix(text, limit);
    Arc::new(
        texts
            .iter()
            .map(|text| text.map(cut))
            .collect::<StringArray>(),
    )
}

fn cut_bytes(values: &ArrayRef, limit: usize) -> ArrayRef {
    let bytes = values.as_binary::<i32>();
    if bytes.offsets().windows(2).all(|pair| fits(pair, limit)) {
        return Arc::clone(values);
    }
    let cut = |bytes| <[u8]>::get(bytes, ..limit).unwrap_or(bytes);
    Arc::new(
        bytes
            .iter()
            .map(|bytes| bytes.map(cut))
            .collect::<BinaryArray>(),
    )
}

/// Whether the value between two offsets has at most `limit` bytes, so at most `limit` characters.
fn fits(pair: &[i32], limit: usize) -> bool {
    let [start, end] = pair else { return true };
    usize::try_from(end - start).is_ok_and(|bytes| bytes <= limit)
}

fn prefix(text: &str, characters: usize) -> &str {
    text.char_indices()
        .nth(characters)
        .map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_by_characters() {
        let values: ArrayRef = Arc::new(StringArray::from(vec![Some("héllo"), None, Some("h")]));
        let cut = cut_text(&values, 2);
        assert_eq!(
            cut.as_string::<i32>(),
            &StringArray::from(vec![Some("hé"), None, Some("h")])
        );
    }

    #[test]
    fn values_that_fit_are_not_copied() {
        let values: ArrayRef = Arc::new(StringArray::from(vec!["abc", ""]));
        assert!(Arc::ptr_eq(&cut_text(&values, 3), &values));
    }

    #[test]
    fn bytes_are_cut_by_bytes() {
        let values: ArrayRef = Arc::new(BinaryArray::from(vec![&b"abc"[..], b"a"]));
        assert_eq!(
            cut_bytes(&values, 2).as_binary::<i32>(),
            &BinaryArray::from(vec![&b"ab"[..], b"a"])
        );
    }
}
