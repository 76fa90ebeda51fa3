//! What a request may be refused with before or around its handler: by headers, auth, guard and the
//! reading of bodies. Which of them apply follows from the route.

use axum::http::{Method, StatusCode, Uri};
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::Route;
use super::operation::{JSON, Media};
use crate::http::auth::{self, Role};
use crate::http::{headers, orchestration};

/// One of them: the name it is referred to by, its status, and when it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) name: &'static str,
    pub(super) status: StatusCode,
    about: &'static str,
    /// The words of one such answer; none where they are [`Media::invalid`].
    detail: Option<&'static str>,
    /// A header that comes with it.
    header: Option<(&'static str, &'static str)>,
}

const UNREADABLE: Refusal = Refusal {
    name: "UnreadableBody",
    status: StatusCode::BAD_REQUEST,
    about: "The body broke off, or is not what its headers announce.",
    detail: Some("cannot read the body: connection reset"),
    header: None,
};
const UNAUTHORIZED: Refusal = Refusal {
    name: "Unauthorized",
    status: StatusCode::UNAUTHORIZED,
    about: "Tokens are configured, and none or an unknown one came.",
    detail: Some("a token is needed: Authorization: Bearer <token>"),
    header: Some(("WWW-Authenticate", "Bearer realm=\"kvatlas\"")),
};
const FORBIDDEN: Refusal = Refusal {
    name: "Forbidden",
    status: StatusCode::FORBIDDEN,
    about: "The token does not allow it, or a browser asks on behalf of a page from elsewhere.",
    detail: Some("this needs the admin token"),
    header: None,
};
const SLOW: Refusal = Refusal {
    name: "SlowBody",
    status: StatusCode::REQUEST_TIMEOUT,
    about: "The body did not come within `body_timeout_s`.",
    detail: Some("the body did not come within 30 s"),
    header: None,
};
const LARGE: Refusal = Refusal {
    name: "TooLarge",
    status: StatusCode::PAYLOAD_TOO_LARGE,
    about: "The body is larger than `max_body_bytes`, or has more than `max_tokens` tokens.",
    detail: Some("body is larger than 67108864 bytes; raise max_body_bytes"),
    header: None,
};
const INVALID: Refusal = Refusal {
    name: "Invalid",
    status: StatusCode::UNPROCESSABLE_ENTITY,
    about: "The body or a parameter does not fit; every place that does not is named.",
    detail: None,
    header: None,
};
const BUSY: Refusal = Refusal {
    name: "TooMany",
    status: StatusCode::TOO_MANY_REQUESTS,
    about: "Too many requests at the same time, or too much memory in their bodies.",
    detail: Some("too many requests at the same time; raise max_http_requests"),
    header: Some(("Retry-After", "1")),
};
const BROKEN: Refusal = Refusal {
    name: "Broken",
    status: StatusCode::INTERNAL_SERVER_ERROR,
    about: "A fault of the controller; the log has the reason.",
    detail: Some("internal error, see the log"),
    header: None,
};
const LATE: Refusal = Refusal {
    name: "Late",
    status: StatusCode::GATEWAY_TIMEOUT,
    about: "Not answered within `request_timeout_s`.",
    detail: Some("not answered within 60 s"),
    header: None,
};

/// All of them, by status.
pub(super) const ALL: [Refusal; 9] = [
    UNREADABLE,
    UNAUTHORIZED,
    FORBIDDEN,
    SLOW,
    LARGE,
    INVALID,
    BUSY,
    BROKEN,
    LATE,
];

/// The role a route asks for where tokens are configured.
pub(super) fn role(route: &Route) -> Option<Role> {
    let path = route.path.replace(['{', '}'], "");
    let uri = Uri::try_from(path).unwrap_or_default();
    auth::needed(&route.method, &uri, false)
}

/// Those that may meet a request of `route`.
pub(super) fn of(route: &Route) -> Vec<Refusal> {
    let Route {
        method,
        path,
        operation,
        ..
    } = route;
    let (role, posts) = (role(route), method == Method::POST);
    let applies = |refusal: &Refusal| match *refusal {
        UNREADABLE | SLOW => posts,
        UNAUTHORIZED => role.is_some(),
        FORBIDDEN => role == Some(Role::Admin) || headers::asks_for_origin(method, path),
        LARGE => !operation.bodies.is_empty(),
        INVALID => operation.is_checked(),
        LATE => !orchestration::has_own_deadline(path),
        _ => true,
    };
    ALL.into_iter().filter(applies).collect()
}

impl Refusal {
    pub(super) fn media(&self) -> Media {
        self.detail.map_or_else(Media::invalid, Media::detail)
    }

    /// As one of the document's shared answers.
    pub(super) fn rendered(&self, generator: &mut SchemaGenerator) -> Value {
        let Media {
            schema, examples, ..
        } = self.media();
        let mut answer = json!({
            "description": self.about,
            "content": { JSON: { "schema": schema(generator), "example": examples[0] } },
        });
        if let Some((name, example)) = self.header {
            let header = json!({
                "required": true, "schema": { "type": "string" }, "example": example,
            });
            answer["headers"] = Value::Object(Map::from_iter([(name.into(), header)]));
        }
        answer
    }

    pub(super) fn about(&self) -> &'static str {
        self.about
    }
}
