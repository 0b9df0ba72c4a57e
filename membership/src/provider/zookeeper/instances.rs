//! What is in the nodes of a cluster: a registration each, and the members that they make together.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use crate::{
    address::{AddressError, NodeAddress},
    endpoint::{EndpointError, NodeEndpoint},
    member::Member,
};

/// Drill's `DrillServiceInstance`, the endpoint kept as it came.
// wire: drill@051b164 protocol/.../Coordination.proto: DrillServiceInstance
#[derive(Clone, PartialEq, Message)]
struct ServiceInstance {
    #[prost(string, optional, tag = "1")]
    id: Option<String>,
    #[prost(int64, optional, tag = "2")]
    registration_time_utc: Option<i64>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    endpoint: Option<Bytes>,
}

/// What is wrong with a registration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InstanceError {
    #[error("expected a DrillServiceInstance, found no such message: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("expected the name of its node as its id, found {0:?}")]
    Id(String),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// A registration.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Instance {
    /// When, in milliseconds since 1970, by the clock of whoever registered.
    registered_ms: i64,
    member: Member,
}

impl Instance {
    /// The registration in the node `name`.
    pub(super) fn decode(name: &str, payload: Bytes) -> Result<Self, InstanceError> {
        let instance = ServiceInstance::decode(payload)?;
        let id = instance.id.unwrap_or_default();
        if id != name {
            return Err(InstanceError::Id(id.chars().take(100).collect()));
        }
        let endpoint = NodeEndpoint::decode(instance.endpoint.unwrap_or_default())?;
        Ok(Self {
            registered_ms: instance.registration_time_utc.unwrap_or_default(),
            member: Member::of(endpoint)?,
        })
    }
}

/// What a node registers with.
pub(super) fn registration(name: &str, registered_ms: i64, endpoint: &NodeEndpoint) -> Bytes {
    let instance = ServiceInstance {
        id: Some(name.to_owned()),
        registration_time_utc: Some(registered_ms),
        endpoint: Some(endpoint.bytes().clone()),
    };
    instance.encode_to_vec().into()
}

/// One member for each address. A process that was started again has two registrations until its first session ends: the
/// newer one counts.
pub(super) fn members<'a>(instances: impl Iterator<Item = &'a Instance>) -> Vec<Member> {
    let mut newest: BTreeMap<&NodeAddress, &Instance> = BTreeMap::new();
    for instance in instances {
        let known = newest.entry(&instance.member.address).or_insert(instance);
        if instance.registered_ms > known.registered_ms {
            *known = instance;
        }
    }
    let members = newest.into_values();
    members.map(|instance| instance.member.clone()).collect()
}

#[cfg(test)]
mod tests {
    use protos::coord::{DrillServiceInstance, DrillbitEndpoint};

    use super::*;

    fn endpoint(user_port: i32) -> DrillbitEndpoint {
        DrillbitEndpoint {
            address: Some("node1".to_owned()),
            control_port: Some(31011),
            user_port: Some(user_port),
            ..DrillbitEndpoint::default()
        }
    }

    #[test]
    fn a_registration_is_drills_message_and_its_endpoint_keeps_its_bytes() {
        let theirs = DrillServiceInstance {
            id: Some("a".to_owned()),
            registration_time_utc: Some(5),
            endpoint: Some(endpoint(1)),
        };
        let ours = registration("a", 5, &endpoint(1).into());
        assert_eq!(ours, theirs.encode_to_vec());
        let read = Instance::decode("a", ours).unwrap();
        assert_eq!(read.registered_ms, 5);
        assert_eq!(read.member.endpoint.bytes(), &endpoint(1).encode_to_vec());
    }

    #[test]
    fn of_two_registrations_the_newer_counts() {
        let read = |name: &str, at, user_port| {
            let payload = registration(name, at, &endpoint(user_port).into());
            Instance::decode(name, payload).unwrap()
        };
        let (old, new) = (read("z", 5, 1), read("a", 6, 2));
        for instances in [[&old, &new], [&new, &old]] {
            let members = members(instances.into_iter());
            assert_eq!(members.len(), 1);
            assert_eq!(members[0].user_port(), Some(2));
        }
    }

    #[test]
    fn what_is_no_registration_is_refused_by_what_is_wrong() {
        let good = registration("a", 5, &endpoint(1).into());
        let decode = |name, payload| Instance::decode(name, payload).unwrap_err();
        assert_eq!(decode("b", good.clone()), InstanceError::Id("a".to_owned()));
        let json = Bytes::from_static(b"{\"name\":\"x\"}");
        assert!(matches!(decode("a", json), InstanceError::Malformed(_)));
        let nowhere = registration("a", 5, &DrillbitEndpoint::default().into());
        assert!(matches!(decode("a", nowhere), InstanceError::Address(_)));
        for end in 0..good.len() {
            // Cut off anywhere it is an error, or less than it was; never a panic.
            drop(Instance::decode("a", good.slice(..end)));
        }
    }
}
