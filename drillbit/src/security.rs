//! Who may come in, and over what: certificates and users of a node, read again when their files change.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rpc_bus::{
    BusRuntime, OptionsError,
    auth::{AuthOptions, Authenticator, Users, UsersError},
    tls::{
        IdentityFiles, Roots, TlsClient, TlsClientOptions, TlsConfigError, TlsServer,
        TlsServerFiles, TlsVersions,
    },
};

/// How a node is secured. `Default`: not at all.
#[derive(Debug, Clone, Default)]
pub struct SecurityOptions {
    /// Certificate and key of the node; `None` is no TLS.
    pub tls: Option<TlsServerFiles>,
    /// Versions of TLS.
    pub tls_versions: TlsVersions,
    /// TLS towards other nodes, on connections that this one makes; `None` is none.
    pub peers: Option<TlsClientOptions>,
    /// File of the users, as `htpasswd` writes them; `None` lets everybody in.
    pub users: Option<PathBuf>,
    /// Those of them that are nodes: with users, only these may speak on the control and data planes. Spaces around a
    /// name do not count. Default: none are named, and it is the one that this node is at the others
    /// (`ClusterOptions::login`).
    pub node_users: Vec<String>,
    /// How users authenticate.
    pub auth: AuthOptions,
}

/// What a user is told who may run queries, and yet speaks as a node.
const NODES: &str = "a user of a node (cluster.node_users)";

/// Why a node cannot be secured as wanted.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// Certificates or keys cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// The users cannot be read.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The limits of authentication cannot work.
    #[error("authentication: {0}")]
    Options(#[from] OptionsError),
}

impl SecurityOptions {
    /// All that is wrong with the files.
    pub(crate) fn problems(&self) -> Vec<SecurityError> {
        let tls = [self.open_tls().err(), self.open_peers().err()];
        let users = self.open_users().err().map(SecurityError::from);
        let tls = tls.into_iter().flatten().map(Into::into);
        tls.chain(users).collect()
    }

    fn open_tls(&self) -> Result<Option<TlsServer>, TlsConfigError> {
        let files = self.tls.clone();
        let open = |files| TlsServer::from_files(files, self.tls_versions);
        files.map(open).transpose()
    }

    fn open_peers(&self) -> Result<Option<TlsClient>, TlsConfigError> {
        self.peers.clone().map(TlsClient::new).transpose()
    }

    fn open_users(&self) -> Result<Option<Users>, UsersError> {
        self.users.clone().map(Users::from_file).transpose()
    }

    /// The users that are nodes; where none are named, the one that this node `itself` is at the others.
    fn nodes<'a>(&'a self, itself: Option<&'a str>) -> Vec<&'a str> {
        let named = self.node_users.iter().map(|name| name.trim());
        let itself = itself.filter(|_| self.node_users.is_empty());
        named.chain(itself).collect()
    }

    /// What an operator should know of which nodes come in, by the users that there are now; what is wrong with their file
    /// is told elsewhere. `itself`: the user that this node is at the others.
    pub(crate) fn notes(&self, itself: Option<&str>) -> Vec<String> {
        const HOW: &str = "(--node-users NAME,…, or cluster.node_users)";
        let Ok(Some(users)) = self.open_users() else {
            return Vec::new();
        };
        let assumed = self.node_users.is_empty().then(|| match itself {
            None => format!("no user is a node, so that no other node comes in: name them {HOW}"),
            Some(user) => format!(
                "only nodes that are the user {user:?}, as this one is, come in: if there are others, name all of them {HOW}"
            ),
        });
        let unknown = self.nodes(itself).into_iter();
        let unknown = unknown.filter(|user| !users.contains(user));
        let unknown =
            unknown.map(|user| format!("no node comes in as {user:?}: there is no such user"));
        assumed.into_iter().chain(unknown).collect()
    }

    fn tls_files(&self) -> Vec<PathBuf> {
        let Some(files) = self.tls.clone() else {
            return Vec::new();
        };
        let both = [files.certificates, files.key];
        both.into_iter().chain(files.client_authorities).collect()
    }

    fn peer_files(&self) -> Vec<PathBuf> {
        let Some(TlsClientOptions {
            roots, identity, ..
        }) = self.peers.clone()
        else {
            return Vec::new();
        };
        let roots = match roots {
            Roots::PemFile(path) => Some(path),
            Roots::Certificates(_) => None,
        };
        let both = |IdentityFiles { certificates, key }| [certificates, key];
        let identity = identity.into_iter().flat_map(both);
        identity.chain(roots).collect()
    }
}

/// What the servers of a node are given, and what it connects to other nodes with.
pub(crate) struct Security {
    pub(crate) tls: Option<TlsServer>,
    pub(crate) peers: Option<TlsClient>,
    pub(crate) authenticator: Option<Arc<Authenticator>>,
    /// For the planes between nodes.
    pub(crate) nodes: Option<Arc<Authenticator>>,
    tls_files: Watch,
    peer_files: Watch,
    users_file: Watch,
}

impl Security {
    /// Reads all files. `itself`: the user that the node is at the others.
    pub(crate) fn open(
        options: &SecurityOptions,
        itself: Option<&str>,
        bus: &BusRuntime,
    ) -> Result<Self, SecurityError> {
        // Looked at first, so that what changes in between is read again.
        let tls_files = Watch::new(options.tls_files());
        let peer_files = Watch::new(options.peer_files());
        let users_file = Watch::new(options.users.clone().into_iter().collect());
        let authenticator = match options.open_users()? {
            Some(users) => {
                let auth = options.auth.clone();
                Some(Authenticator::new(users.into(), auth, bus.clone())?.into())
            }
            None => None,
        };
        let nodes = authenticator.as_ref().map(|users: &Arc<Authenticator>| {
            let nodes = options.nodes(itself).into_iter().map(str::to_owned);
            Arc::new(users.only(nodes, NODES))
        });
        Ok(Self {
            tls: options.open_tls()?,
            peers: options.open_peers()?,
            authenticator,
            nodes,
            tls_files,
            peer_files,
            users_file,
        })
    }

    /// Whether there are files to be read again.
    pub(crate) fn has_files(&self) -> bool {
        self.tls.is_some() || self.peers.is_some() || self.authenticator.is_some()
    }

    /// Reads all files again.
    pub(crate) fn reload(&self) {
        self.tls_files.has_changed();
        self.peer_files.has_changed();
        self.users_file.has_changed();
        self.reload_tls();
        self.reload_peers();
        self.reload_users();
    }

    /// Reads again what has changed.
    pub(crate) fn reload_changed(&self) {
        if self.tls_files.has_changed() {
            self.reload_tls();
        }
        if self.peer_files.has_changed() {
            self.reload_peers();
        }
        if self.users_file.has_changed() {
            self.reload_users();
        }
    }

    fn reload_tls(&self) {
        if let Some(tls) = &self.tls {
            tell("certificates", tls.reload());
        }
    }

    fn reload_peers(&self) {
        if let Some(peers) = &self.peers {
            tell("certificates for other nodes", peers.reload());
        }
    }

    fn reload_users(&self) {
        if let Some(authenticator) = &self.authenticator {
            tell("users", authenticator.users().reload());
        }
    }
}

fn tell(what: &'static str, outcome: Result<(), impl std::error::Error>) {
    match outcome {
        Ok(()) => tracing::info!(what, "read again"),
        Err(error) => tracing::warn!(what, %error, "cannot be read again, the old ones stay"),
    }
}

/// Files, and how they were when last looked at.
struct Watch {
    files: Vec<PathBuf>,
    seen: Mutex<Vec<Option<Stamp>>>,
}

/// What changes with a file: when it was written, and its length.
type Stamp = (SystemTime, u64);

impl Watch {
    fn new(files: Vec<PathBuf>) -> Self {
        let seen = Mutex::new(stamps(&files));
        Self { files, seen }
    }

    /// Since the last time that this was asked.
    fn has_changed(&self) -> bool {
        let now = stamps(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *seen != now;
        *seen = now;
        changed
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_has_changed_once_after_it_was_written_made_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        let watch = Watch::new(vec![file.clone()]);
        assert!(!watch.has_changed());
        fs::write(&file, "a").unwrap();
        assert!(watch.has_changed() && !watch.has_changed());
        fs::write(&file, "ab").unwrap();
        assert!(watch.has_changed() && !watch.has_changed());
        fs::remove_file(&file).unwrap();
        assert!(watch.has_changed() && !watch.has_changed());
    }

    #[test]
    fn all_files_that_cannot_be_used_are_told() {
        let options = SecurityOptions {
            tls: Some(TlsServerFiles {
                certificates: "/nowhere/cert.pem".into(),
                key: "/nowhere/key.pem".into(),
                client_authorities: None,
            }),
            peers: Some(TlsClientOptions::new(Roots::PemFile(
                "/nowhere/ca.pem".into(),
            ))),
            users: Some("/nowhere/users".into()),
            ..SecurityOptions::default()
        };
        let told: Vec<_> = options.problems().iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        for (told, file) in told.iter().zip(["cert.pem", "ca.pem", "users"]) {
            assert!(told.contains(&format!("/nowhere/{file}")), "{told}");
        }
        assert!(SecurityOptions::default().problems().is_empty());
    }

    #[test]
    fn who_comes_in_as_a_node_is_told_where_nobody_has_said_it() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"n1:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n")
            .unwrap();
        let with = |names: &[&str]| SecurityOptions {
            users: Some(file.path().to_owned()),
            node_users: names.iter().map(|&name| name.to_owned()).collect(),
            ..SecurityOptions::default()
        };
        for (names, itself, expected) in [
            (&[][..], None, &["no user is a node"][..]),
            (&[], Some("n1"), &["only nodes that are the user \"n1\""]),
            (
                &[],
                Some("n2"),
                &[
                    "only nodes that are the user \"n2\"",
                    "as \"n2\": there is no such user",
                ],
            ),
            (&[" n1 "], Some("n2"), &[]),
            (&["n1", "n3"], None, &["as \"n3\": there is no such user"]),
        ] {
            let notes = with(names).notes(itself);
            assert_eq!(notes.len(), expected.len(), "{notes:?}");
            let mut both = notes.iter().zip(expected);
            assert!(both.all(|(note, told)| note.contains(told)), "{notes:?}");
        }
        assert!(SecurityOptions::default().notes(None).is_empty());
    }
}
