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
use rpc_bus::auth::Authenticator;

use super::login;
use crate::metrics::{self, Watched};

const NOT_FOUND: &str = "\
Nothing is here. There are:
/healthz  ok, as long as the node answers
/metrics  Prometheus metrics
";

/// All paths. Those that tell something want a user, if there are any.
pub(super) fn routes(
    watched: Arc<Watched>,
    authenticator: Option<Arc<Authenticator>>,
    body_bytes_max: usize,
) -> Router {
    let mut told = Router::new()
        .route("/metrics", get(scrape))
        .with_state(watched);
    if let Some(authenticator) = authenticator {
        told = told.layer(middleware::from_fn_with_state(authenticator, login::check));
    }
    told.route("/healthz", get(healthy))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(body_bytes_max))
}

async fn healthy() -> &'static str {
    "ok\n"
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
