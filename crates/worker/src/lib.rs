//! The other end of the wire: what an engine needs to be a worker of a cache controller.
//!
//! An engine keeps an [`Agent`] and tells it what it admits and evicts; the agent registers,
//! reports, beats, obeys commands and full syncs. It speaks LMCache's protocol, so the controller
//! may be KVAtlas or LMCache's own. [`sim`] is an engine without a GPU over the same library.
//!
//! ```text
//! engine threads ──admit/evict──> Publisher (bounded, never blocks)
//!                                     │ one event loop thread for many agents
//! controller  <──PUSH── batches, full-sync batches, deregistration
//!             <──DEALER── register, sync start and status, peer lookups, heartbeats
//!             ──REP──> commands ──> a thread per running command ──> Engine
//! ```
//!
//! Deciding parts take `now` and return values ([`publisher`], [`full_sync`], [`heartbeat`],
//! [`commands`]); `connection` is the only place that knows ZeroMQ, [`agent`] joins them.

pub mod agent;
pub mod commands;
pub mod config;
mod connection;
pub mod error;
pub mod full_sync;
pub mod heartbeat;
pub mod publisher;
pub mod sim;

pub use agent::{Agent, AgentStatus, PeerFinder, PeerHit, Reporter, Runtime};
pub use commands::{Compression, Engine, Movement};
pub use config::{AgentConfig, LmcacheConfig};
pub use error::{AgentError, ConfigError, EngineError};
