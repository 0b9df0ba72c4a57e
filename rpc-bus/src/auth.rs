//! Who a peer is: SASL on any plane, both sides.
//!
//! A server asks for it by [`Verdict::Authenticate`](crate::Verdict::Authenticate): the handshake is answered, then only
//! `SASL_MESSAGE` is taken until an [`Authenticator`] has let the peer in. A client answers by [`authenticate`].
//! Two mechanisms: PLAIN as Drill does it, and SCRAM-SHA-256, where the password never travels, between our own.
//!
//! ```text
//! SASL_MESSAGE -> dispatch.rs -> exchange.rs step -> plain.rs -> authenticator.rs verify -> users.rs, on the cpu pool
//!                                                 -> scram/server.rs
//! ```
//!
//! Passwords are [`Password`]s: wiped when dropped, and never shown.

mod admission;
mod authenticator;
mod exchange;
mod htpasswd;
mod login;
mod password;
mod peers;
mod plain;
mod scheme;
mod scram;
mod users;

use std::fmt;

pub use authenticator::{AuthError, AuthOptions, Authenticator};
pub use htpasswd::LineError;
pub use login::{Login, LoginError, authenticate};
pub use password::Password;
pub use scram::ScramKeys;
pub use users::{Users, UsersError};

pub(crate) use exchange::{Exchange, Step, failed};

/// A way to prove who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// User and password in clear (RFC 4616): only within TLS or on a trusted network.
    Plain,
    /// Both sides prove that they know the password, which does not travel (RFC 5802, RFC 7677).
    ScramSha256,
}

impl Mechanism {
    /// All of them, the strongest first.
    pub const ALL: [Self; 2] = [Self::ScramSha256, Self::Plain];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
        }
    }

    /// By the name on the wire; Drill spells its own in lower case when it offers them.
    // wire: golden/auth
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Somebody who has proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the user.
    pub user: String,
    /// How it was proved.
    pub mechanism: Mechanism,
}

/// What a user knows.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Name of the user.
    pub user: String,
    /// The password.
    pub password: Password,
}

impl Credentials {
    /// Of `user` and `password`.
    pub fn new(user: impl Into<String>, password: impl Into<Password>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
        }
    }
}
