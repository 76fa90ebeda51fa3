//! The process as a value: configuration in, bound sockets out, then running, then drained.

use std::sync::Arc;

use kvatlas_controller::Controller;

use crate::clock::Clock;
use crate::config::Config;
use crate::dispatch::Dispatch;

/// What every front shares. Fronts keep nothing of their own.
pub struct Shared {
    /// The facts.
    pub controller: Controller,
    /// The only clock.
    pub clock: Clock,
    /// The effective configuration.
    pub config: Config,
    /// Commands to workers.
    pub dispatch: Dispatch,
}

/// State of every HTTP handler.
pub type AppState = Arc<Shared>;
