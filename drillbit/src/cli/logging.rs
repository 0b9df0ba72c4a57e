//! Logs on standard error.

use std::io::{self, IsTerminal};

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::{Exit, Failure};

/// What `serve` logs by default.
pub(super) const SERVER_FILTER: &str = "info";
/// What the other commands log by default: their own messages say what matters.
pub(super) const TOOL_FILTER: &str = "error";

/// Arguments about logs.
#[derive(Debug, Args)]
pub(super) struct LoggingArguments {
    /// Logs on standard error: error, warn, info, debug or trace, also by module: `info,rpc_bus=debug`
    #[arg(long, global = true, value_name = "FILTER", env = "RUST_LOG")]
    log: Option<String>,
}

impl LoggingArguments {
    /// Starts logging. A second call within one process keeps the first.
    pub(super) fn install(&self, default: &str) -> Result<(), Failure> {
        let text = self
            .log
            .as_deref()
            .filter(|text| !text.is_empty())
            .unwrap_or(default);
        let filter = EnvFilter::try_new(text)
            .map_err(|error| Failure::new(Exit::Usage, format_args!("--log {text}: {error}")))?;
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr);
        // An embedding program may have its own.
        let _ = subscriber.try_init();
        Ok(())
    }
}
