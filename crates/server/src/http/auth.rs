//! Who may ask what: bearer tokens with the roles read and admin, and the page's session cookie.
//!
//! ```text
//! open    GET /healthz /readyz /docs /openapi.json, the page's files, POST /session, /metrics if `metrics_open`
//! read    every other GET, and the POSTs that only ask (READING)
//! admin   everything else: commands, log levels, resets, /env, and whatever is added later
//! ```
//! With `tls_client_auth` = except-open, all but the open asks for a client certificate first, whatever
//! tokens are configured.
//!
//! A role whose token is not configured is asked of nobody, with one exception: where only a read
//! token is set, nobody is admin, so that a forgotten admin token does not open the commands.
//!
//! **Invariants.** Tokens are compared as SHA-256 digests in constant time and never kept as text.
//! The cookie only reads: no request that changes something is ever allowed because of it. What is
//! refused here has read no body and taken no place among the requests at the same time.

mod token;

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, COOKIE, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Body};
use kvatlas_protocol::Timestamp;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::api::Api;
use super::api::operation::Operation;
use super::error::ApiError;
use super::query::Query;
use crate::app::AppState;
use crate::config::Config;
use crate::config::value::ClientAuth;
use crate::metrics::refusals::HttpRefusal;
pub use token::TokenError;
use token::{Hash, Tokens};

/// POSTs that change nothing.
const READING: [&str; 6] = [
    "/lookup",
    "/lookup/chunks",
    "/query_instance",
    "/query_worker_info",
    "/check_finish",
    "/diagnose",
];

const SESSION: &str = "/session";
pub(super) const COOKIE_NAME: &str = "kvatlas_session";
/// Life of a session, in seconds; the page asks for the next one before it ends.
const SESSION_SECONDS: u64 = 3600;
/// Sessions remembered; the oldest makes room. Only holders of a token begin any.
const MAX_SESSIONS: usize = 1024;

/// What a token allows; admin includes read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Lookups, lists, statistics, the live stream.
    Read,
    /// Commands to workers and changes to the process.
    Admin,
}

/// What one look at the files of tokens brought.
#[derive(Debug, PartialEq, Eq)]
pub enum TokenReload {
    /// They have what they had.
    Unchanged,
    /// Only the new tokens count.
    Applied,
    /// The old ones go on.
    Refused(TokenError),
}

/// The configured tokens and the running sessions.
pub struct Access {
    tokens: ArcSwap<Tokens>,
    /// Whether any came from a file.
    has_files: bool,
    /// Why the files were refused the last time. Locked while they are read.
    refused: Mutex<Option<TokenError>>,
    metrics_open: bool,
    asks_for_certificate: bool,
    tls: bool,
    /// Oldest first. Locked for a few comparisons.
    sessions: Mutex<VecDeque<Session>>,
}

/// Put into every request that came over TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct OverTls {
    /// Whether the client showed a certificate; one that is shown has been checked.
    pub(super) certified: bool,
}

struct Session {
    id: Hash,
    role: Role,
    until: Timestamp,
}

impl Access {
    /// Reads the configured tokens.
    pub fn new(config: &Config) -> Result<Self, TokenError> {
        Ok(Self {
            tokens: ArcSwap::from_pointee(Tokens::load(config)?),
            has_files: config.read_token_file.is_some() || config.admin_token_file.is_some(),
            refused: Mutex::default(),
            metrics_open: config.metrics_open,
            asks_for_certificate: config.tls_client_ca.is_some()
                && config.tls_client_auth == ClientAuth::ExceptOpen,
            tls: config.tls_cert.is_some(),
            sessions: Mutex::default(),
        })
    }

    /// Whether some token may change while the process runs.
    pub fn has_files(&self) -> bool {
        self.has_files
    }

    /// Looks at the files; blocks while it does. With new tokens all sessions end.
    pub fn reload(&self, config: &Config) -> TokenReload {
        if !self.has_files {
            return TokenReload::Unchanged;
        }
        let mut refused = self.refused.lock();
        match Tokens::load(config) {
            Ok(new) => {
                *refused = None;
                if new.is(&self.tokens.load()) {
                    return TokenReload::Unchanged;
                }
                let mut sessions = self.sessions.lock();
                self.tokens.store(Arc::new(new));
                sessions.clear();
                TokenReload::Applied
            }
            Err(error) if refused.as_ref() == Some(&error) => TokenReload::Unchanged,
            Err(error) => {
                *refused = Some(error.clone());
                TokenReload::Refused(error)
            }
        }
    }

    /// Whether commands ask for a token, or are refused to all.
    pub fn guards_commands(&self) -> bool {
        let tokens = self.tokens.load();
        tokens.admin.is_some() || tokens.read.is_some()
    }

    /// Whether nobody can be admin although others need a token.
    pub fn lacks_admin(&self) -> bool {
        let tokens = self.tokens.load();
        tokens.admin.is_none() && tokens.read.is_some()
    }

    fn asks_for(&self, role: Role) -> bool {
        match role {
            Role::Read => self.tokens.load().read.is_some(),
            Role::Admin => self.guards_commands(),
        }
    }

    fn role_of(&self, token: &str) -> Option<Role> {
        let given = Hash::of(token);
        let is = |known: &Option<Hash>| known.as_ref().is_some_and(|known| known.is(&given));
        // Both are compared, whichever fits.
        let tokens = self.tokens.load();
        let (admin, read) = (is(&tokens.admin), is(&tokens.read));
        match (admin, read) {
            (true, _) => Some(Role::Admin),
            (false, true) => Some(Role::Read),
            (false, false) => None,
        }
    }

    /// A new session's name and role, if the token is one.
    fn begin_session(&self, token: &str, now: Timestamp) -> Option<(String, Role)> {
        // Twice 122 random bits from the system.
        let id = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        // Locked first: tokens that cease to count end all sessions under the same lock.
        let mut sessions = self.sessions.lock();
        let role = self.role_of(token)?;
        sessions.retain(|session| session.until > now);
        if sessions.len() >= MAX_SESSIONS {
            sessions.pop_front();
        }
        sessions.push_back(Session {
            id: Hash::of(&id),
            role,
            until: now + std::time::Duration::from_secs(SESSION_SECONDS),
        });
        Some((id, role))
    }

    fn session(&self, headers: &HeaderMap, now: Timestamp) -> Option<Role> {
        let id = Hash::of(cookie(headers)?);
        let sessions = self.sessions.lock();
        let mut running = sessions.iter().filter(|session| session.until > now);
        running
            .find(|session| session.id.is(&id))
            .map(|session| session.role)
    }

    /// Whether a request may go on; the role it would need if not.
    fn check(&self, request: &Request, now: Timestamp) -> Result<(), Denied> {
        let Some(needed) = needed(request.method(), request.uri(), self.metrics_open) else {
            return Ok(());
        };
        let certified = || {
            let over = request.extensions().get::<OverTls>();
            over.is_some_and(|over| over.certified)
        };
        if self.asks_for_certificate && !certified() {
            return Err(Denied::Uncertified);
        }
        if !self.asks_for(needed) {
            return Ok(());
        }
        let given = bearer(request.headers());
        let role = match given {
            Some(token) => self.role_of(token),
            None if is_reading(request.method()) && needed == Role::Read => {
                self.session(request.headers(), now)
            }
            None => None,
        };
        match role {
            Some(role) if role >= needed => Ok(()),
            Some(_) => Err(Denied::Forbidden),
            None if given.is_some() => Err(Denied::Wrong),
            None => Err(Denied::Missing),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Denied {
    Missing,
    Wrong,
    Forbidden,
    Uncertified,
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let (status, text, challenge) = match self {
            // No header that could be sent would help.
            Self::Uncertified => {
                let detail = "this needs a client certificate";
                return ApiError::Detail(StatusCode::FORBIDDEN, detail.into()).into_response();
            }
            Self::Missing => (
                StatusCode::UNAUTHORIZED,
                "a token is needed: Authorization: Bearer <token>",
                r#"Bearer realm="kvatlas""#,
            ),
            Self::Wrong => (
                StatusCode::UNAUTHORIZED,
                "no such token",
                r#"Bearer realm="kvatlas", error="invalid_token""#,
            ),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "this needs the admin token",
                r#"Bearer realm="kvatlas", error="insufficient_scope", scope="admin""#,
            ),
        };
        let mut response = ApiError::Detail(status, text.into()).into_response();
        let challenge = HeaderValue::from_static(challenge);
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        response
    }
}

/// Routes of this file.
pub fn routes() -> Api {
    let operation = Operation::new("session", "Exchange a token for a cookie")
        .about("For what cannot send headers, such as `EventSource`. The cookie lasts an hour and only reads. Where no token is configured there is no cookie, and the role is `admin`.")
        .gives::<SessionView>("the role of the token", json!({ "role": "admin" }))
        .refuses(StatusCode::UNAUTHORIZED, "No token, or an unknown one.", "no such token");
    Api::new("Page").post(SESSION, session, operation)
}

#[derive(Serialize, JsonSchema)]
struct SessionView {
    #[schemars(extend("enum" = ["read", "admin"]))]
    role: &'static str,
}

/// Puts the question for tokens around `routes`.
pub(super) fn around(routes: Router<AppState>, state: &AppState) -> Router<AppState> {
    routes.layer(middleware::from_fn_with_state(state.clone(), pass))
}

async fn pass(State(shared): State<AppState>, request: Request, next: Next) -> Response {
    match shared.access.check(&request, shared.clock.now()) {
        Ok(()) => next.run(request).await,
        Err(denied) => {
            shared.metrics.http_refused(match denied {
                Denied::Missing | Denied::Wrong => HttpRefusal::Unauthorized,
                Denied::Forbidden | Denied::Uncertified => HttpRefusal::Forbidden,
            });
            unread(denied.into_response(), &request)
        }
    }
}

/// An answer given before the body was read: hyper closes the connection then, so the client is told.
pub(super) fn unread(mut response: Response, request: &Request<Body>) -> Response {
    if !request.body().is_end_stream() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// A cookie for what cannot send headers (EventSource), in exchange for a token.
async fn session(State(shared): State<AppState>, headers: HeaderMap) -> Response {
    let access = &shared.access;
    let (id, role) = match bearer(&headers) {
        // Without tokens there is nothing to exchange; the page need not know.
        _ if !access.guards_commands() => {
            return Json(SessionView { role: "admin" }).into_response();
        }
        Some(token) => match access.begin_session(token, shared.clock.now()) {
            Some(session) => session,
            None => return refused(&shared, Denied::Wrong),
        },
        None => return refused(&shared, Denied::Missing),
    };
    let secure = if access.tls { "; Secure" } else { "" };
    let cookie = format!(
        "{COOKIE_NAME}={id}; Path=/; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Strict{secure}"
    );
    let name = match role {
        Role::Read => "read",
        Role::Admin => "admin",
    };
    ([(SET_COOKIE, cookie)], Json(SessionView { role: name })).into_response()
}

fn refused(shared: &AppState, denied: Denied) -> Response {
    shared.metrics.http_refused(HttpRefusal::Unauthorized);
    denied.into_response()
}

/// The role that a request needs, whatever is configured; `None` for what is always open.
pub(super) fn needed(method: &Method, uri: &Uri, metrics_open: bool) -> Option<Role> {
    let path = uri.path();
    if !is_reading(method) {
        return match path {
            SESSION => None,
            path if READING.contains(&path) => Some(Role::Read),
            _ => Some(Role::Admin),
        };
    }
    match path {
        "/" | "/docs" | "/openapi.json" | "/healthz" | "/readyz" => None,
        path if path.starts_with("/static/") => None,
        "/metrics" if metrics_open => None,
        "/env" => Some(Role::Admin),
        // Upstream sets levels by GET.
        "/loglevel" if Query::read(uri.query()).text("level").is_some() => Some(Role::Admin),
        _ => Some(Role::Read),
    }
}

/// Whether a method promises to change nothing.
pub(super) fn is_reading(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]
mod tests {
    use super::*;
    use crate::config::value::Secret;

    fn access(read: Option<&str>, admin: Option<&str>) -> Access {
        let secret = |text: &str| Secret(text.to_owned());
        let config = Config {
            read_token: read.map(secret),
            admin_token: admin.map(secret),
            ..Config::default()
        };
        Access::new(&config).unwrap()
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn digests_are_compared_to_the_last_byte() {
        let one = Hash::of("token");
        assert!(one.is(&Hash::of("token")));
        for at in 0..one.0.len() {
            for bit in 0..8 {
                let mut other = one;
                other.0[at] ^= 1 << bit;
                assert!(!one.is(&other), "{at} {bit}");
            }
        }
    }

    #[test]
    fn what_is_not_known_to_be_harmless_needs_admin() {
        let of = |method: &str, path: &str| {
            let request = request(method, path, &[]);
            needed(request.method(), request.uri(), false)
        };
        for (method, path) in [
            ("POST", "/clear"),
            ("POST", "/move"),
            ("POST", "/not-yet-invented"),
            ("DELETE", "/lookup/"),
            ("GET", "/loglevel?logger_name=a&level=debug"),
            ("GET", "/loglevel?le%76el=debug"),
            ("GET", "/env"),
            ("PUT", "/static/x"),
        ] {
            assert_eq!(of(method, path), Some(Role::Admin), "{method} {path}");
        }
        for path in ["/metrics", "/loglevel", "/live", "/events", "/%2f"] {
            assert_eq!(of("GET", path), Some(Role::Read), "{path}");
        }
        assert_eq!(of("POST", "/lookup"), Some(Role::Read));
        assert_eq!(of("GET", "/static/app.js"), None);
    }

    #[test]
    fn a_read_token_alone_opens_no_commands() {
        let access = access(Some("r"), None);
        let bearer = [("authorization", "Bearer r")];
        let clear = request("POST", "/clear", &bearer);
        assert_eq!(
            access.check(&clear, Timestamp(0)).unwrap_err(),
            Denied::Forbidden
        );
        assert!(access.lacks_admin());
    }

    #[test]
    fn an_admin_token_alone_leaves_reading_open() {
        let access = access(None, Some("a"));
        let check = |method, path| access.check(&request(method, path, &[]), Timestamp(0));
        assert_eq!(check("POST", "/lookup"), Ok(()));
        assert_eq!(check("POST", "/pin"), Err(Denied::Missing));
    }

    #[test]
    fn a_session_reads_until_it_ends_and_never_commands() {
        let access = access(Some("r"), Some("a"));
        assert_eq!(access.begin_session("x", Timestamp(0)), None);
        let (id, role) = access.begin_session("a", Timestamp(0)).unwrap();
        assert_eq!(role, Role::Admin);
        let cookie = format!("x=1; kvatlas_session={id}");
        let check =
            |method, path, now| access.check(&request(method, path, &[("cookie", &cookie)]), now);
        assert_eq!(check("GET", "/live", Timestamp(0)), Ok(()));
        assert_eq!(check("POST", "/clear", Timestamp(0)), Err(Denied::Missing));
        assert_eq!(check("POST", "/lookup", Timestamp(0)), Err(Denied::Missing));
        let later = Timestamp(0) + std::time::Duration::from_secs(SESSION_SECONDS);
        assert_eq!(check("GET", "/live", later), Err(Denied::Missing));
    }

    #[test]
    fn sessions_are_bounded() {
        let access = access(Some("r"), None);
        for _ in 0..2 * MAX_SESSIONS {
            access.begin_session("r", Timestamp(0)).unwrap();
        }
        assert_eq!(access.sessions.lock().len(), MAX_SESSIONS);
    }

    #[test]
    fn unusable_tokens_are_refused_at_the_start() {
        for text in ["", " ", "a b", "ü"] {
            let config = Config {
                read_token: Some(Secret(text.into())),
                ..Config::default()
            };
            assert!(Access::new(&config).is_err(), "{text:?}");
        }
    }
}
