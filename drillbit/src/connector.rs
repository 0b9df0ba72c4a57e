//! How to reach the Drillbit that statements run on, as often as needed.

use std::time::Duration;

use client::{Client, ClientError, ClientOptions};
use rpc_bus::{
    Beats, BusRuntime, CloseReason, ConnectError,
    auth::{LoginError, Mechanism, Password},
    frame::{DecodeError, FrameErrorKind},
    ledger::{Ledger, Limits},
    tls::{TlsClient, TlsError},
};

use crate::{
    cli::{Exit, Failure},
    node::{Node, USER_PORT},
    version,
};

/// Who connects, and over what.
#[derive(Debug, Default)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Password>,
    /// The only way to authenticate, if there shall be only one.
    pub(crate) mechanism: Option<Mechanism>,
    pub(crate) schema: Option<String>,
    /// How often to PING one of our own nodes; `None`: only when nothing comes from it.
    pub(crate) beat_interval: Option<Duration>,
    pub(crate) tls: Option<TlsClient>,
}

/// An address and how to say hello there.
pub(crate) struct Connector {
    /// `HOST:PORT`, or several with commas in between.
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

    /// To any Drillbit, or the first of several that answers; ports may be left out.
    pub(crate) fn remote(address: &str, bus: &BusRuntime, login: Login) -> Self {
        Self {
            address: with_ports(address),
            options: options(bus, login),
        }
    }

    /// Connects and says hello.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let client = Client::connect(&self.address, self.options.clone()).await;
        client.map_err(|error| {
            Failure::new(
                Exit::NoConnection,
                format_args!("{}: {error}{}", self.address, way_out(&error)),
            )
        })
    }
}

fn options(bus: &BusRuntime, login: Login) -> ClientOptions {
    let ledger = Ledger::root("client", Limits::default());
    let mut options = ClientOptions::new(bus.clone(), ledger);
    options.connection.capabilities = Some(version::capabilities().into());
    options.user = login.user;
    options.password = login.password;
    options.mechanism = login.mechanism;
    options.schema = login.schema;
    options.tls = login.tls;
    options.beats = beats(login.beat_interval);
    options
}

/// Of client and node: five may be missed.
pub(crate) fn beats(interval: Option<Duration>) -> Option<Beats> {
    interval.map(|interval| Beats {
        interval,
        missed_max: 5,
    })
}

/// What may help, in words of the command line.
fn way_out(error: &ClientError) -> &'static str {
    match error {
        ClientError::Authentication { .. } => {
            "; who are you? -u NAME with --ask-password, --password-file FILE or DRILLBIT_PASSWORD"
        }
        ClientError::Login(LoginError::InClear { .. }) => {
            "; --tls speaks TLS, --mechanism PLAIN shows the password all the same"
        }
        ClientError::Connect(ConnectError::Tls(error)) => match error {
            TlsError::UnknownIssuer => "; --tls-ca FILE names authorities to trust",
            TlsError::NameMismatch { .. } => {
                "; --tls-server-name HOST says whose certificate is expected"
            }
            TlsError::CertificateRequired => "; --tls-cert FILE and --tls-key FILE name one",
            TlsError::NotTls | TlsError::ClosedInHandshake => "; without TLS: leave out --tls",
            _ => "",
        },
        ClientError::Connect(ConnectError::Lost(CloseReason::Decode(DecodeError::Frame(
            error,
        )))) if error.kind == FrameErrorKind::TlsRecord => "; --tls speaks TLS",
        _ => "",
    }
}

fn with_ports(addresses: &str) -> String {
    let all = addresses.split(',').map(str::trim).map(with_port);
    all.collect::<Vec<_>>().join(",")
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
        assert_eq!(with_ports("db1, db2:7,::1"), "db1:31010,db2:7,[::1]:31010");
    }
}
