//! The page at /: what this process is, and where to look.

use axum::Router;
use axum::response::Html;
use axum::routing::get;

use crate::app::AppState;

/// Routes of this file.
pub fn routes() -> Router<AppState> {
    Router::new().route("/", get(async || Html(PAGE)))
}

/// Embedded: the binary needs no files beside it.
const PAGE: &str = include_str!("../../dashboard/index.html");
