//! `drillbit wire`: recorded Drill RPC as JSON.

use std::{
    fs::File,
    io::{self, BufWriter, Read},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};

use super::{Exit, Failure, note};
use crate::inspect::{self, InspectError, Options, Secrets, Summary};

/// What can be done with a recording.
#[derive(Debug, Subcommand)]
pub(super) enum WireCommand {
    /// Show one direction of a recorded connection, one JSON object a line and frame
    Decode(DecodeArguments),
}

const AFTER_HELP: &str = "\
Keys of a line:
  offset, length   where the frame starts in the stream, and its bytes, length prefix included
  mode             REQUEST, RESPONSE, RESPONSE_FAILURE, PING or PONG
  coordination_id  matches a response with its request
  rpc_type         number, and rpc_name its name on this plane (null where the mode has no use for it)
  pbody            the protobuf body as JSON (64-bit integers as strings); if unknown, as hexadecimal
  raw_len          bytes of the raw body
  columns          of a record batch: name, type, mode, value_count, buffer_length; --rows adds values
  pbody_error, columns_error   what is wrong with a body whose frame is right

Bytes that are no frame end the program with exit code 1; what precedes them is shown.

Example (packets of one direction as a raw byte stream, server to client):
  tshark -r drill.pcap -q -z follow,tcp,raw,0 | grep -P '^\\t' | xxd -r -p |
    drillbit wire decode --plane user --rows 3 -";

/// Arguments of `wire decode`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct DecodeArguments {
    /// Which protocol the numbers belong to
    #[arg(long, value_enum)]
    plane: PlaneName,
    /// Show the first N values of each column
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    /// Longest frame that is accepted, in bytes; also bounds the memory
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    frame_limit: usize,
    /// Show passwords too
    #[arg(long)]
    show_secrets: bool,
    /// The byte stream; - is standard input
    file: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PlaneName {
    /// Client and Drillbit
    User,
    /// Drillbit and Drillbit: fragments, status, cancel
    Control,
    /// Drillbit and Drillbit: record batches
    Data,
}

impl From<PlaneName> for protos::Plane {
    fn from(name: PlaneName) -> Self {
        match name {
            PlaneName::User => Self::User,
            PlaneName::Control => Self::Control,
            PlaneName::Data => Self::Data,
        }
    }
}

/// Runs a `wire` command.
pub(super) fn run(command: &WireCommand) -> Result<(), Failure> {
    match command {
        WireCommand::Decode(arguments) => decode(arguments),
    }
}

fn decode(arguments: &DecodeArguments) -> Result<(), Failure> {
    let options = Options {
        plane: arguments.plane.into(),
        frame_bytes_max: arguments.frame_limit,
        rows: arguments.rows,
        secrets: if arguments.show_secrets {
            Secrets::Show
        } else {
            Secrets::Hide
        },
    };
    let source = open(&arguments.file)?;
    match inspect::inspect(source, BufWriter::new(io::stdout().lock()), &options) {
        Ok(summary) => judge(&summary),
        Err(InspectError::Write(error)) => Err(Failure::write(&error)),
        Err(error) => Err(Failure::new(Exit::Failed, error)),
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    let explain = |error| {
        Failure::new(
            Exit::Failed,
            format_args!("cannot read {}: {error}", path.display()),
        )
    };
    Ok(Box::new(File::open(path).map_err(explain)?))
}

fn judge(summary: &Summary) -> Result<(), Failure> {
    note(&format!(
        "{} frames, {} bytes",
        summary.frames, summary.bytes
    ));
    match summary.bad_bodies {
        0 => Ok(()),
        count => Err(Failure::new(
            Exit::Failed,
            format_args!("{count} frames with wrong bodies: see pbody_error and columns_error"),
        )),
    }
}
