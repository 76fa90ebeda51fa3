//! What browsers are told and asked: security headers on every answer, CORS for configured origins,
//! and no changes on behalf of foreign pages.
//!
//! A request that changes something and comes from a browser must come from this process's own page
//! or from an origin in `cors_origins`. Browsers say where a request comes from by `Sec-Fetch-Site`
//! or `Origin`, and a page cannot forge either; clients that are no browsers send neither and are
//! not asked.
//!
//! Does not guard against DNS rebinding: a foreign name that points here is an origin of its own.
//! Tokens do (docs/security.md).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONTENT_SECURITY_POLICY,
    HOST, HeaderName, ORIGIN, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, VARY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use super::auth::{is_reading, unread};
use super::error::ApiError;
use crate::app::AppState;
use crate::config::Config;
use crate::metrics::refusals::HttpRefusal;

/// Put on every answer that does not say otherwise.
static HEADERS: [(HeaderName, HeaderValue); 6] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Puts headers and the question for the origin around `routes`.
pub(super) fn around(routes: Router<AppState>, state: &AppState) -> Router<AppState> {
    let front = Front {
        shared: Arc::clone(state),
        origins: state.config.cors_origins.as_slice().into(),
        transport: transport(&state.config),
    };
    routes.layer(middleware::from_fn_with_state(front, pass))
}

#[derive(Clone)]
struct Front {
    shared: AppState,
    origins: Arc<[String]>,
    transport: Option<HeaderValue>,
}

/// What browsers are told about HTTPS; nothing over plain HTTP, where they would not believe it.
fn transport(config: &Config) -> Option<HeaderValue> {
    let seconds = config.hsts_max_age_s.as_secs();
    let is_wanted = config.tls_cert.is_some() && seconds > 0;
    let value = || HeaderValue::from_str(&format!("max-age={seconds}"));
    is_wanted.then(value)?.ok()
}

async fn pass(State(front): State<Front>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let listed = headers
        .get(ORIGIN)
        .filter(|origin| is_listed(&front.origins, origin))
        .cloned();
    let mut response =
        if is_foreign(request.method(), request.uri().path(), headers) && listed.is_none() {
            front.shared.metrics.http_refused(HttpRefusal::Origin);
            let detail = "a page from elsewhere may not do this; list its origin in cors_origins";
            let refusal = ApiError::Detail(StatusCode::FORBIDDEN, detail.into());
            unread(refusal.into_response(), &request)
        } else if listed.is_some() && is_preflight(&request) {
            preflight()
        } else {
            next.run(request).await
        };
    let headers = response.headers_mut();
    for (name, value) in &HEADERS {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    if let Some(transport) = &front.transport {
        headers.insert(STRICT_TRANSPORT_SECURITY, transport.clone());
    }
    if !front.origins.is_empty() {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = listed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "content-type, authorization"),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn is_listed(origins: &[String], origin: &HeaderValue) -> bool {
    origins
        .iter()
        .any(|listed| listed == "*" || listed.trim_end_matches('/').as_bytes() == origin)
}

/// Whether a request may change something, so that it matters which page a browser asks for.
pub(super) fn asks_for_origin(method: &Method, path: &str) -> bool {
    // Upstream sets log levels by GET.
    !is_reading(method) || path == "/loglevel"
}

/// Whether a browser would change something for a page that is not ours.
fn is_foreign(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    if !asks_for_origin(method, path) {
        return false;
    }
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        // `none`: typed by the person.
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let own = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, authority)| authority);
    authority.is_none() || authority != own
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]
mod tests {
    use super::*;

    fn foreign(method: Method, path: &str, pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("kv:9000"));
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        is_foreign(&method, path, &headers)
    }

    #[test]
    fn browsers_change_things_for_our_page_only() {
        let post = |pairs: &[(&'static str, &'static str)]| foreign(Method::POST, "/clear", pairs);
        assert!(!post(&[]));
        assert!(!post(&[("origin", "http://kv:9000")]));
        assert!(post(&[("origin", "http://evil:9000")]));
        assert!(post(&[("origin", "http://kv")]));
        assert!(post(&[("origin", "null")]));
        assert!(!post(&[
            ("sec-fetch-site", "same-origin"),
            ("origin", "https://proxy")
        ]));
        assert!(!post(&[("sec-fetch-site", "none")]));
        for site in ["cross-site", "same-site", "new"] {
            assert!(is_foreign(
                &Method::POST,
                "/clear",
                &HeaderMap::from_iter([(SEC_FETCH_SITE, HeaderValue::from_static(site))])
            ));
        }
        let evil = [("sec-fetch-site", "cross-site")];
        assert!(!foreign(Method::GET, "/events", &evil));
        assert!(foreign(Method::GET, "/loglevel", &evil));
    }

    #[test]
    fn origins_are_compared_as_a_whole() {
        let origins = ["https://a.example/".to_owned()];
        let listed = |text| is_listed(&origins, &HeaderValue::from_static(text));
        assert!(listed("https://a.example"));
        assert!(!listed("https://a.example.evil"));
        assert!(!listed("http://a.example"));
        assert!(is_listed(&["*".into()], &HeaderValue::from_static("null")));
    }
}
