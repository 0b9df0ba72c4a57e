//! Cutting a body into messages: marker, length of the header, header, data.
// wire: https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format

use arrow::ipc::{self, MetadataVersion, root_as_message};
use bytes::{Buf, Bytes};

use super::error::ArrowBodyError;

const MARKER: [u8; 4] = [0xff; 4];
const PREFIX_BYTES: i64 = 8;

/// One message; its header is checked when it is asked for.
pub(super) struct Message {
    header: Bytes,
    pub(super) body: Bytes,
}

impl Message {
    /// Takes the next message off `rest`; `None` at the end of the body, or of the stream.
    pub(super) fn cut(rest: &mut Bytes) -> Result<Option<Self>, ArrowBodyError> {
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
        if header.is_empty() {
            let behind = !rest.is_empty();
            return if behind {
                Err(ArrowBodyError::BehindTheBatch)
            } else {
                Ok(None)
            };
        }
        let body_bytes = parse(&header)?.bodyLength();
        let body = take(rest, body_bytes)?;
        Ok(Some(Self { header, body }))
    }

    pub(super) fn header(&self) -> Result<ipc::Message<'_>, ArrowBodyError> {
        parse(&self.header)
    }
}

fn parse(header: &[u8]) -> Result<ipc::Message<'_>, ArrowBodyError> {
    let message =
        root_as_message(header).map_err(|error| ArrowBodyError::Header(error.to_string()))?;
    match message.version() {
        MetadataVersion::V5 => Ok(message),
        MetadataVersion(actual) => Err(ArrowBodyError::Version { actual }),
    }
}

fn take(rest: &mut Bytes, needed: i64) -> Result<Bytes, ArrowBodyError> {
    let available = rest.len();
    match usize::try_from(needed) {
        Ok(bytes) if bytes <= available => Ok(rest.split_to(bytes)),
        _ => Err(ArrowBodyError::Truncated { needed, available }),
    }
}
