//! What is wrong with an Arrow body.

use arrow::error::ArrowError;

/// Bytes that are not a body of an Arrow stream: the peer broke the format.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArrowBodyError {
    /// A message does not begin as one.
    #[error("a message begins with {found:02x?}, expected ff ff ff ff")]
    Marker {
        /// The bytes found.
        found: [u8; 4],
    },
    /// The body ends within a message.
    #[error("{needed} bytes announced, {available} available")]
    Truncated {
        /// As announced.
        needed: i64,
        /// What is left of the body.
        available: usize,
    },
    /// The header of a message is no flatbuffer.
    #[error("the header of a message is damaged: {0}")]
    Header(String),
    /// A message that is well-formed, but not one of ours.
    #[error("{0}")]
    Malformed(&'static str),
    /// Metadata of another version of the format.
    #[error("metadata version {actual}, expected V5")]
    Version {
        /// As sent, counted from V1 = 0.
        actual: i16,
    },
    /// Something follows the batch.
    #[error("a message behind the batch")]
    BehindTheBatch,
    /// A batch or a dictionary before the schema.
    #[error("no schema yet")]
    NoSchema,
    /// A stream has one schema.
    #[error("a second schema")]
    SecondSchema,
    /// A type that the format has, and Arrow arrays do not.
    #[error("column {column}: {problem}")]
    Type {
        /// Dotted path of the column.
        column: String,
        /// What is wrong with its type.
        problem: &'static str,
    },
    /// The row count is negative or above [`ArrowDecodeOptions::rows_max`](super::ArrowDecodeOptions).
    #[error("{rows} rows announced, at most {rows_max} allowed")]
    RowCount {
        /// As announced.
        rows: i64,
        /// As configured.
        rows_max: usize,
    },
    /// A dictionary that the schema does not have.
    #[error("no column has the dictionary {id}")]
    UnknownDictionary {
        /// As sent.
        id: i64,
    },
    /// Values for a dictionary that the same body has brought already.
    #[error("the dictionary {id} comes twice in one body, expected once, in front of the batch")]
    SecondDictionary {
        /// As sent.
        id: i64,
    },
    /// The dictionaries of the stream take too much memory.
    #[error("dictionaries of {bytes} bytes, at most {bytes_max} allowed")]
    DictionaryBytes {
        /// Memory of all dictionaries.
        bytes: usize,
        /// As configured.
        bytes_max: usize,
    },
    /// A column contradicts the bytes that came.
    #[error("column {column}: {problem}")]
    Column {
        /// Dotted path of the column.
        column: String,
        /// What is wrong with it.
        problem: ColumnProblem,
    },
    /// Nodes or buffers that no column takes.
    #[error("{nodes} nodes and {buffers} buffers are left over")]
    LeftOver {
        /// Nodes.
        nodes: usize,
        /// Buffers.
        buffers: usize,
    },
    /// Arrow refused what the checks above let through.
    #[error("columns do not form a batch: {0}")]
    Batch(#[source] ArrowError),
}

/// What is wrong with one column of an Arrow body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ColumnProblem {
    /// The header lists too few nodes, buffers or variadic counts.
    #[error("the header has no {0} for it")]
    Missing(&'static str),
    /// The node's numbers are no lengths.
    #[error("{nulls} nulls in {values} values")]
    Node {
        /// As sent.
        values: i64,
        /// As sent.
        nulls: i64,
    },
    /// Too many values that no bytes stand for; see [`ArrowDecodeOptions::rows_max`](super::ArrowDecodeOptions).
    #[error("{values} values that take no bytes, at most {values_max} allowed")]
    NoBytes {
        /// As sent.
        values: usize,
        /// As configured.
        values_max: usize,
    },
    /// A column must have as many values as the batch has rows.
    #[error("{actual} values, expected {expected}")]
    ValueCount {
        /// Rows of the batch.
        expected: usize,
        /// As sent.
        actual: usize,
    },
    /// A buffer outside of the body.
    #[error("a buffer of {length} bytes at {offset}, the body has {available}")]
    Buffer {
        /// As sent.
        offset: i64,
        /// As sent.
        length: i64,
        /// Bytes of the body.
        available: usize,
    },
    /// A buffer in front of the end of the one before.
    #[error("a buffer at {actual}, expected at {expected} or above, where the one before it ends")]
    Overlap {
        /// Where it begins, in bytes of the message's data.
        actual: usize,
        /// Where the one before it ends.
        expected: usize,
    },
    /// The validity is shorter than the column.
    #[error("a validity of {actual} bytes, expected {expected}")]
    Validity {
        /// What the node's length needs.
        expected: usize,
        /// As sent.
        actual: usize,
    },
    /// A buffer ends in the middle of a value.
    #[error("a buffer of {actual} bytes for values of {byte_width}")]
    Width {
        /// Bytes of a value.
        byte_width: usize,
        /// As sent.
        actual: usize,
    },
    /// Views of something else than text.
    #[error("bytes that are not UTF-8, expected text in every row")]
    Text,
    /// Nulls in a list whose items are never null.
    #[error("nulls among items that the schema says are never null")]
    NullItems,
    /// Arrow refused the buffers.
    #[error(transparent)]
    Invalid(#[from] ArrowError),
}
