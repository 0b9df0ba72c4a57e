//! `drillbit status`: the cluster as one of its nodes sees it, once or again and again.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use clap::Args;
use client::{Client, ClientError};

use super::{Exit, Failure, config::ConfigArguments, connect::ConnectArguments, note};
use crate::{
    config::Flags,
    connector::Connector,
    signals::Signals,
    status::{NodeView, StatusView, Style, tables},
};

const AFTER_HELP: &str = "\
Shows the nodes of the cluster as the node that is asked sees them (it is marked with *): state, health,
how long ago it last heard of each, round trips; then its running queries, its peers in the data plane, and
the streams with them that are open, those first whose sender waits for credit (peers count these as STALLED).

Exit codes beside the usual ones: 1 if a node is down that has not left.

Examples:
  drillbit status --connect db1:31010
  drillbit status --watch
  drillbit status --json | jq -r '.nodes[] | select(.health != \"up\") | .address'";

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// One JSON object instead of tables; with --watch one a line
    #[arg(long)]
    json: bool,
    /// Show it again and again, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Time between two looks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
}

/// A time between two looks that neither burns a core nor never comes.
pub(super) fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok();
    seconds
        .filter(|seconds| (0.1..=3600.0).contains(seconds))
        .ok_or_else(|| "expected seconds from 0.1 to 3600".to_owned())
}

/// Shows it.
pub(super) fn run(arguments: &StatusArguments, config: &ConfigArguments) -> Result<(), Failure> {
    let (threads, connector) = arguments.connect.connector(Flags::default(), config)?;
    threads.block_on(arguments.show(&connector))
}

impl StatusArguments {
    async fn show(&self, connector: &Connector) -> Result<(), Failure> {
        let mut signals = Signals::listen().map_err(|error| Failure::new(Exit::Failed, error))?;
        let client = connector.connect().await?;
        loop {
            let status = status(&client, connector).await?;
            self.write(&status)
                .map_err(|error| Failure::write(&error))?;
            if !self.watch {
                client.close().await;
                return verdict(&status);
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs_f64(self.interval)) => {}
                signal = signals.next() => return Err(Failure::silent(signal.exit())),
            }
        }
    }

    fn write(&self, status: &StatusView) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        let style = if stdout.is_terminal() {
            Style::Coloured
        } else {
            Style::Plain
        };
        let text = match (self.json, self.watch) {
            (true, false) => serde_json::to_string_pretty(status)? + "\n",
            (true, true) => serde_json::to_string(status)? + "\n",
            (false, _) => tables(status, style),
        };
        if self.watch && !self.json {
            // From the top of the screen on a terminal; one below the other elsewhere.
            let again = if style == Style::Coloured {
                "\x1b[H\x1b[2J"
            } else {
                "\n"
            };
            stdout.write_all(again.as_bytes())?;
        }
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }
}

/// Asks once.
pub(super) async fn status(client: &Client, connector: &Connector) -> Result<StatusView, Failure> {
    let status = client.status().await;
    status
        .map(Into::into)
        .map_err(|error| explain(&error, connector))
}

/// What a call of our own tools may end with.
pub(super) fn explain(error: &ClientError, connector: &Connector) -> Failure {
    let exit = match error {
        ClientError::Connect(_) | ClientError::Lost(_) => Exit::NoConnection,
        _ => Exit::Failed,
    };
    Failure::new(exit, format_args!("{}: {error}", connector.address))
}

fn verdict(status: &StatusView) -> Result<(), Failure> {
    // One that has left is not missed.
    let is_lost = |node: &&NodeView| node.health == "down" && node.state != Some("OFFLINE");
    let down = status.nodes.iter().filter(is_lost).count();
    if down == 0 {
        return Ok(());
    }
    note(&format!("{down} of {} nodes are down", status.nodes.len()));
    Err(Failure::silent(Exit::Failed))
}
