//! The `kvatlas` process: sockets, HTTP, configuration, metrics, signals.
//!
//! ```text
//! main -> cli -> config -> logging -> App::bind -> addresses printed -> App::run -> drained
//!
//! zmq/pull       thread  PUSH parts    -> controller
//! zmq/reply      thread  requests      -> controller -> replies
//! zmq/heartbeat  thread  heartbeats    -> controller -> replies
//! http           tokio   orchestrators -> controller, dispatch
//! housekeeping   thread  expiry, full-sync timeouts, sweep
//! ```
//!
//! A library only so that tests can start the process inside themselves; nothing else may depend on
//! it. It keeps no facts about workers or chunks: those are the controller's.

pub mod admission;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod history;
pub mod housekeeping;
pub mod http;
pub mod logging;
pub mod metrics;
pub(crate) mod reload;
pub mod scheme;
pub mod shutdown;
pub mod store;
pub mod tls;
pub mod traces;
pub mod zmq;
