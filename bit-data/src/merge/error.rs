//! What can be wrong with a merge and its inputs.

use arrow::{
    datatypes::{DataType, SchemaRef},
    error::ArrowError,
};
use thiserror::Error;

/// Keys by which nothing can be merged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MergeKeyError {
    /// Without a key there is no order.
    #[error("a merge needs at least one sort key")]
    NoKey,
    /// A key names no column.
    #[error("sort key on column {column}, but there are {columns} columns")]
    Column {
        /// The column of the key, from 0 on.
        column: usize,
        /// How many there are.
        columns: usize,
    },
    /// Only scalars and dictionaries of scalars have an order here.
    #[error("column {column} is {data_type}; a sort key is a scalar or a dictionary of scalars")]
    Type {
        /// The column of the key, from 0 on.
        column: usize,
        /// Its type.
        data_type: DataType,
    },
    /// Arrow knows no row format for the keys.
    #[error("the keys have no order")]
    Rows(#[source] ArrowError),
}

/// Why a merge ended before its inputs did. Whether to try again is what the error of the input says.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MergeError<E> {
    /// An input failed.
    #[error("input {input} of a merge failed")]
    Input {
        /// Which one, from 0 on.
        input: usize,
        /// Its error.
        source: E,
    },
    /// An input has columns of other types.
    #[error(
        "input {input} of a merge has other columns: expected {}, got {}",
        types(expected),
        types(actual)
    )]
    Schema {
        /// Which one, from 0 on.
        input: usize,
        /// Columns of the merge.
        expected: SchemaRef,
        /// Columns of the input.
        actual: SchemaRef,
    },
    /// An input is not sorted by the keys of the merge.
    #[error(
        "input {input} of a merge is not sorted: row {row} of a batch belongs before the row in front of it"
    )]
    NotSorted {
        /// Which one, from 0 on.
        input: usize,
        /// The row within its batch, from 0 on.
        row: usize,
    },
    /// Arrow refused to compare or to join rows: texts of more than 2 GiB, nulls where the schema has none.
    #[error("rows cannot be merged")]
    Rows(#[from] ArrowError),
}

fn types(schema: &SchemaRef) -> String {
    let types = schema.fields().iter().map(|field| field.data_type());
    types
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What can be wrong with the keys of one input.
#[derive(Debug)]
pub(super) enum KeyProblem {
    NotSorted { row: usize },
    Rows(ArrowError),
}

impl KeyProblem {
    pub(super) fn of_input<E>(self, input: usize) -> MergeError<E> {
        match self {
            Self::NotSorted { row } => MergeError::NotSorted { input, row },
            Self::Rows(error) => MergeError::Rows(error),
        }
    }
}

impl From<ArrowError> for KeyProblem {
    fn from(error: ArrowError) -> Self {
        Self::Rows(error)
    }
}
