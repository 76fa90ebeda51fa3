//! What surrounds every handler: a bound on requests at the same time, a time limit, a net for
//! panics, and the counting.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use super::body::too_slow;
use super::error::ApiError;
use super::orchestration;
use crate::app::{AppState, Shared};
use crate::metrics::refusals::HttpRefusal;
use crate::traces::RequestSpan;

/// Puts the guard around `routes`.
pub(super) fn around(routes: Router<AppState>, state: &AppState) -> Router<AppState> {
    let guard = Guard {
        shared: Arc::clone(state),
        requests: Arc::new(Semaphore::new(state.config.max_http_requests.0)),
    };
    routes
        // `body::Body` enforces the configured limit and says so in words.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(guard, pass))
}

#[derive(Clone)]
struct Guard {
    shared: AppState,
    requests: Arc<Semaphore>,
}

async fn pass(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let shared = &guard.shared;
    let mut count = Count::begin(shared);
    let span = RequestSpan::begin(&request);
    let mut response = match guard.requests.try_acquire() {
        Err(_) => {
            shared.metrics.http_refused(HttpRefusal::Concurrency);
            closing(ApiError::Detail(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests at the same time; raise max_http_requests".into(),
            ))
        }
        Ok(_permit) => {
            let limit = shared.config.request_timeout_s;
            if orchestration::has_own_deadline(request.uri().path()) {
                span.around(handle(shared, request, next)).await
            } else {
                let answer = span.around(handle(shared, request, next));
                tokio::time::timeout(limit, answer)
                    .await
                    .unwrap_or_else(|_| {
                        let detail = format!("not answered within {} s", limit.as_secs_f64());
                        closing(ApiError::Detail(StatusCode::GATEWAY_TIMEOUT, detail))
                    })
            }
        }
    };
    count.status = response.status();
    span.end(response.status().as_u16());
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        let soon = HeaderValue::from_static("1");
        response.headers_mut().insert(RETRY_AFTER, soon);
    }
    response
}

/// Largest body that is read before its handler asks for it, in bytes.
const SMALL_BODY: usize = 64 * 1024;

/// Reads a small body and calls the handler.
///
/// A body that nobody reads makes hyper close the connection after the answer, without a word: the
/// client's next request on it would fail. So small ones are always read, and the rest is told.
async fn handle(shared: &Shared, request: Request, next: Next) -> Response {
    let limit = SMALL_BODY.min(shared.config.max_body_bytes.0);
    let size = request.body().size_hint();
    let is_small = size.upper().is_some_and(|upper| upper <= limit as u64);
    if !is_small {
        let mut response = next.run(request).await;
        if !response.status().is_success() {
            close(&mut response);
        }
        return response;
    }
    let (head, body) = request.into_parts();
    let read = axum::body::to_bytes(body, limit);
    match tokio::time::timeout(shared.config.body_timeout_s, read).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, bytes.into())).await,
        Ok(Err(error)) => closing(ApiError::bad_request(format!(
            "cannot read the body: {error}"
        ))),
        Err(_) => closing(too_slow(shared)),
    }
}

fn closing(error: ApiError) -> Response {
    let mut response = error.into_response();
    close(&mut response);
    response
}

/// Says that the connection ends with this answer.
fn close(response: &mut Response) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Counts a request, also one whose client goes away.
struct Count<'a> {
    shared: &'a Shared,
    status: StatusCode,
}

impl<'a> Count<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.metrics.http_begins();
        // What a request is answered with that nobody waits for any more.
        let status = StatusCode::BAD_REQUEST;
        Self { shared, status }
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.shared.metrics.http_ends(self.status.as_u16());
    }
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let reason = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    tracing::error!(reason, "a handler panicked");
    ApiError::Detail(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal error, see the log".into(),
    )
    .into_response()
}
