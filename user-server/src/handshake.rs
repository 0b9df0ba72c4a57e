//! Judges handshakes: who may come in, and what they are told.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use protos::{
    USER_RPC_VERSION,
    user::{
        BitToUserHandshake, HandshakeStatus, RpcEndpointInfos, RpcType, UserProperties,
        UserToBitHandshake,
    },
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

/// What becomes of a handshake.
#[derive(Debug)]
pub(crate) enum Judgement {
    Welcome {
        reply: Bytes,
        properties: SessionProperties,
        /// Whether the client sends PING when it has nothing else to say.
        sends_ping: bool,
    },
    Refusal {
        reply: Bytes,
        reason: String,
    },
}

/// Judges the body of a handshake.
// wire: golden/raw and golden/transcripts/raw_user "version": an absent version counts as 0
pub(crate) fn judge(pbody: Bytes) -> Judgement {
    let hello = match UserToBitHandshake::decode(pbody) {
        Ok(hello) => hello,
        Err(error) => {
            return refusal(
                HandshakeStatus::UnknownFailure,
                format!("Malformed handshake: {error}"),
            );
        }
    };
    match hello.rpc_version() {
        USER_RPC_VERSION => Judgement::Welcome {
            reply: reply(HandshakeStatus::Success).encode_to_vec().into(),
            sends_ping: hello.support_timeout(),
            properties: properties(hello),
        },
        actual => refusal(
            HandshakeStatus::RpcVersionMismatch,
            format!("Invalid rpc version. Expected {USER_RPC_VERSION}, actual {actual}."),
        ),
    }
}

fn refusal(status: HandshakeStatus, reason: String) -> Judgement {
    let reply = BitToUserHandshake {
        error_id: Some(Uuid::new_v4().to_string()),
        error_message: Some(reason.clone()),
        ..reply(status)
    };
    Judgement::Refusal {
        reply: reply.encode_to_vec().into(),
        reason,
    }
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

fn properties(hello: UserToBitHandshake) -> SessionProperties {
    let all = by_lower_case_key(hello.properties.unwrap_or_default());
    let credentials = hello.credentials.unwrap_or_default();
    let client = hello.client_infos.unwrap_or_default();
    SessionProperties {
        user: credentials.user_name.unwrap_or_default(),
        schema: all
            .get("schema")
            .filter(|schema| !schema.is_empty())
            .cloned(),
        client_name: client.name,
        client_version: client.version,
        properties: all,
    }
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
        let Judgement::Refusal { reply, .. } = judge(pbody) else {
            panic!("welcomed")
        };
        BitToUserHandshake::decode(reply).expect("a reply")
    }

    #[test]
    fn version_five_is_welcome_and_told_what_is_served() {
        let judged = judge(hello(Some(5)).encode_to_vec().into());
        let Judgement::Welcome {
            reply,
            properties,
            sends_ping,
        } = judged
        else {
            panic!("refused")
        };
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
        let judged = judge(silent.encode_to_vec().into());
        assert!(matches!(
            judged,
            Judgement::Welcome {
                sends_ping: false,
                ..
            }
        ));
    }
}
