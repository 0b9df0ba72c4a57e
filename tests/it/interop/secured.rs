//! TLS and passwords: the real JDBC driver and our client against our node, our client against a
//! real Drill.

#[path = "../../../rpc-bus/tests/common/certificates.rs"]
mod certificates;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use certificates::{Authority, server_files};
use client::{ClientError, ClientOptions};
use drillbit::node::{Node, NodeOptions, SecurityOptions};
use futures::TryStreamExt;
use rpc_bus::auth::{Mechanism, Password, ScramKeys};
use rpc_bus::tls::{Roots, TlsClient, TlsClientOptions, TlsVersions};
use tempfile::TempDir;
use tests::interop::{JdbcError, Memory, RealDrillbit, Security, available, jdbc, keytool};

use crate::nodes::Connected;

const USER: &str = "ann";
const PASSWORD: &str = "correct horse";
/// The same for Drill: {SHA} is what it and every `htpasswd` know.
const HTPASSWD: &str = "ann:{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=\n";
/// Of files of keys, which are of no use to anybody.
const STORE_PASSWORD: &str = "changeit";
const SELECT: &str = "select 1 from (values(1))";

/// Our node, in this process, and whom to trust about it.
struct Secured {
    node: Node,
    authority: Authority,
}

impl Secured {
    fn start(mutual: bool) -> Self {
        let authority = Authority::new("ours");
        let files = authority.issue("node", &["127.0.0.1", "localhost"]);
        let authorities = mutual.then(|| authority.roots());
        let users = authority.file("users");
        let keys = ScramKeys::derive(&Password::from(PASSWORD)).unwrap();
        fs::write(&users, format!("{USER}:{keys}\n")).unwrap();
        let options = NodeOptions {
            user_addr: ([127, 0, 0, 1], 0).into(),
            security: SecurityOptions {
                tls: Some(server_files(&files, authorities.as_deref())),
                users: Some(users),
                ..SecurityOptions::default()
            },
            ..NodeOptions::default()
        };
        let node = Node::start(&options).unwrap();
        Self { node, authority }
    }

    fn user(&self) -> SocketAddr {
        self.node.user_addr()
    }
}

/// The node that all tests share which want a password only.
fn node() -> &'static Secured {
    static SHARED: OnceLock<Secured> = OnceLock::new();
    SHARED.get_or_init(|| Secured::start(false))
}

/// The authority's certificate in a file as Java wants it.
fn trust_store(authority: &Authority) -> Option<String> {
    let store = text(&authority.file("trust"));
    let imported = keytool(&[
        "-importcert",
        "-noprompt",
        "-alias",
        "authority",
        "-file",
        &text(&authority.roots()),
        "-keystore",
        &store,
        "-storetype",
        "PKCS12",
        "-storepass",
        STORE_PASSWORD,
    ]);
    available("keytool", imported).map(|()| store)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

// ---- the JDBC driver ----

/// What the driver is told: TLS of a version, trusting `store`, and a password.
fn properties(store: &str, version: &str, password: &str) -> Vec<String> {
    [
        ("user", USER),
        ("password", password),
        ("enableTLS", "true"),
        ("TLSProtocol", version),
        ("trustStoreType", "PKCS12"),
        ("trustStorePath", store),
        ("trustStorePassword", STORE_PASSWORD),
        ("disableHostVerification", "true"),
    ]
    .map(|(key, value)| format!("{key}={value}"))
    .into()
}

/// Connects the driver to our node, and runs a query; how many rows it had.
fn driver(properties: &[String]) -> Result<u64, JdbcError> {
    let properties: Vec<&str> = properties.iter().map(String::as_str).collect();
    let jdbc = jdbc().expect("looked at before");
    let connection = jdbc.connect(node().user(), &properties)?;
    Ok(connection.query(SELECT)?.1.count)
}

#[test]
fn the_driver_comes_in_over_tls_with_a_password_and_not_without() {
    if jdbc().is_none() {
        return;
    }
    let Some(store) = trust_store(&node().authority) else {
        return;
    };
    for version in ["TLSv1.2", "TLSv1.3"] {
        let rows = driver(&properties(&store, version, PASSWORD));
        assert_eq!(rows.unwrap(), 1, "{version}");
    }
    assert!(driver(&properties(&store, "TLSv1.2", "wrong")).is_err());
    let plain = [format!("user={USER}"), format!("password={PASSWORD}")];
    assert!(driver(&plain).is_err(), "without TLS");
    let strangers = trust_store(&Authority::new("a stranger")).unwrap();
    let untrusted = driver(&properties(&strangers, "TLSv1.2", PASSWORD));
    assert!(untrusted.is_err(), "without trust");
    // What was refused has done no harm.
    assert!(driver(&properties(&store, "TLSv1.3", PASSWORD)).is_ok());
}

// ---- our client ----

/// Connects, runs a query, and leaves nothing behind.
async fn client(
    to: SocketAddr,
    change: impl FnOnce(ClientOptions) -> ClientOptions,
) -> Result<usize, ClientError> {
    let connected = Connected::with(to, change).await?;
    let batches = connected.client.query(SELECT).await?;
    let rows = batches
        .try_fold(0, |rows, batch| async move { Ok(rows + batch.num_rows()) })
        .await?;
    connected.close().await;
    Ok(rows)
}

fn with_password(options: ClientOptions, tls: &TlsClient, password: &str) -> ClientOptions {
    ClientOptions {
        user: Some(USER.to_owned()),
        password: Some(password.into()),
        tls: Some(tls.clone()),
        ..options
    }
}

/// Trusting the authority.
fn tls(authority: &Authority, versions: TlsVersions) -> TlsClient {
    authority.client_with(|options| options.versions = versions)
}

#[tokio::test]
async fn our_client_proves_who_it_is_without_showing_its_password() {
    let node = tokio::task::spawn_blocking(node).await.unwrap();
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        let tls = tls(&node.authority, versions);
        let rows = client(node.user(), |options| ClientOptions {
            mechanism: Some(Mechanism::ScramSha256),
            ..with_password(options, &tls, PASSWORD)
        });
        assert_eq!(rows.await.unwrap(), 1);
    }
    let tls = tls(&node.authority, TlsVersions::Both);
    let wrong = client(node.user(), |options| with_password(options, &tls, "wrong"));
    assert!(wrong.await.is_err(), "a wrong password");
    let plain = client(node.user(), |options| ClientOptions {
        tls: None,
        ..with_password(options, &tls, PASSWORD)
    });
    assert!(plain.await.is_err(), "without TLS");
    let strangers = Authority::new("a stranger").client();
    let untrusted = client(node.user(), |options| {
        with_password(options, &strangers, PASSWORD)
    });
    assert!(untrusted.await.is_err(), "without trust");
}

#[tokio::test]
async fn a_node_that_wants_certificates_lets_only_those_in_that_show_one() {
    let node = tokio::task::spawn_blocking(|| Secured::start(true));
    let node = node.await.unwrap();
    let identity = node.authority.issue("client", &["localhost"]);
    let known = node
        .authority
        .client_with(|options| options.identity = Some(identity));
    let rows = client(node.user(), |options| {
        with_password(options, &known, PASSWORD)
    });
    assert_eq!(rows.await.unwrap(), 1);
    let unknown = node.authority.client();
    let refused = client(node.user(), |options| {
        with_password(options, &unknown, PASSWORD)
    });
    assert!(refused.await.is_err(), "without a certificate");
    tokio::task::spawn_blocking(move || drop(node))
        .await
        .unwrap();
}

// ---- our client and a real Drill ----

/// A real Drill with TLS and a file of users.
struct SecuredDrill {
    drill: RealDrillbit,
    certificate: PathBuf,
    _files: TempDir,
}

impl SecuredDrill {
    fn start() -> anyhow::Result<Self> {
        let files = TempDir::with_prefix("secured-drill-")?;
        let file = |name: &str| files.path().join(name);
        let security = Security {
            key_store: file("keys.p12"),
            key_store_password: STORE_PASSWORD.to_owned(),
            users: file("users"),
        };
        let certificate = file("certificate.pem");
        fs::write(&security.users, HTPASSWD)?;
        make_keys(&security.key_store, &certificate)?;
        let memory = Memory {
            heap_mib: 512,
            direct_mib: 512,
        };
        Ok(Self {
            drill: RealDrillbit::start_secured(&memory, &security)?,
            certificate,
            _files: files,
        })
    }

    fn trusted(&self) -> TlsClient {
        let roots = Roots::PemFile(self.certificate.clone());
        TlsClient::new(TlsClientOptions::new(roots)).unwrap()
    }
}

/// A key and its own certificate for 127.0.0.1, in `store`; the certificate also in PEM.
fn make_keys(store: &Path, certificate: &Path) -> anyhow::Result<()> {
    let store = text(store);
    let of_store = ["-alias", "drill", "-keystore", &store, "-storepass"];
    let of_store = [&of_store[..], &[STORE_PASSWORD, "-storetype", "PKCS12"]].concat();
    let name = ["-dname", "CN=drill", "-ext", "san=ip:127.0.0.1"];
    let key = ["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1"];
    keytool(&[&key[..], &name, &["-validity", "30"], &of_store].concat())?;
    let file = text(certificate);
    keytool(&[&["-exportcert", "-rfc", "-file", &file], &of_store[..]].concat())
}

#[tokio::test]
async fn our_client_comes_into_a_real_drill_over_tls_with_a_password_and_not_without() {
    let started = tokio::task::spawn_blocking(SecuredDrill::start).await;
    let Some(secured) = available("a Drill with TLS", started.unwrap()) else {
        return;
    };
    let (to, tls) = (secured.drill.user(), secured.trusted());
    let rows = client(to, |options| with_password(options, &tls, PASSWORD));
    assert_eq!(rows.await.unwrap(), 1);
    let wrong = client(to, |options| with_password(options, &tls, "wrong"));
    assert!(wrong.await.is_err(), "a wrong password");
    let nobody = client(to, |options| ClientOptions {
        tls: Some(tls.clone()),
        ..options
    });
    assert!(nobody.await.is_err(), "without a password");
    let plain = client(to, |options| ClientOptions {
        tls: None,
        ..with_password(options, &tls, PASSWORD)
    });
    assert!(plain.await.is_err(), "without TLS");
    let strangers = Authority::new("a stranger").client();
    let untrusted = client(to, |options| with_password(options, &strangers, PASSWORD));
    assert!(untrusted.await.is_err(), "without trust");
}
