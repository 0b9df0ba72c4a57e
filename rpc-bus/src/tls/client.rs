//! The side that connects: whom it trusts, which name it expects, and who it is.

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName},
    sign::SingleCertAndKey,
};

use super::{TlsVersions, error::TlsConfigError, pem, provider, verify::ChainVerifier};

/// The authorities that a client trusts; there are none by default.
#[derive(Clone, PartialEq, Eq)]
pub enum Roots {
    /// All certificates of a PEM file.
    PemFile(PathBuf),
    /// Certificates in DER form.
    Certificates(Vec<Vec<u8>>),
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PemFile(path) => f.debug_tuple("PemFile").field(path).finish(),
            Self::Certificates(all) => f.debug_tuple("Certificates").field(&all.len()).finish(),
        }
    }
}

/// Who a client is, to servers that want to know. Both files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The client's certificate, followed by those that it was issued by.
    pub certificates: PathBuf,
    /// Its private key, without a password: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// How a client meets servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsClientOptions {
    /// Whom to trust.
    pub roots: Roots,
    /// What to show to a server that wants a certificate. Default `None`.
    pub identity: Option<IdentityFiles>,
    /// Host name or address that the server's certificate must be for. Default `None`: the host that is connected to.
    pub server_name: Option<String>,
    /// Whether the certificate must be for that name, the default. Otherwise any host with a certificate from the roots
    /// is as good as another.
    pub verify_host_name: bool,
    /// Versions to offer. Default both.
    pub versions: TlsVersions,
}

impl TlsClientOptions {
    /// The defaults, trusting `roots`.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self {
            roots,
            identity: None,
            server_name: None,
            verify_host_name: true,
            versions: TlsVersions::default(),
        }
    }
}

/// TLS of a client. Clones are the same.
#[derive(Clone)]
pub struct TlsClient {
    inner: Arc<Inner>,
    /// `None`: the address that is connected to.
    server_name: Option<ServerName<'static>>,
}

struct Inner {
    options: TlsClientOptions,
    config: Mutex<Arc<ClientConfig>>,
}

impl TlsClient {
    /// Reads the files that `options` name, which takes a moment of the calling thread.
    ///
    /// # Errors
    ///
    /// What cannot be used, and why.
    pub fn new(options: TlsClientOptions) -> Result<Self, TlsConfigError> {
        let server_name = options.server_name.as_deref().map(parse_name).transpose()?;
        let config = Mutex::new(load(&options)?);
        let inner = Arc::new(Inner { options, config });
        Ok(Self { inner, server_name })
    }

    /// Reads the files again, for the connections that are made from now on.
    ///
    /// # Errors
    ///
    /// What cannot be used, and why. Everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsConfigError> {
        let config = load(&self.inner.options)?;
        *self
            .inner
            .config
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The same, towards `host`, a name or an address: its certificate must be for that, unless the options name another.
    ///
    /// # Errors
    ///
    /// `host` is neither a name nor an address.
    pub fn for_host(&self, host: &str) -> Result<Self, TlsConfigError> {
        let server_name = match &self.server_name {
            Some(name) => name.clone(),
            None => parse_name(host)?,
        };
        Ok(Self {
            inner: Arc::clone(&self.inner),
            server_name: Some(server_name),
        })
    }

    /// As it was made.
    #[must_use]
    pub fn options(&self) -> &TlsClientOptions {
        &self.inner.options
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        let config = self.inner.config.lock();
        Arc::clone(&config.unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn server_name(&self, addr: SocketAddr) -> ServerName<'static> {
        let name = self.server_name.clone();
        name.unwrap_or_else(|| ServerName::from(addr.ip()))
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("options", &self.inner.options)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

fn parse_name(name: &str) -> Result<ServerName<'static>, TlsConfigError> {
    let parsed = ServerName::try_from(name.to_owned());
    parsed.map_err(|_| TlsConfigError::ServerName {
        name: name.to_owned(),
    })
}

fn load(options: &TlsClientOptions) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let provider = provider();
    let verifier = verifier(options, &provider)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&options.versions.supported())
        .expect("invariant: ring has ciphers for both versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &options.identity {
        Some(IdentityFiles { certificates, key }) => {
            let identity = pem::certified_key(certificates, key, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn verifier(
    options: &TlsClientOptions,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsConfigError> {
    let roots = Arc::new(roots(&options.roots)?);
    if !options.verify_host_name {
        let algorithms = provider.signature_verification_algorithms;
        return Ok(Arc::new(ChainVerifier { roots, algorithms }));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
    Ok(verifier.expect("invariant: there are roots, and no revocation lists"))
}

fn roots(roots: &Roots) -> Result<RootCertStore, TlsConfigError> {
    let all = match roots {
        Roots::PemFile(path) => return pem::authorities(path),
        Roots::Certificates(all) => all.iter().cloned().map(CertificateDer::from).collect(),
    };
    let bad = |number, reason| TlsConfigError::BadRoot { number, reason };
    let store = pem::trust(all, bad)?;
    if store.is_empty() {
        return Err(TlsConfigError::NoRoots);
    }
    Ok(store)
}
