//! `/api/v1`: the status as JSON, and what changes something.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use user_server::NodeAdmin;

use super::host::is_address;
use crate::{
    metrics::Watched,
    status::{HeartbeatView, NodeView, QueryView, StatusView, StreamView, TunnelView},
};

type Node = State<Arc<Watched>>;

/// All of it.
pub(super) fn routes() -> Router<Arc<Watched>> {
    let changes = Router::new()
        .route("/api/v1/queries/{id}", delete(cancel))
        .route("/api/v1/drain", post(drain))
        .layer(middleware::from_fn(refuse_other_sites));
    Router::new()
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/heartbeats", get(heartbeats))
        .route("/api/v1/tunnels", get(tunnels))
        .route("/api/v1/streams", get(streams))
        .route("/api/v1/queries", get(queries))
        .merge(changes)
}

fn status(watched: &Watched) -> StatusView {
    watched.admin.status().into()
}

async fn nodes(State(watched): Node) -> Json<Vec<NodeView>> {
    Json(status(&watched).nodes)
}

/// Only nodes that are beaten to.
async fn heartbeats(State(watched): Node) -> Json<Vec<HeartbeatView>> {
    let nodes = status(&watched).nodes.into_iter();
    let health = watched.admin.health();
    let view = |node: NodeView| {
        let mut health = health.iter();
        let health = health.find(|health| node.is_at(&health.address))?;
        let (counts, trips) = (&health.counts, &health.round_trip_histogram);
        Some(HeartbeatView::new(node, counts, trips.into()))
    };
    Json(nodes.filter_map(view).collect())
}

async fn tunnels(State(watched): Node) -> Json<Vec<TunnelView>> {
    Json(status(&watched).tunnels)
}

/// Those that are held up first; not all if there are a great many.
async fn streams(State(watched): Node) -> Json<Vec<StreamView>> {
    Json(status(&watched).streams)
}

async fn queries(State(watched): Node) -> Json<Vec<QueryView>> {
    Json(status(&watched).queries)
}

/// How the query ends is told to its client.
async fn cancel(State(watched): Node, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse() else {
        let message = "expected the id of a query, as /api/v1/queries lists them\n";
        return (StatusCode::BAD_REQUEST, message).into_response();
    };
    if watched.admin.queries.cancel(id) {
        (StatusCode::ACCEPTED, "cancelling\n").into_response()
    } else {
        (StatusCode::NOT_FOUND, "no such query runs here\n").into_response()
    }
}

async fn drain(State(watched): Node) -> (StatusCode, &'static str) {
    tracing::info!("drain asked for over HTTP");
    watched.admin.drain();
    (StatusCode::ACCEPTED, "draining\n")
}

/// Nobody's web page may change a node from within a browser that reaches it.
async fn refuse_other_sites(request: Request, next: Next) -> Response {
    if is_of_other_site(request.headers()) {
        let message = "only this node's own pages may ask for this from a browser\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    next.run(request).await
}

/// Browsers say where a request that changes something comes from; other programs need not.
fn is_of_other_site(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let (host, origin) = (text(header::HOST), headers.get(header::ORIGIN));
    let Some(origin) = origin else { return false };
    let site = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    // A name could be made to mean this address by whoever owns it.
    !matches!((site, host), (Some((_, site)), Some(host)) if site == host && is_own(host))
}

fn is_own(host: &str) -> bool {
    let host = host.parse::<Authority>();
    host.is_ok_and(|host| is_address(host.host()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(host: &str, origin: Option<&str>) -> bool {
        let host = [(header::HOST, host.parse().unwrap())];
        let origin = origin.map(|origin| (header::ORIGIN, origin.parse().unwrap()));
        is_of_other_site(&host.into_iter().chain(origin).collect())
    }

    #[test]
    fn only_pages_of_the_node_itself_change_it() {
        assert!(!is_refused("127.0.0.1:8047", None));
        assert!(!is_refused("127.0.0.1:8047", Some("http://127.0.0.1:8047")));
        assert!(!is_refused("[::1]:8047", Some("http://[::1]:8047")));
        assert!(!is_refused("localhost:8047", Some("http://localhost:8047")));
        assert!(is_refused("127.0.0.1:8047", Some("http://evil.example")));
        assert!(is_refused("127.0.0.1:8047", Some("http://127.0.0.1:9999")));
        assert!(is_refused("127.0.0.1:8047", Some("null")));
        assert!(is_refused(
            "evil.example:8047",
            Some("http://evil.example:8047")
        ));
    }
}
