//! Certificates made on the spot, and files of them.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rpc_bus::tls::{
    IdentityFiles, Roots, TlsClient, TlsClientOptions, TlsServer, TlsServerFiles, TlsVersions,
};
use tempfile::TempDir;

/// An authority, and a directory for what it issues; removed when dropped.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self {
            issuer,
            dir: tempfile::tempdir().unwrap(),
        };
        fs::write(authority.roots(), authority.issuer.pem()).unwrap();
        authority
    }

    /// The authority's own certificate.
    pub(crate) fn roots(&self) -> PathBuf {
        self.file("roots")
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.pem"))
    }

    /// Writes `NAME.pem` and `NAME-key.pem` for the given hosts.
    pub(crate) fn issue(&self, name: &str, hosts: &[&str]) -> IdentityFiles {
        self.issue_with(name, hosts, |_| ())
    }

    pub(crate) fn issue_with(
        &self,
        name: &str,
        hosts: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> IdentityFiles {
        let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = IdentityFiles {
            certificates: self.file(name),
            key: self.file(&format!("{name}-key")),
        };
        fs::write(&files.certificates, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// A server at 127.0.0.1 with a certificate of this authority.
    pub(crate) fn server(&self) -> TlsServer {
        server(&self.issue("server", &["127.0.0.1"]), None)
    }

    pub(crate) fn server_of_version(&self, versions: TlsVersions) -> TlsServer {
        let files = server_files(&self.issue("server", &["127.0.0.1"]), None);
        TlsServer::from_files(files, versions).unwrap()
    }

    /// A client that trusts this authority.
    pub(crate) fn client(&self) -> TlsClient {
        self.client_with(|_| ())
    }

    pub(crate) fn client_with(&self, change: impl FnOnce(&mut TlsClientOptions)) -> TlsClient {
        let mut options = TlsClientOptions::new(Roots::PemFile(self.roots()));
        change(&mut options);
        TlsClient::new(options).unwrap()
    }
}

pub(crate) fn server_files(
    files: &IdentityFiles,
    client_authorities: Option<&Path>,
) -> TlsServerFiles {
    TlsServerFiles {
        certificates: files.certificates.clone(),
        key: files.key.clone(),
        client_authorities: client_authorities.map(Path::to_owned),
    }
}

/// A server with these files, which wants certificates of `clients`.
pub(crate) fn server(files: &IdentityFiles, clients: Option<&Authority>) -> TlsServer {
    let files = server_files(files, clients.map(Authority::roots).as_deref());
    TlsServer::from_files(files, TlsVersions::Both).unwrap()
}
