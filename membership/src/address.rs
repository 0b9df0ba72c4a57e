//! How a node is told from all others: its address and control port.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use protos::coord::DrillbitEndpoint;
use thiserror::Error;

/// Address and control port of a node: what it is known by, whatever else its endpoint says.
///
/// Drill keys its connections by whole endpoints, so that one node is several (before and after its registration).
// wire: drill@051b164 exec/java-exec/.../rpc/control/ConnectionManagerRegistry.java
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAddress {
    /// Shared: addresses are cloned wherever something is known of a node.
    host: Arc<str>,
    control_port: u16,
}

/// What is not an address of a node.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Nothing where the host should be.
    #[error("no host in {0:?}; expected HOST:CONTROL_PORT")]
    NoHost(String),
    /// Neither a number from 1 to 65535 nor anything at all where the port should be.
    #[error("no port from 1 to 65535 in {0:?}; expected HOST:CONTROL_PORT")]
    NoPort(String),
}

impl NodeAddress {
    /// A node at `host`, a name or an IP address without brackets.
    ///
    /// # Errors
    /// The host is empty, or the port is 0.
    pub fn new(host: impl Into<Arc<str>>, control_port: u16) -> Result<Self, AddressError> {
        let address = Self {
            host: host.into(),
            control_port,
        };
        match &address {
            Self { host, .. } if host.is_empty() => Err(AddressError::NoHost(address.to_string())),
            Self {
                control_port: 0, ..
            } => Err(AddressError::NoPort(address.to_string())),
            _ => Ok(address),
        }
    }

    /// The address that an endpoint names.
    ///
    /// # Errors
    /// It has no address, or no control port that is one.
    pub fn of(endpoint: &DrillbitEndpoint) -> Result<Self, AddressError> {
        let port = u16::try_from(endpoint.control_port()).unwrap_or_default();
        Self::new(endpoint.address(), port)
    }

    /// A name or an IP address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where its control server listens.
    #[must_use]
    pub fn control_port(&self) -> u16 {
        self.control_port
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.control_port),
            _ => write!(f, "{}:{}", self.host, self.control_port),
        }
    }
}

impl FromStr for NodeAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let no_port = || AddressError::NoPort(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(no_port)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match (bare, host) {
            (Some(ip), _) => Self::new(ip, port.parse().map_err(|_| no_port())?),
            // Without brackets one cannot tell where an IPv6 address ends.
            (None, host) if host.contains(':') => Err(no_port()),
            (None, host) => Self::new(host, port.parse().map_err(|_| no_port())?),
        }
        .map_err(|error| match error {
            AddressError::NoHost(_) => AddressError::NoHost(text.to_owned()),
            AddressError::NoPort(_) => no_port(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in [
            "node1:31011",
            "127.0.0.1:1",
            "[::1]:65535",
            "node.example:31011",
        ] {
            let address: NodeAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        let v6: NodeAddress = "[::1]:31011".parse().unwrap();
        assert_eq!((v6.host(), v6.control_port()), ("::1", 31011));
    }

    #[test]
    fn what_is_not_an_address_is_refused_by_what_it_lacks() {
        let no_port = [
            "node1",
            "node1:",
            "node1:0",
            "node1:65536",
            "node1:x",
            "::1:31011",
            "",
        ];
        for text in no_port {
            let error = text.parse::<NodeAddress>().unwrap_err();
            assert_eq!(error, AddressError::NoPort(text.to_owned()));
        }
        let error = ":31011".parse::<NodeAddress>().unwrap_err();
        assert_eq!(error, AddressError::NoHost(":31011".to_owned()));
    }

    #[test]
    fn an_endpoint_is_known_by_its_address_and_control_port_only() {
        let endpoint = DrillbitEndpoint {
            address: Some("node1".to_owned()),
            control_port: Some(31011),
            user_port: Some(31010),
            ..DrillbitEndpoint::default()
        };
        assert_eq!(
            NodeAddress::of(&endpoint).unwrap().to_string(),
            "node1:31011"
        );
        assert!(NodeAddress::of(&DrillbitEndpoint::default()).is_err());
    }
}
