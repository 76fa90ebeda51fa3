//! Commands of orchestrators: clear, pin, compress, decompress, move, health.

use axum::Router;

use crate::app::AppState;

/// Routes of this file.
pub fn routes() -> Router<AppState> {
    Router::new()
}
