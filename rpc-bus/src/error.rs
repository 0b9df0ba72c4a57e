//! What can go wrong, sorted by who must act.

use std::{io, time::Duration};

use protos::{
    body::BodyError,
    error::{ErrorType, Retry},
    shared::DrillPbError,
};
use thiserror::Error;

use crate::{
    auth::{AuthError, LoginError},
    capabilities::Feature,
    frame::{CoordinationId, DecodeError},
    ledger::BudgetExceeded,
    tls::TlsError,
};

/// A request that was run, or looked at, and refused: what `RESPONSE_FAILURE` carries. The connection is still good.
///
/// The advice on another try is part of the error; towards a peer that does not know it, it is left out.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{}", .error.message())]
pub struct RpcFailure {
    /// Drill's form of it.
    pub error: DrillPbError,
}

impl RpcFailure {
    /// A failure that no other try helps. The error id is left to whoever knows the node.
    #[must_use]
    pub fn new(error_type: ErrorType, message: impl Into<String>) -> Self {
        let error = DrillPbError {
            error_type: Some(error_type.into()),
            message: Some(message.into()),
            ..DrillPbError::default()
        };
        Self { error }
    }

    /// Whether another try can help. Drill's own failures do not say so, which means never.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.error.retry()
    }

    /// The same failure with another advice.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Self {
            error: self.error.with_retry(retry),
        }
    }

    /// The same failure with advice on when to try again.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        Self {
            error: self.error.with_retry_after(wait),
        }
    }
}

impl From<DrillPbError> for RpcFailure {
    fn from(error: DrillPbError) -> Self {
        Self { error }
    }
}

/// A peer that speaks, but not as agreed. The connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// PING or PONG before the handshake was answered: a Drill peer would take it for the handshake.
    #[error("expected a handshake (rpc type 0), found a heartbeat")]
    HeartbeatBeforeHandshake,
    /// The first message was something else.
    #[error("expected a handshake (rpc type 0), found rpc type {actual}")]
    NotAHandshake {
        /// The `rpc_type` found.
        actual: i32,
    },
    /// A request of a peer that has not yet proved who it is.
    #[error(
        "expected SASL_MESSAGE, as the peer has not yet proved who it is, found rpc type {actual}"
    )]
    NotAuthenticated {
        /// The `rpc_type` found.
        actual: i32,
    },
    /// A second handshake.
    #[error("a second handshake")]
    DuplicateHandshake,
    /// A response to nothing that was asked, or a second one.
    #[error("a response with the unknown coordination id {id}")]
    UnknownResponse {
        /// The id of the response.
        id: CoordinationId,
    },
    /// PING or PONG with another body than our own nodes give them: a damaged message of another kind, which would be
    /// missed.
    #[error(
        "expected a heartbeat with the bytes 08 01 as its body, found another one of {bytes} bytes"
    )]
    NotAHeartbeat {
        /// Of both bodies.
        bytes: usize,
    },
    /// The handshake was answered with `RESPONSE_FAILURE`, which Drill never does.
    #[error("the handshake was answered with a failure")]
    HandshakeFailed,
    /// A one-way message that its handler could not take: nobody can be told but by the end of the connection.
    #[error("one-way message of rpc type {rpc_type}: {reason}")]
    OneWay {
        /// Its `rpc_type`.
        rpc_type: i32,
        /// What was wrong with it.
        reason: String,
    },
}

/// A peer has broken the rules of what it sent: the connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct PeerMisbehaved {
    /// For the log.
    pub reason: String,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it.
    #[error("closed by this side")]
    ClosedHere,
    /// The server of this side is going away.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The peer closed it, possibly in the middle of a frame.
    #[error("closed by the peer{}", if *.mid_frame { " in the middle of a frame" } else { "" })]
    PeerClosed {
        /// Whether a part of a frame was left.
        mid_frame: bool,
    },
    /// The peer said GOODBYE.
    #[error("the peer said goodbye")]
    Goodbye,
    /// No handshake within the time limit.
    #[error("no handshake within {0:?}")]
    HandshakeTimeout(Duration),
    /// This side refused the handshake.
    #[error("handshake refused: {reason}")]
    HandshakeRefused {
        /// For the log; the peer may have been told something else.
        reason: String,
    },
    /// The peer could not prove who it is, or is somebody who may not come in here.
    #[error("authentication failed: {0}")]
    Authentication(AuthError),
    /// No byte from the peer within the time limit.
    #[error("nothing received for {0:?}")]
    IdleTimeout(Duration),
    /// A PING was not answered within the time limit.
    #[error("no PONG within {0:?}")]
    PongTimeout(Duration),
    /// The peer sent bytes that are no frame, or too long a frame.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The peer broke the rules.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The peer asks, but does not read the answers.
    #[error("{bytes} bytes of replies were not read, at most {bytes_max} may wait")]
    RepliesNotRead {
        /// Bytes that wait.
        bytes: usize,
        /// Limit in bytes.
        bytes_max: usize,
    },
    /// A budget of this side is spent.
    #[error(transparent)]
    Budget(#[from] BudgetExceeded),
    /// TLS could not be agreed on, or its records made no sense.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The socket failed.
    #[error("socket: {0}")]
    Io(io::ErrorKind),
    /// The task that drove the connection was stopped.
    #[error("the connection's task was stopped")]
    Aborted,
}

impl CloseReason {
    /// Whether a new connection may do better: not if this side wanted the end, or the peer does not speak the protocol.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ClosedHere
            | Self::HandshakeRefused { .. }
            | Self::Authentication(_)
            | Self::Decode(_)
            | Self::Protocol(_) => false,
            Self::Tls(error) => error.is_retryable(),
            Self::ShuttingDown
            | Self::PeerClosed { .. }
            | Self::Goodbye
            | Self::HandshakeTimeout(_)
            | Self::IdleTimeout(_)
            | Self::PongTimeout(_)
            | Self::RepliesNotRead { .. }
            | Self::Budget(_)
            | Self::Io(_)
            | Self::Aborted => true,
        }
    }

    /// A stable word for logs and metrics, in lower case; there are few.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ClosedHere => "closed_here",
            Self::ShuttingDown => "shutting_down",
            Self::PeerClosed { mid_frame: false } => "peer_closed",
            Self::PeerClosed { mid_frame: true } => "peer_closed_mid_frame",
            Self::Goodbye => "goodbye",
            Self::HandshakeTimeout(_) => "handshake_timeout",
            Self::HandshakeRefused { .. } => "handshake_refused",
            Self::Authentication(AuthError::NotAdmitted { .. }) => "not_admitted",
            Self::Authentication(_) => "authentication",
            Self::IdleTimeout(_) => "idle_timeout",
            Self::PongTimeout(_) => "pong_timeout",
            Self::Decode(_) => "decode",
            Self::Protocol(_) => "protocol",
            Self::RepliesNotRead { .. } => "replies_not_read",
            Self::Budget(_) => "budget",
            Self::Tls(_) => "tls",
            Self::Io(_) => "io",
            Self::Aborted => "aborted",
        }
    }

    /// Whether what is queued should still be sent before the socket is closed.
    pub(crate) fn flushes(&self) -> bool {
        matches!(
            self,
            Self::ClosedHere
                | Self::ShuttingDown
                | Self::Goodbye
                | Self::HandshakeRefused { .. }
                | Self::Authentication(_)
        )
    }
}

impl From<io::Error> for CloseReason {
    fn from(error: io::Error) -> Self {
        match TlsError::inside(&error) {
            Some(error) => Self::Tls(error.into()),
            None => Self::Io(error.kind()),
        }
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The peer said no; the connection is still good.
    #[error(transparent)]
    Remote(Box<RpcFailure>),
    /// The connection ended first; the peer may or may not have run the request.
    #[error("connection lost: {0}")]
    Lost(#[from] CloseReason),
    /// There was no connection, and none could be made; nothing was sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The call's own deadline passed; a late answer is dropped.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Too many calls of this connection wait for an answer.
    #[error("{calls_max} calls are waiting for an answer already")]
    TooManyCalls {
        /// Limit.
        calls_max: usize,
    },
    /// A budget of this side is spent.
    #[error(transparent)]
    Budget(#[from] BudgetExceeded),
    /// The request does not fit into a frame.
    #[error("a request of {bytes} bytes, at most {bytes_max} fit into a frame")]
    RequestTooLong {
        /// Bytes of the frame.
        bytes: usize,
        /// Limit in bytes.
        bytes_max: usize,
    },
    /// The answer has another type than the call's.
    #[error("expected an answer of rpc type {expected}, found {actual}")]
    UnexpectedAnswer {
        /// The call's `rpc_type` of responses.
        expected: i32,
        /// The one found.
        actual: i32,
    },
    /// The answer is not the protobuf message that it should be.
    #[error("the answer is malformed: {0}")]
    MalformedAnswer(#[from] BodyError),
    /// The peer has not offered what the message needs; nothing was sent.
    #[error("the peer has not offered {0:?}")]
    NotOffered(Feature),
}

impl CallError {
    /// Whether the same call may succeed another time. Says nothing about whether it has already taken effect.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Remote(failure) => failure.retry().is_worthwhile(),
            Self::Lost(reason) => reason.is_retryable(),
            Self::Connect(error) => error.is_retryable(),
            Self::TooManyCalls { .. } | Self::Budget(_) => true,
            Self::Timeout(_)
            | Self::RequestTooLong { .. }
            | Self::UnexpectedAnswer { .. }
            | Self::MalformedAnswer(_)
            | Self::NotOffered(_) => false,
        }
    }

    /// A stable word for logs and metrics, in lower case; there are few.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Remote(_) => "failed",
            Self::Lost(_) => "lost",
            Self::Connect(_) => "not_connected",
            Self::Timeout(_) => "timed_out",
            Self::TooManyCalls { .. } => "too_many_calls",
            Self::Budget(_) => "budget",
            Self::RequestTooLong { .. } => "request_too_long",
            Self::UnexpectedAnswer { .. } => "unexpected_answer",
            Self::MalformedAnswer(_) => "malformed_answer",
            Self::NotOffered(_) => "not_offered",
        }
    }

    /// How long the peer asks to wait before another try.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Remote(failure) => failure.error.retry_after(),
            _ => None,
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The socket could not be connected.
    #[error("cannot connect: {0}")]
    Io(io::ErrorKind),
    /// The socket was not connected in time.
    #[error("not connected within {0:?}")]
    Timeout(Duration),
    /// The socket was connected, but the handshake did not end well.
    #[error("connection lost in the handshake: {0}")]
    Lost(#[source] CloseReason),
    /// The socket was connected, but TLS was not agreed on.
    #[error("TLS: {0}")]
    Tls(#[source] TlsError),
    /// A budget of this side is spent.
    #[error(transparent)]
    Budget(#[from] BudgetExceeded),
    /// The peer asks who this side is, and nobody has said.
    #[error("the peer asks for a login, and there is none")]
    NoLogin,
    /// The peer did not let this side in, or is not to be trusted.
    #[error(transparent)]
    Login(Box<LoginError>),
    /// There is no address to connect to.
    #[error("no endpoint to connect to")]
    NoEndpoint,
    /// The options contradict each other.
    #[error(transparent)]
    Options(#[from] crate::options::OptionsError),
}

impl From<LoginError> for ConnectError {
    fn from(error: LoginError) -> Self {
        Self::Login(Box::new(error))
    }
}

impl ConnectError {
    /// A stable word for logs and metrics, in lower case; there are few.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Io(_) => "io",
            Self::Timeout(_) => "timed_out",
            Self::Lost(_) => "lost",
            Self::Tls(_) => "tls",
            Self::Budget(_) => "budget",
            Self::NoLogin | Self::Login(_) => "login",
            Self::NoEndpoint => "no_endpoint",
            Self::Options(_) => "options",
        }
    }

    /// Whether another try may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Io(_) | Self::Timeout(_) | Self::Budget(_) => true,
            Self::Lost(reason) => reason.is_retryable(),
            Self::Tls(error) => error.is_retryable(),
            Self::Login(error) => error.is_retryable(),
            Self::Options(_) | Self::NoEndpoint | Self::NoLogin => false,
        }
    }
}

impl From<CloseReason> for ConnectError {
    fn from(reason: CloseReason) -> Self {
        match reason {
            // A server that refuses the client's certificate may say so after the client's part of the handshake.
            CloseReason::Tls(error) => Self::Tls(error),
            reason => Self::Lost(reason),
        }
    }
}
