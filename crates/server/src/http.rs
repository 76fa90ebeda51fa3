//! The HTTP front.

pub mod error;
pub mod events;
pub mod orchestration;

use axum::Router;

use crate::app::AppState;

/// Every route.
pub fn routes() -> Router<AppState> {
    Router::new()
        .merge(orchestration::routes())
        .merge(events::routes())
}
