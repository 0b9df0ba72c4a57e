//! `drillbit drain`: a node takes no new work, ends what runs, and leaves.

use std::time::Duration;

use clap::Args;

use super::{Exit, Failure, config::ConfigArguments, connect::ConnectArguments, note, status};
use crate::{config::Flags, connector::Connector, signals::Signals};

const AFTER_HELP: &str = "\
The node refuses new queries with the advice to try another node, lets running ones end (at most for its
--grace), and exits. Waits until it has left, unless --no-wait.";

/// Arguments of `drain`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct DrainArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// Return when the node has begun to drain
    #[arg(long)]
    no_wait: bool,
    /// Longest wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u32,
}

/// Drains the node.
pub(super) fn run(arguments: &DrainArguments, config: &ConfigArguments) -> Result<(), Failure> {
    let (threads, connector) = arguments.connect.connector(Flags::default(), config)?;
    threads.block_on(arguments.drain(&connector))
}

impl DrainArguments {
    async fn drain(&self, connector: &Connector) -> Result<(), Failure> {
        let mut signals = Signals::listen().map_err(|error| Failure::new(Exit::Failed, error))?;
        let client = connector.connect().await?;
        let asked = client.drain().await;
        asked.map_err(|error| status::explain(&error, connector))?;
        let address = &connector.address;
        if self.no_wait {
            note(&format!("{address} is draining"));
            return Ok(());
        }
        let patience = Duration::from_secs(self.timeout.into());
        tokio::select! {
            _ = client.closed() => {
                note(&format!("{address} has left"));
                Ok(())
            }
            () = tokio::time::sleep(patience) => {
                let message = format!("{address} is still draining after {} s", self.timeout);
                Err(Failure::new(Exit::Failed, message))
            }
            signal = signals.next() => Err(Failure::silent(signal.exit())),
        }
    }
}
