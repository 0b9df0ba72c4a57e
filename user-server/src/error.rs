//! Errors that a user sees, in Drill's form.

use arrow::error::ArrowError;
use protos::{
    coord::DrillbitEndpoint,
    error::{ErrorType, Retry},
    shared::DrillPbError,
};
use record_batch::EncodeError;
use rpc_bus::{ComputePanicked, RpcFailure, ledger::BudgetExceeded};
use thiserror::Error;
use uuid::Uuid;

/// Why a query has no result. The server gives it an id and names the node when it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct UserError {
    /// Drill's kind of error.
    pub error_type: ErrorType,
    /// For people: what is wrong. Context, such as the statement, follows after an empty line.
    pub message: String,
    /// Whether another try can help.
    pub retry: Retry,
}

impl UserError {
    /// An error that no other try helps.
    #[must_use]
    pub fn new(error_type: ErrorType, message: impl Into<String>) -> Self {
        Self {
            error_type,
            message: message.into(),
            retry: Retry::Never,
        }
    }

    /// The same error with another advice.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// A request that this server knows and does not serve.
    pub(crate) fn unsupported(what: &str) -> Self {
        let message = format!("{what} is not supported by this server");
        Self::new(ErrorType::UnsupportedOperation, message)
    }

    /// A limit that is free again a moment later.
    pub(crate) fn resource(message: impl Into<String>) -> Self {
        Self::new(ErrorType::Resource, message).with_retry(Retry::SameNode)
    }

    pub(crate) fn shutting_down() -> Self {
        Self::resource("this server is shutting down").with_retry(Retry::OtherNode)
    }

    pub(crate) fn panicked() -> Self {
        Self::new(
            ErrorType::InternalError,
            "the engine panicked while it ran the query",
        )
    }

    /// Whether the cause lies in the server, so that its log has to say more.
    pub(crate) fn is_of_server(&self) -> bool {
        use ErrorType::{InternalError, System, UnspecifiedError};
        matches!(self.error_type, System | InternalError | UnspecifiedError)
    }

    /// The error on the wire, under a new error id.
    // wire: golden/user/error
    pub(crate) fn to_wire(&self, node: &DrillbitEndpoint) -> DrillPbError {
        let error_id = Uuid::new_v4().to_string();
        DrillPbError {
            message: Some(self.text(&error_id, node)),
            error_id: Some(error_id),
            endpoint: Some(node.clone()),
            error_type: Some(self.error_type.into()),
            ..DrillPbError::default()
        }
        .with_retry(self.retry)
    }

    pub(crate) fn into_failure(self, node: &DrillbitEndpoint) -> RpcFailure {
        self.to_wire(node).into()
    }

    /// Drill's text: message, empty line, context if any, empty line, id and node.
    // wire: golden/user/error: frames 4 (with context), 8 (without) and 16 (SYSTEM)
    fn text(&self, error_id: &str, node: &DrillbitEndpoint) -> String {
        let gap = if self.message.contains("\n\n") {
            "\n\n"
        } else {
            "\n\n\n"
        };
        let logs = match self.error_type {
            ErrorType::System => "Please, refer to logs for more information.\n\n",
            _ => "",
        };
        let kind = self.error_type.as_str_name();
        let message = self.message.trim_end();
        let (address, port) = (node.address(), node.user_port());
        format!("{kind} ERROR: {message}{gap}{logs}[Error Id: {error_id} on {address}:{port}]")
    }
}

impl From<BudgetExceeded> for UserError {
    fn from(error: BudgetExceeded) -> Self {
        Self::resource(error.to_string())
    }
}

impl From<EncodeError> for UserError {
    fn from(error: EncodeError) -> Self {
        Self::new(ErrorType::UnsupportedOperation, error.to_string())
    }
}

impl From<ArrowError> for UserError {
    fn from(error: ArrowError) -> Self {
        Self::new(ErrorType::InternalError, error.to_string())
    }
}

impl From<ComputePanicked> for UserError {
    fn from(error: ComputePanicked) -> Self {
        Self::new(ErrorType::InternalError, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(error_type: ErrorType, message: &str) -> String {
        let node = DrillbitEndpoint {
            address: Some("127.0.0.1".to_owned()),
            user_port: Some(31010),
            ..DrillbitEndpoint::default()
        };
        let error = UserError::new(error_type, message).to_wire(&node);
        error.message().replace(error.error_id(), "ID")
    }

    #[test]
    fn the_text_has_drills_form() {
        assert_eq!(
            sent(ErrorType::Validation, "Object 'x' not found"),
            "VALIDATION ERROR: Object 'x' not found\n\n\n[Error Id: ID on 127.0.0.1:31010]"
        );
        assert_eq!(
            sent(
                ErrorType::Parse,
                "no query\n\nSQL Query: selec 1\n           ^"
            ),
            "PARSE ERROR: no query\n\nSQL Query: selec 1\n           ^\n\n\
             [Error Id: ID on 127.0.0.1:31010]"
        );
        assert_eq!(
            sent(ErrorType::System, "NumberFormatException: abc"),
            "SYSTEM ERROR: NumberFormatException: abc\n\n\n\
             Please, refer to logs for more information.\n\n\
             [Error Id: ID on 127.0.0.1:31010]"
        );
    }
}
