//! By which names a node may be asked where everybody may: a page of another site could have its own name mean this
//! node's address (DNS rebinding), and then read here as if it were the node's.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::HOST, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Lets requests through that name the node by an address, as `localhost`, or as `advertised`. Browsers always name a
/// host; a program that does not is no browser.
pub(super) async fn check(
    State(advertised): State<Option<Arc<str>>>,
    request: Request,
    next: Next,
) -> Response {
    if is_of_node(request.headers(), advertised.as_deref()) {
        return next.run(request).await;
    }
    let named = match advertised {
        Some(own) => format!("by its address, as localhost, or as {own}"),
        None => {
            "by its address or as localhost (--advertised-host HOST gives it a name)".to_owned()
        }
    };
    let message =
        format!("expected this node {named}: there are no users, so anybody may read here\n");
    (StatusCode::FORBIDDEN, message).into_response()
}

fn is_of_node(headers: &HeaderMap, advertised: Option<&str>) -> bool {
    let is_own = |host: &str| {
        let advertised = advertised.is_some_and(|own| bare(host).eq_ignore_ascii_case(bare(own)));
        advertised || is_address(host)
    };
    let mut hosts = headers.get_all(HOST).iter();
    hosts.all(|host| {
        let host = host.to_str().ok();
        let host = host.and_then(|host| host.parse::<Authority>().ok());
        host.is_some_and(|host| is_own(host.host()))
    })
}

/// Whether `host`, without a port, is nobody's to give another meaning.
pub(super) fn is_address(host: &str) -> bool {
    let bare = bare(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Without the brackets of IPv6.
fn bare(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(host: &str, advertised: Option<&str>) -> bool {
        let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
        is_of_node(&headers, advertised)
    }

    #[test]
    fn a_node_is_asked_by_addresses_and_by_its_own_name() {
        for host in [
            "127.0.0.1:8047",
            "10.0.0.5",
            "[::1]:8047",
            "[::1]",
            "localhost:8047",
            "LocalHost",
        ] {
            assert!(passes(host, None), "{host}");
        }
        assert!(passes("node1.example:8047", Some("node1.example")));
        assert!(passes("NODE1.example", Some("node1.example")));
        assert!(is_of_node(&HeaderMap::new(), None), "no browser");
    }

    #[test]
    fn a_name_of_somebody_else_is_refused() {
        for host in [
            "evil.example:8047",
            "127.0.0.1.evil.example:8047",
            "localhost.evil.example",
            "",
            "[",
            ":8047",
        ] {
            assert!(!passes(host, None), "{host}");
            assert!(!passes(host, Some("node1.example")), "{host}");
        }
    }
}
