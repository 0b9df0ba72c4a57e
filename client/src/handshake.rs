//! The handshake as Drill's own client makes it, and what the answer means.

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message;
use protos::{
    USER_RPC_VERSION,
    shared::{RpcChannel, UserCredentials},
    user::{
        BitToUserHandshake, HandshakeStatus, Property, RpcEndpointInfos, SaslSupport,
        UserProperties, UserToBitHandshake,
    },
};

use crate::{error::ClientError, options::ClientOptions};

/// What our own node calls itself.
const OUR_SERVER_NAME: &str = "Drillbit on DataFusion";
/// What this client calls itself.
const CLIENT_NAME: &str = "Drill client in Rust";

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// What the server calls itself; empty if it does not say.
    pub name: String,
    /// Its version, in its own form; empty if it does not say.
    pub version: String,
    /// Which rules of flow control hold.
    pub kind: ServerKind,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Kinds of servers by how they send results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// Waits for acknowledgements: results of several queries share a connection.
    Acknowledged,
    /// Sends without limit, as a real Drill and everything unknown.
    Unlimited,
}

/// What a server answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Welcome {
    Open(ServerInfo),
    /// Authentication comes first.
    Authenticate {
        server: ServerInfo,
        mechanisms: Vec<String>,
        encrypted: bool,
    },
}

/// The body of the handshake. It never holds the password.
// wire: golden/user/handshake frame 0
pub(crate) fn hello(options: &ClientOptions) -> Bytes {
    let user = options
        .user
        .clone()
        .unwrap_or_else(|| "anonymous".to_owned());
    let hello = UserToBitHandshake {
        channel: Some(RpcChannel::User.into()),
        support_listening: Some(true),
        rpc_version: Some(USER_RPC_VERSION),
        credentials: Some(UserCredentials {
            user_name: Some(user),
        }),
        properties: Some(properties(options)),
        support_complex_types: Some(options.complex_types),
        support_timeout: Some(true),
        client_infos: Some(client_infos()),
        sasl_support: Some(SaslSupport::SaslAuth.into()),
        // The bus adds its own.
        capabilities: None,
    };
    hello.encode_to_vec().into()
}

fn properties(options: &ClientOptions) -> UserProperties {
    let schema = options
        .schema
        .iter()
        .map(|schema| ("schema".to_owned(), schema.clone()));
    let all = schema.chain(options.properties.iter().cloned());
    UserProperties {
        properties: all.map(|(key, value)| Property { key, value }).collect(),
    }
}

fn client_infos() -> RpcEndpointInfos {
    let number = |text: &str| text.parse().ok();
    RpcEndpointInfos {
        name: Some(CLIENT_NAME.to_owned()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        major_version: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor_version: number(env!("CARGO_PKG_VERSION_MINOR")),
        patch_version: number(env!("CARGO_PKG_VERSION_PATCH")),
        application: None,
        build_number: None,
        version_qualifier: None,
    }
}

/// Judges the server's answer.
pub(crate) fn judge(reply: Bytes, address: SocketAddr) -> Result<Welcome, ClientError> {
    let reply = BitToUserHandshake::decode(reply);
    let reply = reply.map_err(|_| ClientError::Protocol("a malformed handshake"))?;
    let status = reply
        .status
        .map(HandshakeStatus::try_from)
        .and_then(Result::ok);
    let welcome = match status {
        Some(HandshakeStatus::Success) => Welcome::Open(server_info(&reply, address)),
        Some(HandshakeStatus::AuthRequired) => Welcome::Authenticate {
            server: server_info(&reply, address),
            encrypted: reply.encrypted(),
            mechanisms: reply.authentication_mechanisms.clone(),
        },
        _ => return Err(refused(status, reply)),
    };
    match reply.rpc_version() {
        USER_RPC_VERSION => Ok(welcome),
        actual => Err(ClientError::Version {
            expected: USER_RPC_VERSION,
            actual,
        }),
    }
}

fn refused(status: Option<HandshakeStatus>, reply: BitToUserHandshake) -> ClientError {
    let message = reply.error_message.unwrap_or_default();
    ClientError::Refused {
        status,
        message,
        error_id: reply.error_id,
    }
}

fn server_info(reply: &BitToUserHandshake, address: SocketAddr) -> ServerInfo {
    let infos = reply.server_infos.clone().unwrap_or_default();
    let name = infos.name.unwrap_or_default();
    ServerInfo {
        kind: match &*name {
            OUR_SERVER_NAME => ServerKind::Acknowledged,
            _ => ServerKind::Unlimited,
        },
        name,
        version: infos.version.unwrap_or_default(),
        address,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HERE: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    fn judged(reply: &BitToUserHandshake) -> Result<Welcome, ClientError> {
        judge(reply.encode_to_vec().into(), HERE)
    }

    fn reply(status: Option<HandshakeStatus>, version: i32) -> BitToUserHandshake {
        BitToUserHandshake {
            rpc_version: Some(version),
            status: status.map(i32::from),
            error_message: Some("bad version".to_owned()),
            error_id: Some("e1".to_owned()),
            ..BitToUserHandshake::default()
        }
    }

    #[test]
    fn only_our_own_node_is_trusted_to_wait_for_acknowledgements() {
        for (name, kind) in [
            (OUR_SERVER_NAME, ServerKind::Acknowledged),
            ("Apache Drill Server", ServerKind::Unlimited),
            ("", ServerKind::Unlimited),
        ] {
            let infos = RpcEndpointInfos {
                name: Some(name.to_owned()),
                ..Default::default()
            };
            let success = BitToUserHandshake {
                server_infos: Some(infos),
                ..reply(Some(HandshakeStatus::Success), 5)
            };
            let Welcome::Open(server) = judged(&success).unwrap() else {
                panic!("no welcome")
            };
            assert_eq!(server.kind, kind, "{name}");
        }
    }

    #[test]
    fn a_refusal_keeps_status_and_error_id() {
        for status in [
            HandshakeStatus::RpcVersionMismatch,
            HandshakeStatus::AuthFailed,
        ] {
            let error = judged(&reply(Some(status), 5)).unwrap_err();
            assert_eq!(error.error_id(), Some("e1"));
            assert!(matches!(error, ClientError::Refused { status: Some(s), .. } if s == status));
            assert!(!error.is_retryable());
        }
        let unknown = judged(&reply(None, 5)).unwrap_err();
        assert!(matches!(unknown, ClientError::Refused { status: None, .. }));
    }

    #[test]
    fn another_version_of_the_protocol_is_an_error() {
        let error = judged(&reply(Some(HandshakeStatus::Success), 6)).unwrap_err();
        assert!(matches!(
            error,
            ClientError::Version {
                expected: 5,
                actual: 6
            }
        ));
    }

    #[test]
    fn garbage_is_an_error() {
        let error = judge(Bytes::from_static(b"\xff\xff"), HERE).unwrap_err();
        assert!(matches!(error, ClientError::Protocol(_)));
    }
}
