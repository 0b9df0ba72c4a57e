//! Judges handshakes: who may come in, and what they are told.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prost::Message;
use protos::{
    USER_RPC_VERSION,
    user::{
        BitToUserHandshake, HandshakeStatus, RpcEndpointInfos, RpcType, UserProperties,
        UserToBitHandshake,
    },
};
use rpc_bus::{
    IdleTimeout,
    auth::{AuthError, Authenticator, Credentials, Identity, Mechanism, Password},
};
use uuid::Uuid;

use crate::engine::SessionProperties;

/// What this server calls itself in the handshake. A client may tell by it that acknowledgements
/// are waited for.
pub const SERVER_NAME: &str = "Drillbit on DataFusion";

/// What is really served, in Drill's order.
///
/// Drill's JDBC driver trusts this list because our version is below those of which it assumes
/// more: without the metadata calls and prepared statements it asks `INFORMATION_SCHEMA` and
/// prepares on its own side.
// wire: golden/user/handshake frame 1; golden/transcripts/fake1 "nomethods" and "noinfos"
const SUPPORTED_METHODS: [RpcType; 4] = [
    RpcType::RunQuery,
    RpcType::CancelQuery,
    RpcType::ResumePausedQuery,
    RpcType::GetServerMeta,
];

/// Of no meaning without encryption by SASL, but Drill always says it.
const MAX_WRAPPED_SIZE_BYTES: i32 = 65_536;
/// A property whose key has this in it is a secret: `password`, `trustStorePassword`.
const SECRET: &str = "password";

/// What becomes of a handshake.
#[derive(Debug)]
pub(crate) enum Judgement {
    Welcome {
        reply: Bytes,
        guest: Guest,
    },
    /// SASL comes first.
    Authenticate {
        reply: Bytes,
        guest: Guest,
        authenticator: Arc<Authenticator>,
    },
    /// A client without SASL: its password comes with the handshake.
    Verify {
        credentials: Credentials,
        guest: Guest,
        authenticator: Arc<Authenticator>,
    },
    Refusal {
        reply: Bytes,
        reason: String,
    },
}

/// A client that speaks our version.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) properties: SessionProperties,
    /// Whether it sends PING when it has nothing else to say.
    sends_ping: bool,
}

impl Guest {
    pub(crate) fn idle_timeout(&self) -> IdleTimeout {
        if self.sends_ping {
            IdleTimeout::Keep
        } else {
            IdleTimeout::Off
        }
    }

    /// The same client under the name that it has proved to be its own.
    pub(crate) fn known_as(mut self, identity: Identity) -> Self {
        self.properties.user = identity.user;
        self
    }
}

/// Judges the body of a handshake; without an authenticator everybody may come in.
// wire: drill@051b164 exec/java-exec/.../rpc/user/UserServer.java: the order of the decisions
// wire: golden/raw and golden/transcripts/raw_user "version": an absent version counts as 0
pub(crate) fn judge(pbody: Bytes, authenticator: Option<&Arc<Authenticator>>) -> Judgement {
    let hello = match UserToBitHandshake::decode(pbody) {
        Ok(hello) => hello,
        Err(error) => {
            return refusal(
                HandshakeStatus::UnknownFailure,
                format!("Malformed handshake: {error}"),
            );
        }
    };
    if hello.rpc_version() != USER_RPC_VERSION {
        let actual = hello.rpc_version();
        return refusal(
            HandshakeStatus::RpcVersionMismatch,
            format!("Invalid rpc version. Expected {USER_RPC_VERSION}, actual {actual}."),
        );
    }
    let knows_sasl = hello.sasl_support.is_some();
    let (guest, password) = guest(hello);
    match authenticator {
        None => welcome(guest),
        Some(authenticator) if knows_sasl => Judgement::Authenticate {
            reply: authentication_required(&authenticator.mechanisms()),
            guest,
            authenticator: Arc::clone(authenticator),
        },
        Some(authenticator) => legacy(guest, password, authenticator),
    }
}

fn welcome(guest: Guest) -> Judgement {
    Judgement::Welcome {
        reply: reply(HandshakeStatus::Success).encode_to_vec().into(),
        guest,
    }
}

/// Clients before Drill 1.10 send their password with the handshake: PLAIN in other words.
fn legacy(guest: Guest, password: Password, authenticator: &Arc<Authenticator>) -> Judgement {
    if !authenticator.mechanisms().contains(&Mechanism::Plain) {
        return denied("clients without SASL are not let in".to_owned());
    }
    let user = guest.properties.user.clone();
    Judgement::Verify {
        credentials: Credentials { user, password },
        guest,
        authenticator: Arc::clone(authenticator),
    }
}

/// What becomes of a client whose password came with the handshake.
// wire: drill@051b164 exec/java-exec/.../HtpasswdFileUserAuthenticator.java: what a wrong password is told
pub(crate) fn verified_guest(guest: Guest, verified: Result<Identity, AuthError>) -> Judgement {
    match verified {
        Ok(identity) => welcome(guest.known_as(identity)),
        Err(AuthError::Rejected) => {
            let user = guest.properties.user;
            denied(format!("htpasswd auth failed for user '{user}'"))
        }
        Err(other) => denied(other.to_string()),
    }
}

/// The log has it from the authenticator already, without what the client chose to call itself.
fn denied(message: String) -> Judgement {
    Judgement::Refusal {
        reply: refusal_reply(HandshakeStatus::AuthFailed, message),
        reason: "not authenticated".to_owned(),
    }
}

// wire: golden/auth: what goes with the status
fn authentication_required(offered: &[Mechanism]) -> Bytes {
    // What every client of Drill knows comes first.
    let offered = offered
        .iter()
        .rev()
        .map(|mechanism| mechanism.name().to_owned());
    let reply = BitToUserHandshake {
        authentication_mechanisms: offered.collect(),
        encrypted: Some(false),
        max_wrapped_size: Some(MAX_WRAPPED_SIZE_BYTES),
        ..reply(HandshakeStatus::AuthRequired)
    };
    reply.encode_to_vec().into()
}

fn refusal(status: HandshakeStatus, reason: String) -> Judgement {
    Judgement::Refusal {
        reply: refusal_reply(status, reason.clone()),
        reason,
    }
}

fn refusal_reply(status: HandshakeStatus, message: String) -> Bytes {
    let reply = BitToUserHandshake {
        error_id: Some(Uuid::new_v4().to_string()),
        error_message: Some(message),
        ..reply(status)
    };
    reply.encode_to_vec().into()
}

fn reply(status: HandshakeStatus) -> BitToUserHandshake {
    BitToUserHandshake {
        rpc_version: Some(USER_RPC_VERSION),
        status: Some(status.into()),
        server_infos: Some(server_infos()),
        supported_methods: SUPPORTED_METHODS.map(i32::from).to_vec(),
        ..BitToUserHandshake::default()
    }
}

/// Name and version. Drill's clients read the version by its numbers.
fn server_infos() -> RpcEndpointInfos {
    let number = |text: &str| text.parse().ok();
    RpcEndpointInfos {
        name: Some(SERVER_NAME.to_owned()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        major_version: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor_version: number(env!("CARGO_PKG_VERSION_MINOR")),
        patch_version: number(env!("CARGO_PKG_VERSION_PATCH")),
        application: Some(env!("CARGO_PKG_NAME").to_owned()),
        build_number: Some(0),
        version_qualifier: Some(String::new()),
    }
}

/// The client, and the password that it sent; nothing else of the handshake knows it.
fn guest(hello: UserToBitHandshake) -> (Guest, Password) {
    let sends_ping = hello.support_timeout();
    let mut all = by_lower_case_key(hello.properties.unwrap_or_default());
    let password = all.remove(SECRET).unwrap_or_default().into();
    all.retain(|key, _| !key.contains(SECRET));
    let credentials = hello.credentials.unwrap_or_default();
    let client = hello.client_infos.unwrap_or_default();
    let properties = SessionProperties {
        user: credentials.user_name.unwrap_or_default(),
        schema: all
            .get("schema")
            .filter(|schema| !schema.is_empty())
            .cloned(),
        client_name: client.name,
        client_version: client.version,
        properties: all,
    };
    let guest = Guest {
        properties,
        sends_ping,
    };
    (guest, password)
}

fn by_lower_case_key(properties: UserProperties) -> BTreeMap<String, String> {
    let all = properties.properties.into_iter();
    all.map(|property| (property.key.to_lowercase(), property.value))
        .collect()
}

#[cfg(test)]
mod tests {
    use protos::{shared::UserCredentials, user::Property};

    use super::*;

    fn hello(version: Option<i32>) -> UserToBitHandshake {
        let schema = Property {
            key: "Schema".to_owned(),
            value: "dfs.tmp".to_owned(),
        };
        UserToBitHandshake {
            rpc_version: version,
            credentials: Some(UserCredentials {
                user_name: Some("alice".to_owned()),
            }),
            properties: Some(UserProperties {
                properties: vec![schema],
            }),
            support_timeout: Some(true),
            ..UserToBitHandshake::default()
        }
    }

    fn refused(pbody: Bytes) -> BitToUserHandshake {
        let Judgement::Refusal { reply, .. } = judge(pbody, None) else {
            panic!("welcomed")
        };
        BitToUserHandshake::decode(reply).expect("a reply")
    }

    #[test]
    fn version_five_is_welcome_and_told_what_is_served() {
        let judged = judge(hello(Some(5)).encode_to_vec().into(), None);
        let Judgement::Welcome { reply, guest } = judged else {
            panic!("refused")
        };
        let (properties, sends_ping) = (guest.properties, guest.sends_ping);
        let reply = BitToUserHandshake::decode(reply).expect("a reply");
        assert_eq!(
            (reply.rpc_version(), reply.status()),
            (5, HandshakeStatus::Success)
        );
        assert_eq!(reply.server_infos.expect("infos").name(), SERVER_NAME);
        assert_eq!(reply.supported_methods, [3, 4, 11, 8]);
        assert_eq!(
            (&*properties.user, properties.schema.as_deref()),
            ("alice", Some("dfs.tmp"))
        );
        assert!(sends_ping);
    }

    #[test]
    fn another_version_is_refused_in_drills_words() {
        for (version, actual) in [(Some(4), 4), (Some(6), 6), (None, 0)] {
            let reply = refused(hello(version).encode_to_vec().into());
            assert_eq!(reply.status(), HandshakeStatus::RpcVersionMismatch);
            let expected = format!("Invalid rpc version. Expected 5, actual {actual}.");
            assert_eq!(reply.error_message(), expected);
            assert!(Uuid::parse_str(reply.error_id()).is_ok());
        }
    }

    #[test]
    fn garbage_is_refused_with_a_reply() {
        let reply = refused(Bytes::from_static(b"\xff\xff\xff"));
        assert_eq!(reply.status(), HandshakeStatus::UnknownFailure);
    }

    #[test]
    fn a_client_that_cannot_ping_is_noticed() {
        let silent = UserToBitHandshake {
            support_timeout: None,
            ..hello(Some(5))
        };
        let judged = judge(silent.encode_to_vec().into(), None);
        assert!(matches!(
            judged,
            Judgement::Welcome {
                guest: Guest {
                    sends_ping: false,
                    ..
                },
                ..
            }
        ));
    }
}
