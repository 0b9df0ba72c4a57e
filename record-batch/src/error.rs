//! What can go wrong, and which column it went wrong in.

use arrow::{datatypes::DataType, error::ArrowError};
use protos::common::{DataMode, MinorType};

/// A descriptor and body that are not a record batch: the peer broke the format.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The batch is filtered by a selection vector, which no Drill peer sends.
    #[error("the batch carries a two-byte selection vector")]
    SelectionVector,
    /// The row count is negative or above [`DecodeOptions::rows_max`](crate::DecodeOptions).
    #[error("{rows} rows announced, at most {rows_max} allowed")]
    RowCount {
        /// As announced.
        rows: i32,
        /// As configured.
        rows_max: usize,
    },
    /// The columns' lengths do not add up to the body's.
    #[error("columns describe {described} body bytes, the body has {actual}")]
    BodyLength {
        /// Sum of the top-level `buffer_length`s.
        described: usize,
        /// Bytes that came.
        actual: usize,
    },
    /// One column is broken.
    #[error("column {column}: {problem}")]
    Column {
        /// Dotted path of the vector.
        column: String,
        /// What is wrong with it.
        #[source]
        problem: VectorError,
    },
    /// Arrow refused what the checks above let through.
    #[error("columns do not form a batch: {0}")]
    Batch(#[from] ArrowError),
}

/// What is wrong with one vector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// The descriptor has no type.
    #[error("no type in the descriptor")]
    MissingType,
    /// A minor type number that Drill does not define.
    #[error("unknown minor type {number}")]
    UnknownType {
        /// As sent.
        number: i32,
    },
    /// A data mode number that Drill does not define.
    #[error("unknown data mode {number}")]
    UnknownMode {
        /// As sent.
        number: i32,
    },
    /// A type that Drill has no vector for.
    #[error("{} {} cannot be decoded", mode.as_str_name(), minor.as_str_name())]
    Unsupported {
        /// As sent.
        minor: MinorType,
        /// As sent.
        mode: DataMode,
    },
    /// Precision and scale that no decimal has.
    #[error("no decimal has precision {precision} and scale {scale}")]
    DecimalType {
        /// As sent; absent counts as 38.
        precision: i32,
        /// As sent; absent counts as 0.
        scale: i32,
    },
    /// Vectors nested deeper than [`DecodeOptions::depth_max`](crate::DecodeOptions).
    #[error("nested too deep")]
    TooDeep,
    /// A length or count below zero.
    #[error("negative length or count {value}")]
    Negative {
        /// As sent.
        value: i32,
    },
    /// Too few or too many child vectors for the layout.
    #[error("{actual} child vectors, expected {expected}")]
    ChildCount {
        /// What the layout has.
        expected: usize,
        /// As sent.
        actual: usize,
    },
    /// A child vector with another name than the layout gives it.
    #[error("child vector named {actual:?}, expected {expected:?}")]
    ChildName {
        /// What the layout has.
        expected: String,
        /// As sent.
        actual: String,
    },
    /// A child vector of another type than the layout gives it.
    #[error("child vector is {} {}", mode.as_str_name(), minor.as_str_name())]
    ChildType {
        /// As sent.
        minor: MinorType,
        /// As sent.
        mode: DataMode,
    },
    /// The vector has another number of values than the rows it stands for.
    #[error("{actual} values, expected {expected}")]
    ValueCount {
        /// What the surrounding vector or batch has.
        expected: usize,
        /// As sent.
        actual: usize,
    },
    /// The vector's bytes are not as many as its type and count need.
    #[error("{actual} bytes, expected {expected}")]
    BufferLength {
        /// What type and count need.
        expected: usize,
        /// As sent.
        actual: usize,
    },
    /// The vector's bytes end after the bytes that surround it.
    #[error("{needed} bytes described, {available} available")]
    Truncated {
        /// As described.
        needed: usize,
        /// What is left of the body or of the parent.
        available: usize,
    },
    /// Offsets that do not start at 0, or run backwards.
    #[error("offsets run backwards at row {row}")]
    OffsetsBackwards {
        /// The row whose start or end is wrong.
        row: usize,
    },
    /// The last offset is not the end of the data.
    #[error("offsets end at {actual}, the data at {expected}")]
    OffsetsEnd {
        /// Length of the data.
        expected: usize,
        /// The last offset, as an unsigned number.
        actual: usize,
    },
    /// Two members of a union of the same type.
    #[error("a union with two members of one type")]
    UnionMember,
    /// A row of a union whose type has no member.
    #[error("row {row} is of a type that the union has no member for")]
    UnionType {
        /// The first such row.
        row: usize,
    },
    /// More values than rows are allowed, of a vector that takes no bytes for them.
    #[error("{values} values without a byte for any")]
    Unjustified {
        /// As sent.
        values: usize,
    },
    /// Arrow refused children that every check above let through.
    #[error("children do not form an array: {message}")]
    Assembly {
        /// Arrow's words.
        message: String,
    },
    /// Bytes of a present row that are not UTF-8 (or UTF-16 for VAR16CHAR).
    #[error("row {row} is not valid text")]
    Text {
        /// The first such row.
        row: usize,
    },
    /// A decimal of more than 38 digits.
    #[error("row {row} is a decimal of more than 38 digits")]
    DecimalDigits {
        /// The first such row.
        row: usize,
    },
    /// A decimal of more bytes than 38 digits need.
    #[error("row {row} is a decimal of {bytes} bytes")]
    DecimalWidth {
        /// The first such row.
        row: usize,
        /// Its length.
        bytes: usize,
    },
}

/// A batch that Drill's vectors cannot hold, or that is not of the encoder's schema.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// One column cannot be encoded.
    #[error("column {column} of type {data_type}: {problem}")]
    Column {
        /// Dotted path of the field.
        column: String,
        /// Its Arrow type.
        data_type: DataType,
        /// Why not.
        #[source]
        problem: EncodeProblem,
    },
    /// The batch has another number of columns than the encoder's schema.
    #[error("{actual} columns, the encoder was made for {expected}")]
    ColumnCount {
        /// What the encoder was made for.
        expected: usize,
        /// What came.
        actual: usize,
    },
    /// More rows or bytes than a descriptor can say (Java ints); split the batch first.
    #[error(
        "the batch has {size} rows or bytes, a descriptor can say {}",
        i32::MAX
    )]
    TooLarge {
        /// Rows or bytes.
        size: usize,
    },
    /// Arrow's format cannot express the batch.
    #[error("no Arrow body: {0}")]
    ArrowBody(#[from] ArrowError),
}

/// Why a column cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeProblem {
    /// Drill has no vector for the type.
    #[error("no Drill type: {reason}")]
    NoDrillType {
        /// For people.
        reason: &'static str,
    },
    /// A value that the Drill type cannot hold.
    #[error("the value of row {row} does not fit {}", minor.as_str_name())]
    OutOfRange {
        /// The first such row, counted in the encoded array.
        row: usize,
        /// The Drill type.
        minor: MinorType,
    },
    /// The column's type is not the one the encoder was made for.
    #[error("the encoder was made for {expected}, the batch has {actual}")]
    Mismatch {
        /// What the encoder was made for.
        expected: DataType,
        /// What came.
        actual: DataType,
    },
    /// Fields nested deeper than Drill peers can parse.
    #[error("nested too deep")]
    TooDeep,
    /// The column has more bytes or elements than Drill's offsets can say; split the batch first.
    #[error("{size} bytes or elements, offsets can say {}", i32::MAX)]
    TooLarge {
        /// Bytes or elements.
        size: usize,
    },
    /// A null in an array that has no place for one, by its field or because its field asks for a
    /// REPEATED vector.
    #[error("a null element in a REPEATED vector")]
    NullElement,
    /// Arrow could not bring a dictionary, runs or views into a plain form.
    #[error("cannot be brought into a plain form: {message}")]
    Plain {
        /// Arrow's words.
        message: String,
    },
}

impl From<ArrowError> for EncodeProblem {
    fn from(error: ArrowError) -> Self {
        Self::Plain {
            message: error.to_string(),
        }
    }
}

impl EncodeError {
    pub(crate) fn column(name: &str, data_type: &DataType, problem: EncodeProblem) -> Self {
        Self::Column {
            column: name.to_owned(),
            data_type: data_type.clone(),
            problem,
        }
    }

    /// The error as one of the column around it.
    pub(crate) fn inside(mut self, name: &str) -> Self {
        if let Self::Column { column, .. } = &mut self {
            column.insert_str(0, &format!("{name}."));
        }
        self
    }
}

/// A problem on its way up to the column that it is in; the path grows at every level.
#[derive(Debug)]
pub(crate) struct At<P> {
    pub(crate) path: String,
    pub(crate) problem: P,
}

impl<P> At<P> {
    pub(crate) fn inside(mut self, name: &str) -> Self {
        self.path = match self.path.as_str() {
            "" => name.to_owned(),
            rest => format!("{name}.{rest}"),
        };
        self
    }
}

impl<P> From<P> for At<P> {
    fn from(problem: P) -> Self {
        Self {
            path: String::new(),
            problem,
        }
    }
}

impl From<At<VectorError>> for DecodeError {
    fn from(at: At<VectorError>) -> Self {
        Self::Column {
            column: at.path,
            problem: at.problem,
        }
    }
}
