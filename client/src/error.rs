//! What can go wrong between a client and its rows.

use std::fmt;

use protos::{
    coord::DrillbitEndpoint,
    error::{ErrorType, Retry},
    shared::DrillPbError,
    user::HandshakeStatus,
};
use record_batch::{ArrowBodyError, DecodeError};
use rpc_bus::{
    BudgetExceeded, CallError, CloseReason, ConnectError, auth::LoginError, tls::TlsConfigError,
};
use thiserror::Error;

/// Why there is no result, or no more of it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is not `host:port`, or its name is not known.
    #[error("no address {address}: {source}")]
    Address {
        /// As it was given.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// TLS cannot be spoken with this host.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused the handshake.
    #[error("the server refused the connection: {status:?}: {message}")]
    Refused {
        /// Drill's status; `None` if the server gave none that is known.
        status: Option<HandshakeStatus>,
        /// What the server said.
        message: String,
        /// Where to find it in the server's log.
        error_id: Option<String>,
    },
    /// The server speaks another version of the protocol.
    #[error("the server speaks version {actual} of the protocol, expected {expected}")]
    Version {
        /// Ours.
        expected: i32,
        /// The server's.
        actual: i32,
    },
    /// The server asks for an authentication that is not possible with these options.
    #[error(
        "the server asks for one of {offered:?}, encrypted: {encrypted}, which is not to be had"
    )]
    Authentication {
        /// Mechanisms that the server offers.
        offered: Vec<String>,
        /// Whether it insists on encryption.
        encrypted: bool,
    },
    /// User or password are wrong.
    #[error("the server did not accept user and password")]
    WrongPassword,
    /// The server could not prove who it is, or does not authenticate as agreed.
    #[error(transparent)]
    Login(LoginError),
    /// The server failed the query, or refused the request.
    #[error(transparent)]
    Remote(#[from] Box<RemoteError>),
    /// The connection ended; the query may or may not have run.
    #[error("connection lost: {0}")]
    Lost(#[from] CloseReason),
    /// No answer in time, or a limit of this side.
    #[error(transparent)]
    Call(CallError),
    /// All connections that the options allow are in use.
    #[error("{connections_max} results are being read already, each on a connection of its own")]
    TooManyConnections {
        /// The limit.
        connections_max: usize,
    },
    /// Only our own nodes can do this.
    #[error("the server is no node of ours, or tells nothing of itself")]
    NotOurs,
    /// The server does not speak as agreed.
    #[error("the server sent {0}")]
    Protocol(&'static str),
    /// A batch cannot be read.
    #[error("cannot read a batch of the result: {0}")]
    Decode(#[from] DecodeError),
    /// A batch that came as an Arrow body cannot be read.
    #[error("cannot read a batch of the result: {0}")]
    ArrowBody(#[from] ArrowBodyError),
    /// A budget of this side is spent.
    #[error(transparent)]
    Budget(#[from] BudgetExceeded),
    /// The query was cancelled.
    #[error("the query was cancelled")]
    Canceled,
}

/// What a server said about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteError {
    /// Drill's kind of error.
    pub error_type: ErrorType,
    /// Drill's text, with kind and error id.
    pub message: String,
    /// Where to find it in the server's log.
    pub error_id: Option<String>,
    /// `host:port` of the node where it happened.
    pub node: Option<String>,
    /// Whether another try can help.
    pub retry: Retry,
}

impl ClientError {
    /// Whether the same query may succeed another time. Says nothing about whether it has already
    /// taken effect.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_retryable(),
            Self::Lost(reason) => reason.is_retryable(),
            Self::Call(error) => error.is_retryable(),
            Self::Remote(error) => error.retry.is_worthwhile(),
            Self::TooManyConnections { .. } | Self::Budget(_) => true,
            _ => false,
        }
    }

    /// Drill's name for this very failure, in the server's log too.
    #[must_use]
    pub fn error_id(&self) -> Option<&str> {
        match self {
            Self::Remote(error) => error.error_id.as_deref(),
            Self::Refused { error_id, .. } => error_id.as_deref(),
            _ => None,
        }
    }

    /// `host:port` of the node that failed, if it said so.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Remote(error) => error.node.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn remote(error: DrillPbError) -> Self {
        Self::Remote(Box::new(error.into()))
    }
}

impl From<CallError> for ClientError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Remote(failure) => Self::remote(failure.error),
            CallError::Lost(reason) => Self::Lost(reason),
            CallError::Budget(error) => Self::Budget(error),
            other => Self::Call(other),
        }
    }
}

impl From<LoginError> for ClientError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::NotOffered { offered, .. } => Self::Authentication {
                offered,
                encrypted: false,
            },
            LoginError::Rejected => Self::WrongPassword,
            LoginError::Call(error) => error.into(),
            other => Self::Login(other),
        }
    }
}

impl From<DrillPbError> for RemoteError {
    fn from(error: DrillPbError) -> Self {
        // An absent type is not CONNECTION, the first one.
        let error_type = error.error_type.map(ErrorType::try_from);
        let error_type = error_type
            .and_then(Result::ok)
            .unwrap_or(ErrorType::UnspecifiedError);
        let retry = error.retry_advice().unwrap_or_else(|| retry(error_type));
        Self {
            error_type,
            message: error
                .message
                .unwrap_or_else(|| "an error without a message".to_owned()),
            error_id: error.error_id,
            node: error.endpoint.as_ref().and_then(node),
            retry,
        }
    }
}

fn node(endpoint: &DrillbitEndpoint) -> Option<String> {
    let address = endpoint.address.as_deref()?;
    Some(format!("{address}:{}", endpoint.user_port()))
}

/// Drill gives no advice; only what is short of something may have it a moment later.
fn retry(error_type: ErrorType) -> Retry {
    match error_type {
        ErrorType::Resource => Retry::SameNode,
        ErrorType::Connection => Retry::OtherNode,
        _ => Retry::Never,
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RemoteError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_error_keeps_type_id_and_node() {
        let error = ClientError::remote(DrillPbError {
            error_id: Some("62468629".to_owned()),
            endpoint: Some(DrillbitEndpoint {
                address: Some("127.0.0.1".to_owned()),
                user_port: Some(31010),
                ..DrillbitEndpoint::default()
            }),
            error_type: Some(ErrorType::Resource.into()),
            message: Some("RESOURCE ERROR: full".to_owned()),
            ..DrillPbError::default()
        });
        assert_eq!(
            (error.error_id(), error.node()),
            (Some("62468629"), Some("127.0.0.1:31010"))
        );
        assert!(error.is_retryable());
        assert_eq!(error.to_string(), "RESOURCE ERROR: full");
    }

    #[test]
    fn an_error_without_fields_is_unspecified_and_final() {
        let error = RemoteError::from(DrillPbError::default());
        assert_eq!(
            (error.error_type, error.retry),
            (ErrorType::UnspecifiedError, Retry::Never)
        );
        assert!(!error.message.is_empty());
    }
}
