//! `drillbit` without a command: a node of our own for as long as the script or the shell takes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{Exit, Failure, script::ScriptArguments};
use crate::{
    connector::Connector,
    node::{Node, NodeOptions},
};

/// Starts the node, runs the script on it, ends the node.
pub(super) fn run(script: &ScriptArguments) -> Result<(), Failure> {
    let options = NodeOptions {
        user_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        ..NodeOptions::default()
    };
    let node = Node::start(&options).map_err(|error| Failure::new(Exit::NoConnection, error))?;
    let connector = Connector::embedded(&node);
    let outcome = script.run(node.bus(), connector);
    // Whoever could wait for a query is gone.
    node.shutdown(Duration::ZERO);
    outcome
}
