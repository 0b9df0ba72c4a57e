//! What can go wrong between a SQL text and its rows, and how DataFusion's errors become that.
//! The wording and the classes follow Drill, because its clients show and sometimes match them.

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

use super::sql::position::{Location, Region};

/// Why a statement gave no answer, or why its rows ended early.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The text is not SQL. `at` is where reading stopped.
    #[error("{reason}\n\nSQL Query: {sql}{}", caret(.sql, *.at))]
    Syntax {
        /// What was found and what was expected.
        reason: String,
        /// The statement.
        sql: String,
        /// The first place that could not be read.
        at: Option<Location>,
    },
    /// A name that no table in the statement has.
    #[error("{}Column '{column}' not found in {}", prefix(*.at), table_text(.table.as_deref()))]
    ColumnNotFound {
        /// The column as the engine knows it.
        column: String,
        /// The table that the statement named, if it named one.
        table: Option<String>,
        /// Where the name stands.
        at: Option<Region>,
    },
    /// A table or file that does not exist.
    #[error("{}Object '{object}' not found{}", prefix(*.at), within(.schema))]
    ObjectNotFound {
        /// The table or path.
        object: String,
        /// The schema that was searched; empty when there was none.
        schema: String,
        /// Where the name stands.
        at: Option<Region>,
    },
    /// A function that neither Drill nor this engine has.
    #[error("{}No match found for function signature {signature}", prefix(*.at))]
    FunctionNotFound {
        /// Name and argument kinds.
        signature: String,
        /// Where the call stands.
        at: Option<Region>,
    },
    /// An exact number whose digits do not fit 64 bits; Drill refuses it as a literal.
    #[error("{}Numeric literal '{literal}' out of range", prefix(*.at))]
    LiteralOutOfRange {
        /// The literal.
        literal: String,
        /// Where it stands.
        at: Option<Region>,
    },
    /// USE, SHOW or a default schema named something unknown.
    #[error(
        "Schema [{schema}] is not valid with respect to either root schema or current default schema."
    )]
    SchemaNotFound {
        /// The name.
        schema: String,
    },
    /// ALTER SESSION named an unknown option.
    #[error("The option '{name}' does not exist.")]
    OptionNotFound {
        /// The name.
        name: String,
    },
    /// The statement is SQL but cannot be planned.
    #[error("{reason}")]
    Invalid {
        /// Why not.
        reason: String,
    },
    /// Drill or this engine does not do this.
    #[error("{what} is not supported{}", second_line(.note))]
    Unsupported {
        /// The statement, type or clause.
        what: String,
        /// A pointer for the reader, or empty.
        note: &'static str,
    },
    /// A limit on the statement was exceeded.
    #[error("The statement has {what}; this node accepts at most {limit}")]
    TooComplex {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The planner did not finish in its time.
    #[error("Planning took longer than {seconds} s and was given up")]
    PlanningTimeout {
        /// The limit in seconds.
        seconds: u64,
    },
    /// Nobody waits for the plan any more.
    #[error("The query was cancelled while it was planned")]
    Cancelled,
    /// A file that exists and cannot be read as what its name says.
    #[error("{reason}\n\nFile: {file}")]
    FileUnreadable {
        /// The file, or the files that were being read.
        file: String,
        /// Why not.
        reason: String,
    },
    /// Text that is not a number.
    #[error("NumberFormatException: {text}")]
    NotANumber {
        /// The text.
        text: String,
    },
    /// A value that an operation cannot take.
    #[error("{reason}")]
    BadValue {
        /// What and why.
        reason: String,
    },
    /// Memory, disk or threads ran out; the same statement may work later.
    #[error("{reason}")]
    OutOfResources {
        /// Which resource.
        reason: String,
    },
    /// A defect of this program or of a library.
    #[error("{reason}")]
    Internal {
        /// What is known.
        reason: String,
    },
}

/// The classes of Drill's errors that the engine can produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The text cannot be read.
    Parse,
    /// The text can be read, and names or types are wrong.
    Validation,
    /// Known and not offered.
    Unsupported,
    /// A file is damaged.
    DataRead,
    /// Too little memory, disk or time.
    Resource,
    /// Everything else.
    System,
}

impl EngineError {
    /// A table that `schema` does not have.
    pub(super) fn object_not_found(object: &str, schema: &str) -> Self {
        Self::ObjectNotFound {
            object: object.to_owned(),
            schema: schema.to_owned(),
            at: None,
        }
    }

    /// The class under which Drill would report it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Syntax { .. } => ErrorClass::Parse,
            Self::ColumnNotFound { .. }
            | Self::ObjectNotFound { .. }
            | Self::FunctionNotFound { .. }
            | Self::LiteralOutOfRange { .. }
            | Self::SchemaNotFound { .. }
            | Self::OptionNotFound { .. }
            | Self::Invalid { .. } => ErrorClass::Validation,
            Self::Unsupported { .. } => ErrorClass::Unsupported,
            Self::FileUnreadable { .. } => ErrorClass::DataRead,
            Self::TooComplex { .. }
            | Self::PlanningTimeout { .. }
            | Self::OutOfResources { .. } => ErrorClass::Resource,
            Self::NotANumber { .. }
            | Self::BadValue { .. }
            | Self::Internal { .. }
            | Self::Cancelled => ErrorClass::System,
        }
    }

    /// Whether the same statement may succeed on this node later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::OutOfResources { .. })
    }

    /// An error of the planner: what is not known better is the statement's fault.
    pub(super) fn planning(error: DataFusionError) -> Self {
        Self::from_datafusion(error, |reason| Self::Invalid { reason })
    }

    /// An error while rows were made from `files`.
    pub(super) fn running(error: DataFusionError, files: &[String]) -> Self {
        match unwrap_context(error) {
            DataFusionError::ParquetError(error) => unreadable(files, error.to_string()),
            DataFusionError::ObjectStore(error) => unreadable(files, error.to_string()),
            DataFusionError::IoError(error) => unreadable(files, error.to_string()),
            DataFusionError::ArrowError(error, _) if is_file_error(&error) => {
                unreadable(files, error.to_string())
            }
            other => Self::from_datafusion(other, |reason| Self::BadValue { reason }),
        }
    }

    /// A file that could not be opened or whose schema could not be read.
    pub(super) fn opening(file: &str, error: DataFusionError) -> Self {
        let error = unwrap_context(error);
        match error {
            DataFusionError::External(source) => Self::from_external(source.as_ref())
                .unwrap_or_else(|| unreadable(&[file.to_owned()], source.to_string())),
            other => unreadable(&[file.to_owned()], plain_text(&other)),
        }
    }

    fn from_datafusion(error: DataFusionError, otherwise: fn(String) -> Self) -> Self {
        match unwrap_context(error) {
            DataFusionError::External(source) => Self::from_external(source.as_ref())
                .unwrap_or_else(|| Self::Internal {
                    reason: source.to_string(),
                }),
            DataFusionError::SchemaError(error, _) => from_schema(*error),
            DataFusionError::ArrowError(error, _) => from_arrow(*error),
            DataFusionError::ResourcesExhausted(reason) => Self::OutOfResources { reason },
            DataFusionError::NotImplemented(what) => Self::Unsupported { what, note: "" },
            DataFusionError::Internal(reason) => Self::Internal { reason },
            DataFusionError::ExecutionJoin(error) => Self::Internal {
                reason: error.to_string(),
            },
            DataFusionError::Plan(reason) => otherwise(reason),
            DataFusionError::Execution(reason) => Self::BadValue { reason },
            other => otherwise(plain_text(&other)),
        }
    }

    fn from_external(source: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(source);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found.clone());
            }
            if let Some(DataFusionError::External(inner)) = error.downcast_ref() {
                next = Some(inner.as_ref());
                continue;
            }
            next = error.source();
        }
        None
    }
}

impl From<EngineError> for DataFusionError {
    fn from(error: EngineError) -> Self {
        Self::External(Box::new(error))
    }
}

/// A parser's error about `sql`.
pub(super) fn syntax(error: ParserError, sql: &str) -> EngineError {
    let text = match error {
        ParserError::RecursionLimitExceeded => {
            return EngineError::TooComplex {
                what: "too many nested levels",
                limit: super::sql::limits::DEPTH_MAX,
            };
        }
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
    };
    let (reason, at) = Location::split_off(&text);
    EngineError::Syntax {
        reason: reason.to_owned(),
        sql: sql.to_owned(),
        at,
    }
}

fn unwrap_context(error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            unwrap_context(*inner)
        }
        DataFusionError::Collection(mut errors) if !errors.is_empty() => {
            unwrap_context(errors.swap_remove(0))
        }
        DataFusionError::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
            Ok(inner) => unwrap_context(inner),
            Err(shared) => shared_copy(&shared),
        },
        DataFusionError::ArrowError(error, text) => match *error {
            ArrowError::ExternalError(source) => match source.downcast::<DataFusionError>() {
                Ok(inner) => unwrap_context(*inner),
                Err(source) => DataFusionError::External(source),
            },
            error => DataFusionError::ArrowError(Box::new(error), text),
        },
        DataFusionError::External(source) => match source.downcast::<DataFusionError>() {
            Ok(inner) => unwrap_context(*inner),
            Err(source) => DataFusionError::External(source),
        },
        other => other,
    }
}

/// The cause behind an error that several readers hold, as far as it can be taken along.
fn shared_copy(shared: &DataFusionError) -> DataFusionError {
    match shared.find_root() {
        DataFusionError::External(source) => match EngineError::from_external(source.as_ref()) {
            Some(error) => error.into(),
            None => DataFusionError::Execution(source.to_string()),
        },
        DataFusionError::ResourcesExhausted(text) => {
            DataFusionError::ResourcesExhausted(text.clone())
        }
        DataFusionError::ArrowError(error, _) => match from_arrow_text(error) {
            Some(error) => error.into(),
            None => DataFusionError::Execution(error.to_string()),
        },
        other => DataFusionError::Execution(plain_text(other)),
    }
}

fn unreadable(files: &[String], reason: String) -> EngineError {
    EngineError::FileUnreadable {
        file: files.join(", "),
        reason,
    }
}

fn is_file_error(error: &ArrowError) -> bool {
    matches!(
        error,
        ArrowError::CsvError(_)
            | ArrowError::JsonError(_)
            | ArrowError::IoError(..)
            | ArrowError::ParquetError(_)
    )
}

fn from_schema(error: SchemaError) -> EngineError {
    match error {
        SchemaError::FieldNotFound { field, .. } => EngineError::ColumnNotFound {
            column: field.name.clone(),
            table: field
                .relation
                .as_ref()
                .map(|table| table.table().to_owned()),
            at: None,
        },
        SchemaError::AmbiguousReference { field } => EngineError::Invalid {
            reason: format!("Column '{}' is ambiguous", field.name),
        },
        other => EngineError::Invalid {
            reason: other.to_string(),
        },
    }
}

fn from_arrow(error: ArrowError) -> EngineError {
    if let Some(known) = from_arrow_text(&error) {
        return known;
    }
    match error {
        ArrowError::ExternalError(source) => EngineError::from_external(source.as_ref())
            .unwrap_or_else(|| EngineError::Internal {
                reason: source.to_string(),
            }),
        other => EngineError::BadValue {
            reason: other.to_string(),
        },
    }
}

/// Arrow tells a failed cast by text alone: `Cannot cast string 'abc' to value of Float64 type`.
fn from_arrow_text(error: &ArrowError) -> Option<EngineError> {
    let ArrowError::CastError(text) = error else {
        return None;
    };
    let rest = text.strip_prefix("Cannot cast string '")?;
    let (value, target) = rest.rsplit_once("' to value of ")?;
    let numeric = ["Int", "UInt", "Float", "Decimal"]
        .iter()
        .any(|kind| target.starts_with(kind));
    numeric.then(|| EngineError::NotANumber {
        text: value.to_owned(),
    })
}

fn plain_text(error: &DataFusionError) -> String {
    error.message().into_owned()
}

fn prefix(at: Option<Region>) -> String {
    at.map(|region| format!("{region}: ")).unwrap_or_default()
}

fn table_text(table: Option<&str>) -> String {
    table.map_or_else(
        || "any table".to_owned(),
        |table| format!("table '{table}'"),
    )
}

fn within(schema: &str) -> String {
    if schema.is_empty() {
        String::new()
    } else {
        format!(" within '{schema}'")
    }
}

fn second_line(note: &str) -> String {
    if note.is_empty() {
        String::new()
    } else {
        format!("\n{note}")
    }
}

/// A line under the statement's line that points at the column, as Drill prints it.
fn caret(sql: &str, at: Option<Location>) -> String {
    const LEAD: usize = "SQL Query: ".len();
    let Some(at) = at.filter(|at| at.line == 1 && !sql.contains('\n')) else {
        return String::new();
    };
    format!("\n{:>width$}", '^', width = LEAD + at.column)
}
