//! The handshake of the data plane, version 4, seen from both sides.

use bytes::Bytes;
use prost::Message;
use protos::{
    DATA_RPC_VERSION,
    data::{BitClientHandshake, BitServerHandshake},
    shared::RpcChannel,
};
use rpc_bus::auth::Mechanism;
use thiserror::Error;

/// Why a handshake is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum HandshakeError {
    #[error("expected a handshake of the data plane, found no such message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// An absent version counts as 0.
    #[error("expected rpc version {DATA_RPC_VERSION} of the data plane, found {actual}")]
    Version { actual: i32 },
    #[error("expected channel BIT_DATA (1), found {actual}")]
    Channel { actual: i32 },
}

/// What the side that connects says.
// wire: golden/dist/hashagg.data1 frame 0
pub(crate) fn hello() -> Bytes {
    let hello = BitClientHandshake {
        rpc_version: Some(DATA_RPC_VERSION),
        channel: Some(RpcChannel::BitData.into()),
        // The bus adds its own.
        capabilities: None,
    };
    hello.encode_to_vec().into()
}

/// Judges what the side that connects has said. An absent channel is the right one.
// wire: golden/raw/raw_control.data2 to data4
pub(crate) fn judge_hello(pbody: Bytes) -> Result<(), HandshakeError> {
    let hello = BitClientHandshake::decode(pbody)?;
    expect_version(hello.rpc_version())?;
    match hello.channel {
        None => Ok(()),
        Some(channel) if channel == RpcChannel::BitData as i32 => Ok(()),
        Some(actual) => Err(HandshakeError::Channel { actual }),
    }
}

/// What the side that accepts answers; `mechanisms` where the peer has to prove who it is.
// wire: golden/dist/hashagg.data1 frame 1
pub(crate) fn welcome(mechanisms: &[Mechanism]) -> Bytes {
    let named = mechanisms.iter().map(|mechanism| mechanism.name());
    let reply = BitServerHandshake {
        rpc_version: Some(DATA_RPC_VERSION),
        authentication_mechanisms: named.map(str::to_owned).collect(),
        capabilities: None,
    };
    reply.encode_to_vec().into()
}

/// Judges what the side that accepts has answered; returns the mechanisms that it offers, if this side has to prove who
/// it is, else none.
pub(crate) fn judge_welcome(reply: Bytes) -> Result<Vec<String>, HandshakeError> {
    let reply = BitServerHandshake::decode(reply)?;
    expect_version(reply.rpc_version())?;
    Ok(reply.authentication_mechanisms)
}

fn expect_version(actual: i32) -> Result<(), HandshakeError> {
    if actual != DATA_RPC_VERSION {
        return Err(HandshakeError::Version { actual });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(rpc_version: Option<i32>, channel: Option<i32>) -> Result<(), HandshakeError> {
        let hello = BitClientHandshake {
            rpc_version,
            channel,
            capabilities: None,
        };
        judge_hello(hello.encode_to_vec().into())
    }

    #[test]
    fn only_version_4_of_the_data_channel_is_let_in() {
        assert_eq!(judge_hello(hello()), Ok(()));
        assert_eq!(judged(Some(4), None), Ok(()));
        for (version, actual) in [(Some(3), 3), (Some(5), 5), (None, 0)] {
            let expected = Err(HandshakeError::Version { actual });
            assert_eq!(judged(version, Some(1)), expected);
        }
        for actual in [0, 2, 77] {
            let expected = Err(HandshakeError::Channel { actual });
            assert_eq!(judged(Some(4), Some(actual)), expected);
        }
        assert!(matches!(
            judge_hello(Bytes::from_static(b"\xff")),
            Err(HandshakeError::Malformed(_))
        ));
    }

    #[test]
    fn an_answer_names_its_version_and_its_mechanisms() {
        assert_eq!(judge_welcome(welcome(&[])), Ok(Vec::new()));
        let offered = judge_welcome(welcome(&[Mechanism::ScramSha256]));
        assert_eq!(offered, Ok(vec!["SCRAM-SHA-256".to_owned()]));
        let error = judge_welcome(Bytes::from_static(b"\x08\x03")).expect_err("version 3");
        let expected = "expected rpc version 4 of the data plane, found 3";
        assert_eq!(error.to_string(), expected);
    }
}
