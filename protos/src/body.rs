//! Decoding of bodies that come from a peer.
//!
//! Two bytes are enough for an element of a repeated field, which takes hundreds of bytes once it is decoded. So what a
//! long body would take is estimated before it is decoded: a walk over its bytes, without an allocation, along the
//! message's descriptor.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use bytes::Bytes;
use prost::{
    DecodeError, Message, Name,
    bytes::Buf,
    encoding::{WireType, decode_key, decode_varint},
};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use thiserror::Error;

use crate::descriptors;

/// Bodies up to this are decoded without a look at them: whatever is in them, they take a few MiB at most.
pub const UNCHECKED_BYTES_MAX: usize = 16 * 1024;
/// A longer one may take this many times its own bytes, and [`UNWEIGHED_BYTES`]. Of what is ever sent, descriptors of columns
/// with names of one letter take most: 14 times.
const WEIGHT_MAX: usize = 24;
/// What any body may take.
const UNWEIGHED_BYTES: usize = 1024 * 1024;
/// As deep as prost reads.
const DEPTH_MAX: u32 = 100;

/// Why a body was not decoded.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum BodyError {
    /// It is no such message.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// It would take far more memory than a message of its length ever does.
    #[error(
        "expected elements that take at most {expected_max} bytes of memory, found more in {bytes} bytes"
    )]
    Weight {
        /// Length of the body.
        bytes: usize,
        /// Limit in bytes.
        expected_max: usize,
    },
}

/// Decodes a body. What it takes is bounded by its length, see the module's description.
///
/// # Errors
///
/// It is no such message, or a bomb.
#[inline]
pub fn decode<M: Message + Default + Name>(body: &mut Bytes) -> Result<M, BodyError> {
    if body.len() > UNCHECKED_BYTES_MAX {
        check(&M::full_name(), body)?;
    }
    Ok(M::decode(body)?)
}

#[cold]
fn check(name: &str, body: &[u8]) -> Result<(), BodyError> {
    // Messages that are not ours have no descriptor here; whoever adds such an RPC answers for it.
    let Some(message) = descriptors().get_message_by_name(name) else {
        return Ok(());
    };
    let expected_max = UNWEIGHED_BYTES + WEIGHT_MAX * body.len();
    let mut left = expected_max;
    // What is malformed here is found, and named, by prost.
    match weigh(&message, body, &mut left, 0) {
        Walked::Heavy => Err(BodyError::Weight {
            bytes: body.len(),
            expected_max,
        }),
        Walked::Whole | Walked::Malformed => Ok(()),
    }
}

enum Walked {
    Whole,
    Malformed,
    Heavy,
}

/// Takes what the fields of a message take off `left`.
fn weigh(message: &MessageDescriptor, mut body: &[u8], left: &mut usize, depth: u32) -> Walked {
    while body.has_remaining() {
        let Some((field, bytes)) = next_field(message, &mut body) else {
            return Walked::Malformed;
        };
        let Some(field) = field else { continue };
        let Some(rest) = left.checked_sub(element_bytes(&field)) else {
            return Walked::Heavy;
        };
        *left = rest;
        if let (Kind::Message(inner), Some(bytes)) = (field.kind(), bytes)
            && depth < DEPTH_MAX
        {
            match weigh(&inner, bytes, left, depth + 1) {
                Walked::Whole => {}
                ended => return ended,
            }
        }
    }
    Walked::Whole
}

/// The next field, if it is known, and its bytes, if it has a length of its own; `None` for what prost refuses.
fn next_field<'a>(
    message: &MessageDescriptor,
    body: &mut &'a [u8],
) -> Option<(Option<FieldDescriptor>, Option<&'a [u8]>)> {
    let (tag, wire_type) = decode_key(body).ok()?;
    let skipped = match wire_type {
        WireType::Varint => {
            return decode_varint(body)
                .ok()
                .map(|_| (message.get_field(tag), None));
        }
        WireType::ThirtyTwoBit => 4,
        WireType::SixtyFourBit => 8,
        WireType::LengthDelimited => usize::try_from(decode_varint(body).ok()?).ok()?,
        // None of our messages has groups.
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    let (bytes, rest) = body.split_at_checked(skipped)?;
    *body = rest;
    let bytes = (wire_type == WireType::LengthDelimited).then_some(bytes);
    Some((message.get_field(tag), bytes))
}

/// What one element of a repeated field takes, and a field that is there only once: nothing beside its message.
fn element_bytes(field: &FieldDescriptor) -> usize {
    match field.kind() {
        _ if !field.is_list() => 0,
        Kind::Message(message) => message_bytes(&message),
        kind => scalar_bytes(&kind),
    }
}

fn scalar_bytes(kind: &Kind) -> usize {
    match kind {
        Kind::String | Kind::Bytes => 32,
        _ => 8,
    }
}

/// What the struct of a message takes, roughly and rather too much.
fn message_bytes(message: &MessageDescriptor) -> usize {
    static KNOWN: LazyLock<Mutex<HashMap<String, usize>>> = LazyLock::new(Mutex::default);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let name = message.full_name();
    if let Some(&bytes) = known().get(name) {
        return bytes;
    }
    let bytes = struct_bytes(message, &mut Vec::new());
    known().insert(name.to_owned(), bytes);
    bytes
}

/// `within`: the messages around it, so that one within itself counts as the pointer that it is.
fn struct_bytes(message: &MessageDescriptor, within: &mut Vec<String>) -> usize {
    within.push(message.full_name().to_owned());
    let fields = message.fields().map(|field| match field.kind() {
        _ if field.is_list() || field.is_map() => 24,
        Kind::Message(inner) if within.iter().any(|outer| outer == inner.full_name()) => 8,
        Kind::Message(inner) => struct_bytes(&inner, within),
        kind => 2 * scalar_bytes(&kind),
    });
    let bytes = fields.sum::<usize>().max(16);
    within.pop();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        common::MajorType,
        control::{CustomMessage, InitializeFragments, PlanFragment},
        shared::{DrillPbError, NamePart, RecordBatchDef, SerializedField},
        user::RunQuery,
    };

    fn repeated(key: u8, body: &[u8], times: usize) -> Bytes {
        let length = u8::try_from(body.len()).expect("a short one");
        [&[key, length], body].concat().repeat(times).into()
    }

    fn is_heavy<M: Message + Default + Name>(mut body: Bytes) -> bool {
        matches!(decode::<M>(&mut body), Err(BodyError::Weight { .. }))
    }

    #[test]
    fn many_empty_elements_are_refused_wherever_they_are() {
        // Fragments, columns, and columns within a column.
        assert!(is_heavy::<InitializeFragments>(repeated(
            0x0a,
            &[],
            100_000
        )));
        assert!(is_heavy::<RecordBatchDef>(repeated(0x12, &[], 100_000)));
        let columns = repeated(0x1a, &[], 60);
        assert!(is_heavy::<RecordBatchDef>(repeated(0x12, &columns, 10_000)));
    }

    #[test]
    fn a_trace_of_empty_elements_is_refused() {
        let trace = repeated(0x1a, &[], 200_000);
        let mut length = Vec::new();
        prost::encoding::encode_varint(trace.len() as u64, &mut length);
        let error = [&[0x2a][..], &length, &trace].concat();
        assert!(is_heavy::<DrillPbError>(error.into()));
    }

    #[test]
    fn long_texts_and_bodies_are_what_they_are() {
        let plan = Some("x".repeat(1 << 20));
        let query = RunQuery {
            plan,
            ..RunQuery::default()
        };
        assert_eq!(decode(&mut query.encode_to_vec().into()), Ok(query));
        let custom = CustomMessage {
            message: Some(vec![0x0a; 1 << 20].into()),
            ..CustomMessage::default()
        };
        assert_eq!(decode(&mut custom.encode_to_vec().into()), Ok(custom));
    }

    #[test]
    fn messages_as_large_as_they_get_are_decoded() {
        let column = SerializedField {
            major_type: Some(MajorType {
                minor_type: Some(1),
                mode: Some(1),
                ..MajorType::default()
            }),
            name_part: Some(NamePart {
                name: Some("c".into()),
                ..NamePart::default()
            }),
            value_count: Some(1),
            buffer_length: Some(8),
            ..SerializedField::default()
        };
        let columns = RecordBatchDef {
            field: vec![column; 20_000],
            ..RecordBatchDef::default()
        };
        let fragment = PlanFragment {
            // The shortest plan of an operator or two.
            fragment_json: Some("{\"pop\":\"screen\"}".repeat(10)),
            ..PlanFragment::default()
        };
        let fragments = InitializeFragments {
            fragment: vec![fragment; 20_000],
        };
        assert!(decode::<RecordBatchDef>(&mut columns.encode_to_vec().into()).is_ok());
        assert!(decode::<InitializeFragments>(&mut fragments.encode_to_vec().into()).is_ok());
    }

    #[test]
    fn what_is_malformed_is_named_as_ever() {
        let mut body = Bytes::from(vec![0xff; UNCHECKED_BYTES_MAX + 1]);
        let malformed = decode::<RunQuery>(&mut body);
        assert!(matches!(malformed, Err(BodyError::Malformed(_))));
    }

    #[test]
    fn estimates_are_not_below_what_messages_take() {
        let estimated = |name| {
            let message = descriptors().get_message_by_name(name);
            message_bytes(&message.expect("one of ours"))
        };
        assert!(estimated("exec.shared.SerializedField") >= size_of::<SerializedField>());
        assert!(estimated("exec.bit.control.PlanFragment") >= size_of::<PlanFragment>());
        assert!(estimated("exec.shared.DrillPBError") >= size_of::<DrillPbError>());
    }
}
