//! Events of commands that are still running or have finished.

use axum::Router;

use crate::app::AppState;

/// Routes of this file.
pub fn routes() -> Router<AppState> {
    Router::new()
}
