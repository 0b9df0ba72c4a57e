//! The endpoint of a node, with the very bytes that it came in.

use std::fmt;

use bytes::Bytes;
use prost::Message;
use protos::coord::DrillbitEndpoint;
use thiserror::Error;

/// Longest endpoint that is taken, in bytes: a host name, a version and some numbers need fewer than 400.
pub const ENDPOINT_BYTES_MAX: usize = 4096;

/// What a node says of itself, as a message and as the bytes of that message.
///
/// Drill compares endpoints as a whole, fields included that are unknown here. So one that goes back to Drill keeps the
/// bytes in which it came: a message that has it as a field of type `bytes` reads and writes them as they are.
// wire: drill@051b164 exec/java-exec/.../work/foreman/QueryManager.java looks nodes up by their whole endpoint
#[derive(Clone)]
pub struct NodeEndpoint {
    bytes: Bytes,
    message: DrillbitEndpoint,
}

/// Bytes that are no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Too many of them.
    #[error("expected an endpoint of at most {ENDPOINT_BYTES_MAX} bytes, found {actual}")]
    TooLong {
        /// How many.
        actual: usize,
    },
    /// Not that message.
    #[error("expected a DrillbitEndpoint, found no such message: {0}")]
    Malformed(#[from] prost::DecodeError),
}

impl NodeEndpoint {
    /// The endpoint in `bytes`, which are kept.
    ///
    /// # Errors
    /// They are too many, or no such message.
    pub fn decode(bytes: Bytes) -> Result<Self, EndpointError> {
        if bytes.len() > ENDPOINT_BYTES_MAX {
            let actual = bytes.len();
            return Err(EndpointError::TooLong { actual });
        }
        let message = DrillbitEndpoint::decode(bytes.clone())?;
        Ok(Self { bytes, message })
    }

    /// The bytes in which it came.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What it says.
    #[must_use]
    pub fn message(&self) -> &DrillbitEndpoint {
        &self.message
    }

    /// Whether it says more than where its control server is.
    pub(crate) fn is_complete(&self) -> bool {
        self.message.user_port.is_some() || self.message.data_port.is_some()
    }
}

impl From<DrillbitEndpoint> for NodeEndpoint {
    fn from(message: DrillbitEndpoint) -> Self {
        let bytes = message.encode_to_vec().into();
        Self { bytes, message }
    }
}

impl PartialEq for NodeEndpoint {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for NodeEndpoint {}

impl fmt::Debug for NodeEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_keeps_the_fields_that_are_unknown_here() {
        // address "n", control_port 31011, and a field 99 of a later Drill; not in the order of the numbers.
        let bytes = [0x98, 6, 1, 0x18, 0xa3, 0xf2, 1, 0x0a, 1, b'n'];
        let endpoint = NodeEndpoint::decode(Bytes::copy_from_slice(&bytes)).unwrap();
        assert_eq!(endpoint.message().address(), "n");
        assert_eq!(endpoint.message().control_port(), 31011);
        assert_eq!(endpoint.bytes()[..], bytes);
        let again = NodeEndpoint::from(endpoint.message().clone());
        assert_ne!(endpoint, again, "the unknown field is lost in the message");
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        let long = Bytes::from(vec![0; ENDPOINT_BYTES_MAX + 1]);
        let refused = NodeEndpoint::decode(long).unwrap_err();
        assert_eq!(refused, EndpointError::TooLong { actual: 4097 });
        let refused = NodeEndpoint::decode(Bytes::from_static(&[0x0a, 9, 1])).unwrap_err();
        assert!(matches!(refused, EndpointError::Malformed(_)));
    }
}
