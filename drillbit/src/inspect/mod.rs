//! The wire inspector: one direction of a recorded byte stream in, one JSON object a frame out.
//!
//! Framing is [`rpc_bus::frame`]'s, message names are the table of [`protos`], vectors are
//! `record_batch`'s: this is only the loop around them. It streams; memory is bounded by the frame
//! limit.

mod batch;
mod body;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};

use bytes::Bytes;
use protos::{Plane, rpc::RpcMode};
use rpc_bus::frame::{FrameError, FrameErrorKind, Walk, WalkedFrame};
use serde_json::{Map, Value, json};

pub(crate) use body::Secrets;

/// Read from the source at once.
const READ_BYTES: usize = 64 << 10;

/// What is shown, and how much is held.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Says which message a number means.
    pub(crate) plane: Plane,
    /// Longest frame, in bytes, length prefix excluded; also the bound of our memory.
    pub(crate) frame_bytes_max: usize,
    /// Values shown per column of a batch; `None` shows none.
    pub(crate) rows: Option<usize>,
    /// Whether passwords are shown.
    pub(crate) secrets: Secrets,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// Frames whose framing is right and whose body is not what its type says.
    pub(crate) bad_bodies: u64,
}

/// Why the stream could not be shown to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    /// The stream is damaged, or not Drill RPC.
    #[error("{error} (in the frame that starts at byte {frame})")]
    Frame {
        /// Which byte, and what was expected.
        error: FrameError,
        /// Where the frame with that byte starts.
        frame: u64,
    },
    #[error("cannot read the stream: {0}")]
    Read(#[source] io::Error),
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
}

/// Writes a line for every frame of `source`. What precedes damage is written.
pub(crate) fn inspect(
    source: impl Read,
    mut out: impl Write,
    options: &Options,
) -> Result<Summary, InspectError> {
    let mut stream = Stream {
        source,
        held: Vec::new(),
        summary: Summary::default(),
    };
    let outcome = stream.show_all(&mut out, options);
    out.flush().map_err(InspectError::Write)?;
    outcome.map(|()| stream.summary)
}

struct Stream<R> {
    source: R,
    /// Bytes that are not part of a shown frame yet.
    held: Vec<u8>,
    summary: Summary,
}

impl<R: Read> Stream<R> {
    fn show_all(&mut self, out: &mut impl Write, options: &Options) -> Result<(), InspectError> {
        loop {
            let more = self.read()?;
            match self.show_held(out, options)? {
                Some(unfinished) if more == More::None => return Err(unfinished),
                None if more == More::None => return Ok(()),
                Some(_) | None => {}
            }
        }
    }

    fn read(&mut self) -> Result<More, InspectError> {
        let held = self.held.len();
        self.held.resize(held + READ_BYTES, 0);
        let read = loop {
            match self.source.read(&mut self.held[held..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        self.held
            .truncate(held + read.as_ref().copied().unwrap_or(0));
        Ok(if read.map_err(InspectError::Read)? == 0 {
            More::None
        } else {
            More::Perhaps
        })
    }

    /// Shows the whole frames among the held bytes. `Some` is the error that stands if no bytes
    /// follow.
    fn show_held(
        &mut self,
        out: &mut impl Write,
        options: &Options,
    ) -> Result<Option<InspectError>, InspectError> {
        let base = self.summary.bytes;
        let mut shown = 0;
        let mut walk = Walk::new(&self.held, options.frame_bytes_max);
        let mut unfinished = None;
        while let Some(frame) = walk.next() {
            let start = shown;
            shown = usize::try_from(walk.offset()).unwrap_or(usize::MAX);
            match frame {
                Ok(frame) => {
                    let bytes = (shown - start) as u64;
                    let line = Line::new(&frame, base + frame.offset, bytes, options);
                    line.write(out)?;
                    self.summary.frames += 1;
                    self.summary.bytes += bytes;
                    self.summary.bad_bodies += u64::from(line.is_bad);
                }
                Err(error) => unfinished = Some(self.judge(error, base)?),
            }
        }
        self.held.drain(..shown);
        Ok(unfinished)
    }

    /// Damage is an error at once; a frame that reaches beyond the held bytes may only be late.
    fn judge(&self, error: FrameError, base: u64) -> Result<InspectError, InspectError> {
        let may_be_late = matches!(error.kind, FrameErrorKind::Truncated { .. })
            && error.offset == self.held.len() as u64;
        let error = FrameError {
            offset: base + error.offset,
            kind: error.kind,
        };
        let error = InspectError::Frame {
            error,
            frame: self.summary.bytes,
        };
        if may_be_late { Ok(error) } else { Err(error) }
    }
}

#[derive(PartialEq, Eq)]
enum More {
    Perhaps,
    None,
}

/// One frame as a JSON object.
struct Line {
    object: Map<String, Value>,
    is_bad: bool,
}

impl Line {
    fn new(frame: &WalkedFrame<'_>, offset: u64, length: u64, options: &Options) -> Self {
        let header = &frame.header;
        let mut object = Map::new();
        object.insert("offset".to_owned(), json!(offset));
        object.insert("length".to_owned(), json!(length));
        object.insert("mode".to_owned(), json!(header.mode.as_str_name()));
        object.insert(
            "coordination_id".to_owned(),
            json!(header.coordination_id.0),
        );
        object.insert("rpc_type".to_owned(), json!(header.rpc_type));
        object.insert("rpc_name".to_owned(), json!(rpc_name(frame, options.plane)));
        let mut line = Self {
            object,
            is_bad: false,
        };
        line.add_body(frame, options);
        line
    }

    fn add_body(&mut self, frame: &WalkedFrame<'_>, options: &Options) {
        let message = protos::body_message(options.plane, frame.header.mode, frame.header.rpc_type);
        let (pbody, error) = body::show(message, frame.pbody, options.secrets);
        self.insert("pbody", pbody);
        self.note("pbody_error", error);
        self.insert("raw_len", json!(frame.dbody.len()));
        let Some(def) = message.and_then(|message| batch::definition(message, frame.pbody)) else {
            return;
        };
        let dbody = Bytes::copy_from_slice(if options.rows.is_some() {
            frame.dbody
        } else {
            &[]
        });
        let (columns, error) = batch::show(&def, &dbody, options.rows);
        self.insert("columns", columns);
        self.note("columns_error", error);
    }

    fn insert(&mut self, key: &str, value: Value) {
        self.object.insert(key.to_owned(), value);
    }

    fn note(&mut self, key: &str, error: Option<String>) {
        if let Some(error) = error {
            self.is_bad = true;
            self.insert(key, Value::from(error));
        }
    }

    fn write(&self, out: &mut impl Write) -> Result<(), InspectError> {
        serde_json::to_writer(&mut *out, &self.object)
            .map_err(|error| InspectError::Write(error.into()))?;
        out.write_all(b"\n").map_err(InspectError::Write)
    }
}

/// Only requests and responses mean their `rpc_type`; PING, PONG and failures carry 0 there.
// wire: drill@051b164 exec/rpc/.../RpcBus.java; golden/user/idle
fn rpc_name(frame: &WalkedFrame<'_>, plane: Plane) -> Option<&'static str> {
    match frame.header.mode {
        RpcMode::Request | RpcMode::Response => protos::rpc_name(plane, frame.header.rpc_type),
        RpcMode::ResponseFailure | RpcMode::Ping | RpcMode::Pong => None,
    }
}
