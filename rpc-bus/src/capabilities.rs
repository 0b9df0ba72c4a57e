//! What our own nodes can do beside Drill's protocol, agreed on in the handshake.
//!
//! The block is a field of number 1000 in the handshakes of all planes. Drill skips it; a peer that did not offer it
//! never sees an extension. Fields of protobuf messages may come in any order, so the bus appends the block to whatever
//! handshake a plane sends, and finds it in whatever handshake comes in: planes do nothing for it.

use std::{fmt, sync::Arc};

use bytes::{Bytes, BytesMut};
use prost::Message;
use protos::{
    bus::{BusCapabilities, HandshakeExtension, bus_capabilities},
    coord::DrillbitEndpoint,
};

/// Version of the block itself.
const VERSION: u32 = 1;

/// Something that both sides must know before one of them may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// Errors carry advice: whether, where and when to try again.
    ErrorAdvice = bus_capabilities::Feature::ErrorAdvice as isize,
    /// Results of queries come as bodies of an Arrow stream.
    ArrowBodies = bus_capabilities::Feature::ArrowBodies as isize,
    /// Messages that are never answered, and the streams of the data plane that are made of them.
    Streams = bus_capabilities::Feature::Streams as isize,
    /// Frames of streams carry a checksum, where their receiver asks for it.
    Checksums = bus_capabilities::Feature::Checksums as isize,
    /// Bodies of streams may be compressed.
    Compression = bus_capabilities::Feature::Compression as isize,
    /// Channels on control connections, plans of our own engines, statuses in one message.
    ControlStreams = bus_capabilities::Feature::ControlStreams as isize,
    /// Beats on the control plane.
    Beats = bus_capabilities::Feature::Beats as isize,
    /// A server of the user plane tells its status, and can be drained.
    NodeStatus = bus_capabilities::Feature::NodeStatus as isize,
}

impl Feature {
    /// All that this version knows.
    pub const ALL: [Self; 8] = [
        Self::ErrorAdvice,
        Self::ArrowBodies,
        Self::Streams,
        Self::Checksums,
        Self::Compression,
        Self::ControlStreams,
        Self::Beats,
        Self::NodeStatus,
    ];

    fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// A set of [`Feature`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// Everything that this version knows.
    #[must_use]
    pub fn all() -> Self {
        Feature::ALL.into_iter().collect()
    }

    /// What needs nothing of the plane: streams and what belongs to them are offered by whoever serves them.
    #[must_use]
    pub fn of_any_plane() -> Self {
        [Feature::ErrorAdvice, Feature::ArrowBodies]
            .into_iter()
            .collect()
    }

    /// The set with `feature`.
    #[must_use]
    pub fn with(self, feature: Feature) -> Self {
        Self(self.0 | feature.bit())
    }

    /// Whether `feature` is in it.
    #[must_use]
    pub fn contains(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// The set without `feature`.
    #[must_use]
    pub fn without(self, feature: Feature) -> Self {
        Self(self.0 & !feature.bit())
    }

    fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL
            .into_iter()
            .filter(move |feature| self.contains(*feature))
    }

    // Numbers that this version does not know are of a later one.
    fn from_wire(numbers: &[u32]) -> Self {
        Feature::ALL
            .into_iter()
            .filter(|feature| numbers.contains(&(*feature as u32)))
            .collect()
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        Self(features.into_iter().fold(0, |bits, next| bits | next.bit()))
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What one side is and can do; as a peer's, what both can do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capabilities {
    /// Version of the software, for people and for mixed clusters.
    pub software_version: String,
    /// Name and version of the engine behind it, empty where there is none.
    pub engine_version: String,
    /// What it can do.
    pub features: Features,
    /// Who it is, if it is a node.
    pub endpoint: Option<DrillbitEndpoint>,
    /// Drawn anew at every start of a node: tells a restarted one from the one before.
    pub incarnation: Option<u64>,
    /// Bytes that a stream may send before its first credit; 0 where there are no streams.
    pub initial_credit_bytes: u64,
    /// Largest batch that it takes, in bytes; 0 where there are no batches.
    pub batch_bytes_max: u64,
}

impl Capabilities {
    /// A program of `software_version` with the features [of any plane](Features::of_any_plane).
    #[must_use]
    pub fn of_software(software_version: impl Into<String>) -> Self {
        Self {
            software_version: software_version.into(),
            features: Features::of_any_plane(),
            ..Self::default()
        }
    }

    /// Appends the block to the body of a handshake.
    pub(crate) fn append_to(&self, pbody: &[u8]) -> Bytes {
        let block = HandshakeExtension {
            capabilities: Some(self.to_wire()),
        };
        let mut out = BytesMut::with_capacity(pbody.len() + block.encoded_len());
        out.extend_from_slice(pbody);
        block
            .encode(&mut out)
            .expect("invariant: a BytesMut has room");
        out.freeze()
    }

    /// What `self` has in common with the peer whose handshake is `pbody`; `None` if that offers nothing. A handshake
    /// that is no protobuf message is the plane's to refuse.
    pub(crate) fn agree(&self, pbody: Bytes) -> Option<Arc<Self>> {
        let theirs = HandshakeExtension::decode(pbody).ok()?.capabilities?;
        let theirs = Self::from_wire(theirs);
        Some(Arc::new(Self {
            features: Features(self.features.0 & theirs.features.0),
            initial_credit_bytes: self.initial_credit_bytes.min(theirs.initial_credit_bytes),
            batch_bytes_max: self.batch_bytes_max.min(theirs.batch_bytes_max),
            ..theirs
        }))
    }

    /// The block of the side that accepts: itself, with no more than `agreed`.
    pub(crate) fn answer(&self, agreed: &Self) -> Self {
        Self {
            features: agreed.features,
            initial_credit_bytes: agreed.initial_credit_bytes,
            batch_bytes_max: agreed.batch_bytes_max,
            ..self.clone()
        }
    }

    fn to_wire(&self) -> BusCapabilities {
        BusCapabilities {
            version: Some(VERSION),
            features: self.features.iter().map(|feature| feature as u32).collect(),
            endpoint: self.endpoint.clone(),
            incarnation: self.incarnation,
            engine_version: Some(self.engine_version.clone()),
            initial_credit_bytes: Some(self.initial_credit_bytes),
            batch_bytes_max: Some(self.batch_bytes_max),
            software_version: Some(self.software_version.clone()),
        }
    }

    fn from_wire(block: BusCapabilities) -> Self {
        Self {
            features: Features::from_wire(&block.features),
            initial_credit_bytes: block.initial_credit_bytes(),
            batch_bytes_max: block.batch_bytes_max(),
            incarnation: block.incarnation,
            endpoint: block.endpoint,
            software_version: block.software_version.unwrap_or_default(),
            engine_version: block.engine_version.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use protos::{shared::UserCredentials, user::UserToBitHandshake};

    use super::*;

    fn ours() -> Capabilities {
        Capabilities {
            software_version: "0.1.0".to_owned(),
            features: Features::all(),
            incarnation: Some(7),
            initial_credit_bytes: 1000,
            batch_bytes_max: 50,
            ..Capabilities::default()
        }
    }

    fn hello() -> UserToBitHandshake {
        UserToBitHandshake {
            rpc_version: Some(5),
            credentials: Some(UserCredentials {
                user_name: Some("alice".to_owned()),
            }),
            ..UserToBitHandshake::default()
        }
    }

    #[test]
    fn a_handshake_keeps_its_own_fields() {
        let pbody = ours().append_to(&hello().encode_to_vec());
        let mut read = UserToBitHandshake::decode(pbody).expect("a handshake");
        assert_eq!(read.capabilities.take().expect("a block").version(), 1);
        assert_eq!(read, hello());
    }

    #[test]
    fn both_sides_end_up_with_what_both_can_do() {
        let small = Capabilities {
            software_version: "9.9.9".to_owned(),
            features: Features::default(),
            initial_credit_bytes: 10,
            batch_bytes_max: 5000,
            ..Capabilities::default()
        };
        let agreed = ours().agree(small.append_to(&[])).expect("an offer");
        assert_eq!(agreed.software_version, "9.9.9");
        assert_eq!(agreed.features, Features::default());
        assert_eq!(
            (agreed.initial_credit_bytes, agreed.batch_bytes_max),
            (10, 50)
        );
        let answer = ours().answer(&agreed);
        assert_eq!(
            (&*answer.software_version, answer.incarnation),
            ("0.1.0", Some(7))
        );
        let back = small.agree(answer.append_to(&[])).expect("an answer");
        assert_eq!((back.initial_credit_bytes, back.batch_bytes_max), (10, 50));
    }

    #[test]
    fn nothing_is_agreed_with_a_peer_that_offers_nothing() {
        assert_eq!(ours().agree(hello().encode_to_vec().into()), None);
        assert_eq!(ours().agree(Bytes::from_static(b"\xff\xff\xff")), None);
    }

    #[test]
    fn features_of_a_later_version_are_no_part_of_the_answer() {
        let later = HandshakeExtension {
            capabilities: Some(BusCapabilities {
                features: vec![1, 2, 63, 64, u32::MAX],
                ..BusCapabilities::default()
            }),
        };
        let agreed = ours()
            .agree(later.encode_to_vec().into())
            .expect("an offer");
        assert_eq!(agreed.features, Features::of_any_plane());
    }
}
