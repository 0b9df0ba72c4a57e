//! What can go wrong with a ZooKeeper.

use std::{io, time::Duration};

use thiserror::Error;

/// Why a request, or the connection, has failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Error {
    #[error("connection: {0}")]
    Io(io::ErrorKind),
    #[error("closed by the server")]
    Closed,
    #[error("nothing from the server within {0:?}")]
    Silent(Duration),
    #[error("the session has expired")]
    SessionExpired,
    #[error("expected a message of at most {max} bytes, found {actual}")]
    TooLong { actual: usize, max: usize },
    #[error("found a message that is none of ZooKeeper's protocol")]
    Malformed,
    #[error("expected the answer to request {expected}, found that to {actual}")]
    OutOfOrder { expected: i32, actual: i32 },
    #[error("{operation} {path}: {}", name_of(*.code))]
    Refused {
        operation: &'static str,
        path: String,
        code: i32,
    },
}

/// `NoAuth` and its like: asking again does not help.
const FINAL: [i32; 3] = [-102, -114, -115];

impl Error {
    /// Whether the server does not allow this, now or later.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if FINAL.contains(code))
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// As ZooKeeper's own client names them.
fn name_of(code: i32) -> String {
    let name = match code {
        -101 => "NoNode",
        -102 => "NoAuth",
        -103 => "BadVersion",
        -110 => "NodeExists",
        -111 => "NotEmpty",
        -112 => "SessionExpired",
        -114 => "InvalidACL",
        -115 => "AuthFailed",
        _ => return format!("error {code}"),
    };
    name.to_owned()
}
