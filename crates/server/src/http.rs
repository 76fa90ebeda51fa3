//! The HTTP front: upstream's endpoints and our own, over axum.
//!
//! Handlers only ask the controller and render: they keep no facts. Routes are made together with
//! their description ([`api`]). Every error is
//! `{"detail": ...}`. Who may ask what is decided by [`auth`], what browsers are told by
//! [`headers`]. Requests are bounded in number, size and time ([`guard`]), and a panic in a handler
//! costs its request.

pub mod api;
pub mod auth;
pub mod body;
pub mod chunks;
mod connections;
pub mod dashboard;
pub mod debug;
pub mod diagnose;
pub mod error;
pub mod events;
pub mod field;
pub mod fields;
pub mod fleet;
pub mod guard;
pub mod headers;
pub mod inspect;
pub mod live;
pub mod lookup;
pub mod openapi;
pub mod orchestration;
pub mod query;
pub mod serve;
pub mod sync;
pub mod tokens;

use axum::Router;
use axum::http::StatusCode;
use uuid::Uuid;

use self::api::Api;
use self::error::ApiError;
use crate::app::AppState;

/// Every route and what it is.
pub fn api() -> Api {
    Api::new("")
        .merge(lookup::routes())
        .merge(inspect::routes())
        .merge(diagnose::routes())
        .merge(sync::routes())
        .merge(debug::routes())
        .merge(auth::routes())
        .merge(dashboard::routes())
        .merge(openapi::routes())
        .merge(live::routes())
        .merge(fleet::routes())
        .merge(chunks::routes())
        .merge(orchestration::routes())
        .merge(events::routes())
}

/// Every route, guarded.
pub fn routes(state: AppState) -> Router {
    let routes = api()
        .into_router()
        .fallback(async || ApiError::not_found("Not Found"))
        .method_not_allowed_fallback(async || {
            ApiError::Detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".into())
        });
    // From the inside out: what is refused takes no place and reads no body.
    let guarded = auth::around(guard::around(routes, &state), &state);
    headers::around(guarded, &state).with_state(state)
}

/// A new event id: upstream's prefix of the request and a random UUID.
pub fn event_id(prefix: &str) -> String {
    format!("{prefix}{}", Uuid::new_v4())
}
