//! Certificates and keys out of PEM files.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error, PemObject, SectionKind, SliceIter},
    },
    server::ParsedCertificate,
    sign::{CertifiedKey, SigningKey},
};

use super::error::TlsConfigError;

/// Longest file that is read; the certificates of all public authorities have some 200 KiB.
const FILE_BYTES_MAX: usize = 4 << 20;

/// The certificate chain in one file and the key that belongs to it in another, or in the same.
pub(super) fn certified_key(
    certificates: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsConfigError> {
    let chain = read_certificates(certificates)?;
    let signing = signing_key(key, provider)?;
    check_pair((certificates, &chain), (key, &*signing))?;
    Ok(Arc::new(CertifiedKey::new(chain, signing)))
}

/// The authorities in a file.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, TlsConfigError> {
    let bad = |number, reason| TlsConfigError::BadCertificate {
        path: path.to_owned(),
        number,
        reason,
    };
    trust(read_certificates(path)?, bad)
}

/// A store of `certificates`; `bad` says which one cannot be used, counted from 1.
pub(super) fn trust(
    certificates: Vec<CertificateDer<'static>>,
    bad: impl Fn(usize, String) -> TlsConfigError,
) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.into_iter().enumerate() {
        roots
            .add(certificate)
            .map_err(|error| bad(index + 1, error.to_string()))?;
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let sections = Sections::read(path)?;
    let certificates = sections.of(CertificateDer::from_pem);
    if certificates.is_empty() {
        return Err(sections.missing("a certificate (CERTIFICATE)"));
    }
    Ok(certificates)
}

fn signing_key(
    path: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<dyn SigningKey>, TlsConfigError> {
    let sections = Sections::read(path)?;
    let mut keys = sections.of(PrivateKeyDer::from_pem);
    let key = match (keys.pop(), keys.len()) {
        (Some(key), 0) => key,
        (Some(_), further) => {
            let (path, found) = (path.to_owned(), further + 1);
            return Err(TlsConfigError::SeveralKeys { path, found });
        }
        (None, _) if sections.encrypted => return Err(encrypted(path)),
        (None, _) => return Err(sections.missing("a private key (PRIVATE KEY)")),
    };
    let loaded = provider.key_provider.load_private_key(key);
    loaded.map_err(|error| TlsConfigError::BadKey {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Whether the key is that of the first certificate.
fn check_pair(
    (certificates, chain): (&Path, &[CertificateDer<'static>]),
    (key, signing): (&Path, &dyn SigningKey),
) -> Result<(), TlsConfigError> {
    let Some(public) = signing.public_key() else {
        return Ok(());
    };
    let mut owner = None;
    for (index, certificate) in chain.iter().enumerate() {
        let parsed = ParsedCertificate::try_from(certificate);
        let parsed = parsed.map_err(|error| TlsConfigError::BadCertificate {
            path: certificates.to_owned(),
            number: index + 1,
            reason: error.to_string(),
        })?;
        if owner.is_none() && parsed.subject_public_key_info() == public {
            owner = Some(index);
        }
    }
    let (key, certificates) = (key.to_owned(), certificates.to_owned());
    match owner {
        Some(0) => Ok(()),
        Some(index) => Err(TlsConfigError::WrongOrder {
            key,
            certificates,
            number: index + 1,
        }),
        None => Err(TlsConfigError::KeyMismatch { key, certificates }),
    }
}

/// What a PEM file holds.
struct Sections<'a> {
    path: &'a Path,
    found: Vec<(SectionKind, Vec<u8>)>,
    /// Whether there is an encrypted key, which is in a section of its own, or no base64.
    encrypted: bool,
}

impl<'a> Sections<'a> {
    fn read(path: &'a Path) -> Result<Self, TlsConfigError> {
        let bytes = read_file(path)?;
        let found: Result<Vec<_>, _> = SliceIter::new(&bytes).collect();
        let is_encrypted = bytes.windows(9).any(|window| window == b"ENCRYPTED");
        match found {
            Ok(found) => Ok(Self {
                path,
                found,
                encrypted: is_encrypted,
            }),
            Err(_) if is_encrypted => Err(encrypted(path)),
            Err(error) => Err(TlsConfigError::NotPem {
                path: path.to_owned(),
                reason: describe(&error),
            }),
        }
    }

    fn of<T>(&self, from_pem: impl Fn(SectionKind, Vec<u8>) -> Option<T>) -> Vec<T> {
        let sections = self.found.iter();
        sections
            .filter_map(|(kind, der)| from_pem(*kind, der.clone()))
            .collect()
    }

    fn missing(&self, expected: &'static str) -> TlsConfigError {
        let encrypted = self.encrypted.then_some("ENCRYPTED PRIVATE KEY");
        let names = self.found.iter().map(|(kind, _)| name(*kind));
        let names: Vec<_> = names.chain(encrypted).collect();
        TlsConfigError::Missing {
            path: self.path.to_owned(),
            expected,
            found: if names.is_empty() {
                "no PEM section".to_owned()
            } else {
                names.join(", ")
            },
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsConfigError> {
    let unreadable = |source: io::Error| TlsConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let mut file = File::open(path)
        .map_err(unreadable)?
        .take(FILE_BYTES_MAX as u64 + 1);
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(TlsConfigError::TooLong {
            path: path.to_owned(),
            bytes_max: FILE_BYTES_MAX,
        });
    }
    Ok(bytes)
}

fn encrypted(path: &Path) -> TlsConfigError {
    TlsConfigError::EncryptedKey {
        path: path.to_owned(),
    }
}

/// In words, without the bytes of the file: they may be those of a key.
fn describe(error: &Error) -> String {
    match error {
        Error::MissingSectionEnd { .. } => "a section has no end",
        Error::IllegalSectionStart { .. } => "a section has a malformed first line",
        Error::Base64Decode(_) => "a section is not in base64",
        _ => "it cannot be parsed",
    }
    .to_owned()
}

fn name(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Certificate => "CERTIFICATE",
        SectionKind::PublicKey => "PUBLIC KEY",
        SectionKind::RsaPrivateKey => "RSA PRIVATE KEY",
        SectionKind::PrivateKey => "PRIVATE KEY",
        SectionKind::EcPrivateKey => "EC PRIVATE KEY",
        SectionKind::Crl => "X509 CRL",
        SectionKind::Csr => "CERTIFICATE REQUEST",
        _ => "another section",
    }
}
