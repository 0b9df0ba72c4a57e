//! `drillbit sql`: statements on a Drillbit, ours or a real one.

use clap::Args;

use super::{Failure, config::ConfigArguments, connect::ConnectArguments, script::ScriptArguments};
use crate::config::Flags;

const AFTER_HELP: &str = "\
Without -c and -f: a shell if standard input is a terminal, else the statements of standard input.
Statements end with ; and the last one needs none. A script stops at the first statement that fails,
unless --keep-going. Row counts and times go to standard error. If the columns change in the middle
of a result, table begins a new table, json and ndjson go on, csv goes on if the names are the same,
and arrow stops with an error.
The password comes from --password-file, --ask-password or the environment variable DRILLBIT_PASSWORD.

Examples:
  drillbit sql --connect db1:31010 -u ann --ask-password
  drillbit sql --connect db1:31010 --tls-ca authority.pem -u ann --password-file secret -c 'select 1'
  drillbit sql -c 'select * from dfs.`/data/t.parquet`' --format arrow -o t.arrows
  drillbit sql -f nightly.sql --format csv -o nightly.csv";

/// Arguments of `sql`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct SqlArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// Schema in which tables are looked up, such as dfs.tmp
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
    #[command(flatten)]
    script: ScriptArguments,
}

/// Runs the statements.
pub(super) fn run(arguments: &SqlArguments, config: &ConfigArguments) -> Result<(), Failure> {
    let schema = arguments.schema.clone();
    let flags = Flags::default().with("--schema", ("client", "schema"), schema);
    let (threads, connector) = arguments.connect.connector(flags, config)?;
    arguments.script.run(threads.bus(), connector)
}
