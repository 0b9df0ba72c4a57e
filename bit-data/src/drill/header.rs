//! A batch at the door: who sent it, for whom, and the rest as it came.

use bytes::Bytes;
use prost::Message;
use protos::{
    data::BatchHeader,
    error::ErrorType,
    id::{FragmentId, IncompleteQueryId, MajorFragmentId, MinorFragmentId, QueryId},
};
use rpc_bus::RpcFailure;
use thiserror::Error;

/// Longest protobuf body of a batch, in bytes: names and counts of some 10,000 columns, or many receivers.
const HEADER_BYTES_MAX: usize = 1024 * 1024;
/// Most receivers of a batch, which are the minor fragments of one major that run on one node.
const RECEIVERS_MAX: usize = 4096;
/// What a batch in a queue takes beside its bytes; also keeps empty batches from being free.
const OVERHEAD_BYTES: usize = 256;

/// A batch for one or several fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) query: QueryId,
    pub(crate) receiving_major: MajorFragmentId,
    /// Each of them once, possibly none.
    pub(crate) receivers: Vec<MinorFragmentId>,
    pub(crate) batch: ArrivedBatch,
}

/// The batch, as each of its receivers gets it. Clones share its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArrivedBatch {
    pub(crate) sending_major: MajorFragmentId,
    pub(crate) sending_minor: MinorFragmentId,
    /// The descriptor, encoded.
    pub(crate) def: Bytes,
    pub(crate) body: Bytes,
    /// The last one of this sender for this receiver.
    pub(crate) is_last: bool,
}

/// What keeps a request from being a batch for anybody.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum HeaderError {
    #[error("a batch with {bytes} bytes of descriptors, expected at most {HEADER_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("expected a FragmentRecordBatch: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("expected a FragmentRecordBatch with the field {field}")]
    Missing { field: &'static str },
    #[error("expected a FragmentRecordBatch of a query: {0}")]
    Query(#[from] IncompleteQueryId),
    #[error("a batch for {receivers} minor fragments, expected at most {RECEIVERS_MAX}")]
    TooManyReceivers { receivers: usize },
    #[error("expected each receiving minor fragment once, found {minor} again")]
    Twice { minor: MinorFragmentId },
}

impl From<HeaderError> for RpcFailure {
    fn from(error: HeaderError) -> Self {
        Self::new(ErrorType::System, error.to_string())
    }
}

impl Arrival {
    /// Reads what routes the batch, and leaves the rest encoded.
    pub(crate) fn parse(pbody: Bytes, body: Bytes) -> Result<Self, HeaderError> {
        let bytes = pbody.len();
        if bytes > HEADER_BYTES_MAX {
            return Err(HeaderError::TooLong { bytes });
        }
        let header = BatchHeader::decode(pbody)?;
        let query = present(header.query_id, "query_id")?;
        let receiving_major = present(
            header.receiving_major_fragment_id,
            "receiving_major_fragment_id",
        )?;
        let sending_major = present(
            header.sending_major_fragment_id,
            "sending_major_fragment_id",
        )?;
        let sending_minor = present(
            header.sending_minor_fragment_id,
            "sending_minor_fragment_id",
        )?;
        Ok(Self {
            query: query.try_into()?,
            receiving_major: MajorFragmentId(receiving_major),
            receivers: distinct(&header.receiving_minor_fragment_id)?,
            batch: ArrivedBatch {
                sending_major: MajorFragmentId(sending_major),
                sending_minor: MinorFragmentId(sending_minor),
                def: present(header.def, "def")?,
                body,
                is_last: header.is_last_batch.unwrap_or(false),
            },
        })
    }

    /// The fragments that it is for.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = FragmentId> {
        let (query, major) = (self.query, self.receiving_major);
        let minors = self.receivers.iter().copied();
        minors.map(move |minor| FragmentId {
            query,
            major,
            minor,
        })
    }
}

impl ArrivedBatch {
    /// What it is charged with while it waits.
    pub(crate) fn memory_bytes(&self) -> usize {
        OVERHEAD_BYTES + self.def.len() + self.body.len()
    }
}

fn present<T>(value: Option<T>, field: &'static str) -> Result<T, HeaderError> {
    value.ok_or(HeaderError::Missing { field })
}

fn distinct(minors: &[i32]) -> Result<Vec<MinorFragmentId>, HeaderError> {
    let receivers = minors.len();
    if receivers > RECEIVERS_MAX {
        return Err(HeaderError::TooManyReceivers { receivers });
    }
    let mut sorted = minors.to_vec();
    sorted.sort_unstable();
    let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]);
    match twice {
        Some(pair) => Err(HeaderError::Twice {
            minor: MinorFragmentId(pair[0]),
        }),
        None => Ok(minors.iter().copied().map(MinorFragmentId).collect()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use protos::{data::FragmentRecordBatch, shared::RecordBatchDef};

    use super::*;

    pub(crate) const QUERY: QueryId = QueryId { part1: 1, part2: 2 };

    fn whole() -> FragmentRecordBatch {
        FragmentRecordBatch {
            query_id: Some(QUERY.into()),
            receiving_major_fragment_id: Some(1),
            receiving_minor_fragment_id: vec![3, 0],
            sending_major_fragment_id: Some(2),
            sending_minor_fragment_id: Some(5),
            def: Some(RecordBatchDef {
                record_count: Some(7),
                ..RecordBatchDef::default()
            }),
            is_last_batch: Some(true),
            stream: None,
        }
    }

    fn parse(batch: &FragmentRecordBatch) -> Result<Arrival, HeaderError> {
        Arrival::parse(batch.encode_to_vec().into(), Bytes::from_static(b"body"))
    }

    #[test]
    fn a_batch_is_addressed_and_keeps_its_descriptor_as_it_came() {
        let arrival = parse(&whole()).unwrap();
        let addresses: Vec<_> = arrival.addresses().collect();
        let expected = [3, 0].map(|minor| FragmentId::new(QUERY, 1, minor));
        assert_eq!(addresses, expected);
        let batch = arrival.batch;
        assert_eq!(
            (batch.sending_major.0, batch.sending_minor.0, batch.is_last),
            (2, 5, true)
        );
        let def = RecordBatchDef::decode(batch.def).unwrap();
        assert_eq!((def.record_count(), &batch.body[..]), (7, &b"body"[..]));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (field, number) in [
            ("query_id", 1),
            ("receiving_major_fragment_id", 2),
            ("sending_major_fragment_id", 4),
            ("sending_minor_fragment_id", 5),
            ("def", 6),
        ] {
            let mut batch = whole();
            match number {
                1 => batch.query_id = None,
                2 => batch.receiving_major_fragment_id = None,
                4 => batch.sending_major_fragment_id = None,
                5 => batch.sending_minor_fragment_id = None,
                _ => batch.def = None,
            }
            assert_eq!(parse(&batch), Err(HeaderError::Missing { field }));
        }
        let mut half = whole();
        half.query_id.as_mut().unwrap().part2 = None;
        assert!(matches!(parse(&half), Err(HeaderError::Query(_))));
    }

    #[test]
    fn a_receiver_named_twice_would_get_every_row_twice() {
        let mut batch = whole();
        batch.receiving_minor_fragment_id = vec![4, 1, 4];
        let minor = MinorFragmentId(4);
        assert_eq!(parse(&batch), Err(HeaderError::Twice { minor }));
        batch.receiving_minor_fragment_id.clear();
        assert!(parse(&batch).unwrap().receivers.is_empty());
    }

    #[test]
    fn receivers_have_a_limit() {
        let mut batch = whole();
        batch.receiving_minor_fragment_id = (0..4096).collect();
        assert_eq!(parse(&batch).unwrap().receivers.len(), 4096);
        batch.receiving_minor_fragment_id.push(4096);
        let receivers = 4097;
        assert_eq!(
            parse(&batch),
            Err(HeaderError::TooManyReceivers { receivers })
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0..200_usize, byte in any::<u8>(), cut in 0..200_usize) {
            let mut pbody = whole().encode_to_vec();
            let len = pbody.len();
            pbody[at % len] = byte;
            pbody.truncate(cut.max(1));
            if let Ok(arrival) = Arrival::parse(pbody.into(), Bytes::new()) {
                prop_assert_eq!(arrival.addresses().count(), arrival.receivers.len());
            }
        }
    }

    #[test]
    fn long_and_malformed_headers_are_refused_before_they_are_read() {
        let long = Bytes::from(vec![0; HEADER_BYTES_MAX + 1]);
        let bytes = long.len();
        assert_eq!(
            Arrival::parse(long, Bytes::new()),
            Err(HeaderError::TooLong { bytes })
        );
        let garbage = Bytes::from_static(b"\xff\xff");
        assert!(matches!(
            Arrival::parse(garbage, Bytes::new()),
            Err(HeaderError::Malformed(_))
        ));
    }
}
