//! Errors as upstream's clients know them: `{"detail": text}`, or for a body that does not fit
//! `{"detail": [{type, loc, msg, input}]}` with status 422.
//!
//! Upstream: FastAPI and pydantic, as `lmcache/v1/api_server/__main__.py` uses them.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
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
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Kind of error, such as `missing`.
    pub kind: &'static str,
    /// Path to the place: `body` or `query`, then field names and list positions.
    pub loc: Vec<Value>,
    /// The error in words.
    pub msg: String,
    /// What stood there.
    pub input: Value,
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

    /// 422 for one place.
    pub fn invalid(error: FieldError) -> Self {
        Self::Invalid(vec![error])
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::Detail(status, detail) => {
                (status, Json(json!({ "detail": detail }))).into_response()
            }
            Self::Invalid(errors) => {
                let detail: Vec<Value> = errors.into_iter().map(FieldError::into_json).collect();
                let body = Json(json!({ "detail": detail }));
                (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
            }
        }
    }
}

impl FieldError {
    fn into_json(self) -> Value {
        let Self {
            kind,
            loc,
            msg,
            input,
        } = self;
        json!({ "type": kind, "loc": loc, "msg": msg, "input": input })
    }

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
