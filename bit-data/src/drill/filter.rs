//! Runtime filters: Bloom filters that a join sends to the scans of its probe side.

use bytes::Bytes;
use protos::{
    data::RuntimeFilterBDef,
    id::{FragmentId, IncompleteQueryId, QueryId},
};
use thiserror::Error;

/// Bloom filters of a join. To lose one costs time, never rows.
// wire: drill@051b164 exec/java-exec/.../work/filter/RuntimeFilterWritable.java
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeFilter {
    /// Who it is for: a scan; or the foreman, by the fragment that has made it.
    pub fragment: FragmentId,
    /// Whether it is for the foreman, who joins the filters of all fragments.
    pub to_foreman: bool,
    /// Operator of the join.
    pub join_operator: i32,
    /// Names the filter within its query.
    pub identifier: i64,
    /// Probe side's columns, each with the bits of its filter.
    pub filters: Vec<(String, Bytes)>,
}

/// What keeps a message from being a runtime filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum FilterError {
    #[error("expected a runtime filter with a query id")]
    NoQuery,
    #[error("expected a runtime filter of a query: {0}")]
    Query(#[from] IncompleteQueryId),
    #[error("expected a size for each of {fields} probe fields, found {sizes} sizes")]
    Count { fields: usize, sizes: usize },
    #[error("expected sizes that add up to the {actual} bytes of the body")]
    Length { actual: usize },
}

impl RuntimeFilter {
    /// A message and its body, which is empty where there is none.
    pub(crate) fn parse(def: RuntimeFilterBDef, mut body: Bytes) -> Result<Self, FilterError> {
        let (fields, sizes) = (def.probe_fields.len(), def.bloom_filter_size_in_bytes.len());
        if fields != sizes {
            return Err(FilterError::Count { fields, sizes });
        }
        let wrong = FilterError::Length { actual: body.len() };
        let mut filters = Vec::with_capacity(fields);
        for (name, &size) in def
            .probe_fields
            .into_iter()
            .zip(&def.bloom_filter_size_in_bytes)
        {
            let size = usize::try_from(size)
                .ok()
                .filter(|&size| size <= body.len());
            filters.push((name, body.split_to(size.ok_or_else(|| wrong.clone())?)));
        }
        if !body.is_empty() {
            return Err(wrong);
        }
        let query = QueryId::try_from(def.query_id.ok_or(FilterError::NoQuery)?)?;
        let (major, minor) = (def.major_fragment_id, def.minor_fragment_id);
        Ok(Self {
            fragment: FragmentId::new(query, major.unwrap_or(0), minor.unwrap_or(0)),
            to_foreman: def.to_foreman.unwrap_or(false),
            join_operator: def.hj_op_id.unwrap_or(0),
            identifier: def.rf_identifier.unwrap_or(0),
            filters,
        })
    }

    /// The message and the pieces of its body.
    pub(crate) fn to_wire(&self) -> (RuntimeFilterBDef, Vec<Bytes>) {
        let sizes = self.filters.iter().map(|(_, bits)| bits.len());
        let sizes = sizes.map(|size| i32::try_from(size).unwrap_or(i32::MAX));
        let FragmentId {
            query,
            major,
            minor,
        } = self.fragment;
        let def = RuntimeFilterBDef {
            query_id: Some(query.into()),
            major_fragment_id: Some(major.0),
            minor_fragment_id: Some(minor.0),
            to_foreman: Some(self.to_foreman),
            bloom_filter_size_in_bytes: sizes.collect(),
            probe_fields: self.filters.iter().map(|(name, _)| name.clone()).collect(),
            hj_op_id: Some(self.join_operator),
            rf_identifier: Some(self.identifier),
        };
        let body = self.filters.iter().map(|(_, bits)| bits.clone());
        (def, body.filter(|bits| !bits.is_empty()).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::header::tests::QUERY, *};

    fn filter() -> RuntimeFilter {
        let bits = |byte: u8, len: usize| Bytes::from(vec![byte; len]);
        RuntimeFilter {
            fragment: FragmentId::new(QUERY, 3, 1),
            to_foreman: true,
            join_operator: 5,
            identifier: -9,
            filters: vec![("a".to_owned(), bits(1, 8)), ("b".to_owned(), bits(2, 3))],
        }
    }

    #[test]
    fn a_filter_comes_back_as_it_was_sent() {
        let (def, body) = filter().to_wire();
        let body: Bytes = body.concat().into();
        assert_eq!(RuntimeFilter::parse(def, body), Ok(filter()));
    }

    #[test]
    fn sizes_that_do_not_fit_the_body_are_refused() {
        let (def, body) = filter().to_wire();
        let body = Bytes::from(body.concat());
        let parse = |change: fn(&mut RuntimeFilterBDef), body: Bytes| {
            let mut def = def.clone();
            change(&mut def);
            RuntimeFilter::parse(def, body).unwrap_err()
        };
        let length = FilterError::Length { actual: 11 };
        for change in [
            (|def| def.bloom_filter_size_in_bytes[0] = -1) as fn(&mut RuntimeFilterBDef),
            |def| def.bloom_filter_size_in_bytes[1] = i32::MAX,
            |def| def.bloom_filter_size_in_bytes[1] = 2,
        ] {
            assert_eq!(parse(change, body.clone()), length);
        }
        let no_body = parse(|_| {}, Bytes::new());
        assert_eq!(no_body, FilterError::Length { actual: 0 });
        let (fields, sizes) = (2, 1);
        assert_eq!(
            parse(
                |def| def.bloom_filter_size_in_bytes.truncate(1),
                body.clone()
            ),
            FilterError::Count { fields, sizes }
        );
        assert_eq!(parse(|def| def.query_id = None, body), FilterError::NoQuery);
    }

    #[test]
    fn a_filter_for_no_column_has_no_body() {
        let none = RuntimeFilter {
            filters: Vec::new(),
            ..filter()
        };
        let (def, body) = none.to_wire();
        assert!(body.is_empty());
        assert_eq!(RuntimeFilter::parse(def, Bytes::new()), Ok(none));
    }
}
