//! HTTP Basic authentication (RFC 7617), by the node's own users.

use std::sync::Arc;

use axum::{
    extract::{Extension, Request, State},
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rpc_bus::auth::{AuthError, Authenticator, Credentials, Password};

use super::Peer;

const CHALLENGE: [(HeaderName, &str); 1] = [(
    WWW_AUTHENTICATE,
    "Basic realm=\"drillbit\", charset=\"UTF-8\"",
)];

/// Lets requests of users through.
pub(super) async fn check(
    State(authenticator): State<Arc<Authenticator>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let Some(credentials) = credentials(request.headers()) else {
        return refused("this page wants user and password\n");
    };
    match authenticator.verify(peer, credentials).await {
        Ok(_) => next.run(request).await,
        Err(error) => explain(&error),
    }
}

fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    // Wiped when it goes.
    let text = Password::from(text);
    let (user, password) = text.expose().split_once(':')?;
    Some(Credentials::new(user, password))
}

fn refused(text: &'static str) -> Response {
    (StatusCode::UNAUTHORIZED, CHALLENGE, text).into_response()
}

fn explain(error: &AuthError) -> Response {
    match error {
        AuthError::TooManyFailures { retry_after } => {
            let seconds = (retry_after.as_secs() + 1).to_string();
            let headers = [(RETRY_AFTER, seconds)];
            (StatusCode::TOO_MANY_REQUESTS, headers, format!("{error}\n")).into_response()
        }
        AuthError::Busy => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
        _ => refused("user or password are wrong\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Option<(String, String)> {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
        let credentials = credentials(&headers)?;
        Some((credentials.user, credentials.password.expose().to_owned()))
    }

    #[test]
    fn credentials_are_what_rfc_7617_shows() {
        let aladdin = ("Aladdin".to_owned(), "open sesame".to_owned());
        assert_eq!(of("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Some(aladdin));
        let colons = Some(("a".to_owned(), "b:c".to_owned()));
        assert_eq!(of(&format!("basic {}", STANDARD.encode("a:b:c"))), colons);
    }

    #[test]
    fn anything_else_is_nobody() {
        for value in [
            "Basic",
            "Basic !",
            "Bearer QTpC",
            "Basic QUJD",
            "Basic /w==",
        ] {
            assert_eq!(of(value), None, "{value}");
        }
        assert!(credentials(&HeaderMap::new()).is_none());
    }
}
