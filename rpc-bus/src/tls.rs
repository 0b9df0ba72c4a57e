//! TLS for connections of any plane: rustls, with ring as its only crypto provider, in front of the frames.
//!
//! A [`TlsServer`] goes into `ServerOptions::tls`, a [`TlsClient`] into `Endpoint::tls`. Both read PEM files and read them
//! again on `reload`: what is connected stays as it is, what connects from then on meets the new files.
//!
//! ```no_run
//! use rpc_bus::{ConnectionOptions, Endpoint, ServerOptions};
//! use rpc_bus::tls::{Roots, TlsClient, TlsClientOptions, TlsServer, TlsServerFiles, TlsVersions};
//!
//! # fn example(addr: std::net::SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
//! let files = TlsServerFiles {
//!     certificates: "server.pem".into(),
//!     key: "server-key.pem".into(),
//!     client_authorities: Some("clients.pem".into()),
//! };
//! let tls = TlsServer::from_files(files, TlsVersions::Both)?;
//! let server = ServerOptions {
//!     tls: Some(tls.clone()),
//!     ..ServerOptions::new(ConnectionOptions::user_server())
//! };
//! // Later, when the files have changed:
//! tls.reload()?;
//!
//! let options = TlsClientOptions::new(Roots::PemFile("authority.pem".into()));
//! let client = TlsClient::new(options)?;
//! let to = Endpoint::new(addr, protos::Plane::User).with_tls(client);
//! # let _ = (server, to);
//! # Ok(())
//! # }
//! ```
//!
//! Sessions are not resumed. Connections live long, so that a full handshake costs little; there are no caches to bound,
//! and nobody comes back with a certificate that is no longer accepted.
// wire: drill@051b164 exec/rpc/.../BasicServer.java: TLS records from the first byte, frames inside

mod client;
mod error;
mod pem;
mod server;
mod stream;
mod verify;

use std::{fmt, sync::Arc};

use rustls::{
    ProtocolVersion, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    version::{TLS12, TLS13},
};

pub use client::{IdentityFiles, Roots, TlsClient, TlsClientOptions};
pub use error::{TlsConfigError, TlsError};
pub use server::{TlsServer, TlsServerFiles};
pub(crate) use stream::{Handshake, TlsStream};

/// Which versions of the protocol are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersions {
    /// Only 1.2.
    Tls12,
    /// Only 1.3.
    Tls13,
    /// Both; 1.3 where the peer can.
    #[default]
    Both,
}

impl TlsVersions {
    fn supported(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Self::Tls12 => vec![&TLS12],
            Self::Tls13 => vec![&TLS13],
            Self::Both => vec![&TLS13, &TLS12],
        }
    }
}

/// The version that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2, RFC 5246.
    Tls12,
    /// 1.3, RFC 8446.
    Tls13,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        })
    }
}

/// What was agreed on for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// The protocol's version.
    pub version: TlsVersion,
    /// Whether the peer has shown a certificate, and it was accepted.
    pub peer_has_certificate: bool,
}

impl TlsInfo {
    fn of(session: &rustls::CommonState) -> Self {
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
            // No other is ever offered or accepted.
            _ => TlsVersion::Tls13,
        };
        Self {
            version,
            peer_has_certificate: session.peer_certificates().is_some(),
        }
    }
}

/// Never the process-wide default: another crate may have installed a different one.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
