//! What a node says of itself with a beat.

use bytes::Bytes;
use membership::{Learned, Load, Member, NodeEndpoint};
use prost::Message;
use protos::bus::{NodeIncarnation, NodeLoad, NodeStatus};
use thiserror::Error;

/// Longest status that is taken, in bytes: an endpoint of the longest, two versions, and numbers.
const STATUS_BYTES_MAX: usize = 6 * 1024;
/// Longest version that is taken, in bytes.
const VERSION_BYTES_MAX: usize = 256;

/// What is wrong with what a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum StatusError {
    #[error("expected a status of the node, found none")]
    Missing,
    #[error("expected a status of at most {STATUS_BYTES_MAX} bytes, found {actual}")]
    TooLong { actual: usize },
    #[error("expected a NodeStatus, found no such message: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("expected the node's incarnation, found none")]
    NoIncarnation,
    #[error("expected versions of at most {VERSION_BYTES_MAX} bytes, found {actual}")]
    VersionTooLong { actual: usize },
    #[error(transparent)]
    Endpoint(#[from] membership::EndpointError),
}

/// What this node says; nothing of a program that is none, or that has no incarnation.
pub(super) fn status_of(member: &Member) -> Bytes {
    let status = NodeStatus {
        endpoint: Some(member.endpoint.bytes().clone()),
        incarnation: member.incarnation,
        software_version: member.software_version.clone(),
        engine_version: member.engine_version.clone(),
        load: member.load.map(load_to_wire),
    };
    status.encode_to_vec().into()
}

/// The incarnation in a status, whatever else is in it.
pub(super) fn incarnation(status: Option<Bytes>) -> Option<u64> {
    NodeIncarnation::decode(status?).ok()?.incarnation
}

/// What another node says.
pub(super) fn learned(status: Option<Bytes>) -> Result<Learned, StatusError> {
    let status = status.ok_or(StatusError::Missing)?;
    let actual = status.len();
    if actual > STATUS_BYTES_MAX {
        return Err(StatusError::TooLong { actual });
    }
    // A copy, which the endpoint is a part of: what came shares its memory with what else was read.
    let status = NodeStatus::decode(Bytes::copy_from_slice(&status))?;
    let versions = [&status.software_version, &status.engine_version];
    let longest = versions.into_iter().flatten().map(String::len).max();
    if let Some(actual) = longest.filter(|&bytes| bytes > VERSION_BYTES_MAX) {
        return Err(StatusError::VersionTooLong { actual });
    }
    let endpoint: Bytes = status.endpoint.unwrap_or_default();
    Ok(Learned {
        incarnation: status.incarnation.ok_or(StatusError::NoIncarnation)?,
        endpoint: NodeEndpoint::decode(endpoint)?,
        software_version: status.software_version.unwrap_or_default(),
        engine_version: status.engine_version.unwrap_or_default(),
        load: status.load.map(load_from_wire),
    })
}

fn load_to_wire(load: Load) -> NodeLoad {
    NodeLoad {
        queries: Some(load.queries),
        fragments: Some(load.fragments),
        memory_bytes: Some(load.memory_bytes),
        memory_bytes_max: Some(load.memory_bytes_max),
    }
}

fn load_from_wire(load: NodeLoad) -> Load {
    Load {
        queries: load.queries(),
        fragments: load.fragments(),
        memory_bytes: load.memory_bytes(),
        memory_bytes_max: load.memory_bytes_max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member {
            incarnation: Some(7),
            software_version: Some("0.1.0".to_owned()),
            load: Some(Load {
                queries: 1,
                fragments: 2,
                memory_bytes: 3,
                memory_bytes_max: 4,
            }),
            ..Member::at("node1:31011".parse().unwrap())
        }
    }

    #[test]
    fn what_a_node_says_is_what_others_learn() {
        let status = Some(status_of(&member()));
        assert_eq!(
            (incarnation(status.clone()), incarnation(None)),
            (Some(7), None)
        );
        let learned = learned(status).unwrap();
        assert_eq!(learned.endpoint, member().endpoint);
        assert_eq!((learned.incarnation, learned.load), (7, member().load));
        let versions = (&*learned.software_version, &*learned.engine_version);
        assert_eq!(versions, ("0.1.0", ""));
    }

    #[test]
    fn what_cannot_be_learned_is_refused_by_name() {
        assert_eq!(learned(None), Err(StatusError::Missing));
        let good = || NodeStatus::decode(status_of(&member())).unwrap();
        let with = |status: NodeStatus| learned(Some(status.encode_to_vec().into())).unwrap_err();
        let anonymous = NodeStatus {
            incarnation: None,
            ..good()
        };
        assert_eq!(with(anonymous), StatusError::NoIncarnation);
        let long = NodeStatus {
            engine_version: Some("x".repeat(257)),
            ..good()
        };
        assert_eq!(with(long), StatusError::VersionTooLong { actual: 257 });
        let odd = NodeStatus {
            endpoint: Some(Bytes::from_static(b"\x0a\x09x")),
            ..good()
        };
        assert!(matches!(with(odd), StatusError::Endpoint(_)));
        let garbage = learned(Some(Bytes::from_static(b"\x0a\x09x")));
        assert!(matches!(garbage, Err(StatusError::Malformed(_))));
        let actual = STATUS_BYTES_MAX + 1;
        let long = learned(Some(vec![0; actual].into()));
        assert_eq!(long, Err(StatusError::TooLong { actual }));
    }
}
