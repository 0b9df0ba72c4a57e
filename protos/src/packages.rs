//! The generated messages, under short names.
#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::use_self,
    unused_qualifications,
    unreachable_pub,
    reason = "generated code"
)]

use std::fmt;

mod generated {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

pub use generated::{
    common,
    exec::{self as coord, bit, bit::control, bit::data, bus, rpc, shared, status, user},
};

/// Properties hold the password in clear, and nothing tells which other keys are secrets.
impl fmt::Debug for user::Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=<redacted>", self.key)
    }
}

/// SASL PLAIN carries the password as it is.
impl fmt::Debug for shared::SaslMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslMessage")
            .field("mechanism", &self.mechanism)
            .field("status", &self.status())
            .field("data", &"<redacted>")
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_a_password() {
        let property = user::Property {
            key: "password".into(),
            value: "hunter2".into(),
        };
        let sasl = shared::SaslMessage {
            data: Some("\0alice\0hunter2".into()),
            ..Default::default()
        };
        let hello = user::UserToBitHandshake {
            properties: Some(user::UserProperties {
                properties: vec![property],
            }),
            ..Default::default()
        };
        assert!(!format!("{hello:?} {sasl:?}").contains("hunter2"));
    }
}
