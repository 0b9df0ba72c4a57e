//! What can go wrong with certificates, keys and TLS itself.

use std::{io, path::PathBuf};

use rustls::{
    AlertDescription, CertificateError, Error as Rustls, InvalidMessage, PeerIncompatible,
};
use thiserror::Error;

/// Why a TLS connection could not be made, or ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer's certificate does not lead to one of the authorities that this side trusts.
    #[error("the peer's certificate is not issued by an authority that this side trusts")]
    UnknownIssuer,
    /// The peer's certificate, or one that it was issued by, is too old.
    #[error("the peer's certificate has expired")]
    Expired,
    /// The peer's certificate is not valid yet, by the clock of this side.
    #[error("the peer's certificate is not valid yet")]
    NotValidYet,
    /// The certificate is for another host.
    #[error("the peer's certificate is for {presented:?}, not for {expected}")]
    NameMismatch {
        /// Host name or address that this side wants to talk to.
        expected: String,
        /// The names in the certificate.
        presented: Vec<String>,
    },
    /// The peer's certificate is wrong in another way.
    #[error("the peer's certificate is not accepted: {reason}")]
    BadCertificate {
        /// What is wrong with it.
        reason: String,
    },
    /// This side wants a certificate, and the peer has shown none.
    #[error("the peer has shown no certificate, which this side requires")]
    NoCertificate,
    /// The peer wants a certificate, and this side has none.
    #[error("the peer requires a certificate, and this side has shown none")]
    CertificateRequired,
    /// The peer did not like what it saw.
    #[error("the peer refused the connection with the TLS alert {alert}")]
    Refused {
        /// Name of the alert.
        alert: String,
    },
    /// The first bytes of the peer are no TLS.
    #[error("the peer speaks no TLS")]
    NotTls,
    /// The peer closed the connection before the handshake was through: perhaps it speaks no TLS, perhaps it is going
    /// away.
    #[error("the peer closed the connection in the TLS handshake; it may speak no TLS")]
    ClosedInHandshake,
    /// There is no version, cipher or signature that both sides know.
    #[error("no common ground with the peer: {reason}")]
    Incompatible {
        /// What is missing.
        reason: String,
    },
    /// Records that make no sense, or were changed on their way.
    #[error("broken TLS records: {reason}")]
    Broken {
        /// What is wrong with them.
        reason: String,
    },
}

impl TlsError {
    /// Whether a new connection may do better. Certificates do not become better by themselves.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::ClosedInHandshake | Self::Broken { .. })
    }

    /// The TLS error inside of an I/O error, if there is one.
    pub(crate) fn inside(error: &io::Error) -> Option<&Rustls> {
        error.get_ref()?.downcast_ref()
    }

    /// Of a handshake, whose first bytes show whether the peer speaks TLS at all.
    pub(super) fn in_handshake(error: &Rustls) -> Self {
        match error {
            Rustls::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => Self::NotTls,
            error => error.into(),
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::CertificateRequired => Self::CertificateRequired,
            AlertDescription::ProtocolVersion => Self::Incompatible {
                reason: "the peer speaks other versions of TLS".to_owned(),
            },
            // The peer found our records broken, not us.
            AlertDescription::BadRecordMac
            | AlertDescription::DecryptError
            | AlertDescription::InternalError => Self::Broken {
                reason: format!("the peer sent the alert {alert:?}"),
            },
            alert => Self::Refused {
                alert: format!("{alert:?}"),
            },
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotValidYet
            }
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => Self::NameMismatch {
                expected: expected.to_str().into_owned(),
                presented: presented.clone(),
            },
            error => Self::BadCertificate {
                reason: error.to_string(),
            },
        }
    }
}

impl From<&Rustls> for TlsError {
    fn from(error: &Rustls) -> Self {
        match error {
            Rustls::InvalidCertificate(error) => Self::of_certificate(error),
            Rustls::NoCertificatesPresented => Self::NoCertificate,
            Rustls::AlertReceived(alert) => Self::of_alert(*alert),
            Rustls::PeerIncompatible(missing) => Self::Incompatible {
                reason: incompatible(missing),
            },
            error => Self::Broken {
                reason: error.to_string(),
            },
        }
    }
}

fn incompatible(missing: &PeerIncompatible) -> String {
    match missing {
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            "the peer speaks other versions of TLS".to_owned()
        }
        other => format!("{other:?}"),
    }
}

/// Why certificates and keys cannot be used. Names the file and what was expected of it; never shows what is in it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is longer than any file of certificates.
    #[error("{} has more than {bytes_max} bytes, expected PEM sections", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Most bytes that it may have.
        bytes_max: usize,
    },
    /// The file is not what PEM files look like.
    #[error("{} is no PEM file: {reason}", .path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The section that was looked for is not there.
    #[error("expected {expected} in {}, found {found}", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Name of the section.
        expected: &'static str,
        /// What there is.
        found: String,
    },
    /// The key is protected by a password.
    #[error("the private key in {} is encrypted, expected one without a password", .path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// More than one key, so that it is not clear which one is meant.
    #[error("expected one private key in {}, found {found}", .path.display())]
    SeveralKeys {
        /// The file.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// A certificate cannot be used.
    #[error("certificate {number} in {} is not usable: {reason}", .path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// One of the certificates given in memory cannot be used.
    #[error("root certificate {number} is not usable: {reason}")]
    BadRoot {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No certificate was given to trust.
    #[error("expected at least one root certificate, found none")]
    NoRoots,
    /// The key cannot be used.
    #[error("the private key in {} is not usable: {reason}", .path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key belongs to none of the certificates.
    #[error("the private key in {} does not belong to the certificate in {}", .key.display(), .certificates.display())]
    KeyMismatch {
        /// File of the key.
        key: PathBuf,
        /// File of the certificates.
        certificates: PathBuf,
    },
    /// The key belongs to a certificate that is not the first one.
    #[error(
        "the private key in {} belongs to certificate {number} in {}, expected that one to come first, and its issuers \
         behind it", .key.display(), .certificates.display()
    )]
    WrongOrder {
        /// File of the key.
        key: PathBuf,
        /// File of the certificates.
        certificates: PathBuf,
        /// Which one it belongs to, counted from 1.
        number: usize,
    },
    /// The server's name is neither a host name nor an address.
    #[error("expected a host name or an address, found {name:?}")]
    ServerName {
        /// As it was given.
        name: String,
    },
}
