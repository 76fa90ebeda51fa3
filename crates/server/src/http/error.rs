//! Errors as upstream's clients know them: `{"detail": text}`, or for a body that does not fit
//! `{"detail": [{type, loc, msg, input}]}` with status 422.
//!
//! Upstream: FastAPI and pydantic, as `lmcache/v1/api_server/__main__.py` uses them.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

/// An answer that is not success.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiError {
    /// A status and its reason.
    Detail(StatusCode, String),
    /// A body or query that does not fit the schema.
    Invalid(Vec<FieldError>),
}

/// One thing wrong with a request.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FieldError {
    /// Kind of error, such as `missing`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Path to the place: `body` or `query`, then field names and list positions.
    pub loc: Vec<Value>,
    /// The error in words.
    pub msg: String,
    /// What stood there.
    pub input: Value,
}

/// What is wrong, in words.
#[derive(Serialize, JsonSchema)]
pub(super) struct Detail {
    detail: String,
}

/// Everything in a request that does not fit.
#[derive(Serialize, JsonSchema)]
pub(super) struct ValidationErrors {
    detail: Vec<FieldError>,
}

impl ApiError {
    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::Detail(StatusCode::NOT_FOUND, detail.into())
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::Detail(StatusCode::BAD_REQUEST, detail.into())
    }

    /// 503: the process goes away under the request.
    pub fn stopping() -> Self {
        Self::Detail(StatusCode::SERVICE_UNAVAILABLE, "stopping".into())
    }

    /// 422 for one place.
    pub fn invalid(error: FieldError) -> Self {
        Self::Invalid(vec![error])
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::Detail(status, detail) => (status, Json(Detail { detail })).into_response(),
            Self::Invalid(detail) => {
                let body = Json(ValidationErrors { detail });
                (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
            }
        }
    }
}

impl FieldError {
    /// A body that is not JSON; `at` is the byte where it stops being.
    pub fn not_json(at: usize, reason: &str) -> Self {
        Self {
            kind: "json_invalid",
            loc: vec!["body".into(), at.into()],
            msg: format!("JSON decode error: {reason}"),
            input: json!({}),
        }
    }
}
