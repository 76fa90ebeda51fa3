//! A request body, read up to the configured limit.
//!
//! Large bodies are read a few at a time: memory stays bounded by their number times the limit.

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::ApiError;
use crate::app::AppState;

/// Bodies above this size, in bytes, wait for their turn. 131,072 tokens as JSON are about 800 KB.
const LARGE: usize = 256 * 1024;
/// Large bodies in memory at the same time.
static LARGE_BODIES: Semaphore = Semaphore::const_new(8);

/// A body with what its sender says about it.
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// Whether they are raw numbers (`application/octet-stream`) and not JSON.
    pub is_binary: bool,
    _turn: Option<SemaphorePermit<'static>>,
}

impl FromRequest<AppState> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limit = state.config.max_body_bytes.0;
        let announced = header(&request, CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let is_binary = header(&request, CONTENT_TYPE)
            .is_some_and(|kind| kind.trim_start().starts_with("application/octet-stream"));
        if announced.is_some_and(|length: usize| length > limit) {
            return Err(too_large(limit));
        }
        let turn = if announced.is_some_and(|length| length <= LARGE) {
            None
        } else {
            // The semaphore is never closed.
            LARGE_BODIES.acquire().await.ok()
        };
        let bytes = to_bytes(request.into_body(), limit)
            .await
            .map_err(|error| read_error(&error, limit))?;
        Ok(Self {
            bytes,
            is_binary,
            _turn: turn,
        })
    }
}

fn header(request: &Request, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

fn too_large(limit: usize) -> ApiError {
    ApiError::Detail(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("body is larger than {limit} bytes; raise max_body_bytes"),
    )
}

fn read_error(error: &axum::Error, limit: usize) -> ApiError {
    let text = error.to_string();
    // axum gives no better way to tell the limit from a connection that broke.
    if text.contains("length limit") {
        too_large(limit)
    } else {
        ApiError::bad_request(format!("cannot read the body: {text}"))
    }
}
