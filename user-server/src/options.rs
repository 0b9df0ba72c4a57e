//! Limits of the server.

use std::{sync::Arc, time::Duration};

use rpc_bus::{
    Beats, Capabilities, ConnectionOptions, Feature, ServerOptions, auth::Authenticator,
};

use crate::{admin::NodeAdmin, registry::Queries};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Limits of a server. A slow client holds at most `unacked_bytes_max` and two further batches per
/// query.
#[derive(Clone, Debug)]
pub struct UserServerOptions {
    /// Limits and times of the connections. Default: those of a user server.
    pub connections: ServerOptions,
    /// Regular PINGs to clients that have agreed to send them too, so that a dead one is soon found; Drill's own know
    /// nothing of it. `None`: all are held to the idle timeout. Default: one a second, and five may be missed.
    pub beats: Option<Beats>,
    /// Lets users in. Default `None`: everybody may come in, as whom they like.
    pub authenticator: Option<Arc<Authenticator>>,
    /// Where running queries are listed. Default: a list of the server's own.
    pub queries: Queries,
    /// Answers our own tools. Default `None`: they are refused, as by a real Drill.
    pub admin: Option<Arc<dyn NodeAdmin>>,
    /// Host that clients are told, in errors above all. Default: the address that they connected
    /// to.
    pub advertised_host: Option<String>,
    /// Batches of one query that may be sent before the client acknowledged them. Default 8.
    pub unacked_batches_max: usize,
    /// Bytes of these batches. A single larger batch is sent when nothing else is outstanding.
    /// Default 16 MiB.
    pub unacked_bytes_max: usize,
    /// Most rows of a batch. Default 32 Ki; Drill's clients take at most 64 Ki.
    pub batch_rows_max: usize,
    /// Bytes that a batch should have. Default 1 MiB.
    pub batch_bytes_target: usize,
    /// Longest statement, in bytes. Default 1 MiB.
    pub statement_bytes_max: usize,
    /// Queries of one connection that may run at once; one more is refused. Default 64.
    pub queries_per_connection_max: usize,
}

impl Default for UserServerOptions {
    fn default() -> Self {
        let connection = ConnectionOptions {
            capabilities: Some(Arc::new(Capabilities::of_software(env!(
                "CARGO_PKG_VERSION"
            )))),
            ..ConnectionOptions::user_server()
        };
        Self {
            connections: ServerOptions::new(connection),
            beats: Some(Beats {
                interval: Duration::from_secs(1),
                missed_max: 5,
            }),
            authenticator: None,
            queries: Queries::default(),
            admin: None,
            advertised_host: None,
            unacked_batches_max: 8,
            unacked_bytes_max: 16 * MIB,
            batch_rows_max: 32 * KIB,
            batch_bytes_target: MIB,
            statement_bytes_max: MIB,
            queries_per_connection_max: 64,
        }
    }
}

impl UserServerOptions {
    /// Those of the connections, with what this server can do.
    pub(crate) fn offered(&self) -> ServerOptions {
        let mut connections = self.connections.clone();
        if let Some(ours) = &mut connections.connection.capabilities {
            let served = [
                (Feature::NodeStatus, self.admin.is_some()),
                (Feature::Beats, self.beats.is_some()),
            ];
            let features = served.into_iter().fold(ours.features, |all, (one, is)| {
                if is { all.with(one) } else { all.without(one) }
            });
            *ours = Arc::new(Capabilities {
                features,
                ..Capabilities::clone(ours)
            });
        }
        connections
    }
}
