//! Cutting a body into messages: marker, length of the header, header, data.
// wire: https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format

use arrow::ipc::{self, MetadataVersion, root_as_message};
use bytes::{Buf, Bytes};

use super::error::ArrowBodyError;

const MARKER: [u8; 4] = [0xff; 4];
const PREFIX_BYTES: i64 = 8;

/// Takes the header of the next message off `rest`, which then begins with its data; `None` at the end of the body, or
/// of the stream.
pub(super) fn cut(rest: &mut Bytes) -> Result<Option<Bytes>, ArrowBodyError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let mut prefix = take(rest, PREFIX_BYTES)?;
    let mut found = [0; 4];
    prefix.copy_to_slice(&mut found);
    if found != MARKER {
        return Err(ArrowBodyError::Marker { found });
    }
    let header = take(rest, prefix.get_i32_le().into())?;
    match (header.is_empty(), rest.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Err(ArrowBodyError::BehindTheBatch),
        (false, _) => Ok(Some(header)),
    }
}

/// Checks a header.
pub(super) fn parse(header: &[u8]) -> Result<ipc::Message<'_>, ArrowBodyError> {
    let message =
        root_as_message(header).map_err(|error| ArrowBodyError::Header(error.to_string()))?;
    match message.version() {
        MetadataVersion::V5 => Ok(message),
        MetadataVersion(actual) => Err(ArrowBodyError::Version { actual }),
    }
}

/// Takes as many bytes as a message announces.
pub(super) fn take(rest: &mut Bytes, needed: i64) -> Result<Bytes, ArrowBodyError> {
    let available = rest.len();
    match usize::try_from(needed) {
        Ok(bytes) if bytes <= available => Ok(rest.split_to(bytes)),
        _ => Err(ArrowBodyError::Truncated { needed, available }),
    }
}
