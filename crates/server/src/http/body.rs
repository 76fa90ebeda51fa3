//! A request body, read up to the configured limit of size and time.
//!
//! What bodies hold in memory is counted as it arrives, not as it is announced: somebody who sends
//! slowly keeps nobody else waiting. Beyond [`BUDGET`] a request is answered 429.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::ApiError;
use crate::app::{AppState, Shared};
use crate::metrics::refusals::HttpRefusal;

/// Part of a body that is not counted, in bytes: the bound on requests bounds it.
const FREE: usize = 256 * 1024;
/// What bodies may hold together beyond that, in units. 131,072 tokens as JSON are about 800 KB.
const BUDGET: usize = 8192;
/// Bytes of a unit: 512 MiB in all.
const UNIT: usize = 64 * 1024;
static UNITS: Semaphore = Semaphore::const_new(BUDGET);

/// A body with what its sender says about it.
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// Whether they are raw numbers (`application/octet-stream`) and not JSON.
    pub is_binary: bool,
    _hold: Hold,
}

/// Units taken by one body.
#[derive(Default)]
struct Hold {
    units: usize,
    permit: Option<SemaphorePermit<'static>>,
}

impl Hold {
    /// Takes what `bytes` in all need; whether there was room.
    fn grow(&mut self, bytes: usize) -> bool {
        let needed = bytes.saturating_sub(FREE).div_ceil(UNIT).min(BUDGET);
        let Some(more) = needed.checked_sub(self.units).filter(|more| *more > 0) else {
            return true;
        };
        let Some(permit) = u32::try_from(more)
            .ok()
            .and_then(|more| UNITS.try_acquire_many(more).ok())
        else {
            return false;
        };
        self.units = needed;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        true
    }
}

impl FromRequest<AppState> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limit = state.config.max_body_bytes.0;
        let announced = header(&request, CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let is_binary = header(&request, CONTENT_TYPE)
            .is_some_and(|kind| kind.trim_start().starts_with("application/octet-stream"));
        if announced.is_some_and(|length: usize| length > limit) {
            return Err(too_large(state, limit));
        }
        let reading = read(request.into_body(), announced.unwrap_or(0), limit, state);
        let (bytes, hold) = tokio::time::timeout(state.config.body_timeout_s, reading)
            .await
            .unwrap_or_else(|_| Err(too_slow(state)))?;
        Ok(Self {
            bytes,
            is_binary,
            _hold: hold,
        })
    }
}

async fn read(
    mut body: axum::body::Body,
    announced: usize,
    limit: usize,
    shared: &Shared,
) -> Result<(Bytes, Hold), ApiError> {
    let mut hold = Hold::default();
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame
            .map_err(|error| ApiError::bad_request(format!("cannot read the body: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let length = bytes.len() + data.len();
        if length > limit {
            return Err(too_large(shared, limit));
        }
        if !hold.grow(length) {
            shared.metrics.http_refused(HttpRefusal::Memory);
            return Err(ApiError::Detail(
                StatusCode::TOO_MANY_REQUESTS,
                "bodies of other requests fill the memory set aside for them".into(),
            ));
        }
        if bytes.is_empty() {
            if body.is_end_stream() {
                return Ok((data, hold));
            }
            bytes.reserve(announced.min(FREE));
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.into(), hold))
}

/// The answer to a body that did not come in time.
pub(super) fn too_slow(shared: &Shared) -> ApiError {
    shared.metrics.http_refused(HttpRefusal::Slow);
    ApiError::Detail(
        StatusCode::REQUEST_TIMEOUT,
        format!(
            "the body did not come within {} s",
            shared.config.body_timeout_s.as_secs_f64()
        ),
    )
}

fn header(request: &Request, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

fn too_large(shared: &Shared, limit: usize) -> ApiError {
    shared.metrics.http_refused(HttpRefusal::Size);
    ApiError::Detail(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("body is larger than {limit} bytes; raise max_body_bytes"),
    )
}
