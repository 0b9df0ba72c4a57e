//! Identifiers as total types.

use std::{fmt, str::FromStr};

use rand::Rng;
use thiserror::Error;
use uuid::Uuid;

use crate::shared;

/// Names a query; unique over a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId {
    /// High half of the UUID.
    pub part1: i64,
    /// Low half of the UUID.
    pub part2: i64,
}

/// A message named no query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the query id lacks its field {field}")]
pub struct IncompleteQueryId {
    /// Field that was expected.
    pub field: &'static str,
}

impl QueryId {
    /// Makes an id by Drill's scheme: newer queries sort first, by the second in which they started.
    ///
    /// `unix_seconds` is the time of the query's start.
    // wire: drill@051b164 exec/java-exec/.../work/user/UserWorker.java
    #[must_use]
    pub fn generate(unix_seconds: i64, random: &mut impl Rng) -> Self {
        let newest_first = i64::from(i32::MAX).wrapping_sub(unix_seconds) << 32;
        Self {
            part1: newest_first.wrapping_add(i64::from(random.random::<i32>())),
            part2: random.random(),
        }
    }

    /// The id as the UUID that logs and tools show.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        Uuid::from_u64_pair(self.part1.cast_unsigned(), self.part2.cast_unsigned())
    }
}

impl fmt::Display for QueryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_uuid().fmt(f)
    }
}

impl FromStr for QueryId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        let (high, low) = text.parse::<Uuid>()?.as_u64_pair();
        Ok(Self {
            part1: high.cast_signed(),
            part2: low.cast_signed(),
        })
    }
}

impl From<QueryId> for shared::QueryId {
    fn from(id: QueryId) -> Self {
        Self {
            part1: Some(id.part1),
            part2: Some(id.part2),
        }
    }
}

impl TryFrom<&shared::QueryId> for QueryId {
    type Error = IncompleteQueryId;

    fn try_from(id: &shared::QueryId) -> Result<Self, IncompleteQueryId> {
        Ok(Self {
            part1: id.part1.ok_or(IncompleteQueryId { field: "part1" })?,
            part2: id.part2.ok_or(IncompleteQueryId { field: "part2" })?,
        })
    }
}

impl TryFrom<shared::QueryId> for QueryId {
    type Error = IncompleteQueryId;

    fn try_from(id: shared::QueryId) -> Result<Self, IncompleteQueryId> {
        Self::try_from(&id)
    }
}

/// Names a stage of a query: all fragments that run the same operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MajorFragmentId(pub i32);

/// Names one of the fragments of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MinorFragmentId(pub i32);

impl fmt::Display for MajorFragmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MinorFragmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One running part of a query, unique over a cluster. Shown as `query:major:minor`, as in Drill's logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FragmentId {
    /// The query.
    pub query: QueryId,
    /// Its stage.
    pub major: MajorFragmentId,
    /// Which one of the stage.
    pub minor: MinorFragmentId,
}

impl FragmentId {
    /// The fragment `major`:`minor` of `query`.
    #[must_use]
    pub fn new(query: QueryId, major: i32, minor: i32) -> Self {
        Self {
            query,
            major: MajorFragmentId(major),
            minor: MinorFragmentId(minor),
        }
    }
}

impl fmt::Display for FragmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.query, self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_the_uuid_of_both_halves() {
        // golden/user/types, frame 3
        let id = QueryId {
            part1: 0x14fe_f40c_fe89_ea3f,
            part2: 0xecc5_cbe0_2bf8_19eb_u64.cast_signed(),
        };
        let text = "14fef40c-fe89-ea3f-ecc5-cbe02bf819eb";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse(), Ok(id));
        assert!("14fef40c".parse::<QueryId>().is_err());
    }

    #[test]
    fn newer_queries_sort_first() {
        let mut random = rand::rng();
        let older = QueryId::generate(1_700_000_000, &mut random);
        let newer = QueryId::generate(1_700_000_100, &mut random);
        assert!(newer < older);
    }

    #[test]
    fn a_missing_half_is_named() {
        let wire = shared::QueryId {
            part1: Some(1),
            part2: None,
        };
        assert_eq!(
            QueryId::try_from(wire),
            Err(IncompleteQueryId { field: "part2" })
        );
    }
}
