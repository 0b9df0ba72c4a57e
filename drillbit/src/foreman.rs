//! What other nodes may ask of the queries whose foreman this node is.

use std::time::UNIX_EPOCH;

use bit_control::{QueryService, ReplyTo, unknown_query};
use membership::{Load, NodeAddress};
use protos::{
    calls::control::{QueryCancel, QueryStatus},
    id::QueryId,
    shared::{QueryProfile, QueryType},
};
use user_server::{Queries, QuerySnapshot};

use crate::engine::DrillEngine;

/// The queries that run on this node.
#[derive(Clone, Debug)]
pub(crate) struct RunningQueries(pub(crate) Queries);

impl RunningQueries {
    /// What this node is busy with.
    pub(crate) fn load(&self, engine: &DrillEngine) -> Load {
        Load {
            queries: u32::try_from(self.0.counts().running).unwrap_or(u32::MAX),
            // None is run here for other nodes.
            fragments: 0,
            memory_bytes: engine.memory_bytes() as u64,
            memory_bytes_max: engine.memory_bytes_max() as u64,
        }
    }
}

impl QueryService for RunningQueries {
    fn status(&self, _: &NodeAddress, query: QueryId, reply: ReplyTo<QueryStatus>) {
        let running = self.0.snapshot();
        match running.into_iter().find(|running| running.id == query) {
            Some(running) => reply.send(profile(running)),
            None => reply.fail(unknown_query(query)),
        }
    }

    fn cancel(&self, _: &NodeAddress, query: QueryId, reply: ReplyTo<QueryCancel>) {
        reply.acknowledge(self.0.cancel(query));
    }
}

/// As far as a query has one that runs as a whole on this node.
fn profile(running: QuerySnapshot) -> QueryProfile {
    let started = running
        .started
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    QueryProfile {
        id: Some(running.id.into()),
        query_id: Some(running.id.to_string()),
        r#type: Some(QueryType::Sql.into()),
        start: i64::try_from(started.as_millis()).ok(),
        query: Some(running.sql),
        state: Some(running.state.into()),
        user: Some(running.user.to_string()),
        ..QueryProfile::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protos::shared::query_result::QueryState;

    use super::*;
    use crate::engine::EngineOptions;

    #[test]
    fn a_profile_says_what_runs_since_when() {
        let profile = profile(QuerySnapshot {
            id: QueryId { part1: 1, part2: 2 },
            user: "ann".into(),
            sql: "select 1".to_owned(),
            state: QueryState::Running,
            started: UNIX_EPOCH + Duration::from_secs(3),
            rows: 0,
            bytes: 0,
        });
        assert_eq!(
            (profile.start(), profile.state()),
            (3000, QueryState::Running)
        );
        assert_eq!((profile.user(), profile.query()), ("ann", "select 1"));
        let engine = DrillEngine::try_new(&EngineOptions::default()).unwrap();
        let load = Load {
            memory_bytes_max: engine.memory_bytes_max() as u64,
            ..Load::default()
        };
        assert_eq!(RunningQueries(Queries::default()).load(&engine), load);
    }
}
