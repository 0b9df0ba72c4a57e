//! Which stream: from which fragment to which.

use std::fmt;

use protos::{
    data::OpenStream,
    id::{FragmentId, MajorFragmentId, MinorFragmentId, QueryId},
};
use thiserror::Error;

/// Names a stream: both ends of it must use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamAddress {
    /// The query that both fragments belong to.
    pub query: QueryId,
    /// The sending fragment.
    pub sender: (MajorFragmentId, MinorFragmentId),
    /// The receiving fragment.
    pub receiver: (MajorFragmentId, MinorFragmentId),
    /// Tells streams of one pair of fragments apart that different threads read. 0 where there is one.
    pub driver: i32,
}

/// A message named no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the request to open a stream lacks its field {field}")]
pub(crate) struct IncompleteAddress {
    field: &'static str,
}

impl StreamAddress {
    /// The stream of `query` from `sender` to `receiver`, both as (major, minor).
    #[must_use]
    pub fn new(query: QueryId, sender: (i32, i32), receiver: (i32, i32)) -> Self {
        let ids = |(major, minor)| (MajorFragmentId(major), MinorFragmentId(minor));
        Self {
            query,
            sender: ids(sender),
            receiver: ids(receiver),
            driver: 0,
        }
    }

    /// The same for another driver.
    #[must_use]
    pub fn with_driver(self, driver: i32) -> Self {
        Self { driver, ..self }
    }

    /// The sending fragment.
    #[must_use]
    pub fn sending_fragment(&self) -> FragmentId {
        let (major, minor) = self.sender;
        FragmentId::new(self.query, major.0, minor.0)
    }

    /// The receiving fragment.
    #[must_use]
    pub fn receiving_fragment(&self) -> FragmentId {
        let (major, minor) = self.receiver;
        FragmentId::new(self.query, major.0, minor.0)
    }

    pub(crate) fn to_wire(self) -> OpenStream {
        OpenStream {
            query_id: Some(self.query.into()),
            sending_major_fragment_id: Some(self.sender.0.0),
            sending_minor_fragment_id: Some(self.sender.1.0),
            receiving_major_fragment_id: Some(self.receiver.0.0),
            receiving_minor_fragment_id: Some(self.receiver.1.0),
            driver: Some(self.driver),
            ..OpenStream::default()
        }
    }

    pub(crate) fn from_wire(open: &OpenStream) -> Result<Self, IncompleteAddress> {
        let lacks = |field| IncompleteAddress { field };
        let query = open.query_id.as_ref().ok_or_else(|| lacks("query_id"))?;
        let id = |id: Option<i32>, field| id.ok_or_else(|| lacks(field));
        let sender = (
            id(open.sending_major_fragment_id, "sending_major_fragment_id")?,
            id(open.sending_minor_fragment_id, "sending_minor_fragment_id")?,
        );
        let receiver = (
            id(
                open.receiving_major_fragment_id,
                "receiving_major_fragment_id",
            )?,
            id(
                open.receiving_minor_fragment_id,
                "receiving_minor_fragment_id",
            )?,
        );
        let query = query.try_into().map_err(|_| lacks("query_id"))?;
        Ok(Self::new(query, sender, receiver).with_driver(open.driver()))
    }
}

/// As `query:major:minor -> major:minor`, with `#driver` where it is not 0.
impl fmt::Display for StreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.receiver;
        write!(f, "{} -> {major}:{minor}", self.sending_fragment())?;
        if self.driver != 0 {
            write!(f, "#{}", self.driver)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> StreamAddress {
        let query = QueryId { part1: 1, part2: 2 };
        StreamAddress::new(query, (1, 2), (0, 3)).with_driver(4)
    }

    #[test]
    fn an_address_survives_the_wire() {
        let address = address();
        assert_eq!(StreamAddress::from_wire(&address.to_wire()), Ok(address));
        assert!(address.to_string().ends_with(":1:2 -> 0:3#4"));
    }

    #[test]
    fn a_missing_field_is_named() {
        let open = OpenStream {
            receiving_minor_fragment_id: None,
            ..address().to_wire()
        };
        let error = StreamAddress::from_wire(&open).expect_err("a field is missing");
        assert_eq!(error.field, "receiving_minor_fragment_id");
    }
}
