//! TLS of the program's clients, as the configuration wants it.

use rpc_bus::tls::{IdentityFiles, Roots, TlsClient, TlsClientOptions, TlsConfigError};

use crate::config::ClientSection;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientTlsError {
    #[error(transparent)]
    Config(#[from] TlsConfigError),
    #[error("this system names no authorities to trust{0}; --tls-ca FILE names some")]
    NoAuthorities(String),
}

/// `None` if the configuration wants no TLS.
pub(super) fn client(section: &ClientSection) -> Result<Option<TlsClient>, ClientTlsError> {
    if !section.tls {
        return Ok(None);
    }
    let roots = match &section.tls_ca {
        Some(file) => Roots::PemFile(file.clone()),
        None => system_roots()?,
    };
    let identity = section
        .tls_certificates
        .clone()
        .zip(section.tls_key.clone());
    let options = TlsClientOptions {
        identity: identity.map(|(certificates, key)| IdentityFiles { certificates, key }),
        server_name: section.tls_server_name.clone(),
        verify_host_name: section.tls_verify_host_name,
        ..TlsClientOptions::new(roots)
    };
    Ok(Some(TlsClient::new(options)?))
}

fn system_roots() -> Result<Roots, ClientTlsError> {
    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        let error = loaded.errors.first();
        let reason = error.map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(ClientTlsError::NoAuthorities(reason));
    }
    let certificates = loaded.certs.into_iter();
    Ok(Roots::Certificates(
        certificates
            .map(|certificate| certificate.to_vec())
            .collect(),
    ))
}
