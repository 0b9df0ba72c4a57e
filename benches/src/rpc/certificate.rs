//! A certificate of this machine's own, for connections with TLS.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rpc_bus::tls::{Roots, TlsClient, TlsClientOptions, TlsServer, TlsServerFiles, TlsVersions};
use tempfile::TempDir;

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// A directory with a new certificate for 127.0.0.1 and its key; gone when dropped.
pub(super) fn make() -> Result<TempDir> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join(CERTIFICATE), made.cert.pem())?;
    fs::write(directory.path().join(KEY), made.signing_key.serialize_pem())?;
    Ok(directory)
}

/// The end that accepts, with the certificate of `directory`.
pub(super) fn server(directory: &Path) -> Result<TlsServer> {
    let files = TlsServerFiles {
        certificates: directory.join(CERTIFICATE),
        key: directory.join(KEY),
        client_authorities: None,
    };
    Ok(TlsServer::from_files(files, TlsVersions::default())?)
}

/// The end that connects and trusts the certificate of `directory` only.
pub(super) fn client(directory: &Path) -> Result<TlsClient> {
    let roots = Roots::PemFile(directory.join(CERTIFICATE));
    Ok(TlsClient::new(TlsClientOptions::new(roots))?)
}
