//! `drillbit serve`: a node until a signal ends it.

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    process, thread,
    time::Duration,
};

use clap::Args;
use tokio::runtime::Handle;

use super::{Exit, Failure};
use crate::{
    engine::EngineOptions,
    node::{Node, NodeError, NodeOptions, USER_PORT},
    signals::Signals,
};

const AFTER_HELP: &str = "\
Prints one line on standard output when it accepts connections: ready user=HOST:PORT
The first SIGTERM or Ctrl-C stops accepting and lets running queries end, a second one does not.";

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ServeArguments {
    /// Address to listen on; there is no authentication yet, so think before leaving the loopback
    /// interface
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Port for clients; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = USER_PORT)]
    user_port: u16,
    /// Most memory for connections and queries, half of it for each, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    #[arg(value_parser = clap::value_parser!(u32).range(64..))]
    memory: u32,
    /// How long running queries may go on after the first signal, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    grace: u32,
}

/// Runs the node.
pub(super) fn run(arguments: &ServeArguments) -> Result<(), Failure> {
    let options = arguments.options();
    let node = Node::start(&options).map_err(explain)?;
    // Before anybody is told that we are ready, so that a quick SIGTERM ends us well, too.
    let app = node.bus().app().clone();
    let mut signals = listen(&app)?;
    if !arguments.bind.is_loopback() {
        tracing::warn!(bind = %arguments.bind, "anyone who reaches this address can run queries");
    }
    announce(&node);
    let signal = app.block_on(signals.next());
    tracing::info!(
        ?signal,
        grace_s = arguments.grace,
        "ending; a second signal ends at once"
    );
    let grace = Duration::from_secs(arguments.grace.into());
    end_at_next(signals, app)?;
    node.shutdown(grace);
    tracing::info!("ended");
    Ok(())
}

fn listen(app: &Handle) -> Result<Signals, Failure> {
    let _entered = app.enter();
    Signals::listen().map_err(|error| {
        Failure::new(
            Exit::Failed,
            format_args!("cannot listen for signals: {error}"),
        )
    })
}

/// Ends the process by the next signal, from a thread of its own: the app threads may be what
/// hangs.
fn end_at_next(mut signals: Signals, app: Handle) -> Result<(), Failure> {
    let wait = move || {
        let signal = app.block_on(signals.next());
        process::exit(i32::from(signal.exit() as u8));
    };
    let thread = thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait);
    thread
        .map(drop)
        .map_err(|error| Failure::new(Exit::Failed, error))
}

impl ServeArguments {
    fn options(&self) -> NodeOptions {
        let half = usize::try_from(u64::from(self.memory) << 19).unwrap_or(usize::MAX);
        NodeOptions {
            user_addr: SocketAddr::new(self.bind, self.user_port),
            connection_bytes_max: half,
            engine: EngineOptions {
                memory_bytes_max: half,
                ..EngineOptions::default()
            },
            ..NodeOptions::default()
        }
    }
}

fn announce(node: &Node) {
    let line = format!("ready user={}\n", node.user_addr());
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush())
    {
        tracing::warn!(%error, "cannot print the ready line");
    }
    tracing::info!(user = %node.user_addr(), "accepting connections");
}

fn explain(error: NodeError) -> Failure {
    match &error {
        NodeError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
            Failure::new(
                Exit::NoConnection,
                format_args!(
                    "{error}; is another Drillbit running? --user-port 0 takes a free port"
                ),
            )
        }
        NodeError::Listen { .. } => Failure::new(Exit::NoConnection, error),
        NodeError::Threads(_) | NodeError::Engine(_) => Failure::new(Exit::Failed, error),
    }
}
