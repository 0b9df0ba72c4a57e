//! What is known of one node.

use protos::coord::{DrillbitEndpoint, Roles};

use crate::{
    address::{AddressError, NodeAddress},
    endpoint::NodeEndpoint,
};

pub use protos::coord::drillbit_endpoint::State as NodeState;

/// A node of the cluster, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// What it is known by here: where it is reached, which need not be what it calls itself.
    pub address: NodeAddress,
    /// What it says of itself; no more than its address where nothing has been heard of it yet.
    pub endpoint: NodeEndpoint,
    /// `None` counts as any.
    pub state: Option<NodeState>,
    /// Drawn anew at every start of a node; `None` of a Drillbit, and of a node that has not been heard of yet.
    pub incarnation: Option<u64>,
    /// Version of its software.
    pub software_version: Option<String>,
    /// Name and version of the engine behind it.
    pub engine_version: Option<String>,
    /// What it was busy with when it last said so. It comes with every beat, and is no change that watchers are told.
    pub load: Option<Load>,
}

/// What a node is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Queries whose foreman it is.
    pub queries: u32,
    /// Fragments that run on it.
    pub fragments: u32,
    /// Bytes that its queries hold.
    pub memory_bytes: u64,
    /// Bytes that its queries may hold; 0 where there is no limit.
    pub memory_bytes_max: u64,
}

/// Something that a node may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes SQL.
    SqlQuery,
    /// Takes logical plans.
    LogicalPlan,
    /// Takes physical plans.
    PhysicalPlan,
    /// Runs fragments.
    JavaExecutor,
    /// Holds a part of the distributed cache.
    DistributedCache,
}

/// What a node has said of itself over the bus, in a beat.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// Of the process that said it.
    pub incarnation: u64,
    /// Its endpoint, its state included.
    pub endpoint: NodeEndpoint,
    /// Version of its software.
    pub software_version: String,
    /// Name and version of its engine; empty where there is none.
    pub engine_version: String,
    /// What it is busy with.
    pub load: Option<Load>,
}

impl Member {
    /// A node of which no more is known than where it is.
    #[must_use]
    pub fn at(address: NodeAddress) -> Self {
        let message = DrillbitEndpoint {
            address: Some(address.host().to_owned()),
            control_port: Some(address.control_port().into()),
            ..DrillbitEndpoint::default()
        };
        Self {
            address,
            endpoint: message.into(),
            state: None,
            incarnation: None,
            software_version: None,
            engine_version: None,
            load: None,
        }
    }

    /// The node that `endpoint` describes.
    ///
    /// # Errors
    /// It has no address, or no control port that is one.
    pub fn of(endpoint: NodeEndpoint) -> Result<Self, AddressError> {
        let address = NodeAddress::of(endpoint.message())?;
        Ok(Self {
            state: state_of(endpoint.message()),
            software_version: endpoint.message().version.clone(),
            endpoint,
            ..Self::at(address)
        })
    }

    /// Whether it is in `state`, or in one that nobody knows.
    #[must_use]
    pub fn is_in(&self, state: NodeState) -> bool {
        self.state.is_none_or(|known| known == state)
    }

    /// Whether it may be used as `role`; a node that does not say may be used as any.
    // wire: drill@051b164 protocol/.../Coordination.proto: each role is true unless it is denied
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        let roles = self.endpoint.message().roles.unwrap_or_default();
        says(roles, role)
    }

    /// Where its user server listens, if it has said so.
    #[must_use]
    pub fn user_port(&self) -> Option<u16> {
        port(self.endpoint.message().user_port)
    }

    /// Where its data server listens, if it has said so.
    #[must_use]
    pub fn data_port(&self) -> Option<u16> {
        port(self.endpoint.message().data_port)
    }

    /// Where its HTTP server listens, if it has said so.
    #[must_use]
    pub fn http_port(&self) -> Option<u16> {
        port(self.endpoint.message().http_port)
    }

    /// Changes the state, in the endpoint too.
    pub(crate) fn set_state(&mut self, state: NodeState) {
        let mut message = self.endpoint.message().clone();
        message.set_state(state);
        self.endpoint = message.into();
        self.state = Some(state);
    }

    /// Takes over what a node says. `keep_endpoint`: another source of endpoints is the better one.
    pub(crate) fn learn(&mut self, learned: &Learned, keep_endpoint: bool) {
        self.state = state_of(learned.endpoint.message()).or(self.state);
        self.incarnation = Some(learned.incarnation);
        self.software_version = Some(learned.software_version.clone());
        self.engine_version = named(&learned.engine_version).map(str::to_owned);
        self.load = learned.load;
        if !keep_endpoint {
            self.endpoint = learned.endpoint.clone();
        }
    }

    /// Whether [`Self::learn`] would change nothing but the load.
    pub(crate) fn knows(&self, learned: &Learned, keep_endpoint: bool) -> bool {
        let state = state_of(learned.endpoint.message());
        self.incarnation == Some(learned.incarnation)
            && (state.is_none() || self.state == state)
            && self.software_version.as_ref() == Some(&learned.software_version)
            && self.engine_version.as_deref() == named(&learned.engine_version)
            && (keep_endpoint || self.endpoint == learned.endpoint)
    }

    /// What a provider says now of a node that it has named before, with what was learned since.
    pub(crate) fn merged_into(mut self, known: &Self) -> Self {
        if !self.endpoint.is_complete() {
            self.endpoint = known.endpoint.clone();
        }
        self.state = self.state.or(known.state);
        self.incarnation = self.incarnation.or(known.incarnation);
        let software_version = self.software_version.take();
        self.software_version = software_version.or_else(|| known.software_version.clone());
        let engine_version = self.engine_version.take();
        self.engine_version = engine_version.or_else(|| known.engine_version.clone());
        self.load = self.load.or(known.load);
        self
    }

    /// Whether it need not be the process that `before` was. What is known of a process is forgotten only when it leaves:
    /// then it has, and who has joined since has not been heard of yet.
    pub(crate) fn is_restart_of(&self, before: &Self) -> bool {
        before.incarnation.is_some() && self.incarnation != before.incarnation
    }

    /// Whether watchers are told of the difference.
    pub(crate) fn differs_from(&self, other: &Self) -> bool {
        let Self {
            address,
            endpoint,
            state,
            incarnation,
            software_version,
            engine_version,
            load: _,
        } = self;
        address != &other.address
            || endpoint != &other.endpoint
            || state != &other.state
            || incarnation != &other.incarnation
            || software_version != &other.software_version
            || engine_version != &other.engine_version
    }
}

/// The state that an endpoint names; one with a number of a later Drill counts as any, as does none.
fn state_of(endpoint: &DrillbitEndpoint) -> Option<NodeState> {
    NodeState::try_from(endpoint.state?).ok()
}

fn named(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn port(number: Option<i32>) -> Option<u16> {
    u16::try_from(number?).ok().filter(|&port| port != 0)
}

fn says(roles: Roles, role: Role) -> bool {
    match role {
        Role::SqlQuery => roles.sql_query(),
        Role::LogicalPlan => roles.logical_plan(),
        Role::PhysicalPlan => roles.physical_plan(),
        Role::JavaExecutor => roles.java_executor(),
        Role::DistributedCache => roles.distributed_cache(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(message: DrillbitEndpoint) -> Member {
        let named = DrillbitEndpoint {
            address: Some("node1".to_owned()),
            control_port: Some(31011),
            ..message
        };
        Member::of(named.into()).unwrap()
    }

    #[test]
    fn a_missing_or_unknown_state_counts_as_any() {
        let with = |state| {
            of(DrillbitEndpoint {
                state,
                ..DrillbitEndpoint::default()
            })
        };
        for unknown in [None, Some(9)] {
            assert!(with(unknown).is_in(NodeState::Online));
            assert!(with(unknown).is_in(NodeState::Offline));
        }
        let quiescent = with(Some(NodeState::Quiescent.into()));
        assert!(quiescent.is_in(NodeState::Quiescent));
        assert!(!quiescent.is_in(NodeState::Online));
    }

    #[test]
    fn a_role_is_had_unless_it_is_denied() {
        let silent = of(DrillbitEndpoint::default());
        assert!(silent.has(Role::SqlQuery) && silent.has(Role::JavaExecutor));
        let denies = of(DrillbitEndpoint {
            roles: Some(Roles {
                sql_query: Some(false),
                ..Roles::default()
            }),
            ..DrillbitEndpoint::default()
        });
        assert!(!denies.has(Role::SqlQuery) && denies.has(Role::JavaExecutor));
    }

    #[test]
    fn ports_that_are_none_are_not_shown() {
        let odd = of(DrillbitEndpoint {
            user_port: Some(0),
            data_port: Some(70_000),
            http_port: Some(8047),
            ..DrillbitEndpoint::default()
        });
        assert_eq!(
            (odd.user_port(), odd.data_port(), odd.http_port()),
            (None, None, Some(8047))
        );
    }
}
