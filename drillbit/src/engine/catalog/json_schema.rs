//! The columns of JSON text, by reading all of it: columns in the order in which they first appear,
//! numbers BIGINT unless one has a fraction, columns that are always null VARCHAR.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use serde_json::{Map, Value};

/// What is known about the values at one place.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Kind {
    /// Only nulls so far.
    #[default]
    Unknown,
    Boolean,
    Integer,
    Double,
    Text,
    List(Box<Self>),
    Struct(Columns),
}

/// Columns by name, in order of appearance.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Columns(Vec<(String, Kind)>);

/// Two values that no type holds both.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Column '{column}' holds {first} and {second}")]
pub(super) struct Conflict {
    column: String,
    first: &'static str,
    second: &'static str,
}

impl Columns {
    /// Takes the columns of one more object into account.
    pub(super) fn add(&mut self, object: &Map<String, Value>) -> Result<(), Conflict> {
        for (index, (name, value)) in object.iter().enumerate() {
            let known = match self.0.get(index) {
                Some((known, _)) if known == name => Some(index),
                _ => self.0.iter().position(|(known, _)| known == name),
            };
            let index = known.unwrap_or_else(|| {
                self.0.push((name.clone(), Kind::Unknown));
                self.0.len() - 1
            });
            self.0[index].1.add(value, name)?;
        }
        Ok(())
    }

    pub(super) fn fields(self) -> Fields {
        self.0
            .into_iter()
            .map(|(name, kind)| Field::new(name, kind.data_type(), true))
            .collect()
    }
}

impl Kind {
    fn add(&mut self, value: &Value, column: &str) -> Result<(), Conflict> {
        match (&mut *self, value) {
            (_, Value::Null)
            | (Self::Boolean, Value::Bool(_))
            | (Self::Text, Value::String(_))
            | (Self::Double, Value::Number(_)) => {}
            (Self::Integer, Value::Number(number)) => {
                if !number.is_i64() {
                    *self = Self::Double;
                }
            }
            (Self::List(items), Value::Array(values)) => {
                values
                    .iter()
                    .try_for_each(|value| items.add(value, column))?;
            }
            (Self::Struct(columns), Value::Object(object)) => columns.add(object)?,
            (Self::Unknown, value) => {
                *self = Self::empty(value);
                self.add(value, column)?;
            }
            (known, value) => {
                return Err(Conflict {
                    column: column.to_owned(),
                    first: known.name(),
                    second: Self::empty(value).name(),
                });
            }
        }
        Ok(())
    }

    fn empty(value: &Value) -> Self {
        match value {
            Value::Null => Self::Unknown,
            Value::Bool(_) => Self::Boolean,
            Value::Number(number) if number.is_i64() => Self::Integer,
            Value::Number(_) => Self::Double,
            Value::String(_) => Self::Text,
            Value::Array(_) => Self::List(Box::default()),
            Value::Object(_) => Self::Struct(Columns::default()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Unknown => "nulls",
            Self::Boolean => "booleans",
            Self::Integer | Self::Double => "numbers",
            Self::Text => "text",
            Self::List(_) => "lists",
            Self::Struct(_) => "objects",
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Unknown | Self::Text => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
            Self::Integer => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::List(items) => {
                DataType::List(Arc::new(Field::new_list_field(items.data_type(), true)))
            }
            Self::Struct(columns) => DataType::Struct(columns.fields()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn columns(objects: &[Value]) -> Result<Columns, Conflict> {
        let mut columns = Columns::default();
        objects
            .iter()
            .try_for_each(|object| columns.add(object.as_object().expect("object")))?;
        Ok(columns)
    }

    #[test]
    fn columns_keep_their_order_and_widen() {
        let objects = [
            json!({"b": 1, "a": null}),
            json!({"b": 1.5, "a": null, "c": [1, null]}),
        ];
        let fields = columns(&objects).expect("columns").fields();
        let shown: Vec<String> = fields
            .iter()
            .map(|f| format!("{} {}", f.name(), f.data_type()))
            .collect();
        assert_eq!(shown, ["b Float64", "a Utf8", "c List(Int64)"]);
    }

    #[test]
    fn what_no_type_holds_names_the_column() {
        let error = columns(&[json!({"a": 1}), json!({"a": "x"})]).expect_err("conflict");
        assert_eq!(error.to_string(), "Column 'a' holds numbers and text");
    }
}
