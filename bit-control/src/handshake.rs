//! The handshake of the control plane, version 3, seen from both sides.

use bytes::Bytes;
use membership::{AddressError, NodeAddress};
use prost::Message;
use protos::{CONTROL_RPC_VERSION, control::BitControlHandshake, coord::DrillbitEndpoint};
use rpc_bus::auth::Mechanism;
use thiserror::Error;

/// Why a handshake is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum HandshakeError {
    #[error("expected a handshake of the control plane, found no such message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// An absent version counts as 0.
    #[error("expected rpc version {CONTROL_RPC_VERSION} of the control plane, found {actual}")]
    Version { actual: i32 },
    #[error("expected an endpoint with an address and a control port: {0}")]
    Endpoint(#[from] AddressError),
}

/// What the side that connects says: who it is.
// wire: golden/dist/hashagg.control1 frame 0: without the channel, whose default is the right one
pub(crate) fn hello(endpoint: &DrillbitEndpoint) -> Bytes {
    let hello = BitControlHandshake {
        rpc_version: Some(CONTROL_RPC_VERSION),
        channel: None,
        endpoint: Some(endpoint.clone()),
        authentication_mechanisms: Vec::new(),
        // The bus adds its own.
        capabilities: None,
    };
    hello.encode_to_vec().into()
}

/// Who a peer says that it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Introduction {
    pub(crate) address: NodeAddress,
    pub(crate) endpoint: DrillbitEndpoint,
}

/// Judges what the side that connects has said. Its channel is not looked at.
// wire: golden/raw/raw_control.control1 to control5: another version and no endpoint are refused, the channel of the
// data plane is let in
pub(crate) fn judge_hello(pbody: Bytes) -> Result<Introduction, HandshakeError> {
    let hello = BitControlHandshake::decode(pbody)?;
    expect_version(hello.rpc_version())?;
    let endpoint = hello.endpoint.unwrap_or_default();
    Ok(Introduction {
        address: NodeAddress::of(&endpoint)?,
        endpoint,
    })
}

/// What the side that accepts answers; `mechanisms` where the peer has to prove who it is. `endpoint` only for peers of
/// our own kind: Drill does not say who it is.
// wire: golden/dist/hashagg.control1 frame 1
pub(crate) fn welcome(mechanisms: &[Mechanism], endpoint: Option<DrillbitEndpoint>) -> Bytes {
    let named = mechanisms.iter().map(|mechanism| mechanism.name());
    let reply = BitControlHandshake {
        rpc_version: Some(CONTROL_RPC_VERSION),
        channel: None,
        endpoint,
        authentication_mechanisms: named.map(str::to_owned).collect(),
        capabilities: None,
    };
    reply.encode_to_vec().into()
}

/// What the side that accepts has said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Welcome {
    /// Who it is, if it says so.
    pub(crate) endpoint: Option<DrillbitEndpoint>,
    /// What it offers, if this side has to prove who it is.
    pub(crate) mechanisms: Vec<String>,
}

/// Judges what the side that accepts has answered.
pub(crate) fn judge_welcome(reply: Bytes) -> Result<Welcome, HandshakeError> {
    let reply = BitControlHandshake::decode(reply)?;
    expect_version(reply.rpc_version())?;
    Ok(Welcome {
        endpoint: reply.endpoint,
        mechanisms: reply.authentication_mechanisms,
    })
}

fn expect_version(actual: i32) -> Result<(), HandshakeError> {
    if actual != CONTROL_RPC_VERSION {
        return Err(HandshakeError::Version { actual });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protos::shared::RpcChannel;

    use super::*;

    fn endpoint() -> DrillbitEndpoint {
        DrillbitEndpoint {
            address: Some("node1".to_owned()),
            control_port: Some(31011),
            ..DrillbitEndpoint::default()
        }
    }

    fn judged(
        rpc_version: Option<i32>,
        channel: Option<RpcChannel>,
        endpoint: Option<DrillbitEndpoint>,
    ) -> Result<Introduction, HandshakeError> {
        let hello = BitControlHandshake {
            rpc_version,
            channel: channel.map(Into::into),
            endpoint,
            ..BitControlHandshake::default()
        };
        judge_hello(hello.encode_to_vec().into())
    }

    #[test]
    fn version_3_with_an_endpoint_is_let_in_whatever_its_channel() {
        let said = judge_hello(hello(&endpoint())).expect("our own");
        assert_eq!(said.address.to_string(), "node1:31011");
        assert_eq!(said.endpoint, endpoint());
        assert!(judged(Some(3), Some(RpcChannel::BitData), Some(endpoint())).is_ok());
        for (version, actual) in [(Some(2), 2), (Some(4), 4), (None, 0)] {
            let expected = Err(HandshakeError::Version { actual });
            assert_eq!(judged(version, None, Some(endpoint())), expected);
        }
    }

    #[test]
    fn a_peer_that_does_not_say_where_it_is_is_refused() {
        let nowhere = DrillbitEndpoint {
            control_port: Some(0),
            ..endpoint()
        };
        for endpoint in [None, Some(DrillbitEndpoint::default()), Some(nowhere)] {
            let judged = judged(Some(3), None, endpoint);
            assert!(
                matches!(judged, Err(HandshakeError::Endpoint(_))),
                "{judged:?}"
            );
        }
        assert!(matches!(
            judge_hello(Bytes::from_static(b"\xff")),
            Err(HandshakeError::Malformed(_))
        ));
    }

    #[test]
    fn an_answer_names_its_version_its_endpoint_and_its_mechanisms() {
        assert_eq!(judge_welcome(welcome(&[], None)), Ok(Welcome::default()));
        let answer = judge_welcome(welcome(&[Mechanism::ScramSha256], Some(endpoint())));
        let expected = Welcome {
            endpoint: Some(endpoint()),
            mechanisms: vec!["SCRAM-SHA-256".to_owned()],
        };
        assert_eq!(answer, Ok(expected));
        let error = judge_welcome(Bytes::from_static(b"\x08\x02")).expect_err("version 2");
        let expected = "expected rpc version 3 of the control plane, found 2";
        assert_eq!(error.to_string(), expected);
    }
}
