//! What surrounds every handler: a bound on requests at the same time, a time limit, a net for
//! panics, and the counting.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use super::error::ApiError;
use super::orchestration;
use crate::app::{AppState, Shared};

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
    let response = match guard.requests.try_acquire() {
        Err(_) => ApiError::Detail(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many requests at the same time; raise max_http_requests".into(),
        )
        .into_response(),
        Ok(_permit) if orchestration::has_own_deadline(request.uri().path()) => {
            next.run(request).await
        }
        Ok(_permit) => {
            let limit = shared.config.request_timeout_s;
            match tokio::time::timeout(limit, next.run(request)).await {
                Ok(response) => response,
                Err(_) => ApiError::Detail(
                    StatusCode::GATEWAY_TIMEOUT,
                    format!("not answered within {} s", limit.as_secs_f64()),
                )
                .into_response(),
            }
        }
    };
    count.status = response.status();
    response
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
