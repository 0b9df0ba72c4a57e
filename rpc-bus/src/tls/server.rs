//! The side that accepts: its certificate, and whose certificates it accepts.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};

use super::{TlsVersions, error::TlsConfigError, pem, provider};

/// Where a server finds what it needs. All files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsServerFiles {
    /// The server's certificate, followed by those that it was issued by.
    pub certificates: PathBuf,
    /// Its private key, without a password: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// If given, every client must show a certificate that leads to one of these.
    pub client_authorities: Option<PathBuf>,
}

/// TLS of a server. Clones are the same.
#[derive(Clone)]
pub struct TlsServer(Arc<Inner>);

struct Inner {
    files: TlsServerFiles,
    versions: TlsVersions,
    config: Mutex<Arc<ServerConfig>>,
}

impl TlsServer {
    /// Reads the files, which takes a moment of the calling thread.
    ///
    /// # Errors
    ///
    /// Which file cannot be used, and why.
    pub fn from_files(
        files: TlsServerFiles,
        versions: TlsVersions,
    ) -> Result<Self, TlsConfigError> {
        let config = Mutex::new(load(&files, versions)?);
        Ok(Self(Arc::new(Inner {
            files,
            versions,
            config,
        })))
    }

    /// Reads the files again, for the connections that come from now on.
    ///
    /// # Errors
    ///
    /// Which file cannot be used, and why. Everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsConfigError> {
        let config = load(&self.0.files, self.0.versions)?;
        *self.0.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Whether clients must show a certificate.
    #[must_use]
    pub fn requires_client_certificate(&self) -> bool {
        self.0.files.client_authorities.is_some()
    }

    /// Where it was read from.
    #[must_use]
    pub fn files(&self) -> &TlsServerFiles {
        &self.0.files
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.config.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer")
            .field("files", &self.0.files)
            .field("versions", &self.0.versions)
            .finish_non_exhaustive()
    }
}

fn load(
    files: &TlsServerFiles,
    versions: TlsVersions,
) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let provider = provider();
    let identity = pem::certified_key(&files.certificates, &files.key, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions.supported())
        .expect("invariant: ring has ciphers for both versions");
    let builder = match client_verifier(files, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client_verifier(
    files: &TlsServerFiles,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsConfigError> {
    let Some(path) = &files.client_authorities else {
        return Ok(None);
    };
    let roots = Arc::new(pem::authorities(path)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
    let verifier = verifier.expect("invariant: there are authorities, and no revocation lists");
    Ok(Some(verifier))
}
