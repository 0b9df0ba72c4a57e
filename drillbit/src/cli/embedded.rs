//! `drillbit` without a command: a node of our own for as long as the script or the shell takes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{Exit, Failure, config::ConfigArguments, script::ScriptArguments};
use crate::{
    config::Flags,
    connector::Connector,
    node::{Node, NodeOptions, SecurityOptions},
};

/// Starts the node, runs the script on it, ends the node. Nobody else is meant to find it.
pub(super) fn run(script: &ScriptArguments, config: &ConfigArguments) -> Result<(), Failure> {
    let options = NodeOptions {
        user_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        http: None,
        security: SecurityOptions::default(),
        ..config.load(Flags::default())?.config.node_options()
    };
    let node = Node::start(&options).map_err(|error| Failure::new(Exit::NoConnection, error))?;
    let connector = Connector::embedded(&node);
    let outcome = script.run(node.bus(), connector);
    // Whoever could wait for a query is gone.
    node.shutdown(Duration::ZERO);
    outcome
}
