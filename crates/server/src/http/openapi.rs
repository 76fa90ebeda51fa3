//! GET /openapi.json: the description of every route, made once from the routes themselves.
//!
//! docs/openapi.json is this text; a test compares the two.

use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::api::Api;
use super::api::document;
use super::api::operation::{JSON, Operation};

/// The document; kept, as it never changes while the process runs.
static TEXT: LazyLock<String> = LazyLock::new(|| document::text(&super::api()));

/// Routes of this file.
pub fn routes() -> Api {
    let operation = Operation::new("openapi", "This description").gives::<Map<String, Value>>(
        "OpenAPI 3.1",
        json!({ "openapi": "3.1.0", "info": { "title": "KVAtlas", "version": "0.1.0" }, "paths": {} }),
    );
    Api::new("Page").get("/openapi.json", async || served(), operation)
}

/// The document.
pub fn text() -> &'static str {
    &TEXT
}

fn served() -> Response {
    // A new binary brings a new one.
    let headers = [(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-cache")];
    (headers, text()).into_response()
}
