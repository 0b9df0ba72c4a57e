//! Files of certificates and keys that cannot be used: each error names the file and what was expected of it.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

#[path = "common/certificates.rs"]
mod certificates;

use std::fs;

use certificates::{Authority, server_files};
use rpc_bus::tls::{
    IdentityFiles, Roots, TlsClient, TlsClientOptions, TlsConfigError, TlsServer, TlsVersions,
};

fn error(files: &IdentityFiles) -> TlsConfigError {
    let files = server_files(files, None);
    TlsServer::from_files(files, TlsVersions::Both).unwrap_err()
}

/// A server's files after `change`, and the error they give.
fn error_after(change: impl FnOnce(&Authority, &IdentityFiles)) -> TlsConfigError {
    let authority = Authority::new("ours");
    let files = authority.issue("server", &["127.0.0.1"]);
    change(&authority, &files);
    error(&files)
}

#[track_caller]
fn assert_says(error: &TlsConfigError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

#[test]
fn a_file_that_is_missing() {
    let error = error_after(|_, files| fs::remove_file(&files.key).unwrap());
    assert!(matches!(error, TlsConfigError::Unreadable { .. }));
    assert_says(&error, &["server-key.pem", "cannot read", "No such file"]);
}

#[test]
fn a_file_of_something_else() {
    let error = error_after(|_, files| fs::write(&files.certificates, "hello").unwrap());
    let parts = [
        "server.pem",
        "expected a certificate",
        "found no PEM section",
    ];
    assert_says(&error, &parts);
}

#[test]
fn certificate_and_key_in_the_wrong_place() {
    let authority = Authority::new("ours");
    let files = authority.issue("server", &["127.0.0.1"]);
    let swapped = IdentityFiles {
        certificates: files.key,
        key: files.certificates,
    };
    let parts = [
        "server-key.pem",
        "expected a certificate",
        "found PRIVATE KEY",
    ];
    assert_says(&error(&swapped), &parts);
    let twice = IdentityFiles {
        certificates: swapped.key.clone(),
        ..swapped.clone()
    };
    let parts = ["server.pem", "expected a private key", "found CERTIFICATE"];
    assert_says(
        &error(&IdentityFiles {
            key: swapped.key,
            ..twice
        }),
        &parts,
    );
}

#[test]
fn a_key_of_another_certificate() {
    let error = error_after(|authority, files| {
        let other = authority.issue("other", &["127.0.0.1"]);
        fs::copy(other.key, &files.key).unwrap();
    });
    assert!(matches!(error, TlsConfigError::KeyMismatch { .. }));
    assert_says(&error, &["server-key.pem", "server.pem", "does not belong"]);
}

#[test]
fn certificates_in_the_wrong_order() {
    let error = error_after(|authority, files| {
        let (root, own) = (authority.roots(), &files.certificates);
        let both = fs::read_to_string(root).unwrap() + &fs::read_to_string(own).unwrap();
        fs::write(own, both).unwrap();
    });
    assert!(matches!(
        error,
        TlsConfigError::WrongOrder { number: 2, .. }
    ));
    assert_says(&error, &["server.pem", "certificate 2", "to come first"]);
}

#[test]
fn a_chain_and_its_key_in_one_file_in_the_right_order() {
    let authority = Authority::new("ours");
    let files = authority.issue("server", &["127.0.0.1"]);
    let parts = [&files.key, &files.certificates, &authority.roots()];
    let all: String = parts.map(|part| fs::read_to_string(part).unwrap()).concat();
    fs::write(&files.certificates, all).unwrap();
    let one = IdentityFiles {
        key: files.certificates.clone(),
        ..files
    };
    assert!(TlsServer::from_files(server_files(&one, None), TlsVersions::Both).is_ok());
}

#[test]
fn keys_with_a_password() {
    for section in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n\
         AAAA\n-----END RSA PRIVATE KEY-----\n",
    ] {
        let error = error_after(|_, files| fs::write(&files.key, section).unwrap());
        assert!(
            matches!(error, TlsConfigError::EncryptedKey { .. }),
            "{error:?}"
        );
        assert_says(
            &error,
            &["server-key.pem", "encrypted", "without a password"],
        );
    }
}

#[test]
fn several_keys() {
    let error = error_after(|_, files| {
        let key = fs::read_to_string(&files.key).unwrap();
        fs::write(&files.key, key.repeat(3)).unwrap();
    });
    assert_says(
        &error,
        &["server-key.pem", "expected one private key", "found 3"],
    );
}

#[test]
fn damaged_files_are_named_and_never_shown() {
    let key = error_after(|_, files| {
        let text = fs::read_to_string(&files.key).unwrap();
        fs::write(&files.key, text.replace("-----END", "-----FIN")).unwrap();
    });
    assert!(matches!(key, TlsConfigError::NotPem { .. }));
    assert_says(&key, &["server-key.pem", "a section has no end"]);
    let section = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
    let der = error_after(|_, files| fs::write(&files.key, section).unwrap());
    assert!(matches!(der, TlsConfigError::BadKey { .. }));
    assert_says(&der, &["server-key.pem", "is not usable"]);
    for error in [key, der] {
        assert!(!format!("{error:?}{error}").contains("c2VjcmV0"));
    }
}

#[test]
fn an_authority_that_is_no_certificate() {
    let authority = Authority::new("ours");
    let files = authority.issue("server", &["127.0.0.1"]);
    let root = fs::read_to_string(authority.roots()).unwrap();
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(authority.roots(), root + damaged).unwrap();
    let files = server_files(&files, Some(&authority.roots()));
    let error = TlsServer::from_files(files, TlsVersions::Both).unwrap_err();
    assert_says(&error, &["certificate 2 in", "roots.pem", "is not usable"]);
}

#[test]
fn a_file_without_end() {
    let error = error_after(|_, files| fs::write(&files.key, vec![b' '; 5 << 20]).unwrap());
    assert_says(&error, &["server-key.pem", "more than 4194304 bytes"]);
}

#[test]
fn clients_that_trust_nobody_or_expect_no_host() {
    let error = |options| TlsClient::new(options).unwrap_err();
    let nobody = TlsClientOptions::new(Roots::Certificates(Vec::new()));
    assert!(matches!(error(nobody), TlsConfigError::NoRoots));
    let garbage = TlsClientOptions::new(Roots::Certificates(vec![vec![0; 8]]));
    assert!(matches!(
        error(garbage),
        TlsConfigError::BadRoot { number: 1, .. }
    ));
    let authority = Authority::new("ours");
    let nowhere = TlsClientOptions {
        server_name: Some("no host".to_owned()),
        ..TlsClientOptions::new(Roots::PemFile(authority.roots()))
    };
    assert_says(&error(nowhere), &["\"no host\"", "expected a host name"]);
    assert!(authority.client().for_host("").is_err());
}

#[test]
fn debug_shows_files_and_no_keys() {
    let authority = Authority::new("ours");
    let server = authority.server();
    let key = fs::read_to_string(&server.files().key).unwrap();
    let secret = key.lines().nth(1).unwrap();
    let client = authority.client_with(|options| {
        options.identity = Some(authority.issue("alice", &["alice"]));
    });
    let shown = format!("{server:?} {client:?}");
    assert!(
        shown.contains("server-key.pem") && shown.contains("alice-key.pem"),
        "{shown}"
    );
    assert!(!shown.contains(secret) && !shown.contains("PRIVATE KEY"));
}
