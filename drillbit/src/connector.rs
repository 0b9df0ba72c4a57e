//! How to reach the Drillbit that statements run on, as often as needed.

use client::{Client, ClientOptions};
use rpc_bus::{
    BusRuntime,
    auth::Password,
    ledger::{Ledger, Limits},
};

use crate::{
    cli::{Exit, Failure},
    node::{Node, USER_PORT},
};

/// Who connects.
#[derive(Debug, Default)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) schema: Option<String>,
}

/// An address and how to say hello there.
pub(crate) struct Connector {
    /// `HOST:PORT`.
    pub(crate) address: String,
    options: ClientOptions,
}

impl Connector {
    /// To a node in this process, on its threads.
    pub(crate) fn embedded(node: &Node) -> Self {
        let address = node.user_addr().to_string();
        Self {
            address,
            options: options(node.bus(), Login::default()),
        }
    }

    /// To any Drillbit; the port may be left out.
    pub(crate) fn remote(address: &str, bus: &BusRuntime, login: Login) -> Self {
        Self {
            address: with_port(address),
            options: options(bus, login),
        }
    }

    /// Connects and says hello.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let client = Client::connect(&self.address, self.options.clone()).await;
        client.map_err(|error| {
            Failure::new(
                Exit::NoConnection,
                format_args!("{}: {error}", self.address),
            )
        })
    }
}

fn options(bus: &BusRuntime, login: Login) -> ClientOptions {
    let ledger = Ledger::root("client", Limits::default());
    let mut options = ClientOptions::new(bus.clone(), ledger);
    options.user = login.user;
    options.password = login.password.map(Password::from);
    options.schema = login.schema;
    options
}

/// `host` and `[::1]` get Drill's port.
fn with_port(address: &str) -> String {
    let has_port = match address.rsplit_once(':') {
        Some((host, _)) => !host.contains(':') || host.ends_with(']'),
        None => false,
    };
    match has_port {
        true => address.to_owned(),
        false if address.contains(':') && !address.starts_with('[') => {
            format!("[{address}]:{USER_PORT}")
        }
        false => format!("{address}:{USER_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_port_is_drills() {
        assert_eq!(with_port("db1"), "db1:31010");
        assert_eq!(with_port("db1:7"), "db1:7");
        assert_eq!(with_port("127.0.0.1"), "127.0.0.1:31010");
        assert_eq!(with_port("::1"), "[::1]:31010");
        assert_eq!(with_port("[::1]"), "[::1]:31010");
        assert_eq!(with_port("[::1]:7"), "[::1]:7");
    }
}
