//! Where a cluster is: hosts, root and cluster id in one string, as Drill's clients write it.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Port of a host that names none.
const PORT: u16 = 2181;
/// Root of Drill's clusters.
// wire: drill@051b164 exec/java-exec/.../drill-module.conf: drill.exec.zk.root
const ROOT: &str = "drill";
/// Not Drill's `drillbits1`: a real cluster would hand our node fragments that it cannot run.
const CLUSTER_ID: &str = "columnar-bus1";
/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 512;

/// A cluster in ZooKeeper: `HOST:PORT,HOST:PORT/ROOT/CLUSTER_ID`. The last part is the cluster id, and the root may have
/// several; both may be left out: `/drill/columnar-bus1`. A host without a port has 2181.
// wire: drill@051b164 exec/java-exec/.../coord/zk/ZKClusterCoordinator.java
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ZooKeeperPath {
    hosts: Vec<(String, u16)>,
    root: String,
    cluster_id: String,
}

/// What is no cluster in ZooKeeper.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "expected HOST:PORT[,HOST:PORT...][/ROOT/CLUSTER_ID] of a ZooKeeper, found {text:?}: {problem}"
)]
pub struct ZooKeeperPathError {
    text: String,
    problem: &'static str,
}

impl ZooKeeperPath {
    /// The servers.
    #[must_use]
    pub fn hosts(&self) -> &[(String, u16)] {
        &self.hosts
    }

    /// Below which clusters are, without slashes at its ends.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Which of them.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The node below which members are.
    pub(super) fn cluster(&self) -> String {
        format!("/{}/{}", self.root, self.cluster_id)
    }

    /// That node and all above it, the highest first.
    pub(super) fn ancestors(&self) -> Vec<String> {
        let cluster = self.cluster();
        let ends = cluster.match_indices('/').map(|(at, _)| at).skip(1);
        let above = ends.map(|end| cluster[..end].to_owned());
        above.chain([cluster.clone()]).collect()
    }
}

impl FromStr for ZooKeeperPath {
    type Err = ZooKeeperPathError;

    fn from_str(text: &str) -> Result<Self, ZooKeeperPathError> {
        let error = |problem| ZooKeeperPathError {
            text: text.to_owned(),
            problem,
        };
        let (hosts, path) = match text.split_once('/') {
            Some((hosts, path)) => (hosts, Some(path)),
            None => (text, None),
        };
        let hosts = hosts.split(',').map(host).collect::<Result<_, _>>();
        let hosts = hosts.map_err(error)?;
        let (root, cluster_id) = match path {
            None => (ROOT, CLUSTER_ID),
            Some(path) => path
                .rsplit_once('/')
                .ok_or_else(|| error("no cluster id"))?,
        };
        if path.is_some_and(|path| path.len() > PATH_BYTES_MAX) {
            return Err(error("a path of more than 512 bytes"));
        }
        let is_name =
            |name: &str| !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control);
        if !root.split('/').chain([cluster_id]).all(is_name) {
            return Err(error("a part of the path that is no name"));
        }
        Ok(Self {
            hosts,
            root: root.to_owned(),
            cluster_id: cluster_id.to_owned(),
        })
    }
}

fn host(text: &str) -> Result<(String, u16), &'static str> {
    let bare = text.strip_prefix('[');
    let (host, port) = match bare.and_then(|text| text.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or("no port")?)),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Ok(PORT), str::parse);
    match port {
        _ if host.is_empty() => Err("a host without a name"),
        Ok(port) if port != 0 => Ok((host.to_owned(), port)),
        _ => Err("a port that is none from 1 to 65535"),
    }
}

impl fmt::Display for ZooKeeperPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            if host.contains(':') {
                write!(f, "{comma}[{host}]:{port}")?;
            } else {
                write!(f, "{comma}{host}:{port}")?;
            }
        }
        write!(f, "/{}/{}", self.root, self.cluster_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_is_the_cluster_id_and_both_have_defaults() {
        let read = |text: &str| text.parse::<ZooKeeperPath>().unwrap().to_string();
        for (text, whole) in [
            ("zk1:2181/drill/drillbits1", "zk1:2181/drill/drillbits1"),
            ("zk1,zk2:2182/a/b/c", "zk1:2181,zk2:2182/a/b/c"),
            ("127.0.0.1:4000", "127.0.0.1:4000/drill/columnar-bus1"),
            ("[::1]:9,[::2]/x/y", "[::1]:9,[::2]:2181/x/y"),
        ] {
            assert_eq!(read(text), whole);
            assert_eq!(read(whole), whole);
        }
        let path: ZooKeeperPath = "zk/a/b/c".parse().unwrap();
        assert_eq!((path.root(), path.cluster_id()), ("a/b", "c"));
        assert_eq!(path.ancestors(), ["/a", "/a/b", "/a/b/c"]);
    }

    #[test]
    fn what_is_no_cluster_is_refused_by_what_is_wrong() {
        for (text, problem) in [
            ("", "a host without a name"),
            ("zk1,,zk2", "a host without a name"),
            (":2181/drill/x", "a host without a name"),
            ("zk:0", "a port that is none from 1 to 65535"),
            ("zk:x/drill/y", "a port that is none from 1 to 65535"),
            ("::1/drill/y", "a host without a name"),
            ("[::1]2181", "no port"),
            ("zk/cluster", "no cluster id"),
            ("zk/drill/", "a part of the path that is no name"),
            ("zk//drill/x", "a part of the path that is no name"),
            ("zk/../x", "a part of the path that is no name"),
        ] {
            let error = text.parse::<ZooKeeperPath>().unwrap_err();
            assert_eq!((&*error.text, error.problem), (text, problem));
        }
    }
}
