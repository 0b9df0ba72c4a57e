//! What is served under which path.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use protos::coord::drillbit_endpoint::State as NodeState;

use super::{Readers, api, host, login};
use crate::metrics::{self, Watched};

const NOT_FOUND: &str = "\
Nothing is here. There are:
/healthz                    ok, as long as the node answers
/readyz                     ok, as long as the node takes queries
/metrics                    Prometheus metrics
/api/v1/nodes               the cluster: states, health, versions
/api/v1/heartbeats          beats and round trips to the other nodes
/api/v1/tunnels             peers in the data plane
/api/v1/streams             open streams, those that are held up first
/api/v1/queries             running queries; DELETE /api/v1/queries/ID cancels one
/api/v1/drain               POST: takes no new queries, ends those that run, and leaves
";

/// All paths. Those that tell something want a user if there are any, and otherwise to be asked for by the node's name.
pub(super) fn routes(watched: Arc<Watched>, readers: Readers, body_bytes_max: usize) -> Router {
    let ready = Router::new()
        .route("/readyz", get(ready))
        .with_state(Arc::clone(&watched));
    let told = Router::new()
        .route("/metrics", get(scrape))
        .merge(api::routes())
        .with_state(watched);
    let told = match readers {
        Readers::Users(users) => told.layer(middleware::from_fn_with_state(users, login::check)),
        Readers::Everybody { advertised_host } => {
            told.layer(middleware::from_fn_with_state(advertised_host, host::check))
        }
    };
    told.merge(ready)
        .route("/healthz", get(healthy))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(body_bytes_max))
}

async fn healthy() -> &'static str {
    "ok\n"
}

async fn ready(State(watched): State<Arc<Watched>>) -> (StatusCode, &'static str) {
    match watched.admin.state() {
        NodeState::Online => (StatusCode::OK, "ok\n"),
        NodeState::Startup => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        NodeState::Quiescent => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        NodeState::Offline => (StatusCode::SERVICE_UNAVAILABLE, "leaving\n"),
    }
}

async fn scrape(State(watched): State<Arc<Watched>>) -> Response {
    match watched.scrape() {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::warn!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn not_found() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, NOT_FOUND)
}
